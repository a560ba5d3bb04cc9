"""Queries of namespaces, as ``namespaces.query`` reads with them.

A query runs on a worker thread, on a pinned state; in a transaction on that of the transaction,
with its own writes, and what it looked at counts as read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from actors.embedded import pin
from treestore.engine.snapshot import LeasedRead, Snapshot
from treestore.errors import InvalidArgument, Unavailable
from treestore.model.namespaces import NamespaceHit
from treestore.stores.namespaces.catalog import require
from treestore.stores.namespaces.search import Asked, Request

if TYPE_CHECKING:
    from actors.database import Database
    from actors.overlay import Overlay


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
    lease = pin(database, snapshot, "namespaces.query")
    try:
        while True:
            lease.begin_read()
            try:
                work = partial(_search, database, lease, overlay, request, strong, raw)
                return await database.threads.run(work, limiter=database.read_limiter)
            except Unavailable as error:
                # For want of a full-text index, which is being made, or behind.
                keeper = database.text_keeper
                if not strong or keeper is None or not keeper.is_waited_for(error):
                    raise
                if not await keeper.turned(deadline):
                    raise
            finally:
                lease.end_read()
    finally:
        lease.close()


async def warm(database: Database, snapshot: Snapshot | None, name: str) -> bool:
    """Load a namespace's view; whether it was not there. See ``namespaces.warm``."""
    lease = pin(database, snapshot, "namespaces.warm")
    lease.begin_read()
    try:
        work = partial(_warm, database, lease, name)
        return await database.threads.run(work, limiter=database.read_limiter)
    finally:
        lease.end_read()
        lease.close()


def _warm(database: Database, lease: Snapshot, name: str) -> bool:
    """Load a view, on a thread."""
    txn = lease.read()
    there = require(txn, name)
    if database.namespace_views is None:
        return False
    from treestore.stores.namespaces.live.pieces import UseTree

    views = database.namespace_views.views()
    loaded = views.follower.view(there.number) is not None
    try:
        views.view(txn, lease.state.position, there, database.threads.check_cancelled)
    except UseTree:
        return False  # A file is damaged; the keeper sees to it.
    return not loaded


def _search(
    database: Database,
    lease: Snapshot,
    overlay: Overlay | None,
    request: Request,
    strong: bool,
    raw: bool,
) -> list[NamespaceHit]:
    """Search, on a thread."""
    check = database.threads.check_cancelled
    txn = lease.read(raw=raw) if overlay is None else overlay.read(raw=raw)
    assert isinstance(txn, LeasedRead)
    txn.between_slices = check
    if database.namespace_views is None:
        # Here, as it takes a moment to import what calculates.
        from treestore.stores.namespaces import exact

        return exact.search(txn, request)
    views = database.namespace_views.views()
    position = lease.state.position
    if overlay is None:
        return views.query(txn, request, position, strong=strong, pause=check)
    base = lease.read()
    base.between_slices = check
    asked = Asked.of(txn, request)
    overlay.note_namespace(asked)
    written = overlay.namespace_documents(asked.there.space.documents)
    return views.query(txn, request, position, base=base, written=written, pause=check)
