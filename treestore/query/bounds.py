"""Where in an index the values lie that a condition asks for.

A condition on one path becomes `Intervals`: stretches of encodings (`treestore.query.ordering`).
Every document that satisfies the condition has a value at the path whose encoding lies in one of
them. Where they are ``exact``, and only there, the reverse holds as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from treestore.query.expression import (
    And,
    Equal,
    Expression,
    Glob,
    In,
    Or,
    Path,
    Range,
    Regex,
)
from treestore.query.ordering import bracket_end, bracket_start, encode, is_cut
from treestore.query.values import BOOL, DATE, LIST, NULL, NUMBER, OBJECT, STRING, bracket

Interval = tuple[bytes, bytes]
"""Encodings from the first on, up to but without the second one."""

BEHIND: Final = b"\xff"
"""Appended to an encoding: behind everything that begins with it."""

_NULL: Final = encode(None)
_KINDS: Final = frozenset({NULL, NUMBER, STRING, OBJECT, LIST, BOOL})


@attrs.define  # Never changed; frozen ones take three times as long to make.
class Intervals:
    """Stretches of encodings, ascending and apart from each other.

    Attributes:
        parts: the stretches; none where nothing can satisfy the condition.
        exact: whether a value in one of them satisfies the condition.
    """

    parts: tuple[Interval, ...]
    exact: bool

    @property
    def points(self) -> bool:
        """Whether each is of one encoding only."""
        for low, high in self.parts:  # noqa: SIM110 - half the time that all() takes
            if high != low + BEHIND:
                return False
        return True

    @property
    def hold_null(self) -> bool:
        """Whether null, or no value, is among what they hold."""
        for low, high in self.parts:  # noqa: SIM110 - likewise
            if low <= _NULL < high:
                return True
        return False


def intervals_of(condition: Expression, path: Path, size_bytes_max: int) -> Intervals | None:
    """What ``condition`` asks of the values at ``path``; None where it does not tell.

    Args:
        size_bytes_max: where the encodings are cut.
    """
    maker = _MAKERS.get(type(condition))
    return None if maker is None else maker(condition, path, size_bytes_max)


def intersected(one: Intervals, other: Intervals) -> Intervals:
    """What lies in both. Only where documents have a single value at the path."""
    if len(one.parts) == 1 == len(other.parts):
        (low, high), (other_low, other_high) = one.parts[0], other.parts[0]
        low, high = max(low, other_low), min(high, other_high)
        return Intervals(((low, high),) if low < high else (), one.exact and other.exact)
    parts: list[Interval] = []
    i = j = 0
    while i < len(one.parts) and j < len(other.parts):
        low = max(one.parts[i][0], other.parts[j][0])
        high = min(one.parts[i][1], other.parts[j][1])
        if low < high:
            parts.append((low, high))
        if one.parts[i][1] < other.parts[j][1]:
            i += 1
        else:
            j += 1
    return Intervals(tuple(parts), one.exact and other.exact)


def united(all: Iterable[Intervals]) -> Intervals:
    """What lies in any of them."""
    exact = True
    stretches: list[Interval] = []
    for intervals in all:
        exact = exact and intervals.exact
        stretches += intervals.parts
    stretches.sort()
    parts: list[Interval] = []
    for low, high in stretches:
        if parts and low <= parts[-1][1]:
            parts[-1] = parts[-1][0], max(high, parts[-1][1])
        else:
            parts.append((low, high))
    return Intervals(tuple(parts), exact)


def _equal(condition: Equal, path: Path, size_bytes_max: int) -> Intervals | None:
    if condition.path != path:
        return None
    return _point(condition.value, size_bytes_max)


def _point(value: Any, size_bytes_max: int) -> Intervals | None:
    found = bracket(value)
    if found not in _KINDS:
        return None  # A moment is found in strings of many forms.
    encoded = encode(value, size_bytes_max)
    # Null also stands for values that are missing, and for ways that end in an empty list.
    exact = found != NULL and not is_cut(encoded, size_bytes_max)
    return Intervals(((encoded, encoded + BEHIND),), exact)


def _in(condition: In, path: Path, size_bytes_max: int) -> Intervals | None:
    if condition.path != path:
        return None
    points = [_point(value, size_bytes_max) for value in condition.values]
    found = [point for point in points if point is not None]
    return united(found) if len(found) == len(points) else None


def _range(condition: Range, path: Path, size_bytes_max: int) -> Intervals | None:
    if condition.path != path:
        return None
    value, operator = condition.value, condition.operator
    found = bracket(value)
    if found == DATE or found not in _KINDS:
        return None
    if value != value:
        # NaN: equal to itself, and neither before nor behind anything.
        return _point(value, size_bytes_max) if "e" in operator else Intervals((), True)
    encoded = encode(value, size_bytes_max)
    exact = found != NULL and not is_cut(encoded, size_bytes_max)
    low, high = bracket_start(found), bracket_end(found)
    # What was cut where the operand was has its encoding, and may lie on either side.
    if operator == "$gt":
        low = encoded + BEHIND if exact else encoded
    elif operator == "$gte":
        low = encoded
    elif operator == "$lt":
        high = encoded if exact else encoded + BEHIND
    else:
        high = encoded + BEHIND
    return Intervals(((low, high),) if low < high else (), exact)


def _glob(condition: Glob, path: Path, size_bytes_max: int) -> Intervals | None:
    if condition.path != path:
        return None
    return _prefix(condition.prefix, size_bytes_max)


def _regex(condition: Regex, path: Path, size_bytes_max: int) -> Intervals | None:
    if condition.path != path or condition.options:
        return None
    return _prefix(literal_prefix(condition.pattern), size_bytes_max)


def literal_prefix(pattern: str) -> str:
    """What every string begins with that holds a match of a regular expression; "" if unknown."""
    if not pattern.startswith("^") or "|" in pattern or "(?" in pattern:
        return ""
    end = 1
    while end < len(pattern) and (pattern[end].isalnum() or pattern[end] in "_-/:@ #,;=%&~'\""):
        end += 1
    # The last letter may be optional.
    if end < len(pattern) and pattern[end] in "*?{":
        end -= 1
    return pattern[1:end]


def _prefix(text: str, size_bytes_max: int) -> Intervals | None:
    if not text:
        return None
    low = encode(text)[:-1][:size_bytes_max]
    return Intervals(((low, low[:-1] + bytes((low[-1] + 1,))),), False)


def _or(condition: Or, path: Path, size_bytes_max: int) -> Intervals | None:
    found: list[Intervals] = []
    for part in condition.parts:
        intervals = intervals_of(part, path, size_bytes_max)
        if intervals is None:
            return None
        found.append(intervals)
    return united(found)


def _and(condition: And, path: Path, size_bytes_max: int) -> Intervals | None:
    """The best of its parts. (They may hold for different values, so they do not combine.)"""
    found = [intervals_of(part, path, size_bytes_max) for part in condition.parts]
    known = [each for each in found if each is not None]
    if not known:
        return None
    best = min(known, key=lambda each: (not each.points, len(each.parts)))
    return Intervals(best.parts, False)


_MAKERS: dict[type, Callable[[Any, Path, int], Intervals | None]] = {
    Equal: _equal,
    In: _in,
    Range: _range,
    Glob: _glob,
    Regex: _regex,
    Or: _or,
    And: _and,
}
