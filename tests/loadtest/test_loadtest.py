"""The load test on real servers; and that it finds what is planted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import treestore
from tests.integration.servers import Server
from treestore.loadtest.faces import Open, opener
from treestore.loadtest.plan import Plan, Protocol
from treestore.loadtest.report import report_of
from treestore.loadtest.run import drop, load, new_world
from treestore.loadtest.verify import verify
from treestore.loadtest.world import World

pytestmark = pytest.mark.slow  # every test starts a server process

PROTOCOLS: tuple[Protocol, ...] = ("tcp", "http")


@asynccontextmanager
async def served(directory: Path, *flags: str) -> AsyncGenerator[Server]:
    with trio.fail_after(90):
        server = await trio.to_thread.run_sync(partial(Server.start, directory / "data", *flags))
        try:
            yield server
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(server.kill)


def run_command(*arguments: object, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "treestore.cli", "loadtest", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_twenty_users_for_five_seconds(tmp_path: Path, protocol: str) -> None:
    """Integrity, consistency and reporting, as a user has them."""
    file = tmp_path / "report.json"
    done = run_command(
        *("--users", 20, "--duration", 5, "--seed", 3, "--protocol", protocol, "--json", file)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was lost" in done.stdout
    assert "after a SIGKILL" in done.stdout
    for word in ("p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms", "timeouts %"):
        assert word in done.stdout
    report = json.loads(file.read_text())
    assert report["ok"]
    assert report["problems"] == []
    assert report["plan"]["protocol"] == protocol
    assert report["verified"]["check"] == "ok"
    assert report["verified"]["documents"] > 100
    assert report["verified"]["queries"] > 100
    assert {"group", "key", "user,score"} <= set(report["verified"]["indexes"])
    assert report["restarted"]
    assert report["transfers"] > 0
    assert report["writes_unknown"] == 0
    operations = report["operations"]
    assert {"get", "insert", "insert again", "update", "replace", "delete"} <= operations.keys()
    assert {"find range", "find equal", "find element", "count", "transfer"} <= operations.keys()
    assert ("sum accounts" in operations) == (protocol == "tcp")
    total = report["total"]
    assert sum(row["calls"] for row in operations.values()) == total["calls"]
    latency = total["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["p99"]
    assert latency["p99"] <= latency["max"]
    assert total["ok_percent"] == 100.0
    assert len(report["timeline"]) >= 5


def test_the_command_line() -> None:
    for wrong in (("--mix", "sleeping=1"), ("--users", "0"), ("--protocol", "smoke")):
        done = run_command(*wrong)
        assert (done.returncode, done.stdout) == (2, "")
    done = run_command("--address", "127.0.0.1:1", "--duration", 1, "--timeout", 1)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 2, done.stderr  # "preparing", and the error
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_early_with_the_report(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "treestore.cli", "loadtest", "--users", "5"),
            *("--duration", "600", "--json", str(file)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("load 00 %"):
            break
    time.sleep(1.5)  # Until some seconds of load are counted.
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, output + errors
    report = json.loads(file.read_text())
    assert 0 < report["elapsed_s"] < 300
    assert report["verified"]["check"] == "ok"


async def test_limits_are_no_errors(tmp_path: Path) -> None:
    async with served(tmp_path, "--rate-limit", "20", "--rate-burst", "5") as server:
        world, _ = await run_short(server, "http")
        report = report_of(world, None)
    assert report.limits.keys() == {"rate_limited"}
    assert not report.errors
    assert not report.wrong, report.problems
    assert report.total.limited_percent > 0


async def run_short(
    server: Server, protocol: Protocol, address: str | None = None
) -> tuple[World, Open]:
    """The load, not yet verified."""
    plan = Plan(users=6, duration_s=1.0, seed=11, protocol=protocol)
    world = new_world(plan, "test")
    open_face = opener(plan, address or (server.tcp if protocol == "tcp" else server.http))
    await load(world, open_face)
    return world, open_face


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_is_lost_or_planted_is_found(tmp_path: Path, protocol: Protocol) -> None:
    """Behind the users' backs, each kind of thing is changed; each is complained about."""
    async with served(tmp_path) as server:
        world, open_face = await run_short(server, protocol)
        async with open_face() as face:
            await verify(world, face)
        assert world.ledger.problems == []
        ledger, names = world.ledger, world.names
        lost, changed, old, doubled, claimed = [
            entry for entry in ledger.entries.values() if entry.present
        ][:5]
        async with treestore.connect(server.tcp) as db:
            put = db.collections
            await put.delete(names.documents, lost.id)
            await put.update(names.documents, changed.id, {"$set": {"text": "tampered"}})
            await put.insert(names.documents, {"_id": "stranger", "group": 3})
            if old.settled == 1:
                ledger.acknowledge(old, ledger.begin(old))
            await put.replace(names.documents, old.id, ledger.content(old, old.settled - 1))
            moved, other = list(world.books.balances)[:2]
            await put.update(names.accounts, moved, {"$inc": {"balance": 5}})
            await put.update(names.accounts, other, {"$inc": {"balance": -7}})
            posted = list(world.books.posted.values())
            await put.delete(names.postings, f"{posted[0].id}-in")
            await put.insert(names.postings, {"transfer": "t99", "user": 1, "amount": 1})
        # An entry of the ledger that was never written.
        ledger.acknowledge(claimed, ledger.begin(claimed))
        async with open_face() as face:
            await verify(world, face)
            told = "\n".join(ledger.problems)
            await drop(world, face)
    assert f"{lost.id} is gone" in told
    assert f"{changed.id} revision {changed.settled} differs in text" in told
    assert "stranger was found and never written" in told
    assert f"{old.id} was found as revision {old.settled - 1}" in told
    assert f"{claimed.id} was found as revision {claimed.settled - 1}" in told
    assert doubled.id not in told
    assert "all accounts hold" in told
    assert f"account {moved} holds" in told
    assert f"the postings of {posted[0].id} are" in told
    assert "postings of t99, which was not done" in told
    assert not report_of(world, None).ok


