"""A filter's normal form: what it asks, as a tree of these classes.

The many ways to write the same become one: ``$ne`` is `Not` of `Equal`, ``$nin`` `Not` of `In`,
``$nor`` `Not` of `Or`, ``$all`` `And` of `Equal`, an implicit ``and`` is `And`. An `And` never
holds another one directly, nor only one part; likewise `Or`. ``And(())`` is true of everything,
``Or(())`` of nothing.

A path is a tuple of field names, outermost first. It leads to several values where it goes
through a list, and a condition holds when it holds for any of them (docs/filters.md).
"""

from __future__ import annotations

from typing import Any, Literal

import attrs

from treestore.query.values import order_key

Path = tuple[str, ...]

RangeOperator = Literal["$gt", "$gte", "$lt", "$lte"]


@attrs.frozen
class And:
    """Every one of ``parts`` holds."""

    parts: tuple[Expression, ...]


@attrs.frozen
class Or:
    """At least one of ``parts`` holds."""

    parts: tuple[Expression, ...]


@attrs.frozen
class Not:
    """``part`` does not hold."""

    part: Expression


@attrs.frozen
class Equal:
    """A value at ``path`` equals ``value``; for None, also where it is missing."""

    path: Path
    value: Any = attrs.field(eq=order_key)


@attrs.frozen
class In:
    """`Equal` with one of ``values``."""

    path: Path
    values: tuple[Any, ...] = attrs.field(eq=order_key)


@attrs.frozen
class Range:
    """A value at ``path`` of the same kind as ``value`` stands to it as ``operator`` says."""

    path: Path
    operator: RangeOperator
    value: Any = attrs.field(eq=order_key)


@attrs.frozen
class Exists:
    """There is a value at ``path``, be it null."""

    path: Path


@attrs.frozen
class Type:
    """A value at ``path`` is of one of ``types`` (`treestore.query.values.type_names`)."""

    path: Path
    types: frozenset[str]


@attrs.frozen
class Contains:
    """A list at ``path`` has an element that equals one of ``values``, or a string at ``path``
    has one of them, a string, as a part."""

    path: Path
    values: tuple[Any, ...] = attrs.field(eq=order_key)


@attrs.frozen
class Size:
    """A list at ``path`` has ``count`` elements."""

    path: Path
    count: int


@attrs.frozen
class Regex:
    """A string at ``path`` holds a match of ``pattern``, in RE2's syntax.

    Attributes:
        options: letters of ``ims``, in this order.
    """

    path: Path
    pattern: str
    options: str = ""


@attrs.frozen
class Glob:
    """A whole string at ``path`` matches ``pattern``."""

    path: Path
    pattern: str
    ignore_case: bool = False

    @property
    def prefix(self) -> str:
        """What every matching string begins with; "" where case is ignored."""
        if self.ignore_case:
            return ""
        return self.pattern[: next(_specials(self.pattern), len(self.pattern))]


@attrs.frozen
class Element:
    """A list at ``path`` has an element for which ``part`` holds; its paths begin there."""

    path: Path
    part: Expression


Expression = (
    And | Or | Not | Equal | In | Range | Exists | Type | Contains | Size | Regex | Glob | Element
)


def _specials(pattern: str) -> Any:
    return (at for at, letter in enumerate(pattern) if letter in "*?[\\")


def both(parts: list[Expression]) -> Expression:
    """`And` of ``parts`` in normal form."""
    flat: list[Expression] = []
    for part in parts:
        if isinstance(part, And):
            flat += part.parts
        else:
            flat.append(part)
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def either(parts: list[Expression]) -> Expression:
    """`Or` of ``parts`` in normal form."""
    flat: list[Expression] = []
    for part in parts:
        if isinstance(part, Or):
            flat += part.parts
        else:
            flat.append(part)
    return flat[0] if len(flat) == 1 else Or(tuple(flat))
