"""The working tree against a sorted dict: puts, deletes, ranges, bulk stores, snapshots."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from treestore.engine import tree
from treestore.engine.node import NO_VALUES, Node, Ref, Shape
from treestore.engine.split import cut_points, entry_sizes, separator
from treestore.engine.working import WorkingTree

SHAPE = Shape(1024)


def no_load(ref: Ref) -> Node:
    raise AssertionError("everything is in memory here")


def empty() -> Ref:
    return Ref(Node([], NO_VALUES, None, 0, 0))


def items(root: Ref, start: bytes = b"", end: bytes | None = None) -> list[tuple[bytes, bytes]]:
    out: list[tuple[bytes, bytes]] = []
    for node, first, last in tree.leaves(root, start, end, no_load):
        for key, value in zip(node.keys[first:last], node.values[first:last], strict=True):
            out.append((key, value if isinstance(value, bytes) else value.node or b""))
    return out


def items_reversed(root: Ref, start: bytes, end: bytes | None) -> list[tuple[bytes, bytes]]:
    out: list[tuple[bytes, bytes]] = []
    for node, first, last in tree.leaves_reversed(root, start, end, no_load):
        pairs = list(zip(node.keys[first:last], node.values[first:last], strict=True))
        out.extend((k, v if isinstance(v, bytes) else v.node or b"") for k, v in reversed(pairs))
    return out


def check(root: Ref, *, fill: bool = False) -> None:
    """Sizes, order, bounds, depth; with ``fill`` that no inner node is too empty."""
    depths = set()

    def walk(ref: Ref, low: bytes | None, high: bytes | None, depth: int, edge: bool) -> None:
        node = ref.node
        assert node is not None
        node.settle()
        assert node.keys == sorted(set(node.keys))
        assert low is None or not node.keys or node.keys[0] >= low
        assert high is None or not node.keys or node.keys[-1] < high
        assert node.size <= SHAPE.capacity
        if node.children is None:
            assert node.size == sum(len(k) + 6 for k in node.keys) + sum(
                SHAPE.value_size(v) for v in node.values
            )
            depths.add(depth)
        else:
            assert node.size == sum(entry_sizes(node, SHAPE))
            assert len(node.children) == len(node.keys) + 1
            assert depth > 0 or len(node.children) > 1
            bounds = [low, *node.keys, high]
            for index, child in enumerate(node.children):
                last = index == len(node.children) - 1
                walk(child, bounds[index], bounds[index + 1], depth + 1, edge and last)
        if fill and depth and not edge:
            # One entry may be a third of this small page, so halves may be as small as that.
            assert node.size >= SHAPE.capacity // 4, (depth, node.size)

    walk(root, None, None, 0, True)
    assert len(depths) == 1


def keys() -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.integers(0, 300).map(lambda n: b"%04d" % n),
        st.binary(min_size=1, max_size=12),
        st.sampled_from([b"x" * n for n in range(1, 120, 7)]),
    )


def values() -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.binary(max_size=20),
        st.integers(0, 256).map(lambda n: b"v" * n),
        st.integers(257, 3000).map(lambda n: b"L" * n),
    )


OPERATION = st.one_of(
    st.tuples(st.just("put"), keys(), values()),
    st.tuples(st.just("put"), keys(), values()),
    st.tuples(st.just("delete"), keys(), st.none()),
    st.tuples(st.just("range"), keys(), keys()),
    st.tuples(st.just("sorted"), st.dictionaries(keys(), values(), max_size=60), st.none()),
    st.tuples(st.just("rollback"), keys(), values()),
)


def apply(working: WorkingTree, model: dict[bytes, bytes], operation: tuple) -> None:
    what, one, other = operation
    if what == "put":
        working.put(one, other)
        model[one] = other
    elif what == "delete" and one in model:
        working.delete(one)
        del model[one]
    elif what == "range":
        low, high = min(one, other), max(one, other)
        gone = [key for key in model if low <= key < high]
        assert working.delete_range(low, high) == len(gone)
        for key in gone:
            del model[key]
    elif what == "sorted":
        for _ in working.put_sorted(sorted(one.items())):
            pass
        model.update(one)


@settings(max_examples=150)
@given(st.lists(st.lists(OPERATION, max_size=12), max_size=12), keys(), keys())
def test_matches_a_sorted_dict_and_old_roots_never_change(
    commands: list[list[tuple]], low: bytes, high: bytes
) -> None:
    root, count = empty(), 0
    model: dict[bytes, bytes] = {}
    history: list[tuple[Ref, dict[bytes, bytes]]] = []
    for stamp, command in enumerate(commands, 1):
        working = WorkingTree(root, stamp, count, SHAPE, no_load)
        trial = dict(model)
        for operation in command:
            apply(working, trial, operation)
        if any(operation[0] == "rollback" for operation in command):
            continue
        root, count, model = working.root, working.count, trial
        assert count == len(model)
        check(root)
        history.append((root, dict(model)))
    low, high = min(low, high), max(low, high)
    for old_root, old_model in history:
        expected = sorted(old_model.items())
        assert items(old_root) == expected
        within = [(k, v) for k, v in expected if low <= k < high]
        assert items(old_root, low, high) == within
        assert items_reversed(old_root, low, high) == within[::-1]
        assert items_reversed(old_root, low, None) == [p for p in expected if p[0] >= low][::-1]
        for key in [low, high, *list(old_model)[:5]]:
            cell = tree.get(old_root, key, no_load)
            found = cell if cell is None or isinstance(cell, bytes) else cell.node
            assert found == old_model.get(key)


@pytest.mark.parametrize("seed", range(4))
def test_pages_stay_filled_through_random_deletes(seed: int) -> None:
    rng = random.Random(seed)
    root, count = empty(), 0
    model: dict[bytes, bytes] = {}
    stamp = 0
    for phase in ("grow", "shrink", "grow", "shrink to nothing"):
        for _ in range(2500):
            stamp += 1
            working = WorkingTree(root, stamp, count, SHAPE, no_load)
            grow = rng.random() < (0.8 if phase == "grow" else 0.1)
            if grow or not model:
                key, value = rng.randbytes(rng.randint(1, 20)), rng.randbytes(rng.randint(0, 60))
                working.put(key, value)
                model[key] = value
            else:
                key = rng.choice(list(model)) if rng.random() < 0.2 else next(iter(model))
                working.delete(key)
                del model[key]
            root, count = working.root, working.count
        check(root, fill=True)
        assert items(root) == sorted(model.items())


def test_ascending_puts_leave_full_pages() -> None:
    root, count = empty(), 0
    for n in range(3000):
        working = WorkingTree(root, n + 1, count, SHAPE, no_load)
        working.put(b"%08d" % n, b"v" * 20)
        root, count = working.root, working.count
    check(root)
    sizes = [node.size for node, _, _ in tree.leaves(root, b"", None, no_load)]
    assert sum(sizes) / len(sizes) > 0.9 * SHAPE.capacity


def test_bulk_stores_fill_pages_and_match() -> None:
    def generate() -> Iterator[tuple[bytes, bytes]]:
        for n in range(20000):
            yield b"%08d" % n, b"v" * (n % 50)

    working = WorkingTree(empty(), 1, 0, SHAPE, no_load)
    assert sum(working.put_sorted(generate())) == 20000
    check(working.root, fill=True)
    assert items(working.root) == list(generate())
    with pytest.raises(ValueError, match="ascend"):
        list(working.put_sorted([(b"b", b""), (b"a", b"")]))


def test_cursor_skips() -> None:
    working = WorkingTree(empty(), 1, 0, SHAPE, no_load)
    wanted = [b"%05d" % n for n in range(2000)]
    for _ in working.put_sorted((key, key) for key in wanted):
        pass
    rng = random.Random(3)
    for _ in range(200):
        start, end = sorted(rng.sample(range(2000), 2))
        cursor = tree.Cursor(
            working.root, wanted[start], wanted[end], no_load, lambda _entries: None
        )
        position = start
        while True:
            if rng.random() < 0.3:
                position = max(position, rng.randrange(start, min(position + 200, 2000)))
                cursor.seek(wanted[position])
            found = next(cursor, None)
            if position >= end:
                assert found is None
                break
            assert found == (wanted[position], wanted[position])
            position += 1


@given(st.lists(st.integers(1, 390), min_size=1, max_size=80), st.booleans())
def test_cuts_leave_no_part_too_large(sizes: list[int], ascending: bool) -> None:
    assume(sum(sizes) > SHAPE.capacity)
    cuts = cut_points(sizes, SHAPE.capacity, ascending=ascending)
    ends = [0, *cuts, len(sizes)]
    parts = [sum(sizes[first:last]) for first, last in pairwise(ends)]
    assert all(first < last for first, last in pairwise(ends))
    assert max(parts) <= SHAPE.capacity
    assert cuts


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_separator_lies_between(left: bytes, right: bytes) -> None:
    if left < right:
        found = separator(left, right)
        assert left < found <= right
