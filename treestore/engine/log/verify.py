"""Verifying closed segments of a log that is in use."""

from __future__ import annotations

import threading

from treestore.engine.log import format as fmt
from treestore.engine.log.header import SegmentHeader, damaged
from treestore.engine.log.position import LogPosition
from treestore.engine.log.reader import walk
from treestore.engine.log.segment import Segment
from treestore.errors import CorruptionError


def verify_closed(
    segments: list[Segment], lock: threading.Lock, start: LogPosition, size_bytes_max: int
) -> tuple[LogPosition | None, int]:
    """Verify a part of what lies behind ``start`` in segments that are no longer written to.

    Args:
        segments: of the log, guarded by ``lock``. The one at hand is not recycled meanwhile.
        lock: held for moments.
        start: where to begin.
        size_bytes_max: ends with the first group behind this much.

    Returns:
        Where to go on (None: only the active segment is left), and how many bytes were read.

    Raises:
        CorruptionError: it names file and offset.
    """
    with lock:
        index = len(segments) - 1
        while index > 0 and segments[index].header.follows.lsn > start.lsn:
            index -= 1
        if index >= len(segments) - 1:
            return None, 0
        segment, following = segments[index : index + 2]
        segment.readers += 1
    try:
        return verify_segment(segment, following, start, size_bytes_max)
    finally:
        with lock:
            segment.readers -= 1


def verify_segment(
    segment: Segment, following: Segment, start: LogPosition, size_bytes_max: int
) -> tuple[LogPosition, int]:
    """Verify the groups of a closed segment after ``start``, until enough was read.

    Args:
        segment: the segment.
        following: its successor, which says where it ends.
        start: a position in it (another epoch or segment: from its first group on).
        size_bytes_max: ends with the first group behind this much.

    Returns:
        The position behind what was verified (at the end: the start of ``following``), and how
        many bytes were read.

    Raises:
        CorruptionError: the header or a group is not as it was written.
    """
    header, follows = segment.header, following.header.follows
    offset, tip, size = fmt.BLOCK_BYTES, header.follows, 0
    if (start.sequence, start.epoch) == (header.sequence, header.epoch):
        offset, tip = start.offset, start.tip
    else:
        _verify_header(segment)
        size = fmt.BLOCK_BYTES
    segment.file.forget(offset, min(size_bytes_max + fmt.BLOCK_BYTES, header.size_bytes - offset))
    if tip.lsn < follows.lsn:
        for group in walk(segment.file, header, offset, tip):
            size += group.end - offset
            offset, tip = group.end, group.tip
            if tip.lsn >= follows.lsn or size >= size_bytes_max:
                break
        else:
            raise damaged(segment.path, offset, f"is damaged behind record {tip.lsn}")
    if tip.lsn < follows.lsn:
        return LogPosition(
            tip.lsn, tip.group, tip.chain, tip.time_ns, header.sequence, header.epoch, offset
        ), size
    if tip != follows:
        raise damaged(segment.path, offset, "does not end as its successor says")
    # Not its position there: the header of the next segment has to be verified as well.
    return LogPosition(tip.lsn, tip.group, tip.chain, tip.time_ns), size


def _verify_header(segment: Segment) -> None:
    segment.file.forget(0, fmt.BLOCK_BYTES)
    try:
        found = SegmentHeader.decode(segment.file.read_at(0, fmt.BLOCK_BYTES), segment.path)
    except OSError as error:
        raise damaged(segment.path, 0, f"cannot be read ({error})") from error
    if found != segment.header:
        raise CorruptionError(
            f"The header of the log file {segment.path} is not the one that was written.",
            file=segment.path,
            offset=0,
        )
