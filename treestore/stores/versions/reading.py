"""Reads of what is known about versions. They hand stored bytes on and decode little."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Annotated, Any

from treestore.errors import InvalidArgument, NotFound
from treestore.model.page import Page
from treestore.model.versions import PolicyVersion
from treestore.stores.access import Read
from treestore.stores.documents.policies import Day, to_day
from treestore.stores.documents.reading import LIST_LIMIT_MAX
from treestore.stores.operation import Wire
from treestore.stores.versions.book import (
    no_policy,
    no_version,
    read_head,
    read_record,
    stored_last,
)
from treestore.stores.versions.layout import (
    Shelf,
    after,
    microseconds,
    packed_day,
    packed_number_down,
)
from treestore.stores.versions.timeline import neighbours, ruler, ruler_at

# --- moments ---------------------------------------------------------------------------------


def to_moment(value: Any, what: str = "known_at") -> datetime:
    """A moment in UTC from a datetime, a date (its end, UTC) or an ISO 8601 string of either.

    A datetime without a timezone counts as UTC.

    Raises:
        InvalidArgument: it is none of these.
    """
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value) if len(value) <= 10 else datetime.fromisoformat(value)
        except ValueError:
            raise InvalidArgument(
                f'{what} {value!r:.60} is no time; write it like "2024-07-01T12:00:00Z", or '
                f'"2024-07-01" for the end of that day.'
            ) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise InvalidArgument(f"{what} {value} is outside the calendar.") from None
    if isinstance(value, date):
        return datetime.combine(value, time.max, UTC)
    raise InvalidArgument(
        f"{what} is a datetime, a date or an ISO string, not {type(value).__name__}."
    )


def _to_iso(value: Any) -> str:
    return to_moment(value).isoformat()


Instant = Annotated[datetime | date | str, Wire(type=str, encode=_to_iso)]
"""A moment; a date is the end of that day in UTC. On the wire ISO 8601 with a timezone."""


# --- one version -----------------------------------------------------------------------------


def get(txn: Read, policy_id: str, version_id: str) -> PolicyVersion:
    """A version, as recorded now.

    Raises:
        NotFound: there is no such version.
    """
    shelf = Shelf(policy_id)
    data = txn.get(shelf.record(version_id))
    if data is None:
        raise no_version(txn, shelf, version_id)
    return txn.load(PolicyVersion, data)


def as_of(
    txn: Read, policy_id: str, when: Day, *, known_at: Instant | None = None
) -> PolicyVersion:
    """The version in effect on a day; on request as it was believed at an earlier moment.

    Both end days belong to a period. Among the versions whose period holds the day the one with
    the latest start is in effect, among equal starts the one recorded later.

    Args:
        when: a date, a datetime or an ISO string; an aware datetime counts as its day in UTC.
        known_at: answer with what was recorded by then (a datetime, an ISO string, or a date for
            the end of that day in UTC); None: with what is recorded now. The result is the
            version as it was known then.

    Raises:
        NotFound: no version is in effect on that day; the message and ``details`` name the
            nearest ones. Or there is no such policy, or nothing was recorded of it by then.
    """
    day = to_day(when)
    shelf = Shelf(policy_id)
    if known_at is not None:
        return _as_known(txn, shelf, day, to_moment(known_at))
    version_id = ruler(txn, shelf, day.toordinal())
    if version_id is None:
        raise _none_in_effect(txn, shelf, day)
    data = txn.get(shelf.record(version_id))
    assert data is not None
    return txn.load(PolicyVersion, data)


def _as_known(txn: Read, shelf: Shelf, day: date, moment: datetime) -> PolicyVersion:
    head = read_head(txn, shelf)
    if head is None:
        raise no_policy(shelf.policy_id)
    journal = shelf.journal
    found = txn.first(journal + packed_number_down(microseconds(moment)), after(journal))
    if found is None:
        raise NotFound(
            f"Nothing was recorded of policy {shelf.policy_id!r} by {moment.isoformat()}.",
            policy_id=shelf.policy_id,
        )
    revision = int.from_bytes(found[1], "big")
    version_id = ruler_at(txn, shelf, day.toordinal(), revision, head.revision)
    if version_id is None:
        raise NotFound(
            f"No version of policy {shelf.policy_id!r} was believed, at {moment.isoformat()}, to "
            f"be in effect on {day}.",
            policy_id=shelf.policy_id,
        )
    prefix = shelf.history(version_id)
    found = txn.first(prefix + packed_number_down(revision), after(prefix))
    assert found is not None
    return txn.load(PolicyVersion, found[1])


def _none_in_effect(txn: Read, shelf: Shelf, day: date) -> NotFound:
    policy_id = shelf.policy_id
    head = read_head(txn, shelf)
    if head is None or not head.versions:
        return no_policy(policy_id)
    if not head.dated:
        return NotFound(
            f"No version of policy {policy_id!r} says when it is in effect; versions.create or "
            f"documents.store with effective_from does.",
            policy_id=policy_id,
        )
    words = []
    nearest = []
    for which, version_id in zip(
        ("before", "after"), neighbours(txn, shelf, day.toordinal()), strict=True
    ):
        record = None if version_id is None else read_record(txn, shelf, version_id)
        if record is None:
            continue
        state = record.state
        first, last = state.effective_from, state.effective_to
        days = f"until {last}" if first is None else f"{first} to {last or 'without end'}"
        words.append(f"the nearest {which} is {state.version_id!r} ({days})")
        nearest.append(
            {
                "version_id": state.version_id,
                "effective_from": None if first is None else first.isoformat(),
                "effective_to": None if last is None else last.isoformat(),
            }
        )
    return NotFound(
        f"No version of policy {policy_id!r} is in effect on {day}; {', '.join(words)}.",
        policy_id=policy_id,
        nearest=nearest,
    )


def latest(txn: Read, policy_id: str) -> PolicyVersion:
    """The version with the latest start, future ones included; of equal ones the later recorded.

    Where no version of the policy is dated: the one whose document was stored last.

    Raises:
        NotFound: the policy has no version.
    """
    shelf = Shelf(policy_id)
    version_id: str | None = None
    dated = shelf.order + packed_day(1)
    for _, name in txn.scan(dated, after(shelf.order), reverse=True):
        version_id = name.decode()
        break
    version_id = version_id or stored_last(txn, shelf)
    if version_id is None:
        raise no_policy(policy_id)
    return get(txn, policy_id, version_id)


# --- listings --------------------------------------------------------------------------------


def list_versions(
    txn: Read,
    policy_id: str,
    *,
    limit: int = 100,
    cursor: str | None = None,
    reverse: bool = False,
) -> Page[PolicyVersion]:
    """The policy's versions in the order of time: by start, then as recorded; undated ones first.

    Args:
        limit: at most this many, 1 to 10,000.
        cursor: ``next_cursor`` of the page before; stays good while versions come and go.
        reverse: the latest first.

    Raises:
        NotFound: the policy has no version.
    """
    shelf = Shelf(policy_id)
    page = _page(txn, shelf.order, limit, cursor, reverse, lambda name: _named(txn, shelf, name))
    if not page.items and cursor is None:
        raise no_policy(policy_id)
    return page


def by_tag(
    txn: Read,
    policy_id: str,
    tag: str,
    *,
    limit: int = 100,
    cursor: str | None = None,
    reverse: bool = False,
) -> Page[PolicyVersion]:
    """The policy's versions that have a tag, in the order of time; none for an unknown tag.

    Args:
        limit: at most this many, 1 to 10,000.
        cursor: ``next_cursor`` of the page before.
        reverse: the latest first.
    """
    shelf = Shelf(policy_id)
    prefix = shelf.tag(tag)
    return _page(txn, prefix, limit, cursor, reverse, lambda name: _named(txn, shelf, name))


def history(
    txn: Read,
    policy_id: str,
    version_id: str,
    *,
    limit: int = 100,
    cursor: str | None = None,
    reverse: bool = False,
) -> Page[PolicyVersion]:
    """Every state that was recorded of a version, the oldest first, with its ``recorded_at``.

    A version that was withdrawn has one too. One that never had days, tags or a description of
    ``versions`` has none.

    Args:
        limit: at most this many, 1 to 10,000.
        cursor: ``next_cursor`` of the page before.
        reverse: the newest first.

    Raises:
        NotFound: there is, and was, no such version.
    """
    shelf = Shelf(policy_id)
    prefix = shelf.history(version_id)
    if not isinstance(reverse, bool):
        raise InvalidArgument(f"reverse is True or False, not {reverse!r:.40}.")
    # Its keys descend.
    load = partial(txn.load, PolicyVersion)
    page = _page(txn, prefix, limit, cursor, not reverse, load)
    if not page.items and cursor is None and txn.get(shelf.record(version_id)) is None:
        raise no_version(txn, shelf, version_id)
    return page


def _named(txn: Read, shelf: Shelf, name: bytes) -> PolicyVersion:
    data = txn.get(shelf.record(name.decode()))
    assert data is not None
    return txn.load(PolicyVersion, data)


def _page(
    txn: Read,
    prefix: bytes,
    limit: int,
    cursor: str | None,
    reverse: bool,
    load: Callable[[bytes], PolicyVersion],
) -> Page[PolicyVersion]:
    """The entries under ``prefix``, each made into a version by ``load``."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIST_LIMIT_MAX:
        raise InvalidArgument(f"limit is a number from 1 to {LIST_LIMIT_MAX}, not {limit!r:.40}.")
    if not isinstance(reverse, bool):
        raise InvalidArgument(f"reverse is True or False, not {reverse!r:.40}.")
    start, end = prefix, after(prefix)
    if cursor is not None:
        last = _from_cursor(cursor, prefix, reverse)
        start, end = (start, last) if reverse else (last + b"\0", end)
    items: list[PolicyVersion] = []
    last = b""
    for key, value in txn.scan(start, end, reverse=reverse):
        if len(items) == limit:
            return Page(items, base64.urlsafe_b64encode(_way(reverse) + last).decode())
        items.append(load(value))
        last = key
    return Page(items, None)


def _way(reverse: bool) -> bytes:
    return b"-" if reverse else b"+"


def _from_cursor(cursor: str, prefix: bytes, reverse: bool) -> bytes:
    """The last key of the page before."""
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (AttributeError, UnicodeEncodeError, binascii.Error):
        raw = b""
    if not raw.startswith(_way(reverse) + prefix) or len(raw) > len(prefix) + 12:
        raise InvalidArgument("The cursor is none that this listing gave; start without one.")
    return raw[1:]
