"""What operations that wait (``Awaited``) read with: a snapshot, or the newest state."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from actors import namespace_reader
from actors.embedded import SLICE_BUDGET, in_thread, pin, read_at_once
from treestore.engine.snapshot import Snapshot, State
from treestore.engine.transaction import OverBudget, ReadTransaction
from treestore.errors import InvalidArgument, Unavailable
from treestore.model.namespaces import NamespaceExplanation, NamespaceHit, Recall
from treestore.model.plans import Group
from treestore.model.search import Hit
from treestore.search.folder import IndexFailed
from treestore.stores.access import Read
from treestore.stores.documents.searching import (
    BRIEF_TOP_K_MAX,
    Basis,
    Request,
    TooLong,
    TooMuchChanged,
    policies_to_ask,
    search,
)
from treestore.stores.documents.text_index import View, day_of
from treestore.stores.documents.touched import Changes
from treestore.stores.namespaces.asking import RecallRequest
from treestore.stores.namespaces.search import Request as NamespaceRequest

if TYPE_CHECKING:
    from actors.database import Database
    from actors.indexer import Indexer
    from actors.overlay import Overlay

T = TypeVar("T")

WAIT_S = 120.0
"""A search waits at most this long for the index, and less where its caller's deadline is near."""

DEADLINE_SHARE = 0.9
"""Of the time that the caller has left: it is to hear why it did not work."""

CHANGES_MAX = 1000
"""Nodes that a search of the newest state looks at one by one, rather than wait for the index."""

BRIEF_CHANGES_MAX = 10
"""Likewise of a search on the event loop."""

SNAPSHOT_CHANGES_MAX = 20_000
"""Likewise of a snapshot that the index has left behind."""


class _Wait(Exception):
    """The index does not go as far as is needed."""


