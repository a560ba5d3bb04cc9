"""Queries for tantivy from clauses.

Rows have four indexed fields for their stems (``content`` holds all three others, see
``docs/search.md`` for why) and one for each text's words as written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs
from tantivy import Occur, Query, Schema

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


def text_query(schema: Schema, wanted: Sequence[Wanted], fields: Fields) -> Query | None:
    """What the rows must match; None where nothing can: all its words are stop words."""
    if all(one.clause.occur == "not" for one in wanted):
        return None
    parts: list[Part] = []
    for one in wanted:
        if one.clause.occur == "should":
            parts += [(Occur.Should, query) for query in _alternatives(schema, one, fields)]
        else:
            occur = Occur.Must if one.clause.occur == "must" else Occur.MustNot
            parts.append((occur, _required(schema, one, fields)))
    return Query.boolean_query(parts)


def filter_query(parts: Iterable[Part]) -> Query:
    """A query that chooses rows and adds nothing to their scores."""
    return Query.const_score_query(Query.boolean_query(list(parts)), 0.0)


def _alternatives(schema: Schema, one: Wanted, fields: Fields) -> list[Query]:
    """Queries any of which is enough."""
    targets = fields.targets(one)
    found: list[Query] = []
    if one.surfaces:
        found.append(_surfaces(schema, one, targets or fields.names))
    for name in (CONTENT,) if targets is None else targets:
        found += _stems(schema, name, one)
    if targets is None:
        for name, weight in fields.bonus.items():
            found += [Query.boost_query(query, weight) for query in _stems(schema, name, one)]
    return found


def _required(schema: Schema, one: Wanted, fields: Fields) -> Query:
    """One query that says whether the clause is met, and how well."""
    found = _alternatives(schema, one, fields)
    return found[0] if len(found) == 1 else Query.boolean_query([(Occur.Should, q) for q in found])


def _stems(schema: Schema, name: str, one: Wanted) -> list[Query]:
    if not one.words:
        return []
    if len(one.words) == 1:
        return [Query.term_query(schema, name, one.words[0][1])]
    phrase = Query.phrase_query(schema, name, list(one.words))
    if one.strict:
        return [phrase]
    # Any of the parts of "self-employed" will do; all of it is better.
    return [*(Query.term_query(schema, name, stem) for _, stem in one.words), phrase]


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
