"""The scrubber: reads everything that a restart would need, slowly, and says what is damaged.

Rot that nobody reads stays unnoticed until it is needed. So in the background, a slice at a time
and at a limited rate, the pages of the newest durable state are read from the medium (past the
caches, as far as the system allows), then those that only the newest checkpoint has, its list of
free space, both meta slots, and the closed log segments that recovery would replay. Then it rests.

It stands back for checkpoints, and they for it, but for no longer than a slice. A slice pins its
state; nothing is pinned between slices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import attrs
import trio

from actors.checkpointer import Checkpointer
from actors.threads import WORKER_THREADS, Threads
from treestore.engine.engine import Engine
from treestore.engine.log import LogPosition
from treestore.engine.meta import slot_warnings
from treestore.engine.scrub import Place, Scrub, Slice
from treestore.errors import CorruptionError
from treestore.loggers import get_logger

log = get_logger("treestore.scrubber")

T = TypeVar("T")

MEBIBYTE = 1 << 20

SLICE_BYTES = 256 << 10
"""A few milliseconds of reading; a checkpoint waits at most this long."""

FIRST_PAUSE_S = 60.0
"""A store that is open for a shorter time is not scrubbed."""

PROBLEMS_MAX = 20
"""Problems told at a time. One bad disk has thousands."""


@attrs.frozen
class ScrubOptions:
    """How eagerly to scrub."""

    rate_bytes_per_s: int = 4 * MEBIBYTE
    """Bytes read in a second, at most; 0: never."""
    pause_s: float = 3600.0
    """Rest between two passes."""
    first_pause_s: float = FIRST_PAUSE_S
    """Rest before the first one."""


@attrs.frozen
class ScrubberStatistics:
    """A snapshot of the scrubber's counters."""

    passes: int
    pages: int
    bytes: int
    errors: int
    finished_at: float | None
    """Unix time at which the last pass ended."""
    bytes_per_s: float
    """Of the pass under way, else of the last one: its pauses between slices included."""


class Scrubber:
    """Scrubs one store; the supervisor starts it again when it crashes.

    Error handling:
        Damage is reported (`problems`, the log) and never raised: what can be read is served.
    """

    def __init__(
        self,
        engine: Engine,
        checkpointer: Checkpointer,
        options: ScrubOptions,
        wall_clock: Callable[[], float],
        threads: Threads = WORKER_THREADS,
    ) -> None:
        self.options = options
        self._engine = engine
        self._checkpointer = checkpointer
        self._wall_clock = wall_clock
        self._threads = threads
        self._scrub = Scrub(engine.pages, engine.environment.pause)
        self._passes = self._pages = self._bytes = self._errors = 0
        self._finished_at: float | None = None
        self._pass_bytes = 0
        self._pass_began = 0.0
        self._rate = 0.0
        self._found: list[str] = []
        self._found_before: list[str] = []

    async def run(self) -> None:
        """The actor's task."""
        if not self.options.rate_bytes_per_s:
            return
        await trio.sleep(self.options.first_pause_s)
        while True:
            await self.scrub()
            await trio.sleep(self.options.pause_s)

    async def scrub(self) -> None:
        """One pass over everything."""
        self._found_before, self._found = self._found, []
        self._pass_bytes, self._pass_began = 0, trio.current_time()
        key: bytes | None = b""
        while key is not None:
            key = await self._tree(key)
        await self._superseded()
        await self._rest_of_page_file()
        await self._log_segments()
        self._rate = self._pass_rate()
        self._pass_began = 0.0
        self._passes += 1
        self._finished_at = self._wall_clock()
        # What this pass did not find any more was replaced meanwhile.
        self._found_before = []

    # -- slices -----------------------------------------------------------------------------------

    async def _tree(self, start: bytes) -> bytes | None:
        """A slice of the tree; where to go on."""
        found = await self._slice(
            lambda engine: self._scrub.tree(engine.durable.root, start, SLICE_BYTES)
        )
        return found.next_key

    async def _superseded(self) -> None:
        """What only the newest checkpoint has: a restart begins with that."""
        checkpoint = self._engine.slots[0]
        going_on: list[Place | None] = [(0, 0)]

        def verify(engine: Engine) -> Slice:
            start = going_on[0]
            # After another checkpoint it is only in the older slot.
            if start is None or engine.slots[0] is not checkpoint:
                going_on[0] = None
                return Slice()
            groups = engine.superseded_since_checkpoint
            found, going_on[0] = self._scrub.superseded(groups, start, SLICE_BYTES)
            return found

        while going_on[0] is not None:
            await self._slice(verify)
            if self._engine.pages.failed is not None:
                return

    async def _rest_of_page_file(self) -> None:
        def verify(engine: Engine) -> Slice:
            return self._scrub.free_space(list(engine.slots[0].free_runs))

        await self._slice(verify)
        async with self._checkpointer.paused():
            for warning in await self._in_thread(
                lambda: slot_warnings(self._engine.pages.file, fresh=True)
            ):
                self._report(warning, file=self._engine.pages.file.path)

    async def _slice(self, verify: Callable[[Engine], Slice]) -> Slice:
        began = trio.current_time()
        engine = self._engine
        async with self._checkpointer.paused():
            # No page is written now, so what a reference names is on the medium; unless a
            # checkpoint failed half way, and then nothing is written any more anyway.
            if engine.pages.failed is not None:
                return Slice()
            snapshot = engine.snapshot("scrub", evictable=False)
            try:
                found = await self._in_thread(lambda: verify(engine))
            finally:
                snapshot.close()
        self._pages += found.pages
        for error in found.damage:
            self._report(error.message, **error.details)
        await self._slow_down(found.bytes, began)
        return found

    async def _log_segments(self) -> None:
        """Closed segments behind the older slot's position: recovery may need all of them."""
        engine = self._engine
        position: LogPosition | None = LogPosition.from_tuple(engine.slots[-1].log_position)
        while position is not None:
            began, start = trio.current_time(), position
            needed = LogPosition.from_tuple(engine.slots[-1].log_position)
            if start.lsn < needed.lsn:
                start = needed  # It was trimmed meanwhile.
            try:
                position, size = await self._in_thread(
                    partial(engine.log.verify_closed, start, SLICE_BYTES)
                )
            except CorruptionError as error:
                self._report(error.message, **error.details)
                return
            await self._slow_down(size, began)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # Not abandoned when it is cancelled: whoever closes the files waits for this actor.
        return await self._threads.run(work)

    async def _slow_down(self, size: int, began: float) -> None:
        self._bytes += size
        self._pass_bytes += size
        due = began + size / self.options.rate_bytes_per_s if self.options.rate_bytes_per_s else 0
        await trio.sleep_until(max(due, trio.current_time()))

    # -- what was found ---------------------------------------------------------------------------

    def _report(self, message: str, **details: object) -> None:
        self._errors += 1
        if message in self._found:
            return
        if len(self._found) < PROBLEMS_MAX:
            self._found.append(message)
        if message not in self._found_before:
            log.error("damage was found", problem=message, **details)

    def problems(self) -> list[str]:
        """Damage that this pass found, or the last one where this one is not done yet."""
        return list(dict.fromkeys([*self._found, *self._found_before]))[:PROBLEMS_MAX]

    def _pass_rate(self) -> float:
        took = trio.current_time() - self._pass_began
        return self._pass_bytes / took if took > 0 else 0.0

    def statistics(self) -> ScrubberStatistics:
        """The counters now."""
        rate = self._pass_rate() if self._pass_began else self._rate
        return ScrubberStatistics(
            self._passes, self._pages, self._bytes, self._errors, self._finished_at, rate
        )
