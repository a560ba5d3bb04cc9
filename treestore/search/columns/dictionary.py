"""Dictionaries: the different values of a column, and which of them a condition holds for.

`Dictionary` is what conditions, orders and groups ask; `Sorted` is the sealed one. Its values are
runs, one for each kind (`treestore.search.columns.runs`), in the order of kinds; so codes ascend as
values do, and equality and ranges are stretches of codes.

Every answer is what `treestore.query.matching` says of a document whose only value is the one in
question: where a stretch is found by searching, the rules of `treestore.query.values` are followed;
everything else is decided by its tests, once for each value.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import attrs
import numpy as np

from treestore.query import patterns
from treestore.query.bounds import literal_prefix
from treestore.query.expression import (
    Contains,
    Equal,
    Exists,
    Glob,
    In,
    Range,
    Regex,
    Type,
)
from treestore.query.sorting import SORT_VALUE_SIZE_BYTES_MAX
from treestore.query.values import DATE, NUMBER, STRING, bracket, moment, type_names
from treestore.search.columns.codes import (
    NONE,
    NOTHING,
    NULL,
    Codes,
    Stretch,
    stretches_of,
    truth_codes,
)
from treestore.search.columns.runs import (
    NO_MOMENT,
    VALUES_KEPT_MAX,
    FloatRun,
    IntRun,
    NumberRun,
    Run,
    TextRun,
    make_run,
    micros_of,
)
from treestore.search.columns.values import (
    FIRST_CODE,
    NULL_CODE,
    Bools,
    Floats,
    Int64s,
)

Condition = Equal | In | Range | Exists | Type | Contains | Regex | Glob
"""What may be asked of a value that is no list; its path plays no part."""


@attrs.frozen(eq=False)
class Numbers:
    """The numbers of a dictionary, for sums.

    Attributes:
        kinds: of each value: 0 no number, 1 an int of 64 bits with a sign, 2 a float, 3 a
            longer int.
        ints, floats: the value where it is of that kind, else 0.
    """

    kinds: np.ndarray[Any, np.dtype[np.uint8]]
    ints: Int64s
    floats: Floats


class Dictionary(ABC):
    """The different values of a column. The code of the value at ``at`` is ``FIRST_CODE + at``."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def value(self, at: int) -> Any:
        """One of them."""

    @abstractmethod
    def values(self) -> Sequence[Any]:
        """All of them."""

    @abstractmethod
    def has(self, bracket: int) -> bool:
        """Whether a value is of a bracket."""

    @abstractmethod
    def equal(self, value: Any) -> Codes:
        """The codes of values that are equal to one that is not null (`order_key`)."""

    @abstractmethod
    def below(self, value: Any) -> Codes:
        """The codes of values, null included, that are below one (`order_key`)."""

    @abstractmethod
    def within(self, operator: str, value: Any) -> Codes:
        """The codes of values of a value's bracket that stand to it as the operator of a range
        says."""

    @abstractmethod
    def texts_at(self, operator: str, micros: int) -> Codes:
        """The codes of strings that are moments and stand to one as the operator says."""

    @abstractmethod
    def of_types(self, types: frozenset[str]) -> Codes:
        """The codes of values, null included, of some types."""

    @abstractmethod
    def texts_with(self, condition: Contains | Regex | Glob) -> Codes:
        """The codes of strings that satisfy a condition."""

    @abstractmethod
    def ranks(self) -> Int64s:
        """Of each code a number that ascends with its value, the same where values are equal:
        `NULL_CODE` for null and missing, larger ones for others."""

    @abstractmethod
    def sort_ranks(self) -> Int64s:
        """Likewise, where values are equal that are equal for `treestore.query.sorting`."""

    @property
    @abstractmethod
    def numbers(self) -> Numbers:
        """Those of its values that are numbers."""

    # --- conditions ----------------------------------------------------------------------------

    def matching(self, condition: Condition) -> Codes:
        """The codes, those of missing and null included, for which a condition holds."""
        if isinstance(condition, Equal):
            return self._equal_to(condition.value)
        if isinstance(condition, In):
            return self._one_of(condition.values)
        if isinstance(condition, Range):
            return self._in_range(condition.operator, condition.value)
        if isinstance(condition, Exists):
            return Codes(((NULL_CODE, FIRST_CODE + len(self)),))
        if isinstance(condition, Type):
            return self.of_types(condition.types)
        return self.texts_with(condition)

    def _equal_to(self, value: Any) -> Codes:
        """What `treestore.query.values.equals` says."""
        if value is None:
            return NOTHING
        found = bracket(value)
        if found == DATE:
            return self._at_moment("$eq", value)
        codes = self.equal(value)
        if found == STRING and self.has(DATE) and (at := moment(value)) is not None:
            return codes.united(self.equal(at))
        return codes

    def _one_of(self, values: Sequence[Any]) -> Codes:
        found: list[Stretch] = []
        others = NONE
        for value in values:
            codes = self._equal_to(value)
            if codes.truth is None:
                found += codes.stretches
            else:
                others = others.united(codes)
        return stretches_of(found).united(others)

    def _in_range(self, operator: str, value: Any) -> Codes:
        """What `treestore.query.values.in_range` says."""
        found = bracket(value)
        if found == DATE:
            return self._at_moment(operator, value)
        codes = self.within(operator, value)
        if found == STRING and self.has(DATE) and (at := moment(value)) is not None:
            return codes.united(self.within(operator, at))
        return codes

    def _at_moment(self, operator: str, value: Any) -> Codes:
        """Datetimes and strings that stand to a moment as the operator says."""
        at = moment(value)
        if at is None:
            return NONE
        dates = self.equal(at) if operator == "$eq" else self.within(operator, at)
        if not self.has(STRING):
            return dates
        return self.texts_at(operator, micros_of(at)).united(dates)


