"""Checking a store: every page, every key, every free page, all errors at once.

The walk trusts nothing: it survives cycles, wrong lengths and pages beyond the end, and goes on
after damage to report everything that it can reach.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs

from treestore.engine.freespace import Extent, FreeSpace, Retired
from treestore.engine.meta import Meta, first_page, slot_warnings
from treestore.engine.node import Large, Node, Ref
from treestore.engine.pagefile import PageFile
from treestore.errors import CorruptionError

if TYPE_CHECKING:
    from treestore.engine.engine import Engine
    from treestore.engine.snapshot import State

ERRORS_MAX = 1000
"""A wholly destroyed store is not worth a longer list."""


@attrs.define
class CheckReport:
    """What a check found."""

    errors: list[str] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    """What is no damage to the content, but should be looked at."""
    keys: int = 0
    leaves: int = 0
    branches: int = 0
    large_values: int = 0
    height: int = 0
    pages_used: int = 0
    pages_free: int = 0
    pages_retired: int = 0
    leaf_fill: float = 1.0
    """Mean of encoded size over page size of the leaves."""
    thin_nodes: int = 0
    """Nodes below the fill limit that are not on the right edge, where that is allowed."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.errors


@attrs.frozen
class Books:
    """What is said of the pages that no root reaches; a copy that stands still."""

    page_count: int
    free: list[Extent]
    retired: list[Retired]
    free_runs: list[Extent]
    """The newest free-space list's own pages."""

    @classmethod
    def of(cls, engine: Engine) -> Books:
        """The books of an engine's durable state; while no checkpoint runs, on its owner's
        thread."""
        newest = engine.slots[0].free_runs if engine.slots else ()
        return cls(
            engine.free_space.page_count,
            engine.free_space.extents(),
            engine.retired(),
            [(page, pages) for page, pages, _ in newest],
        )


class Checker:
    """One walk over one root."""

    def __init__(self, pages: PageFile, progress: Callable[[int], None] | None = None) -> None:
        self.pages = pages
        self.report = CheckReport()
        self.used: dict[int, int] = {}
        """First page -> pages, of everything reachable that has a page."""
        self._progress = progress
        self._depth_of_leaves: int | None = None
        self._leaf_bytes = 0

    def error(self, text: str) -> None:
        """Note one error."""
        if len(self.report.errors) < ERRORS_MAX:
            self.report.errors.append(text)

    def walk(self, root: Ref) -> None:
        """Check everything below ``root``. Iterative: a hostile tree may be deep."""
        stack: list[tuple[Ref, bytes | None, bytes | None, int, bool]] = [
            (root, None, None, 1, True)
        ]
        seen: set[int] = set()
        while stack:
            ref, low, high, depth, edge = stack.pop()
            if depth > 64 or (ref.page and ref.page in seen):
                self.error(f"page {ref.page} is reached twice or lies too deep: a cycle")
                continue
            if ref.page:
                seen.add(ref.page)
            node = self._node(ref)
            if node is None:
                continue
            self._keys(ref, node, low, high)
            self._fill(node, root.node is node or depth == 1, edge)
            if node.children is None:
                self._leaf(ref, node, depth)
                continue
            self.report.branches += 1
            bounds = [low, *node.keys, high]
            last = len(node.children) - 1
            for index in range(last, -1, -1):
                child = node.children[index]
                stack.append(
                    (child, bounds[index], bounds[index + 1], depth + 1, edge and index == last)
                )
        if self.report.leaves:
            room = self.pages.shape.page_size
            self.report.leaf_fill = self._leaf_bytes / (self.report.leaves * room)

    def _node(self, ref: Ref) -> Node | None:
        """The node, always read from its page where it has one: that is what is checked."""
        if ref.page:
            if not self._claim(ref.page, 1):
                return None
            try:
                return self.pages.read_node(ref.page, ref.checksum)
            except CorruptionError as error:
                self.error(error.message)
                return None
        if ref.node is not None:
            ref.node.settle()
        return ref.node

    def _claim(self, page: int, pages: int) -> bool:
        if page < first_page(self.pages.shape.page_size):
            self.error(f"page {page} is referred to, but lies in the meta slots")
            return False
        if page in self.used:
            self.error(f"page {page} is referred to twice")
            return False
        self.used[page] = pages
        self.report.pages_used += pages
        if self._progress is not None:
            self._progress(self.report.pages_used)
        return True

    def _keys(self, ref: Ref, node: Node, low: bytes | None, high: bytes | None) -> None:
        keys = node.keys
        for left, right in pairwise(keys):
            if left >= right:
                self.error(f"page {ref.page}: keys out of order at {right[:40]!r}")
                break
        if keys and low is not None and keys[0] < low:
            self.error(f"page {ref.page}: key {keys[0][:40]!r} is below its range")
        if keys and high is not None and keys[-1] >= high:
            self.error(f"page {ref.page}: key {keys[-1][:40]!r} is above its range")

    def _fill(self, node: Node, is_root: bool, edge: bool) -> None:
        if not is_root and not edge and node.size < self.pages.shape.minimum:
            self.report.thin_nodes += 1

    def _leaf(self, ref: Ref, node: Node, depth: int) -> None:
        report = self.report
        report.leaves += 1
        report.keys += len(node.keys)
        report.height = max(report.height, depth)
        self._leaf_bytes += node.size
        if self._depth_of_leaves is None:
            self._depth_of_leaves = depth
        elif self._depth_of_leaves != depth:
            self.error(f"page {ref.page}: a leaf at depth {depth}, others at other depths")
        for key, cell in zip(node.keys, node.values, strict=True):
            if isinstance(cell, Large):
                self._large(key, cell)

    def _large(self, key: bytes, cell: Large) -> None:
        self.report.large_values += 1
        if not cell.extents:
            return
        claimed = [self._claim(page, pages) for page, pages, _ in cell.extents]
        if not all(claimed):
            return
        try:
            self.pages.read_large(cell)
        except CorruptionError as error:
            self.error(f"{error.message} (value of key {key[:40]!r})")

    def books(self, books: Books) -> None:
        """Each page is exactly one of: used, free, retired, or in a free-space list."""
        owner: dict[int, str] = {}
        self.report.pages_free = sum(count for _, count in books.free)
        self.report.pages_retired = sum(entry.pages for entry in books.retired)
        runs = [("used", start, count) for start, count in self.used.items()]
        runs += [("free", start, count) for start, count in books.free]
        runs += [("retired", entry.start, entry.pages) for entry in books.retired]
        runs += [("free-space list", page, pages) for page, pages in books.free_runs]
        for what, start, count in runs:
            for page in range(start, start + count):
                if page in owner:
                    self.error(f"page {page} is both {owner[page]} and {what}")
                    return
                owner[page] = what
        first = first_page(self.pages.shape.page_size)
        lost = [page for page in range(first, books.page_count) if page not in owner]
        if lost:
            self.error(f"{len(lost)} pages belong to nothing, the first is page {lost[0]}")
        beyond = [page for page in owner if page >= books.page_count]
        if beyond:
            self.error(f"page {min(beyond)} lies beyond the {books.page_count} pages in use")


