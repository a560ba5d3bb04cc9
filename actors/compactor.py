"""The compactor: gives the page file's free space back to the file system (``docs/space.md``).

Writers and readers go on: pages are found on a thread, moved a few at a time by the writer, written
by checkpoints. Cancelled anywhere, it leaves nothing half done.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
import trio

from actors.checkpointer import Checkpointer
from actors.mail import MovesCall
from actors.threads import WORKER_THREADS, Threads
from actors.tuning import collector_paused
from actors.writer import Writer
from treestore.engine.compaction import MoveStep, Quiet, Search, Settle, Step, plan
from treestore.engine.engine import Engine
from treestore.errors import TreeStoreError, Unavailable
from treestore.loggers import get_logger
from treestore.model.admin import CompactResult

log = get_logger("treestore.compactor")

LOOK_S = 10.0
LOOKS = 7
"""What was free at that many looks, one after the other, is not needed: for a minute."""

REST_S = 600.0
"""After a compaction, none begins by itself for this long: what it left, it could not give."""

STEP_PAUSE_S = 0.003
"""Between two steps the event loop is everybody else's."""


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
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._checkpointer = checkpointer
        self._threads = threads
        self._limiter = limiter
        """Of those who use the page file's descriptor: it is not closed under them."""
        self._lock = trio.Lock()
        self._spare: deque[int] = deque(maxlen=LOOKS)
        self.pages_moved = 0
        """By all compactions, the running one included."""
        self.compactions = 0
        self.bytes_given_back = 0
        self.duration_s_last: float | None = None

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
                self.bytes_given_back += result.bytes_given_back
                self.duration_s_last = result.duration_s
                log.info("compacted", **attrs.asdict(result))
            return result

    async def _compact(self) -> None:
        steps = plan(self._engine)
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            # A step makes thousands of objects at once: pages decoded, lists of free space.
            with collector_paused():
                answer = await self._do(step)

    def _ensure_open(self) -> None:
        if self._writer.stopped.is_set():
            raise Unavailable("The store was closed; the compaction ended early.")

    async def _do(self, step: Step) -> Any:
        """Carry out one step."""
        if isinstance(step, Search):
            try:
                self._ensure_open()
                return await self._threads.run(step.run, limiter=self._limiter)
            except OSError as error:
                raise Unavailable(f"Reading the page file failed: {error}.") from error
            finally:
                step.done()
        self._ensure_open()
        if isinstance(step, Quiet):
            async with self._checkpointer.paused():
                return step.run()
        if isinstance(step, MoveStep):
            done = await self._writer.execute(MovesCall(step.run))
            self.pages_moved += step.moved
            await trio.sleep(STEP_PAUSE_S)
            return done
        if isinstance(step, Settle):
            return await self._checkpointer.checkpoint(settle=True)
        async with self._checkpointer.paused():
            await self._cut()
        return None

    async def _cut(self) -> None:
        if not self._engine.shorten():
            return
        try:
            with trio.CancelScope(shield=True):
                while await self._threads.run(self._engine.pages.cut, limiter=self._limiter):
                    pass
        except OSError as error:
            # It is as long as before, or less: no harm.
            log.warning("the page file could not be cut", error=str(error))
