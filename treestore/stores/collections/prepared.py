"""Queries that differ from earlier ones in nothing but their values: planned once.

Most queries of a program are of a few shapes: the same fields, the same comparisons, values of the
same types, the same order. Where the planner found an index that gives exactly the documents in
exactly the order (it takes such a one at once, whatever the values), what is left to do is to put
the values in their places. `Prepared` does just that; a collection keeps those of its shapes.

It gives what the planner and `Execution` would give, or None: then they are to be asked. That is
so wherever a value makes a difference to the plan: one that an entry does not hold whole, NaN,
half of a surrogate pair; likewise where entries have to be looked at one by one, and where a page
grows too long.
"""

from __future__ import annotations

from typing import Any, Final

from treestore.query.bounds import BEHIND
from treestore.query.expression import Equal, Expression, Path, Range
from treestore.query.ordering import IndexInfo, bracket_end, bracket_start, encode, tails
from treestore.query.planner import Plan, conditions_of
from treestore.query.values import BOOL, NUMBER, STRING
from treestore.stores.access import Read
from treestore.stores.collections.catalog import Opened
from treestore.stores.collections.executing import Found, leads_nowhere
from treestore.stores.collections.layout import entries_prefix

WANTED_MAX: Final = 100
"""Documents of a page; for more it does not matter how long planning takes."""

PREPARED_MAX: Final = 256
"""Shapes that a collection remembers."""

CONDITIONS_MAX: Final = 16

_FETCHED: Final = 24
"""Documents between two looks at the size of a page."""

_BRACKETS: Final[dict[type, int]] = {int: NUMBER, float: NUMBER, str: STRING, bool: BOOL}
_COMPARISONS: Final = frozenset({"$gt", "$gte", "$lt", "$lte"})

Shape = tuple[Any, ...]


def shape_of(filter: Any, sort: Any) -> tuple[Shape, list[Any]] | None:
    """What queries that differ in their values alone have in common, and those values.

    The order of the values is that of the conditions that the parser makes of the filter.
    """
    if filter.__class__ is not dict or len(filter) > CONDITIONS_MAX:
        return None
    if sort is not None and sort.__class__ is not str:
        return None
    shape: list[Any] = [sort]
    values: list[Any] = []
    for name, condition in filter.items():
        kind = condition.__class__
        if kind in _BRACKETS:
            shape += (name, kind)
            values.append(condition)
        elif kind is dict and 0 < len(condition) <= CONDITIONS_MAX:
            for operator, value in condition.items():
                if operator not in _COMPARISONS or value.__class__ not in _BRACKETS:
                    return None
                shape += (name, operator, value.__class__)
                values.append(value)
        else:
            return None
    return tuple(shape), values


def prepare(
    collection: Opened, known: tuple[Shape, list[Any]], expression: Expression, plan: Plan
) -> None:
    """Remember the plan of a query, if it is one for all of its shape.

    Args:
        known: what `shape_of` gave.
        expression: what the parser made of the filter.
    """
    shape, values = known
    prepared = _prepared(collection, values, expression, plan)
    if prepared is not None:
        if len(collection.prepared) >= PREPARED_MAX:
            collection.prepared.clear()
        collection.prepared[shape] = prepared


def _prepared(
    collection: Opened, values: list[Any], expression: Expression, plan: Plan
) -> Prepared | None:
    access = plan.access
    index = access.index
    if plan.check or not plan.ordered or index is None or index.multikey or not access.ranges:
        return None
    conditions = conditions_of(expression)
    if len(conditions) != len(values):
        return None
    of_path: dict[Path, list[int]] = {}
    for number, condition in enumerate(conditions):
        if not isinstance(condition, Equal | Range):
            return None
        of_path.setdefault(condition.path, []).append(number)
    equal: list[int] = []
    for path in index.fields:
        numbers = of_path.get(path)
        if numbers is None or len(numbers) > 1 or isinstance(conditions[numbers[0]], Range):
            break
        equal += numbers
    if len(index.fields) - len(equal) > 1:
        return None
    ranges: list[tuple[int, str]] = []
    for number in range(len(conditions)):
        condition = conditions[number]
        if number in equal:
            continue
        # The planner answered it with the one field that is left.
        if not isinstance(condition, Range) or condition.path != index.fields[-1]:
            return None
        ranges.append((number, condition.operator))
    return Prepared(collection, index, equal, ranges, reverse=plan.reverse)


