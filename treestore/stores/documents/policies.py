"""Which version of a policy a read or an edit means, and how days are given.

What is known of a policy's versions is kept by `treestore.stores.versions`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

import msgspec

from treestore.errors import InvalidArgument, NotFound
from treestore.model.documents import Document
from treestore.stores.access import Read
from treestore.stores.documents.layout import Place
from treestore.stores.operation import Wire
from treestore.stores.versions.book import no_policy, read_head, stored_last, version_on
from treestore.stores.versions.layout import Shelf, after

decode_document = msgspec.msgpack.Decoder(Document).decode


# --- days ------------------------------------------------------------------------------------


def to_day(value: Any, what: str = "The day") -> date:
    """A calendar day from a date, a datetime or an ISO 8601 string.

    A timezone-aware datetime counts as its day in UTC.

    Raises:
        InvalidArgument: it is none of these.
    """
    if isinstance(value, str):
        try:
            value = _parsed(value)
        except ValueError:
            raise InvalidArgument(
                f'{what} {value!r:.60} is no date; write it like "2024-07-01".'
            ) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.date()
        try:
            return value.astimezone(UTC).date()
        except OverflowError:
            raise InvalidArgument(f"{what} {value} is outside the calendar.") from None
    if isinstance(value, date):
        return value
    raise InvalidArgument(
        f"{what} is a date, a datetime or an ISO string, not {type(value).__name__}."
    )


def _parsed(text: str) -> date:
    return date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)


def _to_iso(value: Any) -> str:
    return to_day(value).isoformat()


Day = Annotated[date | datetime | str, Wire(type=str, encode=_to_iso)]
"""A calendar day; an aware datetime counts as its day in UTC. On the wire ``YYYY-MM-DD``."""


def to_period(first: Any, last: Any) -> tuple[date | None, date | None]:
    """``effective_from`` and ``effective_to`` as days, checked against each other."""
    start = None if first is None else to_day(first, "effective_from")
    end = None if last is None else to_day(last, "effective_to")
    if start is not None and end is not None and end < start:
        raise InvalidArgument(
            f"effective_to ({end}) lies before effective_from ({start}); both days belong to "
            f"the period."
        )
    return start, end


# --- which version ---------------------------------------------------------------------------


def place_to_read(txn: Read, policy_id: str, version_id: str | None) -> Place:
    """The document that a read means. A version that is named is not looked for here.

    Raises:
        NotFound: None was given and no version is in effect, or it has no document.
    """
    if version_id is not None:
        return Place(policy_id, version_id)
    today = txn.now.date()
    found = version_on(txn, policy_id, today)
    if found is None:
        return _undated(txn, policy_id, today)
    place = Place(policy_id, found)
    if txn.get(place.document) is None:
        raise NotFound(
            f"Version {found!r} of policy {policy_id!r} is in effect, but no document is stored "
            f"for it.",
            policy_id=policy_id,
            version_id=found,
        )
    return place


def _undated(txn: Read, policy_id: str, today: date) -> Place:
    """The document stored last, where the policy's versions have no days."""
    shelf = Shelf(policy_id)
    head = read_head(txn, shelf)
    if head is None or not head.versions:
        raise no_policy(policy_id)
    if head.dated:
        raise NotFound(
            f"No version of policy {policy_id!r} is in effect today ({today}, UTC); name one "
            f"with version_id.",
            policy_id=policy_id,
        )
    last = stored_last(txn, shelf)
    if last is None:
        raise NotFound(f"No document of policy {policy_id!r} is stored.", policy_id=policy_id)
    return Place(policy_id, last)


def place_to_edit(txn: Read, policy_id: str, version_id: str | None) -> Place:
    """The document that an edit means; None is allowed while the policy has one version.

    Raises:
        InvalidArgument: None was given and there are several.
        NotFound: there is none.
    """
    if version_id is not None:
        return Place(policy_id, version_id)
    shelf = Shelf(policy_id)
    head = read_head(txn, shelf)
    if head is None or not head.versions:
        raise no_policy(policy_id)
    if head.versions > 1:
        raise InvalidArgument(
            f"Policy {policy_id!r} has {head.versions} versions; say which one to edit with "
            f"version_id."
        )
    order = shelf.order
    _, name = next(iter(txn.scan(order, after(order))))
    return Place(policy_id, name.decode())


def no_document(place: Place) -> NotFound:
    """The error for a document that is not stored."""
    return NotFound(
        f"No document is stored for {place}.",
        policy_id=place.policy_id,
        version_id=place.version_id,
    )


def read_document(txn: Read, place: Place) -> Document:
    """The stored document, decoded.

    Raises:
        NotFound: none is stored.
    """
    record = txn.get(place.document)
    if record is None:
        raise no_document(place)
    return decode_document(record)