def numbers_of(values: Sequence[Any]) -> Numbers:
    """`Numbers` of any values."""
    count = len(values)
    numbers = Numbers(np.zeros(count, np.uint8), np.zeros(count, np.int64), np.zeros(count))
    for at, value in enumerate(values):
        if value.__class__ is int:
            if -(2**63) <= value < 2**63:
                numbers.kinds[at], numbers.ints[at] = 1, value
            else:
                numbers.kinds[at] = 3
        elif value.__class__ is float:
            numbers.kinds[at], numbers.floats[at] = 2, value
    return numbers


class Sorted(Dictionary):
    """An immutable dictionary of sorted runs."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)
        self._starts: list[int] = []
        self._by_bracket: dict[int, tuple[Run, int]] = {}
        size = 0
        last = -1
        for run in runs:
            if run.bracket <= last or not len(run):
                raise ValueError("the runs of a dictionary are not in order")
            last = run.bracket
            self._starts.append(size)
            self._by_bracket[run.bracket] = (run, FIRST_CODE + size)
            size += len(run)
        self._size = size

    @classmethod
    def of(cls, runs: Sequence[Sequence[Any]], *, with_moments: bool = False) -> Sorted:
        """The dictionary of values in their order (`sorted_values`). Numbers that are equal but
        not the same (1 and 1.0) stay two."""
        return cls([make_run(values, with_moments=with_moments) for values in runs])

    def __len__(self) -> int:
        return self._size

    def value(self, at: int) -> Any:
        for run, start in zip(reversed(self.runs), reversed(self._starts), strict=True):
            if at >= start:
                return run.value(at - start)
        raise IndexError(at)

    def values(self) -> Sequence[Any]:
        if len(self.runs) == 1:
            return self.runs[0].values()
        return [value for run in self.runs for value in run.values()]

    # --- conditions ----------------------------------------------------------------------------

    def has(self, bracket: int) -> bool:
        return bracket in self._by_bracket

    def equal(self, value: Any) -> Codes:
        found = self._by_bracket.get(bracket(value))
        if found is None:
            return NONE
        run, first = found
        low, high = run.bounds(value)
        return Codes(((first + low, first + high),)) if low < high else NONE

    def below(self, value: Any) -> Codes:
        found = bracket(value)
        if value is None:
            return NONE
        end = FIRST_CODE
        for run, start in zip(self.runs, self._starts, strict=True):
            if run.bracket > found:
                break
            inside = run.bounds(value)[0] if run.bracket == found else len(run)
            end = FIRST_CODE + start + inside
        return Codes(((NULL_CODE, end),))

    def _one_of(self, values: Sequence[Any]) -> Codes:
        text = self._by_bracket.get(STRING)
        if text is not None and len(values) > 16 and len(text[0]) <= VALUES_KEPT_MAX:
            text[0].values()  # Keeps them: looking each of many up is quicker then.
        return super()._one_of(values)

    def within(self, operator: str, value: Any) -> Codes:
        found = self._by_bracket.get(bracket(value))
        if found is None:
            return NONE
        run, first = found
        low, high = run.bounds(value)
        nans = 0
        if run.bracket == NUMBER:
            nans = run.bounds(math.nan)[1]
            if value != value:
                # NaN is before nothing and after nothing; with itself it is equal.
                return stretches_of([(first, first + nans)] if operator in ("$gte", "$lte") else [])
        if operator in ("$gt", "$gte"):
            return stretches_of([(first + (high if operator == "$gt" else low), first + len(run))])
        return stretches_of([(first + nans, first + (low if operator == "$lt" else high))])

    def texts_at(self, operator: str, micros: int) -> Codes:
        run, first = self._by_bracket[STRING]
        assert isinstance(run, TextRun)
        truth = np.zeros(first + len(run), np.bool_)
        truth[first:] = moments_that(operator, run.moments, micros)
        return truth_codes(truth)

    def of_types(self, types: frozenset[str]) -> Codes:
        codes = NULL if "null" in types else NONE
        for run, start in zip(self.runs, self._starts, strict=True):
            first = FIRST_CODE + start
            if isinstance(run, NumberRun):
                truth = np.zeros(first + len(run), np.bool_)
                truth[first:] = [not types.isdisjoint(type_names(each)) for each in run.values()]
                codes = codes.united(truth_codes(truth))
            elif not types.isdisjoint(type_names(run.value(0))):
                codes = codes.united(Codes(((first, first + len(run)),)))
        return codes

    def texts_with(self, condition: Contains | Regex | Glob) -> Codes:
        found = self._by_bracket.get(STRING)
        if found is None:
            return NONE
        run, first = found
        assert isinstance(run, TextRun)
        low, high = self.stretch_for(condition)
        if low == high:
            return NONE
        test = text_test(condition)
        truth = np.zeros(high, np.bool_)
        truth[low:] = [test(value) for value in run.stretch(low - first, high - first)]
        return truth_codes(truth)

    def stretch_for(self, condition: Contains | Regex | Glob) -> Stretch:
        """The codes of strings that come into question: those that begin as they have to."""
        text = self._by_bracket.get(STRING)
        if text is None:
            return FIRST_CODE, FIRST_CODE
        run, first = text
        assert isinstance(run, TextRun)
        low, high = 0, len(run)
        if prefix := prefix_of(condition):
            low, high = run.beginning_with(prefix)
        return first + low, first + high

    # --- orders and sums -----------------------------------------------------------------------

    def ranks(self) -> Int64s:
        return self._ranks

    @cached_property
    def _ranks(self) -> Int64s:
        return self._ranked([run.ranks() for run in self.runs])

    def sort_ranks(self) -> Int64s:
        return self._sort_ranks

    @cached_property
    def _sort_ranks(self) -> Int64s:
        limit = SORT_VALUE_SIZE_BYTES_MAX
        text = self._by_bracket.get(STRING)
        if text is None or not isinstance(text[0], TextRun) or text[0].cut_ranks(limit) is None:
            return self._ranks
        return self._ranked(
            [run.cut_ranks(limit) if isinstance(run, TextRun) else run.ranks() for run in self.runs]
        )

    def _ranked(self, of_runs: Sequence[Int64s | None]) -> Int64s:
        parts = [np.array([NULL_CODE, NULL_CODE], np.int64)]
        first = FIRST_CODE
        for run, ranks in zip(self.runs, of_runs, strict=True):
            known = np.arange(len(run), dtype=np.int64) if ranks is None else ranks
            parts.append(known + first)
            first += len(run)
        return np.concatenate(parts)

    @property
    def numbers(self) -> Numbers:
        return self._numbers

    @cached_property
    def _numbers(self) -> Numbers:
        count = self._size
        numbers = Numbers(np.zeros(count, np.uint8), np.zeros(count, np.int64), np.zeros(count))
        if (found := self._by_bracket.get(NUMBER)) is not None:
            # Numbers come before every other kind.
            run = found[0]
            here = slice(0, len(run))
            if isinstance(run, IntRun):
                numbers.kinds[here], numbers.ints[here] = 1, run.array
            elif isinstance(run, FloatRun):
                numbers.kinds[here], numbers.floats[here] = 2, run.array
            else:
                some = numbers_of(run.values())
                numbers.kinds[here], numbers.ints[here] = some.kinds, some.ints
                numbers.floats[here] = some.floats
        return numbers


def moments_that(operator: str, moments: Int64s, at: int) -> Bools:
    """Which moments, in microseconds, stand to one as the operator says."""
    compare: Callable[[Int64s, int], Bools] = _COMPARE[operator]
    holds = compare(moments, at)
    if operator in ("$lt", "$lte"):
        holds &= moments != NO_MOMENT
    return holds


_COMPARE: dict[str, Any] = {
    "$eq": np.equal,
    "$gt": np.greater,
    "$gte": np.greater_equal,
    "$lt": np.less,
    "$lte": np.less_equal,
}


def prefix_of(condition: Contains | Regex | Glob) -> str:
    """What every string begins with that satisfies a condition; "" if unknown."""
    if isinstance(condition, Glob):
        return condition.prefix
    if isinstance(condition, Regex) and not condition.options:
        return literal_prefix(condition.pattern)
    return ""


def text_test(condition: Contains | Regex | Glob) -> Callable[[str], bool]:
    """What `treestore.query.matching` asks of a string."""
    if isinstance(condition, Regex):
        return patterns.regex(condition.pattern, condition.options)
    if isinstance(condition, Glob):
        return patterns.glob(condition.pattern, ignore_case=condition.ignore_case)
    parts = [value for value in condition.values if isinstance(value, str)]
    if len(parts) == 1:
        (part,) = parts
        return lambda text: part in text
    return lambda text: any(part in text for part in parts)
