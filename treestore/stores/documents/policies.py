"""A policy's versions, and which of them a read means.

``POLICIES policy_id`` holds every version of the policy with its effective days, oldest recording
first, so that ``version_id=None`` is answered by one get. The record is a msgpack array of
`VersionEntry` arrays; it is read and written whole, which is meant for up to some thousand
versions of a policy.

A version is in the record because a document is stored for it (``stored``), because it was
declared with its effective days (``declared``, by ``versions.create``), or both.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

import attrs
import msgspec

from treestore.errors import InvalidArgument, NotFound
from treestore.model.documents import Document
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import Place, encode, packed_name
from treestore.stores.keys import Keyspace
from treestore.stores.operation import Wire


class VersionEntry(msgspec.Struct, array_like=True):
    """One version of a policy."""

    version_id: str
    effective_from: date | None = None
    effective_to: date | None = None
    stored: bool = False
    declared: bool = False

    @property
    def dated(self) -> bool:
        """Whether it says when it is in effect."""
        return self.effective_from is not None or self.effective_to is not None

    def holds(self, day: date) -> bool:
        """Whether it is in effect on ``day``; both end days belong to it."""
        return (
            self.dated
            and (self.effective_from is None or self.effective_from <= day)
            and (self.effective_to is None or day <= self.effective_to)
        )


_decode_entries = msgspec.msgpack.Decoder(list[VersionEntry]).decode
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


# --- the record ------------------------------------------------------------------------------


def policy_key(policy_id: str) -> bytes:
    """Where the policy's versions are."""
    return Keyspace.POLICIES + packed_name("policy_id", policy_id)


def read_entries(txn: Read, policy_id: str) -> list[VersionEntry]:
    """The policy's versions, oldest recording first; empty for an unknown policy."""
    record = txn.get(policy_key(policy_id))
    return [] if record is None else _decode_entries(record)


def write_entries(txn: Write, policy_id: str, entries: list[VersionEntry]) -> None:
    """Set the policy's versions; without any, the policy is gone."""
    if entries:
        txn.put(policy_key(policy_id), encode(entries))
    else:
        txn.delete(policy_key(policy_id))


def find_entry(entries: list[VersionEntry], version_id: str) -> VersionEntry | None:
    """The entry of one version."""
    return next((entry for entry in entries if entry.version_id == version_id), None)


def entry_in_effect(entries: list[VersionEntry], day: date) -> VersionEntry | None:
    """The version in effect on ``day``: the latest start wins, then the later recording."""
    best: VersionEntry | None = None
    for entry in entries:
        if entry.holds(day) and (
            best is None or (entry.effective_from or date.min) >= (best.effective_from or date.min)
        ):
            best = entry
    return best


def set_period(
    txn: Write,
    policy_id: str,
    version_id: str,
    effective_from: date | None,
    effective_to: date | None,
    *,
    declared: bool = True,
) -> None:
    """Date a version, whether or not a document is stored for it (for ``versions``).

    Keeps the policy's record and the stored `Document` in step. A version not known yet is
    recorded as the latest.
    """
    entries = read_entries(txn, policy_id)
    entry = find_entry(entries, version_id)
    if entry is None:
        entry = VersionEntry(version_id)
        entries.append(entry)
    entry.effective_from, entry.effective_to = effective_from, effective_to
    entry.declared = entry.declared or declared
    write_entries(txn, policy_id, entries)
    if entry.stored:
        key = Place(policy_id, version_id).document
        record = txn.get(key)
        assert record is not None
        document = attrs.evolve(
            decode_document(record), effective_from=effective_from, effective_to=effective_to
        )
        txn.put(key, encode(document))


# --- which version ---------------------------------------------------------------------------


def place_to_read(txn: Read, policy_id: str, version_id: str | None) -> Place:
    """The document that a read means. A version that is named is not looked for here.

    Raises:
        NotFound: None was given and no version is in effect, or it has no document.
    """
    if version_id is not None:
        return Place(policy_id, version_id)
    entries = read_entries(txn, policy_id)
    if not entries:
        raise NotFound(f"There is no policy {policy_id!r}.", policy_id=policy_id)
    if any(entry.dated for entry in entries):
        today = txn.now.astimezone(UTC).date()
        entry = entry_in_effect(entries, today)
        if entry is None:
            raise NotFound(
                f"No version of policy {policy_id!r} is in effect today ({today}, UTC); name one "
                f"with version_id.",
                policy_id=policy_id,
            )
        if not entry.stored:
            raise NotFound(
                f"Version {entry.version_id!r} of policy {policy_id!r} is in effect, but no "
                f"document is stored for it.",
                policy_id=policy_id,
                version_id=entry.version_id,
            )
        return Place(policy_id, entry.version_id)
    for entry in reversed(entries):
        if entry.stored:
            return Place(policy_id, entry.version_id)
    raise NotFound(f"No document of policy {policy_id!r} is stored.", policy_id=policy_id)


def place_to_edit(txn: Read, policy_id: str, version_id: str | None) -> Place:
    """The document that an edit means; None is allowed while the policy has one version.

    Raises:
        InvalidArgument: None was given and there are several.
        NotFound: there is none.
    """
    if version_id is not None:
        return Place(policy_id, version_id)
    entries = read_entries(txn, policy_id)
    if not entries:
        raise NotFound(f"There is no policy {policy_id!r}.", policy_id=policy_id)
    if len(entries) > 1:
        raise InvalidArgument(
            f"Policy {policy_id!r} has {len(entries)} versions; say which one to edit with "
            f"version_id."
        )
    return Place(policy_id, entries[0].version_id)


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
