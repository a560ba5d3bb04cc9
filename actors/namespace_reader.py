"""Queries of namespaces, as ``namespaces.query`` reads with them.

A query runs on a worker thread, on a pinned state; in a transaction on that of the transaction,
with its own writes, and what it looked at counts as read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from actors.embedded import pin, read_at_once
from treestore.engine.log import LogPosition
from treestore.engine.snapshot import LeasedRead, Snapshot
from treestore.engine.transaction import OverBudget
from treestore.errors import InvalidArgument, Unavailable
from treestore.model.namespaces import NamespaceExplanation, NamespaceHit, Recall
from treestore.model.plans import Group
from treestore.stores.namespaces import reading
from treestore.stores.namespaces.asking import RecallRequest
from treestore.stores.namespaces.catalog import require
from treestore.stores.namespaces.search import Asked, Request

if TYPE_CHECKING:
    from actors.database import Database
    from actors.overlay import Overlay
    from treestore.stores.namespaces.live.views import Views

T = TypeVar("T")

BRIEF_WANTED_MAX: Final = 20
"""Hits that a query on the event loop may look for."""


async def search(
    database: Database,
    snapshot: Snapshot | None,
    overlay: Overlay | None,
    request: Request,
    *,
    strong: bool,
    raw: bool,
    deadline: float,
) -> list[NamespaceHit]:
    """The best hits; see `treestore.stores.namespaces.search.query`.

    Where words are asked for, and the full-text index is missing or far behind, it is waited for
    until ``deadline``.

    Cancellation: noticed within about a millisecond of the query's work.
    """
    if overlay is not None and not strong:
        raise InvalidArgument("In a transaction a query is strong.")

    def work(state: ReadState) -> list[NamespaceHit]:
        views = state.views
        if views is None:
            # Here, as it takes a moment to import what calculates.
            from treestore.stores.namespaces import exact

            return exact.search(state.txn, request)
        return views.query(state.txn, request, state.position, strong=strong, **state.own(request))

    found = None if overlay is not None else _at_once(database, snapshot, request, raw=raw)
    if found is not None:
        await database.pace()
        return found
    waits = deadline if strong else None
    return await _run(database, snapshot, overlay, work, raw=raw, deadline=waits)


def _at_once(
    database: Database, snapshot: Snapshot | None, request: Request, *, raw: bool
) -> list[NamespaceHit] | None:
    """Most queries for a few words take less time than the way to a thread; None for others."""
    views = database.namespace_views
    made = None if views is None else views.made
    if made is None or request.text is None or request.offset + request.top_k > BRIEF_WANTED_MAX:
        return None
    state = database.engine.durable if snapshot is None else snapshot.state
    try:
        txn = read_at_once(database, snapshot, raw=raw)
        return made.query_at_once(txn, request, state.position)
    except OverBudget:
        return None


async def explain(
    database: Database, snapshot: Snapshot | None, overlay: Overlay | None, request: Request
) -> NamespaceExplanation:
    """See `treestore.stores.namespaces.asking.explain`."""

    def work(state: ReadState) -> NamespaceExplanation:
        return state.require_views().explain(
            state.txn, request, state.position, **state.own(request)
        )

    return await _run(database, snapshot, overlay, work, raw=False)


async def count(
    database: Database,
    snapshot: Snapshot | None,
    overlay: Overlay | None,
    name: str,
    filter: dict[str, Any] | None,
) -> int:
    """See `treestore.stores.namespaces.asking.count`."""

    def work(state: ReadState) -> int:
        views = state.views
        if views is None or overlay is not None:
            return reading.count(state.txn, name, filter)
        return views.count(state.txn, name, filter, state.position, state.pause)

    return await _run(database, snapshot, overlay, work, raw=False)


async def aggregate(
    database: Database,
    snapshot: Snapshot | None,
    overlay: Overlay | None,
    name: str,
    aggregates: dict[str, Any],
    by: str | list[str] | None,
    filter: dict[str, Any] | None,
) -> list[Group]:
    """See `treestore.stores.namespaces.asking.aggregate`."""

    def work(state: ReadState) -> list[Group]:
        views = state.views
        if views is None or overlay is not None:
            return reading.aggregate(state.txn, name, aggregates, by=by, filter=filter)
        return views.aggregate(
            *(state.txn, name, aggregates),
            by=by,
            filter=filter,
            position=state.position,
            pause=state.pause,
        )

    return await _run(database, snapshot, overlay, work, raw=False)


async def measure(
    database: Database, snapshot: Snapshot | None, overlay: Overlay | None, request: RecallRequest
) -> Recall:
    """See `treestore.stores.namespaces.asking.recall`."""
    if overlay is not None:
        raise InvalidArgument("Recall is measured on a snapshot, not in a transaction.")
    random = database.engine.environment.random

    def work(state: ReadState) -> Recall:
        views = state.require_views()
        return views.measure(state.txn, request, state.position, random, state.pause)

    return await _run(database, snapshot, None, work, raw=False)


@attrs.frozen(eq=False)
class ReadState:
    """What a query reads with, on a thread.

    Attributes:
        txn: the state, with what the transaction that asks wrote.
        position: of the state.
        views: of the database; None where it has none.
        pause: raises where nobody waits any more.
    """

    txn: LeasedRead
    position: LogPosition
    views: Views | None
    pause: Callable[[], None]
    _base: LeasedRead
    _overlay: Overlay | None

    def require_views(self) -> Views:
        """The views.

        Raises:
            Unavailable: there are none.
        """
        if self.views is None:
            raise Unavailable("This store was opened without a search index.")
        return self.views

    def own(self, request: Request) -> dict[str, Any]:
        """What views are told of the transaction that asks; it has read the namespace then."""
        overlay = self._overlay
        if overlay is None:
            return {"pause": self.pause}
        asked = Asked.of(self.txn, request)
        overlay.note_namespace(asked)
        written = overlay.namespace_documents(asked.there.space.documents)
        return {"pause": self.pause, "base": self._base, "written": written}


async def warm(database: Database, snapshot: Snapshot | None, name: str) -> bool:
    """Load a namespace's view; whether it was not there. See ``namespaces.warm``."""

    def work(state: ReadState) -> bool:
        there = require(state.txn, name)
        return state.views is not None and state.views.warm(
            state.txn, state.position, there, state.pause
        )

    return await _run(database, snapshot, None, work, raw=False)


async def _run(
    database: Database,
    snapshot: Snapshot | None,
    overlay: Overlay | None,
    work: Callable[[ReadState], T],
    *,
    raw: bool,
    deadline: float | None = None,
) -> T:
    """What the work makes of a pinned state, on a thread.

    Where it fails for want of a full-text index, that is waited for until ``deadline``.
    """
    lease = pin(database, snapshot, "namespaces.query")
    check = database.threads.check_cancelled

    def run() -> T:
        base = lease.read(raw=raw)
        txn = base if overlay is None else overlay.read(raw=raw)
        assert isinstance(txn, LeasedRead)
        base.between_slices = txn.between_slices = check
        views = database.namespace_views
        made = None if views is None else views.views()
        return work(ReadState(txn, lease.state.position, made, check, base, overlay))

    try:
        while True:
            lease.begin_read()
            try:
                return await database.threads.run(run, limiter=database.read_limiter)
            except Unavailable as error:
                failure = error
            finally:
                lease.end_read()
            keeper = database.text_keeper
            if deadline is None or keeper is None or not keeper.is_waited_for(failure):
                raise failure
            if not await keeper.turned(deadline):
                raise failure
    finally:
        lease.close()
