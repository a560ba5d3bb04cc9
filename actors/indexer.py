"""The indexer: keeps the documents' full-text index up with the durable state (``docs/search.md``).

It looks a few times a second whether anything was written. What changed lately is known at once
(`History`, read from the log), and a few changed nodes are searched one by one; so the index itself
is committed only once there are many, or for a second. Its folder is made again when it is missing,
damaged or not of this state; meanwhile searches wait, or take what there is.

Nothing that goes wrong here harms the store, or anything but searches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from actors.standing_back import StandBack
from actors.threads import WORKER_THREADS, Threads
from treestore.engine.changes import notes_of
from treestore.engine.engine import Engine
from treestore.engine.log import LogPosition
from treestore.engine.snapshot import Snapshot
from treestore.errors import CorruptionError, NotFound, Unavailable
from treestore.loggers import get_logger
from treestore.search.folder import IndexFailed
from treestore.stores.documents.history import History, Notes
from treestore.stores.documents.text_index import Identity, Progress, TextIndex, day_of
from treestore.stores.documents.touched import Changes

log = get_logger("treestore.indexer")

FOLDER = "search"
"""In the data directory; a folder for each kind of index is in it."""

TICK_S = 0.25
COMMIT_S = 1.0
"""What was written is in the index, and no longer searched one by one, after about this long ..."""

COMMIT_CHANGES = 250
"""... or when so many nodes changed."""

STEP_S = 0.05
"""Of work on a thread, without coming back."""

WRITER_IDLE_S = 10.0
"""Then its threads and memory are given back."""

CHECK_WAIT_S = 60.0
"""How long a check waits for the index."""

RETRY_S_MIN, RETRY_S_MAX = 1.0, 60.0
"""Between two attempts to make an index, while making it fails."""


@attrs.frozen
class IndexerStatistics:
    """A snapshot of the indexer's numbers."""

    rows: int
    lsn: int | None
    lag_records: int
    size_bytes: int
    rebuilds: int
    commits: int
    nodes_indexed: int
    progress: Progress
    problem: str | None


