"""Following the log: a place in it, and the means to read on from there, slice by slice.

For whoever reads the log beside the one that writes it, for as long as it likes: a feed of
changes, an index that is derived from them. Between two slices a follower holds nothing: no
segment stays because of it, and what it has not read when the log is trimmed is lost to it. So one
that is slow costs neither memory nor disk.

Threads: one at a time uses a follower; the log may be written to and trimmed meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import msgspec

from treestore.engine.log import format as fmt
from treestore.engine.log.group import LogGroup, Piece
from treestore.engine.log.header import damaged
from treestore.engine.log.inspection import locate
from treestore.engine.log.position import LogPosition, Tip
from treestore.engine.log.reader import walk
from treestore.engine.log.segment import Segment
from treestore.errors import NotFound

PIECE_BYTES = 1 << 19
"""A group that is longer than a read of the file is handed on in pieces of about this size."""


class Entry(msgspec.Struct, gc=False):
    """One record of a transaction.

    Attributes:
        lsn: its number.
        commit_lsn: the number of the transaction's last record.
        number: the transaction's.
        time_ns: when its group was appended, since the epoch.
        payload: as `WriteTransaction.finish` gave it.
    """

    lsn: int
    commit_lsn: int
    number: int
    time_ns: int
    payload: bytes

    @property
    def ends_transaction(self) -> bool:
        """Whether it is the transaction's last record."""
        return self.lsn == self.commit_lsn


