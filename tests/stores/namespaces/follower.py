"""Somebody who follows the log of namespaces by `events` alone, and what they must know."""

from __future__ import annotations

from typing import Any

from treestore.stores.namespaces import segments
from treestore.stores.namespaces.events import (
    KEYSPACES,
    Cleared,
    Died,
    Event,
    InTail,
    LeftTail,
    NamespacePut,
    NamespaceRemoved,
    SegmentPut,
    SegmentRemoved,
    Stored,
    Vector,
    events,
)
from treestore.stores.namespaces.layout import Space, packed_row, row_of
from treestore.stores.namespaces.manifests import SegmentManifest, manifests


class Known:
    """What is known of one namespace.

    Attributes:
        documents: row → packed id and record.
    """

    def __init__(self) -> None:
        self.documents: dict[int, tuple[bytes, bytes]] = {}
        self.vectors: dict[int, bytes] = {}
        self.tail: dict[int, bytes] = {}
        self.segments: dict[int, SegmentManifest] = {}


class Follower:
    """Told of each note, or of the difference between two states."""

    def __init__(self) -> None:
        self.known: dict[int, Known] = {}
        self.names: dict[str, int] = {}
        self._seen: dict[bytes, bytes] = {}

    def follow(self, txn: Any) -> None:
        """Take in what a state has that the last one had not."""
        now = {
            key: value
            for space in KEYSPACES
            for key, value in txn.scan(bytes((space,)), bytes((space + 1,)))
        }
        changed: list[tuple[Any, bytes | None]] = [
            (key, value) for key, value in now.items() if self._seen.get(key) != value
        ]
        changed += [(key, None) for key in self._seen if key not in now]
        self.take(changed)
        self._seen = now

    def take(self, notes: list[tuple[Any, bytes | None]]) -> None:
        """Notes of one transaction."""
        for what, value in notes:
            for event in events(what, value):
                self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, NamespacePut):
            self.names[event.name] = event.number
            return
        if isinstance(event, NamespaceRemoved):
            del self.names[event.name]
            return
        known = self.known.setdefault(event.number, Known())
        if isinstance(event, Stored):
            known.documents[event.row] = event.packed_id, event.record
        elif isinstance(event, Vector):
            known.vectors[event.row] = event.vector
        elif isinstance(event, Died):
            known.documents.pop(event.row, None)
            known.vectors.pop(event.row)
        elif isinstance(event, InTail):
            known.tail[event.row] = event.packed_id
        elif isinstance(event, LeftTail):
            gone = [row for row in known.tail if event.first <= row <= event.last]
            assert gone
            for row in gone:
                del known.tail[row]
        elif isinstance(event, SegmentPut):
            known.segments[event.segment] = event.manifest
        elif isinstance(event, SegmentRemoved):
            del known.segments[event.segment]
        else:
            assert isinstance(event, Cleared)

    def compare(self, txn: Any, number: int) -> None:
        """What is known of a namespace is what a state holds."""
        space, known = Space(number), self.known.get(number, Known())
        found = {
            row_of(record): (key[len(space.documents) :], record)
            for key, record in txn.scan(space.documents, space.documents + b"\xff")
        }
        assert known.documents == found
        for row in found:
            assert known.vectors[row] == txn.get(space.vectors + packed_row(row))
        assert known.vectors.keys() == found.keys()
        assert known.tail == dict(segments.tail(txn, number))
        assert known.segments == dict(manifests(txn, number))
