"""A full disk: writes are refused cleanly, deletes go on, and what they free can be written again.

The disk holds a certain number of bytes in all. It is filled, and from then on every state is
tried: refusing, deleting, checkpointing, restarting, and a crash at every I/O step of that.
"""

from __future__ import annotations

from random import Random

import attrs
import pytest

from tests.crash.history import History, State, put, remove
from tests.crash.simdisk import Crash, SimDisk
from tests.engine.stores import SMALL, assert_clean, contents, open_small
from treestore.engine.directory import OpenStore
from treestore.errors import ResourceExhausted

ROOM_BYTES = 400_000
OPTIONS = attrs.evolve(SMALL, headroom_pages=64)


def attempt(store: OpenStore, history: History, pairs: State) -> bool:
    """Put, with the checkpoint that the actors make where there is no room; whether it worked."""
    engine = store.engine
    for final in (False, True):
        txn = None
        try:
            txn = engine.begin()
            history.attempt(txn, put(pairs))
            engine.commit(txn)
            group = engine.seal()
            assert group is not None
            try:
                engine.publish(group, engine.append(group))
            except ResourceExhausted:
                engine.abandon()
                raise
        except ResourceExhausted:
            history.attempted.clear()
            if txn is not None:
                engine.rollback(txn)
            assert engine.failed is None
            assert engine.short_of_space
            if final:
                return False
            engine.checkpoint_now()
            continue
        history.acknowledge(1)
        return True
    raise AssertionError


def fill(store: OpenStore, history: History, prefix: bytes, size: int) -> int:
    """Put until the disk is full; how many."""
    for n in range(5000):
        if not attempt(store, history, {prefix + b"%04d" % n: bytes((n % 256,)) * size}):
            return n
    raise AssertionError("the disk is never full")


def delete(store: OpenStore, history: History, keys: list[bytes]) -> None:
    """Delete one by one, with the checkpoints that the actors would make; nothing is refused."""
    for key in keys:
        history.write(store, remove(key, key + b"\0"))
        if store.engine.checkpoint_due():
            store.engine.checkpoint_now()


def full_disk(size: int, seed: int = 1) -> tuple[SimDisk, History]:
    """A disk that was filled, and what is on it; its store is closed."""
    disk, history = SimDisk(seed), History()
    store = open_small(disk, OPTIONS)
    history.write(store, put({b"first": b"1"}))
    disk.capacity_bytes = disk.used_bytes() + ROOM_BYTES
    assert fill(store, history, b"a", size) > 20
    assert contents(store) == history.acknowledged
    assert_clean(store)
    store.close()
    return disk, history


@pytest.mark.parametrize("size", [100, 800, 5000, 20_000])
@pytest.mark.parametrize("stuffed", [False, True])
def test_deletes_work_and_writing_resumes(size: int, stuffed: bool) -> None:
    disk, history = full_disk(size)
    if stuffed:
        # Somebody else took the last byte.
        disk.capacity_bytes = disk.used_bytes()
    for turn in range(4):
        disk.restart()
        store = open_small(disk, OPTIONS)
        assert contents(store) == history.acknowledged
        fill(store, history, b"b%d" % turn, size)
        keys = sorted(history.acknowledged)
        delete(store, history, keys[: len(keys) // 2])
        store.engine.checkpoint_now()
        again = fill(store, history, b"c%d" % turn, size)
        assert again >= len(keys) // 4, (again, len(keys))
        assert contents(store) == history.acknowledged
        assert_clean(store)
        if turn % 2:
            store.close()


def test_everything_can_be_deleted() -> None:
    disk, history = full_disk(800)
    disk.capacity_bytes = disk.used_bytes()
    store = open_small(disk, OPTIONS)
    delete(store, history, sorted(history.acknowledged))
    assert contents(store) == {}
    assert_clean(store)
    store.close()


def test_restarts_on_a_full_disk_use_nothing_up() -> None:
    disk, history = full_disk(800)
    disk.capacity_bytes = disk.used_bytes()
    for _ in range(10):
        disk.restart()
        store = open_small(disk, OPTIONS)
        assert not store.engine.log.lacks_reserve
        assert contents(store) == history.acknowledged
        keys = sorted(history.acknowledged)
        delete(store, history, keys[:3])
        # The process is killed.
    assert disk.used_bytes() <= disk.capacity_bytes


def test_a_refused_put_leaves_the_headroom_to_deletes() -> None:
    disk, history = full_disk(800)
    store = open_small(disk, OPTIONS)
    engine = store.engine
    for n in range(50):
        assert not attempt(store, history, {b"large%d" % n: bytes(100_000)})
    assert engine._room_pages - engine.dirty_pages >= OPTIONS.headroom_pages // 2
    delete(store, history, sorted(history.acknowledged)[:20])
    store.close()


def workload(disk: SimDisk, history: History) -> None:
    """Restart on the full disk, refuse, delete, write again, restart."""
    store = open_small(disk, OPTIONS)
    attempt(store, history, {b"refused": bytes(30_000)})
    keys = sorted(history.acknowledged)
    delete(store, history, keys[: len(keys) // 3])
    store.engine.checkpoint_now()
    for n in range(6):
        assert attempt(store, history, {b"again%d" % n: bytes(800)})
    store.close()
    store = open_small(disk, OPTIONS)
    delete(store, history, sorted(history.acknowledged)[:2])
    store.close()


def recover(disk: SimDisk, random: Random) -> tuple[State, SimDisk]:
    """Recover once with a crash somewhere in between, then wholly.

    Where the reserve was in use, and recovery crashes before it is back, a disk without one free
    byte cannot be opened. The error says so; nothing is lost.
    """
    stop_at = disk.steps + random.randint(1, 12)

    def stop(number: int, _op: str, _path: str) -> None:
        if number == stop_at:
            raise Crash

    disk.on_step = stop
    try:
        store = open_small(disk, OPTIONS)
    except Crash:
        disk = disk.crash(random)
        try:
            store = open_small(disk, OPTIONS)
        except ResourceExhausted:
            assert disk.capacity_bytes is not None
            disk.capacity_bytes += OPTIONS.log_segment_size_bytes_min
            store = open_small(disk, OPTIONS)
    disk.on_step = None
    assert_clean(store)
    return contents(store), disk


@pytest.mark.parametrize("stuffed", [False, True])
def test_crash_at_every_step_of_a_full_disk(stuffed: bool) -> None:
    full, known = full_disk(5000)
    capacity = full.used_bytes() if stuffed else full.capacity_bytes

    def start() -> tuple[SimDisk, History]:
        disk, history = full.clone(), History(known.acknowledged)
        disk.capacity_bytes = capacity
        return disk, history

    disk, history = start()
    workload(disk, history)
    total = disk.steps
    for step in range(1, total + 1):
        disk, history = start()

        def stop(number: int, _op: str, _path: str, step: int = step) -> None:
            if number == step:
                raise Crash

        disk.on_step = stop
        with pytest.raises(Crash):
            workload(disk, history)
        context = f"step {step} of {total}"
        random = Random(step)
        found, after = recover(disk.crash(random), random)
        assert found in history.allowed(), context
        after = after.crash(random)
        store = open_small(after, OPTIONS)
        assert contents(store) == found, context
        history = History(found)
        delete(store, history, sorted(found)[:5])
        assert contents(store) == history.acknowledged, context
        assert_clean(store)
        store.close()
