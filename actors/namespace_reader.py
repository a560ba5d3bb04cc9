"""Queries of namespaces, as ``namespaces.query`` reads with them.

A query runs on a worker thread, on a pinned state; in a transaction on that of the transaction,
with its own writes, and what it looked at counts as read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from actors.embedded import pin
from treestore.engine.snapshot import LeasedRead, Snapshot
from treestore.errors import InvalidArgument
from treestore.model.namespaces import NamespaceHit
from treestore.stores.namespaces.search import Request

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
) -> list[NamespaceHit]:
    """The best hits; see `treestore.stores.namespaces.search.query`.

    Cancellation: noticed within about a millisecond of the query's work.
    """
    from treestore.stores.namespaces import exact

    if overlay is not None and not strong:
        raise InvalidArgument("In a transaction a query is strong.")
    lease = pin(database, snapshot, "namespaces.query")
    lease.begin_read()
    try:
        txn = lease.read(raw=raw) if overlay is None else overlay.read(raw=raw)
        assert isinstance(txn, LeasedRead)
        txn.between_slices = database.threads.check_cancelled
        work = partial(exact.search, txn, request)
        return await database.threads.run(work, limiter=database.read_limiter)
    finally:
        lease.end_read()
        lease.close()
