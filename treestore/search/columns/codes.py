"""Sets of codes: what a condition makes of a dictionary, and how it becomes one bool a row.

Where values are sorted, most conditions hold for a few stretches of codes: two comparisons of the
column then. Otherwise there is one bool a code, which is looked up for each row.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import attrs
import numpy as np

from treestore.search.columns.values import FIRST_CODE, MISSING_CODE, NULL_CODE, Bools, Ints

STRETCHES_MAX = 4
"""More of them are looked up: comparing takes two passes for each."""

Stretch = tuple[int, int]


@attrs.frozen(eq=False)
class Codes:
    """Some of the codes of a column.

    Attributes:
        stretches: codes from the first to before the second, ascending, not touching one another.
        truth: one bool for each code, where they are no such stretches; False behind its end.
    """

    stretches: tuple[Stretch, ...] = ()
    truth: Bools | None = None

    def of(self, codes: Ints) -> Bools:
        """Of each code whether it is one of these; a new array."""
        if self.truth is not None:
            return self.truth.take(codes, mode="clip")
        if len(self.stretches) > STRETCHES_MAX:
            return self.truth_of(self.stretches[-1][1] + 1).take(codes, mode="clip")
        found: Bools | None = None
        for low, high in self.stretches:
            inside = codes == low if high == low + 1 else _between(codes, low, high)
            found = inside if found is None else np.logical_or(found, inside, out=found)
        return np.zeros(len(codes), np.bool_) if found is None else found

    def truth_of(self, size: int) -> Bools:
        """One bool for each of so many codes."""
        truth = np.zeros(size, np.bool_)
        if self.truth is not None:
            kept = self.truth[:size]
            truth[: len(kept)] = kept
        for low, high in self.stretches:
            truth[low:high] = True
        return truth

    def holds(self, code: int) -> bool:
        """Whether it is one of them."""
        if self.truth is not None:
            return code < len(self.truth) and bool(self.truth[code])
        return any(low <= code < high for low, high in self.stretches)

    def united(self, other: Codes) -> Codes:
        """Those of both."""
        if self.truth is None and other.truth is None:
            return stretches_of([*self.stretches, *other.stretches])
        size = max(self.end, other.end)
        return truth_codes(self.truth_of(size) | other.truth_of(size))

    def intersected(self, other: Codes) -> Codes:
        """Those that are in both."""
        if self.truth is not None or other.truth is not None:
            size = max(self.end, other.end)
            return truth_codes(self.truth_of(size) & other.truth_of(size))
        return stretches_of(
            (max(low, other_low), min(high, other_high))
            for low, high in self.stretches
            for other_low, other_high in other.stretches
        )

    def inverted(self, size: int) -> Codes:
        """The others of so many codes."""
        if self.truth is not None:
            return truth_codes(~self.truth_of(size))
        places = [0, *(place for stretch in self.stretches for place in stretch), size]
        return stretches_of(zip(places[::2], places[1::2], strict=True))

    @property
    def end(self) -> int:
        """Behind all of them."""
        if self.truth is not None:
            return len(self.truth)
        return self.stretches[-1][1] if self.stretches else 0


def _between(codes: Ints, low: int, high: int) -> Bools:
    limit = np.iinfo(codes.dtype).max
    if high > limit:
        return codes >= low if low <= limit else np.zeros(len(codes), np.bool_)
    if low <= 0:
        return codes < high
    inside = codes >= low
    return np.logical_and(inside, codes < high, out=inside)


def stretches_of(stretches: Iterable[Stretch]) -> Codes:
    """The codes of stretches in any order; empty ones are dropped, touching ones joined."""
    joined: list[Stretch] = []
    for low, high in sorted(stretches):
        if low >= high:
            continue
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return Codes(tuple(joined))


def truth_codes(truth: Bools) -> Codes:
    """The codes that are true; as stretches where they are few. One False is put behind them."""
    edges = np.flatnonzero(truth[1:] != truth[:-1]) + 1 if len(truth) else np.zeros(0, np.int64)
    if len(edges) <= 2 * STRETCHES_MAX - 2:
        places = [0, *edges.tolist(), len(truth)]
        return Codes(
            tuple((low, high) for low, high in pairwise(places) if low < high and truth[low])
        )
    return Codes(truth=np.append(truth, False))


NONE = Codes()
NOTHING = Codes(((MISSING_CODE, FIRST_CODE),))
"""Missing and null."""

NULL = Codes(((NULL_CODE, FIRST_CODE),))
