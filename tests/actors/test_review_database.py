"""Faults found by review of the actors: each test states what must hold."""

from __future__ import annotations

import errno
import threading
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio

from actors.database import open_database
from actors.mail import Mail
from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, environment, open_small
from treestore.engine.options import EngineOptions
from treestore.errors import (
    AlreadyExists,
    OutcomeUnknown,
    ResourceExhausted,
    TreeStoreError,
    Unavailable,
)


@asynccontextmanager
async def database(disk, options=SMALL, limits=None):
    async with open_database(
        "/db", options=options, limits=limits, environment=environment(disk)
    ) as db:
        yield db


class Gate:
    """Holds every append until opened; may make it fail."""

    def __init__(self, db):
        self.entered, self.released = threading.Event(), threading.Event()
        self.error = None
        append = db.engine.append

        def held(group):
            self.entered.set()
            self.released.wait(10)
            if self.error is not None:
                error, self.error = self.error, None
                raise error
            return append(group)

        db.engine.append = held

    async def wait(self):
        await trio.to_thread.run_sync(lambda: self.entered.wait(5))


def execute(db, run, long=False):
    return db.writer.execute(lambda outcome: Mail(run, outcome, long=long))


async def outcome_of(results, name, call):
    try:
        results[name] = await call
    except Exception as error:
        results[name] = error


def create(key):
    def run(txn):
        if txn.get(key) is not None:
            raise AlreadyExists("there is one")
        txn.put(key, b"v")
        return "created"

    return run


async def test_nothing_is_acknowledged_that_a_failed_page_file_dropped():
    disk = SimDisk()
    results = {}
    async with database(disk) as db:
        await db.kv.put(b"first", b"1")
        gate = Gate(db)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, results, "flight", execute(db, create(b"\x01flight")))
            await gate.wait()
            nursery.start_soon(outcome_of, results, "waiting", execute(db, create(b"\x01waiting")))
            await trio.sleep(0.05)
            disk.fail_next("sync", errno.EIO, "pages")
            with pytest.raises(Unavailable):
                await db.admin.checkpoint()
            gate.released.set()
    disk.restart()
    store = open_small(disk)
    for name, result in results.items():
        if result == "created":
            assert store.engine.read().get(b"\x01" + name.encode()) == b"v", (
                f"{name} was acknowledged and is lost"
            )


async def test_a_reservation_that_fails_does_not_acknowledge_what_ran_before_it():
    disk = SimDisk()
    results = {}
    async with database(disk) as db:
        await db.kv.put(b"first", b"1")

        def fill(txn):
            for n in range(2000):
                txn.put(b"\x01fill%d" % n, bytes(200))
            return "created"

        engine = db.engine
        async with trio.open_nursery() as nursery:
            # one slice: the second command's reservation meets a failing disk
            nursery.start_soon(outcome_of, results, "one", execute(db, create(b"\x01one")))

            def break_disk(txn):
                engine.dirty_pages += 10**6
                disk.fail_next("allocate", errno.EIO, "pages")

            nursery.start_soon(outcome_of, results, "two", execute(db, break_disk))
            nursery.start_soon(outcome_of, results, "three", execute(db, create(b"\x01three")))
    disk.restart()
    store = open_small(disk)
    for name, result in results.items():
        if result == "created":
            assert store.engine.read().get(b"\x01" + name.encode()) == b"v", (
                f"{name} was acknowledged and is lost"
            )


@pytest.mark.parametrize("error", [ResourceExhausted("full"), OSError(errno.EIO, "broken")])
async def test_answers_from_a_root_that_never_became_durable_are_not_given(error):
    disk = SimDisk()
    results = {}
    async with database(disk) as db:
        await db.kv.put(b"first", b"1")
        gate = Gate(db)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, results, "before", execute(db, create(b"\x01before")))
            await gate.wait()
            # both in the next group, which fails: the second's answer rests on the first
            nursery.start_soon(outcome_of, results, "a", execute(db, create(b"\x01k")))
            nursery.start_soon(outcome_of, results, "b", execute(db, create(b"\x01k")))
            await trio.sleep(0.05)
            append = db.engine.append

            def fail(group):
                if any(b"\x01k" in p for t in group.transactions for p in t.payloads):
                    raise error
                return append(group)

            db.engine.append = fail
            gate.released.set()
        assert not any(isinstance(r, AlreadyExists) for r in results.values()), results


