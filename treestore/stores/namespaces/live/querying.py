"""The executor: answers queries from a view, as the reference (`exact.py`) would from the tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial

import attrs
import numpy as np

from treestore.errors import Unavailable
from treestore.model.namespaces import NamespaceHit
from treestore.search.folder import IndexFailed
from treestore.search.together import Together, one_by_one
from treestore.stores.access import Read
from treestore.stores.namespaces import exact
from treestore.stores.namespaces.answer import answer
from treestore.stores.namespaces.layout import row_of, unpacked_id
from treestore.stores.namespaces.live import hybrid, legs
from treestore.stores.namespaces.live.layouts import Layout
from treestore.stores.namespaces.live.legs import Found, VectorReport
from treestore.stores.namespaces.live.pieces import (
    Hidden,
    Piece,
    StateTooOld,
    UseTree,
    hidden_rows,
    only,
    pieces,
)
from treestore.stores.namespaces.live.texts import Basis, Texts
from treestore.stores.namespaces.live.view import View
from treestore.stores.namespaces.live.words import (
    Words,
    WordsReport,
    cut_records,
    unindexed_in,
)
from treestore.stores.namespaces.scanning import attributes_decoder
from treestore.stores.namespaces.search import Asked

OWN_MAX = 2000
"""Documents that a transaction wrote; with more, its queries look at all documents."""


SURE_PER_HIT = 2
"""Of words and a vector together, so many of the nearest are found surely for each hit; the deeper
ones, which only count where the words name them too, as they come. Measured with ten hits of depth
100 on overlapping clusters: 98.1 % of the hits of exact legs with 1, 98.9 % with 2, 99.7 % with 5,
which takes half as long again."""


BRIEF_ROWS_MAX = 300_000
"""Rows of a view, for a query that is answered at once: after a deletion all are looked at for
which ones are visible."""

BRIEF_NEW_MAX = 20
"""Likewise, rows that the full-text index does not have; each takes some dozen microseconds."""


class TooLong(Exception):
    """The query is none that is answered at once. Never leaves the package."""


class NoIndex(Unavailable):
    """There is no full-text index at the moment."""


def no_index(texts: Texts | None, basis: Basis, error: IndexFailed) -> NoIndex:
    """What to raise where a search failed: its index is made anew."""
    if texts is not None:
        texts.fail(basis.index, str(error))
    return NoIndex("The full-text index of this namespace is damaged, and made anew; try later.")


class ViewWrong(Exception):
    """A hit is not what the tree says: the view is to be loaded again."""


@attrs.frozen(eq=False)
class Own:
    """What the transaction that asks wrote itself.

    Attributes:
        ids: packed, of documents that it stored or removed.
        rows: that these documents had in the state that it began on.
    """

    ids: frozenset[bytes]
    rows: tuple[int, ...]


def own_of(base: Read, asked: Asked, ids: Iterable[bytes]) -> Own:
    """What documents a transaction changed, of one namespace.

    Args:
        base: the state that it began on.
        ids: packed, of documents that it stored or removed.

    Raises:
        UseTree: they are too many.
    """
    written = frozenset(ids)
    if len(written) > OWN_MAX:
        raise UseTree("the transaction wrote much itself")
    prefix = asked.there.space.documents
    records = [base.get(prefix + packed) for packed in written]
    return Own(written, tuple(row_of(record) for record in records if record is not None))


@attrs.define(eq=False)
class Trace:
    """What a query did, for `explain`: see `treestore.model.namespaces.NamespaceExplanation`."""

    vector: VectorReport = attrs.field(factory=VectorReport)
    words: WordsReport = attrs.field(factory=WordsReport)


class Execution:
    """One query on one view.

    Args:
        txn: the state that is read, with what the transaction that asks wrote.
        asked: the query.
        view: which has followed to the state.
        lsn: of the state (where a transaction asks: of the one that it began on).
        own: what the transaction wrote.
        brief: whether others wait meanwhile: raise `TooLong` rather than work for long.
        together: does parts of the work, perhaps on other threads.
        pause: called between steps; what it raises ends the query.
    """

    def __init__(
        self,
        txn: Read,
        asked: Asked,
        view: View,
        lsn: int,
        *,
        own: Own | None = None,
        trace: Trace | None = None,
        brief: bool = False,
        together: Together = one_by_one,
        pause: Callable[[], None] | None = None,
    ) -> None:
        layout = view.at(lsn)
        if layout is None:
            raise StateTooOld
        self._txn = txn
        self._asked = asked
        self._view = view
        self._lsn = lsn
        self._layout: Layout = layout
        self._own = own if own is not None and own.ids else None
        self._trace = trace
        self._brief = brief
        self._together = together
        self._pause = pause
        if brief and sum(len(part.content) for part in layout.parts) > BRIEF_ROWS_MAX:
            raise TooLong

    def hits(self) -> list[NamespaceHit]:
        """The answer.

        Raises:
            UseTree: the view cannot give it.
            ViewWrong: it contradicts the tree.
        """
        found = self.found()
        rows = {one.ranked.packed_id: one.row for one in found}
        return answer(
            *(self._txn, self._asked, [one.ranked for one in found]),
            record=lambda packed: self._checked_record(packed, rows[packed]),
        )

    def hits_that_stay(self) -> list[NamespaceHit] | None:
        """The answer as far as the state that is read, a newer one than the view's, still has the
        same rows; None where so many are gone that it is too short."""
        found = self.found()
        records = {
            one.ranked.packed_id: self._record(one.ranked.packed_id, one.row) for one in found
        }
        kept = [one.ranked for one in found if records[one.ranked.packed_id] is not None]
        if len(kept) < len(found) and len(kept) < self._asked.wanted:
            return None
        return answer(self._txn, self._asked, kept, record=records.__getitem__)

    def found(self) -> list[Found]:
        """The best ones behind `Asked.after`, as many as are wanted, in order."""
        asked = self._asked
        if asked.request.text is None:
            if asked.vector is None:
                return self._in_order()
            return self._nearest(asked.wanted, asked.after)
        texts = self._view.texts
        basis = self._basis(texts)
        try:
            words = self._words(basis)
            if asked.vector is None:
                return self._fitting(words, asked.wanted, asked.after)
            found = hybrid.fused(asked, partial(self._both, words))
        except IndexFailed as error:
            raise no_index(texts, basis, error) from error
        return hybrid.with_distances(asked, found, self._distances_of)

    def estimate(self) -> int:
        """About how many visible rows satisfy the filter, without looking."""
        expression = self._asked.filter.expression
        total = 0.0
        for part in self._layout.parts:
            visible = part.visible(self._lsn)
            rows = len(visible.content)
            if rows and not self._asked.filter.everything:
                share = visible.content.columns.estimate(expression).rows / rows
                total += share * visible.count
            else:
                total += visible.count
        return round(total)

    @property
    def visible(self) -> int:
        """Rows of the view that are there in the state."""
        return sum(part.visible(self._lsn).count for part in self._layout.parts)

    # -- the legs -------------------------------------------------------------------------------

    def _in_order(self) -> list[Found]:
        asked = self._asked
        found = legs.in_order(self.pieces, asked, asked.wanted)
        own = [
            Found(ranked=one, row=None) for one in exact.ordered(asked, self._own_records.items())
        ]
        return _merged(found, own, asked.wanted)

    def _nearest(self, wanted: int, after: bytes, sure: int | None = None) -> list[Found]:
        asked = self._asked
        found = self._nearest_in_view(self.pieces, wanted, after, sure, pause=self._pause)
        rows = {row_of(record): packed for packed, record in self._own_records.items()}
        if not rows:
            return found
        near = exact.nearest(self._txn, asked, rows, wanted, after=after)
        return _merged(found, [Found(ranked=one, row=None) for one in near], wanted)

    def _nearest_in_view(
        self,
        pieces: Sequence[Piece],
        wanted: int,
        after: bytes = b"",
        sure: int | None = None,
        pause: Callable[[], None] | None = None,
    ) -> list[Found]:
        """On any thread, if it does not pause."""
        trace = self._trace
        return legs.nearest(
            *(pieces, self._asked, wanted),
            after=after,
            sure=sure,
            exact=self._asked.request.exact,
            report=None if trace is None else trace.vector,
            together=self._together,
            pause=pause,
        )

    def _both(self, words: Words, depth: int) -> tuple[list[Found], list[Found]]:
        """The best rows of each leg."""
        sure = SURE_PER_HIT * self._asked.wanted
        if self._own is not None:  # The legs read what the transaction wrote: not side by side.
            return self._nearest(depth, b"", sure=sure), self._fitting(words, depth, b"")
        pieces = self.pieces
        found = self._together(
            [
                lambda: self._nearest_in_view(pieces, depth, sure=sure),
                lambda: words.among(pieces, {}, depth),
            ],
            self._pause,
        )
        return found[0], found[1]

    def _distances_of(self, some: Sequence[Found]) -> dict[bytes, float | None]:
        rows = np.array([one.row for one in some if one.row is not None], np.int64)
        near = legs.nearest(only(self.pieces, rows), self._asked, max(1, len(rows)), exact=True)
        found = {one.ranked.packed_id: one.ranked.distance for one in near}
        own = [one for one in some if one.row is None]
        if own:
            found |= hybrid.distances_in_tree(self._txn, self._asked, own)
        return found

    def _basis(self, texts: Texts | None) -> Basis:
        basis: Basis | None = None
        if texts is not None:
            basis = texts.basis_at_once() if self._brief else texts.basis()
        if self._brief and (basis is None or len(basis.new) > BRIEF_NEW_MAX):
            raise TooLong
        if basis is None:
            raise NoIndex("The full-text index of this namespace is being built; try again later.")
        if self._lsn < basis.from_lsn:
            raise UseTree("the full-text index knows of later states only")
        return basis

    def _words(self, basis: Basis) -> Words:
        cut, ids = unindexed_in(self.pieces, basis, self._lsn, self._txn, self._asked)
        if self._own_records:
            cut |= cut_records(basis.index, self._own_records)
            ids |= {row_of(record): packed for packed, record in self._own_records.items()}
        report = None if self._trace is None else self._trace.words
        words = Words(basis.index, self._asked, cut, ids, report)
        if self._brief and not words.is_brief:
            raise TooLong
        return words

    def _fitting(self, words: Words, wanted: int, after: bytes) -> list[Found]:
        own = {row_of(record): packed for packed, record in self._own_records.items()}
        return words.among(self.pieces, own, wanted, after=after)

    # -- what may be found ------------------------------------------------------------------------

    @cached_property
    def pieces(self) -> list[Piece]:
        """The rows of the view that may be found."""
        asked = self._asked
        hidden: Hidden | None = None
        if self._own is not None:
            hidden = hidden_rows(self._layout, self._own.rows)
        expression = None if asked.filter.everything else asked.filter.expression
        return pieces(self._layout, self._lsn, expression, hidden)

    # -- what the transaction wrote -------------------------------------------------------------

    @cached_property
    def _own_records(self) -> dict[bytes, bytes]:
        """Packed id → record, of documents that it stored and that satisfy the filter."""
        if self._own is None:
            return {}
        asked = self._asked
        prefix, filter = asked.there.space.documents, asked.filter
        decode = attributes_decoder(filter.names)
        found: dict[bytes, bytes] = {}
        for packed in self._own.ids:
            record = self._txn.get(prefix + packed)
            if record is None:
                continue
            if filter.everything or filter.matches(unpacked_id(packed), decode(record)):
                found[packed] = record
        return found

    # -- checking ---------------------------------------------------------------------------------

    def _checked_record(self, packed_id: bytes, row: int | None) -> bytes:
        """The record of a document that is handed out, which must have the row that was found."""
        record = self._record(packed_id, row)
        if record is None:
            raise ViewWrong(
                f"row {row} of namespace {self._view.number} is not what the tree has at "
                f"{self._lsn}"
            )
        return record

    def _record(self, packed_id: bytes, row: int | None) -> bytes | None:
        """The record of a document, if it has the row; None for a row: whichever it has."""
        record = self._txn.get(self._asked.there.space.documents + packed_id)
        fits = record is not None and (row is None or row_of(record) == row)
        return record if fits else None


def _merged(found: list[Found], own: list[Found], wanted: int) -> list[Found]:
    if not own:
        return found
    return sorted([*found, *own], key=lambda one: one.ranked.position)[:wanted]
