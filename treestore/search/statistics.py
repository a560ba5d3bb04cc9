"""BM25's numbers for rows that are in no index yet: of those that are, and of these together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import attrs
from tantivy import Query, Schema, Searcher

from treestore.search.folder import faults
from treestore.search.matching import Row, rarity

WORDS_LOOKED_AT: Final = 16
"""Words of a field that are asked for its average, until one has a row that is not deleted."""


class IndexStatistics:
    """Implements `matching.Statistics`."""

    def __init__(
        self,
        searcher: Searcher | None,
        schema: Schema,
        rows: Sequence[Row],
        means: dict[str, float],
    ) -> None:
        """``means`` keeps what was found out about the searcher's index."""
        self._searcher = searcher
        self._schema = schema
        self._rows = rows
        self._indexed = 0 if searcher is None else searcher.num_docs
        self._means = means
        self._rarities: dict[tuple[str, str], float] = {}
        self._known: dict[str, str] = {}
        """For each field a word that the index has."""
        self._lengths: dict[str, float] = {}

    def rarity(self, field: str, word: str) -> float:
        """See `Statistics.rarity`."""
        key = field, word
        if key not in self._rarities:
            holding = sum(word in row.stems[field].positions for row in self._rows)
            if self._searcher is not None:
                with faults("reading the index"):
                    indexed = self._searcher.doc_freq(field, word)
                if indexed:
                    self._known[field] = word
                holding += indexed
            # Deleted rows count until they are merged away.
            rows = max(self._indexed + len(self._rows), holding)
            self._rarities[key] = rarity(rows, holding)
        return self._rarities[key]

    def mean_length(self, field: str) -> float:
        """See `Statistics.mean_length`."""
        if field not in self._lengths:
            own = float(sum(row.stems[field].length for row in self._rows))
            own /= max(1, len(self._rows))
            indexed = self._indexed_mean(field)
            # A word that the index has not says nothing of it.
            self._lengths[field] = own if indexed is None else indexed
        return self._lengths[field]

    def _indexed_mean(self, field: str) -> float | None:
        if field not in self._means and field in self._known and self._searcher is not None:
            with faults("reading the index"):
                found = _mean_length(self._searcher, self._schema, field, self._known[field])
            if found is not None:
                self._means[field] = found
        return self._means.get(field)


@attrs.define
class IndexFacts:
    """What one commit of an index says of itself, as far as somebody asked.

    Attributes:
        rows: how many it counts; deleted ones count until they are merged away.
        means: words in a field of a row, on average.
    """

    rows: float | None = None
    means: dict[str, float] = attrs.field(factory=dict)


class IndexedStatistics:
    """Implements `matching.Statistics` with the very numbers by which an index ranks its own rows;
    of words and fields that it has not, with those of the other rows."""

    def __init__(
        self, searcher: Searcher, schema: Schema, facts: IndexFacts, rows: Sequence[Row]
    ) -> None:
        self._searcher = searcher
        self._schema = schema
        self._facts = facts
        self._rows = rows
        self._rarities: dict[tuple[str, str], float] = {}
        self._lengths: dict[str, float] = {}

    def rarity(self, field: str, word: str) -> float:
        """See `Statistics.rarity`."""
        key = field, word
        if key not in self._rarities:
            with faults("reading the index"):
                holding = self._searcher.doc_freq(field, word)
            if holding:
                self._look(field)
                rows = self._facts.rows or self._searcher.num_docs
                self._rarities[key] = rarity(max(rows, holding), holding)
            else:
                own = sum(
                    field in row.stems and word in row.stems[field].positions for row in self._rows
                )
                self._rarities[key] = rarity(self._searcher.num_docs + len(self._rows), own)
        return self._rarities[key]

    def mean_length(self, field: str) -> float:
        """See `Statistics.mean_length`."""
        if field not in self._lengths:
            self._look(field)
            mean = self._facts.means.get(field)
            if mean is None:
                own = [row.stems[field].length for row in self._rows if field in row.stems]
                mean = sum(own) / max(1, len(self._rows))
            self._lengths[field] = mean
        return self._lengths[field]

    def _look(self, field: str) -> None:
        if field in self._facts.means:
            return
        with faults("reading the index"):
            for word, _ in self._searcher.terms_with_prefix(field, "", limit=WORDS_LOOKED_AT):
                told = _explained(self._searcher, self._schema, field, word)
                if told is None:
                    continue  # All rows with it are deleted.
                mean = _named(told, "avgdl")
                if mean is not None:
                    self._facts.means[field] = mean
                    self._facts.rows = _named(told, "N,")
                    return


def _mean_length(searcher: Searcher, schema: Schema, field: str, word: str) -> float | None:
    told = _explained(searcher, schema, field, word)
    return None if told is None else _named(told, "avgdl")


def _explained(searcher: Searcher, schema: Schema, field: str, word: str) -> dict[str, Any] | None:
    """What the index says of itself: it tells it with the explanation of a score."""
    query = Query.term_query(schema, field, word)
    for _, address in searcher.search(query, 1, count=False).hits:
        found: dict[str, Any] = json.loads(query.explain(searcher, address).to_json())
        return found
    return None


def _named(explanation: dict[str, Any], name: str) -> float | None:
    if explanation["description"].startswith(name):
        return float(explanation["value"])
    for part in explanation.get("details") or ():
        found = _named(part, name)
        if found is not None:
            return found
    return None
