"""Reads filters as most are written, without the words that `treestore.query.parse` keeps at hand
for faults: a third of the time.

Conditions on fields, all of which are to hold: a plain value to be equal to, or comparisons with
plain values. Everything else, faults included, is for the parser.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from treestore.query.expression import And, Equal, Expression, Path, Range, RangeOperator
from treestore.query.parse import NAMES_MAX, PATH_SIZE_MAX

CONDITIONS_MAX: Final = 16
"""Filters with more are for the parser, which bounds them."""

_VALUES: Final = frozenset({int, float, bool, str})

_OPERATORS: Final[dict[str, RangeOperator]] = {
    "$gt": "$gt",
    "$gte": "$gte",
    "$lt": "$lt",
    "$lte": "$lte",
}


def read_quickly(filter: Any) -> Expression | None:
    """What the parser makes of a filter; None where that is to be asked."""
    if filter.__class__ is not dict or len(filter) > CONDITIONS_MAX:
        return None
    parts: list[Expression] = []
    for name, condition in filter.items():
        if name.__class__ is not str:
            return None
        path = _path(name)
        if path is None:
            return None
        kind = condition.__class__
        if kind in _VALUES:
            if kind is str and not _is_text(condition):
                return None
            parts.append(Equal(path, condition))
        elif kind is not dict or not _add_ranges(parts.append, path, condition):
            return None
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _add_ranges(add: Callable[[Expression], None], path: Path, comparisons: dict[Any, Any]) -> bool:
    """Take in comparisons; False where they are for the parser."""
    for operator, value in comparisons.items():
        known = _OPERATORS.get(operator) if operator.__class__ is str else None
        kind = value.__class__
        if known is None or kind not in _VALUES or (kind is str and not _is_text(value)):
            return False
        add(Range(path, known, value))
    return bool(comparisons) and len(comparisons) <= CONDITIONS_MAX


@lru_cache(maxsize=1024)
def _path(name: str) -> Path | None:
    """The path that a name stands for; None where it is an operator, or none."""
    if len(name) > PATH_SIZE_MAX or name[:1] == "$" or not _is_text(name):
        return None
    names = tuple(name.split("."))
    return None if "" in names or len(names) > NAMES_MAX else names


def _is_text(value: str) -> bool:
    """Whether it is free of halves of surrogate pairs."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
