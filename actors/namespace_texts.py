"""The text keeper: keeps the full-text indexes of namespaces up with their views.

A search looks one by one at the rows that the index does not have yet, so the index may lag: it is
committed once there are many, or for a second. Which rows those are, and which may leave it, the
view's follower tells (`treestore.stores.namespaces.live.texts`).

One task, and one thread at a time: writers are shared (`treestore.search.fulltext.writers`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import attrs
import trio

from actors.namespace_views import NamespaceViews
from actors.standing_back import StandBack
from actors.threads import WORKER_THREADS, Threads
from treestore.engine.engine import Engine
from treestore.engine.snapshot import Snapshot
from treestore.loggers import get_logger

if TYPE_CHECKING:
    from treestore.model.namespaces import FullTextSchema
    from treestore.search.fulltext.generations import NamespaceTexts
    from treestore.search.fulltext.writers import Writers
    from treestore.stores.access import Read
    from treestore.stores.namespaces.catalog import Opened
    from treestore.stores.namespaces.live.texts import NewText, Texts
    from treestore.stores.namespaces.live.view import View
    from treestore.stores.namespaces.live.views import Views

log = get_logger("treestore.namespace_texts")

TICK_S = 0.25
COMMIT_S = 1.0
COMMIT_ROWS = 250
"""An index is committed when it lacks so many rows, or for so long."""

ROWS_AT_ONCE = 5000
"""Rows that are added before others have their turn."""

BREATH_ROWS = 32
"""Rows that are added without a pause."""

RETRY_S_MIN, RETRY_S_MAX = 1.0, 60.0


@attrs.define(eq=False)
class Kept:
    """One namespace's index, as it is kept up.

    Attributes:
        index: in its folder.
        view: that tells what is new.
        remaking: rows still to be added to the index that is being made; None: none is.
        lacking_since: when it was seen first that the index lacks rows; None: it does not.
    """

    index: NamespaceTexts
    view: View
    remaking: Iterator[int] | None = None
    lacking_since: float | None = None


@attrs.define
class TextCounters:
    """What was done since the store was opened.

    Attributes:
        rows: added to indexes.
        commits: of indexes.
        rebuilds: indexes that were made anew, for they were missing, damaged or for other
            analyzers, and had rows to get.
        lag_rows: that some index lacked at the last look.
    """

    rows: int = 0
    commits: int = 0
    rebuilds: int = 0
    lag_rows: int = 0


class TextKeeper:
    """Of one engine.

    Attributes:
        counters: see there.
        problems: why an index could not be kept up, by the namespace's number.
    """

    def __init__(
        self, engine: Engine, views: NamespaceViews, threads: Threads = WORKER_THREADS
    ) -> None:
        self._engine = engine
        self._views = views
        self._threads = threads
        self._stand_back = StandBack(engine.environment.pause)
        self._kept: dict[int, Kept] = {}
        self._writers: Writers | None = None
        self._retry_at: dict[int, tuple[float, float]] = {}
        self._turned = trio.Event()
        self.counters = TextCounters()
        self.problems: dict[int, str] = {}

    # -- the actor ------------------------------------------------------------------------------

    async def run(self) -> None:
        """The actor's task."""
        try:
            while True:
                made = self._views.made
                more = made is not None and await self._turn(made)
                turned, self._turned = self._turned, trio.Event()
                turned.set()
                if not more:
                    await trio.sleep(TICK_S)
        finally:
            with trio.CancelScope(shield=True):
                await self._threads.run(self._close)

    async def turned(self, deadline: float) -> bool:
        """Return after the next turn, in which some index may have come, or caught up; False where
        the deadline came before."""
        with trio.move_on_at(deadline):
            await self._turned.wait()
            return True
        return False

    @staticmethod
    def is_waited_for(error: Exception) -> bool:
        """Whether a query failed for want of an index."""
        from treestore.stores.namespaces.live.querying import NoIndex
        from treestore.stores.namespaces.live.words import IndexBehind

        return isinstance(error, NoIndex | IndexBehind)

    async def _turn(self, views: Views) -> bool:
        """One step for each namespace; whether there is more to do at once."""
        lease = self._engine.snapshot("namespace texts", evictable=False)
        try:
            await self._threads.run(partial(views.follower.advance, lease.state.position))
            wanted = await self._threads.run(partial(_with_texts, lease, views))
            more = False
            for there, view in wanted:
                retry = self._retry_at.get(there.number)
                if retry is None or trio.current_time() >= retry[0]:
                    more |= await self._keep(lease, views, there, view)
            for number in self._kept.keys() - {there.number for there, _ in wanted}:
                if not await self._threads.run(partial(_is_there, lease, number)):
                    await self._threads.run(partial(self._forget, views, number))
            if self._writers is not None:
                await self._threads.run(self._writers.release_idle)
            return more
        finally:
            lease.close()

    async def _keep(self, lease: Snapshot, views: Views, there: Opened, view: View) -> bool:
        from treestore.search.folder import IndexFailed

        number = there.number
        try:
            more = await self._threads.run(partial(self._step, lease, views, there, view))
        except (IndexFailed, OSError) as error:
            self.problems[number] = str(error)
            log.error("the texts of a namespace are indexed anew", namespace=number, why=str(error))
            await self._threads.run(partial(self._start_over, views, number))
            wait_s = 2 * self._retry_at.get(number, (0.0, RETRY_S_MIN / 2))[1]
            wait_s = min(wait_s, RETRY_S_MAX)
            self._retry_at[number] = trio.current_time() + wait_s, wait_s
            return False
        self.problems.pop(number, None)
        self._retry_at.pop(number, None)
        return more

    # -- on a thread ------------------------------------------------------------------------------

    def _step(self, lease: Snapshot, views: Views, there: Opened, view: View) -> bool:
        """Some work for one namespace; whether there is more to do at once."""
        from treestore.search.folder import IndexFailed

        texts, txn = views.texts(there.number), lease.read()
        failure = texts.take_failure()
        if failure is not None:
            raise IndexFailed(failure)
        its = self._kept.get(there.number)
        if its is None:
            its = self._kept[there.number] = self._open(views, there, view)
        if its.index.change(_analyzers(there)):
            self._remake(its, view)
        if its.view is not view or texts.basis() is None:
            self._join(its, views, view)
        if its.remaking is not None and self._go_on(its, views, txn, there):
            return True
        return self._bring_up(its, texts, lease, there)

    def _open(self, views: Views, there: Opened, view: View) -> Kept:
        from treestore.search.fulltext.generations import NamespaceTexts
        from treestore.search.fulltext.index import Identity
        from treestore.search.fulltext.writers import Writers

        if self._writers is None:
            self._writers = Writers()
        identity = self._engine.identity
        whose = Identity(identity.database_uuid, identity.timeline, there.number)
        index = NamespaceTexts(self._views.texts_path / str(there.number), whose, self._writers)
        index.open(_analyzers(there))
        its = Kept(index, view)
        if index.making is not None:
            self._remake(its, view)
        self._join(its, views, view)
        return its

    def _join(self, its: Kept, views: Views, view: View) -> None:
        """Have the view's follower tell what is new, from this commit on."""
        its.view = view
        shown = its.index.serving.view
        assert shown is not None
        difference = views.begin_texts(view, shown)
        self.counters.rebuilds += len(difference.missing) > COMMIT_ROWS

    def _remake(self, its: Kept, view: View) -> None:
        """An index for other analyzers was begun: it gets all rows."""
        its.remaking = iter(view.live_rows().tolist())
        self.counters.rebuilds += 1

    def _go_on(self, its: Kept, views: Views, txn: Read, there: Opened) -> bool:
        """Add some rows to the index that is made; whether there are more."""
        making = its.index.making
        assert its.remaking is not None
        if making is None:
            its.remaking = None
            return False
        for done, row in enumerate(its.remaking, 1):
            found = its.view.newest.find(row)
            if found is not None:
                part, ordinal = found
                texts = _texts_of(txn, there, part.content.ids[ordinal], row)
                if texts is not None:
                    making.add(row, texts)
            if done % BREATH_ROWS == 0:
                self._stand_back()
            if done >= ROWS_AT_ONCE:
                return True
        its.remaking = None
        its.index.finish()
        self.counters.commits += 1
        # What came meanwhile is in both; what the new one lacks all the same is found by comparing.
        self._join(its, views, its.view)
        return False

    def _bring_up(self, its: Kept, texts: Texts, lease: Snapshot, there: Opened) -> bool:
        """Add what is new, remove what nobody sees any more, and commit, where it is time."""
        lsn = lease.state.position.lsn
        gone = texts.take_gone(self._oldest_lsn())
        if gone:
            its.index.remove(gone)
        # Others have the view follow further than the state that is read here.
        new = tuple(takewhile(lambda one: one.lsn <= lsn, texts.new()))
        self.counters.lag_rows = len(new)
        now = time.monotonic()
        if not new:
            its.lacking_since = None
            if gone:
                self._commit(its, texts, ())
            return False
        if its.lacking_since is None:
            its.lacking_since = now
        if len(new) < COMMIT_ROWS and now - its.lacking_since < COMMIT_S:
            return False
        settled, more = self._add_some(its.index, new, lease, there)
        its.lacking_since = None
        if settled or gone:
            self.counters.rows += len(settled)
            self._commit(its, texts, settled)
        return more

    def _add_some(
        self, index: NamespaceTexts, new: Sequence[NewText], lease: Snapshot, there: Opened
    ) -> tuple[list[NewText], bool]:
        """Add the first of the new rows; those that are dealt with, and whether there are more.

        A row that died before its texts were read stays new while a snapshot is open that may see
        it: searches look at it by itself.
        """
        txn = lease.read()
        seen = self._oldest_lsn() < lease.state.position.lsn
        settled: list[NewText] = []
        added = 0
        for done, one in enumerate(new, 1):
            texts: Any = one.texts
            if texts is None:
                texts = _texts_of(txn, there, one.packed_id, one.row)
            if texts is not None:
                index.add(one.row, texts)
                added += 1
            if texts is not None or not seen:
                settled.append(one)
            if added == ROWS_AT_ONCE:
                return settled, done < len(new)
            if done % BREATH_ROWS == 0:
                self._stand_back()
        return settled, False

    def _commit(self, its: Kept, texts: Texts, added: Sequence[NewText]) -> None:
        texts.show(its.index.commit(), added)
        self.counters.commits += 1

    def _oldest_lsn(self) -> int:
        states = [lease.state.position.lsn for lease in self._engine.snapshots()]
        return min([*states, self._engine.durable.position.lsn])

    def _start_over(self, views: Views, number: int) -> None:
        """The index failed: let go of it, and remove it; the next turn makes another one."""
        views.texts(number).end()
        its = self._kept.pop(number, None)
        if its is not None:
            its.index.delete()

    def _forget(self, views: Views, number: int) -> None:
        """The namespace is gone."""
        self._start_over(views, number)
        views.forget(number)

    def _close(self) -> None:
        for its in self._kept.values():
            its.index.close()
        self._kept.clear()


