"""Orders of rows: by attributes, then by id, over any number of column sets.

The order is that of collections (`treestore.query.sorting`): null and missing first, then numbers,
strings, booleans and dates; of a list the least element counts, or, descending, the greatest, and
an empty one comes before everything else. What is equal in all attributes is in the order of its
ids, in the direction of the last attribute.

`first_rows` finds the first of the chosen rows of one column set: values are compared by their
ranks in the dictionaries, so no row is decoded but those that are given. What it gives has a
*position*, bytes that ascend in the order, so that what several sets gave can be merged (`merged`);
the position of the last one is what a cursor says.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
import numpy as np

from treestore.errors import InvalidArgument
from treestore.model.namespaces import AttributeSchema
from treestore.query.ordering import encode, end_of
from treestore.query.sorting import (
    EMPTY_LIST,
    SORT_FIELDS_MAX,
    SORT_VALUE_SIZE_BYTES_MAX,
    inverted,
    to_pairs,
)
from treestore.search.columns.bitmaps import ID, check_name
from treestore.search.columns.column import LIST_CELL, Column, Lists, Plain
from treestore.search.columns.rows import Columns
from treestore.search.columns.values import FIRST_CODE, NULL_CODE, Bools, Int64s

_EMPTY: Final = NULL_CODE - 1
"""Rank of an empty list: before null."""


@attrs.frozen
class RowOrder:
    """An order of rows. Made by `parse_order`.

    Attributes:
        fields: attributes, and whether each is descending; the id last.
    """

    fields: tuple[tuple[str, bool], ...]

    def check_position(self, position: bytes) -> None:
        """See that bytes are a position in this order.

        Raises:
            ValueError: they are not.
        """
        if list(self.split(position))[-1][:1] == EMPTY_LIST:
            raise ValueError("a position ends with an id")

    def split(self, position: bytes, ids: IdForm | None = None) -> Iterator[bytes]:
        """Of each field the encoding of the value that counts, as if it ascended.

        Raises:
            ValueError: it is no position.
        """
        at = 0
        for name, descending in self.fields:
            data = inverted(position) if descending else position
            if name == ID and ids is not None:
                yield data[at:]
                return
            is_empty = data[at : at + 1] == EMPTY_LIST
            end = at + 1 if is_empty else end_of(data, at, SORT_VALUE_SIZE_BYTES_MAX)
            yield data[at:end]
            at = end
        if at != len(position):
            raise ValueError("something follows the position")


def parse_order(order_by: Any, attributes: Mapping[str, AttributeSchema]) -> RowOrder:
    """The order that a user names, as in collections: ``"-year"``, ``[("year", -1), "name"]``.

    Raises:
        InvalidArgument: it is none; the sentence says what is wrong.
    """
    fields: list[tuple[str, bool]] = []
    for name, direction in to_pairs(order_by):
        if not isinstance(name, str):
            raise InvalidArgument(f"order_by names attributes, not {type(name).__name__}s.")
        check_name(name, attributes)
        if any(name == other for other, _ in fields):
            raise InvalidArgument(f"order_by has the attribute {name!a:.60} twice.")
        fields.append((name, direction < 0))
        if name == ID:
            return RowOrder(tuple(fields))  # No two are equal in it.
    if len(fields) > SORT_FIELDS_MAX:
        raise InvalidArgument(f"order_by has {len(fields)} attributes; at most {SORT_FIELDS_MAX}.")
    return RowOrder((*fields, (ID, bool(fields) and fields[-1][1])))


@attrs.frozen(eq=False)
class IdForm:
    """How positions have the id, where that is not as they have other values: strings come first.

    Attributes:
        pack: the bytes of the id of a row.
        unpack: the id in these.
    """

    pack: Callable[[int], bytes]
    unpack: Callable[[bytes], int | str]


Found = tuple[bytes, int]
"""A position, and the ordinal of the row that is there."""


def first_rows(
    columns: Columns,
    rows: Bools,
    order: RowOrder,
    count: int | None = None,
    *,
    after: bytes | None = None,
    ids: IdForm | None = None,
) -> list[Found]:
    """The first of the chosen rows, in their order.

    Takes 16 bytes for each field and chosen row.

    Args:
        rows: for each row whether it is chosen.
        count: how many at most; None: all.
        after: a position, behind which to begin.
        ids: the form of ids in positions; None: that of other values.

    Raises:
        ValueError: ``after`` is no position in this order.
    """
    chosen = np.flatnonzero(rows)
    fields = [
        _Field(columns.column(name), descending)
        if name != ID or ids is None
        else _IdField(columns.column(name), descending, ids)
        for name, descending in order.fields
    ]
    if after is not None:
        chosen = _behind(chosen, fields, list(order.split(after, ids)))
    wanted = len(chosen) if count is None else min(count, len(chosen))
    if wanted < len(chosen):
        chosen = _least(chosen, fields, wanted)
    keys = [field.keys(chosen) for field in fields]
    ordered = chosen[np.lexsort(keys[::-1])]
    return [(b"".join([field.encoded(row) for field in fields]), row) for row in ordered.tolist()]


def merged(parts: Iterable[Iterable[tuple[bytes, Any]]]) -> Iterator[tuple[bytes, Any]]:
    """What several column sets gave, in the order."""
    return heapq.merge(*parts, key=lambda found: found[0])


class _Field:
    """One attribute of an order."""

    def __init__(self, column: Column, descending: bool) -> None:
        self._column = column
        self._descending = descending
        self._ranks = column.dictionary.sort_ranks()
        self._of_rows = self._ranks_of_lists(column) if isinstance(column, Lists) else None

    def ranks(self, rows: Int64s) -> Int64s:
        """Of each row the rank of the value that counts."""
        if self._of_rows is not None:
            return self._of_rows[rows]
        assert isinstance(self._column, Plain)
        return self._ranks[self._column.codes[rows]]

    def keys(self, rows: Int64s) -> Int64s:
        """Likewise, ascending in the field's direction."""
        ranks = self.ranks(rows)
        return -ranks if self._descending else ranks

    def _ranks_of_lists(self, column: Lists) -> Int64s:
        ranks = np.full(column.count, NULL_CODE, np.int64)
        of_elements = self._ranks[column.codes]
        filled = np.flatnonzero(column.lengths > 0)
        if len(filled):
            # Filled lists lie behind one another, in the order of their rows.
            starts = np.searchsorted(column.owners, filled)
            least = np.maximum if self._descending else np.minimum
            ranks[filled] = least.reduceat(of_elements, starts)
        ranks[(column.kinds == LIST_CELL) & (column.lengths == 0)] = _EMPTY
        return ranks

    def encoded(self, row: int) -> bytes:
        """The part of a row's position."""
        value = self._column.cell(row)
        limit = SORT_VALUE_SIZE_BYTES_MAX
        if not isinstance(value, list):
            data = encode(value, limit)
        elif value:
            encodings = [encode(element, limit) for element in value]
            data = max(encodings) if self._descending else min(encodings)
        else:
            data = EMPTY_LIST
        return inverted(data) if self._descending else data

    def around(self, encoded: bytes) -> tuple[int, int]:
        """The ranks from the first to before the second are those of an encoding; if there are
        none, both are where they would be."""
        if encoded == EMPTY_LIST:
            return _EMPTY, _EMPTY + 1
        if encoded == encode(None):
            return NULL_CODE, NULL_CODE + 1
        order, ranks = self._ordered()
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if self._encoding(int(order[middle])) < encoded:
                low = middle + 1
            else:
                high = middle
        if low == len(order):
            end = int(ranks[-1]) + 1 if len(order) else FIRST_CODE
            return end, end
        rank = int(ranks[low])
        return rank, rank + (self._encoding(int(order[low])) == encoded)

    def _ordered(self) -> tuple[Int64s, Int64s]:
        """Places in the dictionary in the order of their ranks, and these."""
        ranks = self._ranks[FIRST_CODE:]
        order = np.argsort(ranks, kind="stable")
        return order, ranks[order]

    def _encoding(self, at: int) -> bytes:
        return encode(self._column.dictionary.value(at), SORT_VALUE_SIZE_BYTES_MAX)

    def compared(self, rows: Int64s, encoded: bytes) -> tuple[Bools, Bools]:
        """Which rows lie behind a place in this field's direction, and which at it."""
        low, high = self.around(encoded)
        ranks = self.ranks(rows)
        behind = ranks < low if self._descending else ranks >= high
        return behind, (ranks >= low) & (ranks < high)


