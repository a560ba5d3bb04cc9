"""Collections and their indexes, as every face of TreeStore returns them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import attrs

IndexState = Literal["building", "ready", "failed"]


@attrs.frozen(kw_only=True)
class CollectionIndex:
    """One secondary index.

    Attributes:
        name: unique in its collection.
        fields: the dotted paths that it is over.
        unique: whether no two documents may have equal values.
        sparse: whether documents without any of the fields are left out.
        multikey: whether some document has, or had, more than one entry.
        state: ``building`` (maintained, not yet used), ``ready``, or ``failed`` (``error`` says
            why; it is neither maintained nor used).
        error: why the build failed; None otherwise.
        conflict: whether it failed because two documents have equal values.
        documents_done: while it is building, how many documents the builder has looked at.
    """

    name: str
    fields: tuple[str, ...]
    unique: bool = False
    sparse: bool = False
    multikey: bool = False
    state: IndexState = "ready"
    error: str | None = None
    conflict: bool = False
    documents_done: int | None = None


@attrs.frozen(kw_only=True)
class Collection:
    """One collection.

    Attributes:
        name: unique.
        created_at: when it was created (UTC).
        indexes: in the order in which they were created.
    """

    name: str
    created_at: datetime
    indexes: tuple[CollectionIndex, ...] = ()


@attrs.frozen(kw_only=True)
class UpdateResult:
    """What an update of many documents did.

    Attributes:
        matched: documents that satisfied the filter.
        modified: of these, documents that are different now.
    """

    matched: int
    modified: int
