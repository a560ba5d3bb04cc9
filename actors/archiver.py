"""The archiver: copies the log to the archive directory, before any of it may be given up.

Closed segments go as soon as they are seen, the one in use once an interval, and at the close.
While that fails the log keeps everything; `Health` says why, and at the log's hard limit writers
are refused.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable
from functools import partial

import attrs
import trio

from actors.threads import WORKER_THREADS, Threads
from treestore.engine.backup.archive import Archive
from treestore.engine.engine import Engine
from treestore.engine.log import LogPosition
from treestore.errors import TreeStoreError
from treestore.loggers import get_logger

log = get_logger("treestore.archiver")

TICK_S = 0.25
"""How often it looks for closed segments."""

RETRY_S_MIN = 0.5
RETRY_S_MAX = 30.0


@attrs.frozen
class ArchiverStatistics:
    """A snapshot of the archiver's counters."""

    archived_lsn: int | None
    pieces: int
    size_bytes: int
    failures: int
    last_error: str | None


class Archiver:
    """Archives one engine's log. Runs until cancelled; the supervisor starts it again.

    Error handling:
        What the archive's disk refuses is reported and tried again, after half a second at first,
        thirty at last. A failed trim of the log makes the store read-only.
    """

    def __init__(
        self,
        engine: Engine,
        archive: Archive,
        poke: Callable[[], None],
        threads: Threads = WORKER_THREADS,
    ) -> None:
        self._engine = engine
        self._archive = archive
        self._poke = poke
        self._threads = threads
        self._lock = trio.Lock()
        self._failures = 0
        self._last_error: str | None = None

    @classmethod
    def of(
        cls, engine: Engine, poke: Callable[[], None], threads: Threads = WORKER_THREADS
    ) -> Archiver | None:
        """The archiver that the engine's options ask for, if they do."""
        root = engine.options.archive_directory
        if not root:
            return None
        data = os.path.dirname(engine.pages.file.path)
        archive = Archive(engine.environment.disk, root, data, engine.identity)
        return cls(engine, archive, poke, threads)

    async def run(self) -> None:
        """The actor's task."""
        interval = self._engine.options.archive_interval_s
        active_at = trio.current_time() + interval
        retry = RETRY_S_MIN
        while True:
            active = trio.current_time() >= active_at
            if active:
                active_at = trio.current_time() + interval
            try:
                if self._behind(active) and await self.advance(active=active):
                    self._poke()
                retry = RETRY_S_MIN
            except TreeStoreError as error:
                if retry in (RETRY_S_MIN, RETRY_S_MAX):
                    log.error("the log cannot be archived", error=error.message)
                # What could not be copied counts as due.
                active_at = min(active_at, trio.current_time()) if active else active_at
                await trio.sleep(retry)
                retry = min(2 * retry, RETRY_S_MAX)
            await trio.sleep(min(TICK_S, interval))

    def _behind(self, active: bool) -> bool:
        """Whether there may be something to do."""
        archived, position = self._archive.position, self._engine.log.position
        if archived is None or self._last_error is not None:
            return True
        return position.lsn > archived.lsn if active else position.sequence != archived.sequence

    async def advance(self, *, active: bool) -> bool:
        """Archive what there is, then let the log go as far as it may; whether there was any.

        Cancellation: what has begun is finished first.

        Raises:
            TreeStoreError: the archive cannot be written, or the log cannot be read.
        """
        async with self._lock:
            try:
                # Not to be abandoned: it is finished even where the caller is cancelled.
                wrote = await self._threads.run(partial(self._advance, active))
            except TreeStoreError as error:
                self._failures += 1
                self._last_error = error.message
                raise
            self._last_error = None
            return wrote

    def _advance(self, active: bool) -> bool:
        engine = self._engine
        known = self._archive.position is not None
        wrote = self._archive.advance(engine.log, active=active, pause=engine.environment.pause)
        if not wrote and known:
            return False
        try:
            engine.log.trim(LogPosition.from_tuple(engine.slots[-1].log_position))
        except Exception as error:
            # The log is latched: nothing can be written any more.
            engine.fail(error)
            raise engine.read_only() from error
        return True

    async def make_room(self) -> bool:
        """Archive everything, because the log is full; whether that let go of some of it."""
        try:
            return await self.advance(active=True)
        except TreeStoreError:
            return False

    async def finish(self) -> None:
        """Archive the rest, at the close. A failure is logged: the log has it still."""
        try:
            await self.advance(active=True)
        except TreeStoreError as error:
            log.error(
                "the log was not archived to its end; that is done when the store is opened again",
                error=error.message,
            )

    def problems(self) -> list[str]:
        """Sentences for ``admin.health``."""
        found = []
        if self._last_error is not None:
            found.append(
                f"The log cannot be archived: {self._last_error} Until it can, the log grows to "
                "its limit; then writes are refused."
            )
        if self._archive.gap is not None:
            found.append(self._archive.gap)
        return found

    def statistics(self) -> ArchiverStatistics:
        """The counters now."""
        archive = self._archive
        return ArchiverStatistics(
            None if archive.position is None else archive.position.lsn,
            archive.pieces,
            archive.size_bytes,
            self._failures,
            self._last_error,
        )