class Prepared:
    """The plan of a shape: through one index, of whose fields all, or all but the last, have one
    value.

    Args:
        equal: numbers of the values that its first fields have.
        ranges: numbers of the values that its last field is compared with, and how.
    """

    __slots__ = ("_documents", "_equal", "_free", "_limit", "_prefix", "_ranges", "_reverse")

    def __init__(
        self,
        collection: Opened,
        index: IndexInfo,
        equal: list[int],
        ranges: list[tuple[int, str]],
        *,
        reverse: bool,
    ) -> None:
        self._documents = collection.documents
        self._prefix = entries_prefix(index.id)
        self._limit = index.value_size_bytes_max
        self._equal = tuple(equal)
        self._ranges = tuple(ranges)
        self._free = len(index.fields) > len(equal)
        self._reverse = reverse

    def first(
        self, txn: Read, values: list[Any], wanted: int, size_bytes_max: int
    ) -> tuple[list[Found], bool] | None:
        """The first documents, and whether others follow; None where the planner is to be asked.

        Args:
            size_bytes_max: a page as long as this is not for here.
        """
        start = self._prefix
        for number in self._equal:
            encoded = self._encoded(values[number])
            if encoded is None:
                return None
            start += encoded
        at = len(start)
        end = start + BEHIND
        if self._ranges:
            interval = self._interval(values)
            if interval is None:
                return None
            low, high = interval
            if low >= high:
                return [], False
            start, end = start + low, start + high
        ids: list[bytes] = []
        for keys in txn.key_batches(start, end, reverse=self._reverse):
            need = wanted + 1 - len(ids)
            some = keys[:need] if len(keys) > need else keys
            txn.spend(len(some) // 4)
            if self._free:
                found = tails(some, at, self._limit)
                if found is None:
                    return None
                ids += found
            else:
                ids += [key[at:] for key in some]
            if len(ids) > wanted:
                break
        documents = self._fetched(txn, ids[:wanted], size_bytes_max)
        return None if documents is None else (documents, len(ids) > wanted)

    def _encoded(self, value: Any) -> bytes | None:
        """A value as entries have it; None where they might not hold all of it."""
        if value.__class__ is str and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return None
        encoded = encode(value, self._limit)
        return encoded if len(encoded) <= self._limit else None

    def _interval(self, values: list[Any]) -> tuple[bytes, bytes] | None:
        """Where the last field's values lie."""
        low, high = b"", BEHIND
        for number, operator in self._ranges:
            value = values[number]
            encoded = self._encoded(value)
            if encoded is None or value != value:
                return None
            bracket = _BRACKETS[value.__class__]
            own_low, own_high = bracket_start(bracket), bracket_end(bracket)
            if operator == "$gte":
                own_low = encoded
            elif operator == "$lt":
                own_high = encoded
            elif operator == "$gt":
                own_low = encoded + BEHIND
            else:
                own_high = encoded + BEHIND
            low, high = max(low, own_low), min(high, own_high)
        return low, high

    def _fetched(self, txn: Read, ids: list[bytes], size_bytes_max: int) -> list[Found] | None:
        get, prefix = txn.get, self._documents
        found: list[Any] = []
        size_bytes = 0
        for begin in range(0, len(ids), _FETCHED):
            some = ids[begin : begin + _FETCHED]
            records = [get(prefix + packed_id) for packed_id in some]
            if None in records:
                raise leads_nowhere(some[records.index(None)])
            size_bytes += sum(map(len, records))  # type: ignore[arg-type]
            if size_bytes >= size_bytes_max:
                return None
            found += zip(some, records, strict=True)
        return found
