"""The compactor beside readers and writers: on demand, by itself, and where there is no room."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel

import treestore
from actors.database import Database, open_database
from tests.actors.databases import database, execute
from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL
from treestore.engine.compaction import Search
from treestore.engine.options import EngineOptions
from treestore.errors import ResourceExhausted, Unavailable

COUNT = 30_000


async def fill(db: Database, count: int, size: int) -> dict[bytes, bytes]:
    random = Random(1)
    model = {b"%06d" % n: random.randbytes(size) for n in range(count)}
    items = list(model.items())
    for first in range(0, count, 1000):
        await db.kv.batch(puts=items[first : first + 1000])
    await db.admin.checkpoint()
    return model


async def thin_out(db: Database, model: dict[bytes, bytes]) -> None:
    """Delete nine tenths, anywhere."""
    doomed = Random(2).sample(sorted(model), len(model) * 9 // 10)
    for first in range(0, len(doomed), 500):
        await db.kv.batch(deletes=doomed[first : first + 500])
    for key in doomed:
        del model[key]


async def test_space_comes_back_under_reads_and_writes(tmp_path: Path) -> None:
    options = EngineOptions(headroom_pages=16)
    async with open_database(tmp_path, options=options) as db:
        model = await fill(db, COUNT, 1000)
        await thin_out(db, model)
        before = db.engine.pages.file.size()
        assert before > COUNT * 1000
        done = trio.Event()
        reads = writes = 0

        async def read() -> None:
            nonlocal reads
            random, keys = Random(3), sorted(model)
            while not done.is_set():
                key = random.choice(keys)
                assert await db.kv.get(key) == model[key]
                reads += 1
                if not reads % 50:
                    await trio.lowlevel.checkpoint()

        async def write() -> None:
            nonlocal writes
            while not done.is_set():
                await db.kv.put(b"w%02d" % (writes % 50), b"%d" % writes)
                writes += 1

        async def scan() -> None:
            while not done.is_set():
                found = {key: value async for key, value in db.kv.scan(end=b"w")}
                assert found == model

        async with trio.open_nursery() as nursery:
            for task in (read, write, scan):
                nursery.start_soon(task)
            result = await db.admin.compact()
            done.set()
        assert reads > 0
        assert writes > 0
        after = db.engine.pages.file.size()
        assert result.pages_moved > 0
        assert result.bytes_given_back == before - result.page_file_size_bytes
        # Once the last scan lets go of what it kept, the rest can follow.
        await db.admin.compact()
        after = db.engine.pages.file.size()
        live = sum(len(key) + len(value) for key, value in model.items())
        assert after < 1.5 * live + 16 * 8192 + 512 * 8192
        assert (await db.admin.check()).ok
        stats = await db.admin.stats()
        assert stats.compactions == 2
        assert not stats.compaction_running
        assert stats.compaction_pages_moved >= result.pages_moved
    async with treestore.open(tmp_path) as db:
        assert {key: value async for key, value in db.kv.scan(end=b"w")} == model
        assert (await db.admin.check()).ok


async def test_it_begins_by_itself_when_much_was_free_for_a_while() -> None:
    options = attrs.evolve(SMALL, compact_size_bytes_min=1, page_size_bytes=4096)
    async with database(SimDisk(1), options) as db:
        model = await fill(db, 3000, 100)
        compactor = db.compactor
        await thin_out(db, model)
        await db.admin.compact()
        # What is short already is no reason to begin.
        for _ in range(10):
            compactor._spare.append(db.engine.spare_pages())
        assert not compactor._due()
        compactor._spare.clear()
        await fill(db, 3000, 100)
        await thin_out(db, dict.fromkeys([b"%06d" % n for n in range(3000)], b""))
        await db.admin.checkpoint()
        await db.admin.checkpoint()
        for _ in range(6):
            compactor._spare.append(db.engine.spare_pages())
        assert not compactor._due()
        compactor._spare.append(db.engine.spare_pages())
        assert compactor._due()
        compactor._spare[3] = 0
        assert not compactor._due()


async def test_a_full_disk_ends_it_with_a_clean_no() -> None:
    disk = SimDisk(1)
    async with database(disk) as db:
        model = await fill(db, 1000, 100)
        await thin_out(db, model)
        disk.fail_next("allocate", errno.ENOSPC, "pages", skip=1)
        with pytest.raises(ResourceExhausted):
            await db.admin.compact()
        assert not db.compactor.running
        assert (await db.admin.health()).writable
        before = db.engine.pages.file.size()
        await db.admin.compact()
        assert db.engine.pages.file.size() < before
        assert {key: value async for key, value in db.kv.scan()} == model
        assert (await db.admin.check()).ok


async def test_a_page_file_that_cannot_be_cut_stays_as_it_is() -> None:
    disk = SimDisk(1)
    async with database(disk) as db:
        model = await fill(db, 1000, 100)
        await thin_out(db, model)
        disk.fail_next("truncate", errno.EIO, "pages")
        await db.admin.compact()
        assert (await db.admin.health()).writable
        await db.kv.put(b"a", b"1")
        assert (await db.admin.check()).ok


async def test_it_can_be_cancelled_anywhere_and_begun_again() -> None:
    async with database(SimDisk(1)) as db:
        model = await fill(db, 2000, 100)
        await thin_out(db, model)
        size = db.engine.pages.file.size()
        do = db.compactor._do
        for allowed in range(12):
            with trio.CancelScope() as scope:
                steps = iter(range(allowed))

                async def stop(
                    step: Any, steps: Any = steps, scope: trio.CancelScope = scope
                ) -> Any:
                    if next(steps, None) is None:
                        scope.cancel()
                    return await do(step)

                db.compactor._do = stop  # type: ignore[method-assign]
                await db.admin.compact()
            assert not db.compactor.running
            assert not db.engine.snapshots()
        db.compactor._do = do  # type: ignore[method-assign]
        await db.admin.compact()
        assert db.engine.pages.file.size() < size
        assert (await db.admin.check()).ok
        assert {key: value async for key, value in db.kv.scan()} == model


async def test_closing_ends_it() -> None:
    disk = SimDisk(1)
    raised: list[Exception] = []
    async with trio.open_nursery() as nursery, database(disk) as db:
        model = await fill(db, 2000, 100)
        await thin_out(db, model)
        begun, do = trio.Event(), db.compactor._do

        async def until_closed(step: Any) -> Any:
            if isinstance(step, Search):
                begun.set()
                await db.writer.stopped.wait()
            return await do(step)

        db.compactor._do = until_closed  # type: ignore[method-assign]

        async def compact() -> None:
            try:
                await db.admin.compact()
            except Unavailable as error:
                raised.append(error)

        nursery.start_soon(compact)
        await begun.wait()
    assert "closed" in str(raised[0])
    async with database(disk) as db:
        assert {key: value async for key, value in db.kv.scan()} == model
        assert (await db.admin.check()).ok


async def test_moves_share_a_group_with_commands_that_fail() -> None:
    async with database(SimDisk(1)) as db:
        model = await fill(db, 500, 100)
        await thin_out(db, model)

        def fail(txn: object) -> None:
            txn.put(b"x", b"y" * 3000)  # type: ignore[attr-defined]
            raise ValueError("a fault of the caller's")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.admin.compact)
            for _ in range(20):
                with pytest.raises(ValueError, match="a fault"):
                    await execute(db, fail)
        assert {key: value async for key, value in db.kv.scan()} == model
        assert (await db.admin.check()).ok
