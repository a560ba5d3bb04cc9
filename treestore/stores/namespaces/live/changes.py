"""What one group of the log changes in one namespace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from treestore.engine.log import LogPosition
from treestore.stores.namespaces import events
from treestore.stores.namespaces.catalog import opened
from treestore.stores.namespaces.manifests import SegmentManifest

Notes = Iterator[tuple[list[tuple[Any, bytes | None]], LogPosition]]
ReadLog = Callable[[LogPosition, int], Notes]
"""The notes of the log after a position, up to an LSN that ends a group, and where each one is."""

_KEYSPACES: Final = events.KEYSPACES


class Changes:
    """What becomes of a namespace's rows and segments in a group.

    Attributes:
        born: row → packed id and record.
        vectors: row → vector, of rows that are born.
        died: rows that were there before, or that nobody knows, in the order in which they went.
        segments: number → manifest; None where it went.
        record: of the namespace, where it changed.
    """

    __slots__ = ("born", "died", "record", "segments", "vectors")

    def __init__(self) -> None:
        self.born: dict[int, tuple[bytes, bytes]] = {}
        self.vectors: dict[int, bytes] = {}
        self.died: list[int] = []
        self.segments: dict[int, SegmentManifest | None] = {}
        self.record: bytes | None = None

    def take(self, event: events.Event) -> None:
        """Take in what happened next. Within a transaction events come in any order."""
        if isinstance(event, events.Stored):
            self.born[event.row] = (event.packed_id, event.record)
        elif isinstance(event, events.Vector):
            self.vectors[event.row] = event.vector
        elif isinstance(event, events.Died):
            # A row that came in this group and goes in it was never there.
            if self.born.pop(event.row, None) is None:
                self.died.append(event.row)
            self.vectors.pop(event.row, None)
        elif isinstance(event, events.SegmentPut):
            self.segments[event.segment] = event.manifest
        elif isinstance(event, events.SegmentRemoved):
            self.segments[event.segment] = None
        elif isinstance(event, events.NamespacePut):
            self.record = event.record

    @property
    def schema(self) -> Any:
        """The new schema, or None."""
        return None if self.record is None else opened(self.record).schema


def groups_of(
    notes: Iterable[tuple[list[tuple[Any, bytes | None]], LogPosition]],
    numbers: Callable[[int], bool],
) -> Iterator[tuple[LogPosition, dict[int, Changes]]]:
    """The changes of each group that concern somebody, by the namespaces' numbers, and the position
    behind the group.

    Args:
        notes: see `treestore.engine.changes.notes_of`.
        numbers: whether somebody wants to hear of a namespace.
    """
    at: LogPosition | None = None
    found: dict[int, Changes] = {}
    for some, position in notes:
        if found and at is not None and position.lsn != at.lsn:
            yield at, found
            found = {}
        at = position
        for what, value in some:
            first = what[0] if isinstance(what, bytes) else what[0][0]
            if first not in _KEYSPACES:
                continue
            for event in events.events(what, value):
                number = getattr(event, "number", None)
                if number is not None and numbers(number):
                    changes = found.get(number)
                    if changes is None:
                        changes = found[number] = Changes()
                    changes.take(event)
    if at is not None and found:
        yield at, found
