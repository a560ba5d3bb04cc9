"""Moments and periods, as parameters and as bounds of keys."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Any

import attrs

from treestore.errors import InvalidArgument
from treestore.stores.keys import pack
from treestore.stores.operation import Wire

_DAY_SIZE = 10
"""Characters of an ISO string that names a day and no time, at most."""


def to_moment(value: Any, what: str, *, last: bool = False) -> datetime:
    """A moment in UTC from a datetime, a date or an ISO 8601 string.

    Args:
        last: of a day, the last moment instead of the first.

    Raises:
        InvalidArgument: it is none of these; the sentence begins with ``what``.
    """
    if isinstance(value, str):
        try:
            value = (
                date.fromisoformat(value)
                if len(value) <= _DAY_SIZE
                else datetime.fromisoformat(value)
            )
        except ValueError:
            raise InvalidArgument(
                f"{what} {value!r:.60} is no date or time; write it like "
                f'"2024-07-01T12:00:00Z" or "2024-07-01".'
            ) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise InvalidArgument(f"{what} {value} is outside the calendar.") from None
    if isinstance(value, date):
        return datetime.combine(value, time.max if last else time.min, UTC)
    raise InvalidArgument(
        f"{what} is a datetime, a date or an ISO string, not {type(value).__name__}."
    )


def _to_iso(value: Any) -> str:
    to_moment(value, "The time")
    return value if isinstance(value, str) else value.isoformat()


Moment = Annotated[date | datetime | str, Wire(type=str, encode=_to_iso)]
"""A moment, or a whole day: a datetime without timezone is in UTC. On the wire ISO 8601."""


@attrs.frozen
class Period:
    """From ``since`` to ``until``, both included; None: without end."""

    since: datetime | None
    until: datetime | None

    @classmethod
    def of(cls, since: Any, until: Any) -> Period:
        """The period that the parameters mean: a day as ``until`` is meant to its end.

        Raises:
            InvalidArgument: one is no time, or the period ends before it begins.
        """
        first = None if since is None else to_moment(since, "since")
        last = None if until is None else to_moment(until, "until", last=True)
        if first is not None and last is not None and last < first:
            raise InvalidArgument(f"until ({until}) lies before since ({since}).")
        return cls(first, last)

    @property
    def days(self) -> tuple[date, date]:
        """First and last day."""
        return (
            date.min if self.since is None else self.since.date(),
            date.max if self.until is None else self.until.date(),
        )

    def bounds(self, prefix: bytes) -> tuple[bytes, bytes]:
        """Where keys of ``prefix`` and a moment begin and have ended."""
        start = prefix if self.since is None else prefix + pack(self.since)
        end = prefix + b"\xff" if self.until is None else prefix + pack(self.until) + b"\xff"
        return start, end


def days_of(since: Any, until: Any) -> tuple[date, date]:
    """Whole days, both included; of a time given, its day in UTC."""
    return Period.of(since, until).days
