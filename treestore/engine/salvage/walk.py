"""Going down a tree as far as checksums hold, noting each range of keys that is lost."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise

import attrs

from treestore.engine.node import Large, Node, Ref
from treestore.engine.pagefile import PageFile
from treestore.errors import CorruptionError

DEPTH_MAX = 64

ITEMS_SIZE_BYTES = 1 << 20
"""Large values are handed on when this much of them came together."""

Range = tuple[bytes, bytes | None]
"""From a key (inclusive) to another (exclusive; None: no end)."""

Items = list[tuple[bytes, bytes]]


@attrs.frozen
class Lost:
    """A range of keys that a tree cannot give.

    Attributes:
        low, high: the range; from ``low`` up to, not including, ``high`` (None: no end).
        page: the page that is damaged.
        pages: how many pages it has.
        kind: ``branch or leaf`` or ``large value``.
        why: what is wrong with it.
        keys_recovered: keys of the range that were found elsewhere.
    """

    low: bytes
    high: bytes | None
    page: int
    pages: int
    kind: str
    why: str
    keys_recovered: int = 0


def overlap(one: Range, other: Range) -> Range | None:
    """The keys in both; None where there are none."""
    low = max(one[0], other[0])
    highs = [high for high in (one[1], other[1]) if high is not None]
    high = min(highs) if highs else None
    return None if high is not None and low >= high else (low, high)


def after(key: bytes) -> bytes:
    """The smallest key behind ``key``."""
    return key + b"\0"


def walk(
    pages: PageFile, root: Ref, wanted: Range = (b"", None), seen: set[int] | None = None
) -> Iterator[Items | Lost]:
    """The entries of a tree within a range, and what of it is lost, in the order of keys.

    Args:
        pages: the page file.
        root: of the tree.
        wanted: the range.
        seen: gets the first page of everything that was tried.

    Memory: a leaf, its large values, and the way to it.
    """
    seen = set() if seen is None else seen
    stack: list[tuple[Ref, bytes, bytes | None, int]] = [(root, b"", None, 1)]
    on_way: set[int] = set()
    while stack:
        ref, low, high, depth = stack.pop()
        part = overlap((low, high), wanted)
        if part is None:
            continue
        seen.add(ref.page)
        # Sub-ranges of one another may be walked twice; below one root a page occurs once.
        cycle = ref.page in on_way or depth > DEPTH_MAX
        on_way.add(ref.page)
        node = "it is reached twice: a cycle" if cycle else _node(pages, ref, low, high)
        if isinstance(node, str):
            yield Lost(*part, ref.page, 1, "branch or leaf", node)
        elif node.children is None:
            yield from _leaf(pages, node, part, seen)
        else:
            bounds = [low, *node.keys, high]
            for index in range(len(node.children) - 1, -1, -1):
                begin = bounds[index]
                assert begin is not None
                stack.append((node.children[index], begin, bounds[index + 1], depth + 1))


def _node(pages: PageFile, ref: Ref, low: bytes, high: bytes | None) -> Node | str:
    """The node, or what is wrong with it."""
    try:
        node = pages.read_node(ref.page, ref.checksum)
    except CorruptionError as error:
        return error.message
    keys = node.keys
    if any(left >= right for left, right in pairwise(keys)):
        return f"Page {ref.page} has keys out of order."
    if keys and (keys[0] < low or (high is not None and keys[-1] >= high)):
        return f"Page {ref.page} has keys beyond its range."
    return node


def _leaf(pages: PageFile, node: Node, wanted: Range, seen: set[int]) -> Iterator[Items | Lost]:
    items: Items = []
    keys = node.keys
    first = bisect_left(keys, wanted[0])
    last = len(keys) if wanted[1] is None else bisect_left(keys, wanted[1])
    size = 0
    for key, cell in zip(keys[first:last], node.values[first:last], strict=True):
        if isinstance(cell, bytes):
            items.append((key, cell))
            continue
        if size > ITEMS_SIZE_BYTES:
            yield items
            items, size = [], 0
        seen.update(extent[0] for extent in cell.extents)
        try:
            items.append((key, pages.read_large(cell)))
            size += cell.length
        except CorruptionError as error:
            yield items
            items = []
            yield _lost_value(key, cell, error)
    yield items


def _lost_value(key: bytes, cell: Large, error: CorruptionError) -> Lost:
    page = error.details.get("page", cell.page)
    pages = next((count for start, count, _ in cell.extents if start == page), 1)
    return Lost(key, after(key), page, pages, "large value", error.message)


class Ranges:
    """Disjoint ranges of keys, in order, to be asked whether a key is in one."""

    def __init__(self, ranges: list[Range]) -> None:
        self.ranges: list[Range] = []
        for low, high in sorted(ranges, key=lambda each: each[0]):
            if self.ranges:
                before = self.ranges[-1]
                if before[1] is None:
                    break
                if before[1] >= low:
                    end = None if high is None else max(high, before[1])
                    self.ranges[-1] = (before[0], end)
                    continue
            self.ranges.append((low, high))
        self._lows = [low for low, _ in self.ranges]

    def __contains__(self, key: bytes) -> bool:
        index = bisect_right(self._lows, key) - 1
        if index < 0:
            return False
        high = self.ranges[index][1]
        return high is None or key < high

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def parts_of(self, wanted: Range) -> list[Range]:
        """What of a range lies inside."""
        parts = (overlap(each, wanted) for each in self.ranges)
        return [part for part in parts if part is not None]
