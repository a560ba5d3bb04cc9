"""Columns that grow: one writer appends rows, and readers see a prefix of them.

Readers on other threads take no lock. Arrays are filled beyond what any reader looks at, then the
number of rows goes up; an array that is full is copied into a larger one, and who holds the old one
keeps it. Values are never taken out of a dictionary, and never change their code. So whatever is
read of the first n rows stays as it is. (This needs that setting an attribute, appending to a list
and putting into a dict are one step each, as the interpreter makes them.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from treestore.query.expression import Expression
from treestore.search.columns.bitmaps import bitmap
from treestore.search.columns.column import LIST_CELL, NULL_CELL, Column, Leaf, Lists, Plain
from treestore.search.columns.growingdictionary import GrowingDictionary
from treestore.search.columns.rows import Columns
from treestore.search.columns.statistics import Estimate
from treestore.search.columns.values import (
    FIRST_CODE,
    MISSING_CODE,
    NULL_CODE,
    Bools,
    cell_value,
    is_list_type,
)

_ABSENT: Final = object()
"""A document has no such attribute."""


class _Array:
    """An array that is filled from its beginning."""

    def __init__(self, dtype: type[Any], capacity: int = 64) -> None:
        self.data: NDArray[Any] = np.zeros(capacity, dtype)

    def put(self, at: int, value: Any) -> None:
        data = self.data
        if at >= len(data):
            data = np.zeros(max(2 * len(data), at + 1), data.dtype)
            data[: len(self.data)] = self.data
            self.data = data
        data[at] = value


class _GrowingPlain:
    """Cells that are no lists."""

    def __init__(self, type: str, count: int) -> None:
        self.dictionary = GrowingDictionary(with_moments=type == "datetime")
        self._codes = _Array(np.int32, max(64, count))

    def checked(self, value: Any) -> Any:
        return None if value is None else cell_value(value)

    def put(self, row: int, value: Any) -> None:
        code = MISSING_CODE if value is _ABSENT else NULL_CODE
        if value is not _ABSENT and value is not None:
            code = self.dictionary.code_of(value)
        self._codes.put(row, code)

    def view(self, count: int) -> Column:
        return Plain(self._codes.data[:count], self.dictionary)


class _GrowingLists:
    """Cells that are lists."""

    def __init__(self, type: str, count: int) -> None:
        self.dictionary = GrowingDictionary(with_moments=type == "array<datetime>")
        capacity = max(64, count)
        self._kinds = _Array(np.uint8, capacity)
        self._starts = _Array(np.int64, capacity)
        self._lengths = _Array(np.int32, capacity)
        self._codes = _Array(np.int32)
        self._owners = _Array(np.int32)
        self._filled = 0

    def checked(self, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise ValueError(f"a column of lists holds no {type(value).__name__}")
        return [None if element is None else cell_value(element) for element in value]

    def put(self, row: int, value: Any) -> None:
        if value is _ABSENT or value is None:
            self._set(row, NULL_CELL if value is None else 0, 0, 0)
            return
        start = self._filled
        for at, element in enumerate(value, start):
            code = NULL_CODE if element is None else self.dictionary.code_of(element)
            self._codes.put(at, code)
            self._owners.put(at, row)
        self._filled = start + len(value)
        self._set(row, LIST_CELL, start, len(value))

    def _set(self, row: int, kind: int, start: int, length: int) -> None:
        self._kinds.put(row, kind)
        self._starts.put(row, start)
        self._lengths.put(row, length)

    def view(self, count: int) -> Column:
        # Rows behind the prefix may have elements already.
        owners = self._owners.data[: self._filled]
        owners = owners[: int(owners.searchsorted(count))]
        return Lists(
            kinds=self._kinds.data[:count],
            starts=self._starts.data[:count],
            lengths=self._lengths.data[:count],
            codes=self._codes.data[: len(owners)],
            owners=owners,
            dictionary=self.dictionary,
        )


class GrowingColumns:
    """The attributes of rows that come one by one.

    One thread at a time appends; any may read.

    Args:
        types: of the attributes that are kept, by name: `treestore.model.namespaces.AttributeType`.
            The id, if wanted, is one of them: ``{"id": "string"}``.

    Attributes:
        count: rows that can be read.
    """

    def __init__(self, types: Mapping[str, str]) -> None:
        self.count = 0
        self._columns: dict[str, _GrowingPlain | _GrowingLists] = {}
        for name, type in types.items():
            self.add_attribute(name, type)

    def add_attribute(self, name: str, type: str) -> None:
        """Keep another attribute; rows that are there already have none."""
        if name in self._columns:
            raise ValueError(f"there is a column {name!r:.80} already")
        make = _GrowingLists if is_list_type(type) else _GrowingPlain
        # A copy: readers may be going over the old one.
        self._columns = {**self._columns, name: make(type, self.count)}

    def append(self, document: Mapping[str, Any]) -> int:
        """Add a row, and return its ordinal. Attributes that are not kept are passed over.

        Raises:
            ValueError: a value is none that a column holds; nothing was added.
        """
        row = self.count
        cells = [
            (column, column.checked(document[name]) if name in document else _ABSENT)
            for name, column in self._columns.items()
        ]
        for column, value in cells:
            column.put(row, value)
        self.count = row + 1
        return row

    def prefix(self, count: int | None = None) -> GrowingPrefix:
        """The first so many rows; None: all that there are now. It does not change any more."""
        if count is None:
            count = self.count
        elif count > self.count:
            raise ValueError(f"there are only {self.count} rows")
        return GrowingPrefix(count=count, source=self)

    def view(self, name: str, count: int) -> Column | None:
        """One column of the first so many rows; None: no such column."""
        column = self._columns.get(name)
        return None if column is None else column.view(count)

    @property
    def names(self) -> frozenset[str]:
        """The attributes that are kept."""
        return frozenset(self._columns)


@attrs.frozen(eq=False)
class GrowingPrefix(Columns):
    """The first rows of `GrowingColumns`, as they stay."""

    count: int
    source: GrowingColumns

    @property
    def names(self) -> frozenset[str]:
        return self.source.names

    def column(self, name: str) -> Column:
        found = self.source.view(name, self.count)
        return self.absent() if found is None else found

    def mask(self, leaf: Leaf) -> Bools:
        return self.column(leaf.path[0]).mask(leaf)

    def estimate(self, expression: Expression) -> Estimate:
        """Exactly: what grows is small, and has no statistics."""
        return Estimate.exactly(int(np.count_nonzero(bitmap(expression, self))))


assert FIRST_CODE == 2  # Zeroed memory is missing cells, and the first value comes behind null.
