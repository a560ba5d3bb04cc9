"""What of each segment is on the medium: its size, and stretches for whoever copies the log."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from treestore.engine.disk import File
from treestore.engine.log import format as fmt
from treestore.engine.log.group import LogGroup
from treestore.engine.log.header import SegmentHeader, damaged
from treestore.engine.log.position import LogPosition, Tip
from treestore.engine.log.reader import walk
from treestore.engine.log.segment import Segment


@attrs.frozen
class Stretch:
    """Whole groups of one segment, synced.

    Attributes:
        header, file: of the segment. The file stays as it is until the stretch is archived.
        start, end: in the file, in bytes.
        before, after: the state of the chain at ``start`` and ``end``.
        closed: whether the segment has a successor, so that nothing will follow in it.
    """

    header: SegmentHeader
    file: File
    start: int
    end: int
    before: Tip
    after: Tip
    closed: bool

    @property
    def position(self) -> LogPosition:
        """The position at its end."""
        after, header = self.after, self.header
        return LogPosition(
            *(after.lsn, after.group, after.chain, after.time_ns),
            *(header.sequence, header.epoch, self.end),
        )


def stretches(present: list[tuple[Segment, int, Tip]], after: LogPosition) -> list[Stretch]:
    """The stretches behind ``after``, of segments with their ends and tips, the oldest first."""
    found: list[Stretch] = []
    for index, (segment, end, tip) in enumerate(present):
        header = segment.header
        following = present[index + 1][0].header.follows if index + 1 < len(present) else None
        if following is not None and following.lsn <= after.lsn:
            continue
        start, before = fmt.BLOCK_BYTES, header.follows
        if (header.sequence, header.epoch) == (after.sequence, after.epoch):
            start, before = after.offset, after.tip
        if following is not None and tip != following:
            # Not read when the log was opened, or its last group was copied into the next one.
            end, tip = start, before
            for group in groups_of(segment, start, before, following, following.lsn):
                end, tip = group.end, group.tip
            if tip != following:
                raise damaged(segment.path, end, f"is damaged behind record {tip.lsn}")
        if end > start:
            closed = following is not None
            found.append(Stretch(header, segment.file, start, end, before, tip, closed))
    return found


def live_size_bytes(segments: list[Segment], trimmed: LogPosition) -> int:
    """Bytes of groups in the segments of a log behind ``trimmed``."""
    size = 0
    for index, segment in enumerate(segments):
        header = segment.header
        following = segments[index + 1 : index + 2]
        lsn = following[0].header.follows.lsn if following else segment.tip.lsn
        if lsn <= trimmed.lsn:
            continue
        here = (header.sequence, header.epoch) == (trimmed.sequence, trimmed.epoch)
        # A segment that nothing was replayed from was not read: its end is not known.
        end = segment.end if segment.tip.lsn >= lsn else header.size_bytes
        size += end - (trimmed.offset if here else fmt.BLOCK_BYTES)
    return size


def groups_of(
    segment: Segment, offset: int, tip: Tip, follows: Tip | None, until: int
) -> Iterator[LogGroup]:
    """The groups of one segment from a place in it up to the LSN ``until``.

    Raises:
        CorruptionError: it ends before that, and before what its successor follows.
    """
    stop = until if follows is None else min(follows.lsn, until)
    lsn, end = tip.lsn, offset
    if lsn < stop:
        for group in walk(segment.file, segment.header, offset, tip):
            lsn, end = group.tip.lsn, group.end
            yield group
            if lsn >= stop:
                break
    if lsn < stop:
        raise damaged(segment.path, end, f"is damaged behind record {lsn}")
