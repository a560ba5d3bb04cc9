"""Groups and aggregates over columns, and different values.

The results are those of `treestore.query.aggregation` over the documents, whose accumulators are
what is filled here: with counts instead of rows, with the exact sums of stretches instead of
single numbers, and with the least and greatest value of a group instead of all of them. Several
column sets are added one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import numpy as np

from treestore.errors import InvalidArgument, ResourceExhausted
from treestore.model.namespaces import AttributeSchema
from treestore.query.aggregation import (
    GROUPS_MAX,
    Count,
    Extreme,
    Grouping,
    Groups,
    Sum,
    parse_grouping,
)
from treestore.query.values import order_key
from treestore.search.columns.bitmaps import check_name
from treestore.search.columns.column import LIST_CELL, NULL_CELL, Column, Lists, Plain
from treestore.search.columns.rows import Columns
from treestore.search.columns.values import FIRST_CODE, MISSING_CODE, NULL_CODE, Bools, Int64s

DISTINCT_MAX: Final = 1_000_000
"""Different values that are given."""

_STEP: Final = 1 << 14
"""Floats that are added up in one call: more would keep other threads waiting."""


def parse_groups(by: Any, aggregates: Any, attributes: Mapping[str, AttributeSchema]) -> Grouping:
    """What to group by and to calculate, as in collections; over attributes.

    Raises:
        InvalidArgument: it is none; the sentence says why.
    """
    grouping = parse_grouping(by, aggregates)
    paths = [path for _, path in grouping.by]
    paths += [path for _, _, path in grouping.aggregates if path is not None]
    for path in paths:
        name = ".".join(path)
        if len(path) > 1:
            raise InvalidArgument(
                f"Groups and aggregates are of attributes, not of what is inside of them: "
                f"{name!a:.80}."
            )
        check_name(name, attributes)
    return grouping


class ColumnGroups(Groups):
    """Groups of rows. Made of a `Grouping` whose paths are attributes (`parse_groups`)."""

    def add_rows(self, columns: Columns, rows: Bools) -> None:
        """The chosen rows of a column set.

        Raises:
            ResourceExhausted: there are too many groups.
        """
        chosen = np.flatnonzero(rows)
        if not len(chosen):
            return
        sets = [_same(columns.column(path[0]), chosen) for _, path in self._grouping.by]
        groups = _Partition.of(chosen, sets)
        if len(groups) > GROUPS_MAX:
            raise _too_many()
        accumulators = self._accumulators(columns, groups)
        for at, (_, _, path) in enumerate(self._grouping.aggregates):
            filled = [each[at] for each in accumulators]
            _fill(filled, None if path is None else columns.column(path[0]), groups)

    def _accumulators(self, columns: Columns, groups: _Partition) -> list[list[Any]]:
        """Those of each group, made where there were none."""
        by = [columns.column(path[0]) for _, path in self._grouping.by]
        found: list[list[Any]] = []
        for row in groups.firsts.tolist():
            values = [column.cell(row) for column in by]
            key = tuple(map(order_key, values))
            known = self._groups.get(key)
            if known is None:
                if len(self._groups) == GROUPS_MAX:
                    raise _too_many()
                known = values, [make() for _, make, _ in self._grouping.aggregates]
                self._groups[key] = known
            found.append(known[1])
        return found


def _too_many() -> ResourceExhausted:
    return ResourceExhausted(
        f"There are more than {GROUPS_MAX} groups; group by less, or narrow the filter."
    )


@attrs.frozen(eq=False)
class _Partition:
    """Rows, those of one group behind one another.

    Attributes:
        rows: the rows, in each group ascending.
        starts: where each group begins.
        firsts: the first row of each group.
    """

    rows: Int64s
    starts: Int64s
    firsts: Int64s

    @classmethod
    def of(cls, rows: Int64s, sets: Sequence[Int64s]) -> _Partition:
        """Of groups whose rows have the same number in each of ``sets``."""
        joined: Int64s = np.zeros(len(rows), np.int64)
        for numbers in sets:
            _, joined = np.unique(joined * (int(numbers.max()) + 1) + numbers, return_inverse=True)
        order = np.argsort(joined, kind="stable")
        sorted_groups = joined[order]
        starts = np.flatnonzero(np.append(True, sorted_groups[1:] != sorted_groups[:-1]))
        ordered = rows[order]
        return cls(ordered, starts, ordered[starts])

    def __len__(self) -> int:
        return len(self.starts)

    def numbers(self) -> Int64s:
        """Of each row the number of its group."""
        lengths = np.diff(np.append(self.starts, len(self.rows)))
        return np.repeat(np.arange(len(self.starts)), lengths)


def _same(column: Column, rows: Int64s) -> Int64s:
    """Of each row a number, the same where cells are equal; missing counts as null."""
    ranks = column.dictionary.ranks()
    if isinstance(column, Plain):
        return ranks[column.codes[rows]]
    assert isinstance(column, Lists)
    known: dict[bytes, int] = {}
    of_elements = ranks[column.codes]
    numbers = np.zeros(len(rows), np.int64)
    for at, (row, start, length) in enumerate(
        zip(rows.tolist(), column.starts[rows].tolist(), column.lengths[rows].tolist(), strict=True)
    ):
        if column.kinds[row] == LIST_CELL:
            key = of_elements[start : start + length].tobytes()
            numbers[at] = known.setdefault(key, len(known) + 1)
    return numbers


def _fill(accumulators: Sequence[Any], column: Column | None, groups: _Partition) -> None:
    """One aggregate of all groups."""
    first = accumulators[0]
    if column is None:
        ends = np.append(groups.starts[1:], len(groups.rows))
        for each, count in zip(accumulators, (ends - groups.starts).tolist(), strict=True):
            each.result += count
    elif isinstance(first, Count):
        present = column.present()[groups.rows]
        for each, count in zip(
            accumulators, np.add.reduceat(present, groups.starts, dtype=np.int64), strict=True
        ):
            each.result += int(count)
    elif isinstance(first, Sum):
        _fill_sums(accumulators, column, groups)
    else:
        assert isinstance(first, Extreme)
        _fill_extremes(accumulators, column, groups)


def _fill_sums(accumulators: Sequence[Sum], column: Column, groups: _Partition) -> None:
    """Exactly: ints in two halves, floats as few floats with the same sum."""
    if not isinstance(column, Plain):
        return  # A list is no number.
    codes = column.codes[groups.rows]
    numbers = column.dictionary.numbers
    kinds = np.concatenate([np.zeros(FIRST_CODE, np.uint8), numbers.kinds])[codes]
    counts = np.add.reduceat(kinds != 0, groups.starts, dtype=np.int64).tolist()
    places = np.maximum(codes.astype(np.int64) - FIRST_CODE, 0)
    ints = np.where(kinds == 1, numbers.ints[places], 0) if len(numbers.ints) else None
    if ints is None:
        return
    highs = np.add.reduceat(ints >> 32, groups.starts).tolist()
    lows = np.add.reduceat(ints & 0xFFFFFFFF, groups.starts).tolist()
    ends = [*groups.starts[1:].tolist(), len(codes)]
    any_floats, any_long = bool((kinds == 2).any()), bool((kinds == 3).any())
    for at, (each, start, end) in enumerate(
        zip(accumulators, groups.starts.tolist(), ends, strict=True)
    ):
        if not counts[at]:
            continue
        before = each.count
        each.add((highs[at] << 32) + lows[at])
        if any_floats:
            for low in range(start, end, _STEP):
                here = slice(low, min(low + _STEP, end))
                for part in exact_parts(numbers.floats[places[here][kinds[here] == 2]].tolist()):
                    each.add(part)
        if any_long:
            for place in places[start:end][kinds[start:end] == 3].tolist():
                each.add(column.dictionary.value(place))
        each.count = before + counts[at]


def exact_parts(floats: list[float]) -> list[float]:
    """A few floats whose exact sum is that of many; none of none."""
    if not floats:
        return []
    if not _is_small(floats):
        return floats
    parts: list[float] = []
    while True:
        part = math.fsum([*floats, *(-each for each in parts)])
        parts.append(part)
        if not part:
            return parts


def _is_small(floats: list[float]) -> bool:
    """Whether they are finite, and no sum of them overflows."""
    return math.isfinite(sum(floats)) and max(map(abs, floats)) * len(floats) < 1e307


def _fill_extremes(accumulators: Sequence[Extreme], column: Column, groups: _Partition) -> None:
    """The least and the greatest value that is not null, the first row's of equal ones."""
    if isinstance(column, Lists):
        ends = [*groups.starts[1:].tolist(), len(groups.rows)]
        for each, start, end in zip(accumulators, groups.starts.tolist(), ends, strict=True):
            for row in groups.rows[start:end].tolist():
                each.add(column.cell(row))
        return
    assert isinstance(column, Plain)
    ranks = column.dictionary.ranks()[column.codes[groups.rows]]
    numbers = groups.numbers()
    known = ranks > NULL_CODE
    low = np.where(known, ranks, np.iinfo(np.int64).max)
    for bounds in (
        np.minimum.reduceat(low, groups.starts),
        np.maximum.reduceat(ranks, groups.starts),
    ):
        at_bound = np.flatnonzero(known & (ranks == bounds[numbers]))
        owners, firsts = np.unique(numbers[at_bound], return_index=True)
        rows = groups.rows[at_bound[firsts]]
        for group, row in zip(owners.tolist(), rows.tolist(), strict=True):
            accumulators[group].add(column.cell(row))


