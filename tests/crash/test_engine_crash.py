"""The engine is stopped at every I/O step of small workloads, and recovered from what is left.

Checked each time: what was acknowledged is there, what was not is whole or absent, the integrity
check is clean, and recovering a second time (after a crash at a random step of the first
recovery, too) gives the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.crash.simdisk import Crash, SimDisk
from tests.engine.stores import assert_clean, contents, open_small
from treestore.engine.directory import OpenStore
from treestore.engine.transaction import WriteTransaction

Model = dict[bytes, bytes]


class History:
    """The acknowledged state, and the one that a transaction under way would lead to."""

    def __init__(self) -> None:
        self.acknowledged: Model = {}
        self.attempted: Model = {}

    def write(self, store: OpenStore, change: Callable[[WriteTransaction, Model], None]) -> None:
        """One durable transaction."""
        txn = store.engine.begin()
        self.attempted = dict(self.acknowledged)
        change(txn, self.attempted)
        store.engine.write_now(txn)
        self.acknowledged = self.attempted


def put(pairs: Model) -> Callable[[WriteTransaction, Model], None]:
    """A change that sets some keys."""

    def change(txn: WriteTransaction, model: Model) -> None:
        for key, value in pairs.items():
            txn.put(key, value)
        model.update(pairs)

    return change


def remove(low: bytes, high: bytes) -> Callable[[WriteTransaction, Model], None]:
    """A change that removes a range."""

    def change(txn: WriteTransaction, model: Model) -> None:
        txn.delete_range(low, high)
        for key in [key for key in model if low <= key < high]:
            del model[key]

    return change


def numbered(first: int, last: int, size: int) -> Model:
    """Some pairs."""
    return {b"%04d" % n: bytes((n % 256,)) * size for n in range(first, last)}


def creation(_disk: SimDisk, _store: OpenStore, _history: History) -> None:
    """Opening a new store is the workload."""


def puts_and_checkpoints(_disk: SimDisk, store: OpenStore, history: History) -> None:
    """Small values, two checkpoints, then more."""
    for turn in range(3):
        history.write(store, put(numbered(turn * 10, turn * 10 + 15, 40 + turn)))
        history.write(store, put({b"turn": b"%d" % turn}))
        store.engine.checkpoint_now()
    history.write(store, remove(b"0003", b"0022"))


def large_values(_disk: SimDisk, store: OpenStore, history: History) -> None:
    """Values of several pages, replaced and removed."""
    history.write(store, put(numbered(0, 3, 6000)))
    store.engine.checkpoint_now()
    history.write(store, put(numbered(1, 2, 9000)))
    history.write(store, remove(b"0000", b"0001"))
    store.engine.checkpoint_now()
    history.write(store, put(numbered(5, 6, 3000)))
    store.engine.checkpoint_now()


def log_rotation(_disk: SimDisk, store: OpenStore, history: History) -> None:
    """More log than a segment holds, prepared segments, trimming."""
    for turn in range(5):
        history.write(store, put(numbered(turn, turn + 2, 20_000)))
        if turn % 2:
            store.engine.log.prepare_next()
        if turn == 3:
            store.engine.checkpoint_now()


def closing(disk: SimDisk, store: OpenStore, history: History) -> None:
    """Close and open again."""
    history.write(store, put(numbered(0, 20, 30)))
    store.engine.checkpoint_now()
    history.write(store, put(numbered(10, 30, 31)))
    store.close()
    again = open_small(disk)
    history.write(again, put(numbered(30, 31, 5)))
    again.close()


WORKLOADS = [creation, puts_and_checkpoints, large_values, log_rotation, closing]
IMAGES = 2


def run(disk: SimDisk, workload: Callable, history: History) -> None:
    """One run of a workload from an empty disk."""
    store = open_small(disk)
    workload(disk, store, history)


def recover(disk: SimDisk, random: Random) -> tuple[Model, SimDisk]:
    """Recover once with a crash somewhere in between, then wholly."""
    stop_at = disk.steps + random.randint(1, 12)

    def stop(number: int, _op: str, _path: str) -> None:
        if number == stop_at:
            raise Crash

    disk.on_step = stop
    try:
        store = open_small(disk)
    except Crash:
        disk = disk.crash(random)
        store = open_small(disk)
    disk.on_step = None
    assert_clean(store)
    return contents(store), disk


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.__name__)
def test_crash_at_every_step(workload: Callable) -> None:
    disk = SimDisk(1)
    run(disk, workload, History())
    total = disk.steps
    for step in range(1, total + 1):
        for image in range(IMAGES):
            seed = step * 1000 + image
            context = f"workload {workload.__name__}, step {step} of {total}, image {image}"
            disk, history = SimDisk(1), History()

            def stop(number: int, _op: str, _path: str, step: int = step) -> None:
                if number == step:
                    raise Crash

            disk.on_step = stop
            with pytest.raises(Crash):
                run(disk, workload, history)
            random = Random(seed)
            found, after = recover(disk.crash(random), random)
            assert found in (history.acknowledged, history.attempted), context
            again = after.crash(random)
            store = open_small(again)
            assert contents(store) == found, context
            assert_clean(store)
            # And it is a working store.
            txn = store.engine.begin()
            txn.put(b"after", b"recovery")
            store.engine.write_now(txn)
            store.engine.checkpoint_now()
            assert_clean(store)
            store.close()


@pytest.mark.parametrize("operation", ["write", "sync", "allocate"])
def test_a_failed_call_never_loses_what_was_acknowledged(operation: str) -> None:
    """EIO at each such call in turn: an error, read-only from then on, and recovery."""
    for skip in range(40):
        disk, history = SimDisk(2), History()
        store = open_small(disk)
        disk.fail_next(operation, 5, skip=skip)
        failed = False
        try:
            puts_and_checkpoints(disk, store, history)
        except Exception:
            failed = True
        if not failed:
            return
        random = Random(skip)
        found, _ = recover(disk.crash(random), random)
        assert found in (history.acknowledged, history.attempted), (operation, skip)
