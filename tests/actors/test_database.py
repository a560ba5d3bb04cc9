"""The running database: commits, failures, limits, closing; on simulated and on real disks."""

from __future__ import annotations

import errno
import gc
from pathlib import Path

import pytest
import trio

import treestore
from actors.mail import Call, Mail, WriterLimits
from actors.session_work import Command
from tests.actors.databases import SMALL_LOG, Gate, database
from tests.actors.wire_tools import eventually, listening
from tests.crash.simdisk import SimDisk
from tests.engine.stores import open_small
from treestore.engine.check import check_engine
from treestore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    ResourceExhausted,
    TreeStoreError,
    Unavailable,
)


async def test_what_was_put_is_there_after_reopening(tmp_path: Path) -> None:
    async with treestore.open(tmp_path / "new" / "data") as db:
        await db.kv.put(b"key", b"value")
        assert await db.kv.get(b"key") == b"value"
        assert await db.kv.delete(b"other") is False
        await db.kv.batch(puts=[(b"a", b"1"), (b"b", b"2")], deletes=[b"key"])
    async with treestore.open(tmp_path / "new" / "data") as db:
        assert [item async for item in db.kv.scan()] == [(b"a", b"1"), (b"b", b"2")]
        assert [item async for item in db.kv.scan(reverse=True, limit=1)] == [(b"b", b"2")]
        assert [item async for item in db.kv.scan(prefix=b"a")] == [(b"a", b"1")]
        assert [item async for item in db.kv.scan(start=b"aa", end=b"z")] == [(b"b", b"2")]
        assert (await db.admin.check()).ok


async def test_many_tasks_share_groups_and_read_their_writes(tmp_path: Path) -> None:
    async with treestore.open(tmp_path) as db:

        async def work(task: int) -> None:
            for n in range(20):
                key = b"%d-%d" % (task, n)
                await db.kv.put(key, b"v" * n)
                assert await db.kv.get(key) == b"v" * n

        async with trio.open_nursery() as nursery:
            for task in range(50):
                nursery.start_soon(work, task)
        stats = await db.admin.stats()
        assert stats.keys == 1000
        assert stats.transactions == 1000
        assert stats.groups < 500
        assert stats.lsn >= 1000
        health = await db.admin.health()
        assert health.status == "ok"
        assert health.writable


async def test_body_errors_come_out_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with treestore.open(tmp_path):
            raise KeyError("mine")
    with pytest.raises(NotFound):
        async with treestore.open(tmp_path / "absent", create=False):
            pass
    with trio.move_on_after(0.05) as scope:
        async with treestore.open(tmp_path):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_command_that_raises_changes_nothing(tmp_path: Path) -> None:
    async with treestore.open(tmp_path) as db:
        with pytest.raises(InvalidArgument, match="bytes"):
            await db.kv.batch(puts=[(b"a", b"1"), (b"b", "text")])  # type: ignore[list-item]
        assert await db.kv.get(b"a") is None
        with pytest.raises(InvalidArgument, match="empty"):
            await db.kv.put(b"", b"")
        with pytest.raises(InvalidArgument, match="at most 1000"):
            await db.kv.put(b"k" * 1001, b"")
        await db.kv.put(b"k" * 1000, b"")
        with pytest.raises(TypeError):
            await db.kv.put(b"a")  # type: ignore[call-arg]


async def test_snapshots_and_scans_keep_one_state(tmp_path: Path) -> None:
    async with treestore.open(tmp_path) as db:
        await db.kv.batch(puts=[(b"%03d" % n, b"old") for n in range(300)])
        async with db.snapshot() as snapshot:
            scan = db.kv.scan()
            first = await anext(aiter(scan))
            await db.kv.batch(puts=[(b"%03d" % n, b"new") for n in range(300)])
            await db.admin.checkpoint()
            assert await snapshot.kv.get(b"007") == b"old"
            assert await db.kv.get(b"007") == b"new"
            rest = [value async for _, value in scan]
            assert first[1] == b"old"
            assert set(rest) == {b"old"}
            with pytest.raises(InvalidArgument, match="only read"):
                await snapshot.kv.put(b"a", b"")  # type: ignore[arg-type]
        with pytest.raises(TreeStoreError, match="closed"):
            await snapshot.kv.get(b"007")
        async with db.kv.scan() as items:
            async for _ in items:
                break
        assert (await db.admin.stats()).snapshots == 0


