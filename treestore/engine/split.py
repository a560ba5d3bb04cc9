"""Where to cut a node that has grown beyond its page.

Pure functions over entry sizes, so that they can be tested with any sizes at all
(tests/engine/test_split.py).
"""

from __future__ import annotations

from treestore.engine.node import ENTRY_OVERHEAD, Node, Shape

BULK_FILL = 0.9
"""How full a bulk store leaves its pages: room for a few later inserts without a split."""


def entry_sizes(node: Node, shape: Shape) -> list[int]:
    """What each entry of a leaf, or child of a branch, adds to the size of its node."""
    if node.children is not None:
        child_size = shape.child_size
        return [child_size(0), *(child_size(len(key)) for key in node.keys)]
    pairs = zip(node.keys, node.values, strict=True)
    try:
        return [
            len(key) + len(value) + ENTRY_OVERHEAD  # type: ignore[arg-type]
            for key, value in pairs
        ]
    except TypeError:  # a large value among them: a `Large` has no length
        value_size = shape.value_size
        return [
            len(key) + value_size(value) + ENTRY_OVERHEAD
            for key, value in zip(node.keys, node.values, strict=True)
        ]


def cut_points(sizes: list[int], capacity: int, *, ascending: bool) -> list[int]:
    """Indexes at which to cut entries that are together larger than ``capacity``.

    Two parts are made even, but for the last leaf of the tree (``ascending``) when only its last
    entry is too much: keys then probably arrive in order, and the left part stays full. More parts
    (a bulk store) are filled to `BULK_FILL`, the last two evened out so that none is too empty.
    No part is larger than ``capacity``, as long as no entry is.
    """
    total = sum(sizes)
    if ascending and total - sizes[-1] <= capacity:
        return [len(sizes) - 1]
    cuts: list[int] = []
    target = int(capacity * BULK_FILL)
    start, left = 0, total
    while left > capacity:
        end = _halves(sizes, start, left, capacity) if left <= 2 * target else 0
        if not end:
            end = _filled(sizes, start, target)
        cuts.append(end)
        left -= sum(sizes[start:end])
        start = end
    return cuts


def _filled(sizes: list[int], start: int, target: int) -> int:
    """The end of the longest run from ``start`` that is no larger than ``target``; at least one
    entry."""
    end, used = start + 1, sizes[start]
    while end < len(sizes) and used + sizes[end] <= target:
        used += sizes[end]
        end += 1
    return end


def _halves(sizes: list[int], start: int, total: int, capacity: int) -> int:
    """The cut nearest to two halves; 0 where one of them would not fit a page."""
    end = middle(sizes, start, total)
    used = sum(sizes[start:end])
    return end if used <= capacity and total - used <= capacity else 0


def middle(sizes: list[int], start: int, total: int) -> int:
    """The index after ``start`` that comes nearest to halving ``total``."""
    used, end = 0, start
    while end < len(sizes) - 1 and 2 * used + sizes[end] <= total:
        used += sizes[end]
        end += 1
    return max(end, start + 1)


def separator(left: bytes, right: bytes) -> bytes:
    """The shortest key above ``left`` that is not above ``right``: short keys make wide branches.

    As in Bayer and Unterauer, "Prefix B-trees" (1977).
    """
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return right[: index + 1]
    return right[: len(left) + 1]
