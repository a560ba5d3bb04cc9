"""The running database when something fails or is cancelled under it: nothing is acknowledged that
is not durable, no answer rests on what was undone, and nobody is left waiting."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import attrs
import pytest
import trio
import trio.testing

from actors.embedded import in_thread
from tests.actors.databases import SMALL_LOG, Callers, Gate, database, execute
from tests.actors.wire_tools import eventually
from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, Clock, contents, open_small
from treestore.engine.group import Group
from treestore.engine.log import LogPosition
from treestore.engine.transaction import ReadTransaction, WriteTransaction
from treestore.errors import (
    AlreadyExists,
    CorruptionError,
    ResourceExhausted,
    TreeStoreError,
    Unavailable,
)
from treestore.stores.deduplication import Deduplication, Sessions, session_prefix

CREATED = "created"


def create(name: str) -> Callable[[WriteTransaction], str]:
    """A command that makes a key, which must not be there."""
    key = b"\x01" + name.encode()

    def run(txn: WriteTransaction) -> str:
        if txn.get(key) is not None:
            raise AlreadyExists("there is one")
        txn.put(key, b"v")
        return CREATED

    return run


def assert_acknowledged_is_durable(disk: SimDisk, results: dict[str, object]) -> None:
    """After the process died, every key is there whose creation was acknowledged."""
    disk.restart()
    store = open_small(disk)
    for name, result in results.items():
        if result == CREATED:
            found = store.engine.read().get(b"\x01" + name.encode())
            assert found == b"v", f"{name} was acknowledged and is lost"
    store.close()


# -- what was acknowledged, and what answers rest on ------------------------------------------


async def test_nothing_is_acknowledged_that_a_failed_page_file_dropped() -> None:
    """A checkpoint fails while one group is on its way and the next one waits."""
    disk = SimDisk()
    async with database(disk) as db:
        await db.kv.put(b"first", b"1")
        gate = Gate(db)
        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            callers.start("flight", execute, db, create("flight"))
            await gate.reached()
            callers.start("waiting", execute, db, create("waiting"))
            await trio.sleep(0.05)
            disk.fail_next("sync", errno.EIO, "pages")
            with pytest.raises(Unavailable):
                await db.admin.checkpoint()
            gate.open()
    assert set(callers.results) == {"flight", "waiting"}
    assert isinstance(callers.results["waiting"], Unavailable)
    assert_acknowledged_is_durable(disk, callers.results)


async def test_a_reservation_that_fails_does_not_acknowledge_what_ran_before_it() -> None:
    """The page file cannot grow for one command; another of the same group ran before it."""
    disk = SimDisk()
    async with database(disk) as db:
        await db.kv.put(b"first", b"1")
        gate = Gate(db)

        def break_disk(_txn: WriteTransaction) -> None:
            db.engine.dirty_pages += 10**6  # the next command asks for more room
            disk.fail_next("allocate", errno.EIO, "pages")

        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            callers.start("flight", execute, db, create("flight"))
            await gate.reached()
            for name, run in (("one", create("one")), ("two", break_disk)):
                callers.start(name, execute, db, run)
                await trio.testing.wait_all_tasks_blocked()
            callers.start("three", execute, db, create("three"))
            await trio.testing.wait_all_tasks_blocked()
            assert db.engine.failed is not None
            gate.open()
    assert set(callers.results) == {"flight", "one", "two", "three"}
    assert isinstance(callers.results["one"], Unavailable)
    assert isinstance(callers.results["three"], Unavailable)
    assert_acknowledged_is_durable(disk, callers.results)


@pytest.mark.parametrize("error", [ResourceExhausted("full"), OSError(errno.EIO, "broken")])
async def test_answers_from_a_root_that_never_became_durable_are_not_given(
    error: Exception,
) -> None:
    """Two commands of a group that fails: the second one's answer rests on the first."""
    async with database(SimDisk()) as db:
        await db.kv.put(b"first", b"1")
        gate = Gate(db)
        held = db.engine.append

        def append(group: Group) -> LogPosition:
            if any(b"\x01k" in p for t in group.transactions for p in t.payloads):
                raise error
            return held(group)

        db.engine.append = append  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            callers.start("before", execute, db, create("before"))
            await gate.reached()
            callers.start("a", execute, db, create("k"))
            callers.start("b", execute, db, create("k"))
            await trio.sleep(0.05)
            gate.open()
    results = callers.results
    assert set(results) == {"before", "a", "b"}
    assert results["before"] == CREATED
    assert not any(isinstance(result, AlreadyExists) for result in results.values()), results
    assert CREATED not in (results["a"], results["b"])


