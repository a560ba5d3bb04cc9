"""A lost connection: what is sent again, and that it is applied once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from actors.wire import WireSettings
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import eventually, listening
from treestore.client import connect
from treestore.client.calls import Backoff, Sequencer
from treestore.errors import OutcomeUnknown, SnapshotExpired, Unavailable


class Proxy:
    """Between client and server; can lose the answers and the connections."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.port = 0
        self.lose_answers = False
        self.refuse = False
        self._scopes: set[trio.CancelScope] = set()

    def drop(self) -> None:
        """Cut every connection."""
        for scope in self._scopes:
            scope.cancel()

    async def serve(self, client: trio.SocketStream) -> None:
        async with client:  # Closed also where it is dropped before the server is reached.
            if not self.refuse:
                with trio.CancelScope() as scope:
                    self._scopes.add(scope)
                    await self._join(client, scope)
                self._scopes.discard(scope)

    async def _join(self, client: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.server_port)
        except OSError:
            return
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, client, server, scope, False)
            nursery.start_soon(self._copy, server, client, scope, True)

    async def _copy(
        self, source: trio.abc.Stream, to: trio.abc.Stream, scope: trio.CancelScope, answers: bool
    ) -> None:
        try:
            async for data in source:
                if not (answers and self.lose_answers):
                    await to.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def proxied(server_port: int) -> AsyncGenerator[Proxy]:
    proxy = Proxy(server_port)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, proxy.serve, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        proxy.port = listener.socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()


Call = Callable[[], Awaitable[object]]


async def lose_answer_of(proxy: Proxy, applied: Callable[[], bool]) -> None:
    """Let the server do the work, lose its answer, and cut the connection."""
    await eventually(applied)
    await trio.sleep(0.01)
    proxy.lose_answers = False
    proxy.drop()


@pytest.mark.parametrize("name", ["delete", "put"])
async def test_a_retried_command_is_applied_once(name: str) -> None:
    host = FakeHost()
    host.put(b"a", b"1")
    with trio.fail_after(10):
        async with (
            listening(host) as listener,
            proxied(listener.port) as proxy,
            connect(f"127.0.0.1:{proxy.port}") as db,
        ):
            await db.kv.get(b"a")
            proxy.lose_answers = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lose_answer_of, proxy, lambda: bool(host.applied))
                if name == "delete":
                    assert await db.kv.delete(b"a") is True
                else:
                    await db.kv.put(b"a", b"2")
            assert host.applied == [f"kv.{name}"]
            await db.kv.put(b"b", b"")
            assert len(host.answers) == 1  # The watermark moved on.


async def test_a_forgotten_answer_is_an_unknown_outcome() -> None:
    host = FakeHost()
    host.forget_answers = True
    with trio.fail_after(10):
        async with (
            listening(host) as listener,
            proxied(listener.port) as proxy,
            connect(f"127.0.0.1:{proxy.port}") as db,
        ):
            proxy.lose_answers = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lose_answer_of, proxy, lambda: bool(host.applied))
                with pytest.raises(OutcomeUnknown):
                    await db.kv.delete(b"a")
            assert host.applied == ["kv.delete"]


async def test_a_command_that_cannot_be_settled_has_an_unknown_outcome() -> None:
    host = FakeHost()
    with trio.fail_after(10):
        async with (
            listening(host) as listener,
            proxied(listener.port) as proxy,
            connect(f"127.0.0.1:{proxy.port}", timeout=0.3) as db,
        ):
            proxy.lose_answers = True
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cut() -> None:
                    await eventually(lambda: bool(host.applied))
                    proxy.refuse = True
                    proxy.drop()

                with pytest.raises(OutcomeUnknown, match="may or may not"):
                    await db.kv.delete(b"a")
            # Not begun at all: that is certain.
            with pytest.raises(Unavailable, match="No connection"):
                await db.kv.delete(b"a")


async def test_queries_and_streams_are_sent_again() -> None:
    host = FakeHost()
    for number in range(3000):
        host.put(b"%05d" % number, bytes(1000))
    host.cold_queries = True
    host.query_gate = trio.Event()
    with trio.fail_after(10):
        async with (
            listening(host) as listener,
            proxied(listener.port) as proxy,
            connect(f"127.0.0.1:{proxy.port}") as db,
        ):
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cut() -> None:
                    await eventually(lambda: listener.statistics().requests_in_flight > 0)
                    proxy.drop()
                    host.cold_queries = False

                assert await db.kv.get(b"00001") == bytes(1000)
            count = 0
            with pytest.raises(Unavailable, match="cut off"):
                async for _ in db.kv.scan():
                    count += 1
                    if count == 10:
                        proxy.drop()
            assert 10 <= count < 3000
            assert len([item async for item in db.kv.scan(limit=5)]) == 5


async def test_a_snapshot_ends_with_its_connection() -> None:
    host = FakeHost()
    with trio.fail_after(10):
        async with (
            listening(host) as listener,
            proxied(listener.port) as proxy,
            connect(f"127.0.0.1:{proxy.port}") as db,
            db.snapshot() as snapshot,
        ):
            await snapshot.kv.get(b"a")
            proxy.drop()
            await eventually(lambda: not host.snapshots)
            with pytest.raises(SnapshotExpired):
                await snapshot.kv.get(b"a")
            assert await db.kv.get(b"a") is None


async def test_a_server_that_stops_gracefully_loses_nothing() -> None:
    """Its clients go on with the next server on the same port."""
    host = FakeHost()
    host.hold_commands = True
    results: list[object] = []
    with trio.fail_after(10):
        async with (
            listening(host, WireSettings(grace_s=5)) as listener,
            proxied(listener.port) as proxy,
            connect(f"127.0.0.1:{proxy.port}") as db,
            trio.open_nursery() as nursery,
        ):

            async def delete(key: bytes) -> None:
                results.append(await db.kv.delete(key))

            nursery.start_soon(delete, b"a")
            await eventually(lambda: len(host.waiting) == 1)
            listener.stop()
            await trio.sleep(0.02)
            nursery.start_soon(delete, b"b")
            await trio.sleep(0.02)
            async with listening(host) as second:
                proxy.server_port = second.port
                host.hold_commands = False
                host.run_commands()
                await eventually(lambda: len(results) == 2)
    assert sorted(host.applied) == ["kv.delete"] * 2


async def test_a_failing_background_task_does_not_cancel_the_body(monkeypatch) -> None:
    from treestore.client.trio_connection import TrioConnection

    async def crash(self: TrioConnection) -> str:
        await trio.sleep(0.01)
        raise ZeroDivisionError

    monkeypatch.setattr(TrioConnection, "_read", crash)
    with trio.fail_after(10):
        async with (
            listening(FakeHost()) as listener,
            connect(f"127.0.0.1:{listener.port}", timeout=1) as db,
        ):
            await trio.sleep(0.05)
            with pytest.raises(Unavailable, match="The client failed"):
                await db.kv.get(b"a")


def test_the_watermark_is_the_lowest_number_that_may_be_sent_again() -> None:
    sequencer = Sequencer()
    assert sequencer.watermark == 1
    first, second = sequencer.take(), sequencer.take()
    assert (first, second, sequencer.watermark) == (1, 2, 1)
    sequencer.release(second)
    assert sequencer.watermark == 1
    sequencer.release(first)
    assert sequencer.watermark == 3


def test_waits_grow_and_are_bounded() -> None:
    backoff = Backoff(first_s=1, max_s=4)
    for upper in (1, 2, 4, 4):
        assert upper / 2 <= backoff.next() <= upper
    backoff.reset()
    assert backoff.next() <= 1