async def test_a_long_command_over_an_aborted_group():
    disk = SimDisk()
    results = {}
    async with database(disk) as db:
        await db.kv.put(b"first", b"1")
        gate = Gate(db)
        gate.error = ResourceExhausted("The disk is full.")
        go = threading.Event()
        started = threading.Event()

        def long(txn):
            started.set()
            go.wait(5)
            return txn.delete(b"\x01aborted")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, results, "a", execute(db, create(b"\x01aborted")))
            await gate.wait()
            nursery.start_soon(outcome_of, results, "long", execute(db, long, long=True))
            await trio.to_thread.run_sync(lambda: started.wait(5))
            gate.released.set()
            await trio.sleep(0.05)
            go.set()
        assert isinstance(results["a"], ResourceExhausted)
        assert results["long"] is not True, "it removed what was never there"
    disk.restart()
    open_small(disk).close()


LOG_SMALL = EngineOptions(
    page_size_bytes=1024,
    cache_size_bytes=50_000,
    log_size_bytes_max=1 << 20,
    log_segment_size_bytes_min=1 << 16,
    log_segment_size_bytes_max=1 << 18,
    transaction_size_bytes_max=1 << 18,
    checkpoint_log_size_bytes=1 << 30,
)


async def test_check_does_not_deadlock_with_a_full_log():
    async with database(SimDisk(), LOG_SMALL) as db:

        async def fill():
            for n in range(60):
                await db.kv.put(b"%d" % n, b"v" * 60_000)

        with trio.move_on_after(5) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fill)
                for _ in range(30):
                    await db.admin.check()
        hung = scope.cancelled_caught
        assert not hung, "admin.check and the checkpointer wait for each other"


async def test_check_while_a_group_is_on_its_way_finds_nothing():
    async with database(SimDisk()) as db:

        async def load(task):
            for n in range(60):
                await db.kv.batch(puts=[(b"%d-%d-%d" % (task, n, m), bytes(90)) for m in range(20)])

        reports = []
        async with trio.open_nursery() as nursery:
            for task in range(4):
                nursery.start_soon(load, task)
            for _ in range(25):
                reports.append(await db.admin.check())
        bad = [r.errors for r in reports if not r.ok]
        assert not bad, bad[0][:3]


async def test_cancelling_around_the_database_is_orderly():
    disk = SimDisk()
    with trio.move_on_after(0.3) as scope:
        async with database(disk) as db:
            append = db.engine.append

            def slow(group):
                import time

                time.sleep(0.02)
                return append(group)

            db.engine.append = slow

            async def load(task):
                n = 0
                while True:
                    n += 1
                    await db.kv.put(b"%d-%d" % (task, n), b"x")

            async with trio.open_nursery() as nursery:
                for task in range(8):
                    nursery.start_soon(load, task)
    assert scope.cancelled_caught


async def test_cancelling_around_the_database_leaves_no_caller_waiting():
    # The callers live outside of the cancelled scope.
    results = {}
    with trio.fail_after(5):
        async with trio.open_nursery() as outer:
            with trio.CancelScope() as scope:
                async with database(SimDisk()) as db:
                    gate = Gate(db)
                    outer.start_soon(outcome_of, results, "a", execute(db, create(b"\x01a")))
                    await gate.wait()
                    outer.start_soon(outcome_of, results, "b", execute(db, create(b"\x01b")))
                    await trio.sleep(0.05)
                    outer.start_soon(
                        lambda: trio.to_thread.run_sync(
                            lambda: (__import__("time").sleep(0.3), gate.released.set())
                        )
                    )
                    scope.cancel()
                    await trio.sleep_forever()
    assert set(results) == {"a", "b"}


