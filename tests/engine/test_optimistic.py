"""Interactive transactions on the engine: what conflicts, what does not, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import attrs
import msgspec
import pytest

from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, close_checked, contents, open_small, put_now
from treestore.engine.directory import OpenStore
from treestore.engine.optimistic import OptimisticTransaction
from treestore.engine.options import EngineOptions
from treestore.errors import ResourceExhausted, SnapshotExpired, TransactionConflict

KEYS = [b"k%02d" % n for n in range(0, 100, 2)]
"""Fifty even ones; the odd ones between are free."""

Read = Callable[[Any], object]
Change = Callable[[Any], object]


def opened(options: EngineOptions = SMALL) -> OpenStore:
    store = open_small(SimDisk(), options)
    put_now(store, [(key, b"0" * 40) for key in KEYS])
    return store


@pytest.fixture
def store() -> Iterator[OpenStore]:
    store = opened()
    yield store
    close_checked(store)


def read(txn: OptimisticTransaction, what: Read) -> Any:
    return what(txn.query(1000, raw=False))


def change(txn: OptimisticTransaction, what: Change) -> Any:
    command = txn.command(raw=False)
    answer = what(command)
    txn.keep(command)
    return answer


def execute(store: OpenStore, what: Change) -> None:
    """One ordinary command, into the open group."""
    txn = store.engine.begin()
    what(txn)
    store.engine.commit(txn)


def durable(store: OpenStore) -> None:
    group = store.engine.seal()
    assert group is not None
    store.engine.publish(group, store.engine.append(group))


def commit(store: OpenStore, txn: OptimisticTransaction) -> None:
    command = store.engine.begin()
    try:
        txn.apply(command)
        store.engine.commit(command)
    except BaseException:
        store.engine.rollback(command)
        raise
    finally:
        txn.close()


def put(key: bytes, value: bytes = b"new") -> Change:
    return lambda txn: txn.put(key, value)


def delete(key: bytes) -> Change:
    return lambda txn: txn.delete(key)


def scan(
    low: bytes, high: bytes | None, count: int | None = None, *, reverse: bool = False
) -> Read:
    def run(txn: Any) -> list[bytes]:
        return [key for key, _ in islice(txn.scan(low, high, reverse=reverse), count)]

    return run


def skip(*targets: bytes) -> Read:
    """A cursor over everything that reads one entry at each target."""

    def run(txn: Any) -> list[bytes]:
        cursor = txn.cursor(b"", None)
        found = []
        for target in targets:
            cursor.seek(target)
            found.append(next(cursor)[0])
        return found

    return run


def exhaust(low: bytes, high: bytes | None) -> Read:
    return lambda txn: list(txn.cursor(low, high))


CONFLICTS: dict[str, tuple[Read, Change]] = {
    "key": (lambda txn: txn.get(b"k10"), put(b"k10")),
    "key that went": (lambda txn: txn.get(b"k10"), delete(b"k10")),
    "absence": (lambda txn: txn.get(b"k11"), put(b"k11")),
    "key in a removed range": (
        lambda txn: txn.get(b"k10"),
        lambda txn: txn.delete_range(b"k05", b"k20"),
    ),
    "value in a range": (scan(b"k10", b"k20"), put(b"k12")),
    "phantom": (scan(b"k10", b"k20"), put(b"k13")),
    "phantom before the first": (scan(b"k11", b"k20"), put(b"k11")),
    "phantom after the last": (scan(b"k10", b"k20"), put(b"k19")),
    "phantom in an empty range": (scan(b"k11", b"k12"), put(b"k115")),
    "phantom, reversed": (scan(b"k10", b"k20", reverse=True), put(b"k13")),
    "phantom at the end, reversed": (scan(b"k90", None, 1, reverse=True), put(b"k99")),
    "phantom among what was consumed": (scan(b"k10", None, 4), put(b"k13")),
    "phantom among what was consumed, reversed": (
        scan(b"", b"k50", 4, reverse=True),
        put(b"k45"),
    ),
    "removed range in a range": (
        scan(b"k10", b"k20"),
        lambda txn: txn.delete_range(b"k00", b"k90"),
    ),
    "removed range within a gap": (
        scan(b"k10", b"k20"),
        lambda txn: txn.delete_range(b"k14", b"k15"),
    ),
    "where a cursor stopped": (skip(b"k10", b"k50"), put(b"k50")),
    "between a skip and the key that it found": (skip(b"k11"), put(b"k115")),
    "the end of a cursor": (exhaust(b"k90", None), put(b"k99")),
}
"""What a transaction reads, and what another one then changes."""

HARMLESS: dict[str, tuple[Read, Change]] = {
    "another key": (lambda txn: txn.get(b"k10"), put(b"k12")),
    "a key beside one that is absent": (lambda txn: txn.get(b"k11"), put(b"k12")),
    "a range that ends before": (
        lambda txn: txn.get(b"k20"),
        lambda t: t.delete_range(b"k10", b"k20"),
    ),
    "before a range": (scan(b"k10", b"k20"), put(b"k09")),
    "at the end of a range": (scan(b"k10", b"k20"), put(b"k20")),
    "beyond what was consumed": (scan(b"k10", None, 1), put(b"k11")),
    "beyond what was consumed, reversed": (scan(b"", b"k50", 1, reverse=True), put(b"k47")),
    "far beyond what was consumed": (scan(b"k10", None, 5), put(b"k60")),
    "what a cursor skipped": (skip(b"k10", b"k50"), put(b"k30")),
    "a removed range that was skipped": (
        skip(b"k10", b"k50"),
        lambda txn: txn.delete_range(b"k20", b"k40"),
    ),
    "what it did not go to": (skip(b"k10"), put(b"k12")),
}


@pytest.mark.parametrize("moment", ["durable", "unsynced", "same group"])
@pytest.mark.parametrize("name", [*CONFLICTS, *HARMLESS])
def test_what_conflicts(store: OpenStore, name: str, moment: str) -> None:
    look, other = {**CONFLICTS, **HARMLESS}[name]
    txn = store.engine.optimistic("test")
    read(txn, look)
    change(txn, put(b"result"))
    execute(store, other)
    group = None
    if moment == "durable":
        durable(store)
    elif moment == "unsynced":
        group = store.engine.seal()
    if name in CONFLICTS:
        with pytest.raises(TransactionConflict, match="run it again"):
            commit(store, txn)
    else:
        commit(store, txn)
    if group is not None:
        store.engine.publish(group, store.engine.append(group))
    if store.engine.has_open_group:
        durable(store)
    assert (b"result" in contents(store)) is (name in HARMLESS)


def test_what_was_executed_before_the_snapshot_is_seen_or_conflicts(store: OpenStore) -> None:
    """The snapshot is durable; a group that was on its way when it began came after it."""
    execute(store, put(b"k10"))
    group = store.engine.seal()
    assert group is not None
    txn = store.engine.optimistic("test")
    assert read(txn, lambda t: t.get(b"k10")) == b"0" * 40
    store.engine.publish(group, store.engine.append(group))
    change(txn, put(b"result"))
    with pytest.raises(TransactionConflict):
        commit(store, txn)
    later = store.engine.optimistic("test")
    assert read(later, lambda t: t.get(b"k10")) == b"new"
    change(later, put(b"result"))
    commit(store, later)
    durable(store)


@pytest.mark.parametrize(
    "own",
    [put(b"k10"), lambda txn: txn.put_sorted([(b"k10", b"x"), (b"k11", b"y")])],
)
def test_blind_writes_do_not_conflict(store: OpenStore, own: Change) -> None:
    txn = store.engine.optimistic("test")
    change(txn, own)
    read(txn, lambda t: t.get(b"k10"))  # its own: no read of the snapshot
    assert change(txn, delete(b"k10")) is True
    assert read(txn, lambda t: t.get(b"k10")) is None
    for other in (put(b"k10"), lambda t: t.delete_range(b"", None)):
        execute(store, other)
        durable(store)
    commit(store, txn)
    if store.engine.has_open_group:  # Where all it did was to remove what is gone, there is none.
        durable(store)
    assert b"k10" not in contents(store)


@pytest.mark.parametrize("look", [None, scan(b"k50", b"k52")])
def test_what_it_put_and_removed_is_gone_whoever_puts_it_meanwhile(
    store: OpenStore, look: Read | None
) -> None:
    """Also where the snapshot has no such key, and the changes go into a tree between."""
    txn = store.engine.optimistic("test")
    change(txn, put(b"k11"))
    assert change(txn, delete(b"k11")) is True
    if look is not None:
        read(txn, look)
    execute(store, put(b"k11"))
    commit(store, txn)
    durable(store)
    assert b"k11" not in contents(store)


@pytest.mark.parametrize(
    ("own", "other", "conflicts"),
    [
        (delete(b"k10"), delete(b"k10"), True),
        (delete(b"k11"), put(b"k11"), True),
        (delete(b"k10"), put(b"k12"), False),
        (lambda t: t.delete_range(b"k10", b"k20"), put(b"k13"), True),
        (lambda t: t.delete_range(b"k11", b"k12"), put(b"k115"), True),
        (lambda t: t.delete_range(b"k10", b"k20"), put(b"k20"), False),
    ],
)
def test_the_answers_of_deletes_are_reads(
    store: OpenStore, own: Change, other: Change, conflicts: bool
) -> None:
    txn = store.engine.optimistic("test")
    change(txn, own)
    change(txn, put(b"result"))
    execute(store, other)
    if conflicts:
        with pytest.raises(TransactionConflict):
            commit(store, txn)
    else:
        commit(store, txn)
    durable(store)


def test_a_command_that_fails_leaves_nothing_but_its_reads(store: OpenStore) -> None:
    txn = store.engine.optimistic("test")
    command = txn.command(raw=False)
    command.put(b"half", b"1")
    assert command.get(b"k10") is not None
    # It is not kept.
    assert read(txn, lambda t: t.get(b"half")) is None
    change(txn, put(b"result"))
    execute(store, put(b"k10"))
    with pytest.raises(TransactionConflict):
        commit(store, txn)
    durable(store)
    assert b"half" not in contents(store)


def test_a_stream_goes_on_with_the_state_that_it_was_opened_on(store: OpenStore) -> None:
    txn = store.engine.optimistic("test")
    change(txn, put(b"k01"))
    found = txn.long_query(raw=False).scan(b"", None)
    first = next(found)
    change(txn, lambda t: t.delete_range(b"", None))
    assert [first, *found] == [
        (b"k00", b"0" * 40),
        (b"k01", b"new"),
        *((key, b"0" * 40) for key in KEYS[1:]),
    ]
    txn.close()


def test_what_an_old_stream_reads_is_validated_although_it_was_overwritten(
    store: OpenStore,
) -> None:
    txn = store.engine.optimistic("test")
    lease = store.engine.pin(txn.lease.state, "stream")
    stream = txn.long_query(raw=False, lease=lease)
    change(txn, put(b"k10"))
    assert stream.get(b"k10") == b"0" * 40
    lease.close()
    execute(store, put(b"k10"))
    with pytest.raises(TransactionConflict):
        commit(store, txn)
    durable(store)


def test_rolled_back_and_abandoned_writes_are_no_conflict(store: OpenStore) -> None:
    engine = store.engine
    txn = engine.optimistic("test")
    read(txn, lambda t: t.get(b"k10"))
    change(txn, put(b"result"))
    refused = engine.begin()
    refused.put(b"k10", b"never")
    engine.rollback(refused)
    execute(store, put(b"k10"))
    engine.seal()
    execute(store, put(b"k10"))
    engine.abandon()
    commit(store, txn)
    durable(store)
    assert contents(store)[b"k10"] == b"0" * 40


def test_nothing_is_remembered_while_no_transaction_is_open(store: OpenStore) -> None:
    window = store.engine.window
    for _ in range(3):
        execute(store, put(b"k10"))
        durable(store)
        assert (window.count, window.size_bytes) == (0, 0)
    txn = store.engine.optimistic("test")
    later = store.engine.optimistic("test")
    for turn in range(3):
        execute(store, put(b"k10"))
        durable(store)
        assert window.count == turn + 1
    later.close()
    assert window.count == 3
    txn.close()
    assert (window.count, window.size_bytes, window.transactions) == (0, 0, 0)


@pytest.mark.parametrize(
    "bound", [{"window_transactions_max": 100}, {"window_size_bytes_max": 20_000}]
)
def test_the_window_is_bounded(bound: dict[str, Any]) -> None:
    store = opened(attrs.evolve(SMALL, **bound))
    engine = store.engine
    txn = engine.optimistic("test")
    change(txn, put(b"result"))  # It reads nothing; still nobody knows.
    for turn in range(1000):
        execute(store, put(b"k%02d" % (turn % 100)))
        durable(store)
        assert engine.window.count <= 100 or engine.window.size_bytes <= 20_000
    late = engine.optimistic("test")
    read(late, scan(b"", None))
    change(late, put(b"late"))
    commit(store, late)
    with pytest.raises(TransactionConflict, match="keep it short"):
        commit(store, txn)
    durable(store)
    close_checked(store)


def test_a_transaction_may_not_write_more_than_one_may(store: OpenStore) -> None:
    limit = store.engine.options.transaction_size_bytes_max
    txn = store.engine.optimistic("test")
    with pytest.raises(ResourceExhausted, match="split it"):
        for turn in range(limit // 50_000 + 2):
            change(txn, put(b"large%d" % turn, bytes(50_000)))
    assert txn.size_bytes <= limit
    txn.close()


def test_an_evicted_transaction_cannot_read(store: OpenStore) -> None:
    txn = store.engine.optimistic("test")
    txn.lease.evict("It was evicted.")
    for use in (lambda: txn.query(9, raw=False), lambda: txn.command(raw=False)):
        with pytest.raises(SnapshotExpired, match="It was evicted"):
            use()
    txn.close()


def test_many_changes_are_applied_in_order(store: OpenStore) -> None:
    txn = store.engine.optimistic("test")
    many = [(b"m%04d" % n, b"%d" % n * 40) for n in range(3000)]
    change(txn, lambda t: t.put_sorted(many))
    change(txn, lambda t: t.delete_range(b"m0100", b"m2900"))
    for n in range(200, 0, -1):
        change(txn, put(b"m%04d" % n))
    change(txn, delete(b"m0005"))
    expected = read(txn, lambda t: dict(t.scan(b"", None)))
    commit(store, txn)
    durable(store)
    assert contents(store) == expected
    # 0 to 200 were put one by one, 2900 to 2999 are left of the run, and 5 was removed.
    assert len(expected) == len(KEYS) + 201 + 100 - 1


def test_what_was_validated_ahead_is_not_looked_at_again(store: OpenStore) -> None:
    txn = store.engine.optimistic("test")
    read(txn, lambda t: t.get(b"k10"))
    change(txn, put(b"result"))
    for _ in range(3):
        execute(store, put(b"k12"))
        durable(store)
    window = store.engine.window
    assert window.unseen_bytes(txn.number, 0, ranges=False) > 0
    txn.validate_ahead()
    assert window.unseen_bytes(txn.number, 0, ranges=False) == 0
    assert not txn.is_heavy
    execute(store, put(b"k10"))
    with pytest.raises(TransactionConflict):
        commit(store, txn)
    durable(store)


def test_what_was_overwritten_inside_is_not_in_the_log(store: OpenStore) -> None:
    txn = store.engine.optimistic("test")
    for value in (b"first", b"second", b"third"):
        change(txn, put(b"k00", value))
        change(txn, put(b"gone", value))
    change(txn, delete(b"gone"))
    change(txn, lambda t: t.delete_range(b"k02", b"k10"))
    change(txn, put(b"k04"))
    commit(store, txn)
    [logged] = store.engine.executed
    [payload] = logged.payloads
    assert msgspec.msgpack.decode(payload) == [
        *([b"k02", b"k10"], None),
        *(b"k00", b"third"),
        *(b"k04", b"new"),
    ]
    durable(store)