class Reader:
    """Bound to a snapshot, or (None) to the newest state of each moment."""

    def __init__(
        self,
        database: Database,
        snapshot: Snapshot | None,
        *,
        raw: bool,
        overlay: Overlay | None = None,
    ) -> None:
        """``overlay`` is of a transaction, whose snapshot is given; nothing else of it runs."""
        database.ensure_open()
        self._database = database
        self._snapshot = snapshot
        self._raw = raw
        self._overlay = overlay

    async def search_documents(self, request: Request, *, strong: bool) -> list[Hit]:
        """See ``documents.search``.

        Cancellation: waits for a search that is running on a thread, some milliseconds.
        """
        indexer = self._database.indexer
        if self._overlay is not None and not strong:
            raise InvalidArgument("In a transaction a search is strong.")
        if indexer is None:
            raise Unavailable("This store was opened without a search index.")
        found = self._at_once(indexer, request, strong=strong)
        if found is not None:
            await self._database.pace()
            return found
        lease = pin(self._database, self._snapshot, "documents.search")
        deadline = _deadline()
        waited = False
        try:
            while True:
                try:
                    attempt = partial(self._attempt, indexer, lease, request, strong, waited)
                    return await self._in_thread(lease, attempt)
                except _Wait:
                    lease = await self._wait(indexer, lease, deadline, waited=waited)
                    waited = True
        finally:
            lease.close()

    def _at_once(self, indexer: Indexer, request: Request, *, strong: bool) -> list[Hit] | None:
        """Most searches take less time than the way to a thread; None for one that does not.

        Like any query on the event loop it has a small budget of look-ups.
        """
        database = self._database
        state = database.engine.durable if self._snapshot is None else self._snapshot.state
        if indexer.history.lsn < state.position.lsn or request.top_k > BRIEF_TOP_K_MAX:
            return None
        overlay = self._overlay
        if overlay is not None:
            if not overlay.is_brief:
                return None
            txn = overlay.read_at_once(SLICE_BUDGET, raw=self._raw)
        else:
            txn = read_at_once(database, self._snapshot, raw=self._raw)
        try:
            most = BRIEF_CHANGES_MAX
            basis = self._basis(indexer, state, txn, strong=strong, changes_max=most, brief=True)
            return self._search(txn, request, basis)
        except (OverBudget, TooLong, TooMuchChanged, _Wait, IndexFailed):
            return None

    def _search(self, txn: ReadTransaction, request: Request, basis: Basis) -> list[Hit]:
        if self._overlay is not None:
            self._overlay.note(txn, request)
        return search(txn, request, basis)

    async def search_namespace(
        self, request: NamespaceRequest, *, strong: bool
    ) -> list[NamespaceHit]:
        """See ``namespaces.query``."""
        return await namespace_reader.search(
            self._database,
            self._snapshot,
            self._overlay,
            request,
            strong=strong,
            raw=self._raw,
            deadline=_deadline(),
        )

    async def warm_namespace(self, name: str) -> bool:
        """See ``namespaces.warm``."""
        return await namespace_reader.warm(self._database, self._snapshot, name)

    async def explain_namespace(self, request: NamespaceRequest) -> NamespaceExplanation:
        """See ``namespaces.explain``."""
        return await namespace_reader.explain(
            self._database, self._snapshot, self._overlay, request
        )

    async def count_namespace(self, name: str, filter: dict[str, Any] | None) -> int:
        """See ``namespaces.count``."""
        return await namespace_reader.count(
            self._database, self._snapshot, self._overlay, name, filter
        )

    async def aggregate_namespace(
        self,
        name: str,
        aggregates: dict[str, Any],
        *,
        by: str | list[str] | None,
        filter: dict[str, Any] | None,
    ) -> list[Group]:
        """See ``namespaces.aggregate``."""
        return await namespace_reader.aggregate(
            *(self._database, self._snapshot, self._overlay), name, aggregates, by, filter
        )

    async def measure_namespace(self, request: RecallRequest) -> Recall:
        """See ``namespaces.recall``."""
        return await namespace_reader.measure(
            self._database, self._snapshot, self._overlay, request
        )

    @contextmanager
    def pinned(self) -> Generator[PinnedReader]:
        """See `treestore.stores.queries.finding.RelatedReader`."""
        lease = pin(self._database, self._snapshot, "queries")
        try:
            yield PinnedReader(self._database, lease, raw=self._raw, overlay=self._overlay)
        finally:
            lease.close()

    async def _in_thread(self, lease: Snapshot, attempt: partial[list[Hit]]) -> list[Hit]:
        database = self._database
        with reading(lease):
            return await database.threads.run(attempt, limiter=database.read_limiter)

    async def _wait(
        self, indexer: Indexer, lease: Snapshot, deadline: float, *, waited: bool
    ) -> Snapshot:
        """Wait for the index; the lease to go on with.

        Of the newest state, the one that the index shows then: it is no older. However much is
        being written, nothing is to be looked at one by one then.
        """
        lsn = lease.state.position.lsn
        try:
            await indexer.wait(lsn, deadline)
            if self._snapshot is None:
                shown = indexer.shown
                if shown is not None and not shown.closed and shown.state.position.lsn >= lsn:
                    newer = self._database.engine.pin(shown.state, "documents.search")
                    lease.close()
                    return newer
                if not waited:
                    return lease
                lease.close()
                return self._database.engine.snapshot("documents.search")
            if waited:
                what = "snapshot was opened" if self._overlay is None else "transaction began"
                raise Unavailable(
                    f"More was changed since this {what} than a search can make up for, a search "
                    "in a newer one would do."
                )
            return lease
        finally:
            indexer.let_go()

    def _attempt(
        self, indexer: Indexer, lease: Snapshot, request: Request, strong: bool, waited: bool
    ) -> list[Hit]:
        """Search, on a thread."""
        overlay, raw = self._overlay, self._raw
        txn = lease.read(raw=raw) if overlay is None else overlay.read(raw=raw)
        most = CHANGES_MAX if self._snapshot is None or not waited else SNAPSHOT_CHANGES_MAX
        if strong:
            try:
                indexer.history.advance(lease.state.position)
            except Exception as error:
                # The log was trimmed, or cannot be read: the indexer meets the same.
                raise _Wait from error
        basis = self._basis(indexer, lease.state, txn, strong=strong, changes_max=most)
        try:
            return self._search(txn, request, basis)
        except TooMuchChanged:
            raise _Wait from None
        except IndexFailed as error:
            indexer.damaged(error)
            if strong:
                raise _Wait from None
            raise Unavailable(
                "The search index is damaged and will be rebuilt; try again later."
            ) from error

    def _basis(
        self,
        indexer: Indexer,
        state: State,
        txn: Read,
        *,
        strong: bool,
        changes_max: int,
        brief: bool = False,
    ) -> Basis:
        """The index, and what differs between it and the state that is read."""
        changes: Changes | None = None
        own = None if self._overlay is None else self._overlay.changes()

        def ask(view: View) -> frozenset[bytes]:
            nonlocal changes
            if strong:
                if view.lsn is None or view.day != day_of(txn):
                    raise _Wait
                changes = indexer.history.between(view.lsn, state.position.lsn)
                if changes is not None and own is not None:
                    changes.add(own)
                if changes is None or changes.everything:
                    raise _Wait
            return policies_to_ask(changes, view)

        view, marks = indexer.index.basis(ask)
        return Basis(view, indexer.index.schema, marks, changes, changes_max, brief)


class PinnedReader:
    """Reads and searches of one state, for operations that do several."""

    def __init__(
        self, database: Database, lease: Snapshot, *, raw: bool, overlay: Overlay | None
    ) -> None:
        self._database = database
        self._lease = lease
        self._raw = raw
        self._overlay = overlay

    async def read(self, function: Callable[[Read], T]) -> T:
        """What the function makes of the state: at once, or on a thread where that takes long."""
        database, overlay = self._database, self._overlay
        result: T
        if overlay is not None:
            try:
                return function(overlay.read_at_once(SLICE_BUDGET, raw=self._raw))
            except OverBudget:
                work = partial(function, overlay.read(raw=self._raw))
                with reading(self._lease):
                    result = await database.threads.run(work, limiter=database.read_limiter)
                return result
        try:
            return function(read_at_once(database, self._lease, raw=self._raw))
        except OverBudget:
            result = await in_thread(database, self._lease, function, raw=self._raw)
            return result

    async def search(self, request: Request) -> list[Hit]:
        """The best hits of the state."""
        reader = Reader(self._database, self._lease, raw=False, overlay=self._overlay)
        return await reader.search_documents(request, strong=True)


@contextmanager
def reading(lease: Snapshot) -> Generator[None]:
    """A read of the lease is in flight."""
    lease.begin_read()
    try:
        yield
    finally:
        lease.end_read()


def _deadline() -> float:
    now = trio.current_time()
    left = trio.current_effective_deadline() - now
    return now + min(WAIT_S, DEADLINE_SHARE * left)
