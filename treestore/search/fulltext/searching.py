"""The best rows for a query's words.

The index names rows in the order of their scores; those that are not allowed (dead for the state
that is read, or not what a filter wants) are left out, and more are asked for until there are
enough. Rows that are not in the index are compared one by one, with the index's statistics.

Exact: what comes back are the best ``top_k`` of the allowed rows. Scores are sums of 32-bit floats
whose order the index chooses, so that two rows with equal texts may differ in the last bit. Scores
nearer than `TIE` are therefore equal here, and equal ones come in the order of ``tie_key``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tantivy import Occur, Query

from treestore.search.compiling import AskedCompiler, filter_query
from treestore.search.folder import faults
from treestore.search.fulltext.fields import ROW
from treestore.search.fulltext.index import Rows, View
from treestore.search.fulltext.request import TextRequest, asked_of
from treestore.search.matching import Row, score_asked
from treestore.search.query import Asked
from treestore.search.statistics import IndexedStatistics

Allowed = Callable[[Rows], NDArray[np.bool_]]
"""Of some rows, which ones may be returned."""

TieKey = Callable[[Sequence[int]], Sequence[Any]]
"""Of some rows, what equal ones are ordered by."""

TIE: Final = 2e-6
"""Relative difference of two scores that are equal."""

NEAR: Final = 1 - TIE

SPARE: Final = 3
"""Rows that are fetched beyond those that are wanted: some may equal the last one."""

FIRST: Final = 1.5
"""How many times as many rows are fetched as should do."""

GROWTH: Final = 4
"""How many times more rows are asked for when there were too few."""

LOOK_UP_FETCHES: Final = 3
"""Fetching so many rows that fit takes as long as looking up one that is allowed."""

LOOK_UPS_MAX: Final = 500
"""With more rows than these, looking them up takes longer for each one."""


class TextHit(NamedTuple):
    """A row that fits, and how well."""

    row: int
    score: float


class Search:
    """One query on one view. Any thread; not from two at a time."""

    def __init__(self, view: View, request: TextRequest) -> None:
        self._view = view
        self.asked: list[Asked] = asked_of(request, view.fields)
        self._compiler = AskedCompiler(view.fields.schema, view.searcher, view.words)
        with faults("searching"):
            self._query = self._compiler.query(self.asked)
        self.fetched = 0
        """Rows that the index was asked for, for `explain`."""

    @property
    def is_costly(self) -> bool:
        """Whether there is more to do than to go through the rows that hold the words: phrases,
        prefixes, fuzzy words."""
        return self._compiler.is_costly

    @property
    def postings(self) -> int:
        """Rows that hold one of the words, counted for each word and attribute."""
        return self._compiler.postings

    def best(
        self,
        top_k: int,
        *,
        allowed: Allowed | None = None,
        share: float = 1.0,
        only: Rows | None = None,
        unindexed: Mapping[int, Row] | None = None,
        tie_key: TieKey | None = None,
    ) -> list[TextHit]:
        """The best rows, the best one first.

        Args:
            top_k: how many at most.
            allowed: which rows may be returned; None: all.
            share: about which part of the rows ``allowed`` allows, where that is known: then the
                right number of rows is asked for at once.
            only: where few rows may be returned, these, in any order; ``allowed`` counts too.
            unindexed: rows that are not in the index (those that are, too, count as given here),
                cut into words by `TextFields.cut`; ``allowed`` and ``only`` are not asked for
                these.
            tie_key: what equal ones are ordered by; None: by their numbers.

        Raises:
            IndexFailed: the index is damaged.
        """
        own = self._unindexed(unindexed) if unindexed else []
        hits: list[tuple[float, int]] = []
        if self._query is not None and (only is None or len(only)):
            hits = self._indexed(top_k, allowed, share, only, unindexed or {})
        if own:
            hits = sorted([*hits, *own], reverse=True)
        return _ordered(hits, top_k, tie_key)

    # -- the index ----------------------------------------------------------------------------

    def _indexed(
        self,
        top_k: int,
        allowed: Allowed | None,
        share: float,
        only: Rows | None,
        leave_out: Mapping[int, Row],
    ) -> list[tuple[float, int]]:
        """``(score, row)`` of at least the best ones with all that equal the last, best first."""
        query = self._query
        assert query is not None
        most = max(1, self._view.searcher.num_docs)
        limit = top_k + SPARE
        if only is not None and self.prefers_look_up(len(only), top_k):
            query = self._among(query, only)
            limit = most = min(most, len(only))
        else:
            if only is not None:
                allowed = _both(allowed, only)
                share = min(share, len(only) / most)
            if allowed is not None:
                limit += int(top_k / max(share, 1 / most) * FIRST) - top_k
                limit = min(limit, most)
        while True:
            hits, rows = self._fetch(query, limit)
            found = _kept(hits, rows, allowed, leave_out)
            if len(hits) < limit or limit >= most:
                return found
            if len(found) >= top_k and hits[-1][0] < found[top_k - 1][0] * NEAR:
                return found
            # As many as it takes if so many are allowed among the next ones, too.
            rate = len(hits) * (top_k + 1) / max(1, len(found))
            limit = min(most, max(GROWTH * limit, int(rate * FIRST)))

    def _fetch(self, query: Query, limit: int) -> tuple[list[tuple[float, Any]], list[Any]]:
        # All of them each time: asked for the next ones only, the index may have changed its mind
        # about the order of equal ones, and one would be missed.
        searcher = self._view.searcher
        with faults("searching"):
            hits = searcher.search(query, limit, count=False).hits
            rows = searcher.fast_field_values(ROW, [address for _, address in hits])
        self.fetched += len(hits)
        return hits, rows

    def prefers_look_up(self, rows: int, top_k: int) -> bool:
        """Whether to look up these few rows in the index and score only them, rather than to fetch
        the best rows until enough of these are among them."""
        if rows > LOOK_UPS_MAX:
            return False
        count = self._view.searcher.num_docs
        fetched = count * top_k / max(1, rows)
        fitting = count if self.is_costly else self.postings
        return rows * LOOK_UP_FETCHES < min(fetched, fitting)

    def _among(self, query: Query, only: Rows) -> Query:
        schema = self._view.fields.schema
        # A set of terms is quicker to make, but goes through all rows that there are.
        its = [
            (Occur.Should, Query.term_query(schema, ROW, row, index_option="basic"))
            for row in only.tolist()
        ]
        return Query.boolean_query([(Occur.Must, query), (Occur.Must, filter_query(its))])

    # -- rows that are not in it ------------------------------------------------------------------

    def _unindexed(self, rows: Mapping[int, Row]) -> list[tuple[float, int]]:
        view = self._view
        statistics = IndexedStatistics(
            view.searcher, view.fields.schema, view.facts, tuple(rows.values())
        )
        found: list[tuple[float, int]] = []
        for number, row in rows.items():
            value = score_asked(row, self.asked, statistics)
            if value is not None:
                found.append((value, number))
        return found

    # -- estimates --------------------------------------------------------------------------------

    def estimate(self) -> int:
        """About how many rows of the index fit: words are taken for independent of each other."""
        rows = max(1, self._view.searcher.num_docs)
        musts = 1.0
        misses = 1.0
        required = False
        for one in self.asked:
            share = self._share(one, rows)
            if one.occur == "must":
                musts *= share
                required = True
            elif one.occur == "not":
                musts *= 1 - share
            else:
                misses *= 1 - share
        share = musts if required else musts * (1 - misses)
        return round(min(1.0, share) * rows)

    def _share(self, one: Asked, rows: int) -> float:
        """Of all rows, those that a clause fits."""
        misses = 1.0
        for look in one.stems:
            shares = [
                min(1.0, self._compiler.word(look.field, stem)[0] / rows) for _, stem in look.words
            ]
            if look.strict:
                # Of those with the rarest word, and fewer for each other one.
                misses *= 1 - min(shares) * PHRASE_SHARE ** (len(shares) - 1)
            else:
                for share in shares:
                    misses *= 1 - share
        for surface in one.surfaces:
            misses *= 1 - self._surface_share(surface.field, surface.words, rows, surface.prefix)
        return 1 - misses

    def _surface_share(self, field: str, words: Sequence[str], rows: int, prefix: bool) -> float:
        searcher = self._view.searcher
        share = 1.0
        for number, word in enumerate(words):
            if prefix and number == len(words) - 1:
                some = searcher.terms_with_prefix(field, word, limit=PREFIX_TERMS)
                share *= min(1.0, sum(count for _, count in some) / rows)
            else:
                share *= min(1.0, max(1, searcher.doc_freq(field, word)) / rows)
        return share


PHRASE_SHARE: Final = 0.3
"""Of the rows with the rarest word of a phrase, those that have the phrase, for each other word."""

PREFIX_TERMS: Final = 64
"""Words with a prefix that are counted for an estimate."""


def _both(allowed: Allowed | None, only: Rows) -> Allowed:
    wanted = np.sort(only)

    def check(rows: Rows) -> NDArray[np.bool_]:
        at = np.minimum(np.searchsorted(wanted, rows), len(wanted) - 1)
        found: NDArray[np.bool_] = wanted[at] == rows
        return found if allowed is None else found & allowed(rows)

    return check


def _kept(
    hits: Sequence[tuple[float, Any]],
    rows: Sequence[int],
    allowed: Allowed | None,
    leave_out: Mapping[int, Row],
) -> list[tuple[float, int]]:
    if allowed is None and not leave_out:
        return [(hit[0], row) for hit, row in zip(hits, rows, strict=True)]
    keep: Iterable[Any] = [True] * len(rows)
    if allowed is not None and rows:
        keep = allowed(np.array(rows, dtype=np.int64)).tolist()
    return [
        (hit[0], row)
        for hit, row, its in zip(hits, rows, keep, strict=True)
        if its and row not in leave_out
    ]


def _ordered(hits: list[tuple[float, int]], top_k: int, tie_key: TieKey | None) -> list[TextHit]:
    """The first ones; equal scores made one, and in the order of their keys."""
    found: list[TextHit] = []
    at, last = 0, len(hits) - 1
    while at <= last and len(found) < top_k:
        value, row = hits[at]
        if at == last or hits[at + 1][0] < value * NEAR:
            found.append(TextHit(row, value))
            at += 1
            continue
        end = at + 1
        while end <= last and hits[end][0] >= hits[end - 1][0] * NEAR:
            end += 1
        rows = [row for _, row in hits[at:end]]
        keys = rows if tie_key is None else tie_key(rows)
        order = sorted(range(len(rows)), key=keys.__getitem__)
        found += [TextHit(rows[n], value) for n in order[: top_k - len(found)]]
        at = end
    return found
