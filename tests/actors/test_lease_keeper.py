"""Readers that hold a state for too long, or too much of one: warned of, evicted, told where to
go on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import treestore
from actors.database import Database
from tests.actors.databases import database
from tests.actors.wire_tools import eventually
from tests.client.memory_tools import memory_database
from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL
from treestore.errors import SnapshotExpired

ITEMS = {b"%04d" % n: b"old" * 20 for n in range(600)}


async def fill(db: Any) -> None:
    await db.kv.batch(puts=list(ITEMS.items()))


class Time:
    """The keeper's clock, moved by hand."""

    def __init__(self, db: Database) -> None:
        self.now = 0.0
        keeper = db.lease_keeper
        keeper.advance()
        keeper._clock = lambda: self.now
        keeper._advanced_at = keeper._next_count = 0.0
        self._keeper = keeper

    async def passes(self, seconds: float) -> None:
        self.now += seconds
        await self._keeper.check()


async def test_requirement_10_old_snapshots_are_warned_of_then_evicted() -> None:
    async with database(SimDisk(1)) as db:
        await fill(db)
        time = Time(db)
        async with db.snapshot() as snapshot:
            (info,) = await db.admin.snapshots()
            assert (info.owner, info.state, info.reads_in_flight) == ("embedded", "ok", 0)
            assert info.number == db.engine.durable.number
            await time.passes(SMALL.snapshot_age_s_soft + 1)
            (info,) = await db.admin.snapshots()
            assert info.state == "soft"
            assert info.age_s == SMALL.snapshot_age_s_soft + 1
            health = await db.admin.health()
            assert health.status == "degraded"
            assert "embedded is open for 301 s" in health.problems[0]
            assert await snapshot.kv.get(b"0001") == ITEMS[b"0001"]
            await time.passes(SMALL.snapshot_age_s_hard)
            assert await db.admin.snapshots() == []
            with pytest.raises(SnapshotExpired, match="evicted: it was open for 3901 s") as caught:
                await snapshot.kv.get(b"0001")
            assert caught.value.cursor is None
        assert (await db.admin.health()).status == "ok"
        assert (await db.admin.stats()).snapshots_evicted == 1
        assert (await db.admin.check()).ok


async def test_the_oldest_goes_when_together_they_keep_too_much() -> None:
    options = attrs.evolve(SMALL, snapshot_pinned_bytes_max=150 * SMALL.page_size_bytes)
    async with database(SimDisk(1), options) as db:
        time = Time(db)
        await fill(db)
        await db.admin.checkpoint()
        async with db.snapshot() as first, db.snapshot() as same:
            await fill(db)
            await db.admin.checkpoint()
            await db.admin.checkpoint()
            async with db.snapshot() as later:
                for _ in range(3):
                    await fill(db)
                    await db.admin.checkpoint()
                listed = await db.admin.snapshots()
                assert len(listed) == 3
                assert all(info.pinned_bytes > 40 * SMALL.page_size_bytes for info in listed)
                db.engine.options = attrs.evolve(
                    options, snapshot_pinned_bytes_max=listed[2].pinned_bytes
                )
                await time.passes(1)
                assert [info.id for info in await db.admin.snapshots()] == [listed[2].id]
                for gone in (first, same):
                    with pytest.raises(SnapshotExpired, match="bytes from being used again"):
                        await gone.kv.get(b"0001")
                assert await later.kv.get(b"0001") == ITEMS[b"0001"]
        assert (await db.admin.check()).ok


async def test_a_read_in_flight_keeps_its_pages_until_it_notices() -> None:
    async with database(SimDisk(1)) as db:
        await fill(db)
        time = Time(db)
        entered, release = threading.Event(), threading.Event()
        caught: list[BaseException] = []

        def read(txn: Any) -> int:
            entered.set()
            assert release.wait(10)
            return sum(len(keys) for _ in range(100) for keys, _ in txn.batches(b"", None))

        async def query() -> None:
            from actors.embedded import in_thread

            try:
                await in_thread(db, None, read, raw=False)
            except SnapshotExpired as error:
                caught.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(query)
            assert await trio.to_thread.run_sync(entered.wait, 5)
            await time.passes(SMALL.snapshot_age_s_hard)
            (info,) = await db.admin.snapshots()
            assert (info.owner, info.state, info.reads_in_flight) == ("query", "hard", 1)
            release.set()
        assert "evicted" in str(caught[0])
        assert await db.admin.snapshots() == []


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
async def test_a_scan_that_was_cut_off_goes_on_where_it_was(remote: bool, reverse: bool) -> None:
    values = {b"%04d" % n: bytes(20_000) for n in range(300)}
    async with database(SimDisk(1)) as host, memory_database(host) as client:
        db: Any = client if remote else host
        for first in range(0, 300, 50):
            await db.kv.batch(puts=list(values.items())[first : first + 50])
        time = Time(host)
        delivered: list[bytes] = []
        cursor: bytes | None = None
        delivered_until: list[bytes | None] = []
        evictions = 0
        while True:
            bounds = {} if cursor is None else {"end" if reverse else "start": cursor}
            try:
                async for key, _ in db.kv.scan(reverse=reverse, **bounds):
                    delivered.append(key)
                    if len(delivered) % 100 == 20 and evictions < 3:
                        evictions += 1
                        await time.passes(SMALL.snapshot_age_s_hard)
                        await db.kv.put(b"9999", b"written meanwhile")
                        await db.kv.delete(b"9999")
            except SnapshotExpired as error:
                cursor = error.details["cursor"]
                delivered_until.append(error.cursor)
            else:
                break
        assert evictions == 3
        assert cursor == delivered_until[-1]
        assert delivered == sorted(values, reverse=reverse)
        assert await host.admin.snapshots() == []


async def test_a_scan_on_a_lost_connection_says_where_it_was(tmp_path: Path) -> None:
    async with treestore.open(tmp_path) as host:
        for first in range(0, 300, 50):
            await host.kv.batch(puts=[(b"%04d" % (first + n), bytes(20_000)) for n in range(50)])
        async with memory_database(host) as db, db.snapshot() as snapshot:
            (info,) = await host.admin.snapshots()
            assert info.owner == "session 1 (memory)"
            scan = aiter(snapshot.kv.scan())
            key, _ = await anext(scan)
            assert len(await host.admin.snapshots()) == 2
            connection = snapshot.kv._caller._connection  # type: ignore[attr-defined]
            await connection.aclose()
            with pytest.raises(SnapshotExpired) as caught:
                while True:
                    key, _ = await anext(scan)
            assert caught.value.cursor == key + b"\0"
            # Nothing is left of the connection: its snapshots and streams are free at once.
            await eventually(lambda: not host.engine.snapshots())