class LogFollower:
    """Reads a log from a record on. Made by `Log.follow`."""

    def __init__(self, segments: list[Segment], lock: threading.Lock, after: LogPosition) -> None:
        """See `Log.follow`.

        Args:
            segments: of the log, guarded by ``lock``.
            lock: held for moments.
            after: the record to begin after. Where it lies within a group, that is read from its
                beginning. With the place in the file it need not be looked for.
        """
        self._segments = segments
        self._lock = lock
        self._position = after
        self._long: tuple[LogGroup, LogPosition] | None = None
        """The long group that is under way, and the position behind it."""
        self._pieces: Iterator[Piece] = iter(())
        self._commits: Sequence[int] = ()
        self._first_lsn = 0

    @property
    def lsn(self) -> int:
        """Everything up to this record was read, or was not asked for."""
        return self._position.lsn

    @property
    def first_lsn(self) -> int:
        """The first record that the log still has."""
        with self._lock:
            return self._segments[0].header.follows.lsn + 1

    @property
    def is_trimmed(self) -> bool:
        """Whether the log was trimmed beyond what it would read next."""
        return self._position.lsn + 1 < self.first_lsn

    def backlog_bytes(self) -> int:
        """How far it is from the end of the segment that is written to: the bytes in between, or
        some large number where it is in another one (or does not know where it is)."""
        with self._lock:
            active, position = self._segments[-1], self._position
            header = active.header
            if (header.sequence, header.epoch) != (position.sequence, position.epoch):
                return header.size_bytes if self.lsn != header.follows.lsn else active.end
            return active.end - position.offset

    def read(self, until_lsn: int, size_bytes_max: int) -> list[Entry]:
        """The next records, markers left out; empty only where ``until_lsn`` is reached.

        Args:
            until_lsn: the last record to be read; it must be on the medium, and end a group.
            size_bytes_max: ends with the first group, or piece of a long one, beyond this much.

        Raises:
            NotFound: the log was trimmed beyond it; ``details`` have its ``first_lsn``.
            CorruptionError: a record is not as it was written.
        """
        entries: list[Entry] = []
        size = 0
        while size < size_bytes_max and self._position.lsn < until_lsn:
            segment, offset, tip, follows, end = self._enter()
            try:
                left = size_bytes_max - size
                if self._long is not None:
                    size += self._read_long(entries, left)
                else:
                    stop = until_lsn if follows is None else min(follows.lsn, until_lsn)
                    size += self._read_groups(segment, (offset, tip, end), stop, entries, left)
            finally:
                with self._lock:
                    segment.readers -= 1
                    header, position = segment.header, self._position
                    if (header.sequence, header.epoch) == (position.sequence, position.epoch):
                        segment.remember(position)
        return entries

    def _enter(self) -> tuple[Segment, int, Tip, Tip | None, int]:
        """Hold the segment to read next, against being recycled.

        Gives it, where to begin in it, what it is followed by, and where it ends at most.
        """
        position = self._position
        with self._lock:
            segments = self._segments
            first_lsn = segments[0].header.follows.lsn + 1
            if position.lsn + 1 < first_lsn:
                raise NotFound(
                    f"The log begins with record {first_lsn}; record {position.lsn + 1} was "
                    "trimmed.",
                    first_lsn=first_lsn,
                )
            place = locate(segments, position)
            segment = segments[place.index]
            following = segments[place.index + 1 : place.index + 2]
            offset, tip = place.offset, place.tip
            if offset == fmt.BLOCK_BYTES:
                offset, tip = segment.place_before(position.lsn)
            segment.readers += 1
            end = segment.header.size_bytes if following else segment.end
            follows = following[0].header.follows if following else None
            return segment, offset, tip, follows, end

    def _read_groups(
        self,
        segment: Segment,
        place: tuple[int, Tip, int],
        stop: int,
        entries: list[Entry],
        size_bytes_max: int,
    ) -> int:
        """Read groups of one segment up to the record ``stop``; how many bytes."""
        offset, tip, end = place
        began, reached, size = self._position.lsn, tip.lsn, 0
        for group in walk(segment.file, segment.header, offset, tip, end):
            reached, offset = group.tip.lsn, group.end
            if reached <= began:
                continue
            behind = segment.position_at(group.tip, group.end)
            if group.body is None:
                self._begin_long(group, behind)
                return size + self._read_long(entries, size_bytes_max - size)
            table = group.table()
            self._commits, self._first_lsn = commits_in(group.lsn, table[2]), group.lsn
            for piece in group.pieces(None, table):
                self._add(piece, group.tip.time_ns, entries)
            self._position = behind
            size += group.size
            if reached >= stop or size >= size_bytes_max:
                return size
        if reached < stop:
            raise damaged(segment.path, offset, f"is damaged behind record {reached}")
        return size

    def _begin_long(self, group: LogGroup, behind: LogPosition) -> None:
        table = group.table()
        self._commits, self._first_lsn = commits_in(group.lsn, table[2]), group.lsn
        self._pieces = group.pieces(PIECE_BYTES, table)
        self._long = group, behind

    def _read_long(self, entries: list[Entry], size_bytes_max: int) -> int:
        """Go on with a long group; how many bytes."""
        assert self._long is not None
        group, behind = self._long
        size = 0
        for piece in self._pieces:
            self._add(piece, group.tip.time_ns, entries)
            size += len(piece.payloads)
            if piece.last:
                self._long = None
                self._position = behind
            if size >= size_bytes_max:
                break
        return size

    def _add(self, piece: Piece, time_ns: int, entries: list[Entry]) -> None:
        if piece.is_marker:
            return
        lsn = piece.lsn
        commits, first = self._commits, self._first_lsn
        for number, payload in zip(piece.ids, piece.split(), strict=True):
            entries.append(Entry(lsn, commits[lsn - first], number, time_ns, payload))
            lsn += 1


def commits_in(lsn: int, kinds: tuple[int, ...]) -> Sequence[int]:
    """For each record of a group, from ``lsn`` on, the last record of its transaction."""
    if fmt.KIND_DATA not in kinds:
        return range(lsn, lsn + len(kinds))
    commits: list[int] = []
    commit = 0
    for index in range(len(kinds) - 1, -1, -1):
        if kinds[index] != fmt.KIND_DATA:
            commit = lsn + index
        commits.append(commit)
    commits.reverse()
    return commits
