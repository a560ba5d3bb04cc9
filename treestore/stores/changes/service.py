"""``db.watch``: the feed of changes."""

from __future__ import annotations

from typing import Protocol

from treestore.model.changes import Change
from treestore.stores.changes.services import Selection
from treestore.stores.operation import A, Feed, FeedSource, M, Service


class Watched(Protocol):
    """What has changes to watch: the running database."""

    def begin_feed(self, from_lsn: int | str | None, selection: Selection) -> FeedSource[Change]:
        """See `treestore.stores.changes.reader.begin`."""
        ...


def watch(
    database: Watched,
    from_lsn: int | str | None = None,
    *,
    service: str | None = None,
    policy_id: str | None = None,
    collection: str | None = None,
    prefix: bytes | None = None,
    values: bool = False,
) -> FeedSource[Change]:
    """What is committed, as it is committed, in that order: each change once, none left out.

    Only what is durable is shown, and what is shown can be read. All changes of a transaction
    come one after the other and share its ``lsn``; the last of them has ``last`` set. The feed
    does not end; it waits for the next change. Whoever takes them slowly holds nothing up, and
    loses nothing as long as the log has not been given up beyond the feed. A client resumes by
    itself after a lost connection.

    Args:
        from_lsn: begin behind this: the ``position`` of a change, a feed or a snapshot; or an LSN
            (the changes of transactions with a higher one, of this same history). ``0`` is the
            beginning, as long as the log has it. None: what is committed from now on; with a
            client, from when the feed is entered (``async with``) or first asked for an item.
        service: only changes of this service: ``"kv"``, ``"documents"``, ….
        policy_id: only changes of documents and versions of this policy.
        collection: only changes of this collection or namespace.
        prefix: only keys of ``kv`` that begin with it.
        values: whether changes of ``kv`` carry the new value.

    Raises:
        FeedExpired: the log no longer has what lies behind that position, or the position is of
            another database or from before a restore. Read anew from a snapshot, then watch from
            the snapshot's ``position``.
        InvalidArgument: no service has such changes; ``from_lsn`` lies in the future.
        Unavailable: the store is closed, or a client found no server for as long as its timeout;
            the feed may then be asked again, and goes on where it was.
    """
    selection = Selection(
        service=service, policy_id=policy_id, collection=collection, prefix=prefix, values=values
    )
    return database.begin_feed(from_lsn, selection)


class Watching(Service[M, A]):
    """What a database itself can do, beside its services."""

    service_name = "db"

    watch = Feed(watch)
