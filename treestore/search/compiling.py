"""Queries for tantivy from clauses.

Rows have four indexed fields for their stems (``content`` holds all three others, see
``docs/search.md`` for why) and one for each text's words as written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs
from tantivy import Occur, Query, Schema, Searcher

from treestore.search.query import Wanted

CONTENT: Final = "content"
"""The field with the stems of all texts of a row."""

Part = tuple[Occur, Query]


@attrs.frozen
class Fields:
    """Where to look for a clause that names no field.

    Attributes:
        names: the texts' fields.
        bonus: what a stem in one of them counts beside what it counts in `CONTENT`.
        only: the fields to look into; None for all.
    """

    names: tuple[str, ...]
    bonus: Mapping[str, float]
    only: tuple[str, ...] | None = None

    def targets(self, wanted: Wanted) -> tuple[str, ...] | None:
        """The fields that a clause is limited to; None where it is not."""
        return self.only if wanted.clause.field is None else (wanted.clause.field,)


def surface_field(name: str) -> str:
    """The field with the words of a text as written."""
    return f"{name}_words"


KnownWords = dict[tuple[str, str], tuple[int, Query | None]]
"""Of a stem in a field how many rows hold it, and the query that finds them where any do."""

KNOWN_WORDS_MAX: Final = 20_000


class Compiler:
    """Makes queries for one commit of an index.

    Words that it does not hold are left out: most words are in no title, and a query that looks for
    less is quicker.
    """

    def __init__(
        self, schema: Schema, searcher: Searcher, fields: Fields, known: KnownWords | None = None
    ) -> None:
        """``known`` keeps what was found out about the words of this commit; any thread."""
        self._schema = schema
        self._searcher = searcher
        self._fields = fields
        self._known: KnownWords = {} if known is None else known
        self.postings = 0
        """Rows that hold one of the words looked for, counted for each word."""
        self.is_costly = False
        """Whether there is more to do than to go through those."""

    def text_query(self, wanted: Sequence[Wanted]) -> Query | None:
        """What the rows must match; None where nothing can."""
        if all(one.clause.occur == "not" for one in wanted):
            return None
        parts: list[Part] = []
        wants = False
        for one in wanted:
            found = self._alternatives(one)
            if one.clause.occur == "should":
                parts += [(Occur.Should, query) for query in found]
                wants = wants or bool(found)
            elif found:
                must = one.clause.occur == "must"
                parts.append((Occur.Must if must else Occur.MustNot, _any_of(found)))
                wants = wants or must
            elif one.clause.occur == "must":
                return None
        return Query.boolean_query(parts) if wants else None

    def _alternatives(self, one: Wanted) -> list[Query]:
        """Queries any of which is enough."""
        targets = self._fields.targets(one)
        found: list[Query] = []
        if one.surfaces:
            self.is_costly = True
            found.append(_surfaces(self._schema, one, targets or self._fields.names))
        for name in (CONTENT,) if targets is None else targets:
            found += self._stems(name, one)
        if targets is None and found:
            for name, weight in self._fields.bonus.items():
                found += [Query.boost_query(query, weight) for query in self._stems(name, one)]
        return found

    def _stems(self, name: str, one: Wanted) -> list[Query]:
        words = [self._word(name, stem) for _, stem in one.words]
        self.postings += sum(count for count, _ in words)
        if one.strict:
            if not all(count for count, _ in words):
                return []
            self.is_costly = True
            return [Query.phrase_query(self._schema, name, list(one.words))]
        # Of "self-employed" any of the parts will do, where not all of the query is wanted.
        return [query for _, query in words if query is not None]

    def _word(self, name: str, stem: str) -> tuple[int, Query | None]:
        """How many rows hold a stem in a field, and what finds them."""
        found = self._known.get((name, stem))
        if found is None:
            count = self._searcher.doc_freq(name, stem)
            query = Query.term_query(self._schema, name, stem) if count else None
            if len(self._known) >= KNOWN_WORDS_MAX:
                self._known.clear()
            found = self._known[name, stem] = count, query
        return found


def _any_of(queries: list[Query]) -> Query:
    if len(queries) == 1:
        return queries[0]
    return Query.boolean_query([(Occur.Should, query) for query in queries])


def filter_query(parts: Iterable[Part]) -> Query:
    """A query that chooses rows and adds nothing to their scores."""
    return Query.const_score_query(Query.boolean_query(list(parts)), 0.0)


def _surfaces(schema: Schema, one: Wanted, names: Sequence[str]) -> Query:
    """All the words as written in one field, but for the last one's end or for some letters."""
    last = len(one.surfaces) - 1
    per_field: list[Part] = []
    for name in names:
        field = surface_field(name)
        parts: list[Part] = []
        for number, surface in enumerate(one.surfaces):
            if one.clause.prefix and number == last:
                # Letters and digits only: nothing in it has a meaning in a regular expression.
                query = Query.regex_query(schema, field, f"{surface}.*")
            elif one.clause.fuzzy:
                query = Query.fuzzy_term_query(schema, field, surface, one.clause.fuzzy)
            else:
                query = Query.const_score_query(Query.term_query(schema, field, surface), 1.0)
            parts.append((Occur.Must, query))
        per_field.append((Occur.Should, Query.boolean_query(parts)))
    return Query.boolean_query(per_field)
