"""Values: their kinds, when two are equal, and which comes first.

A value is of one bracket: null, number, string, object, list, bool or date, in this order. Values
of different brackets are never equal, and a range never reaches out of its bracket. Within one:

* numbers by value, an int and a float exactly (no rounding of large ones); NaN is equal to itself
  and before all others;
* strings by code points; false before true; lists element by element;
* objects without regard to the order of their fields: as lists of (name, value) sorted by name;
* dates are timezone-aware datetimes, by their moment. A naive datetime or a plain date counts as
  the string that it is written as in ISO 8601, which is what it becomes on its way through JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, Final

NULL, NUMBER, STRING, OBJECT, LIST, BOOL, DATE, OTHER = range(8)

TYPES: Final = frozenset(
    {"null", "bool", "int", "float", "number", "string", "list", "object", "date"}
)
"""Names of types."""

ALIASES: Final = {
    "array": "list",
    "boolean": "bool",
    "double": "float",
    "integer": "int",
    "long": "int",
}
"""Other names, of MongoDB and JSON schema."""


def bracket(value: object) -> int:
    """Which bracket a value is of."""
    known = _BRACKETS.get(type(value))
    if known is not None:
        return known
    if isinstance(value, datetime):
        return STRING if value.tzinfo is None else DATE
    for types, found in _SUBCLASSES:
        if isinstance(value, types):
            return found
    return OTHER


_BRACKETS: dict[type, int] = {
    type(None): NULL,
    int: NUMBER,
    float: NUMBER,
    str: STRING,
    dict: OBJECT,
    list: LIST,
    tuple: LIST,
    bool: BOOL,
    date: STRING,
}
_SUBCLASSES: list[tuple[tuple[type, ...], int]] = [
    ((int, float), NUMBER),
    ((str, date), STRING),
    ((dict,), OBJECT),
    ((list, tuple), LIST),
]


def plain(value: Any) -> Any:
    """A scalar as it is compared: a date without a moment as its ISO string."""
    if isinstance(value, date) and bracket(value) == STRING:
        return value.isoformat()
    return value


def type_names(value: Any) -> frozenset[str]:
    """What ``$type`` calls a value: an int is "int" and "number"."""
    found = bracket(value)
    if found == NUMBER:
        return _INT if isinstance(value, int) else _FLOAT
    return _TYPE_NAMES[found]


_INT, _FLOAT = frozenset({"int", "number"}), frozenset({"float", "number"})
_TYPE_NAMES = {
    NULL: frozenset({"null"}),
    STRING: frozenset({"string"}),
    OBJECT: frozenset({"object"}),
    LIST: frozenset({"list"}),
    BOOL: frozenset({"bool"}),
    DATE: frozenset({"date"}),
    OTHER: frozenset[str](),
}


def order_key(value: Any) -> Any:
    """A key that sorts values of every kind: bracket by bracket. Equal values, equal keys.

    Hashable, so that sets and dicts by it find equal values.
    """
    found = bracket(value)
    if found == STRING:
        return (found, plain(value))
    if found == NUMBER:
        return (found, 0, 0) if value != value else (found, 1, value)
    if found == LIST:
        return (found, tuple(map(order_key, value)))
    if found == OBJECT:
        return (found, tuple((name, order_key(value[name])) for name in sorted(value)))
    if found == DATE:
        return (found, value.astimezone(UTC))
    if found == OTHER:
        return (found, type(value).__name__, id(value))
    return (found, value)


# --- moments ---------------------------------------------------------------------------------


def moment(value: Any) -> datetime | None:
    """The moment that a datetime or an ISO 8601 string stands for; None where it is neither.

    Without a timezone it counts as UTC; a bare day is its midnight.
    """
    try:
        if isinstance(value, str):
            if not 8 <= len(value) <= 40 or not value[0].isdigit():
                return None
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    return None


# --- tests of one value ----------------------------------------------------------------------

Test = Callable[[Any], bool]


def equals(operand: Any) -> Test:
    """Whether a value equals ``operand``."""
    found = bracket(operand)
    if found == DATE:
        at = moment(operand)
        return lambda value: bracket(value) in (DATE, STRING) and moment(value) == at
    wanted = order_key(operand)
    if found == STRING:
        at, text = moment(operand), plain(operand)
        return lambda value: (
            value == text
            if value.__class__ is str
            else (bracket(value) == STRING and plain(value) == text)
            or (at is not None and bracket(value) == DATE and moment(value) == at)
        )
    if found == NUMBER and operand == operand:
        return lambda value: (
            value == operand
            if value.__class__ in _NUMBERS
            else bracket(value) == NUMBER and value == operand
        )
    return lambda value: bracket(value) == found and order_key(value) == wanted


_NUMBERS = frozenset({int, float})


def one_of(operands: tuple[Any, ...]) -> Test:
    """Whether a value equals one of ``operands``: one look-up, however many there are."""
    keys = {order_key(operand) for operand in operands}
    moments = {at for operand in operands if (at := moment(operand)) is not None}
    dates = {moment(operand) for operand in operands if bracket(operand) == DATE}

    def test(value: Any) -> bool:
        if order_key(value) in keys:
            return True
        found = bracket(value)
        if found == DATE:
            return moment(value) in moments
        return found == STRING and bool(dates) and moment(value) in dates

    return test


def in_range(operator: str, operand: Any) -> Test:
    """Whether a value of the operand's bracket stands to it as ``operator`` says."""
    holds = _HOLDS[operator]
    found = bracket(operand)
    if found == DATE:
        at = moment(operand)

        def by_moment(value: Any) -> bool:
            if bracket(value) not in (DATE, STRING):
                return False
            then = moment(value)
            return then is not None and holds(then, at)

        return by_moment
    if found == NUMBER:
        if operand != operand:  # Not math.isnan: an int may be beyond every float.
            # NaN is before nothing and after nothing; with itself it is equal.
            return lambda value: (
                operator in ("$gte", "$lte") and isinstance(value, float) and math.isnan(value)
            )
        return lambda value: (
            holds(value, operand)
            if value.__class__ in _NUMBERS
            else bracket(value) == NUMBER and holds(value, operand)
        )
    if found == STRING:
        at, text = moment(operand), plain(operand)

        def by_text(value: Any) -> bool:
            kind = bracket(value)
            if kind == STRING:
                return holds(plain(value), text)
            return kind == DATE and at is not None and holds(moment(value), at)

        return by_text
    wanted = order_key(operand)
    return lambda value: bracket(value) == found and holds(order_key(value), wanted)


_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda left, right: left > right,
    "$gte": lambda left, right: left >= right,
    "$lt": lambda left, right: left < right,
    "$lte": lambda left, right: left <= right,
}
