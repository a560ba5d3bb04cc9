"""Backups and the archive of a running database."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from actors.database import Database
from tests.actors.databases import SMALL_LOG, database
from tests.crash.simdisk import SimDisk
from tests.engine.backup.backups import ARCHIVED, archived_disk, contents_at, restore_to
from tests.engine.stores import environment
from treestore.engine.backup.copy import BackupCopy
from treestore.engine.backup.verify import verify_backup
from treestore.errors import (
    AlreadyExists,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return once it holds."""
    with trio.fail_after(20):
        while not await holds():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.01)


async def write_until(db: Database, stop: trio.Event, acknowledged: dict[bytes, bytes]) -> None:
    """Write the same keys again and again."""
    number = 0
    while not stop.is_set():
        key, value = b"%03d" % (number % 50), b"%d" % number
        await db.kv.put(key, value)
        acknowledged[key] = value
        number += 1


async def test_a_backup_under_load_has_what_was_acknowledged_before_it() -> None:
    disk = SimDisk(1)
    async with database(disk) as db, trio.open_nursery() as nursery:
        stop, acknowledged = trio.Event(), dict[bytes, bytes]()
        nursery.start_soon(write_until, db, stop, acknowledged)

        async def all_there() -> bool:  # noqa: ASYNC124 - like the others
            return len(acknowledged) == 50

        await until(all_there)
        parent = None
        for path in ("/full", "/next", "/last"):
            before = {key: int(value) for key, value in acknowledged.items()}
            made = await db.admin.backup(path, incremental_from=parent)
            after = {key: int(value) for key, value in acknowledged.items()}
            assert made.verified
            assert (made.parent_id is None) == (parent is None)
            restore_to(disk, path, f"/db{path[1:]}")
            found = contents_at(disk, f"/db{path[1:]}")
            values = {key: int(_value(found, key)) for key in before}
            for key, value in values.items():
                # One more may have been on its way.
                assert before[key] <= value <= after[key] + 50
            parent = path
        stop.set()
    verify_backup(environment(disk), "/last")


def _value(found: dict[bytes, bytes], key: bytes) -> bytes:
    """The value of a key of ``kv``, whatever its keyspace."""
    (value,) = [value for stored, value in found.items() if key in stored]
    return value