class _IdField(_Field):
    """The id, in a form of its own, in which strings come before numbers."""

    def __init__(self, column: Column, descending: bool, ids: IdForm) -> None:
        super().__init__(column, descending)
        self._ids = ids
        plain = self._plain_ranks = self._ranks
        is_number = column.dictionary.numbers.kinds[: len(plain) - FIRST_CODE] != 0
        self._shift = int(plain.max(initial=0)) + 2
        if is_number.any():
            self._ranks = plain.astype(np.int64)
            self._ranks[FIRST_CODE:][is_number] += self._shift

    def encoded(self, row: int) -> bytes:
        data = self._ids.pack(row)
        return inverted(data) if self._descending else data

    def around(self, encoded: bytes) -> tuple[int, int]:
        id = self._ids.unpack(encoded)
        shifted, self._ranks = self._ranks, self._plain_ranks
        low, high = super().around(encode(id, SORT_VALUE_SIZE_BYTES_MAX))
        self._ranks = shifted
        if isinstance(id, str):
            return low, high
        return low + self._shift, high + self._shift


def _behind(rows: Int64s, fields: list[_Field], place: list[bytes]) -> Int64s:
    """The rows that lie behind a place."""
    kept: list[Int64s] = []
    for field, encoded in zip(fields, place, strict=True):
        behind, same = field.compared(rows, encoded)
        kept.append(rows[behind])
        rows = rows[same]
    return np.sort(np.concatenate(kept))


def _least(rows: Int64s, fields: list[_Field], count: int) -> Int64s:
    """The first so many rows, in no particular order: of those that are equal in one field the
    next decides."""
    kept: list[Int64s] = []
    for field in fields:
        if count == 0:
            break
        keys = field.keys(rows)
        bound = np.partition(keys, count - 1)[count - 1]
        sure = rows[keys < bound]
        kept.append(sure)
        rows = rows[keys == bound]
        count -= len(sure)
        if len(rows) == count:
            break
    kept.append(rows[:count])
    return np.concatenate(kept)