async def test_a_dropped_scan_frees_its_snapshot(tmp_path: Path) -> None:
    async with treestore.open(tmp_path) as db:
        await db.kv.put(b"a", b"1")
        scanning: set[str] = set()
        async for _ in db.kv.scan():
            scanning = {snapshot.owner for snapshot in await db.admin.snapshots()}
            break
        assert "kv.scan" in scanning
        # Keepers of indexes may be reading at the moment.
        assert "kv.scan" not in {snapshot.owner for snapshot in await db.admin.snapshots()}


async def test_values_of_all_sizes(tmp_path: Path) -> None:
    async with treestore.open(tmp_path, cache_size_mb=8) as db:
        sizes = [0, 1, 2047, 2048, 2049, 8150, 8192, 100_000, 5_000_000]
        for size in sizes:
            await db.kv.put(b"%d" % size, bytes(size % 251 for _ in range(0)) + b"z" * size)
        await db.admin.checkpoint()
        for size in sizes:
            assert await db.kv.get(b"%d" % size) == b"z" * size
        with pytest.raises(InvalidArgument, match="at most 100000000"):
            await db.kv.put(b"too long", bytes(100_000_001))
        assert (await db.admin.check()).ok
    async with treestore.open(tmp_path, cache_size_mb=8) as db:
        for size in sizes:
            assert await db.kv.get(b"%d" % size) == b"z" * size


async def test_no_reply_before_the_sync_and_none_visible() -> None:
    """A reader never sees what is not durable; even a no-op's answer waits for what it saw."""
    disk = SimDisk()
    async with database(disk) as db:
        gate = Gate(db)
        results: list[object] = []

        async def put() -> None:
            await db.kv.put(b"k", b"v")
            results.append("put")

        async def absent_delete() -> None:
            results.append(await db.kv.delete(b"nothing"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put)
            await gate.reached()
            nursery.start_soon(absent_delete)
            await trio.sleep(0.02)
            assert results == []
            assert await db.kv.get(b"k") is None
            gate.open()
        assert set(results) == {"put", False}
        assert await db.kv.get(b"k") == b"v"


async def test_a_cancelled_caller_is_not_applied_while_queued_but_is_once_begun() -> None:
    async with database(SimDisk()) as db:
        gate = Gate(db)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.kv.put, b"begun", b"1")
            await gate.reached()
            nursery.cancel_scope.cancel()
        gate.open()
        with trio.CancelScope() as scope:
            scope.cancel()
            await db.kv.put(b"never sent", b"1")
        await db.kv.put(b"last", b"1")
        assert await db.kv.get(b"begun") == b"1"
        assert await db.kv.get(b"never sent") is None


async def test_requirement_5_a_failed_sync_is_terminal_for_writes_and_reads_go_on() -> None:
    disk = SimDisk()
    async with database(disk) as db:
        await db.kv.put(b"acknowledged", b"1")
        disk.fail_next("sync", errno.EIO, "log")
        with pytest.raises(OutcomeUnknown, match="may or may not"):
            await db.kv.put(b"unknown", b"1")
        with pytest.raises(Unavailable, match="read-only"):
            await db.kv.put(b"later", b"1")
        assert await db.kv.get(b"acknowledged") == b"1"
        assert await db.kv.get(b"unknown") is None
        health = await db.admin.health()
        assert (health.status, health.writable) == ("read_only", False)
        assert health.problems
    disk.restart()
    store = open_small(disk)
    assert store.engine.read().get(b"\x01acknowledged") == b"1"
    assert store.engine.read().get(b"\x01later") is None
    assert check_engine(store.engine).ok
    store.close()


async def test_a_full_disk_is_a_clean_refusal_and_writing_resumes() -> None:
    disk = SimDisk()
    async with database(disk) as db:
        disk.capacity_bytes = disk.used_bytes() + 300_000
        written = []
        with pytest.raises(ResourceExhausted):
            for n in range(2000):
                await db.kv.put(b"%d" % n, b"v" * 900)
                written.append(n)
        assert written
        disk.capacity_bytes = None
        await db.kv.put(b"after", b"1")
        for n in written:
            assert await db.kv.get(b"%d" % n) == b"v" * 900
        assert (await db.admin.health()).status in ("ok", "degraded")


