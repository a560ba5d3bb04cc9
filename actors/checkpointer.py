"""The checkpointer: moves durable state from the log into the page file, and lets the log go.

Triggers: log bytes, number of transactions, time, a full log, or a request. Writers go on
meanwhile; the work is done on a worker thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from actors.threads import WORKER_THREADS, Threads
from treestore.engine.checkpoint import CheckpointStatistics
from treestore.engine.engine import Engine
from treestore.engine.log import LogPosition
from treestore.errors import ResourceExhausted, TreeStoreError, Unavailable
from treestore.histogram import Histogram, HistogramSnapshot
from treestore.loggers import get_logger

log = get_logger("treestore.checkpointer")

RETRY_S = 1.0
"""Pause after a checkpoint that the full disk did not allow."""


@attrs.frozen
class CheckpointerStatistics:
    """A snapshot of the checkpointer's counters."""

    checkpoints: int
    failures: int
    last: CheckpointStatistics | None
    last_at: float | None
    """Unix time at which the last one ended."""
    last_error: str | None
    durations: HistogramSnapshot
    """Seconds that they took."""
    written_bytes: int
    """By all of them, to the page file."""


class Checkpointer:
    """Checkpoints one engine.

    Error handling:
        A full disk is reported and tried again. A failed write or sync makes the engine
        read-only; the actor then stays, answering requests with `Unavailable`.
    """

    def __init__(
        self,
        engine: Engine,
        after: Callable[[bool], None],
        wall_clock: Callable[[], float],
        threads: Threads = WORKER_THREADS,
    ) -> None:
        self.engine = engine
        self._threads = threads
        self._after = after
        self.archive: Callable[[], Awaitable[bool]] | None = None
        """Archives the log; whether that let some of it go. None where nothing is archived."""
        self._wall_clock = wall_clock
        self._asked = trio.Event()
        self._log_full = False
        self._lock = trio.Lock()
        self._failures = 0
        self._last: CheckpointStatistics | None = None
        self._last_at: float | None = None
        self._last_error: str | None = None
        self._durations = Histogram()
        self._written_bytes = 0

    def ask(self, log_full: bool = False) -> None:
        """Make a checkpoint soon; with ``log_full`` until the log has room again."""
        self._log_full = self._log_full or log_full
        self._asked.set()

    async def run(self) -> None:
        """Watch the triggers until cancelled; the actor's task."""
        while True:
            with trio.move_on_after(self.engine.options.checkpoint_interval_s):
                await self._asked.wait()
            self._asked = trio.Event()
            log_full, self._log_full = self._log_full, False
            if self.engine.failed is not None:
                self._after(False)
                await trio.sleep(RETRY_S)
                continue
            try:
                done = await self.checkpoint(repeat=log_full)
                if log_full and self.archive is not None and await self.archive():
                    self._after(True)
                elif log_full and not done:
                    # Both slots are up to date, and still there is no room.
                    self._after(False)
            except ResourceExhausted:
                await trio.sleep(RETRY_S)
            except TreeStoreError as error:
                log.error("a checkpoint failed", error=error.message)
            except OSError as error:
                log.error("a checkpoint failed; the store is read-only now", error=str(error))

    @asynccontextmanager
    async def paused(self) -> AsyncGenerator[None]:
        """No checkpoint runs inside the ``async with``."""
        async with self._lock:
            yield

    async def checkpoint(self, *, repeat: bool = False, settle: bool = False) -> bool:
        """Make one now; whether there was anything to do.

        Args:
            repeat, settle: see `Engine.begin_checkpoint`.

        Cancellation: the checkpoint itself is finished first.

        Raises:
            ResourceExhausted: there is no room on the disk; nothing was changed.
            Unavailable: the store is read-only.
        """
        async with self._lock:
            if self.engine.failed is not None:
                raise self.engine.read_only()
            checkpoint = self.engine.begin_checkpoint(repeat=repeat, settle=settle)
            if checkpoint is None:
                return False
            succeeded = False
            try:
                with trio.CancelScope(shield=True):
                    await self._threads.run(checkpoint.run)
                succeeded = True
            except Exception as error:
                self._failures += 1
                self._last_error = str(error)
                if isinstance(error, OSError):
                    raise Unavailable(f"The checkpoint could not be written: {error}.") from error
                raise
            finally:
                position = self.engine.finish_checkpoint()
                if not succeeded:
                    self._after(False)
            if checkpoint.statistics is not None:
                self._last = checkpoint.statistics
                self._durations.observe(self._last.duration_s)
                self._written_bytes += self._last.written_bytes
            self._last_at = self._wall_clock()
            self._last_error = None
            if position is not None:
                await self._trim(position)
            self._after(True)
            return True

    async def _trim(self, position: LogPosition) -> None:
        try:
            with trio.CancelScope(shield=True):
                await self._threads.run(partial(self.engine.log.trim, position))
        except Exception as error:
            # The log is latched: nothing can be written any more.
            self.engine.fail(error)
            self._after(False)
            raise self.engine.read_only() from error

    def statistics(self) -> CheckpointerStatistics:
        """The counters now."""
        return CheckpointerStatistics(
            self.engine.checkpoints,
            self._failures,
            self._last,
            self._last_at,
            self._last_error,
            self._durations.snapshot(),
            self._written_bytes,
        )