class Indexer:
    """The indexer of one engine."""

    def __init__(self, engine: Engine, directory: str, threads: Threads = WORKER_THREADS) -> None:
        self.engine = engine
        identity = Identity(engine.identity.database_uuid, engine.identity.timeline)
        # Absolute: the process may change its directory.
        path = Path(directory).absolute() / FOLDER / "documents"
        self._stand_back = StandBack(engine.environment.pause)
        self.index = TextIndex(path, identity, self._stand_back)
        self.history = History(self._read_log, engine.durable.position, self._stand_back)
        self.problem: str | None = None
        """Why there is no index at the moment; None where all is well."""
        self.rebuilds = 0
        self.shown: Snapshot | None = None
        """A lease on the state that the index shows, while somebody waits for it."""
        self._threads = threads
        self._wake = trio.Event()
        self._turned = trio.Event()
        self._waiting = 0
        self._unindexed_since: float | None = None
        self._wrote_at = 0.0
        self._retry_s = RETRY_S_MIN
        self._damaged: str | None = None
        self._held = 0
        """Checks that run."""

    def _read_log(self, after: LogPosition, until_lsn: int) -> Notes:
        return notes_of(self.engine.log.groups_after(after, until_lsn))

    # -- the actor ------------------------------------------------------------------------------

    async def run(self) -> None:
        """The actor's task."""
        self.index.close()
        await self._open()
        while True:
            with trio.move_on_after(TICK_S):
                await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self._turn()
                self._retry_s = RETRY_S_MIN
            except (IndexFailed, NotFound, CorruptionError, OSError) as error:
                await self._failed(error)
            finally:
                self._turned.set()
                self._turned = trio.Event()

    async def _failed(self, error: Exception) -> None:
        """Make the index anew; where that fails, again and again, not too often."""
        self.problem = f"{error}"
        log.error("the search index failed and is rebuilt", error=str(error))
        while True:
            self._turned.set()
            self._turned = trio.Event()
            try:
                await self._rebuild(str(error))
                return
            except (IndexFailed, NotFound, CorruptionError, OSError) as again:
                self.problem = f"{again}"
                log.exception("rebuilding the search index failed", retry_s=self._retry_s)
                await trio.sleep(self._retry_s)
                self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)

    async def _open(self) -> None:
        lease = self._lease()
        why = "there is none"
        try:
            txn, state = lease.read(), lease.state
            try:
                position = await self._threads.run(
                    partial(self.index.open, txn, state.position.lsn)
                )
                if position is not None:
                    history = History(self._read_log, position, self._stand_back)
                    await self._threads.run(partial(history.advance, state.position))
                    self.history = history
                    return
            except (IndexFailed, NotFound, CorruptionError, OSError) as error:
                why = f"{error}"
        finally:
            lease.close()
        try:
            await self._rebuild(why)
        except (IndexFailed, NotFound, CorruptionError, OSError) as error:
            await self._failed(error)

    def _lease(self) -> Snapshot:
        return self.engine.snapshot("search index", evictable=False)

    async def _rebuild(self, why: str) -> None:
        lease = self._lease()
        began = trio.current_time()
        try:
            state = lease.state
            # Kept from the state that it is made from; what older snapshots need, as far as known.
            if not await self._keeps_history(state.position):
                self.history = History(self._read_log, state.position, self._stand_back)
            await self._steps(self.index.rebuild(lease.read(), state.position))
        finally:
            lease.close()
        self.problem = self._damaged = None
        nodes = self.index.progress.nodes
        if nodes:
            self.rebuilds += 1
            took = trio.current_time() - began
            log.info("the search index was rebuilt", why=why, nodes=nodes, seconds=round(took, 2))

    async def _keeps_history(self, position: LogPosition) -> bool:
        try:
            await self._threads.run(partial(self.history.advance, position))
        except (NotFound, CorruptionError, OSError):
            return False
        changes = self.history.between(self.history.start_lsn, position.lsn)
        return changes is not None and not changes.everything

    async def _steps(self, steps: Iterator[None]) -> None:
        """Do work on a thread, a little at a time; the history goes on meanwhile."""
        while await self._threads.run(partial(self._some_steps, steps)):
            self._wrote_at = trio.current_time()

    def _some_steps(self, steps: Iterator[None]) -> bool:
        until = time.monotonic() + STEP_S
        for _ in steps:
            if time.monotonic() > until:
                # So that no log is trimmed before it was read.
                self.history.advance(self.engine.durable.position)
                return True
        return False

    async def _turn(self) -> None:
        """Look what is to be done, and do it."""
        if self._damaged is not None:
            raise IndexFailed(self._damaged)
        if self._held or self._rests():
            return
        lease = self._lease()
        try:
            state, txn = lease.state, lease.read()
            lsn = state.position.lsn
            if lsn != self.history.lsn:
                await self._threads.run(partial(self.history.advance, state.position))
            changes = self._changes(lsn)
            if self._due(changes):
                await self._steps(self.index.update(txn, state.position, changes))
                self._unindexed_since = None
            if day_of(txn) != self.index.view.day:
                changes = self._changes(lsn)
                await self._threads.run(partial(self.index.begin_day, txn, changes))
            if self.index.view.lsn == lsn:
                await self._settle(lease)
            self._show(lease)
        finally:
            if lease is not self.shown:
                lease.close()
        self._forget()

    def _rests(self) -> bool:
        """Whether there is nothing to do."""
        view, writing = self.index.view, self.index.folder.has_writer
        return (
            view.lsn == self.engine.durable.position.lsn
            and view.day == self.engine.now().date()
            and not view.stale
            and not (writing and trio.current_time() - self._wrote_at > WRITER_IDLE_S)
            and not self._waiting
        )

    def _changes(self, lsn: int) -> Changes:
        view = self.index.view
        if view.lsn is None:
            raise IndexFailed("it is not whole")
        changes = self.history.between(view.lsn, lsn)
        if changes is None or changes.everything:
            raise IndexFailed("it is not known what changed since it was committed")
        return changes

    def _due(self, changes: Changes) -> bool:
        """Whether to bring the index up now. Without changes that costs nothing."""
        if not changes:
            return True
        now = trio.current_time()
        if self._unindexed_since is None:
            self._unindexed_since = now
        return (
            self._waiting > 0
            or changes.count() >= COMMIT_CHANGES
            or now - self._unindexed_since >= COMMIT_S
        )

    async def _settle(self, lease: Snapshot) -> None:
        """The index shows the newest state: what else there is to do."""
        index, position = self.index, lease.state.position
        if index.view.stale and not self._waiting:
            await self._steps(index.freshen(lease.read(), position))
        saved = index.saved_position
        if saved is not None and position.sequence > saved.sequence + 1:
            # Nothing that it shows changed, but the log that it would go on from will be gone.
            await self._threads.run(partial(index.save, position))
        if index.folder.has_writer and trio.current_time() - self._wrote_at > WRITER_IDLE_S:
            await self._threads.run(index.folder.release_writer)

    def _show(self, lease: Snapshot) -> None:
        """Keep a lease on the state that the index shows, for those who wait."""
        if self._waiting and self.index.view.lsn == lease.state.position.lsn:
            old, self.shown = self.shown, lease
            if old is not None and old is not lease:
                old.close()

    def _forget(self) -> None:
        lsn = self.index.view.lsn
        if lsn is not None:
            oldest = [lease.state.position.lsn for lease in self.engine.snapshots()]
            self.history.forget_before(min([lsn, *oldest]))

    # -- those who search -------------------------------------------------------------------------

    def damaged(self, error: IndexFailed) -> None:
        """A search found the index damaged: make it anew. Any thread."""
        self._damaged = str(error)

    async def wait(self, lsn: int, deadline: float) -> None:
        """Return once the index shows the state at ``lsn`` or a later one, for the present day.

        Raises:
            Unavailable: that did not happen before ``deadline``.
        """
        self._waiting += 1
        try:
            with trio.move_on_at(deadline):
                while True:
                    if self._damaged is None and self._shows(lsn):
                        return
                    self._wake.set()
                    await self._turned.wait()
            raise Unavailable(self._why_not_yet(lsn), **self._progress())
        finally:
            self._waiting -= 1

    def _shows(self, lsn: int) -> bool:
        view = self.index.view
        return view.lsn is not None and view.lsn >= lsn and view.day == self.engine.now().date()

    def let_go(self) -> None:
        """Nobody waits any more: do not pin what the index shows."""
        if not self._waiting and self.shown is not None:
            self.shown.close()
            self.shown = None

    def _why_not_yet(self, lsn: int) -> str:
        progress = self.index.progress
        if progress.running:
            return (
                f"The search index is being rebuilt: {progress.nodes} of {progress.nodes_total} "
                "nodes are in it. Try again later, or search with consistency='eventual'."
            )
        if self.problem is not None:
            return (
                f"The search index cannot be made ({self.problem}). It is tried again by itself; "
                "the documents are not affected."
            )
        return (
            f"The search index is behind (it shows record {self.index.view.lsn}, wanted is {lsn}). "
            "Try again later, or search with consistency='eventual'."
        )

    def _progress(self) -> dict[str, Any]:
        progress = self.index.progress
        return {"nodes": progress.nodes, "nodes_total": progress.nodes_total}

    def statistics(self) -> IndexerStatistics:
        """The numbers now. Looks at the folder."""
        view = self.index.view
        return IndexerStatistics(
            rows=self.index.rows(),
            lsn=view.lsn,
            lag_records=max(0, self.engine.durable.position.lsn - (view.lsn or 0)),
            size_bytes=self.index.folder.size_bytes(),
            rebuilds=self.rebuilds,
            commits=self.index.commits,
            nodes_indexed=self.index.nodes_indexed,
            progress=self.index.progress,
            problem=self.problem,
        )

    async def check(self) -> list[str]:
        """What is wrong with the index, in sentences; it is made anew then.

        Raises:
            Unavailable: it does not get up to date.
        """
        await self.wait(self.engine.durable.position.lsn, trio.current_time() + CHECK_WAIT_S)
        lease = self.shown
        state = None if lease is None or lease.closed else lease.state
        self._held += 1  # The next turns leave the index alone.
        try:
            if state is None or state.position.lsn != self.index.view.lsn:
                state = self.engine.durable
            snapshot = self.engine.pin(state, "search index", evictable=False)
            try:
                work = partial(self.index.check, snapshot.read(), state.position.lsn)
                errors = await self._threads.run(work)
            finally:
                snapshot.close()
        finally:
            self._held -= 1
            self.let_go()
        if errors:
            self._damaged = errors[0]
        return errors

    async def finish(self) -> None:
        """Close the index; the actor has ended."""
        if self.shown is not None:
            self.shown.close()
            self.shown = None
        await self._threads.run(self.index.close)
