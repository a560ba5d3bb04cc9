"""Paths, the room between siblings, and the page index against brute force."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stores.fake import BATCH, FakeStore, FakeWrite
from treestore.stores.documents import layout, reading, storing
from treestore.stores.documents.layout import (
    Place,
    decode_ordinal,
    encode_ordinal,
    level_ends,
    parent_path,
    spread,
)
from treestore.stores.documents.pages import page_item, parse_pages, paths_on_pages
from treestore.stores.json_values import encode

ORDINALS = st.integers(0, 70_000) | st.integers(0, 1 << 36) | st.integers(6_323_000, 6_324_000)


@given(ORDINALS, ORDINALS)
def test_ordinals_keep_their_order(a, b):
    x, y = encode_ordinal(a), encode_ordinal(b)
    assert (x < y) == (a < b)
    assert decode_ordinal(x) == a
    assert 0x02 <= x[0] <= 0xEF
    assert a == b or not x.startswith(y)


@given(st.lists(ORDINALS, max_size=6))
def test_paths_fall_apart_into_levels(ordinals):
    codes = [encode_ordinal(o) for o in ordinals]
    path = b"".join(codes)
    ends = level_ends(path)
    assert [path[:end] for end in ends] == [b"".join(codes[: i + 1]) for i in range(len(codes))]
    assert parent_path(path) == b"".join(codes[:-1])


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 5)), max_size=60))
def test_siblings_stay_in_order_whatever_is_put_where(steps):
    ordinals: list[int] = []
    names: list[int] = []
    for number, (where, count) in enumerate(steps):
        index = where % (len(ordinals) + 1)
        low, high, new = spread(ordinals, index, count)
        assert low <= index <= high
        assert len(new) == high - low + count
        ordinals[low:high] = new
        names[index:index] = [number] * count
        assert len(ordinals) == len(names)
        assert all(a < b for a, b in pairwise([0, *ordinals]))


def test_a_crowded_gap_moves_few_siblings():
    ordinals = [64 * (i + 1) for i in range(10_000)]
    moved = 0
    for _ in range(1000):
        low, high, new = spread(ordinals, 5000, 1)
        moved += high - low
        ordinals[low:high] = new
    assert moved < 1000 * 40


EDGE = st.integers(-20, 60) | st.integers(0, 10**9) | st.sampled_from([2**62 - 1, 1 - 2**62])
BOUNDS = st.tuples(st.none() | EDGE, st.none() | EDGE)
RANGES = st.lists(st.tuples(EDGE, EDGE).map(lambda p: (min(p), max(p))), min_size=1, max_size=4)


@given(st.lists(BOUNDS, max_size=30), RANGES)
def test_page_index_finds_what_brute_force_finds(intervals, ranges):
    txn, place = FakeWrite(), Place("p", "v")
    expected = []
    for number, (start, end) in enumerate(intervals):
        path = encode_ordinal(number)
        item = page_item(place, path, start, end)
        if item is not None:
            txn.put(*item)
        low = end if start is None else start
        high = start if end is None else end
        if low is not None and high is not None:
            touched = any(max(low, a) <= min(high, b) for a, b in ranges)
            if low <= high and touched:
                expected.append(path)
    assert paths_on_pages(txn, place, ranges) == expected


PARTS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=1, max_size=6)


@given(PARTS, st.sampled_from(["", " "]))
def test_page_sets(parts, space):
    text = ",".join(
        f"{space}{first}{space}-{first + more}" if more else f"{first}{space}"
        for first, more in parts
    )
    ranges = parse_pages(text)
    asked = {page for first, more in parts for page in range(first, first + more + 1)}
    assert {page for first, last in ranges for page in range(first, last + 1)} == asked
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


def test_a_child_read_skips_what_lies_below():
    store = FakeStore()
    below = [{"title": "leaf", "text": "x" * 2000} for _ in range(200)]
    store.prepared(storing.store, "p", "v", [{"title": str(i), "nodes": below} for i in range(5)])
    txn = store.txn
    txn.visited = txn.values_read = 0
    assert len(reading.get_children(txn, "p")) == 5
    # Each root, and the keys that came with it, whose values are not read.
    assert txn.visited <= 5 * BATCH
    assert txn.values_read == 5
    txn.visited = txn.values_read = 0
    nodes = reading.get_subtree(txn, "p", include_text=False)
    assert len(nodes) == 1005
    assert txn.values_read == 1005


_ORDINALS = st.sampled_from([1, 2, 3, 40_000, 40_001, 2**23, 2**23 + 1])  # in 2, 3 and 5 bytes


@given(
    st.sets(st.lists(_ORDINALS, min_size=1, max_size=5).map(tuple), max_size=60),
    st.integers(0, 4),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_a_depth_limit_counts_levels_whatever_their_ordinals_take(paths, depth, include_text):
    txn = FakeWrite()
    place = Place("p", "v")
    txn.put(place.document, b"\x80")
    # Every path's ancestors are there, too.
    paths = {path[:end] for path in paths for end in range(1, len(path) + 1)}
    for path in paths:
        name = "-".join(map(str, path))
        node = {"policy_id": "p", "version_id": "v", "node_id": name, "text": ""}
        head = encode(node)[:-1]
        text = encode("x" * (2000 if sum(path) % 3 == 0 else 5))
        record, long_text = layout.make_record(head, text, b"\x91\x00")
        key = place.nodes + b"".join(map(encode_ordinal, path))
        txn.put(key + layout.HEAD, record)
        if long_text is not None:
            txn.put(key + layout.TEXT, long_text)
        txn.put(place.ids + layout.packed_node_id(name), key[len(place.nodes) :])

    def expected(start, levels):
        return [
            "-".join(map(str, path))
            for path in sorted(paths)
            if path[: len(start)] == start and len(path) - len(start) <= levels
        ]

    found = reading.get_subtree(
        txn, "p", max_depth=depth, include_text=include_text, version_id="v"
    )
    assert [node.node_id for node in found] == expected((), depth + 1)
    assert all(bool(node.text) is include_text for node in found)
    for start in sorted(paths)[:10]:
        name = "-".join(map(str, start))
        found = reading.get_subtree(txn, "p", name, max_depth=depth, version_id="v")
        assert [node.node_id for node in found] == expected(start, depth)
        found = reading.get_children(txn, "p", name, version_id="v")
        assert [node.node_id for node in found] == expected(start, 1)[1:]
