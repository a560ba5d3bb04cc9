"""A whole load test, from the server's start to the report."""

from __future__ import annotations

import signal
import ssl
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

import attrs
import trio

from treestore.errors import TreeStoreError
from treestore.loadtest.faces import Open, opener
from treestore.loadtest.plan import Plan
from treestore.loadtest.report import Report, report_of
from treestore.loadtest.run import drop, load, new_world
from treestore.loadtest.server import ServerProcess
from treestore.loadtest.statistics import Statistics
from treestore.loadtest.verify import Verified, verify
from treestore.loadtest.world import World

SPARE_CONNECTIONS = 20
TIDY_TIMEOUT_S = 30.0


@attrs.frozen(kw_only=True)
class Where:
    """Which server.

    Attributes:
        address: of a server that runs; None: one is started in a temporary directory.
        api_key: for it.
        tls: speak TLS with this context.
        kill: a server of one's own is killed before everything is verified (SIGKILL), and
            recovers: what is verified is what it had made durable.
        check: let the server check itself afterwards.
        keep: leave the collections of the run where they are.
    """

    address: str | None = None
    api_key: str | None = None
    tls: ssl.SSLContext | None = None
    kill: bool = True
    check: bool = True
    keep: bool = False


@attrs.frozen
class Told:
    """How far a test is.

    Attributes:
        what: "preparing", "load" or "verifying …".
        seconds: that the users work so far.
        statistics: what came of it so far; None while it is not "load".
    """

    what: str
    seconds: float = 0.0
    statistics: Statistics | None = None


Tell = Callable[[Told], None]


async def loadtest(plan: Plan, where: Where, tell: Tell = lambda told: None) -> Report:
    """Put a server under load and verify all that it stores.

    SIGINT or SIGTERM ends the load early; everything is verified and reported all the same. A
    second one is a `KeyboardInterrupt`.

    Args:
        plan: what the users do.
        where: to which server.
        tell: told how far it is.

    Raises:
        TreeStoreError: there is no server, or it does not let the users begin.
        KeyboardInterrupt: two signals, or one where there is no load to end.
    """
    tell(Told("preparing"))
    world = new_world(plan, token_hex(4))
    async with _server(plan, where) as server, _interruptible(world):
        address = where.address
        if server is not None:
            address = _address(server, plan)
        assert address is not None
        open_face = opener(plan, address, where.api_key, where.tls)
        try:
            await load(
                world, open_face, lambda seconds, so_far: tell(Told("load", seconds, so_far))
            )
            restarted = server is not None and where.kill
            if server is not None and restarted:
                tell(Told("verifying: the server recovers"))
                await trio.to_thread.run_sync(server.kill)
                await trio.to_thread.run_sync(server.start)
                open_face = opener(plan, _address(server, plan), where.api_key, where.tls)
            verified = await _verified(world, open_face, where, tell)
        finally:
            if server is None and not where.keep:
                with trio.move_on_after(TIDY_TIMEOUT_S, shield=True):
                    await _tidy(world, open_face)
    return report_of(world, verified, restarted=restarted)


def _address(server: ServerProcess, plan: Plan) -> str:
    host, port = server.tcp if plan.protocol == "tcp" else server.http
    return f"{host}:{port}"


async def _verified(world: World, open_face: Open, where: Where, tell: Tell) -> Verified | None:
    try:
        async with open_face() as face:
            return await verify(
                world, face, lambda what: tell(Told(f"verifying: {what}")), check=where.check
            )
    except TreeStoreError as error:
        # The load is over and known; that nothing could be verified is a finding, too.
        world.ledger.complain(f"verifying ended: {error.code}: {error.message}")
        return None


async def _tidy(world: World, open_face: Open) -> None:
    """Remove what the run made on somebody's server, as far as that can be done."""
    try:
        async with open_face() as face:
            await drop(world, face)
    except TreeStoreError:
        pass


@asynccontextmanager
async def _server(plan: Plan, where: Where) -> AsyncGenerator[ServerProcess | None]:
    if where.address is not None:
        yield None
        return
    connections = str(plan.users + SPARE_CONNECTIONS)
    with tempfile.TemporaryDirectory(prefix="treestore-loadtest-") as directory:
        flags = (
            *("--max-connections", connections, "--http-connections", connections),
            *("--log-level", "warning"),
        )
        server = ServerProcess(Path(directory) / "data", Path(directory) / "server.log", flags)
        try:
            await trio.to_thread.run_sync(server.start)
            yield server
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(server.kill)


@asynccontextmanager
async def _interruptible(world: World) -> AsyncGenerator[None]:
    """The first signal ends the load, if there is one; the next is an interruption."""

    async def listen() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if world.end.is_set() or not world.statistics.seconds:
                    raise KeyboardInterrupt
                world.end.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        yield
        nursery.cancel_scope.cancel()