def _with_texts(lease: Snapshot, views: Views) -> list[tuple[Opened, View]]:
    """The namespaces that have full text and whose views are loaded."""
    from treestore.stores.namespaces import upkeep
    from treestore.stores.namespaces.live.view import text_names

    found: list[tuple[Opened, View]] = []
    for there in upkeep.kept(lease.read()):
        view = views.follower.view(there.number)
        if view is not None and text_names(there.schema):
            found.append((there, view))
    return found


def _analyzers(there: Opened) -> dict[str, FullTextSchema]:
    """How the texts of a namespace become words, by attribute."""
    attributes = there.schema.attributes.items()
    return {name: its.full_text for name, its in attributes if its.full_text is not None}


def _is_there(lease: Snapshot, number: int) -> bool:
    """Whether a namespace still is, its view loaded or not."""
    from treestore.stores.namespaces import upkeep

    return any(there.number == number for there in upkeep.kept(lease.read()))


def _texts_of(txn: Read, there: Opened, packed_id: bytes, row: int) -> dict[str, Any] | None:
    """The attributes of a row; None where the document has another one by now."""
    from treestore.stores.namespaces.layout import attributes_of, decode_attributes, row_of

    record = txn.get(there.space.documents + packed_id)
    if record is None or row_of(record) != row:
        return None
    return decode_attributes(attributes_of(record))
