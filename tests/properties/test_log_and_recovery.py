"""Properties 20 to 25: the log, what recovery makes of it, and checkpoints."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import attrs
from hypothesis import given
from hypothesis import strategies as st

from tests.crash.history import Change, History, State, numbered, put, remove, remove_keys
from tests.crash.simdisk import Crash, SimDisk
from tests.engine.stores import SMALL, assert_clean, close_checked, contents, open_small, put_now
from tests.engine.test_replay import TRANSACTIONS, Model, apply
from tests.properties.scenes import HOW, crashed, examples
from treestore.engine.changes import notes_of
from treestore.engine.directory import OpenStore
from treestore.engine.log import LogPosition
from treestore.engine.log.format import BLOCK_BYTES, KIND_COMMIT

SEEDS = st.integers(0, 2**32)
TINY_LOG = attrs.evolve(
    SMALL,
    log_segment_size_bytes_min=1 << 14,
    log_segment_size_bytes_max=1 << 16,
    log_size_bytes_max=4 << 20,
    transaction_size_bytes_max=1 << 20,
)
"""Segments so small that most stories rotate them."""

CHANGE: st.SearchStrategy[Change] = st.one_of(
    st.builds(
        lambda low, count, size: put(numbered(range(low, low + count), size)),
        *(st.integers(0, 40), st.integers(1, 12), st.sampled_from([0, 10, 200, 3000])),
    ),
    st.builds(
        lambda low, count: remove(b"k%04d" % low, b"k%04d" % (low + count)),
        *(st.integers(0, 40), st.integers(0, 20)),
    ),
    st.lists(st.integers(0, 50), max_size=5).map(
        lambda numbers: remove_keys([b"k%04d" % n for n in numbers])
    ),
)
GROUPS = st.lists(st.lists(CHANGE, min_size=1, max_size=4), min_size=1, max_size=6)


def die_after(disk: SimDisk, steps: int) -> None:
    """The power fails before the step after so many."""
    last = disk.steps + steps + 1

    def fail_power(step: int, _op: str, _path: str) -> None:
        if step == last:
            raise Crash

    disk.on_step = fail_power


@examples(60)
@given(GROUPS, st.integers(0, 3), st.integers(0, 40), HOW, SEEDS)
def test_property_20_log_replay_completeness(
    groups: list[list[Change]], checkpoint_after: int, crash_after: int, how: str, seed: int
) -> None:
    """After a crash at any step, replaying the log gives every transaction that was acknowledged,
    and of those on their way only a first few, each whole."""
    disk, history = SimDisk(seed), History()
    store = open_small(disk, TINY_LOG)
    history.groups(store, groups[:checkpoint_after])
    store.engine.checkpoint_now()
    die_after(disk, crash_after)
    try:
        history.groups(store, groups[checkpoint_after:])
    except Crash:
        pass
    store = open_small(crashed(disk, how, Random(seed)), TINY_LOG)
    assert contents(store) in history.allowed()
    assert store.engine.durable.count == len(contents(store))
    close_checked(store)


@examples(40)
@given(TRANSACTIONS, st.integers(1, 3), HOW, SEEDS)
def test_property_21_log_truncation(
    transactions: list[list[tuple]], every: int, how: str, seed: int
) -> None:
    """Checkpoints give the log before them up: it does not grow with what was ever written, and
    nothing that was given up is ever missed."""
    disk, fill = SimDisk(seed), Random(seed)
    model: Model = {}
    store = open_small(disk, TINY_LOG)
    for number, changes in enumerate(transactions * 3):
        apply(store, model, changes, fill)
        if number % every == 0:
            for _ in range(2):  # What is needed begins at the older of two slots.
                put_now(store, [(b"mark", b"%d" % number)])
                model[b"mark"] = b"%d" % number
                store.engine.checkpoint_now()
            after = store.engine.log.live_size_bytes()
            # What the last two left: two little groups, and the beginning of a segment.
            assert after <= 4 * BLOCK_BYTES
    store = open_small(crashed(disk, how, fill), TINY_LOG)
    assert contents(store) == model
    close_checked(store)


@examples(40)
@given(TRANSACTIONS, st.integers(0, 11), st.integers(0, 200) | st.integers(0, 20_000), SEEDS)
def test_property_21_log_truncation_at_any_byte(
    transactions: list[list[tuple]], group: int, offset: int, seed: int
) -> None:
    """A log of which the end is missing, from any byte on, is replayed up to its last whole
    transaction: the state is one that was committed, never one in between."""
    disk, fill = SimDisk(seed), Random(seed)
    model: Model = {}
    store = open_small(disk)
    ends, states = [store.engine.log.position.offset], [dict(model)]
    for changes in transactions:
        apply(store, model, changes, fill)
        ends.append(store.engine.log.position.offset)
        states.append(dict(model))
    sequence = store.engine.log.position.sequence
    if len(disk.list("/db/log")) > 1 or sequence != 0:
        return  # It went on in another segment; see property 20.
    path = f"/db/log/{sequence:016x}.log"
    cut = min(ends[group % len(ends)] + offset, ends[-1])  # Often in the bytes of a group.
    left = disk.clone()
    left.poke(path, cut, bytes(len(disk.image(path)) - cut))
    recovered = open_small(left)
    assert contents(recovered) == states[sum(end <= cut for end in ends) - 1]
    close_checked(recovered)


def state_from_log(store: OpenStore) -> dict[int, State]:
    """What replaying the records one by one on a plain dict gives, after each group."""
    state: State = {}
    found = {0: dict(state)}
    log = store.engine.log
    for notes, position in notes_of(log.groups_after(LogPosition(0), log.position.lsn)):
        for key, value in notes:
            if isinstance(key, list):
                start, end = key
                for one in [k for k in state if k >= start and (end is None or k < end)]:
                    del state[one]
            elif value is None:
                state.pop(key, None)
            else:
                state[key] = value
        found[position.lsn] = dict(state)
    return found


@examples(60)
@given(TRANSACTIONS, st.lists(st.integers(0, 11), max_size=2), SEEDS)
def test_property_22_log_entry_completeness(
    transactions: list[list[tuple]], reopened: list[int], seed: int
) -> None:
    """The records alone say all: done one after the other on an empty dict, they give the state
    after each transaction, without any look at the tree."""
    disk, fill = SimDisk(seed), Random(seed)
    options = attrs.evolve(TINY_LOG, log_retention_bytes=1 << 20)
    model: Model = {}
    expected: dict[int, State] = {0: {}}
    store = open_small(disk, options)
    for number, changes in enumerate(transactions):
        apply(store, model, changes, fill)
        expected[store.engine.log.position.lsn] = dict(model)
        if number in reopened:
            store.close()
            store = open_small(disk, options)
    found = state_from_log(store)
    # A transaction that changes nothing has no records: its state is that of those before it.
    assert {lsn: found[max(one for one in found if one <= lsn)] for lsn in expected} == expected
    assert found[max(found)] == contents(store) == model
    close_checked(store)


@examples(60)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(1, 20_000)),
            st.tuples(
                st.sampled_from(["close", "kill", "power", "checkpoint", "mark"]), st.just(0)
            ),
        ),
        min_size=1,
        max_size=14,
    ),
    SEEDS,
)
def test_property_23_log_sequence_monotonicity(actions: list[tuple[str, int]], seed: int) -> None:
    """Records are numbered one after the other, without a gap and without ever using a number
    twice, groups and transactions in the same order, and time does not fall: over rotations,
    restarts, crashes and clocks that are set back."""
    disk, fill = SimDisk(seed), Random(seed)
    options = attrs.evolve(TINY_LOG, log_retention_bytes=3 << 20)
    store = open_small(disk, options)
    acknowledged: list[tuple[int, int]] = []
    for action, size in actions:
        if action == "write":
            put_now(store, [(b"k", fill.randbytes(size))])
            position, number = store.engine.log.position, store.engine.durable.number
            assert not acknowledged or (position.lsn, number) > acknowledged[-1]
            acknowledged.append((position.lsn, number))
        elif action == "checkpoint":
            store.engine.checkpoint_now()
        elif action == "mark":
            store.engine.log.mark_synced()
        else:
            if action == "close":
                store.close()
                disk = disk.killed()
            else:
                disk = crashed(disk, action, fill)
            store = open_small(disk, options)  # Its clock begins anew, in the past.
    records = list(store.engine.log.read(store.engine.log.follow(LogPosition(0)).first_lsn))
    assert [record.lsn for record in records] == list(
        range(records[0].lsn, records[0].lsn + len(records)) if records else []
    )
    groups = [record.group for record in records]
    assert all(after - before in (0, 1) for before, after in pairwise(groups))
    times = [record.time_ns for record in records]
    assert times == sorted(times)
    written = [
        (record.lsn, record.transaction_id) for record in records if record.kind == KIND_COMMIT
    ]
    numbers = [number for _, number in written]
    assert numbers == sorted(set(numbers))
    first = records[0].lsn if records else 1 << 62
    assert set(written) >= {each for each in acknowledged if each[0] >= first}
    close_checked(store)


@examples(60)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["put", "put", "put", "delete"]), st.integers(0, 3)),
            st.tuples(
                st.sampled_from(["checkpoint", "half a checkpoint", "kill", "power", "close"]),
                st.integers(0, 30),
            ),
        ),
        min_size=1,
        max_size=16,
    ),
    SEEDS,
)
def test_property_24_log_precedence_in_recovery(actions: list[tuple[str, int]], seed: int) -> None:
    """What was written last counts: a newer record before an older one, the log before the
    checkpoint, the newer checkpoint before the older one, whenever the store went down between
    them."""
    disk, random = SimDisk(seed), Random(seed)
    model: Model = {}
    store = open_small(disk)
    for number, (action, which) in enumerate([*actions, ("power", 0)]):
        key = b"k%d" % which
        if action == "put":
            model[key] = b"%d" % number + b"x" * random.choice([0, 500])
            put_now(store, [(key, model[key])])
        elif action == "delete":
            txn = store.engine.begin()
            assert txn.delete(key) == (model.pop(key, None) is not None)
            store.engine.write_now(txn)
        elif action == "checkpoint":
            store.engine.checkpoint_now()
        elif action == "close":
            close_checked(store)
            store = open_small(disk)
        else:
            if action == "half a checkpoint":
                die_after(disk, which)
                try:
                    store.engine.checkpoint_now()
                except Crash:
                    pass
            disk = crashed(disk, "kill" if action == "kill" else "power", random)
            store = open_small(disk)
        assert contents(store) == model
    close_checked(store)


@examples(60)
@given(GROUPS, GROUPS, GROUPS, HOW, SEEDS)
def test_property_25_checkpoint_completeness(
    before: list[list[Change]],
    meanwhile: list[list[Change]],
    after: list[list[Change]],
    how: str,
    seed: int,
) -> None:
    """A checkpoint has all that was committed when it began, in pages alone: the next start replays
    what came after that and nothing else, though others wrote while it was made."""
    disk, history = SimDisk(seed), History()
    store = open_small(disk, TINY_LOG)
    engine = store.engine
    history.groups(store, before)
    begun = engine.durable.number
    checkpoint = engine.begin_checkpoint()
    history.groups(store, meanwhile)
    if checkpoint is not None:
        checkpoint.run()
        position = engine.finish_checkpoint()
        assert position is not None
        engine.log.trim(position)
    history.groups(store, after)
    records = engine.log.read(engine.log.follow(LogPosition(0)).first_lsn)
    later = [r for r in records if r.kind == KIND_COMMIT and r.transaction_id > begun]
    assert_clean(store)
    disk = crashed(disk, how, Random(seed))
    store = open_small(disk, TINY_LOG)
    assert contents(store) == history.acknowledged
    if checkpoint is not None:
        assert store.report.replayed_transactions == len(later)
    # Without anything after it, there is nothing to replay at all.
    store.engine.checkpoint_now()
    close_checked(store)
    store = open_small(disk, TINY_LOG)
    assert store.report.replayed_transactions == 0
    assert contents(store) == history.acknowledged
    close_checked(store)
