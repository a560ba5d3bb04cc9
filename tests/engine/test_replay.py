"""Replay against a model: batches, ranges, checkpoints in the middle, interruptions."""

from __future__ import annotations

from random import Random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crash.simdisk import Crash, SimDisk
from tests.engine.stores import SMALL, assert_clean, close_checked, contents, open_small
from treestore.engine.directory import OpenStore
from treestore.engine.meta import read_slots
from treestore.engine.options import EngineOptions
from treestore.errors import CorruptionError

TINY = attrs.evolve(SMALL, recovery_batch_bytes=3000, recovery_dirty_bytes=4096)
"""Many batches, and a checkpoint after every few pages."""

Model = dict[bytes, bytes]

KEYS = st.integers(0, 300).map(lambda n: b"%03d" % n)
SIZES = st.sampled_from([0, 1, 40, 200, 256, 257, 3000])
CHANGES = st.one_of(
    st.tuples(st.just("put"), KEYS, SIZES),
    st.tuples(st.just("run"), KEYS, st.integers(1, 120)),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("range"), KEYS, st.none() | KEYS),
)
TRANSACTIONS = st.lists(st.lists(CHANGES, min_size=1, max_size=6), max_size=12)


def apply(store: OpenStore, model: Model, changes: list[tuple], fill: Random) -> None:
    """One transaction, synced."""
    txn = store.engine.begin()
    for change in changes:
        match change:
            case ("put", key, size):
                model[key] = fill.randbytes(size)
                txn.put(key, model[key])
            case ("run", key, count):
                for number in range(count):
                    one = b"%03d" % (int(key) + number)
                    model[one] = fill.randbytes(20)
                    txn.put(one, model[one])
            case ("delete", key):
                model.pop(key, None)
                txn.delete(key)
            case ("range", start, end):
                for key in [k for k in model if k >= start and (end is None or k < end)]:
                    del model[key]
                txn.delete_range(start, end)
            case _:
                raise AssertionError(change)
    store.engine.write_now(txn)


@given(TRANSACTIONS, TRANSACTIONS, st.sampled_from([SMALL, TINY]), st.integers(1, 400))
def test_replay_gives_what_was_written(before, after, options, stop_at):
    disk, fill = SimDisk(), Random(0)
    model: Model = {}
    store = open_small(disk)
    for changes in before:
        apply(store, model, changes, fill)
    store.engine.checkpoint_now()
    for changes in after:
        apply(store, model, changes, fill)
    disk.restart()
    interrupted = disk.clone()
    store = open_small(disk, options)
    assert contents(store) == model
    assert store.engine.durable.count == len(model)
    transactions = store.report.replayed_transactions
    close_checked(store)

    # The same, but the power fails on the way, twice.
    for _ in range(2):
        limit = interrupted.steps + stop_at

        def stop(number: int, _op: str, _path: str, limit: int = limit) -> None:
            if number == limit:
                raise Crash

        interrupted.on_step = stop
        try:
            open_small(interrupted, options)
        except Crash:
            pass
        interrupted = interrupted.crash(fill)
    store = open_small(interrupted, options)
    assert contents(store) == model
    assert store.engine.durable.count == len(model)
    assert store.report.replayed_transactions <= transactions
    assert_clean(store)
    apply(store, model, [("run", b"100", 50), ("range", b"120", b"130")], fill)
    store.engine.checkpoint_now()
    assert contents(store) == model
    close_checked(store)


def grown(disk: SimDisk, transactions: int = 300) -> Model:
    """A store that died with that many transactions in its log, all of them behind its slots."""
    store, fill = open_small(disk), Random(1)
    model: Model = {}
    for number in range(transactions):
        apply(store, model, [("put", b"%05d" % (number * 7919 % 99991), 100)], fill)
    disk.restart()
    return model


def test_checkpoints_in_between_bound_what_is_dirty_and_are_resumed() -> None:
    disk = SimDisk()
    model = grown(disk)
    again = disk.clone()
    store = open_small(disk, TINY)
    assert store.engine.checkpoints > 5
    assert store.engine.dirty_pages <= 4 + 2 * 8
    assert contents(store) == model
    assert store.report.replayed_transactions == 300
    close_checked(store)

    syncs: list[str] = []

    def stop(_number: int, op: str, path: str) -> None:
        if op == "sync" and path.endswith("pages"):
            syncs.append(path)
        if len(syncs) > 20:
            raise Crash

    again.on_step = stop
    with pytest.raises(Crash):
        open_small(again, TINY)
    store = open_small(again.crash(Random(2)), TINY)
    assert contents(store) == model
    assert 0 < store.report.replayed_transactions < 300
    close_checked(store)


def test_a_checkpoint_at_the_very_end_does_not_keep_the_log() -> None:
    """It has everything but the position; the next one must not think that nothing changed."""
    disk = SimDisk()
    model = grown(disk, 60)
    one_page = attrs.evolve(TINY, recovery_batch_bytes=1 << 20, recovery_dirty_bytes=1)
    store = open_small(disk, one_page)
    engine = store.engine
    assert engine.slots[0].replay_to_lsn == 60
    assert engine.slots[0].log_position[0] == 0
    assert engine.transactions_since_checkpoint == 60
    for _ in range(2):
        engine.checkpoint_now()
        apply(store, model, [("put", b"more", 5)], Random(3))
    assert engine.slots[0].replay_to_lsn == 0
    assert engine.log.live_size_bytes() <= 4096 * 8
    assert contents(store) == model
    close_checked(store)
    store = open_small(disk)
    assert store.report.replayed_transactions == 1
    assert contents(store) == model
    close_checked(store)


def test_a_slot_from_the_middle_of_a_replay_needs_the_log() -> None:
    """The tree that it names holds parts of transactions: it is nothing without the log."""
    disk = SimDisk()
    grown(disk, 60)
    one_page = attrs.evolve(TINY, recovery_batch_bytes=1 << 20, recovery_dirty_bytes=1)
    end = open_small(disk, one_page).engine.durable.position
    disk.restart()
    file = disk.open("/db/pages", read_only=True)
    slots, _ = read_slots(file)
    assert (slots[0].log_position[0], slots[0].replay_to_lsn) == (0, 60)
    # The last group is lost, which by itself looks like a clean end.
    disk.poke(f"/db/log/{end.sequence:016x}.log", end.offset - 4096, bytes(4096))
    with pytest.raises(CorruptionError, match="holds record 60"):
        open_small(disk)


def test_what_was_replayed_counts_towards_the_next_checkpoint() -> None:
    disk = SimDisk()
    grown(disk, 50)
    store = open_small(disk, attrs.evolve(SMALL, checkpoint_records=50))
    assert store.engine.checkpoint_due()
    close_checked(store)


def test_the_defaults_leave_room_for_a_small_log() -> None:
    options = EngineOptions()
    assert options.recovery_batch_bytes > options.checkpoint_log_size_bytes
