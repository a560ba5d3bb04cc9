"""Estimates of how many entries lie between two keys."""

from __future__ import annotations

from bisect import bisect_left
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.simdisk import SimDisk
from tests.engine.stores import open_small, put_now
from treestore.engine.transaction import ESTIMATE_LOOKUPS


@settings(max_examples=40)
@given(
    st.integers(0, 3000),
    st.integers(1, 60),
    st.booleans(),
    st.integers(0, 1000),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 4000)), min_size=1, max_size=20),
)
def test_it_is_within_a_factor(
    count: int, value_size: int, random_order: bool, removed: int, ranges: list[tuple[int, int]]
) -> None:
    """Whatever the order of writes and the sizes of values; the tree has three levels and more."""
    store = open_small(SimDisk())
    numbers = list(range(count))
    random = Random(count)
    if random_order:
        random.shuffle(numbers)
    put_now(
        store,
        ((b"%06d" % n, b"v" * random.randrange(value_size)) for n in numbers),
    )
    gone = set(random.sample(range(count), min(removed, count)))
    txn = store.engine.begin()
    for number in gone:
        txn.delete(b"%06d" % number)
    store.engine.write_now(txn)
    kept = sorted(b"%06d" % n for n in range(count) if n not in gone)
    read = store.engine.read()
    for low, high in ranges:
        start, end = b"%06d" % low, b"%06d" % high
        exact = max(bisect_left(kept, end) - bisect_left(kept, start), 0)
        estimate = read.estimate(start, end)
        assert exact / 3 - 40 <= estimate <= exact * 3 + 40
        assert estimate == exact or exact > 2
    assert len(kept) / 3 - 40 <= read.estimate(b"", None) <= len(kept) * 3 + 40
    store.close()


def test_it_pays_a_few_lookups() -> None:
    store = open_small(SimDisk())
    put_now(store, ((b"%06d" % n, b"") for n in range(5000)))
    read = store.engine.read(budget=100)
    assert read.estimate(b"000100", b"000105") == 5
    assert read.estimate(b"9", None) == read.estimate(b"2", b"1") == 0
    assert 4000 < read.estimate(b"", None) < 6000
    assert read.budget == 100 - 4 * ESTIMATE_LOOKUPS
    store.close()
