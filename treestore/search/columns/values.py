"""What a cell of a column may hold.

A cell is missing, null, a value, or, in a column of lists, a list of values and nulls. Values are
strings, ints of 64 bits (with or without a sign), floats, bools, and datetimes with a timezone,
which are kept as moments in UTC.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from datetime import UTC, datetime
from heapq import merge
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
"""One bool for each row, or for each code."""

Ints = NDArray[np.integer[Any]]
Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

MISSING_CODE: Final = 0
"""The row has no value here."""

NULL_CODE: Final = 1
"""The row's value is null."""

FIRST_CODE: Final = 2
"""Of the dictionary's first value."""

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
UINT64_MAX: Final = 2**64 - 1

_STEP: Final = 4096
"""Values that are sorted in one call: more would stop the other threads for too long."""

Item = TypeVar("Item")


def cell_value(value: Any) -> Any:
    """A value as a column keeps it.

    Raises:
        ValueError: no column holds it.
    """
    kind = value.__class__
    if kind is str or kind is bool or kind is float:
        return value
    if kind is int:
        if INT64_MIN <= value <= UINT64_MAX:
            return value
        raise ValueError("an int in a column has 64 bits")
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    raise ValueError(f"a column holds no {kind.__name__}")


def identity(value: Any) -> Hashable:
    """A key that only the very same value has: 1, 1.0 and True differ, and 0.0 and -0.0."""
    kind = value.__class__
    if kind is bool:
        return ("bool", value)
    if kind is float:
        if value != value:
            return ("nan",)
        return ("float", value) if value else ("zero", math.copysign(1, value))
    key: Hashable = value
    return key


def is_list_type(type: str) -> bool:
    """Whether cells of attributes of this type are lists."""
    return type.startswith("array<")


def sorted_values(values: Iterable[Any]) -> list[list[Any]]:
    """Different values in the order of `treestore.query.values.order_key`, those of each bracket
    in a list of their own; no list is empty."""
    texts: list[Any] = []
    nans: list[Any] = []
    numbers: list[Any] = []
    bools: list[Any] = []
    moments: list[Any] = []
    for value in values:
        kind = value.__class__
        if kind is str:
            texts.append(value)
        elif kind is bool:
            bools.append(value)
        elif kind is int or kind is float:
            (numbers if value == value else nans).append(value)
        else:
            moments.append(value)
    ordered = [
        nans + sorted_in_steps(numbers),
        *map(sorted_in_steps, (texts, bools, moments)),
    ]
    return [run for run in ordered if run]


def sorted_in_steps(items: Iterable[Item], key: Any = None) -> list[Item]:
    """What ``sorted`` gives, in short calls, between which other threads can run."""
    waiting = list(items)
    runs = [
        sorted(waiting[at : at + _STEP], key=key) for at in range(0, max(1, len(waiting)), _STEP)
    ]
    return runs[0] if len(runs) == 1 else list(_in_steps(merge(*runs, key=key)))


def _in_steps(items: Iterable[Item]) -> Iterator[Item]:
    # A generator of ours: `list` over one in C would not let other threads in.
    yield from items


def sortable(floats: Floats) -> Int64s:
    """Ints in the order of floats: -0.0 just below 0.0, NaN before all."""
    bits = floats.view(np.int64)
    ordered: Int64s = bits ^ ((bits >> 63) & INT64_MAX)
    ordered[np.isnan(floats)] = INT64_MIN
    return ordered
