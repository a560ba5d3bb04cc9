"""How many rows a filter lets through, without going over the rows.

Of each column it is known how many rows have each value where the different values are few; where
they are many, the same of the most common ones, and of the others quantiles: the codes of every so
many-th row, in order. From them follow an estimate and bounds that hold for certain; conditions
that have to look at strings look at a sample. Conditions on one attribute are joined exactly, those
on several as if they did not depend on one another, within bounds that hold whether they do or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from treestore.query.expression import (
    And,
    Contains,
    Equal,
    Exists,
    Expression,
    Glob,
    In,
    Not,
    Or,
    Range,
    Regex,
    Size,
    Type,
)
from treestore.query.partial import names_in
from treestore.query.values import LIST, bracket
from treestore.search.columns.blobs import ColumnsDamaged
from treestore.search.columns.codes import Codes
from treestore.search.columns.column import (
    LIST_CELL,
    MISSING_CELL,
    NULL_CELL,
    Column,
    Leaf,
    Lists,
    Plain,
)
from treestore.search.columns.dictionary import Sorted, text_test
from treestore.search.columns.values import FIRST_CODE, MISSING_CODE, NULL_CODE, Int64s

COUNTED_MAX: Final = 1024
"""Different values of a column whose rows are all counted."""

COMMON_MAX: Final = 64
"""Of more: the most common ones, which are counted."""

QUANTILES: Final = 256
"""Into so many stretches of equal numbers of rows the others are divided."""

SAMPLE: Final = 200
"""Strings that are looked at."""

LENGTHS_MAX: Final = 64
"""Lists of so many elements or more are counted together."""


@attrs.frozen(kw_only=True)
class Estimate:
    """How many rows something is true of.

    Attributes:
        rows: about so many.
        rows_min, rows_max: at least and at most so many, for certain.
    """

    rows: float
    rows_min: int
    rows_max: int

    @classmethod
    def exactly(cls, rows: int) -> Estimate:
        """It is known."""
        return cls(rows=float(rows), rows_min=rows, rows_max=rows)

    def plus(self, other: Estimate) -> Estimate:
        """Of rows that either is true of, where both are true of none."""
        return Estimate(
            rows=self.rows + other.rows,
            rows_min=self.rows_min + other.rows_min,
            rows_max=self.rows_max + other.rows_max,
        )

    def within(self, count: int) -> Estimate:
        """The same, not outside of what so many rows and the bounds allow."""
        low = min(max(0, self.rows_min), count)
        high = min(max(low, self.rows_max), count)
        return Estimate(rows=min(max(self.rows, low), high), rows_min=low, rows_max=high)


def _counts_in(codes: Codes, cumulated: Int64s) -> int:
    """The sum over codes of counts, given their running sums (one more than there are codes)."""
    end = len(cumulated) - 1
    if codes.truth is not None:
        truth = codes.truth[:end]
        return int(np.diff(cumulated)[: len(truth)][truth].sum())
    return sum(
        int(cumulated[min(high, end)] - cumulated[min(low, end)]) for low, high in codes.stretches
    )


@attrs.frozen(eq=False)
class Spread:
    """How often values come: in rows, or in the elements of their lists.

    Attributes:
        size: different values.
        total: how many cells or elements have one, not counting null.
        counts: of each value, where they are few.
        common, common_counts: of the most common ones, by code; where they are many.
        quantiles: codes of the others, at equal distances among them.
    """

    size: int
    total: int
    counts: Int64s | None = None
    common: Int64s = attrs.field(factory=lambda: np.zeros(0, np.int64))
    common_counts: Int64s = attrs.field(factory=lambda: np.zeros(0, np.int64))
    quantiles: Int64s = attrs.field(factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, codes: NDArray[Any], size: int) -> Spread:
        """Of codes of values."""
        counts = np.bincount(codes[codes >= FIRST_CODE], minlength=FIRST_CODE + size)
        total = int(counts.sum())
        if size <= COUNTED_MAX:
            return cls(size, total, counts=counts)
        common = np.sort(np.argpartition(counts, -COMMON_MAX)[-COMMON_MAX:])
        common_counts = counts[common]
        counts[common] = 0
        places = np.linspace(0, counts.sum() - 1, QUANTILES + 1).astype(np.int64)
        quantiles = np.searchsorted(np.cumsum(counts), places, side="right")
        return cls(size, total, None, common, common_counts, quantiles)

    @property
    def others(self) -> int:
        """Cells whose value is none of the common ones."""
        return self.total - int(self.common_counts.sum())

    def inside(self, codes: Codes) -> Estimate:
        """How many have one of these codes."""
        if self.counts is not None:
            cumulated = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])
            return Estimate.exactly(_counts_in(codes, cumulated))
        is_common = codes.of(self.common)
        found = Estimate.exactly(int(self.common_counts[is_common].sum()))
        if codes.truth is None:
            for low, high in codes.stretches:
                found = found.plus(self._between(max(low, FIRST_CODE), high))
            return found.within(self.total)
        singles = np.flatnonzero(codes.truth[FIRST_CODE:]) + FIRST_CODE
        chosen = len(singles) - int(is_common.sum())
        each = self.others / max(1, self.size - len(self.common))
        most = chosen * int(self.common_counts.min())
        return found.plus(
            Estimate(rows=each * chosen, rows_min=chosen, rows_max=min(most, self.others))
        ).within(self.total)

    def _between(self, low: int, high: int) -> Estimate:
        """Of the values that are not common, those with codes from ``low`` to before ``high``."""
        rest = high - low - int(((self.common >= low) & (self.common < high)).sum())
        if rest <= 0:
            return Estimate.exactly(0)
        most = min(rest * int(self.common_counts.min()), self.others)
        if rest == 1:
            each = self.others / max(1, self.size - len(self.common))
            return Estimate(rows=min(each, most), rows_min=1, rows_max=most)
        below, above = self._before(low), self._before(high)
        return Estimate(
            rows=above.rows - below.rows,
            rows_min=max(rest, above.rows_min - below.rows_max),
            rows_max=max(rest, min(most, above.rows_max - below.rows_min)),
        ).within(self.others)

    def _before(self, code: int) -> Estimate:
        """How many cells have a code below, among those whose value is not common."""
        quantiles, others = self.quantiles, self.others
        at = int(quantiles.searchsorted(code, "left"))
        if at == 0:
            return Estimate.exactly(0)
        places = np.linspace(0, others - 1, QUANTILES + 1).astype(np.int64)
        if at > QUANTILES:
            return Estimate.exactly(others)
        low, high = int(places[at - 1]) + 1, int(places[at])
        share = (code - quantiles[at - 1]) / (quantiles[at] - quantiles[at - 1])
        return Estimate(rows=low + (high - low) * float(share), rows_min=low, rows_max=high)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `load` makes it of again."""
        if self.counts is not None:
            return {"counts": self.counts}
        return {
            "common": self.common,
            "common_counts": self.common_counts,
            "quantiles": self.quantiles,
        }

    @classmethod
    def load(cls, size: int, total: int, arrays: Mapping[str, NDArray[Any]]) -> Spread:
        """The one that gave these arrays.

        Raises:
            KeyError: one is not there.
        """
        if size <= COUNTED_MAX:
            counts = arrays["counts"]
            if len(counts) != FIRST_CODE + size or counts.sum() != total:
                raise ColumnsDamaged("not each value of a column is counted")
            return cls(size, total, counts=counts)
        common, counts, quantiles = (
            arrays[name] for name in ("common", "common_counts", "quantiles")
        )
        if len(common) != len(counts) or len(quantiles) != QUANTILES + 1:
            raise ColumnsDamaged("the statistics of a column do not fit together")
        return cls(size, total, None, common, counts, quantiles)


