"""What is asked of a namespace's texts: checked once, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from treestore.errors import InvalidArgument
from treestore.search.fulltext.fields import TextField, TextFields
from treestore.search.languages import Analyzer
from treestore.search.query import (
    Asked,
    Clause,
    StemLook,
    SurfaceLook,
    Wanted,
    analysed,
    check_fuzzy,
    check_text,
    parse,
)

WEIGHT_MIN: Final = 1e-6
WEIGHT_MAX: Final = 1e6

_KEYS: Final = ("fields", "query", "weights", "mode", "fuzzy")


@attrs.frozen
class TextRequest:
    """A query that can be asked.

    Attributes:
        clauses: its words and phrases.
        weights: of the attributes to look into, what their BM25 is multiplied with.
        named: what an attribute that is named in the query itself ("title:word") counts.
    """

    clauses: tuple[Clause, ...]
    weights: Mapping[str, float]
    named: Mapping[str, float]


def make_request(text: object, attributes: Sequence[str]) -> TextRequest:
    """The request, checked.

    Args:
        text: a string, which is looked for in all attributes, or a map of ``query`` and, where
            wanted, ``fields``: attributes to look into (all); ``weights``: by attribute, what its
            score is multiplied with (1); ``mode``: ``any`` of the words (that is the default),
            ``all`` of them, or all as one ``phrase``; ``fuzzy``: letters in which words may differ
            (0).
        attributes: those that have full text.

    Raises:
        InvalidArgument: it cannot be done; the message says why.
    """
    if isinstance(text, str):
        text = {"query": text}
    if not isinstance(text, Mapping):
        raise InvalidArgument(
            f"text is a string, or a map of {', '.join(_KEYS)}; not {type(text).__name__}."
        )
    for key in text:
        if key not in _KEYS:
            raise InvalidArgument(f"text has no {key!r:.60}; it may have {', '.join(_KEYS)}.")
    if "query" not in text:
        raise InvalidArgument("text says in query what to look for.")
    if not attributes:
        raise InvalidArgument(
            "No attribute of this namespace has full text; give one full_text in its schema."
        )
    fields = _fields(text.get("fields"), attributes)
    weights = _weights(text.get("weights"), fields, attributes)
    mode: Any = "any" if text.get("mode") is None else text["mode"]
    fuzzy = check_fuzzy(0 if text.get("fuzzy") is None else text["fuzzy"])
    clauses = parse(check_text(text["query"]), mode, tuple(attributes), fuzzy)
    inside = {name: weights.get(name, 1.0) for name in fields}
    return TextRequest(
        tuple(clauses), inside, {name: weights.get(name, 1.0) for name in attributes}
    )


def _fields(fields: object, attributes: Sequence[str]) -> tuple[str, ...]:
    if fields is None:
        return tuple(attributes)
    if not isinstance(fields, list | tuple) or not fields:
        raise InvalidArgument(f"fields is a list of some of {_listed(attributes)}.")
    for name in fields:
        _check_name(name, attributes)
    return tuple(dict.fromkeys(fields))


def _weights(
    weights: object, fields: tuple[str, ...], attributes: Sequence[str]
) -> dict[str, float]:
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        raise InvalidArgument("weights is a map from attributes to numbers.")
    for name, weight in weights.items():
        _check_name(name, attributes)
        if name not in fields:
            raise InvalidArgument(f"weights names {name!r:.60}, which is not among fields.")
        if (
            isinstance(weight, bool)
            or not isinstance(weight, int | float)
            or not WEIGHT_MIN <= weight <= WEIGHT_MAX
        ):
            raise InvalidArgument(
                f"A weight is a number from {WEIGHT_MIN:f} to {WEIGHT_MAX:.0f}, not {weight!r:.60}."
            )
    return {str(name): float(weight) for name, weight in weights.items()}


def _check_name(name: Any, attributes: Sequence[str]) -> None:
    if not isinstance(name, str) or name not in attributes:
        raise InvalidArgument(
            f"There is no attribute {name!r:.60} with full text; there are {_listed(attributes)}."
        )


def _listed(attributes: Sequence[str]) -> str:
    return ", ".join(attributes)


def asked_of(request: TextRequest, fields: TextFields) -> list[Asked]:
    """The clauses with the words that each attribute's analyzer makes of them.

    A clause may be nothing but stop words for one attribute, and words for another one. Then it
    cannot be required: "the" would be asked of a title whose analyzer leaves it out of all titles.
    It counts where it is found.
    """
    found: list[Asked] = []
    for clause in request.clauses:
        if clause.field is None:
            weights = request.weights
        else:
            weights = {clause.field: request.named[clause.field]}
        stems: list[StemLook] = []
        surfaces: list[SurfaceLook] = []
        read: dict[Analyzer, list[Wanted]] = {}
        gone = missing = False
        for name, weight in weights.items():
            field = fields.fields.get(name)
            if field is None:
                missing = True  # Of a schema that the index does not know yet.
                continue
            wanted = read.get(field.analyzer)
            if wanted is None:
                wanted = read[field.analyzer] = analysed((clause,), field.analyzer)
            gone = gone or not wanted
            for one in wanted:
                _look(one, field, weight, stems, surfaces)
        if stems or surfaces or (missing and not gone):
            occur = "should" if gone and clause.occur == "must" else clause.occur
            found.append(Asked(occur, tuple(stems), tuple(surfaces)))
    return found


def _look(
    one: Wanted,
    field: TextField,
    weight: float,
    stems: list[StemLook],
    surfaces: list[SurfaceLook],
) -> None:
    if one.words:
        stems.append(StemLook(field.field, weight, one.words, one.strict))
    if one.surfaces:
        clause = one.clause
        surfaces.append(
            SurfaceLook(
                field.name, field.surfaces, weight, one.surfaces, clause.prefix, clause.fuzzy
            )
        )
