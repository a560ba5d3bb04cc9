"""The scrubber beside a running database: damage is named, and nothing else is disturbed."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from actors.database import Database, open_database
from actors.scrubber import ScrubOptions
from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, environment

FAST = ScrubOptions(rate_bytes_per_s=1 << 40, pause_s=0.001, first_pause_s=math.inf)
"""Passes are made by the tests."""


@asynccontextmanager
async def database(disk: SimDisk, scrub: ScrubOptions = FAST) -> AsyncGenerator[Database]:
    async with open_database(
        "/db", options=SMALL, environment=environment(disk), scrub=scrub
    ) as db:
        yield db
        assert (await db.admin.check()).ok


async def fill(db: Database, count: int = 300, size: int = 60) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(db.kv.put, b"%05d" % number, b"%d" % number * size)
    await db.admin.checkpoint()


def flip(disk: SimDisk, offset: int) -> None:
    disk.poke("/db/pages", offset, bytes([disk.image("/db/pages")[offset] ^ 1]))


async def test_a_pass_counts_what_it_verified() -> None:
    async with database(SimDisk()) as db:
        await fill(db)
        before = await db.admin.stats()
        assert (before.scrub_passes, before.scrub_finished_at) == (0, None)
        await db.scrubber.scrub()
        stats = await db.admin.stats()
        check = await db.admin.check()
        assert stats.scrub_passes == 1
        assert stats.scrub_pages_verified >= check.pages_used
        assert stats.scrub_bytes_verified >= check.pages_used * stats.page_size_bytes
        assert stats.scrub_errors == 0
        assert stats.scrub_finished_at is not None
        assert stats.scrub_bytes_per_s > 0
        assert stats.snapshots == 0
        health = await db.admin.health()
        assert health.status == "ok"
        assert health.actors["scrubber"] == "running"


async def test_damage_is_named_in_health_until_it_is_gone() -> None:
    disk = SimDisk()
    async with database(disk) as db:
        await fill(db)
        root = db.engine.durable.root
        assert root.node is not None
        assert root.node.children is not None
        page = root.node.children[0].page
        flip(disk, page * 1024 + 500)
        await db.scrubber.scrub()
        health = await db.admin.health()
        assert health.status == "degraded"
        assert health.writable
        (problem,) = health.problems
        assert f"Page {page} of /db/pages" in problem
        assert (await db.admin.stats()).scrub_errors == 1
        await db.scrubber.scrub()
        assert len((await db.admin.health()).problems) == 1
        flip(disk, page * 1024 + 500)
        await db.scrubber.scrub()
        assert (await db.admin.health()).status == "ok"


async def test_a_damaged_meta_slot_is_named() -> None:
    disk = SimDisk()
    async with database(disk) as db:
        await fill(db)
        flip(disk, 4096 + 50)
        await db.scrubber.scrub()
        (problem,) = (await db.admin.health()).problems
        assert "offset 4096 is damaged" in problem
        result = await db.admin.check()
        assert result.ok
        assert len(result.warnings) == 1
        # Checkpoints write it anew.
        for turn in range(2):
            await db.kv.put(b"more", b"%d" % turn)
            await db.admin.checkpoint()
        await db.scrubber.scrub()
        assert (await db.admin.health()).status == "ok"


async def test_damage_in_a_closed_segment_is_named() -> None:
    disk = SimDisk()
    async with database(disk) as db:
        # One group after the other, with a checkpoint only at the beginning.
        for number in range(60):
            await db.kv.put(b"%05d" % number, bytes(3000))
        names = [name for name in disk.list("/db/log") if name.endswith(".log")]
        assert len(names) > 1
        path = f"/db/log/{names[0]}"
        await db.scrubber.scrub()
        assert (await db.admin.health()).status == "ok"
        disk.poke(path, 4096 + 70, b"?")
        await db.scrubber.scrub()
        (problem,) = (await db.admin.health()).problems
        assert path in problem
        disk.poke(path, 4096 + 70, b"\0")


async def test_no_false_alarm_beside_writes_and_checkpoints() -> None:
    """Pages are superseded, reused and written all the time."""
    async with database(SimDisk()) as db:
        await fill(db)
        done = False

        async def write() -> None:
            for turn in range(60):
                for number in range(0, 300, 7):
                    await db.kv.put(b"%05d" % number, b"%d" % turn * (50 if turn % 3 else 900))
                await db.admin.checkpoint()
            nonlocal done
            done = True

        async def scrub() -> None:
            while not done:
                await db.scrubber.scrub()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                nursery.start_soon(scrub)
        assert db.scrubber.statistics().passes > 3
        assert db.scrubber.problems() == []
        # Nothing stays pinned, so that pages are used again.
        assert db.engine.pinned() == []


async def test_it_gives_way_for_a_checkpoint_within_a_slice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pass takes thousands of slices here; a checkpoint waits for one."""
    monkeypatch.setattr("actors.scrubber.SLICE_BYTES", 1024)
    async with database(SimDisk()) as db:
        await fill(db)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.scrubber.scrub)
            await trio.testing.wait_all_tasks_blocked()
            await db.kv.put(b"new", b"value")
            assert await db.admin.checkpoint()
            assert db.scrubber.statistics().passes == 0
            nursery.cancel_scope.cancel()


async def test_the_rate_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    """Under a clock that jumps, only the rate takes time."""
    disk = SimDisk()
    async with database(disk, ScrubOptions(10_000, 100.0, math.inf)) as db:
        await fill(db, 100)
        began = trio.current_time()
        await db.scrubber.scrub()
        took = trio.current_time() - began
        stats = db.scrubber.statistics()
        assert took > stats.bytes / 10_000 * 0.999
        assert stats.bytes_per_s < 10_000 * 1.001


async def test_passes_follow_each_other(autojump_clock: trio.testing.MockClock) -> None:
    async with database(SimDisk(), ScrubOptions(1 << 30, 100.0, 60.0)) as db:
        await fill(db, 50)
        with trio.fail_after(1e6):
            while db.scrubber.statistics().passes < 3:  # noqa: ASYNC110
                await trio.sleep(10)


async def test_it_can_be_switched_off(autojump_clock: trio.testing.MockClock) -> None:
    async with database(SimDisk(), ScrubOptions(0, 0.0, 0.0)) as db:
        await trio.sleep(10_000)
        assert db.scrubber.statistics().passes == 0
        assert "scrubber" not in (await db.admin.health()).actors
