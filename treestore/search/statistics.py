"""BM25's numbers for rows that are in no index yet: of those that are, and of these together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tantivy import Query, Schema, Searcher

from treestore.search.folder import faults
from treestore.search.matching import Row, rarity


class IndexStatistics:
    """Implements `matching.Statistics`."""

    def __init__(self, searcher: Searcher | None, schema: Schema, rows: Sequence[Row]) -> None:
        self._searcher = searcher
        self._schema = schema
        self._rows = rows
        self._indexed = 0 if searcher is None else searcher.num_docs
        self._rarities: dict[tuple[str, str], float] = {}
        self._means: dict[str, float] = {}

    def rarity(self, field: str, word: str) -> float:
        """See `Statistics.rarity`."""
        key = field, word
        if key not in self._rarities:
            holding = sum(word in row.stems[field].positions for row in self._rows)
            if self._searcher is not None:
                with faults("reading the index"):
                    holding += self._searcher.doc_freq(field, word)
            # Deleted rows count until they are merged away.
            rows = max(self._indexed + len(self._rows), holding)
            self._rarities[key] = rarity(rows, holding)
        return self._rarities[key]

    def mean_length(self, field: str) -> float:
        """See `Statistics.mean_length`."""
        if field not in self._means:
            total = float(sum(row.stems[field].length for row in self._rows))
            with faults("reading the index"):
                total += self._indexed * _mean_length(self._searcher, self._schema, field)
            self._means[field] = total / max(1, self._indexed + len(self._rows))
        return self._means[field]


def _mean_length(searcher: Searcher | None, schema: Schema, field: str) -> float:
    """What the index says of itself: it tells it with the explanation of a score."""
    if searcher is None:
        return 0.0
    for term, _ in searcher.terms_with_prefix(field, "", limit=1):
        query = Query.term_query(schema, field, term)
        for _, address in searcher.search(query, 1, count=False).hits:
            found = _named(json.loads(query.explain(searcher, address).to_json()), "avgdl")
            if found is not None:
                return found
    return 0.0


def _named(explanation: dict[str, Any], name: str) -> float | None:
    if explanation["description"].startswith(name):
        return float(explanation["value"])
    for part in explanation.get("details") or ():
        found = _named(part, name)
        if found is not None:
            return found
    return None
