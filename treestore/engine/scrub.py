"""Scrubbing: verifying what is on the medium, a slice at a time.

A slice begins at a key and goes over the pages of a state from there, past the cache, until it has
read enough. The next one goes on from the key where this one ended, on whatever state is the
newest then. So no state is pinned for longer than a slice, and every page that is reachable when
its turn comes is verified: what is written meanwhile was checked by nobody, but is new.

Only while no checkpoint runs: a node that is being written has its page number before its page.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

import attrs
from crc32c import crc32c

from treestore.engine import page as page_format
from treestore.engine.group import Superseded
from treestore.engine.node import Large, Node, Ref
from treestore.engine.page import FREE_SPACE, LARGE
from treestore.engine.pagefile import PageFile
from treestore.errors import CorruptionError

PAUSE_EVERY_PAGES = 8
"""Decoding a page takes about ten microseconds of the interpreter's time."""

CHUNK_BYTES = 1 << 18
"""Long runs are read in pieces: a value of 100 MB need not be in memory to be verified."""

Run = tuple[int, int, int]
"""First page, pages, checksum."""

Place = tuple[int, int]
"""Number of a group, and of an entry in what it superseded."""


@attrs.define
class Slice:
    """What one slice found.

    Attributes:
        next_key: where the next slice begins; None at the end of the tree.
        pages: verified, damaged ones included.
        bytes: read.
        damage: what was wrong.
    """

    next_key: bytes | None = None
    pages: int = 0
    bytes: int = 0
    damage: list[CorruptionError] = attrs.field(factory=list)


class Scrub:
    """Verifies pages of one page file; every method may run on any thread."""

    def __init__(self, pages: PageFile, pause: Callable[[], None]) -> None:
        self._pages = pages
        self._pause = pause

    def tree(self, root: Ref, start: bytes, size_bytes_max: int) -> Slice:
        """Verify the pages of a tree from the key ``start`` on.

        Branches on the way to ``start`` are read, too: their damage counts where they begin.

        Args:
            root: of a pinned state.
            start: where to begin.
            size_bytes_max: the slice ends with the first leaf behind this much.
        """
        result = Slice()
        stack: list[tuple[Ref, bytes, bytes | None]] = [(root, b"", None)]
        while stack:
            ref, low, high = stack.pop()
            if result.bytes >= size_bytes_max and low > start:
                result.next_key = low
                return result
            node = self._node(ref, result)
            if node is None:
                continue
            if node.children is None:
                node.settle()
                self._values(node, result)
                continue
            bounds = [low, *node.keys, high]
            first = bisect_right(node.keys, start)
            for index in range(len(node.children) - 1, first - 1, -1):
                begin = bounds[index]
                assert begin is not None
                stack.append((node.children[index], begin, bounds[index + 1]))
        return result

    def _node(self, ref: Ref, result: Slice) -> Node | None:
        """The node, from its page where it has one: that is what is verified."""
        if not ref.page:
            return ref.node
        page_size = self._pages.shape.page_size
        self._count(result, 1)
        self._pages.file.forget(ref.page * page_size, page_size)
        try:
            return self._pages.read_node(ref.page, ref.checksum)
        except CorruptionError as error:
            result.damage.append(error)
            # What the cache still has leads on to the pages below.
            return ref.node

    def _values(self, node: Node, result: Slice) -> None:
        for cell in node.values:
            if isinstance(cell, Large):
                for run in cell.extents:
                    self.run(run, LARGE, result)

    def superseded(
        self, groups: Sequence[tuple[list[Superseded], int]], start: Place, size_bytes_max: int
    ) -> tuple[Slice, Place | None]:
        """Verify what the newest checkpoint has and the newest state does without.

        Args:
            groups: `Engine.superseded_since_checkpoint`.
            start: where in them to begin.
            size_bytes_max: the slice ends with the first entry behind this much.

        Returns:
            What was found, and where to go on; None at the end.
        """
        result = Slice()
        first, at = start
        for number in range(first, len(groups)):
            entries = groups[number][0]
            while at < len(entries):
                if result.bytes >= size_bytes_max:
                    return result, (number, at)
                what = entries[at][0]
                if isinstance(what, Large):
                    for run in what.extents:
                        self.run(run, LARGE, result)
                else:
                    self._node(what, result)
                at += 1
            at = 0
        return result, None

    def free_space(self, runs: list[Run]) -> Slice:
        """Verify the runs of a list of free space."""
        result = Slice()
        for run in runs:
            self.run(run, FREE_SPACE, result)
        return result

    def run(self, run: Run, kind: int, result: Slice) -> None:
        """Verify one run of several pages, piece by piece."""
        page, pages, checksum = run
        page_size = self._pages.shape.page_size
        file, offset = self._pages.file, page * page_size
        end = offset + pages * page_size
        self._count(result, pages)
        file.forget(offset, end - offset)
        found, first, at = 0, b"", offset
        try:
            while at < end:
                data = file.read_at(at, min(CHUNK_BYTES, end - at))
                if not data:
                    break
                first = first or data[: page_format.HEADER_SIZE]
                found = crc32c(data[4:] if at == offset else data, found)
                at += len(data)
                self._pause()
        except OSError as error:
            why = f"it cannot be read ({error})"
            result.damage.append(page_format.damaged(file.path, offset, page, why))
            return
        if at < end or len(first) < page_format.HEADER_SIZE:
            why = "the file ends within it"
        elif found != checksum or page_format.checksum_of(first) != checksum:
            why = "its content does not match the checksum that refers to it"
        elif page_format.unpack_header(first)[:2] != (kind, page):
            why = "it is in a wrong place"
        else:
            return
        result.damage.append(page_format.damaged(file.path, offset, page, why))

    def _count(self, result: Slice, pages: int) -> None:
        result.pages += pages
        result.bytes += pages * self._pages.shape.page_size
        if not result.pages % PAUSE_EVERY_PAGES:
            self._pause()
