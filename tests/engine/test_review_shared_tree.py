"""The tree that short commands share, and what a rolled-back one leaves in the group's root."""

from __future__ import annotations

from random import Random

from tests.crash.simdisk import Crash, SimDisk
from tests.engine.stores import assert_clean, contents, open_small
from treestore.engine.directory import OpenStore


def _a_long_one_and_a_short_one_that_fails(store: OpenStore, value: bytes) -> None:
    engine = store.engine
    long = engine.begin(long=True)
    long.put(b"long", value)
    engine.commit(long)
    short = engine.begin()
    for n in range(0, 400, 7):
        short.put(b"%04d" % n, b"never")
    engine.rollback(short)
    group = engine.seal()
    assert group is not None
    engine.publish(group, engine.append(group))


def _store() -> tuple[SimDisk, OpenStore]:
    disk = SimDisk()
    store = open_small(disk)
    txn = store.engine.begin()
    for n in range(400):
        txn.put(b"%04d" % n, bytes(100))
    store.engine.write_now(txn)
    store.engine.checkpoint_now()
    return disk, store


def test_a_snapshot_of_a_state_that_a_failed_command_touched_stays_readable() -> None:
    _, store = _store()
    engine = store.engine
    _a_long_one_and_a_short_one_that_fails(store, b"1")
    snapshot = engine.snapshot()
    before = dict(snapshot.read().scan(b"", None))
    engine.checkpoint_now()
    for value in (b"2", b"3", b"4"):
        txn = engine.begin()
        for n in range(400):
            txn.put(b"%04d" % n, value * 100)
        engine.write_now(txn)
        engine.checkpoint_now()
    assert dict(snapshot.read().scan(b"", None)) == before
    snapshot.close()
    assert_clean(store)


def test_a_meta_slot_of_a_state_that_a_failed_command_touched_survives_a_crash() -> None:
    for step in range(60):
        disk, store = _store()
        engine = store.engine
        _a_long_one_and_a_short_one_that_fails(store, b"1")
        engine.checkpoint_now()
        for value in (b"2", b"3"):
            txn = engine.begin()
            for n in range(400):
                txn.put(b"%04d" % n, value * 100)
            engine.write_now(txn)
        expected = contents(store)
        count = [0]

        def stop(*_: object) -> None:
            count[0] += 1
            if count[0] > step:
                raise Crash

        disk.on_step = stop
        try:
            engine.checkpoint_now()
        except Crash:
            pass
        disk = disk.crash(Random(step))
        again = open_small(disk)
        assert contents(again) == expected, step
        assert_clean(again)
