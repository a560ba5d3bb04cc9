"""What the users of one run have in common."""

from __future__ import annotations

import attrs
import trio

from treestore.errors import (
    AlreadyExists,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RateLimited,
    ResourceExhausted,
    SnapshotExpired,
    TransactionConflict,
    TreeStoreError,
    Unauthenticated,
    Unavailable,
)
from treestore.loadtest.accounts import Books
from treestore.loadtest.ledger import Ledger
from treestore.loadtest.plan import Plan
from treestore.loadtest.statistics import Statistics

NOTHING_CHANGED = (
    AlreadyExists,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RateLimited,
    ResourceExhausted,
    SnapshotExpired,
    TransactionConflict,
    Unauthenticated,
)
"""Errors of a write that say that it was not done."""


def nothing_changed(error: TreeStoreError) -> bool:
    """Whether a write that failed so is known not to have been applied."""
    if isinstance(error, Unavailable):
        return bool(error.details.get("not_begun"))
    return isinstance(error, NOTHING_CHANGED)


@attrs.frozen
class Names:
    """The collections of a run, which are nobody else's."""

    documents: str
    accounts: str
    postings: str

    @classmethod
    def of(cls, run: str) -> Names:
        """By the name of the run."""
        return cls(*(f"loadtest-{run}-{what}" for what in ("documents", "accounts", "postings")))

    @property
    def all(self) -> tuple[str, ...]:
        """Every one."""
        return self.documents, self.accounts, self.postings


@attrs.define
class World:
    """One run.

    Attributes:
        plan: what was asked for.
        names: of its collections.
        ledger: documents and what was found wrong.
        books: accounts, transfers and their postings.
        statistics: calls.
        end: set once the users shall stop.
    """

    plan: Plan
    names: Names
    ledger: Ledger
    books: Books
    statistics: Statistics
    end: trio.Event = attrs.Factory(trio.Event)
