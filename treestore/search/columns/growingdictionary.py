"""The dictionary of a growing column: values in the order in which they came.

What a condition says of the values is remembered for some conditions, and completed when values
have come since.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

import numpy as np

from treestore.query.expression import Contains, Glob, Regex
from treestore.query.ordering import encode
from treestore.query.sorting import SORT_VALUE_SIZE_BYTES_MAX
from treestore.query.values import (
    BOOL,
    DATE,
    NUMBER,
    STRING,
    bracket,
    in_range,
    order_key,
    type_names,
)
from treestore.search.columns.codes import NONE, NULL, Codes, stretches_of, truth_codes
from treestore.search.columns.dictionary import Dictionary, Numbers, moments_that, text_test
from treestore.search.columns.runs import micros_of, moment_of, text_moment
from treestore.search.columns.values import (
    FIRST_CODE,
    INT64_MAX,
    INT64_MIN,
    NULL_CODE,
    Bools,
    Int64s,
    identity,
    sortable,
    sorted_in_steps,
)

DECIDED_MAX: Final = 64
"""Conditions that are remembered."""

_INT, _FLOAT, _LONG, _TEXT, _BOOL, _MOMENT = 1, 2, 3, 4, 5, 6
"""Kinds of values; those of numbers are the ones of `Numbers`."""

_TYPE_SAMPLES: Final[dict[int, Any]] = {
    _INT: 0,
    _FLOAT: 0.0,
    _LONG: 0,
    _TEXT: "",
    _BOOL: False,
    _MOMENT: moment_of(0),
}


class GrowingDictionary(Dictionary):
    """Values in the order in which they came. One thread adds them (`code_of`), any may read.

    Args:
        with_moments: whether strings are mostly moments, and filters ask for them as such.
    """

    def __init__(self, *, with_moments: bool) -> None:
        self._with_moments = with_moments
        self._values: list[Any] = []
        self._codes: dict[Hashable, int] = {}
        self._brackets: set[int] = set()
        self._kinds = np.zeros(64, np.uint8)
        self._ints = np.zeros(64, np.int64)
        self._floats = np.zeros(64, np.float64)
        self._longest = 0
        self._decided: OrderedDict[Hashable, Bools] = OrderedDict()
        self._lock = threading.Lock()
        self._ranked: tuple[int, Int64s] | None = None

    def __len__(self) -> int:
        return len(self._values)

    def value(self, at: int) -> Any:
        return self._values[at]

    def values(self) -> Sequence[Any]:
        return self._values[:]

    # --- adding --------------------------------------------------------------------------------

    def code_of(self, value: Any) -> int:
        """The code of a value (`cell_value`), which is added if it is new."""
        key = value if value.__class__ is str else identity(value)
        code = self._codes.get(key)
        if code is None:
            at = len(self._values)
            code = FIRST_CODE + at
            self._fill(at, value)
            # Last, as it tells readers of the value.
            self._values.append(value)
            self._codes[key] = code
        return code

    def _fill(self, at: int, value: Any) -> None:
        if at >= len(self._kinds):
            self._kinds = _longer(self._kinds)
            self._ints = _longer(self._ints)
            self._floats = _longer(self._floats)
        kind = value.__class__
        if kind is str:
            self._kinds[at] = _TEXT
            self._brackets.add(STRING)
            self._longest = max(self._longest, len(value))
            if self._with_moments:
                self._ints[at] = text_moment(value)
        elif kind is bool:
            self._kinds[at], self._ints[at] = _BOOL, value
            self._brackets.add(BOOL)
        elif kind is float:
            self._kinds[at], self._floats[at] = _FLOAT, value
            self._brackets.add(NUMBER)
        elif kind is int:
            self._kinds[at] = _LONG if value > INT64_MAX else _INT
            self._brackets.add(NUMBER)
            if value <= INT64_MAX:
                self._ints[at] = value
        else:
            self._kinds[at], self._ints[at] = _MOMENT, micros_of(value)
            self._brackets.add(DATE)

    # --- conditions ----------------------------------------------------------------------------

    def has(self, bracket: int) -> bool:
        return bracket in self._brackets

    def equal(self, value: Any) -> Codes:
        found = [self._codes.get(key) for key in _identities(value)]
        return stretches_of((code, code + 1) for code in found if code is not None)

    def below(self, value: Any) -> Codes:
        if value is None:
            return NONE
        wanted = order_key(value)
        holds = [order_key(each) < wanted for each in self.values()]
        return _codes_of(np.array(holds, np.bool_)).united(NULL)

    def within(self, operator: str, value: Any) -> Codes:
        found = bracket(value)
        size = len(self._values)
        kinds, ints = self._kinds[:size], self._ints[:size]
        if found == NUMBER:
            return self._numbers_within(operator, value, size)
        if found == BOOL:
            return _codes_of((kinds == _BOOL) & _COMPARE[operator](ints, int(value)))
        if found == DATE:
            at = micros_of(order_key(value)[1])
            return _codes_of((kinds == _MOMENT) & _COMPARE[operator](ints, at))
        if found == STRING:
            return self._decide((operator, value), in_range(operator, value))
        return NONE

    def _numbers_within(self, operator: str, value: int | float, size: int) -> Codes:
        kinds = self._kinds[:size]
        floats = self._floats[:size]
        if value != value:
            if operator in ("$gt", "$lt"):
                return NONE
            return _codes_of((kinds == _FLOAT) & np.isnan(floats))
        holds = (kinds == _INT) & _ints_within(operator, value, self._ints[:size])
        holds |= (kinds == _FLOAT) & _floats_within(operator, value, floats)
        longs = np.flatnonzero(kinds == _LONG)
        if len(longs):
            test = in_range(operator, value)
            holds[longs] = [test(self._values[at]) for at in longs.tolist()]
        return _codes_of(holds)

    def texts_at(self, operator: str, micros: int) -> Codes:
        if not self._with_moments:
            test = in_range(operator, moment_of(micros)) if operator != "$eq" else None
            if test is None:
                return self._decide(("moment", micros), lambda text: text_moment(text) == micros)
            return self._decide(("moment", operator, micros), test)
        size = len(self._values)
        holds = moments_that(operator, self._ints[:size], micros)
        holds &= self._kinds[:size] == _TEXT
        return _codes_of(holds)

    def of_types(self, types: frozenset[str]) -> Codes:
        truth = np.zeros(8, np.bool_)
        for kind, sample in _TYPE_SAMPLES.items():
            truth[kind] = not types.isdisjoint(type_names(sample))
        codes = _codes_of(truth[self._kinds[: len(self._values)]])
        return codes.united(NULL) if "null" in types else codes

    def texts_with(self, condition: Contains | Regex | Glob) -> Codes:
        return self._decide(condition, text_test(condition))

    def _decide(self, key: Hashable, test: Callable[[str], bool]) -> Codes:
        """What a test says of each string; remembered under ``key``."""
        with self._lock:
            known = self._decided.get(key)
        size = len(self._values)
        done = 0 if known is None else min(len(known), size)
        holds = np.zeros(size, np.bool_)
        if known is not None:
            holds[:done] = known[:done]
        if done < size:
            texts = np.flatnonzero(self._kinds[done:size] == _TEXT) + done
            values = self._values
            holds[texts] = [test(values[at]) for at in texts.tolist()]
            with self._lock:
                self._decided[key] = holds
                self._decided.move_to_end(key)
                if len(self._decided) > DECIDED_MAX:
                    self._decided.popitem(last=False)
        return _codes_of(holds)

    # --- orders and sums -----------------------------------------------------------------------

    def ranks(self) -> Int64s:
        ranked = self._ranked
        size = len(self._values)
        if ranked is None or ranked[0] != size:
            ranked = self._ranked = (size, self._ranks_of(size))
        return ranked[1]

    def _ranks_of(self, size: int) -> Int64s:
        ranks = np.full(FIRST_CODE + size, NULL_CODE, np.int64)
        kinds = self._kinds[:size]
        if size and (kinds == kinds[0]).all():
            if kinds[0] in (_INT, _BOOL, _MOMENT, _FLOAT):
                # With 0.0 added, both zeros are one.
                ints = (
                    self._ints[:size] if kinds[0] != _FLOAT else sortable(self._floats[:size] + 0)
                )
                _, inverse = np.unique(ints, return_inverse=True)
                ranks[FIRST_CODE:] = inverse + FIRST_CODE
                return ranks
            if kinds[0] == _TEXT:
                order = sorted_in_steps(range(size), self._values.__getitem__)
                ranks[np.array(order) + FIRST_CODE] = np.arange(size) + FIRST_CODE
                return ranks
        keys = [order_key(value) for value in self._values[:size]]
        last: Any = None
        rank = NULL_CODE
        for at in sorted_in_steps(range(size), keys.__getitem__):
            rank += keys[at] != last
            last = keys[at]
            ranks[at + FIRST_CODE] = rank
        return ranks

    def sort_ranks(self) -> Int64s:
        ranks = self.ranks()
        limit = SORT_VALUE_SIZE_BYTES_MAX
        if 8 * self._longest + 2 <= limit:
            return ranks
        # Strings that agree as far as they count are one.
        cut = ranks.copy()
        last, rank = b"", NULL_CODE
        for code in np.argsort(ranks[FIRST_CODE:], kind="stable").tolist():
            encoded = encode(self._values[code], limit)
            rank += encoded != last
            last = encoded
            cut[code + FIRST_CODE] = rank
        return cut

    @property
    def numbers(self) -> Numbers:
        size = len(self._values)
        kinds = self._kinds[:size].copy()
        kinds[kinds > _LONG] = 0
        return Numbers(kinds, self._ints[:size], self._floats[:size])


def _identities(value: Any) -> Sequence[Hashable]:
    """The identities of all values that are equal to one."""
    found = bracket(value)
    if found == NUMBER:
        if value != value:
            return (identity(math.nan),)
        # As a key, 1.0 finds 1.
        return (value, ("float", value)) if value else (0, identity(0.0), identity(-0.0))
    if found == STRING:
        return (value,)
    if found == BOOL:
        return (identity(value),)
    return (order_key(value)[1],) if found == DATE else ()


def _longer(array: Any) -> Any:
    made = np.zeros(2 * len(array), array.dtype)
    made[: len(array)] = array
    return made


def _codes_of(holds: Bools) -> Codes:
    """The codes of values for which something holds."""
    truth = np.zeros(FIRST_CODE + len(holds), np.bool_)
    truth[FIRST_CODE:] = holds
    return truth_codes(truth)


_COMPARE: Final[dict[str, Callable[[Any, Any], Bools]]] = {
    "$gt": np.greater,
    "$gte": np.greater_equal,
    "$lt": np.less,
    "$lte": np.less_equal,
}


def _ints_within(operator: str, value: int | float, ints: Int64s) -> Bools:
    """Which ints stand to a number that is not NaN as the operator says; nothing is rounded."""
    if value in (math.inf, -math.inf):
        return np.full(len(ints), (value > 0) == (operator in ("$lt", "$lte")))
    # As whole numbers: above 1.5 is from 2 on.
    if operator in ("$gt", "$lte"):
        limit, operator = math.floor(value) + 1, "$gte" if operator == "$gt" else "$lt"
    else:
        limit = math.ceil(value)
    if limit > INT64_MAX or limit < INT64_MIN:
        return np.full(len(ints), (limit > 0) == (operator == "$lt"))
    return _COMPARE[operator](ints, limit)


def _floats_within(operator: str, value: int | float, floats: Any) -> Bools:
    """Likewise of floats."""
    try:
        near = float(value)
    except OverflowError:
        near = math.inf if value > 0 else -math.inf
    if near > value:
        operator = "$gte" if operator in ("$gt", "$gte") else "$lt"
    elif near < value:
        operator = "$gt" if operator in ("$gt", "$gte") else "$lte"
    return _COMPARE[operator](floats, near)
