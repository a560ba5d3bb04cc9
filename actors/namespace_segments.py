"""The segment keeper: seals long tails, joins segments, makes lost files again.

Files are written on worker threads from pinned states, beside everything else; what enters them
into the tree is one command each (`treestore.stores.namespaces.live.making`). A crash between the
two leaves a file that nobody names, which goes at the next start.

One thing at a time: writing a segment takes a processor for seconds, and there are others who need
one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from actors.mail import Call
from actors.namespace_views import NamespaceViews
from actors.threads import WORKER_THREADS, Threads
from actors.writer import Writer
from treestore.engine.engine import Engine
from treestore.engine.snapshot import Snapshot
from treestore.errors import OutcomeUnknown, TreeStoreError
from treestore.loggers import get_logger

if TYPE_CHECKING:
    from treestore.stores.namespaces.catalog import Opened
    from treestore.stores.namespaces.live.making import Made, Maker
    from treestore.stores.namespaces.upkeep import UpkeepOptions

log = get_logger("treestore.namespace_segments")

LOOK_S = 0.5
"""It looks so often what there is to do, where anything was written; ..."""

LOOK_SHARE = 0.05
LOOK_S_MAX = 10.0
"""... less often, where looking takes more of the time than this, but that often."""

RETRY_S_MIN, RETRY_S_MAX = 1.0, 60.0
"""Between two attempts, while something fails (a full disk, say)."""

ORPHANS_S = 10.0
"""It looks so often for files that nobody names."""


@attrs.define
class SegmentCounters:
    """What was done since the store was opened.

    Attributes:
        seals: tails, or parts of them, that became segments.
        merges: segments made of others.
        rebuilds: segments whose files were lost or damaged, given up to be made again.
        orphans: files removed that nobody named.
        rows: written to segments.
        seconds: that writing them took.
    """

    seals: int = 0
    merges: int = 0
    rebuilds: int = 0
    orphans: int = 0
    rows: int = 0
    seconds: float = 0.0


class SegmentKeeper:
    """Of one engine.

    Attributes:
        counters: see there.
        busy: what it does at the moment; "" where nothing.
        problem: why the last thing failed; None where it did not.
    """

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        views: NamespaceViews,
        options: UpkeepOptions,
        threads: Threads = WORKER_THREADS,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._views = views
        self._options = options
        self._threads = threads
        self._retry_s = RETRY_S_MIN
        self._looked_lsn = -1
        self._look_took_s = 0.0
        self._orphans_at = 0.0
        self._made: Maker | None = None
        self.counters = SegmentCounters()
        self.busy = ""
        self.problem: str | None = None

    @property
    def _maker(self) -> Maker:
        if self._made is None:
            from treestore.stores.namespaces.live.making import Maker

            random = self._engine.environment.random
            self._made = Maker(
                self._views.views(), self._views.segments, lambda: random.randbytes(16).hex()
            )
        return self._made

    # -- the actor ------------------------------------------------------------------------------

    async def run(self) -> None:
        """The actor's task."""
        while True:
            try:
                while await self._turn():
                    pass
                self.problem, self._retry_s = None, RETRY_S_MIN
                await self._tidy()
                wait_s = min(max(LOOK_S, self._look_took_s / LOOK_SHARE), LOOK_S_MAX)
            except (TreeStoreError, OSError) as error:
                self.problem = f"{error}"
                log.warning("the segments of a namespace could not be kept up", error=str(error))
                wait_s, self._retry_s = self._retry_s, min(2 * self._retry_s, RETRY_S_MAX)
            finally:
                self.busy = ""
            await trio.sleep(wait_s)

    async def _turn(self) -> bool:
        """Look for the first thing to do, and do it; False where there is none."""
        if self._views.damaged:
            await self._give_up_damaged()
            return True
        lsn = self._engine.durable.position.lsn
        if lsn == self._looked_lsn:
            return False
        with self._pinned() as lease:
            began = trio.current_time()
            work = await self._threads.run(partial(self._look, lease))
            self._look_took_s = trio.current_time() - began
            if work is None:
                self._looked_lsn = lsn
                return False
            what, there, old = work
            self.busy = f"{what} of namespace {there.number}"
            began = trio.current_time()
            made = await self._threads.run(partial(self._make, lease, there, old))
        if made is None:
            return False
        await self._enter(made)
        self.counters.rows += len(made.rows)
        self.counters.seconds += trio.current_time() - began
        return True

    @contextlib.contextmanager
    def _pinned(self) -> Generator[Snapshot]:
        lease = self._engine.snapshot("namespace segments", evictable=False)
        try:
            yield lease
        finally:
            lease.close()

    def _look(self, lease: Snapshot) -> tuple[str, Opened, list[int]] | None:
        """What to do first: a seal, or (with the segments' numbers) a merge. On a thread."""
        from treestore.stores.namespaces import upkeep

        txn, options = lease.read(), self._options
        if self._views.made is not None:
            # It knows which rows are dead.
            self._views.made.follower.advance(lease.state.position)
        for there in upkeep.kept(txn):
            if upkeep.tail_is_long(txn, there.number, options.seal_rows):
                return "a seal", there, []
            old = upkeep.choose_merge(self._sizes(txn, there.number), options)
            if old:
                return "a merge", there, old
        return None

    def _sizes(self, txn: Any, number: int) -> Any:
        from treestore.stores.namespaces import upkeep

        made = self._views.made
        view = None if made is None else made.follower.view(number)
        known = upkeep.sizes(txn, number)
        if view is None:
            return known
        dead = {part.segment: part.dead() for part in view.sealed_parts()}
        return [attrs.evolve(one, dead=dead.get(one.number, 0)) for one in known]

    def _make(self, lease: Snapshot, there: Opened, old: list[int]) -> Made | None:
        """Write the file. On a thread."""
        from treestore.search.columns.blobs import ColumnsDamaged
        from treestore.search.vectors.segment_file import SegmentDamaged
        from treestore.stores.namespaces.live.pieces import StateTooOld, UseTree

        txn, position, pause = lease.read(), lease.state.position, self._engine.environment.pause
        try:
            if old:
                return self._maker.merge(txn, position, there, old, pause=pause)
            most = self._options.seal_rows_max
            return self._maker.seal(txn, position, there, rows_max=most, pause=pause)
        except StateTooOld:
            return None  # A query was quicker to load the view; the next turn has a later state.
        except UseTree as error:
            if self._views.damaged:
                return None  # That comes first.
            raise OSError(f"there is no view: {error}") from error
        except (ColumnsDamaged, SegmentDamaged) as error:
            # What was written just now reads otherwise.
            raise OSError(f"a segment that was written is damaged: {error}") from error

    async def _enter(self, made: Made) -> None:
        """Have the manifest entered; the file goes where it is not."""
        number: int | None = None
        failure: Exception | None = None
        try:
            number = await self._writer.execute(Call(made.enter, long=True))
        except OutcomeUnknown:
            raise  # The file may have been entered: if not, it is an orphan one day.
        except (TreeStoreError, ValueError) as error:
            failure = error
        if number is None:
            await self._threads.run(partial(self._maker.give_up, made))
        if isinstance(failure, ValueError):
            raise OSError(f"a segment was not entered: {failure}") from failure
        if failure is not None:
            raise failure
        if number is None:
            return
        if made.old:
            self.counters.merges += 1
            self._orphans_at = 0.0  # The old files go as soon as nobody reads them.
        else:
            self.counters.seals += 1

    # -- files that are lost ----------------------------------------------------------------------

    async def _give_up_damaged(self) -> None:
        """The rows of segments without good files go back to the tail, to be sealed again."""
        from treestore.stores.namespaces import segments

        number, damaged = next(iter(self._views.damaged.items()))
        self.busy = f"making segments of namespace {number} again"
        for one in damaged:
            with self._pinned() as lease:
                rows = await self._threads.run(partial(_lost_rows, lease, number, one.number))
            back = await self._writer.execute(
                Call(segments.forget_segment, (number, one.number, rows), long=True)
            )
            if back is not None:
                self.counters.rebuilds += 1
                log.warning(
                    "a segment of a namespace is made again",
                    namespace=number,
                    rows=back,
                    why=one.why,
                )
        self._views.damaged.pop(number, None)
        self._looked_lsn = -1

    # -- letting go -------------------------------------------------------------------------------

    async def _tidy(self) -> None:
        """Let go of what nobody can ask for any more."""
        made = self._views.made
        if made is not None:
            oldest = self._oldest_lsn()
            for view in made.follower.views():
                view.forget_before(oldest)
            await self._threads.run(self._views.tidy)
        now = trio.current_time()
        if now >= self._orphans_at:
            self._orphans_at = now + ORPHANS_S
            with self._pinned() as lease:
                self.counters.orphans += await self._threads.run(partial(self._orphans, lease))

    def _oldest_lsn(self) -> int:
        states = [lease.state.position.lsn for lease in self._engine.snapshots()]
        return min([*states, self._engine.durable.position.lsn])

    def _orphans(self, lease: Snapshot) -> int:
        """Remove files that no manifest names in any state that is read. On a thread."""
        from treestore.stores.namespaces.manifests import all_names

        if not self._views.segments_path.exists():
            return 0
        named = all_names(lease.read())
        # Files are not made at the same time as this: it is the same task that does.
        for other in self._engine.snapshots():
            with contextlib.suppress(TreeStoreError):
                named |= all_names(other.read())
        return self._maker.remove_orphans(named)


def _lost_rows(lease: Snapshot, number: int, segment: int) -> Any:
    from treestore.stores.namespaces import segments

    txn = lease.read()
    return segments.rows_with_ids(txn, number, segments.segment_rows(txn, number, segment))
