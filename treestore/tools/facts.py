"""The facts of a case, under the names that a model may call them by."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import attrs

from treestore.errors import InvalidArgument

NEAREST_MAX = 3
"""Names that are offered where a name is not found."""


@attrs.frozen(kw_only=True)
class Fact:
    """One fact of a case.

    Attributes:
        field_name: what it is called.
        value: any JSON value; a date is one too, as its ISO string.
        confidence: how sure it is, 0 to 1; None where nobody said.
        doc_id: the document that it was read from.
        page: the page there.
        bbox: where on the page, as the reader of the document gave it.
    """

    field_name: str
    value: Any
    confidence: float | None = None
    doc_id: str | None = None
    page: int | None = None
    bbox: Any = None


_FIELDS = frozenset(field.name for field in attrs.fields(Fact)) - {"field_name"}


class CaseFacts:
    """A case bundle: facts by name.

    Args:
        facts: `Fact` objects; or dicts with ``field_name``, ``value`` and what else a `Fact` has;
            or a dict of name to value, or to such a dict with a ``value``.
        aliases: other names of facts: ``{"dob": "date_of_birth"}``.

    A name is found whatever its case, and with blanks, dashes or nothing for underscores.

    Raises:
        InvalidArgument: a fact is of none of these forms, or an alias leads nowhere.
    """

    def __init__(
        self,
        facts: Mapping[str, Any] | Iterable[Any] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self._facts: dict[str, Fact] = {}
        for fact in map(_plain, _facts_of(facts)):
            self._facts.setdefault(_folded(fact.field_name), fact)
        self._aliases: dict[str, str] = {}
        for alias, name in (aliases or {}).items():
            if _folded(name) not in self._facts:
                raise InvalidArgument(f"The alias {alias!r} leads to no fact: {name!r}.")
            self._aliases[_folded(alias)] = _folded(name)

    @property
    def names(self) -> list[str]:
        """Every fact's name, in the order given."""
        return [fact.field_name for fact in self._facts.values()]

    def find(self, name: str) -> Fact | None:
        """The fact of that name or alias."""
        folded = _folded(name)
        return self._facts.get(folded) or self._facts.get(self._aliases.get(folded, ""))

    def nearest(self, name: str) -> list[str]:
        """Names of facts that are like this one, the likest first."""
        known = {**self._aliases, **{folded: folded for folded in self._facts}}
        found = difflib.get_close_matches(_folded(name)[:100], known, n=NEAREST_MAX, cutoff=0.6)
        return list(dict.fromkeys(self._facts[known[other]].field_name for other in found))


def _folded(name: str) -> str:
    return re.sub(r"[\s_\-.]+", "", name.casefold())


def _facts_of(facts: Mapping[str, Any] | Iterable[Any]) -> Iterable[Fact]:
    if isinstance(facts, Mapping):
        for name, value in facts.items():
            if isinstance(value, Mapping) and "value" in value:
                yield _fact({"field_name": name, **value})
            elif isinstance(value, Fact):
                yield value
            else:
                yield _fact({"field_name": name, "value": value})
        return
    for fact in facts:
        yield fact if isinstance(fact, Fact) else _fact(fact)


def _fact(given: Any) -> Fact:
    if not isinstance(given, Mapping) or "value" not in given:
        raise InvalidArgument(
            "A fact is a dict with field_name and value (and confidence, doc_id, page, bbox)."
        )
    name = given.get("field_name")
    if not isinstance(name, str) or not _folded(name):
        raise InvalidArgument(f"A fact's field_name is a string, not {name!r:.60}.")
    return Fact(field_name=name, **{key: given[key] for key in _FIELDS & given.keys()})


def _plain(fact: Fact) -> Fact:
    """The fact in plain JSON values, so that no later use of it can fail."""
    try:
        text = json.dumps(attrs.asdict(fact, recurse=False), default=_iso, allow_nan=False)
        fields: dict[str, Any] = json.loads(text)
        json.dumps(fields, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"The fact {fact.field_name!r:.60} cannot be said in JSON: {str(error)[:100]}."
        ) from None
    return Fact(**fields)


def _iso(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"it holds a {type(value).__name__}")
