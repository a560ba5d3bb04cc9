"""The tree that short commands share, and what a rolled-back one leaves in the group's root."""

from __future__ import annotations

from itertools import count
from random import Random

from tests.crash.simdisk import Crash, SimDisk
from tests.engine.stores import assert_clean, contents, open_small, put_now
from treestore.engine.directory import OpenStore

KEYS = [b"%04d" % n for n in range(400)]


def checkpointed_store() -> tuple[SimDisk, OpenStore]:
    """A store whose whole tree has pages."""
    disk = SimDisk()
    store = open_small(disk)
    put_now(store, ((key, bytes(100)) for key in KEYS))
    store.engine.checkpoint_now()
    return disk, store


def overwrite(store: OpenStore, value: bytes) -> None:
    """Another value everywhere: every leaf is replaced."""
    put_now(store, ((key, value * 100) for key in KEYS))


def publish_a_long_one_and_a_short_one_that_fails(store: OpenStore) -> None:
    """One group: a long command with a tree of its own, then a short one that is rolled back."""
    engine = store.engine
    long = engine.begin(long=True)
    long.put(b"long", b"1")
    engine.commit(long)
    short = engine.begin()
    for key in KEYS[::7]:
        short.put(key, b"never")
    engine.rollback(short)
    group = engine.seal()
    assert group is not None
    engine.publish(group, engine.append(group))


def crash_at(disk: SimDisk, step: int) -> None:
    """Let the power fail once ``step`` more steps were done."""
    steps = count()

    def stop(*_: object) -> None:
        if next(steps) >= step:
            raise Crash

    disk.on_step = stop


def test_a_snapshot_of_a_state_that_a_failed_command_touched_stays_readable() -> None:
    """The pages that it shows are not given to later checkpoints."""
    _, store = checkpointed_store()
    engine = store.engine
    publish_a_long_one_and_a_short_one_that_fails(store)
    snapshot = engine.snapshot()
    before = dict(snapshot.read().scan(b"", None))
    engine.checkpoint_now()
    for value in (b"2", b"3", b"4"):
        overwrite(store, value)
        engine.checkpoint_now()
    assert dict(snapshot.read().scan(b"", None)) == before
    snapshot.close()
    assert_clean(store)


def test_a_meta_slot_of_a_state_that_a_failed_command_touched_survives_a_crash() -> None:
    """Recovery from the older slot finds its pages, wherever the next checkpoint died."""
    for step in range(60):
        disk, store = checkpointed_store()
        publish_a_long_one_and_a_short_one_that_fails(store)
        store.engine.checkpoint_now()
        overwrite(store, b"2")
        overwrite(store, b"3")
        expected = contents(store)
        crash_at(disk, step)
        try:
            store.engine.checkpoint_now()
        except Crash:
            pass
        again = open_small(disk.crash(Random(step)))
        assert contents(again) == expected, step
        assert_clean(again)
