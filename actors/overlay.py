"""What a search inside an interactive transaction goes by: its snapshot, with its own writes."""

from __future__ import annotations

from treestore.engine.optimistic import OptimisticTransaction
from treestore.engine.transaction import ReadTransaction
from treestore.stores.documents.searching import Request, read_by
from treestore.stores.documents.touched import Changes

UNSEEN_BYTES_AT_ONCE = 32 << 10
"""Of more that was written the names are collected on a thread."""


class Overlay:
    """One of a transaction, kept for its later searches: it collects the names of what was written.

    One call at a time, on any thread, while no other call of the transaction runs.
    """

    def __init__(self, core: OptimisticTransaction) -> None:
        self._core = core
        self._changes = Changes()
        self._mark = (0, 0)
        self._seen_bytes = 0

    @property
    def is_brief(self) -> bool:
        """Whether `changes` has little to do."""
        return self._core.size_bytes - self._seen_bytes <= UNSEEN_BYTES_AT_ONCE

    def changes(self) -> Changes:
        """The names of all that the transaction wrote so far."""
        core = self._core
        core.merged()  # What it wrote last has no notes before.
        if self._mark != core.mark:
            self._changes.note_all(core.notes_since(self._mark))
            self._mark, self._seen_bytes = core.mark, core.size_bytes
        return self._changes

    def read_at_once(self, budget: int, *, raw: bool) -> ReadTransaction:
        """A read for the event loop: what it reads of the snapshot is noted."""
        return self._core.query(budget, raw=raw)

    def read(self, *, raw: bool) -> ReadTransaction:
        """Likewise one that takes as long as it does, on any thread."""
        return self._core.long_query(raw=raw)

    def note(self, txn: ReadTransaction, request: Request) -> None:
        """Note what a search reads: everything that could change its answer.

        Raises:
            NotFound: there is no such policy.
        """
        for start, end in read_by(txn, request):
            self._core.reads.note_range(start, end)
