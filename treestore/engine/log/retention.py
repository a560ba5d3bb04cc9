"""What of the log goes when it is trimmed."""

from __future__ import annotations

from treestore.engine.log.options import LogOptions
from treestore.engine.log.segment import Segment


def take_expendable(
    segments: list[Segment], lsn: int, options: LogOptions, *, urgent: bool
) -> list[Segment]:
    """Take segments that may go off the front of the log; which.

    Args:
        segments: of the log, the oldest first.
        lsn: nobody needs the records up to this one.
        options: how much is kept nevertheless.
        urgent: the disk is full: only the last segment is.
    """
    kept, retention_bytes = options.segments_kept, options.retention_bytes
    if urgent:
        kept, retention_bytes = 1, 0
    needless = 0
    while needless + 1 < len(segments) and segments[needless + 1].header.follows.lsn <= lsn:
        needless += 1
    spared_bytes = sum(segment.header.size_bytes for segment in segments[:needless])
    taken: list[Segment] = []
    while len(taken) < needless and len(segments) > kept and not segments[0].readers:
        spared_bytes -= segments[0].header.size_bytes
        if spared_bytes < retention_bytes:
            break
        taken.append(segments.pop(0))
    return taken