class ColumnDistinct:
    """Different values of an attribute, those of lists' elements each for itself."""

    def __init__(self) -> None:
        self._found: dict[Any, Any] = {}

    def add_rows(self, column: Column, rows: Bools) -> None:
        """Those of the chosen rows.

        Raises:
            ResourceExhausted: they are too many.
        """
        if isinstance(column, Lists):
            codes = column.codes[rows[column.owners]]
            null = bool((rows & (column.kinds == NULL_CELL)).any())
        else:
            assert isinstance(column, Plain)
            codes, null = column.codes[rows], False
        size = FIRST_CODE + len(column.dictionary)
        # The first row's of equal ones: so from the last to the first.
        first = np.full(size, -1, np.int64)
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        first[MISSING_CODE] = -1
        places = np.flatnonzero(first >= 0)
        if null or first[NULL_CODE] >= 0:
            self._found.setdefault(order_key(None), None)
        for code in places[np.argsort(first[places])].tolist():
            if code >= FIRST_CODE:
                value = column.dictionary.value(code - FIRST_CODE)
                self._found.setdefault(order_key(value), value)
                if len(self._found) > DISTINCT_MAX:
                    raise ResourceExhausted(
                        "There are too many different values; narrow the filter."
                    )

    def results(self) -> list[Any]:
        """The values in their order."""
        return [self._found[key] for key in sorted(self._found)]