async def test_a_long_command_over_an_aborted_group() -> None:
    """It saw what was undone while it ran, so it is undone too."""
    disk = SimDisk()
    started, go = threading.Event(), threading.Event()

    def long(txn: WriteTransaction) -> bool:
        started.set()
        assert go.wait(30)
        return txn.delete(b"\x01aborted")

    async with database(disk) as db:
        await db.kv.put(b"first", b"1")
        gate = Gate(db)
        gate.error = ResourceExhausted("The disk is full.")
        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            callers.start("a", execute, db, create("aborted"))
            await gate.reached()
            callers.start("long", partial(execute, long=True), db, long)
            assert await trio.to_thread.run_sync(started.wait, 5)
            gate.open()
            await trio.sleep(0.05)
            go.set()
    assert isinstance(callers.results["a"], ResourceExhausted)
    assert isinstance(callers.results["long"], ResourceExhausted), "what it removed was never there"
    disk.restart()
    store = open_small(disk)
    assert contents(store).keys() == {b"\x01first"}
    store.close()


# -- nobody waits for ever --------------------------------------------------------------------


async def test_check_does_not_deadlock_with_a_full_log() -> None:
    """A check holds checkpoints up, and a full log waits for one; both come to an end."""
    async with database(SimDisk(), SMALL_LOG) as db:

        async def fill() -> None:
            for n in range(60):
                await db.kv.put(b"%d" % n, b"v" * 60_000)

        with trio.move_on_after(5) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fill)
                for _ in range(30):
                    await db.admin.check()
        assert not scope.cancelled_caught, "admin.check and the checkpointer wait for each other"


async def test_a_trim_that_fails_does_not_hang_a_stalled_writer() -> None:
    """The checkpoint that it waits for is made, but the log cannot be shortened."""
    disk = SimDisk()
    with trio.move_on_after(60) as scope:
        async with database(disk, SMALL_LOG) as db:
            trim = db.engine.log.trim

            def failing(position: LogPosition) -> None:
                disk.fail_next("sync_directory", errno.EIO, "log")
                trim(position)

            db.engine.log.trim = failing  # type: ignore[method-assign]
            with trio.fail_after(30), pytest.raises(TreeStoreError):
                for n in range(100):
                    await db.kv.put(b"%d" % n, b"v" * 60_000)
    assert not scope.cancelled_caught


async def test_cancelling_around_the_database_is_orderly() -> None:
    """Callers and database are cancelled at once, with groups on their way."""
    with trio.move_on_after(0.3) as scope:
        async with database(SimDisk()) as db:
            append = db.engine.append

            def slow(group: Group) -> LogPosition:
                time.sleep(0.02)
                return append(group)

            db.engine.append = slow  # type: ignore[method-assign]

            async def load(task: int) -> None:
                n = 0
                while True:
                    n += 1
                    await db.kv.put(b"%d-%d" % (task, n), b"x")

            async with trio.open_nursery() as nursery:
                for task in range(8):
                    nursery.start_soon(load, task)
    assert scope.cancelled_caught


async def test_cancelling_around_the_database_leaves_no_caller_waiting() -> None:
    """The callers live outside of the cancelled scope; their commands run and wait."""
    with trio.fail_after(30):
        async with trio.open_nursery() as outer:
            callers = Callers(outer)
            with trio.CancelScope() as scope:
                async with database(SimDisk()) as db:
                    gate = Gate(db)
                    callers.start("a", execute, db, create("a"))
                    await gate.reached()
                    callers.start("b", execute, db, create("b"))
                    await trio.sleep(0.05)

                    async def open_later() -> None:
                        await trio.sleep(0.3)
                        gate.open()

                    outer.start_soon(open_later)
                    scope.cancel()
                    await trio.sleep_forever()
    assert set(callers.results) == {"a", "b"}


async def test_cancelling_around_a_stalled_database_leaves_no_caller_waiting() -> None:
    """The writer waits for room in the log, and a checkpoint takes long."""

    def large(txn: WriteTransaction, key: bytes) -> None:
        txn.put(key, bytes(200_000))

    with trio.fail_after(30):
        async with trio.open_nursery() as outer:
            callers = Callers(outer)
            with trio.CancelScope() as scope:
                async with database(SimDisk(), SMALL_LOG) as db, db.checkpointer.paused():
                    for n in range(8):
                        put = partial(large, key=b"\x01%d" % n)
                        callers.start(str(n), partial(execute, long=True), db, put)
                    await eventually(lambda: db.writer.statistics().stalls > 0)
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
    assert len(callers.results) == 8


# -- reading and retrying ---------------------------------------------------------------------


async def test_check_while_a_group_is_on_its_way_finds_nothing() -> None:
    """What it supersedes, and what the group behind it does, is in use by the checked state."""
    async with database(SimDisk()) as db:
        keys = [b"%04d" % n for n in range(400)]
        await db.kv.batch(puts=[(key, bytes(90)) for key in keys])
        await db.admin.checkpoint()
        gate = Gate(db)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.kv.batch, [(key, b"1" * 90) for key in keys[:200]])
            await gate.reached()
            on_its_way = await db.admin.check()
            nursery.start_soon(db.kv.batch, [(key, b"2" * 90) for key in keys[200:]])
            await trio.testing.wait_all_tasks_blocked(0.05)
            with_one_behind = await db.admin.check()
            gate.open()
        for report in (on_its_way, with_one_behind, await db.admin.check()):
            assert report.ok, report.errors[:3]
            assert report.keys == 400