def rebuild_free_space(pages: PageFile, slots: list[Meta]) -> FreeSpace:
    """Free space from a walk, for a store whose list is damaged.

    Raises:
        CorruptionError: the newest slot's tree is damaged as well.
    """
    newest = slots[0]
    used: dict[int, int] = {}
    kept: set[int] = set()
    """What the newest slot reaches."""
    for meta in slots:
        checker = Checker(pages)
        checker.walk(Ref(None, meta.root_page, meta.root_checksum))
        if meta is newest and not checker.report.ok:
            raise CorruptionError(
                f"{checker.report.errors[0]} Neither can the free-space list be read; restore a "
                "backup or salvage with 'treestore repair'.",
                file=pages.file.path,
                offset=0,
            )
        used.update(checker.used)
        used.update((page, count) for page, count, _ in meta.free_runs)
        if meta is newest:
            kept = set(used)
    free_space = FreeSpace(newest.page_count)
    taken = sorted(used.items())
    position = first_page(pages.shape.page_size)
    extents = []
    for start, count in taken:
        if start > position:
            extents.append((position, start - position))
        position = max(position, start + count)
    if position < newest.page_count:
        extents.append((position, newest.page_count - position))
    free_space.release(extents)
    # What only the older slot reaches is retired.
    free_space.retired = [
        Retired(0, newest.number, start, count) for start, count in taken if start not in kept
    ]
    return free_space


def check_state(
    pages: PageFile,
    state: State,
    books: Books,
    progress: Callable[[int], None] | None = None,
) -> CheckReport:
    """Check a pinned state; on any thread, while no checkpoint runs."""
    checker = Checker(pages, progress)
    checker.walk(state.root)
    if checker.report.keys != state.count:
        checker.error(f"the tree has {checker.report.keys} keys, its meta data say {state.count}")
    checker.books(books)
    checker.report.warnings += slot_warnings(pages.file)
    return checker.report


def check_engine(engine: Engine, progress: Callable[[int], None] | None = None) -> CheckReport:
    """Check the durable state of an engine whose writer and checkpointer are idle."""
    return check_state(engine.pages, engine.durable, Books.of(engine), progress)
