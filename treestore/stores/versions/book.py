"""One policy's versions: their records, and everything that is derived from them.

A `Book` is opened for one change. What it writes of a version goes to all the places that say
something about it; `close` writes what is said of the policy as a whole.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import attrs
import msgspec

from treestore.errors import NotFound
from treestore.model.documents import Document
from treestore.model.versions import PolicyVersion, Recording
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import Place
from treestore.stores.json_values import encode
from treestore.stores.versions.layout import (
    MICROSECOND,
    Head,
    Record,
    Shelf,
    after,
    decode_head,
    decode_record,
    encode_record,
    microseconds,
    moment_of,
    packed_number,
    packed_number_down,
)
from treestore.stores.versions.timeline import Timeline, ruler

_decode_document = msgspec.msgpack.Decoder(Document).decode


# --- reading ---------------------------------------------------------------------------------


def read_head(txn: Read, shelf: Shelf) -> Head | None:
    """What is known of the policy as a whole; None where nothing is."""
    data = txn.get(shelf.head)
    return None if data is None else decode_head(data)


def read_record(txn: Read, shelf: Shelf, version_id: str) -> Record | None:
    """One version, as recorded now."""
    data = txn.get(shelf.record(version_id))
    return None if data is None else decode_record(data)


def version_on(txn: Read, policy_id: str, day: date) -> str | None:
    """The version of the policy that is in effect on ``day``; None where none is."""
    return ruler(txn, Shelf(policy_id), day.toordinal())


def stored_last(txn: Read, shelf: Shelf) -> str | None:
    """The version whose document was stored last."""
    for _, name in txn.scan(shelf.stored, after(shelf.stored), reverse=True):
        return name.decode()
    return None


def stored_versions(txn: Read, policy_id: str) -> list[str]:
    """The versions of the policy that have a document, the one stored first at the beginning."""
    prefix = Shelf(policy_id).stored
    return [name.decode() for _, name in txn.scan(prefix, after(prefix))]


def no_policy(policy_id: str) -> NotFound:
    """The error for a policy that has no version."""
    return NotFound(f"There is no policy {policy_id!r}.", policy_id=policy_id)


def no_version(txn: Read, shelf: Shelf, version_id: str) -> NotFound:
    """The error for a version that is not known: it says whether the policy is."""
    head = read_head(txn, shelf)
    if head is None or not head.versions:
        return no_policy(shelf.policy_id)
    return NotFound(
        f"Policy {shelf.policy_id!r} has no version {version_id!r}; versions.list gives its "
        f"versions.",
        policy_id=shelf.policy_id,
        version_id=version_id,
    )


# --- changing --------------------------------------------------------------------------------


class Book:
    """The versions of one policy, for one change."""

    def __init__(self, txn: Write, policy_id: str) -> None:
        self.txn = txn
        self.shelf = Shelf(policy_id)
        self.head = read_head(txn, self.shelf) or Head()
        self.revision = self.head.revision + 1
        # A clock that stands still or runs back must not make two changes one.
        last = moment_of(self.head.recorded_us) + MICROSECOND if self.head.revision else None
        self.recorded_at: datetime = txn.now if last is None else max(txn.now, last)
        self._recorded = False

    def find(self, version_id: str) -> Record | None:
        """One version, as recorded now."""
        return read_record(self.txn, self.shelf, version_id)

    def expect(self, version_id: str) -> Record:
        """One version, as recorded now.

        Raises:
            NotFound: there is no such version.
        """
        record = self.find(version_id)
        if record is None:
            raise no_version(self.txn, self.shelf, version_id)
        return record

    def state(self, old: Record | None, version_id: str, **fields: Any) -> PolicyVersion:
        """The state of a version after this change: what is not in ``fields`` stays."""
        fields.update(revision=self.revision, recorded_at=self.recorded_at)
        if old is not None:
            return attrs.evolve(old.state, **fields)
        return PolicyVersion(
            policy_id=self.shelf.policy_id,
            version_id=version_id,
            created_at=self.recorded_at,
            **fields,
        )

    def write(self, old: Record | None, new: Record, change: Recording | None) -> Record:
        """Put ``new`` in the place of ``old``, another state of the same version.

        Args:
            change: what goes into the history; None: nothing that the history tells of.
        """
        if change is not None:
            new = attrs.evolve(new, state=attrs.evolve(new.state, change=change))
        self.txn.put(self.shelf.record(new.state.version_id), encode_record(new))
        self._index(old, new)
        if change is not None:
            self._remember(new)
        if old is not None and old.stored and new.stored and _days(old) != _days(new):
            self._redate(new.state)
        return new

    def withdraw(self, old: Record) -> None:
        """Take a version out of what is believed; what was believed before stays known."""
        version_id = old.state.version_id
        self.txn.delete(self.shelf.record(version_id))
        self._index(old, None)
        if old.dated or old.declared:
            self._remember(self.undated(old))

    def undated(self, old: Record) -> Record:
        """The state of a version whose days are taken back."""
        state = self.state(
            old,
            old.state.version_id,
            effective_from=None,
            effective_to=None,
            change="withdrawn",
        )
        return Record(state, self.revision, old.stored)

    def close(self) -> None:
        """Write what is known of the policy as a whole; the change is complete."""
        head = self.head
        if not head.versions and not head.states:
            self.txn.delete(self.shelf.head)
            return
        head.revision = self.revision
        head.recorded_us = microseconds(self.recorded_at)
        self.txn.put(self.shelf.head, encode(head))
        if self._recorded:
            key = self.shelf.journal + packed_number_down(head.recorded_us)
            self.txn.put(key, packed_number(self.revision))

    def _remember(self, record: Record) -> None:
        key = self.shelf.history(record.state.version_id) + packed_number_down(self.revision)
        if self.txn.get(key) is None:
            self.head.states += 1
        self.txn.put(key, encode_record(record))
        self._recorded = True

    def _index(self, old: Record | None, new: Record | None) -> None:
        """Bring up to date what leads to a version."""
        version_id = (new or old).state.version_id  # type: ignore[union-attr]
        name = version_id.encode()
        before, behind = self._entries(old), self._entries(new)
        for key in before - behind:
            self.txn.delete(key)
        for key in behind - before:
            self.txn.put(key, name)
        old_period = None if old is None else old.period
        new_period = None if new is None else new.period
        Timeline(self.txn, self.shelf, self.revision).replace(old_period, new_period)
        self.head.versions += (new is not None) - (old is not None)
        self.head.dated += (new_period is not None) - (old_period is not None)

    def _entries(self, record: Record | None) -> set[bytes]:
        """The keys whose value is the version's id."""
        if record is None:
            return set()
        place = record.place
        keys = {self.shelf.tag(tag) + place for tag in record.state.tags}
        keys.add(self.shelf.order + place)
        if record.stored:
            keys.add(self.shelf.stored + packed_number(record.stored))
        return keys

    def _redate(self, state: PolicyVersion) -> None:
        """Keep the stored document in step."""
        key = Place(state.policy_id, state.version_id).document
        data = self.txn.get(key)
        assert data is not None
        document = attrs.evolve(
            _decode_document(data),
            effective_from=state.effective_from,
            effective_to=state.effective_to,
        )
        self.txn.put(key, encode(document))


def _days(record: Record) -> tuple[date | None, date | None]:
    return record.state.effective_from, record.state.effective_to
