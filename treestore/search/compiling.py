"""Queries for tantivy from clauses.

`AskedCompiler` knows fields and words only. `Fields` and `Compiler` are for the rows of documents:
these have four indexed fields for their stems (``content`` holds all three others, see
``docs/search.md`` for why) and one for each text's words as written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import attrs
from tantivy import Occur, Query, Schema, Searcher

from treestore.search.query import Asked, StemLook, SurfaceLook, Wanted

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

    def asked(self, wanted: Wanted) -> Asked:
        """Where a clause is looked for. What is in a text is in `CONTENT` as well, but some phrases
        are in `CONTENT` alone, begun in one text and ended in the next."""
        targets = self.targets(wanted)
        words, strict, clause = wanted.words, wanted.strict, wanted.clause
        if targets is not None:
            stems = [StemLook(name, 1.0, words, strict) for name in targets]
        elif strict and _spans_gap(words):
            stems = [
                StemLook(name, 1.0 + self.bonus.get(name, 0.0), words, strict)
                for name in self.names
            ]
        else:
            stems = [StemLook(CONTENT, 1.0, words, strict)]
            stems += [StemLook(name, bonus, words, strict) for name, bonus in self.bonus.items()]
        surfaces = [
            SurfaceLook(
                name, surface_field(name), 1.0, wanted.surfaces, clause.prefix, clause.fuzzy
            )
            for name in (targets or self.names if wanted.surfaces else ())
        ]
        return Asked(clause.occur, tuple(stems) if words else (), tuple(surfaces))


def _spans_gap(words: Sequence[tuple[int, str]]) -> bool:
    """Whether a phrase has stop words inside, and so may fit where two texts meet in `CONTENT`:
    the gap between them is `treestore.search.matching.VALUE_GAP`, which an index has built in."""
    return any(after[0] - before[0] > 1 for before, after in pairwise(words))


def surface_field(name: str) -> str:
    """The field with the words of a text as written."""
    return f"{name}_words"


KnownWords = dict[tuple[str, str], tuple[int, Query | None]]
"""Of a stem in a field how many rows hold it, and the query that finds them where any do."""

KNOWN_WORDS_MAX: Final = 20_000


class AskedCompiler:
    """Makes queries for one commit of an index.

    Words that it does not hold are left out: most words are in no title, and a query that looks for
    less is quicker.
    """

    def __init__(self, schema: Schema, searcher: Searcher, known: KnownWords | None = None) -> None:
        """``known`` keeps what was found out about the words of this commit; any thread."""
        self._schema = schema
        self._searcher = searcher
        self._known: KnownWords = {} if known is None else known
        self.postings = 0
        """Rows that hold one of the words looked for, counted for each word."""
        self.is_costly = False
        """Whether there is more to do than to go through those."""

    def query(self, asked: Iterable[Asked]) -> Query | None:
        """What the rows must match; None where nothing can."""
        parts: list[Part] = []
        wants = False
        for one in asked:
            found = self._alternatives(one)
            if one.occur == "should":
                parts += [(Occur.Should, query) for query in found]
                wants = wants or bool(found)
            elif found:
                must = one.occur == "must"
                parts.append((Occur.Must if must else Occur.MustNot, _any_of(found)))
                wants = wants or must
            elif one.occur == "must":
                return None
        return Query.boolean_query(parts) if wants else None

    def _alternatives(self, one: Asked) -> list[Query]:
        """Queries any of which is enough."""
        found: list[Query] = []
        for surface in one.surfaces:
            self.is_costly = True
            found.append(_weighted(_surfaces(self._schema, surface), surface.weight))
        for look in one.stems:
            found += self._stems(look)
        return found

    def _stems(self, look: StemLook) -> list[Query]:
        words = [self.word(look.field, stem) for _, stem in look.words]
        self.postings += sum(count for count, _ in words)
        if look.strict:
            if not all(count for count, _ in words):
                return []
            self.is_costly = True
            phrase = Query.phrase_query(self._schema, look.field, list(look.words))
            return [_weighted(phrase, look.weight)]
        # Of "self-employed" any of the parts will do, where not all of the query is wanted.
        return [_weighted(query, look.weight) for _, query in words if query is not None]

    def word(self, name: str, stem: str) -> tuple[int, Query | None]:
        """How many rows hold a stem in a field, and what finds them."""
        found = self._known.get((name, stem))
        if found is None:
            count = self._searcher.doc_freq(name, stem)
            query = Query.term_query(self._schema, name, stem) if count else None
            if len(self._known) >= KNOWN_WORDS_MAX:
                self._known.clear()
            found = self._known[name, stem] = count, query
        return found


class Compiler(AskedCompiler):
    """Makes queries for rows that have `CONTENT`."""

    def __init__(
        self, schema: Schema, searcher: Searcher, fields: Fields, known: KnownWords | None = None
    ) -> None:
        super().__init__(schema, searcher, known)
        self._fields = fields

    def text_query(self, wanted: Sequence[Wanted]) -> Query | None:
        """What the rows must match; None where nothing can."""
        if all(one.clause.occur == "not" for one in wanted):
            return None
        return self.query(map(self._fields.asked, wanted))


def _any_of(queries: list[Query]) -> Query:
    if len(queries) == 1:
        return queries[0]
    return Query.boolean_query([(Occur.Should, query) for query in queries])


def filter_query(parts: Iterable[Part]) -> Query:
    """A query that chooses rows and adds nothing to their scores."""
    return Query.const_score_query(Query.boolean_query(list(parts)), 0.0)


def _weighted(query: Query, weight: float) -> Query:
    return query if weight == 1.0 else Query.boost_query(query, weight)


def _surfaces(schema: Schema, look: SurfaceLook) -> Query:
    """All the words as written, but for the last one's end or for some letters."""
    last = len(look.words) - 1
    parts: list[Part] = []
    for number, word in enumerate(look.words):
        if look.prefix and number == last:
            # Letters and digits only: nothing in it has a meaning in a regular expression.
            query = Query.regex_query(schema, look.field, f"{word}.*")
        elif look.fuzzy:
            query = Query.fuzzy_term_query(schema, look.field, word, look.fuzzy)
        else:
            query = Query.const_score_query(Query.term_query(schema, look.field, word), 1.0)
        parts.append((Occur.Must, query))
    return Query.boolean_query(parts)