async def test_an_index_that_disagrees_is_found(tmp_path: Path) -> None:
    """Queries go to another collection than reads do, in which documents are missing."""
    async with served(tmp_path) as server:
        world, open_face = await run_short(server, "tcp")
        present = [entry for entry in world.ledger.entries.values() if entry.present]
        async with open_face() as face:
            await verify(world, _Forgetful(face, present[0].id), check=False)  # type: ignore[arg-type]
    assert world.ledger.problems
    assert all("than going over all gives" in told or "count of" in told for told in
               world.ledger.problems)  # fmt: skip
    assert any(present[0].id in told for told in world.ledger.problems)


class _Forgetful:
    """A face whose indexes have lost one document."""

    def __init__(self, face: Any, id: str) -> None:
        self.collections = self
        self._face = face
        self._id = id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._face if name == "indexes" else self._face.collections, name)

    async def find(self, name: str, filter: Any = None, **options: Any) -> Any:
        page = await self._face.collections.find(name, filter, **options)
        if filter is not None:
            page.items[:] = [each for each in page.items if each["_id"] != self._id]
        return page


Tamper = Callable[[bytes], bytes]


async def run_proxy(
    port: int,
    tamper: Tamper,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A proxy that changes what the server answers, without changing its length."""

    async def serve(client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", port)
        async with server, client, trio.open_nursery() as nursery:

            async def pump(
                source: trio.SocketStream, to: trio.SocketStream, change: Tamper
            ) -> None:
                try:
                    while data := await source.receive_some(1 << 20):
                        await to.send_all(change(data))
                except trio.BrokenResourceError:
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(pump, client, server, bytes)
            nursery.start_soon(pump, server, client, tamper)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    task_status.started(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(serve, listeners)


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        (b'"floor":1', b'"floor":7', "differs in place"),
        (b'"revision":1,', b'"revision":0,', "was found as revision 0"),
        (b'"amount":-', b'"amount":1', "postings of"),
    ],
)
async def test_answers_that_are_tampered_with_are_found(
    tmp_path: Path, before: bytes, after: bytes, complaint: str
) -> None:
    async with served(tmp_path) as server, trio.open_nursery() as nursery:
        port = int(server.http.rpartition(":")[2])
        change = partial(_replaced, before, after)
        proxy = await nursery.start(run_proxy, port, change)
        address = f"127.0.0.1:{proxy}"
        done = await trio.to_thread.run_sync(
            partial(
                run_command,
                *("--address", address, "--protocol", "http", "--users", 5, "--duration", 1),
            )
        )
        nursery.cancel_scope.cancel()
    assert done.returncode == 1, done.stdout + done.stderr
    assert complaint in done.stdout


def _replaced(before: bytes, after: bytes, data: bytes) -> bytes:
    return data.replace(before, after)


async def test_a_run_leaves_nothing_on_somebodys_server(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        for protocol, where in (("tcp", server.tcp), ("http", f"http://{server.http}")):
            done = await trio.to_thread.run_sync(
                partial(
                    run_command,
                    *("--address", where, "--protocol", protocol, "--users", 3),
                    *("--duration", 0.5, "--json", "-"),
                )
            )
            assert done.returncode == 0, done.stdout + done.stderr
            report = json.loads(done.stdout)
            assert report["ok"]
            assert not report["restarted"]
        async with treestore.connect(server.tcp) as db:
            assert (await db.collections.list()).items == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_key_for_its_collections_is_enough(tmp_path: Path, protocol: Protocol) -> None:
    async with treestore.open(tmp_path / "data") as db:
        scopes = [f"{verb}:collections/loadtest-*" for verb in ("read", "write")]
        key = (await db.admin.create_key(scopes)).secret
    async with served(tmp_path) as server:
        common = ("--users", 3, "--duration", 0.5, "--protocol", protocol)
        where = ("--address", server.tcp if protocol == "tcp" else server.http)
        asked = partial(run_command, *common, *where, "--api-key", key, "--json", "-")
        done = await trio.to_thread.run_sync(asked)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["verified"]["check"] == "not allowed"
        refused = await trio.to_thread.run_sync(partial(run_command, *common, *where))
        assert refused.returncode == 1
        assert "API key" in refused.stderr
