"""A real server is killed under real clients, and what they were told must be true.

``TREESTORE_KILLS`` sets how many times (default 6); `scripts/chaos.py kill` does hundreds.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import trio

import treestore
from scripts.torture.clients import Clients, prepare, verify
from scripts.torture.kill import torture
from tests.integration.servers import Server

KILLS = int(os.environ.get("TREESTORE_KILLS", "6"))


async def test_sigkill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with trio.fail_after(60 + 30 * KILLS):
        result = await torture(KILLS, 20240701, tmp_path)
    assert result.ok, (result.failure, [str(loss) for loss in result.losses])
    assert result.mishaps["killed"] >= KILLS
    assert result.acknowledged > 20 * KILLS


async def test_what_is_lost_is_noticed(tmp_path: Path) -> None:
    """The check itself: each kind of thing is taken away behind the clients' backs."""
    async with treestore.open(tmp_path / "data") as db:
        await prepare(db)
        clients = Clients(Random(1))
        async with trio.open_nursery() as nursery:
            clients.go()
            nursery.start_soon(clients.run, [db], 3)
            while clients.calls < 100:  # noqa: ASYNC110 (nothing tells a test of the hundredth)
                await trio.sleep(0.01)
            await clients.rest()
            nursery.cancel_scope.cancel()
        whole = [number for number, acknowledged in clients.batches.items() if acknowledged]
        await verify(db, clients)
        assert clients.ledger.losses == []
        key = next(key for key, value in clients.ledger.certain.items() if value is not None)
        await db.kv.delete(key)
        clients.batches[whole[0]] = True
        await db.kv.delete(b"batch/%d/3" % whole[0])
        node = next(iter(clients.nodes))
        await db.documents.delete_node("torture-once", node, version_id="v1")
        await db.documents.delete_policy("torture")
        await verify(db, clients)
        lost = " ".join(str(loss) for loss in clients.ledger.losses)
    for what in (repr(key), f"batch {whole[0]}", node, "document"):
        assert what in lost
    assert len(clients.ledger.losses) == 4


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
