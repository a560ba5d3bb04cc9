"""What of a namespace's rows the full-text index knows, and what it has still to learn.

The index is kept up by its owner, some moments behind. `Texts` says which rows it does not have
yet, which searches look at one by one, and which it may forget. It outlives views: the follower
tells the one that is current.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs
import numpy as np

from treestore.search.fulltext.fields import TextFields
from treestore.search.fulltext.index import View as IndexView
from treestore.search.matching import Row
from treestore.stores.namespaces.live.arrays import Rows

KEPT_MAX: Final = 20_000
"""Rows whose texts are kept in memory until the index has them. With more, they are read from the
tree."""


@attrs.define(eq=False)
class NewText:
    """A row that the index does not have.

    Attributes:
        lsn: that brought it.
        row, packed_id: of the document.
        texts: its attributes that have full text; None: they are in the tree.
    """

    lsn: int
    row: int
    packed_id: bytes
    texts: Mapping[str, Any] | None = None
    _cut: tuple[TextFields, Row] | None = None

    def cut(self, fields: TextFields, read: Callable[[bytes], Mapping[str, Any]]) -> Row:
        """As words. Cut once for the same analyzers.

        Args:
            read: gives the attributes of a document, by its packed id.
        """
        known = self._cut
        if known is None or known[0] is not fields:
            texts = read(self.packed_id) if self.texts is None else self.texts
            self._cut = known = (fields, fields.cut(texts))
        return known[1]


@attrs.frozen(eq=False)
class Basis:
    """What a search goes by.

    Attributes:
        index: a commit of the index.
        new: rows that are not in it, as far as the view has followed; in the order of their LSNs.
        from_lsn: of earlier states, rows may be missing in both: those that had died by then.
    """

    index: IndexView
    new: tuple[NewText, ...]
    from_lsn: int = 0


@attrs.frozen(eq=False)
class Difference:
    """What there is to do until an index is right.

    Attributes:
        missing: rows to be added.
        surplus: rows to be removed, once nobody reads an earlier state.
    """

    missing: tuple[NewText, ...]
    surplus: Rows


class Texts:
    """Of one namespace: told of rows by the follower, of commits by the index's owner."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._index: IndexView | None = None
        self._new: deque[NewText] = deque()
        self._gone: deque[tuple[int, int]] = deque()
        self._followed = False
        self._from_lsn = 0
        self._failure: str | None = None
        self._highest = -1
        """Of the rows that were ever told."""
        self._again: set[int] = set()
        """New rows whose numbers may have been another row's (see `..events`): nothing is added for
        them before what the index has of that one is gone."""

    # -- the follower's -------------------------------------------------------------------------

    @property
    def followed(self) -> bool:
        """Whether what comes and goes is to be told."""
        return self._followed

    def born(self, rows: Iterable[tuple[int, bytes, Mapping[str, Any]]], lsn: int) -> None:
        """Rows came: number, packed id, texts."""
        with self._lock:
            keep = len(self._new) < KEPT_MAX
            highest = self._highest
            for row, packed_id, texts in rows:
                self._new.append(NewText(lsn, row, packed_id, texts if keep else None))
                if row <= highest:
                    self._again.add(row)
                self._highest = max(self._highest, row)

    def died(self, row: int, lsn: int) -> None:
        """A row went."""
        with self._lock:
            self._gone.append((lsn, row))

    # -- the index's owner's --------------------------------------------------------------------

    def begin(
        self,
        index: IndexView,
        live: Rows,
        indexed: Rows,
        lsn: int,
        id_of: Callable[[int], bytes],
    ) -> Difference:
        """Searches go by this index from now on; what comes and goes is noted for it.

        To be called while nothing is followed (`Follower.halted`).

        Args:
            index: a commit of the index.
            live: the rows that live, ascending.
            indexed: rows that the index has, ascending.
            lsn: up to which was followed.
            id_of: gives the packed id of a row that lives.
        """
        missing = np.setdiff1d(live, indexed, assume_unique=True)
        surplus = np.setdiff1d(indexed, live, assume_unique=True)
        with self._lock:
            self._followed = True
            self._index = index
            self._from_lsn = lsn
            self._new = deque(NewText(lsn, row, id_of(row)) for row in missing.tolist())
            self._gone = deque((lsn, row) for row in surplus.tolist())
            self._again.clear()
            self._highest = max([self._highest, *live[-1:].tolist(), *indexed[-1:].tolist()])
            return Difference(tuple(self._new), surplus)

    def show(self, index: IndexView, added: Iterable[NewText] = ()) -> None:
        """A commit that has these rows, too."""
        rows = {one.row for one in added}
        with self._lock:
            if not self._followed:
                return  # It was found damaged meanwhile, and nobody tells what is new any more.
            self._index = index
            # By number: a view may have been loaded meanwhile, which began anew.
            while self._new and self._new[0].row in rows:
                self._new.popleft()
            if any(one.row in rows for one in self._new):
                self._new = deque(one for one in self._new if one.row not in rows)

    def end(self) -> None:
        """There is no index any more: it is damaged, or its owner stops."""
        with self._lock:
            self._followed = False
            self._index = None
            self._new.clear()
            self._gone.clear()

    def fail(self, index: IndexView, why: str) -> None:
        """A search found this index damaged: nobody is to search it any more, and its owner is to
        make another one."""
        with self._lock:
            if self._index is not index:
                return  # There is a later one by now.
            self._failure = why
        self.end()

    def take_failure(self) -> str | None:
        """Why the index is to be made anew; told once."""
        with self._lock:
            why, self._failure = self._failure, None
            return why

    def new(self) -> tuple[NewText, ...]:
        """Rows to be added to the index, once those of `take_gone` were removed from it."""
        with self._lock:
            if not self._again:
                return tuple(self._new)
            return tuple(one for one in self._new if one.row not in self._again)

    def take_gone(self, before_lsn: int) -> list[int]:
        """Rows that nobody sees who reads at ``before_lsn`` or later; each is told once, and is not
        to be added any more."""
        gone: dict[int, int] = {}
        with self._lock:
            while self._gone and self._gone[0][0] <= before_lsn:
                lsn, row = self._gone.popleft()
                gone[row] = lsn
            self._new = _without(self._new, gone)
            if self._again:
                gone |= self._take_again()
        return list(gone)

    def _take_again(self) -> dict[int, int]:
        """Rows whose numbers new ones have: they go, though a snapshot may still see them, as
        nothing finds them by their numbers any more."""
        born = {one.row: one.lsn for one in self._new if one.row in self._again}
        self._again.clear()
        gone = {row: lsn for lsn, row in self._gone if lsn < born.get(row, -1)}
        self._gone = deque((lsn, row) for lsn, row in self._gone if lsn >= born.get(row, -1))
        return gone

    # -- searches' ------------------------------------------------------------------------------

    def basis(self) -> Basis | None:
        """What there is now; None: there is no index yet."""
        with self._lock:
            return self._basis()

    def basis_at_once(self) -> Basis | None:
        """Like `basis`, but None also where another thread is at it."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._basis()
        finally:
            self._lock.release()

    def _basis(self) -> Basis | None:
        if self._index is None:
            return None
        return Basis(self._index, tuple(self._new), self._from_lsn)

    def __len__(self) -> int:
        """Rows that the index does not have."""
        return len(self._new)


def _without(new: deque[NewText], gone: Mapping[int, int]) -> deque[NewText]:
    """New rows but for those that are gone: rows, and when they died."""
    if not any(one.row in gone for one in new):
        return new
    return deque(one for one in new if one.lsn > gone.get(one.row, -1))
