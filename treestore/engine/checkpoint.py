"""Checkpoints: writing a durable state's dirty nodes to pages and moving a meta slot to it.

The order is fixed, each step a place where the process may die (tests/crash/test_engine_crash.py
stops at every one of them):

1. ``begin``  pick the newest durable state, and what was superseded up to it
2. ``plan``   book the pages of that as retired; give back retired pages that nobody needs; lower
              the page count to the last page that is not free; choose pages for everything dirty
              and for the free-space list; reserve them in the file (a full disk ends here,
              harmlessly)
3. ``write``  large values, then nodes from the leaves up, then the free-space list
4. ``sync``   the page file
5. ``flip``   overwrite the older meta slot; sync again; on a full disk, and for a compaction, the
              other slot too, so that at once nothing older holds on to pages or log
6. ``finish`` publish: the new slot and its pins
7. the caller trims the log up to the *older* slot's position

Steps 1 and 6 run on the thread that publishes states, 2 to 5 anywhere: everything they touch is
immutable (nodes), or theirs alone while they run (free space, the page file's writing side).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import attrs
import msgspec

from treestore.engine import page as page_format
from treestore.engine.freespace import Extent, Retired, let_go
from treestore.engine.group import retired_pages
from treestore.engine.meta import Meta
from treestore.engine.node import Large, Node, Ref, encode_node
from treestore.errors import ResourceExhausted

if TYPE_CHECKING:
    from treestore.engine.engine import Engine

LISTED_AT_ONCE = 2048
"""Entries of the free-space list that are encoded in one call: a call holds the interpreter."""


PAGES_BEFORE_PAUSE = 16
"""Encoding a page takes about 10 microseconds; readers should not wait for many."""


def _array(items: Sequence[object], pause: Callable[[], None]) -> bytes:
    """``items`` as a msgpack array, encoded a few at a time."""
    pieces = [b"\xdd", len(items).to_bytes(4, "big")]
    for first in range(0, len(items), LISTED_AT_ONCE):
        pause()
        some = items[first : first + LISTED_AT_ONCE]
        # Without the head of their own: one byte for up to 15, else three.
        pieces.append(msgspec.msgpack.encode(some)[1 if len(some) < 16 else 3 :])
    return b"".join(pieces)


@attrs.frozen
class CheckpointStatistics:
    """What one checkpoint did."""

    number: int
    nodes: int
    large_values: int
    written_bytes: int
    duration_s: float


class Checkpoint:
    """One checkpoint under way; made by `Engine.begin_checkpoint`."""

    def __init__(self, engine: Engine, *, repeat: bool = False, twice: bool = False) -> None:
        self._engine = engine
        self._repeat = repeat
        self._pages = engine.pages
        self._free = engine.free_space
        self._pins = engine.pins()
        self._twice = twice or engine.short_of_space
        self._pause = engine.environment.pause
        self._pins_after = sorted({*engine.pinned(), engine.durable.number})
        """What is pinned once both slots say the same. Snapshots that are made meanwhile need
        nothing that is retired now."""
        self.state = engine.durable
        self._superseded = [] if repeat else engine.take_superseded()
        self.meta: Meta | None = None
        self.older: Meta | None = None
        """What the other slot says, where it was overwritten too."""
        self.statistics: CheckpointStatistics | None = None
        self._dirty: list[Ref] = []
        self._large: list[Large] = []

    def run(self) -> Meta:
        """Steps 2 to 5.

        Raises:
            ResourceExhausted: no room on the disk; nothing was changed, try again later.
            OSError: a write or sync failed; the page file is read-only from now on.
        """
        try:
            if not self._repeat:
                return self._run()
            self.meta = self._flip_again(self._engine.slots[0])
            return self.meta
        except ResourceExhausted:
            raise
        except BaseException as error:
            # Nodes may name pages that were never written: no further checkpoint may trust them.
            self._pages.failed = self._pages.failed or error
            raise

    def _run(self) -> Meta:
        began = time.perf_counter()
        self._collect(self.state.root)
        node_pages, large_runs, list_runs = self._plan()
        written = self._pages.write_runs(self._large_pages(large_runs))
        written += self._pages.write_runs(self._node_pages(node_pages))
        runs, size = self._write_list(list_runs)
        self._pages.sync()
        # Not sooner: what is dropped from memory must be readable from the medium.
        for ref in self._dirty:
            if ref.node is not None:
                self._pages.cache.admit(ref, ref.node)
        for large in self._large:
            if large.node is not None:
                self._pages.cache.admit(large, large.node)
        engine, state = self._engine, self.state
        meta = Meta(
            database_uuid=engine.identity.database_uuid,
            timeline=engine.identity.timeline,
            sequence=engine.slots[0].sequence + 1 if engine.slots else 0,
            number=state.number,
            root_page=state.root.page,
            root_checksum=state.root.checksum,
            key_count=state.count,
            page_count=self._free.page_count,
            free_runs=runs,
            log_position=state.position.to_tuple(),
            created_at_ns=engine.environment.clock_ns(),
            replay_to_lsn=state.replay_to_lsn,
        )
        self._pages.write_meta(meta)
        self._pages.sync()
        if self._twice:
            self.older = meta
            meta = self._flip_again(meta)
        self.meta = meta
        self.statistics = CheckpointStatistics(
            state.number,
            len(self._dirty),
            len(self._large),
            written + size,
            time.perf_counter() - began,
        )
        self._let_go()
        return meta

    def _let_go(self) -> None:
        """Drop what was written and superseded, bit by bit and not on the event loop."""
        let_go(self._dirty, self._pause)
        turn = 0
        while self._superseded:
            # Not emptied: whoever counts what leases pin may be going over it.
            turn += len(self._superseded.pop()[0])
            if turn > LISTED_AT_ONCE:
                turn = 0
                self._pause()

    def _flip_again(self, newest: Meta) -> Meta:
        """Put what the newest slot says into the older one too.

        The log may only be trimmed to the older slot's position, and the pages that it reaches
        cannot be used again; so after one checkpoint a full log, or disk, can still be full. After
        this it is not. No page changes.
        """
        meta = msgspec.structs.replace(newest, sequence=newest.sequence + 1)
        self._pages.write_meta(meta)
        self._pages.sync()
        self._free.reclaim(self._pins_after, self._pause)
        return meta

    def _collect(self, ref: Ref) -> None:
        """Dirty nodes below ``ref``, children before parents, and their large values."""
        node = ref.node
        if ref.page or node is None:
            return
        if node.children is not None:
            for child in node.children:
                if not child.page:
                    self._collect(child)
        else:
            node.settle()
            if Large in map(type, node.values):
                self._large.extend(
                    cell for cell in node.values if isinstance(cell, Large) and not cell.page
                )
        self._dirty.append(ref)

    def _plan(self) -> tuple[list[Extent], list[list[Extent]], list[Extent]]:
        free = self._free
        free.retired.extend(retired_pages(self._superseded))
        free.reclaim(self._pins, self._pause)
        # The slot says where the last page in use ends, so that the file can be cut there.
        free.trim()
        before = free.page_count
        page_size = self._pages.shape.page_size
        large_runs: list[list[Extent]] = []
        for large in self._large:
            pages = self._run_pages(large.length)
            large_runs.append(free.take_runs(pages, self._pages.shape.extents_max))
        node_pages = free.take(len(self._dirty))
        bound = 32 + 10 * (2 * len(free.starts) + 64) + 40 * (len(free.retired) + 32)
        list_runs = free.take_runs(
            -(-bound // (page_size - page_format.HEADER_SIZE)) + 1,
            min(8, self._pages.shape.extents_max),
        )
        try:
            self._pages.ensure_writable()
            self._pages.allocate(free.page_count)
        except OSError as error:
            free.release([*chain.from_iterable(large_runs), *node_pages, *list_runs])
            self._shrink_back(before)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceExhausted(
                    "There is no room on the disk for a checkpoint; free some space. Nothing is "
                    "lost: the log keeps every commit until it reaches its own limit."
                ) from error
            raise
        return node_pages, large_runs, list_runs

    def _shrink_back(self, page_count: int) -> None:
        """Undo growth that the disk had no room for."""
        free = self._free
        if free.starts and free.starts[-1] + free.counts[-1] == free.page_count:
            start = max(free.starts[-1], page_count)
            free.counts[-1] -= free.page_count - start
            free.page_count = start
            if free.counts[-1] == 0:
                free.starts.pop()
                free.counts.pop()

    def _run_pages(self, size: int) -> int:
        """Pages for a value of ``size`` bytes, even if cut into the most runs allowed."""
        shape = self._pages.shape
        first = -(-(size + page_format.HEADER_SIZE) // shape.page_size)
        spare = page_format.HEADER_SIZE * (shape.extents_max - 1)
        return first + (-(-spare // shape.page_size) if first > 1 else 0)

    def _pieces(self, data: bytes, runs: list[Extent]) -> Iterator[tuple[int, int, bytes]]:
        """``data`` cut to fill ``runs``: (first page, pages, piece)."""
        page_size = self._pages.shape.page_size
        offset = 0
        for start, pages in runs:
            room = pages * page_size - page_format.HEADER_SIZE
            yield start, pages, data[offset : offset + room]
            offset += room
        if offset < len(data):
            raise AssertionError("a large value does not fit the pages planned for it")

    def _sealed(
        self, kind: int, born: int, data: bytes, runs: list[Extent]
    ) -> Iterator[tuple[int, int, bytes]]:
        """(first page, pages, sealed run) of each piece of ``data``."""
        page_size = self._pages.shape.page_size
        for start, pages, piece in self._pieces(data, runs):
            yield start, pages, page_format.seal(kind, start, born, piece, pages, page_size)

    def _large_pages(self, large_runs: list[list[Extent]]) -> Iterator[tuple[int, bytes]]:
        for large, runs in zip(self._large, large_runs, strict=True):
            data = large.node
            assert data is not None
            extents: list[tuple[int, int, int]] = []
            for start, pages, run in self._sealed(page_format.LARGE, large.born, data, runs):
                extents.append((start, pages, page_format.checksum_of(run)))
                yield start, run
            large.extents = tuple(extents)
            large.page = extents[0][0]

    def _node_pages(self, extents: list[Extent]) -> Iterator[tuple[int, bytes]]:
        page_size = self._pages.shape.page_size
        pause = self._pause
        numbers = (page for start, count in extents for page in range(start, start + count))
        for ref, page in zip(self._dirty, numbers, strict=True):
            if not page % PAGES_BEFORE_PAUSE:
                pause()
            node: Node | None = ref.node
            assert node is not None
            kind, payload = encode_node(node)
            run = page_format.seal(kind, page, node.stamp, payload, 1, page_size)
            ref.checksum = page_format.checksum_of(run)
            ref.page = page
            yield page, run

    def _write_list(self, runs: list[Extent]) -> tuple[tuple[tuple[int, int, int], ...], int]:
        """Write the free-space list as it will be once the slot is flipped."""
        engine, free = self._engine, self._free
        if engine.slots:
            # The previous list is needed as long as its slot can be chosen.
            previous = engine.slots[0]
            free.retired.extend(
                Retired(previous.number, self.state.number, start, pages)
                for start, pages, _ in previous.free_runs
            )
        parts = (free.starts, free.counts, free.retired)
        payload = b"\x93" + b"".join(_array(part, self._pause) for part in parts)
        sealed = list(self._sealed(page_format.FREE_SPACE, self.state.number, payload, runs))
        size = self._pages.write_runs((start, run) for start, _, run in sealed)
        return (
            tuple((start, pages, page_format.checksum_of(run)) for start, pages, run in sealed),
            size,
        )
