"""All views of a store: loaded when they are first asked for, and the queries on them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

import attrs

from treestore.engine.log import LogPosition
from treestore.errors import CorruptionError, Unavailable
from treestore.model.namespaces import NamespaceExplanation, NamespaceHit, Recall
from treestore.model.plans import Group
from treestore.search.columns.blobs import ColumnsDamaged
from treestore.search.columns.grouping import ColumnGroups
from treestore.search.columns.sealed import AttributeLeftOut
from treestore.search.folder import IndexFailed
from treestore.search.fulltext.index import View as IndexView
from treestore.search.names import CHINESE
from treestore.search.together import Together, one_by_one
from treestore.search.vectors.segment_file import SegmentDamaged
from treestore.stores.access import Read
from treestore.stores.namespaces import reading
from treestore.stores.namespaces.asking import RecallRequest
from treestore.stores.namespaces.catalog import Opened, require
from treestore.stores.namespaces.live import from_tree
from treestore.stores.namespaces.live.changes import ReadLog
from treestore.stores.namespaces.live.explaining import explained, measured
from treestore.stores.namespaces.live.following import Follower
from treestore.stores.namespaces.live.loading import (
    DamagedSegment,
    OpenSegment,
    SegmentsDamaged,
    load,
)
from treestore.stores.namespaces.live.pieces import UseTree
from treestore.stores.namespaces.live.querying import (
    Execution,
    NoIndex,
    Own,
    TooLong,
    Trace,
    ViewWrong,
    no_index,
    own_of,
)
from treestore.stores.namespaces.live.texts import Difference, Texts
from treestore.stores.namespaces.live.view import View, ViewLost
from treestore.stores.namespaces.live.words import rows_of
from treestore.stores.namespaces.search import Asked, Request, make_request

Pause = Callable[[], None]

NOT_FROM_VIEW: Final = (UseTree, AttributeLeftOut, ViewWrong, SegmentDamaged, ColumnsDamaged)
"""The view cannot give the answer; the tree can."""


def _no_pause() -> None:
    pass


@attrs.define
class Counters:
    """What was done, for metrics.

    Attributes:
        queries: answered from views.
        queries_from_tree: answered by looking at every document, and
        reasons: why, the latest last; some.
        hits: queries that found the view loaded.
        loads: of views.
        evicted: views that were let go of, to keep the budget.
        lost: views that were given up.
        wrong: of these, those that contradicted the tree.
    """

    queries: int = 0
    queries_from_tree: int = 0
    hits: int = 0
    loads: int = 0
    evicted: int = 0
    lost: int = 0
    wrong: int = 0


class Views:
    """The views of one engine. Any thread may call it.

    Args:
        read: reads the log.
        open_segment: opens a segment's file.
        size_bytes_max: of the views that stay loaded, mapped files included; None: no limit.
        together: does parts of a query's work.
        damaged: told of segments without a good file.
        lost: told of views that were given up.
    """

    def __init__(
        self,
        read: ReadLog,
        open_segment: OpenSegment,
        *,
        size_bytes_max: int | None = None,
        together: Together = one_by_one,
        damaged: Callable[[int, list[DamagedSegment]], None] | None = None,
        lost: Callable[[View], None] | None = None,
    ) -> None:
        self._open_segment = open_segment
        self._size_bytes_max = size_bytes_max
        self._together = together
        self._damaged = damaged
        self._told_lost = lost
        self.follower = Follower(read, self._lost)
        self.counters = Counters()
        self._loading: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()
        self._shrinking = threading.Lock()
        self._unloadable: dict[int, int] = {}
        self._texts: dict[int, Texts] = {}
        self._uses = 0
        self._used: dict[int, int] = {}
        """When each namespace was asked for, or loaded, last: a count of both."""

    def _lost(self, view: View) -> None:
        self.counters.lost += 1
        if self._told_lost is not None:
            self._told_lost(view)

    # -- loading --------------------------------------------------------------------------------

    def view(
        self, txn: Read, position: LogPosition, there: Opened, pause: Pause = _no_pause
    ) -> View:
        """A namespace's view, which has followed to a state; loaded where it is not yet.

        Args:
            txn: the state, pinned: without own writes of a transaction.
            position: of the state.
            there: the namespace in the state.

        Raises:
            UseTree: there can be none at the moment.
        """
        found = self.follower.view(there.number)
        if found is None:
            found = self._load(txn, position, there, pause)
        try:
            self.follower.advance_one(found, position)
        except ViewLost as error:
            raise UseTree(f"the view was lost: {error}") from None
        return found

    def warm(self, txn: Read, position: LogPosition, there: Opened, pause: Pause) -> bool:
        """Load a namespace's view; whether that was to be done, and could be."""
        if self.follower.view(there.number) is not None:
            return False
        try:
            self.view(txn, position, there, pause)
        except UseTree:
            return False  # A file is damaged; the keeper sees to it.
        return True

    def _load(self, txn: Read, position: LogPosition, there: Opened, pause: Pause) -> View:
        number = there.number
        with self._lock:
            loading = self._loading.setdefault(number, threading.Lock())
        with loading:
            # Whoever waited finds what the other one loaded.
            found = self.follower.view(number)
            if found is not None:
                return found
            if self._unloadable.get(number, -1) >= position.lsn:
                raise UseTree("a segment's file is damaged")
            try:
                view = load(txn, position, there, self._open_segment, pause)
                self.follower.add(view)
                self._join_texts(view)
            except SegmentsDamaged as error:
                self._unloadable[number] = position.lsn
                if self._damaged is not None:
                    self._damaged(number, error.damaged)
                raise UseTree(f"{error}") from None
            except (CorruptionError, OSError, ViewLost) as error:
                raise UseTree(f"the view could not be loaded: {error}") from error
            self.counters.loads += 1
            self._unloadable.pop(number, None)
            self._use(number)
            self.shrink()
            return view

    # -- full text ------------------------------------------------------------------------------

    def texts(self, number: int) -> Texts:
        """What is known of a namespace's full-text index."""
        with self._lock:
            return self._texts.setdefault(number, Texts())

    def _join_texts(self, view: View) -> None:
        """A view that takes the place of another one goes on telling of rows; what came and went
        between the two is found by comparing."""
        texts = self.texts(view.number)
        with self.follower.halted():
            basis = texts.basis()
            if basis is not None:
                self._begin_texts(view, texts, basis.index)
            view.texts = texts

    def begin_texts(self, view: View, index: IndexView) -> Difference:
        """From now on a namespace's full text is kept up, from a commit of whatever state.

        Returns:
            What the index's owner has to add and to remove. Later it asks `Texts.new` and
            `Texts.take_gone`.
        """
        texts = self.texts(view.number)
        with self.follower.halted():
            return self._begin_texts(view, texts, index)

    def _begin_texts(self, view: View, texts: Texts, index: IndexView) -> Difference:
        difference = texts.begin(
            index, view.live_rows(), rows_of(index), view.position.lsn, view.id_of
        )
        view.texts = texts
        return difference

    def forget(self, number: int) -> None:
        """Let go of a namespace's view."""
        self.follower.forget(number)
        with self._lock:
            self._loading.pop(number, None)
            self._unloadable.pop(number, None)
            self._texts.pop(number, None)
            self._used.pop(number, None)

    def shrink(self) -> int:
        """Let go of views, those first that were asked for longest ago, until the others keep the
        budget; the last one stays. Returns how many went.

        Loading does so by itself; views grow as well. What is known of their full text stays: a
        view that is loaded again joins it.
        """
        if self._size_bytes_max is None:
            return 0
        # Not `_lock`, which the event loop may wait for: the follower may be busy for a while.
        with self._shrinking:
            sizes = {view.number: view.size_bytes() for view in self.follower.views()}
            total, gone = sum(sizes.values()), 0
            for number in sorted(sizes, key=lambda number: self._used.get(number, 0))[:-1]:
                if total <= self._size_bytes_max:
                    break
                total -= sizes[number]
                self.follower.forget(number)
                gone += 1
            self.counters.evicted += gone
            return gone

    def forget_incomplete(self) -> None:
        """Let go of views that lack a segment, which was made while they were loaded: they answer
        right, but compare its rows one by one for as long as they stay."""
        with self.follower.halted():
            for view in self.follower.views():
                if view.missing():
                    self.follower.forget(view.number)

    # -- queries --------------------------------------------------------------------------------

    def query(
        self,
        txn: Read,
        request: Request,
        position: LogPosition,
        *,
        strong: bool = True,
        base: Read | None = None,
        written: Iterable[bytes] | None = (),
        pause: Pause = _no_pause,
    ) -> list[NamespaceHit]:
        """The best hits of a state; from the view, or where there is none, from the tree.

        Args:
            txn: what is read: the state, with what a transaction wrote itself.
            position: of the state.
            strong: whether everything that the state holds is to be found; otherwise the view is
                not brought up to it, and what it finds is as the state has it.
            base: the state alone; None: it is ``txn``.
            written: packed ids of documents of this namespace that the transaction wrote; None:
                nobody knows which.
            pause: called between steps; what it raises ends the query.

        Raises:
            NotFound, InvalidArgument: see `treestore.stores.namespaces.search.query`.
        """
        asked = Asked.of(txn, request)
        try:
            if not strong:
                hits = self._eventual(txn, asked, position, pause)
                if hits is not None:
                    return hits
            return self.run(txn, asked, position, base=base, written=written, pause=pause).hits()
        except NOT_FROM_VIEW as error:
            if not isinstance(error, UseTree | AttributeLeftOut):
                self._wrong(asked.there.number, error)
            self.counters.queries_from_tree += 1
            return self._from_tree(txn, request, asked.there.number)

    def _from_tree(self, txn: Read, request: Request, number: int) -> list[NamespaceHit]:
        texts = self.texts(number)
        basis = texts.basis()
        if basis is None:
            return from_tree.search(txn, request, None)
        try:
            return from_tree.search(txn, request, basis.index)
        except IndexFailed as error:
            raise no_index(texts, basis, error) from error

    def query_at_once(
        self, txn: Read, request: Request, position: LogPosition
    ) -> list[NamespaceHit] | None:
        """The best hits of a query for words that takes less time than the way to a thread; None
        for any other.

        Waits for nothing: not for a view to be loaded, nor for it to follow. The parameters are
        those of `query`.

        Raises:
            NotFound, InvalidArgument: see `treestore.stores.namespaces.search.query`.
        """
        if request.text is None or request.vector is not None or request.filter:
            return None
        asked = Asked.of(txn, request)
        number, attributes = asked.there.number, asked.there.schema.attributes
        view = self.follower.view(number)
        if view is None or view.position.lsn < position.lsn:
            return None
        texts = (its.full_text for its in attributes.values())
        if any(its is not None and its.language == CHINESE for its in texts):
            return None  # Whose dictionary is loaded when it is first needed: that takes a second.
        try:
            hits = Execution(txn, asked, view, position.lsn, brief=True).hits()
        except (TooLong, NoIndex, *NOT_FROM_VIEW):
            return None  # `query` knows what to do.
        self._count(number)
        self.counters.hits += 1
        return hits

    def _count(self, number: int) -> None:
        self.counters.queries += 1
        self._use(number)

    def _use(self, number: int) -> None:
        self._uses += 1
        self._used[number] = self._uses

    def _eventual(
        self, txn: Read, asked: Asked, position: LogPosition, pause: Pause
    ) -> list[NamespaceHit] | None:
        """The hits of the view as it is; None where that does not do."""
        view = self.follower.view(asked.there.number)
        if view is None or view.position.lsn >= position.lsn:
            return None
        self.counters.queries += 1
        lsn = view.position.lsn
        run = Execution(txn, asked, view, lsn, together=self._together, pause=pause)
        return run.hits_that_stay()

    def run(
        self,
        txn: Read,
        asked: Asked,
        position: LogPosition,
        *,
        base: Read | None = None,
        written: Iterable[bytes] | None = (),
        trace: Trace | None = None,
        pause: Pause = _no_pause,
    ) -> Execution:
        """A query on the view, ready to run.

        Raises:
            UseTree: the view cannot answer it.
        """
        before, there = (txn, asked.there) if base is None else (base, None)
        own: Own | None = None
        if there is None:
            try:
                there = require(before, asked.request.name)
            except Exception as error:
                raise UseTree("the transaction made the namespace itself") from error
            if there.number != asked.there.number or there.schema != asked.there.schema:
                raise UseTree("the transaction changed the namespace itself")
            if written is None:
                raise UseTree("nobody knows what the transaction wrote")
            own = own_of(before, asked, written)
        self.counters.hits += self.follower.view(there.number) is not None
        view = self.view(before, position, there, pause)
        self._count(there.number)
        return Execution(
            *(txn, asked, view, position.lsn),
            own=own,
            trace=trace,
            together=self._together,
            pause=pause,
        )

    def explain(
        self,
        txn: Read,
        request: Request,
        position: LogPosition,
        *,
        base: Read | None = None,
        written: Iterable[bytes] | None = (),
        pause: Pause = _no_pause,
    ) -> NamespaceExplanation:
        """How a query is answered; the parameters are those of `query`."""
        asked = Asked.of(txn, request)
        trace = Trace()
        began = time.perf_counter()
        try:
            execution = self.run(
                *(txn, asked, position), base=base, written=written, trace=trace, pause=pause
            )
            took_ms = (time.perf_counter() - began) * 1000
            return explained(execution, trace, asked, took_ms)
        except (UseTree, AttributeLeftOut) as error:
            began = time.perf_counter()
            hits = self._from_tree(txn, request, asked.there.number)
            took_ms = (time.perf_counter() - began) * 1000
            return NamespaceExplanation(
                plan=f"Every document is looked at, since {error}.",
                source="tree",
                hits=len(hits),
                times={"search": took_ms},
            )

    def count(
        self,
        txn: Read,
        name: str,
        filter: dict[str, Any] | None,
        position: LogPosition,
        pause: Pause = _no_pause,
    ) -> int:
        """How many documents satisfy a filter. See `treestore.stores.namespaces.reading.count`."""
        try:
            asked = Asked.of(txn, make_request(name, filter=filter))
            if not asked.filter.everything:
                return sum(one.count for one in self.run(txn, asked, position, pause=pause).pieces)
        except UseTree:
            self.counters.queries_from_tree += 1
        return reading.count(txn, name, filter)

    def aggregate(
        self,
        txn: Read,
        name: str,
        aggregates: dict[str, Any],
        *,
        by: str | list[str] | None,
        filter: dict[str, Any] | None,
        position: LogPosition,
        pause: Pause = _no_pause,
    ) -> list[Group]:
        """Groups of documents. See `treestore.stores.namespaces.reading.aggregate`."""
        try:
            asked = Asked.of(txn, make_request(name, filter=filter))
            groups = ColumnGroups(reading.grouping_of(asked.there, aggregates, by))
            for one in self.run(txn, asked, position, pause=pause).pieces:
                pause()
                groups.add_rows(one.content.columns, one.flags())
            return groups.results()
        except (UseTree, AttributeLeftOut):
            self.counters.queries_from_tree += 1
        return reading.aggregate(txn, name, aggregates, by=by, filter=filter)

    def measure(
        self,
        txn: Read,
        given: RecallRequest,
        position: LogPosition,
        random: Random,
        pause: Pause = _no_pause,
    ) -> Recall:
        """How well approximate searches find.

        Raises:
            Unavailable: there is no view at the moment.
        """

        def execute(asked: Asked) -> Execution:
            pause()
            try:
                return self.run(txn, asked, position, pause=pause)
            except UseTree as error:
                raise Unavailable(f"There is no index to be measured: {error}.") from error

        return measured(txn, Asked.of(txn, given.request), given, random, execute)

    def _wrong(self, number: int, error: Exception) -> None:
        view = self.follower.view(number)
        if view is not None:
            self.counters.wrong += 1
            self.follower.lose(view, f"{error}")
