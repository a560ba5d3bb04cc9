"""A real server is killed with SIGKILL under concurrent writers, again and again.

Every acknowledged write is there afterwards; one whose answer never came is whole or absent; the
integrity check is clean. ``TREESTORE_KILLS`` sets how many times (default 6).
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import attrs
import trio

import treestore
from tests.integration.servers import Server
from treestore.engine.check import check_engine
from treestore.errors import TreeStoreError

KILLS = int(os.environ.get("TREESTORE_KILLS", "6"))
WRITERS = 12


@attrs.define
class Ledger:
    """What the clients know."""

    sure: dict[bytes, bytes] = attrs.field(factory=dict)
    """Key -> value whose write was acknowledged last."""
    unsure: dict[bytes, bytes] = attrs.field(factory=dict)
    """Key -> value whose answer never came."""
    batches: dict[int, bool] = attrs.field(factory=dict)
    """Batch -> whether it was acknowledged; its ten keys stand or fall together."""
    documents: dict[str, int] = attrs.field(factory=dict)
    """Policy -> number of the last acknowledged version."""
    attempted: dict[str, int] = attrs.field(factory=dict)


def structure(version: int) -> dict[str, object]:
    """A small tree in which every node says which version it is of."""
    leaf = {"title": f"leaf {version}", "text": f"{version} " * 100}
    return {"structure": [{"title": f"root {version}", "nodes": [dict(leaf) for _ in range(20)]}]}


async def write_keys(db: treestore.RemoteDatabase, task: int, turn: int, ledger: Ledger) -> None:
    """Single puts, each key written again and again."""
    n = 0
    while True:
        key, value = b"%d/%d" % (task, n % 20), b"%d/%d" % (turn, n)
        ledger.unsure[key] = value
        await db.kv.put(key, value)
        ledger.sure[key] = value
        del ledger.unsure[key]
        n += 1


async def write_batches(db: treestore.RemoteDatabase, turn: int, ledger: Ledger) -> None:
    """Ten keys at a time."""
    n = turn * 100_000
    while True:
        ledger.batches[n] = False
        await db.kv.batch(puts=[(b"batch/%d/%d" % (n, i), b"%d" % n) for i in range(10)])
        ledger.batches[n] = True
        n += 1


async def write_documents(db: treestore.RemoteDatabase, ledger: Ledger) -> None:
    """The same version of a policy, replaced whole each time."""
    while True:
        version = ledger.attempted.get("policy", 0) + 1
        ledger.attempted["policy"] = version
        await db.documents.store("policy", "v1", structure(version))
        ledger.documents["policy"] = version


async def one_life(server: Server, turn: int, random: Random, ledger: Ledger) -> None:
    """Clients write until the server is killed under them."""

    async def guarded(work: object, *args: object) -> None:
        try:
            await work(*args)  # type: ignore[operator]
        except TreeStoreError:
            return

    async with (
        treestore.connect(server.tcp, timeout=1.0) as db,
        trio.open_nursery() as nursery,
    ):
        for task in range(WRITERS):
            nursery.start_soon(guarded, write_keys, db, task, turn, ledger)
        nursery.start_soon(guarded, write_batches, db, turn, ledger)
        nursery.start_soon(guarded, write_documents, db, ledger)
        await trio.sleep(random.uniform(0.1, 0.8))
        await trio.to_thread.run_sync(server.kill)
        await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


async def verify(db: treestore.Database, ledger: Ledger) -> None:
    """The store against the ledger; what was unsure is sure from now on."""
    for key in ledger.sure.keys() | ledger.unsure.keys():
        found = await db.kv.get(key)
        assert found in (ledger.sure.get(key), ledger.unsure.get(key, ledger.sure.get(key))), key
        if found is not None:
            ledger.sure[key] = found
    ledger.unsure.clear()
    for batch, acknowledged in list(ledger.batches.items()):
        found_keys = [item async for item in db.kv.scan(prefix=b"batch/%d/" % batch)]
        assert len(found_keys) == 10 if acknowledged else len(found_keys) in (0, 10), batch
        ledger.batches[batch] = bool(found_keys)
    if ledger.attempted:
        nodes = await db.documents.get_subtree("policy") if ledger.documents else []
        titles = {node.title.split()[1] for node in nodes}
        allowed = {str(ledger.documents.get("policy", 0)), str(ledger.attempted["policy"])}
        assert len(titles) <= 1, titles
        assert titles <= allowed
        assert len(nodes) in (0, 21)
        if titles:
            ledger.documents["policy"] = int(titles.pop())
    assert (await db.admin.check()).errors == ()
    assert check_engine(db.engine).ok


async def test_sigkill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    random, ledger = Random(20240701), Ledger()
    for turn in range(KILLS):
        server = await trio.to_thread.run_sync(
            Server.start, tmp_path / "data", "--checkpoint-wal-mb", "1"
        )
        try:
            await one_life(server, turn, random, ledger)
        finally:
            if server.process.poll() is None:
                server.kill()
        async with treestore.open(tmp_path / "data") as db:
            await verify(db, ledger)
    assert len(ledger.sure) > WRITERS
    assert sum(ledger.batches.values()) > KILLS
    assert ledger.documents


async def test_sigterm_stops_cleanly_and_what_was_stored_is_there(tmp_path: Path) -> None:
    server = await trio.to_thread.run_sync(Server.start, tmp_path / "data")
    async with treestore.connect(server.tcp) as db:
        await db.kv.put(b"a", b"1")
        assert (await db.admin.health()).status == "ok"
    assert await trio.to_thread.run_sync(server.stop) == 0
    async with treestore.open(tmp_path / "data") as db:
        assert db.report.outcome == "clean"
        assert db.report.replayed_transactions == 0
        assert await db.kv.get(b"a") == b"1"