_MARK: Final = "statistics."


@attrs.frozen(eq=False)
class ColumnStatistics:
    """What is known of a column.

    Attributes:
        column: the one.
        missing, null: cells that are.
        null_elements: rows with a null in their list.
        lengths: rows with lists of 0, 1, … elements.
        spread: how often values come.
    """

    column: Column
    missing: int
    null: int
    null_elements: int
    lengths: Int64s
    spread: Spread

    @classmethod
    def of(cls, column: Column) -> ColumnStatistics:
        """Goes over the column."""
        size = len(column.dictionary)
        if isinstance(column, Lists):
            kinds = column.kinds
            nulls = np.unique(column.owners[column.codes == NULL_CODE])
            lengths = np.minimum(column.lengths[kinds == LIST_CELL], LENGTHS_MAX)
            # A row counts once for each different element.
            pairs = np.unique(column.owners * np.int64(FIRST_CODE + size) + column.codes)
            return cls(
                column,
                int((kinds == MISSING_CELL).sum()),
                int((kinds == NULL_CELL).sum()),
                len(nulls),
                np.bincount(lengths.astype(np.int64), minlength=LENGTHS_MAX + 1),
                Spread.of(pairs % (FIRST_CODE + size), size),
            )
        assert isinstance(column, Plain)
        missing = int((column.codes == MISSING_CODE).sum())
        null = int((column.codes == NULL_CODE).sum())
        return cls(column, missing, null, 0, np.zeros(0, np.int64), Spread.of(column.codes, size))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `load` makes it of again."""
        cells = np.array([self.missing, self.null, self.null_elements, self.spread.total])
        arrays = {"cells": cells, "lengths": self.lengths, **self.spread.arrays()}
        return {_MARK + name: array for name, array in arrays.items()}

    @classmethod
    def load(cls, column: Column, arrays: Mapping[str, NDArray[Any]]) -> ColumnStatistics:
        """The one that gave these arrays.

        Raises:
            KeyError, ColumnsDamaged: they are not those of the column's.
        """
        own = {
            name.removeprefix(_MARK): array
            for name, array in arrays.items()
            if name.startswith(_MARK)
        }
        cells, lengths = own["cells"], own["lengths"]
        expected = LENGTHS_MAX + 1 if isinstance(column, Lists) else 0
        if len(cells) != 4 or len(lengths) != expected:
            raise ColumnsDamaged("the statistics of a column do not fit together")
        missing, null, null_elements, total = cells.tolist()
        spread = Spread.load(len(column.dictionary), total, own)
        return cls(column, missing, null, null_elements, lengths, spread)

    def codes_of(self, expression: Expression) -> Codes | None:
        """The codes that a filter on this attribute alone lets through, where they are quickly
        found; None where they are not, or there may be several for a row."""
        column = self.column
        if not isinstance(column, Plain):
            return None
        if isinstance(expression, Not):
            part = self.codes_of(expression.part)
            return None if part is None else part.inverted(FIRST_CODE + len(column.dictionary))
        if isinstance(expression, And | Or):
            found: Codes | None = None
            for each in expression.parts:
                codes = self.codes_of(each)
                if codes is None:
                    return None
                if found is None:
                    found = codes
                elif isinstance(expression, And):
                    found = found.intersected(codes)
                else:
                    found = found.united(codes)
            return found
        if len(expression.path) > 1 or isinstance(expression, Contains | Regex | Glob):
            return None
        return column.codes_with(expression)

    def estimate_codes(self, codes: Codes) -> Estimate:
        """How many rows have one of these codes. Of a column without lists."""
        cells = self.missing * codes.holds(MISSING_CODE) + self.null * codes.holds(NULL_CODE)
        inside = self.spread.inside(_values_only(codes))
        return Estimate.exactly(cells).plus(inside).within(self.column.count)

    def estimate(self, leaf: Leaf) -> Estimate:
        """How many rows a condition on one path lets through."""
        count = self.column.count
        if isinstance(leaf, Exists) and len(leaf.path) == 1:
            return Estimate.exactly(count - self.missing)
        if len(leaf.path) > 1:
            return Estimate.exactly(int(np.count_nonzero(self.column.mask(leaf))))
        if isinstance(self.column, Lists):
            return self._of_lists(self.column, leaf).within(count)
        assert isinstance(self.column, Plain)
        if isinstance(leaf, Contains | Regex | Glob):
            return self._of_texts(leaf).within(count)
        return self.estimate_codes(self.column.codes_with(leaf))

    def _of_texts(self, leaf: Contains | Regex | Glob) -> Estimate:
        """A sample of the strings that come into question."""
        dictionary = self.column.dictionary
        assert isinstance(dictionary, Sorted)
        low, high = dictionary.stretch_for(leaf)
        if high - low <= SAMPLE or self.spread.counts is not None:
            return self.spread.inside(_values_only(dictionary.matching(leaf)))
        test = text_test(leaf)
        common = self.spread.common
        inside = (common >= low) & (common < high)
        holds = np.array(
            [test(dictionary.value(code - FIRST_CODE)) for code in common[inside].tolist()],
            np.bool_,
        )
        sure = int(self.spread.common_counts[inside][holds].sum())
        never = int(self.spread.common_counts[inside].sum()) - sure
        places = np.unique(np.linspace(low, high - 1, SAMPLE).astype(np.int64))
        hits = sum(test(dictionary.value(code - FIRST_CODE)) for code in places.tolist())
        all_of_them = self.spread.inside(Codes(((low, high),)))
        # One more of each kind: a sample without a hit is no proof that there is none.
        share = (hits + 0.5) / (len(places) + 1)
        rest = max(0.0, all_of_them.rows - sure - never)
        return Estimate(
            rows=sure + rest * share, rows_min=sure, rows_max=all_of_them.rows_max - never
        )

    def _of_lists(self, column: Lists, leaf: Leaf) -> Estimate:
        count = column.count
        lists = count - self.missing - self.null
        if isinstance(leaf, Size):
            at = min(leaf.count, LENGTHS_MAX)
            rows = int(self.lengths[at])
            least = rows if at < LENGTHS_MAX else 0
            return Estimate(rows=float(rows), rows_min=least, rows_max=rows)
        if isinstance(leaf, Type) and "list" in leaf.types:
            return Estimate.exactly(lists + self.null * ("null" in leaf.types))
        codes = column.elements_with(leaf)
        found = self._with_elements(codes, lists)
        if _looks_at_whole(leaf):
            found = attrs.evolve(found, rows_max=lists)
        cells = 0
        if isinstance(leaf, Equal | In) and codes.holds(MISSING_CODE):
            cells = self.missing + self.null
        elif isinstance(leaf, Type) and "null" in leaf.types:
            cells = self.null
        return found.plus(Estimate.exactly(cells))

    def _with_elements(self, codes: Codes, lists: int) -> Estimate:
        """Lists that have an element with one of these codes."""
        nulls = self.null_elements if codes.holds(NULL_CODE) else 0
        values = _values_only(codes)
        cells = self.spread.inside(values).plus(Estimate.exactly(nulls))
        if not lists:
            return Estimate.exactly(0)
        if self.spread.counts is not None:
            truth = values.truth_of(len(self.spread.counts))
            of_each = np.append(self.spread.counts[truth], nulls)
            free = float(np.prod(1 - np.minimum(of_each / lists, 1)))
            least = int(of_each.max())
        else:
            # Each element of a list has one of them with the same probability.
            other = 1 - min(1.0, cells.rows / max(1, self.spread.total))
            free = float((self.lengths * other ** np.arange(len(self.lengths))).sum()) / lists
            least = 1 if cells.rows_min else 0
        return Estimate(
            rows=lists * (1 - free), rows_min=least, rows_max=min(lists, cells.rows_max)
        )


def _values_only(codes: Codes) -> Codes:
    """Without missing and null."""
    if codes.truth is not None:
        truth = codes.truth.copy()
        truth[:FIRST_CODE] = False
        return Codes(truth=truth)
    return Codes(
        tuple((max(low, FIRST_CODE), high) for low, high in codes.stretches if high > FIRST_CODE)
    )


def _looks_at_whole(leaf: Leaf) -> bool:
    """Whether a condition also holds for lists because of what they are as a whole."""
    if isinstance(leaf, Equal | Range):
        return bracket(leaf.value) == LIST
    return isinstance(leaf, In) and any(bracket(value) == LIST for value in leaf.values)


# --- whole filters ---------------------------------------------------------------------------


def estimate_of(
    expression: Expression, statistics: Callable[[str], ColumnStatistics], count: int
) -> Estimate:
    """How many of ``count`` rows a filter lets through.

    Args:
        statistics: gives those of an attribute.
    """
    if isinstance(expression, Not):
        return _other(estimate_of(expression.part, statistics, count), count)
    if not isinstance(expression, And | Or):
        return statistics(expression.path[0]).estimate(expression)
    by_name: dict[frozenset[str], list[Expression]] = {}
    for part in expression.parts:
        by_name.setdefault(names_in(part), []).append(part)
    estimates: list[Estimate] = []
    for names, parts in by_name.items():
        if len(names) == 1:
            (name,) = names
            known = statistics(name)
            codes = known.codes_of(type(expression)(tuple(parts)))
            if codes is not None:
                estimates.append(known.estimate_codes(codes))
                continue
        estimates += [estimate_of(part, statistics, count) for part in parts]
    if isinstance(expression, And):
        return _all_of(estimates, count)
    return _other(_all_of([_other(each, count) for each in estimates], count), count)


def _other(part: Estimate, count: int) -> Estimate:
    return Estimate(
        rows=count - part.rows, rows_min=count - part.rows_max, rows_max=count - part.rows_min
    )


def _all_of(parts: list[Estimate], count: int) -> Estimate:
    share = 1.0
    for part in parts:
        share *= part.rows / count if count else 0.0
    return Estimate(
        rows=share * count,
        rows_min=sum(part.rows_min for part in parts) - (len(parts) - 1) * count,
        rows_max=min((part.rows_max for part in parts), default=count),
    ).within(count)