async def test_check_after_a_failed_checkpoint_does_not_cry_damage() -> None:
    disk = SimDisk()
    async with database(disk) as db:
        await db.kv.batch([(b"%d" % number, bytes(200)) for number in range(200)])
        disk.fail_next("write", errno.EIO, "pages")
        with pytest.raises(Unavailable):
            await db.admin.checkpoint()
        # What the checkpoint was to write has places in the file that it never got to.
        with pytest.raises(Unavailable, match="until it is opened again"):
            await db.admin.check()
    disk.restart()
    async with database(disk) as db:
        assert (await db.admin.check()).ok
        assert [key async for key, _ in db.kv.scan(limit=1)] == [b"0"]


@pytest.mark.parametrize(
    ("number", "error", "match"),
    [
        (errno.EIO, CorruptionError, "cannot be read"),
        (errno.ESTALE, Unavailable, "Check the disk"),
    ],
)
async def test_a_page_that_the_disk_does_not_give_is_a_typed_error(
    number: int, error: type[TreeStoreError], match: str
) -> None:
    disk = SimDisk()
    async with database(disk, attrs.evolve(SMALL, cache_size_bytes=1)) as db:
        await db.kv.batch([(b"%d" % number, bytes(200)) for number in range(200)])
        await db.admin.checkpoint()
        disk.fail_next("read", number, "pages")
        with pytest.raises(error, match=match):
            [item async for item in db.kv.scan()]
        assert len([item async for item in db.kv.scan()]) == 200


async def test_an_actor_that_ends_the_program_does_not_hang_it() -> None:
    class Stop(BaseException):
        pass

    async def stop_all() -> None:
        await trio.lowlevel.checkpoint()
        raise Stop

    disk = SimDisk()
    with trio.fail_after(30), pytest.raises(Stop):
        async with database(disk) as db:
            await db.kv.put(b"key", b"value")
            assert db.supervisor is not None
            db.supervisor.start("stopper", stop_all)
            await trio.sleep_forever()
    disk.restart()
    store = open_small(disk)
    assert contents(store) == {b"\x01key": b"value"}
    store.close()


async def test_a_closed_snapshot_under_a_running_read_is_no_corruption() -> None:
    """The client closes it, or its connection drops: a read in a thread goes on undisturbed."""
    old = {b"\x01%05d" % n: bytes(60) for n in range(2000)}
    started, go = threading.Event(), threading.Event()

    def read(txn: ReadTransaction) -> dict[bytes, bytes]:
        items = txn.scan(b"\x01", b"\x02")
        found = dict([next(items)])
        started.set()
        assert go.wait(10)
        found.update(items)
        return found

    async with database(SimDisk(), attrs.evolve(SMALL, cache_size_bytes=2000)) as db:
        await db.kv.batch(puts=[(key[1:], value) for key, value in old.items()])
        await db.admin.checkpoint()
        snapshot = db.engine.snapshot("client")
        async with trio.open_nursery() as nursery:
            callers = Callers(nursery)
            callers.start("read", partial(in_thread, raw=False), db, snapshot, read)
            assert await trio.to_thread.run_sync(started.wait, 5)
            snapshot.close()
            for turn in range(6):
                await db.kv.batch(puts=[(key[1:], bytes([turn]) * 60) for key in old])
                await db.admin.checkpoint()
            go.set()
    assert callers.results["read"] == old


def test_a_session_in_use_is_not_expired_and_a_retry_is_applied_once() -> None:
    """One request an hour for thirty hours; the last one's reply is lost and it is sent again."""
    store = open_small(SimDisk())
    engine = store.engine
    clock = engine.environment.clock_ns
    assert isinstance(clock, Clock)
    sessions = Sessions(clock)
    applied: list[int] = []

    def request(sequence: int) -> bytes:
        def apply(_txn: WriteTransaction) -> int:
            applied.append(sequence)
            return sequence

        numbered = Deduplication(session_prefix(b"c" * 16, 1), sequence, sequence, sequence)
        txn = engine.begin()
        answer = sessions.run(txn, numbered, apply, {})
        engine.write_now(txn)
        return answer

    answer = b""
    for sequence in range(1, 31):
        clock.now_ns += 3600 * 10**9
        answer = request(sequence)
    txn = engine.begin()
    sessions.expire(txn, engine.now() - timedelta(hours=24))
    engine.write_now(txn)
    assert request(30) == answer
    assert applied == list(range(1, 31))
