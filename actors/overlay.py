"""What a search inside an interactive transaction goes by: its snapshot, with its own writes."""

from __future__ import annotations

from treestore.engine.optimistic import OptimisticTransaction
from treestore.engine.transaction import ReadTransaction
from treestore.stores.documents.searching import Request, read_by
from treestore.stores.documents.touched import Changes
from treestore.stores.keys import Keyspace
from treestore.stores.namespaces.search import Asked
from treestore.stores.namespaces.search import read_by as read_by_query

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
        self._namespace_mark = (0, 0)
        self._namespace_keys: set[bytes] = set()
        self._namespace_ranges = False

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

    def namespace_documents(self, prefix: bytes) -> list[bytes] | None:
        """The packed ids of a namespace's documents that the transaction stored or removed so far;
        None where nobody knows, as it removed whole ranges.

        Args:
            prefix: of the keys of the namespace's documents.
        """
        core = self._core
        core.merged()
        if self._namespace_mark != core.mark:
            for what, _ in core.notes_since(self._namespace_mark):
                if not isinstance(what, bytes):
                    self._namespace_ranges |= what[0][:1] == Keyspace.NAMESPACE_DOCUMENTS
                elif what.startswith(Keyspace.NAMESPACE_DOCUMENTS):
                    self._namespace_keys.add(what)
            self._namespace_mark = core.mark
        if self._namespace_ranges:
            return None
        size = len(prefix)
        return [key[size:] for key in self._namespace_keys if key.startswith(prefix)]

    def note_namespace(self, asked: Asked) -> None:
        """Note what a query of a namespace reads: everything that could change its answer."""
        for start, end in read_by_query(asked):
            self._core.reads.note_range(start, end)

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