async def test_requirement_9_log_limit_makes_writers_wait_for_checkpoints() -> None:
    async with database(SimDisk(), SMALL_LOG) as db:
        with trio.fail_after(30):
            for n in range(60):
                await db.kv.put(b"%d" % n, b"v" * 60_000)
        stats = await db.admin.stats()
        assert stats.checkpoints >= 1
        assert stats.log_size_bytes <= 1 << 20
        assert (await db.admin.check()).ok


async def test_a_full_mailbox_makes_callers_wait_and_loses_nothing() -> None:
    limits = WriterLimits(mailbox_count_max=4, group_count_max=8)
    async with database(SimDisk(), limits=limits) as db:
        async with trio.open_nursery() as nursery:
            for n in range(200):
                nursery.start_soon(db.kv.put, b"%d" % n, b"")
        assert (await db.admin.stats()).keys == 200


async def test_commands_leave_nothing_to_the_garbage_collector() -> None:
    """A cycle for each command costs a fifth of the server's time for a durable put."""

    def left() -> int:
        return sum(isinstance(what, Command | Mail) for what in gc.get_objects())

    async with (
        database(SimDisk()) as db,
        listening(db) as listener,
        treestore.connect(f"127.0.0.1:{listener.port}") as client,
    ):
        gc.collect()
        before = left()
        gc.disable()
        try:
            async with trio.open_nursery() as nursery:
                for n in range(50):
                    nursery.start_soon(client.kv.put, b"%d" % n, b"")
                    nursery.start_soon(db.kv.put, b"e%d" % n, b"")
            # The log thread drops the last group only after it reported it.
            with trio.fail_after(10):
                await eventually(lambda: left() == before)
        finally:
            gc.enable()


async def test_deadline_before_the_turn_changes_nothing() -> None:
    async with database(SimDisk()) as db:
        with pytest.raises(DeadlineExceeded, match="nothing was changed"):
            await db.writer.execute(
                Call(lambda txn: txn.put(b"\x01late", b""), deadline=trio.current_time() - 1)
            )
        assert await db.kv.get(b"late") is None


async def test_a_crashed_background_actor_is_restarted_and_reported() -> None:
    async with database(SimDisk()) as db:
        ran, again = trio.Event(), trio.Event()

        async def crash_once() -> None:
            if not ran.is_set():
                ran.set()
                raise RuntimeError("planted")
            again.set()
            await trio.sleep_forever()

        assert db.supervisor is not None
        db.supervisor.start("planted", crash_once)
        with trio.fail_after(30):
            await again.wait()
        assert db.supervisor.actors["planted"].restarts == 1
        assert "planted" in str(db.supervisor.actors["planted"].last_error)
        await db.kv.put(b"still", b"works")


@pytest.mark.parametrize("broken", ["_run_one", "_run_long"])
async def test_a_crashed_writer_makes_the_store_read_only(broken: str) -> None:
    async with database(SimDisk()) as db:
        await db.kv.put(b"a", b"1")
        setattr(db.writer, broken, None)
        many = [(b"%d" % n, b"") for n in range(300 if broken == "_run_long" else 1)]
        with trio.fail_after(30), pytest.raises(Unavailable):
            await db.kv.batch(many)
        assert await db.kv.get(b"a") == b"1"
        assert (await db.admin.health()).status == "read_only"


async def test_long_reads_leave_the_event_loop(tmp_path: Path) -> None:
    async with treestore.open(tmp_path) as db:
        await db.kv.batch(puts=[(b"%06d" % n, b"v" * 50) for n in range(50_000)])
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await trio.lowlevel.checkpoint()
                ticks += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            count = 0
            async for _ in db.kv.scan():
                count += 1
            nursery.cancel_scope.cancel()
        assert count == 50_000
        assert ticks >= 5


async def test_closed_database_says_so(tmp_path: Path) -> None:
    async with treestore.open(tmp_path) as db:
        pass
    for call in (db.kv.get(b"a"), db.kv.put(b"a", b""), db.admin.stats()):
        with pytest.raises(Unavailable, match="closed"):
            await call
    with pytest.raises(Unavailable, match="closed"):
        db.kv.scan()


async def test_a_second_opener_is_told(tmp_path: Path) -> None:
    async with treestore.open(tmp_path):
        with pytest.raises(Unavailable, match="in use"):
            async with treestore.open(tmp_path):
                pass