async def test_a_trim_that_fails_does_not_hang_a_stalled_writer():
    disk = SimDisk()
    with trio.move_on_after(8) as scope:
        async with database(disk, LOG_SMALL) as db:
            trim = db.engine.log.trim

            def failing(position):
                disk.fail_next("sync_directory", errno.EIO, "log")
                return trim(position)

            db.engine.log.trim = failing
            with trio.fail_after(3), pytest.raises(TreeStoreError):
                for n in range(100):
                    await db.kv.put(b"%d" % n, b"v" * 60_000)
    assert not scope.cancelled_caught


async def test_a_closed_snapshot_under_a_running_read_is_no_corruption():
    disk = SimDisk()
    results = {}
    async with database(
        disk,
        EngineOptions(
            page_size_bytes=1024,
            cache_size_bytes=2000,
            headroom_pages=16,
            log_size_bytes_max=16 << 20,
            transaction_size_bytes_max=4 << 20,
        ),
    ) as db:
        from actors.embedded import in_thread

        await db.kv.batch(puts=[(b"%05d" % n, bytes(60)) for n in range(2000)])
        await db.admin.checkpoint()
        snapshot = db.engine.snapshot("client")
        started, go = threading.Event(), threading.Event()

        def read(txn):
            n = 0
            for _ in txn.scan(b"", None):
                n += 1
                if n == 1:
                    started.set()
                    go.wait(10)
            return n

        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                outcome_of, results, "read", in_thread(db, snapshot, read, raw=False)
            )
            await trio.to_thread.run_sync(lambda: started.wait(5))
            snapshot.close()  # the client closes it, or its connection drops
            for round_ in range(6):
                await db.kv.batch(puts=[(b"%05d" % n, bytes([round_]) * 60) for n in range(2000)])
                await db.admin.checkpoint()
            go.set()
        assert (
            results["read"] == 2001
            or type(results["read"]).__name__ == "SnapshotExpired"
            or results["read"] == 2000
        ), results


async def test_a_session_in_use_is_not_expired_and_a_retry_is_applied_once():
    from treestore.stores import deduplication

    disk = SimDisk()
    store = open_small(disk)
    engine = store.engine
    prefix = deduplication.session_prefix(b"c" * 16, 1)
    clock = engine.environment.clock_ns

    from actors.database_host import _Once
    from actors.host import Deduplication

    sessions = {}
    applied = []

    def request(sequence, watermark):
        once = _Once(
            sessions,
            "m",
            b"p%d" % sequence,
            Deduplication(b"c" * 16, 1, sequence, watermark),
            lambda txn: applied.append(sequence) or sequence,
        )
        txn = engine.begin()
        answer = once.run(txn)
        engine.write_now(txn)
        once.landed()
        return answer

    for sequence in range(1, 31):  # one an hour
        request(sequence, sequence)
        clock.now_ns += 3600 * 10**9
    clock.now_ns -= 3600 * 10**9
    txn = engine.begin()
    deduplication.expire(txn, engine.now() - timedelta(hours=24))
    engine.write_now(txn)
    try:
        request(30, 30)  # the reply was lost; sent again seconds later
    except OutcomeUnknown:
        pass
    assert applied.count(30) == 1


async def test_cancelling_around_a_stalled_database_leaves_no_caller_waiting():
    results = {}
    with trio.fail_after(5):
        async with trio.open_nursery() as outer:
            with trio.CancelScope() as scope:
                async with database(SimDisk(), LOG_SMALL) as db:
                    async with db.checkpointer.paused():  # a checkpoint that takes long
                        for n in range(8):
                            outer.start_soon(
                                outcome_of,
                                results,
                                n,
                                execute(
                                    db,
                                    lambda txn, n=n: txn.put(b"\x01%d" % n, bytes(200_000)),
                                    long=True,
                                ),
                            )
                        while db.writer._stalled is None:
                            await trio.sleep(0.01)
                        scope.cancel()
                        await trio.sleep(0)
    assert len(results) == 8
