"""The words of a query: the best rows of a namespace's full-text index that a query may find."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import numpy as np

from treestore.errors import Unavailable
from treestore.search.fulltext.index import View as IndexView
from treestore.search.fulltext.request import TextRequest, make_request
from treestore.search.fulltext.searching import Search
from treestore.search.matching import Row
from treestore.stores.access import Read
from treestore.stores.namespaces.answer import Ranked
from treestore.stores.namespaces.layout import attributes_of, decode_attributes, row_of
from treestore.stores.namespaces.live.arrays import Flags, Rows
from treestore.stores.namespaces.live.legs import Found
from treestore.stores.namespaces.live.pieces import Piece
from treestore.stores.namespaces.live.texts import Basis
from treestore.stores.namespaces.live.view import text_names
from treestore.stores.namespaces.search import Asked, position_of_score

ONLY_MAX: Final = 2000
"""With so few rows that may be found, the index is told which."""

UNINDEXED_MAX: Final = 20_000
"""Rows that a search looks at one by one. With more, it waits for the index."""


BRIEF_POSTINGS_MAX: Final = 50_000
"""Rows that hold one of the words, for a query that is answered at once: about a millisecond."""


class IndexBehind(Unavailable):
    """The full-text index lacks more rows than are looked at one by one."""


@attrs.define(eq=False)
class WordsReport:
    """What the words of a query took: for `explain`.

    Attributes:
        estimated: about how many rows have them.
        fetched: rows that the index was asked for.
        unindexed: rows that are not in the index yet, and were looked at.
        attempts: how often it searched, each time for more.
    """

    estimated: int = 0
    fetched: int = 0
    unindexed: int = 0
    attempts: int = 0


def text_request(asked: Asked) -> TextRequest:
    """The words that are asked for.

    Raises:
        InvalidArgument: there is nothing to look for in them.
    """
    text = asked.request.text
    assert text is not None
    source: dict[str, Any] = {
        "query": text.query,
        "fields": list(asked.text_fields),
        "weights": dict(asked.text_fields),
        "mode": text.mode,
        "fuzzy": text.fuzzy,
    }
    return make_request(source, text_names(asked.there.schema))


class Words:
    """The words of one query, on one commit of the index. Not from two threads at a time.

    Args:
        index: the commit.
        asked: the query.
        unindexed: rows that may be found and are not in the index, cut into words, and
        unindexed_ids: their packed ids.
    """

    def __init__(
        self,
        index: IndexView,
        asked: Asked,
        unindexed: Mapping[int, Row],
        unindexed_ids: Mapping[int, bytes],
        report: WordsReport | None = None,
    ) -> None:
        self._search = Search(index, text_request(asked))
        self._index = index
        self._unindexed = unindexed
        self._unindexed_ids = unindexed_ids
        self._report = report or WordsReport()
        self._report.estimated = self._search.estimate() if report is not None else 0
        self._report.unindexed = len(unindexed)

    @property
    def is_brief(self) -> bool:
        """Whether finding them takes less time than the way to a thread."""
        return not self._search.is_costly and self._search.postings <= BRIEF_POSTINGS_MAX

    def among(
        self,
        pieces: Sequence[Piece],
        own: Mapping[int, bytes],
        wanted: int,
        *,
        after: bytes = b"",
    ) -> list[Found]:
        """The best of rows of a view.

        Args:
            pieces: rows that may be found.
            own: rows that are not in the view, and their packed ids; they are among the unindexed.
            wanted: how many.
            after: only positions behind this one.
        """
        count = sum(piece.count for piece in pieces)
        only: Rows | None = None
        if count <= ONLY_MAX:
            only = np.concatenate(
                [np.empty(0, np.int64), *(one.content.rows[one.ordinals()] for one in pieces)]
            )
        total = max(1, self._index.searcher.num_docs)
        places = _Places(pieces, self._unindexed_ids)

        def find(limit: int) -> list[Any]:
            return self._search.best(
                limit,
                allowed=places.allowed,  # With few rows, too: it looks up all at once.
                share=min(1.0, count / total),
                only=only,
                unindexed=self._unindexed,
                tie_key=places.ids,
            )

        return self._behind(find, places.ids, own, wanted, after, count + len(self._unindexed))

    def among_rows(self, rows: Mapping[int, bytes], wanted: int, after: bytes) -> list[Found]:
        """The best of rows whose packed ids are known."""
        only = np.fromiter(rows, np.int64, len(rows))

        def ids_of(some: Sequence[int]) -> list[bytes]:
            return [rows[row] for row in some]

        def find(limit: int) -> list[Any]:
            return self._search.best(limit, only=only, unindexed=self._unindexed, tie_key=ids_of)

        return self._behind(find, ids_of, rows, wanted, after, len(rows))

    def _behind(
        self,
        find: Callable[[int], list[Any]],
        ids_of: Callable[[Sequence[int]], list[bytes]],
        own: Mapping[int, bytes],
        wanted: int,
        after: bytes,
        total: int,
    ) -> list[Found]:
        count = wanted
        while True:
            hits = find(count)
            self._report.attempts += 1
            self._report.fetched = self._search.fetched
            ids = ids_of([hit.row for hit in hits])
            found = [
                Found(
                    ranked=Ranked(
                        packed_id=packed,
                        position=position_of_score(hit.score, packed),
                        score=hit.score,
                    ),
                    row=None if hit.row in own else hit.row,
                )
                for hit, packed in zip(hits, ids, strict=True)
            ]
            if after:
                found = [one for one in found if one.ranked.position > after]
            if len(found) >= wanted or len(hits) < count or count >= total:
                return found[:wanted]
            count = min(total, 2 * count + wanted)


class _Places:
    """Where rows are in a view.

    Args:
        pieces: rows that may be found.
        others: packed ids of rows that are in none of these.
    """

    def __init__(self, pieces: Sequence[Piece], others: Mapping[int, bytes]) -> None:
        self._pieces = pieces
        self._others = others
        self._seen: dict[int, tuple[Piece, int]] = {}

    def allowed(self, rows: Rows) -> Flags:
        """Of some rows, which may be found."""
        found = np.zeros(len(rows), np.bool_)
        for piece in self._pieces:
            ordinals = piece.find_all(rows)
            here = ordinals >= 0
            found |= here
            ours = zip(rows[here].tolist(), ordinals[here].tolist(), strict=True)
            self._seen.update((row, (piece, ordinal)) for row, ordinal in ours)
        return found

    def ids(self, rows: Sequence[int]) -> list[bytes]:
        """The packed ids of rows that may be found."""
        others, seen = self._others, self._seen
        unseen = [row for row in rows if row not in others and row not in seen]
        if unseen:
            self.allowed(np.array(unseen, np.int64))
        ids: list[bytes] = []
        for row in rows:
            packed = others.get(row)
            if packed is None:
                piece, ordinal = seen[row]
                packed = piece.content.ids[ordinal]
            ids.append(packed)
        return ids


def unindexed_in(
    pieces: Sequence[Piece], basis: Basis, lsn: int, txn: Read, asked: Asked
) -> tuple[dict[int, Row], dict[int, bytes]]:
    """Rows of a view that may be found and are not in the index: cut into words; and their ids.

    Raises:
        Unavailable: they are too many.
    """
    new = [one for one in basis.new if one.lsn <= lsn]
    if not new:
        return {}, {}
    rows = np.fromiter((one.row for one in new), np.int64, len(new))
    here = np.flatnonzero(_Places(pieces, {}).allowed(rows)).tolist()
    if len(here) > UNINDEXED_MAX:
        raise IndexBehind(
            f"{len(here)} documents are not in the full-text index yet; try again later.",
            documents=len(here),
        )
    fields = basis.index.fields
    prefix = asked.there.space.documents

    def read(packed_id: bytes) -> dict[str, Any]:
        record = txn.get(prefix + packed_id)
        return {} if record is None else decode_attributes(attributes_of(record))

    cut = {new[at].row: new[at].cut(fields, read) for at in here}
    return cut, {new[at].row: new[at].packed_id for at in here}


def cut_records(index: IndexView, records: Mapping[bytes, bytes]) -> dict[int, Row]:
    """Documents' records, by their packed ids, as words."""
    return {
        row_of(record): index.fields.cut(decode_attributes(attributes_of(record)))
        for record in records.values()
    }


_rows_of_commits: weakref.WeakKeyDictionary[IndexView, Rows] = weakref.WeakKeyDictionary()


def rows_of(index: IndexView) -> Rows:
    """The rows of a commit, ascending; read once."""
    found = _rows_of_commits.get(index)
    if found is None:
        found = _rows_of_commits[index] = index.rows()
    return found
