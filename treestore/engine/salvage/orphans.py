"""Leaves that no branch refers to any more, for ranges of keys that are lost otherwise.

A page file holds many such leaves: each change leaves the old version of a leaf behind, deleted
keys included, until its page is used again. Two things tell them from those that belong to a
damaged branch:

* The list of free space names every page that the tree does *not* use (invariant 4 in
  ``docs/file-format.md``). What is neither in the list nor reached is in use below the damage. With
  the list, these leaves are the tree's own, and nothing that was deleted comes back.
* Without the list, of all leaves that cover a key the one of the latest birth counts. It may still
  be of a time before the key was deleted or changed.
"""

from __future__ import annotations

from bisect import bisect_left

import attrs
import msgspec

from treestore.engine.meta import Meta
from treestore.engine.node import Large, Node, decode_node
from treestore.engine.page import FREE_SPACE
from treestore.engine.pagefile import PageFile
from treestore.engine.salvage.scan import LEAF_KINDS, Run, scan_runs
from treestore.engine.salvage.walk import Items, Range, Ranges, overlap
from treestore.errors import CorruptionError


@attrs.frozen
class Orphan:
    """A leaf that nothing reachable refers to, by its place and the keys it covers."""

    run: Run
    low: bytes
    high: bytes
    """Its last key."""


@attrs.define
class Orphans:
    """The leaves that may hold what is lost.

    Attributes:
        leaves: the latest birth first.
        proven: whether the list of free space says that all of them belong to the tree.
    """

    pages: PageFile
    leaves: list[Orphan]
    proven: bool

    def items(self, wanted: Range) -> Items:
        """What they hold of a range, in the order of keys.

        A leaf hides every older one between its first and its last key, keys that only the older
        one has included: those were deleted in between.
        """
        found: dict[bytes, bytes] = {}
        hidden = Ranges([])
        for orphan in self.leaves:
            part = overlap((orphan.low, orphan.high + b"\0"), wanted)
            if part is None:
                continue
            node = _leaf(self.pages, orphan.run)
            first = bisect_left(node.keys, part[0])
            last = len(node.keys) if part[1] is None else bisect_left(node.keys, part[1])
            for key, cell in zip(node.keys[first:last], node.values[first:last], strict=True):
                if key in hidden or key in found:
                    continue
                try:
                    found[key] = self.pages.read_large(cell) if isinstance(cell, Large) else cell
                except CorruptionError:
                    continue
            hidden = Ranges([*hidden.ranges, part])
        return sorted(found.items())


def find_orphans(pages: PageFile, newest: Meta | None, seen: set[int], lost: Ranges) -> Orphans:
    """Scan the whole file for leaves that hold keys of the lost ranges.

    Args:
        newest: the slot whose tree was walked.
        seen: first pages of everything that the walk reached, or tried to.
        lost: the ranges.
    """
    unused = None if newest is None else _unused(pages, newest)
    leaves = []
    for run in scan_runs(pages.file, pages.shape.page_size):
        if run.kind not in LEAF_KINDS or run.page in seen:
            continue
        if unused is not None and newest is not None and not _in_use(run, unused, newest):
            continue
        try:
            node = _leaf(pages, run)
        except (CorruptionError, ValueError):
            continue
        if node.keys and lost.parts_of((node.keys[0], node.keys[-1] + b"\0")):
            leaves.append(Orphan(run, node.keys[0], node.keys[-1]))
    leaves.sort(key=lambda leaf: leaf.run.born, reverse=True)
    return Orphans(pages, leaves, unused is not None)


def _in_use(run: Run, unused: set[int], meta: Meta) -> bool:
    return run.page not in unused and run.page < meta.page_count and run.born <= meta.number


def _leaf(pages: PageFile, run: Run) -> Node:
    kind, born, payload = pages.read_run(run.page, 1, run.checksum, LEAF_KINDS)
    return decode_node(kind, born, payload, pages.shape)


def _unused(pages: PageFile, meta: Meta) -> set[int] | None:
    """Pages that a slot's list of free space says are not in its tree; None: no such list."""
    try:
        parts = [
            bytes(pages.read_run(page, count, checksum, (FREE_SPACE,))[2])
            for page, count, checksum in meta.free_runs
        ]
        starts, counts, retired = msgspec.msgpack.decode(
            b"".join(parts), type=tuple[list[int], list[int], list[tuple[int, int, int, int]]]
        )
        extents = [
            *zip(starts, counts, strict=True),
            *((page, count) for _, _, page, count in retired),
            *((page, count) for page, count, _ in meta.free_runs),
        ]
    except (CorruptionError, ValueError):
        return None
    if any(page < 0 or count < 0 or page + count > meta.page_count for page, count in extents):
        return None
    return {number for page, count in extents for number in range(page, page + count)}
