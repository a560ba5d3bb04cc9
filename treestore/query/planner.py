"""Plans: how the documents that a query asks for are found.

A plan is an access path and what is left to do behind it: check the filter, sort. `plan` lists
those that give the right answer, guesses what each costs, and takes the cheapest one; a wrong guess
costs time and nothing else. It knows indexes by their `IndexInfo`, and estimates of how many
entries lie in a stretch of one. What makes an access path right:

1. Every document that satisfies the filter has an entry in its stretches
   (`treestore.query.bounds`): conditions on several fields of an index combine, those on one path
   only where no document has more than one entry. A sparse index is used only where some field's
   stretches leave out null.
2. Documents need no check only where each condition of the filter became exact stretches.
3. Entries come in the order of the query only where the index is not a multikey one, and its
   fields, without those of which one value is asked for, are those of the order, all in one
   direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Final, Literal

import attrs

from treestore.query.bounds import BEHIND, Interval, Intervals, intersected, intervals_of
from treestore.query.expression import And, Equal, Expression, In, Path, Range
from treestore.query.ordering import IndexInfo
from treestore.query.sorting import ID, Order

RANGES_MAX: Final = 10_000
"""Stretches of one index that a plan goes through."""

ESTIMATES_MAX: Final = 16
"""Stretches of one index that are estimated; the others count as like them."""

INTERSECTED_MAX: Final = 4
"""Indexes whose pairs are considered."""

# Costs in microseconds, as measured; only what they are to each other matters.
SCAN_US: Final = 1.3
"""A document in a scan: decoded as far as needed and checked."""
FETCH_US: Final = 3.0
"""A document that an entry leads to."""
ENTRY_US: Final = 0.3
"""An entry of an index."""
COUNT_US: Final = 0.02
"""An entry that is only counted."""
SEEK_US: Final = 4.0
"""The way to the beginning of a stretch."""
SORT_US: Final = 1.0
"""A document, or an id, that is put in order."""

_SELECTIVITY: Final = {Equal: 0.05, In: 0.1, Range: 0.3}
_OTHER_SELECTIVITY: Final = 0.4

Estimate = Callable[[IndexInfo | None, bytes, bytes], int]
"""About how many entries of an index (None: documents, by id) lie in a stretch."""

Kind = Literal["scan", "ids", "index", "intersection"]


@attrs.define(kw_only=True, eq=False)  # Not frozen: that takes three times as long to make.
class Access:
    """A way to find candidates.

    Attributes:
        kind: all documents; those with certain ids; through an index; those that two have.
        index: of kind "index".
        ranges: stretches, ascending and apart: of an index's entries (ids not counted), or of ids.
            Of kind "scan": one, of all.
        fixed: fields of the index of which each stretch holds one value only.
        exact: whether every candidate satisfies what the stretches stand for.
        parts: of kind "intersection": two others.
        entries: about how many entries, or documents, there are in the stretches.
        answers: conditions of the filter that need no check then, by their number.
        constants: fields of the index of which there is one value only, and its encoding.
    """

    kind: Kind
    index: IndexInfo | None = None
    ranges: tuple[Interval, ...] = ()
    fixed: int = 0
    parts: tuple[Access, ...] = ()
    entries: int = 0
    answers: frozenset[int] = frozenset()
    constants: dict[Path, bytes] = attrs.field(factory=dict)


@attrs.define(kw_only=True, eq=False)
class Plan:
    """An access path and what is done behind it.

    Attributes:
        check: whether the filter is checked on each document.
        ordered: whether candidates come in the query's order.
        reverse: whether the access path is gone through from its end.
        rows: about how many documents satisfy the filter; 0 where it makes no difference.
        cost: about how long it takes, in microseconds; likewise.
    """

    access: Access
    check: bool
    ordered: bool
    reverse: bool
    rows: float = 0.0
    cost: float = 0.0


@attrs.define(kw_only=True, eq=False)
class Task:
    """What is asked for.

    Attributes:
        conditions: all of which hold.
        order: of the documents; None: any.
        count: how many of the first are wanted; None: all.
        counted_only: only how many there are is asked for.
    """

    conditions: tuple[Expression, ...]
    order: Order | None
    count: int | None = None
    counted_only: bool = False


def conditions_of(expression: Expression) -> tuple[Expression, ...]:
    """What all must hold."""
    return expression.parts if isinstance(expression, And) else (expression,)


def plan(
    task: Task, indexes: Sequence[IndexInfo], estimate: Estimate, *, thoroughly: bool = False
) -> tuple[Plan, list[Plan]]:
    """The cheapest plan, and those that were thought of besides.

    Args:
        thoroughly: think of, and estimate, all of them, though one be the best of all anyway.
    """
    return _Planner(task, indexes, estimate).choose(thoroughly=thoroughly)


class _Planner:
    def __init__(self, task: Task, indexes: Sequence[IndexInfo], estimate: Estimate) -> None:
        self.task = task
        self.indexes = indexes
        self.estimate = estimate
        self.total = 0
        self.shares: dict[frozenset[int], float] = {}
        """Of conditions, by their numbers, what part of all documents satisfies them together."""

    def choose(self, *, thoroughly: bool) -> tuple[Plan, list[Plan]]:
        """The plan to take, and what else was thought of."""
        accesses: list[Access] = []
        for access in self._accesses():
            if not thoroughly and self._is_perfect(access):
                reverse = self.task.order is not None and self.task.order.id_descending
                return Plan(access=access, check=False, ordered=True, reverse=reverse), []
            accesses.append(access)
        for access in accesses:
            self._count_entries(access)
        self.total = accesses[-1].entries
        for access in accesses:
            self._learn(access)
        plans = [self._finished(access) for access in accesses + self._intersections(accesses)]
        chosen = min(plans, key=lambda each: (not self._is_perfect(each.access), each.cost))
        others = sorted((p for p in plans if p is not chosen), key=lambda each: each.cost)
        return chosen, others

    def _accesses(self) -> Iterator[Access]:
        """What leads to all documents that are asked for; not yet estimated. All of them last."""
        by_id = self._by_id()
        if by_id is not None:
            yield by_id
        for index in self.indexes:
            access = self._through(index) if index.ready else None
            if access is not None:
                yield access
        yield Access(kind="scan", ranges=((b"", b"\xff"),))

    def _is_perfect(self, access: Access) -> bool:
        """Whether it gives the documents that are asked for, in order, and no others: then nothing
        is better, however many there are."""
        if len(access.answers) < len(self.task.conditions) or access.parts:
            return False
        once = access.index is None or not access.index.multikey or len(access.ranges) == 1
        return once and self._is_ordered(access)

    def _count_entries(self, access: Access) -> None:
        """Estimate it."""
        if access.kind == "ids" and access.fixed:
            access.entries = len(access.ranges)
        else:
            access.entries = self._count(access.index, access.ranges)

    # -- access paths ---------------------------------------------------------------------------

    def _by_id(self) -> Access | None:
        """Documents by their id."""
        found = self._stretches((ID,), 1 << 30, single=True)
        if found is None:
            return None
        intervals, answers = found
        ranges = tuple(part for part in map(_as_ids, intervals.parts) if part[0] < part[1])
        return Access(
            kind="ids",
            ranges=ranges,
            fixed=int(intervals.points),
            answers=answers if intervals.exact else frozenset(),
        )

    def _stretches(
        self, path: Path, size_bytes_max: int, *, single: bool
    ) -> tuple[Intervals, frozenset[int]] | None:
        """What the conditions ask of a path, and which of them that answers.

        Args:
            single: whether every document has a single value there.
        """
        found: list[tuple[Intervals, int]] = []
        for number, condition in enumerate(self.task.conditions):
            intervals = intervals_of(condition, path, size_bytes_max)
            if intervals is not None:
                found.append((intervals, number))
        if not found:
            return None
        if len(found) == 1:
            ((only, number),) = found
            return only, frozenset((number,) if only.exact else ())
        if not single:
            best = min(found, key=lambda each: (not each[0].points, len(each[0].parts)))
            return best[0], frozenset((best[1],) if best[0].exact else ())
        intervals = found[0][0]
        for other, _ in found[1:]:
            intervals = intersected(intervals, other)
        return intervals, frozenset(number for each, number in found if each.exact)

    def _through(self, index: IndexInfo) -> Access | None:
        """Candidates through an index; None where it is of no use."""
        ranges: list[Interval] = [(b"", BEHIND)]
        answers: set[int] = set()
        constants: dict[Path, bytes] = {}
        fixed = bounded = 0
        without_null = False
        limit = index.value_size_bytes_max
        for path in index.fields:
            found = self._stretches(path, limit, single=not index.multikey)
            if found is None or len(ranges) * len(found[0].parts) > RANGES_MAX:
                break
            intervals, answered = found
            bounded += 1
            answers |= answered
            without_null = without_null or not intervals.hold_null
            if fixed:
                ranges = [
                    (start + low, start + high)
                    for (start, _), (low, high) in product(ranges, intervals.parts)
                ]
            else:
                ranges = [*intervals.parts]
            if not intervals.points:
                break
            if len(intervals.parts) == 1 and not index.multikey:
                (point,) = intervals.parts
                if len(point[0]) <= limit:
                    constants[path] = point[0]
            fixed += 1
        order = self.task.order
        if not bounded and not (order and order.fields and order.fields[0][0] == index.fields[0]):
            return None
        if index.sparse and not without_null:
            return None
        access = Access(
            kind="index",
            index=index,
            ranges=tuple(ranges),
            fixed=fixed,
            answers=frozenset(answers),
            constants=constants,
        )
        return access if bounded or self._is_ordered(access) else None

    def _intersections(self, accesses: list[Access]) -> list[Access]:
        """Pairs of indexes that answer different conditions."""
        through = [access for access in accesses if access.index and access.answers]
        useful = sorted(through, key=lambda access: access.entries)
        pairs: list[Access] = []
        for at, one in enumerate(useful[:INTERSECTED_MAX]):
            for other in useful[at + 1 : INTERSECTED_MAX]:
                if other.answers <= one.answers or one.answers <= other.answers:
                    continue
                share = self._share(one.answers | other.answers)
                pairs.append(
                    Access(
                        kind="intersection",
                        parts=(one, other),
                        entries=round(self.total * share),
                        answers=one.answers | other.answers,
                    )
                )
        return pairs

    # -- estimates ------------------------------------------------------------------------------

    def _count(self, index: IndexInfo | None, ranges: Sequence[Interval]) -> int:
        if not ranges:
            return 0
        step = -(-len(ranges) // ESTIMATES_MAX)
        some = ranges[::step]
        entries = sum(self.estimate(index, low, high) for low, high in some)
        return entries * len(ranges) // len(some)

    def _learn(self, access: Access) -> None:
        """What part of the documents satisfies the conditions that an access path answers."""
        if access.answers:
            share = min(access.entries / max(self.total, 1), 1.0)
            self.shares[access.answers] = min(share, self.shares.get(access.answers, 1.0))

    def _share(self, numbers: frozenset[int]) -> float:
        """What part of the documents satisfies some conditions: those together of which it is
        known, the others as if they were independent."""
        share, left = 1.0, numbers
        for known in sorted(self.shares, key=len, reverse=True):
            if known <= left:
                share *= self.shares[known]
                left -= known
        for number in left:
            condition = self.task.conditions[number]
            share *= _SELECTIVITY.get(type(condition), _OTHER_SELECTIVITY)
        return share

    # -- plans ----------------------------------------------------------------------------------

    def _is_ordered(self, access: Access) -> bool:
        """Whether candidates, gone through forwards or backwards, come in the query's order."""
        order, index = self.task.order, access.index
        if order is None:
            return True
        if index is None:
            return access.kind != "intersection" and not order.fields
        if not order.fields:
            return access.fixed == len(index.fields) and len(access.ranges) <= 1
        constants = access.constants
        if index.multikey:
            return False
        wanted = [(path, down) for path, down in order.fields if path not in constants]
        fields = [path for path in index.fields if path not in constants]
        return wanted == [(path, order.id_descending) for path in fields]

    def _finished(self, access: Access) -> Plan:
        """The plan that uses an access path, with its cost."""
        task = self.task
        everything = frozenset(range(len(task.conditions)))
        check = access.answers != everything
        ordered = self._is_ordered(access)
        rows = min(self.total * self._share(everything), access.entries)
        rest = min(rows / max(access.entries, 1), 1.0)
        entries = float(access.entries)
        if ordered and task.count is not None and rest > 0:
            entries = min(entries, task.count / rest)
        cost = SEEK_US * max(len(access.ranges), 1)
        if access.kind == "scan":
            cost += entries * (SCAN_US if check or not ordered else COUNT_US)
        elif access.kind == "ids":
            cost += entries * (FETCH_US if access.fixed else SCAN_US)
        else:
            cost += self._entries_cost(access, entries)
            cost += self._fetch_cost(entries, rest, check=check, ordered=ordered)
        if not ordered:
            cost += rows * SORT_US
        reverse = ordered and task.order is not None and task.order.id_descending
        return Plan(
            access=access, check=check, ordered=ordered, reverse=reverse, rows=rows, cost=cost
        )

    def _entries_cost(self, access: Access, entries: float) -> float:
        if access.kind == "intersection":
            return sum(2 * ENTRY_US * part.entries for part in access.parts)
        assert access.index is not None
        counted = self.task.counted_only and not access.index.multikey
        return entries * (COUNT_US if counted else ENTRY_US)

    def _fetch_cost(self, entries: float, rest: float, *, check: bool, ordered: bool) -> float:
        task = self.task
        if not check and task.counted_only:
            return 0.0
        order = task.order
        if not ordered and order is not None and not order.fields and task.count is not None:
            # Ids are put in order, then fetched until there are enough.
            entries = min(entries, task.count / max(rest, 1e-6))
        return entries * FETCH_US


def _as_ids(interval: Interval) -> Interval:
    """A stretch of encodings as one of ids, which are packed strings: the same but for the first
    byte."""
    low, high = interval
    return _as_id_bound(low), _as_id_bound(high)


def _as_id_bound(bound: bytes) -> bytes:
    if bound < b"\x30":
        return b""
    if bound >= b"\x31":
        return b"\x08"
    return b"\x07" + bound[1:]