async def test_progress_one_at_a_time_and_cancelling(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimDisk(2)
    monkeypatch.setattr("treestore.engine.backup.copy.SLICE_SIZE_BYTES", 2000)
    async with database(disk) as db:
        await db.kv.batch(puts=[(b"%04d" % n, bytes(100)) for n in range(500)])
        assert await db.admin.backup_progress() is None
        with pytest.raises(InvalidArgument):
            await db.admin.backup("")
        with pytest.raises(InvalidArgument):
            await db.admin.backup("/full", rate_limit_mb=0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_slow_backup, db)

            async def copying() -> bool:
                found = await db.admin.backup_progress()
                return found is not None and found.phase == "copying" and found.size_bytes > 0

            await until(copying)
            found = await db.admin.backup_progress()
            assert found is not None
            assert 0 < found.pages < found.pages_total
            with pytest.raises(Unavailable, match="made already"):
                await db.admin.backup("/other")
            assert len(db.engine.snapshots()) == 1
            nursery.cancel_scope.cancel()
        assert await db.admin.backup_progress() is None
        assert db.engine.snapshots() == []
        assert not [name for name in disk.list("/") if name.startswith("slow")]
        await db.admin.backup("/full", verify=False)
        with pytest.raises(AlreadyExists):
            await db.admin.backup("/full")
    verify_backup(environment(disk), "/full")


async def _slow_backup(db: Database) -> None:
    await db.admin.backup("/slow", rate_limit_mb=0.02)


async def test_a_backup_that_fails_leaves_nothing_and_lets_go() -> None:
    disk = SimDisk(3)
    async with database(disk) as db:
        await db.kv.batch(puts=[(b"%04d" % n, bytes(100)) for n in range(500)])
        disk.fail_next("write", errno.ENOSPC, "/full.unfinished/pages")
        with pytest.raises(ResourceExhausted):
            await db.admin.backup("/full")
        disk.fail_next("rename", errno.EIO, "/full.unfinished")
        with pytest.raises(Unavailable):
            await db.admin.backup("/full")
        assert db.engine.snapshots() == []
        assert not [name for name in disk.list("/") if name.startswith("full")]
        assert (await db.admin.health()).status == "ok"
        assert (await db.admin.check()).ok


async def test_closing_stops_a_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimDisk(4)
    monkeypatch.setattr("treestore.engine.backup.copy.SLICE_SIZE_BYTES", 2000)

    async def back_up(db: Database) -> None:
        with pytest.raises(Unavailable, match="shutting down"):
            await db.admin.backup("/slow", rate_limit_mb=0.02)
        stopped.set()

    stopped = trio.Event()
    async with database(disk) as db, trio.open_nursery() as nursery:
        await db.kv.batch(puts=[(b"%04d" % n, bytes(100)) for n in range(500)])
        nursery.start_soon(back_up, db)

        async def copying() -> bool:
            found = await db.admin.backup_progress()
            return found is not None and found.size_bytes > 0

        await until(copying)
        await db.stop()
        await stopped.wait()
    assert not [name for name in disk.list("/") if name.startswith("slow")]


async def test_verification_finds_what_copying_spoiled(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimDisk(5)
    seal = BackupCopy.seal

    def spoiled(self: BackupCopy) -> object:
        sealed = seal(self)
        disk.poke(f"{sealed.path}/pages", 1500, b"\xff\x00")
        return sealed

    monkeypatch.setattr(BackupCopy, "seal", spoiled)
    async with database(disk) as db:
        await db.kv.batch(puts=[(b"%04d" % n, bytes(100)) for n in range(100)])
        with pytest.raises(Exception, match="damaged"):
            await db.admin.backup("/full")
        assert not disk.exists("/full")
        assert (await db.admin.check()).ok


FAST = attrs.evolve(ARCHIVED, archive_interval_s=0.05)


async def test_the_segment_in_use_is_archived_at_intervals_and_at_the_close() -> None:
    disk = archived_disk(6)
    async with database(disk, FAST) as db:
        await db.admin.backup("/base")
        await db.kv.put(b"a", b"1")
        lsn = (await db.admin.stats()).lsn

        async def archived() -> bool:
            return ((await db.admin.stats()).archived_lsn or 0) >= lsn

        await until(archived)
        left = disk.clone()
        await db.kv.put(b"b", b"2")
        assert (await db.admin.health()).status == "ok"
    restore_to(left, "/base", archive="/archive")
    assert len(contents_at(left, "/new")) == 1
    restore_to(disk, "/base", archive="/archive")
    assert len(contents_at(disk, "/new")) == 2


async def test_an_archive_that_fails_is_reported_and_holds_writers_back() -> None:
    disk = archived_disk(7)
    options = attrs.evolve(
        SMALL_LOG,
        archive_directory="/archive",
        archive_interval_s=0.05,
        log_segment_size_bytes_max=1 << 16,
    )
    async with database(disk, options) as db:
        await db.admin.backup("/base")
        broken = True

        def observe(_step: int, op: str, path: str) -> None:
            if broken and ".piece" in path and op == "open":
                disk.fail_next("open", errno.EROFS, path)

        disk.on_step = observe
        written = 0
        with pytest.raises(ResourceExhausted, match="archive"):
            while written < 1000:
                await db.kv.put(b"%04d" % written, bytes(4000))
                written += 1
        assert 20 < written < 300
        health = await db.admin.health()
        assert health.status == "degraded"
        assert health.writable
        assert any("archived" in problem for problem in health.problems)
        assert await db.kv.get(b"0001") == bytes(4000)
        broken = False

        async def well() -> bool:
            return (await db.admin.health()).status == "ok"

        await until(well)
        for more in range(30):
            await db.kv.put(b"more%d" % more, bytes(4000))
        expected = db.engine.durable.count
        assert (await db.admin.stats()).archive_failures > 0
    disk.on_step = None
    restore_to(disk, "/base", archive="/archive")
    assert len(contents_at(disk, "/new")) == expected


async def test_writers_faster_than_the_archive_wait_for_it() -> None:
    """A full log that is only not archived yet refuses nobody."""
    disk = archived_disk(8)
    options = attrs.evolve(SMALL_LOG, archive_directory="/archive", archive_interval_s=600.0)
    async with database(disk, options) as db:
        await db.admin.backup("/base")
        for number in range(600):
            await db.kv.put(b"%04d" % (number % 100), bytes((number % 256,)) * 8000)
        assert (await db.admin.stats()).log_stalls > 0
        assert (await db.admin.check()).ok
    restore_to(disk, "/base", archive="/archive")
    assert len(contents_at(disk, "/new")) == 100
