"""Cursors that step, skip and take whole leaves, and point reads, against a sorted list."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.simdisk import SimDisk
from tests.engine.stores import close_checked, open_small, put_now
from treestore.engine.transaction import FEW_KEYS

NUMBERS = st.integers(0, 400)
STEPS = st.lists(
    st.tuples(st.sampled_from(["next", "batch", "seek", "near"]), NUMBERS), max_size=40
)


def key_of(number: int) -> bytes:
    return b"%05d" % number


def value_of(number: int) -> bytes:
    # Some are longer than a leaf takes.
    return b"%d" % number * (200 if number % 7 == 0 else 9)


@settings(max_examples=150, deadline=None)
@given(st.sets(NUMBERS), st.sets(NUMBERS, max_size=8), NUMBERS, NUMBERS, STEPS)
def test_a_cursor_gives_what_a_sorted_list_gives(missing, later, start, end, steps):
    numbers = set(range(400)) - missing
    store = open_small(SimDisk())
    put_now(store, ((key_of(number), value_of(number)) for number in sorted(numbers)))
    for number in later:  # These leaves are changed, but not settled.
        put_now(store, [(key_of(number), value_of(number))])
    keys = [key_of(number) for number in sorted(numbers | later) if start <= number < end]
    txn = store.engine.read()
    cursor = txn.cursor(key_of(start), key_of(end))
    at = 0
    for step, number in steps:
        if step == "next":
            found = next(cursor, None)
            assert (found and found[0]) == (keys[at] if at < len(keys) else None)
            at += found is not None
        elif step == "batch":
            batch, cells = cursor.batch()
            assert batch == keys[at : at + len(batch)]
            assert bool(batch) == (at < len(keys))
            assert [txn.value(cell) for cell in cells] == [value_of(int(key)) for key in batch]
            at += len(batch)
        else:
            # Never backwards; a short way on mostly leads to the next leaf.
            goal = number if step == "seek" or at >= len(keys) else int(keys[at]) + number % 30
            cursor.seek(key_of(goal))
            at = max(at, bisect_left(keys, key_of(goal)))
    assert [key for key, _ in cursor] == keys[at:]
    close_checked(store)


def test_a_point_read_sees_its_own_state_whatever_was_kept_of_the_leaf():
    store = open_small(SimDisk())
    numbers = range(2000)
    put_now(store, ((key_of(number), b"0" * 50) for number in numbers))
    old = store.engine.snapshot("test")
    for turn in (b"1", b"2"):
        for number in numbers:
            assert old.read().get(key_of(number)) == b"0" * 50
        put_now(store, [(key_of(number), turn * 50) for number in range(0, 2000, 10)])
        store.engine.checkpoint_now()  # Puts its leaves into the cache; some leave it again.
        for number in numbers:
            expected = b"0" if number % 10 else turn
            assert store.engine.read().get(key_of(number)) == expected * 50
        assert store.engine.read().get(b"00000x") is None
    assert store.engine.pages.cache.evictions > 0
    old.close()
    close_checked(store)


@settings(max_examples=60, deadline=None)
@given(st.sets(NUMBERS), st.sets(NUMBERS, max_size=8), NUMBERS, NUMBERS, st.booleans())
def test_keys_come_in_order_a_few_at_first(missing, later, start, end, reverse):
    store = open_small(SimDisk())
    numbers = set(range(400)) - missing
    put_now(store, ((key_of(number), b"") for number in sorted(numbers)))
    for number in later:
        put_now(store, [(key_of(number), b"x")])
    txn = store.engine.read()
    batches = list(txn.key_batches(key_of(start), key_of(end), reverse=reverse))
    found = [key for batch in batches for key in batch]
    wanted = [key_of(number) for number in sorted(numbers | later) if start <= number < end]
    assert found == (wanted[::-1] if reverse else wanted)
    assert all(batches)
    assert not batches or len(batches[0]) <= FEW_KEYS
    close_checked(store)
