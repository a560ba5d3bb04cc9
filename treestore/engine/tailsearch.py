"""Finding what to move out of the page file's tail.

`TailSearch` walks a leased state on any thread: branches, since their references carry the page
numbers; leaves that are to be moved, so that the writer finds them in memory; and other leaves
only where something in the tail is no node. See ``docs/space.md``; ``moving.py`` does the moves,
``compaction.py`` decides what happens when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from treestore.engine import tree
from treestore.engine.freespace import FreeSpace
from treestore.engine.moving import Move, in_tail
from treestore.engine.node import Large, Node, Ref
from treestore.engine.split import BULK_FILL

if TYPE_CHECKING:
    from treestore.engine.engine import Engine

ROUND_PAGES = 2048
"""Pages moved between two checkpoints: bounds the memory that they take, and the checkpoint."""

ROUND_SIZE_BYTES = 32 << 20
"""Bytes of large values, likewise; a single one may be longer."""

ROW_LEAVES = 32
"""Neighbouring leaves that are written anew together."""

POOR_FILL = 0.75
"""Where the leaves of a branch are emptier than this on average, those not in the tail are looked
at too: together they may be written as fewer."""


@attrs.frozen
class Found:
    """What a search found."""

    moves: list[Move]
    next_key: bytes | None
    """Where to go on, perhaps in the same branch; None at the end of the tree."""
    no_room: bool = False
    """Nothing was looked for: below the tail no page is free that nobody else wants."""


class TailSearch:
    """One search through a part of a tree. Made on the owner's thread, `run` on any.

    Args:
        engine: whose page file it is; no checkpoint runs.
        cutoff: where the tail begins.
        leaves_too: look into all leaves, for large values.
    """

    def __init__(self, engine: Engine, cutoff: int, *, leaves_too: bool = False) -> None:
        self._pages = engine.pages
        self._cutoff = cutoff
        self._leaves_too = leaves_too
        self._free = engine.free_space.copy()
        self._dirty_pages = engine.dirty_pages
        self._pause = engine.environment.pause
        self._pages_left = ROUND_PAGES
        self._bytes_left = ROUND_SIZE_BYTES
        self._moves: list[Move] = []
        self._seen: set[int] = set()

    def _measure(self) -> None:
        """How many pages may be moved: as many as will find a free page below the tail."""
        below = self._free.free_below(self._cutoff)
        self._free = FreeSpace(self._cutoff, below)
        # What is dirty anyway is written below, too, and the list of free space itself.
        listed = 20 * len(below) // self._pages.shape.page_size + 2
        room = self._free.free_pages() - self._dirty_pages - listed
        self._pages_left = min(ROUND_PAGES, room)

    def run(self, root: Ref, start: bytes) -> Found:
        """Search from the branch that ``start`` is in, to the end or as far as the limits go.

        Raises:
            CorruptionError: a page cannot be read.
        """
        self._measure()
        if self._pages_left <= 0:
            return Found([], start, no_room=True)
        for branch, low, path in self._branches(root, start):
            if self._pages_left <= 0 or self._bytes_left <= 0:
                return Found(self._moves, low)
            self._pause()
            before = len(self._moves)
            if not self._leaves(branch, low, branch.children or [root]):
                return Found(self._moves, low)
            fresh = [ref.page for ref in path if in_tail(ref, self._cutoff)]
            if not self._seen.issuperset(fresh):
                self._seen.update(fresh)
                self._pages_left -= len(fresh)
                if len(self._moves) == before:
                    self._moves.append(Move(low, leaves=0))
        return Found(self._moves, None)

    def _branches(self, root: Ref, start: bytes) -> Iterator[tuple[Node, bytes, list[Ref]]]:
        """Each branch above leaves from ``start`` on, its lower bound, and the references to it;
        a root that is a leaf as it is."""
        load = self._pages.load
        height = tree.height(root, load)
        # References below a branch with their lower and upper bounds, the next on top.
        stack: list[tuple[Ref, bytes, bytes | None, list[Ref]]] = [(root, b"", None, [])]
        while stack:
            ref, low, high, above = stack.pop()
            if high is not None and high <= start:
                continue
            node = load(ref)
            path = [*above, ref]
            if node.children is None or len(path) == height - 1:
                yield node, low, path if node.children is not None else []
                continue
            bounds = [low, *node.keys, high]
            for index in range(len(node.children) - 1, -1, -1):
                lower = bounds[index]
                assert lower is not None
                stack.append((node.children[index], lower, bounds[index + 1], path))

    def _leaves(self, branch: Node, low: bytes, refs: Sequence[Ref]) -> bool:
        """Moves among the leaves of one branch; False where not all large values were allowed."""
        bounds = [low, *(branch.keys if branch.children is not None else ())]
        wanted = {index: ref for index, ref in enumerate(refs) if in_tail(ref, self._cutoff)}
        leaves = {index: self._pages.load(ref) for index, ref in wanted.items()}
        capacity = self._pages.shape.capacity
        size = sum(leaf.size for leaf in leaves.values())
        if leaves and size < POOR_FILL * capacity * len(leaves):
            leaves = {index: self._pages.load(ref) for index, ref in enumerate(refs)}
        row: list[int] = []
        for index in sorted(leaves):
            if row and (index != row[-1] + 1 or len(row) == ROW_LEAVES):
                self._row(row, leaves, bounds, wanted)
                row = []
            row.append(index)
        if row:
            self._row(row, leaves, bounds, wanted)
        for index, ref in enumerate(refs):
            leaf = leaves.get(index) or ref.node
            if leaf is None and self._leaves_too:
                leaf = self._pages.read_node(ref.page, ref.checksum)
            if (
                leaf is not None
                and (self._leaves_too or index in leaves)
                and not self._values(leaf)
            ):
                return False
        return True

    def _row(
        self, row: list[int], leaves: dict[int, Node], bounds: list[bytes], wanted: dict[int, Ref]
    ) -> None:
        """Moves of neighbouring leaves: together where fewer would do."""
        room = self._pages.shape.capacity * BULK_FILL
        if sum(leaves[index].size for index in row) <= room * (len(row) - 1):
            self._moves.append(Move(bounds[row[0]], leaves=len(row)))
            self._pages_left -= len(row)
            return
        for index in row:
            if index in wanted:
                self._moves.append(Move(bounds[index]))
                self._pages_left -= 1

    def _values(self, leaf: Node) -> bool:
        """Moves of a leaf's large values that lie in the tail and would fit below it; False
        where the limits did not allow all."""
        leaf.settle()
        for key, cell in zip(leaf.keys, leaf.values, strict=True):
            if not isinstance(cell, Large) or not cell.page or not in_tail(cell, self._cutoff):
                continue
            if self._bytes_left <= 0:
                return False
            if self._fits(sum(pages for _, pages, _ in cell.extents)):
                data = cell.node or self._pages.read_large(cell)
                self._moves.append(Move(key, value=cell, data=data))
                self._bytes_left -= len(data)
                # With the leaf, which is written for it.
                self._pages_left -= 1 + sum(pages for _, pages, _ in cell.extents)
        return True

    def _fits(self, pages: int) -> bool:
        """Whether free runs below the cutoff take so many pages; they are then taken."""
        free = self._free
        free.take_runs(pages, self._pages.shape.extents_max)
        if free.page_count > self._cutoff:
            # It would have made the file grow.
            free.page_count = self._cutoff
            return False
        return True
