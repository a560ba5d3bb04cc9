"""Where to cut a node that has grown beyond its page.

Pure functions over entry sizes, so that they can be tested with any sizes at all
(tests/engine/test_split.py).
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

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
    ends = [0, *accumulate(sizes)]
    total = ends[-1]
    if ascending and total - sizes[-1] <= capacity:
        return [len(sizes) - 1]
    cuts: list[int] = []
    target = int(capacity * BULK_FILL)
    start = 0
    while total - ends[start] > capacity:
        end = _halves(ends, start, capacity) if total - ends[start] <= 2 * target else 0
        if not end:
            # The longest run that is no larger than the target; at least one entry.
            end = max(bisect_right(ends, ends[start] + target) - 1, start + 1)
        cuts.append(end)
        start = end
    return cuts


def _halves(ends: list[int], start: int, capacity: int) -> int:
    """The cut nearest to two halves; 0 where one of them would not fit a page."""
    end = middle(ends, start)
    fits = ends[end] - ends[start] <= capacity and ends[-1] - ends[end] <= capacity
    return end if fits else 0


def middle(ends: list[int], start: int = 0) -> int:
    """The index after ``start`` that comes nearest to halving what is from there on.

    Args:
        ends: where each entry ends, counted in bytes, after a 0 for the beginning.
    """
    half = (ends[start] + ends[-1]) / 2
    end = bisect_right(ends, half, start) - 1
    if end < len(ends) - 1 and ends[end + 1] - half < half - ends[end]:
        end += 1
    return min(max(end, start + 1), len(ends) - 2)


def separator(left: bytes, right: bytes) -> bytes:
    """The shortest key above ``left`` that is not above ``right``: short keys make wide branches.

    As in Bayer and Unterauer, "Prefix B-trees" (1977).
    """
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return right[: index + 1]
    return right[: len(left) + 1]
