"""The compactor: gives the page file's free space back to the file system (``docs/space.md``).

Writers and readers go on: pages are found on a thread, moved a few at a time by the writer, written
by checkpoints. Cancelled anywhere, it leaves nothing half done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs
import structlog
import trio

from actors.checkpointer import Checkpointer
from actors.mail import Mail
from actors.threads import WORKER_THREADS, Threads
from actors.writer import Writer
from treestore.engine.compaction import Found, MoveStep, TailSearch, cutoff_of
from treestore.engine.engine import Engine
from treestore.engine.moving import Move
from treestore.errors import TreeStoreError
from treestore.model.admin import CompactResult

log = structlog.get_logger("treestore.compactor")

LOOK_S = 10.0
LOOKS = 7
"""What was free at that many looks, one after the other, is not needed: for a minute."""

REST_S = 600.0
"""After a compaction, none begins by itself for this long: what it left, it could not give."""

STEP_LEAVES = 32
"""Leaves that are moved in one go: less than a millisecond of the event loop."""

STEP_PAUSE_S = 0.003
"""Between two steps the event loop is everybody else's."""

PASSES_MAX = 8

WORTH = 50
"""A pass that gives back less than this part of the file is the last of its kind."""


class Compactor:
    """Compacts one engine's page file, by itself and on demand.

    Error handling: a full disk, or a damaged page, ends a compaction and harms nothing; by itself
    it tries again after a rest.
    """

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        checkpointer: Checkpointer,
        threads: Threads = WORKER_THREADS,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._checkpointer = checkpointer
        self._threads = threads
        self._lock = trio.Lock()
        self._spare: deque[int] = deque(maxlen=LOOKS)
        self.pages_moved = 0
        """By all compactions, the running one included."""
        self.compactions = 0

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        return self._lock.locked()

    async def run(self) -> None:
        """Compact when much of the file is free; the actor's task."""
        while True:
            await trio.sleep(LOOK_S)
            self._spare.append(self._engine.spare_pages())
            if self._engine.failed is not None or not self._due():
                continue
            try:
                await self.compact()
            except TreeStoreError as error:
                log.warning("a compaction ended early", error=error.message)
            self._spare.clear()
            await trio.sleep(REST_S)

    def _due(self) -> bool:
        """Whether much was free at every look of the last minute."""
        if len(self._spare) < LOOKS or self.running:
            return False
        options, spare = self._engine.options, min(self._spare)
        return (
            spare * self._engine.pages.shape.page_size > options.compact_size_bytes_min
            and spare * 100 > options.compact_free_percent * self._engine.file_pages
        )

    async def compact(self) -> CompactResult:
        """Compact now; waits for one that is under way.

        Cancellation: between two steps. What was moved stays moved.

        Raises:
            ResourceExhausted: the full disk left no room for a checkpoint.
            Unavailable: the store is read-only.
            CorruptionError: a page could not be read.
        """
        async with self._lock:
            engine = self._engine
            page_size = engine.pages.shape.page_size
            began, moved, size = trio.current_time(), self.pages_moved, engine.file_pages
            try:
                await self._compact()
            finally:
                self.compactions += 1
                result = CompactResult(
                    pages_moved=self.pages_moved - moved,
                    bytes_given_back=max(0, size - engine.file_pages) * page_size,
                    page_file_size_bytes=engine.file_pages * page_size,
                    duration_s=trio.current_time() - began,
                )
                log.info("compacted", **attrs.asdict(result))
            return result

    async def _compact(self) -> None:
        leaves_too = False
        await self._settle()
        cutoff, end = await self._tail()
        for _ in range(PASSES_MAX):
            if end <= cutoff:
                break
            await self._pass(cutoff, leaves_too=leaves_too)
            await self._settle()
            before = end
            cutoff, end = await self._tail()
            if (before - end) * WORTH < before:
                if leaves_too:
                    break
                # No node lies there: large values may.
                leaves_too = True
        await self._cut(end)

    async def _tail(self) -> tuple[int, int]:
        """Where the tail begins, and the end of the last page in use."""
        async with self._checkpointer.paused():
            self._engine.free_space.trim()
            return cutoff_of(self._engine), self._engine.free_space.page_count

    async def _settle(self) -> None:
        """Make everything free that no lease needs: write what there is into both slots."""
        await self._execute(MoveStep(self._engine, (), 0))
        await self._checkpointer.checkpoint(settle=True)

    async def _execute(self, step: MoveStep) -> int:
        done: int = await self._writer.execute(lambda outcome: Mail(step.run, outcome))
        self.pages_moved += step.moved
        return done

    async def _pass(self, cutoff: int, *, leaves_too: bool) -> None:
        """Move what lies in the tail, as far as there is room below it."""
        start: bytes | None = b""
        stuck = False
        while start is not None:
            found = await self._search(cutoff, start, leaves_too=leaves_too)
            if found.no_room or not await self._move(found.moves, cutoff):
                # No room below now; a checkpoint may make some, once.
                if stuck:
                    return
                stuck = True
                await self._settle()
                continue
            stuck = False
            if found.moves:
                await self._checkpointer.checkpoint(settle=True)
            elif found.next_key == start:
                return
            start = found.next_key

    async def _search(self, cutoff: int, start: bytes, *, leaves_too: bool) -> Found:
        engine = self._engine
        async with self._checkpointer.paused():
            search = TailSearch(engine, cutoff, leaves_too=leaves_too)
            lease = engine.snapshot("compaction", evictable=False)
        root = lease.state.root
        lease.begin_read()
        try:
            return await self._threads.run(lambda: search.run(root, start))
        finally:
            lease.end_read()
            lease.close()

    async def _move(self, moves: Sequence[Move], cutoff: int) -> bool:
        """Let the writer do these moves, a few at a time; False where there was no room."""
        first = 0
        while first < len(moves):
            last, leaves = first + 1, moves[first].leaves
            while last < len(moves) and leaves + moves[last].leaves <= STEP_LEAVES:
                leaves += moves[last].leaves
                last += 1
            done = await self._execute(MoveStep(self._engine, moves[first:last], cutoff))
            if done < last - first:
                return first + done > 0
            first = last
            await trio.sleep(STEP_PAUSE_S)
        return True

    async def _cut(self, end: int) -> None:
        """Cut the file to the end of the last page in use."""
        engine = self._engine
        if any(slot.page_count > end for slot in engine.slots):
            await self._settle()
        async with self._checkpointer.paused():
            if not engine.shorten():
                return
            try:
                with trio.CancelScope(shield=True):
                    while await self._threads.run(engine.pages.cut):
                        pass
            except OSError as error:
                log.warning("the page file could not be cut", error=str(error))
