"""What changed lately: between the state that the index shows and the one that a search reads.

Kept from the log as it grows, in memory, as names of what changed (`Changes`): from the oldest
state that anybody may still search.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from treestore.engine.log import LogPosition
from treestore.stores.documents.touched import Changes

Notes = Iterator[tuple[list[tuple[Any, bytes | None]], LogPosition]]
ReadLog = Callable[[LogPosition, int], Notes]
"""The notes of the log after a position, up to an LSN that ends a group, and where each one is."""

SEGMENTS_MAX: Final = 64
"""More are joined, two by two. A joined one says a little too much to whoever needs half of it."""


@attrs.define
class _Segment:
    after_lsn: int
    up_to_lsn: int
    changes: Changes


class History:
    """The changes after ``start_lsn``. Free of threads."""

    def __init__(self, read: ReadLog, position: LogPosition) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._segments: deque[_Segment] = deque()
        self._position = position
        self.start_lsn = position.lsn

    @property
    def lsn(self) -> int:
        """Up to here it is known what changed."""
        return self._position.lsn

    @property
    def position(self) -> LogPosition:
        """Likewise, and where that is in the log."""
        return self._position

    def advance(self, until: LogPosition) -> None:
        """Read the log up to a position that ends a group.

        Raises:
            NotFound: the log was trimmed meanwhile.
            CorruptionError, OSError: it cannot be read.
        """
        with self._lock:
            if until.lsn <= self._position.lsn:
                return
            changes = Changes()
            for notes, _ in self._read(self._position, until.lsn):
                changes.note_all(notes)
            if changes:
                self._segments.append(_Segment(self._position.lsn, until.lsn, changes))
            self._position = until
            if len(self._segments) > SEGMENTS_MAX:
                self._join()

    def _join(self) -> None:
        joined: deque[_Segment] = deque()
        while self._segments:
            segment = self._segments.popleft()
            if self._segments:
                after = self._segments.popleft()
                segment.changes.add(after.changes)
                segment.up_to_lsn = after.up_to_lsn
            joined.append(segment)
        self._segments = joined

    def between(self, one_lsn: int, other_lsn: int) -> Changes | None:
        """What may differ between two states, whichever is the older one; None where that is not
        known any more, or not yet."""
        low, high = min(one_lsn, other_lsn), max(one_lsn, other_lsn)
        with self._lock:
            if low < self.start_lsn or high > self._position.lsn:
                return None
            changes = Changes()
            for segment in self._segments:
                if segment.up_to_lsn > low and segment.after_lsn < high:
                    changes.add(segment.changes)
            return changes

    def forget_before(self, lsn: int) -> None:
        """Nobody searches states before this one any more."""
        with self._lock:
            while self._segments and self._segments[0].up_to_lsn <= lsn:
                self._segments.popleft()
            if lsn > self.start_lsn:
                first = self._segments[0].after_lsn if self._segments else lsn
                self.start_lsn = min(lsn, first)
