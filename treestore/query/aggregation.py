"""Groups of documents, and what is calculated of each.

Documents are grouped by the values at some paths: equal values, as filters compare them, are one
group. A path that leads to several values gives the list of them; where there is no value the
group is that of null. An aggregate takes the value at its path: sums and means those that are
numbers, least and greatest those that are not null, in the order of all values. Sums are exact:
neither the order of documents nor what cancels out makes a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final

import attrs

from treestore.errors import InvalidArgument, ResourceExhausted
from treestore.model.plans import Group
from treestore.query.expression import Path
from treestore.query.paths import MISSING, compiled
from treestore.query.sorting import parse_path
from treestore.query.values import NUMBER, bracket, order_key

GROUPS_MAX: Final = 100_000
"""Groups of one query."""

BY_MAX: Final = 16
"""Paths to group by."""

AGGREGATES_MAX: Final = 100
"""Aggregates of one query."""

_LARGE: Final = 1e300
"""Sums of floats below do not overflow before they are above."""


class Count:
    """How many documents there are, or have a value."""

    def __init__(self) -> None:
        self.result = 0

    def add(self, value: Any) -> None:
        """Another document."""
        if value is not MISSING:
            self.result += 1


class Sum:
    """The sum of numbers; 0 of none. Exact: what comes in between may be beyond every float.

    Floats are added up without an error (Shewchuk's partials), very large ones as fractions. What
    is not finite is added up as the processor does.
    """

    def __init__(self) -> None:
        self.count = 0
        self._whole = 0
        self._partials: list[float] | None = None
        self._large = Fraction(0)
        self._not_finite: float | None = None

    def add(self, value: Any) -> None:
        """Another document."""
        if isinstance(value, bool):
            return
        if isinstance(value, int):
            self.count += 1
            self._whole += value
        elif isinstance(value, float):
            self.count += 1
            if self._partials is None:
                self._partials = []
            if -_LARGE < value < _LARGE:
                self._add_float(value)
            elif math.isfinite(value):
                self._large += Fraction(value)
            else:
                self._not_finite = (self._not_finite or 0.0) + value

    def _add_float(self, value: float) -> None:
        partials = self._partials
        assert partials is not None
        kept = 0
        for other in partials:
            large, small = (value, other) if abs(value) >= abs(other) else (other, value)
            total = large + small
            rest = small - (total - large)
            if rest:
                partials[kept] = rest
                kept += 1
            value = total
        partials[kept:] = [value]
        if not -_LARGE < value < _LARGE:
            self._large += Fraction(partials.pop())

    @property
    def result(self) -> Any:
        """An int where all numbers were."""
        if self._partials is None:
            return self._whole
        if self._not_finite is not None:
            return self._not_finite
        if not self._large and -_LARGE < self._whole < _LARGE:
            return math.fsum([*self._partials, *_as_floats(self._whole)])
        exact = self._large + self._whole + sum(map(Fraction, self._partials))
        try:
            return float(exact)
        except OverflowError:
            return math.inf if exact > 0 else -math.inf


def _as_floats(whole: int) -> list[float]:
    """Floats whose sum is an int, or as near as they get."""
    parts: list[float] = []
    while whole and len(parts) < 4:
        part = float(whole)
        parts.append(part)
        whole -= int(part)
    return parts


class Mean(Sum):
    """The mean of numbers; None of none."""

    @property
    def result(self) -> Any:
        """A float."""
        return super().result / self.count if self.count else None


class Extreme:
    """The least or greatest value; None of none."""

    def __init__(self, greatest: bool) -> None:
        self.result: Any = None
        self._key: Any = None
        self._greatest = greatest

    def add(self, value: Any) -> None:
        """Another document."""
        if value is MISSING or value is None:
            return
        key = order_key(value)
        if self._key is None or (key > self._key if self._greatest else key < self._key):
            self._key, self.result = key, value


_KINDS: Final[dict[str, Callable[[], Any]]] = {
    "count": Count,
    "sum": Sum,
    "avg": Mean,
    "min": lambda: Extreme(False),
    "max": lambda: Extreme(True),
}


@attrs.frozen
class Grouping:
    """What to group by and what to calculate. Made by `parse_grouping`."""

    by: tuple[tuple[str, Path], ...]
    aggregates: tuple[tuple[str, Callable[[], Any], Path | None], ...]

    @property
    def names(self) -> frozenset[str]:
        """Fields at the top of a document that are looked at."""
        paths = [path for _, path in self.by] + [p for _, _, p in self.aggregates if p is not None]
        return frozenset(path[0] for path in paths)


def parse_grouping(by: Any, aggregates: Any) -> Grouping:
    """Understand what a query groups by.

    Raises:
        InvalidArgument: it cannot; the sentence says why.
    """
    if by is None:
        by = []
    elif isinstance(by, str):
        by = [by]
    if not isinstance(by, list | tuple) or len(by) > BY_MAX:
        raise InvalidArgument(f"by is a path, or a list of at most {BY_MAX} paths.")
    if not isinstance(aggregates, Mapping) or len(aggregates) > AGGREGATES_MAX:
        raise InvalidArgument(
            "aggregates is an object of at most 100 names and what to calculate, such as "
            '{"total": {"$sum": "amount"}, "documents": {"$count": {}}}.'
        )
    made = tuple(_aggregate(name, wanted) for name, wanted in aggregates.items())
    return Grouping(tuple((name, parse_path(name, "by")) for name in by), made)


def _aggregate(name: Any, wanted: Any) -> tuple[str, Callable[[], Any], Path | None]:
    if not isinstance(name, str):
        raise InvalidArgument("The names of aggregates are strings.")
    if isinstance(wanted, str):
        wanted = {wanted: None}
    if not isinstance(wanted, Mapping) or len(wanted) != 1:
        raise InvalidArgument(
            f'aggregates.{name:.60} is one of {_known()} and a path, such as {{"$sum": "amount"}}.'
        )
    ((operator, path),) = wanted.items()
    kind = operator.removeprefix("$") if isinstance(operator, str) else None
    if kind not in _KINDS:
        raise InvalidArgument(
            f"aggregates.{name:.60}: there is no {operator!a:.60}; there are {_known()}."
        )
    if path is None or path == {}:
        if kind != "count":
            raise InvalidArgument(f"aggregates.{name:.60}: {operator} is of the values at a path.")
        return name, Count, None
    return name, _KINDS[kind], parse_path(path, f"aggregates.{name:.60}")


def _known() -> str:
    return ", ".join(f"${kind}" for kind in _KINDS)


class Groups:
    """Groups as they come to be."""

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._by = [_value_at(path) for _, path in grouping.by]
        self._paths = [
            None if path is None else _value_at(path) for _, _, path in grouping.aggregates
        ]
        self._groups: dict[Any, tuple[list[Any], list[Any]]] = {}

    def add(self, document: Any) -> None:
        """Another document.

        Raises:
            ResourceExhausted: there are too many groups.
        """
        values = [at(document) for at in self._by]
        values = [None if value is MISSING else value for value in values]
        key = tuple(map(order_key, values))
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) == GROUPS_MAX:
                raise ResourceExhausted(
                    f"There are more than {GROUPS_MAX} groups; group by less, or narrow the filter."
                )
            group = values, [make() for _, make, _ in self._grouping.aggregates]
            self._groups[key] = group
        for aggregate, at in zip(group[1], self._paths, strict=True):
            aggregate.add(None if at is None else at(document))

    def results(self) -> list[Group]:
        """The groups, in the order of their values."""
        names = [name for name, _ in self._grouping.by]
        found: list[Group] = []
        for key in sorted(self._groups):
            values, aggregates = self._groups[key]
            results = {
                name: aggregate.result
                for (name, _, _), aggregate in zip(
                    self._grouping.aggregates, aggregates, strict=True
                )
            }
            found.append(Group(by=dict(zip(names, values, strict=True)), values=results))
        return found


def _value_at(path: Path) -> Callable[[Any], Any]:
    values_at = compiled(path)

    def value(document: Any) -> Any:
        values = [each for each in values_at(document) if each is not MISSING]
        if len(values) == 1:
            return values[0]
        return values or MISSING

    return value


class Distinct:
    """Different values at a path, those of lists' elements each for itself."""

    def __init__(self, path: Path, size_bytes_max: int) -> None:
        self._values_at = compiled(path)
        self._found: dict[Any, Any] = {}
        self._left = size_bytes_max

    def add(self, document: Any) -> None:
        """Another document.

        Raises:
            ResourceExhausted: the values take too much memory.
        """
        for value in self._values_at(document):
            for each in value if isinstance(value, list | tuple) else (value,):
                if each is MISSING:
                    continue
                key = order_key(each)
                if key not in self._found:
                    self._found[key] = each
                    self._left -= 200 if bracket(each) == NUMBER else 200 + 2 * len(str(each))
                    if self._left < 0:
                        raise ResourceExhausted(
                            "There are too many different values; narrow the filter."
                        )

    def results(self) -> list[Any]:
        """The values in their order."""
        return [self._found[key] for key in sorted(self._found)]
