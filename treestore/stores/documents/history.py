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

NOTES_AT_ONCE: Final = 1000
"""So many are read without a pause: about a millisecond."""

SEGMENTS_MAX: Final = 64
"""More are joined, two by two. A joined one says a little too much to whoever needs half of it."""


@attrs.frozen
class _Segment:
    after_lsn: int
    up_to_lsn: int
    changes: Changes


class History:
    """The changes after ``start_lsn``. Free of threads.

    Who only asks never waits for the log to be read: that may take seconds, and the event loop
    asks. What is in a segment is not changed any more.
    """

    def __init__(
        self, read: ReadLog, position: LogPosition, pause: Callable[[], None] = lambda: None
    ) -> None:
        """``pause`` is called again and again while much is read."""
        self._read = read
        self._pause = pause
        self._advancing = threading.Lock()
        """Held for as long as the log is read."""
        self._lock = threading.Lock()
        """Held to look at what is below, or to replace it."""
        self._segments: deque[_Segment] = deque()
        self._position = position
        self._forgotten_lsn = position.lsn
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
        with self._advancing:
            if until.lsn <= self._position.lsn:
                return
            changes, count = Changes(), 0
            for notes, _ in self._read(self._position, until.lsn):
                for first in range(0, len(notes), NOTES_AT_ONCE):
                    some = notes[first : first + NOTES_AT_ONCE]
                    changes.note_all(some)
                    count += len(some)
                    if count >= NOTES_AT_ONCE:
                        count = 0
                        self._pause()
            with self._lock:
                if changes:
                    self._segments.append(_Segment(self._position.lsn, until.lsn, changes))
                self._position = until
                segments = list(self._segments)
            if len(segments) > SEGMENTS_MAX:
                joined = deque(_joined(segments))
                with self._lock:
                    self._segments = joined
                    self._drop()

    def between(self, one_lsn: int, other_lsn: int) -> Changes | None:
        """What may differ between two states, whichever is the older one; None where that is not
        known any more, or not yet."""
        low, high = min(one_lsn, other_lsn), max(one_lsn, other_lsn)
        with self._lock:
            if low < self.start_lsn or high > self._position.lsn:
                return None
            segments = list(self._segments)
        changes = Changes()
        for segment in segments:
            if segment.up_to_lsn > low and segment.after_lsn < high:
                changes.add(segment.changes)
        return changes

    def forget_before(self, lsn: int) -> None:
        """Nobody searches states before this one any more."""
        with self._lock:
            self._forgotten_lsn = max(self._forgotten_lsn, lsn)
            self._drop()

    def _drop(self) -> None:
        lsn, segments = self._forgotten_lsn, self._segments
        while segments and segments[0].up_to_lsn <= lsn:
            segments.popleft()
        if lsn > self.start_lsn:
            self.start_lsn = min(lsn, segments[0].after_lsn) if segments else lsn


def _joined(segments: list[_Segment]) -> Iterator[_Segment]:
    """Every two segments as one; an odd last one as it is."""
    for first, second in zip(segments[0::2], segments[1::2], strict=False):
        changes = Changes()
        changes.add(first.changes)
        changes.add(second.changes)
        yield _Segment(first.after_lsn, second.up_to_lsn, changes)
    if len(segments) % 2:
        yield segments[-1]
