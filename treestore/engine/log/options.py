"""The log's limits, and the numbers it reports about itself."""

from __future__ import annotations

import attrs

from treestore.engine.log.format import BLOCK_BYTES, padded
from treestore.histogram import HistogramSnapshot

MEBIBYTE = 1 << 20


RECORD_BYTES_MIN = 192
"""The log's limit in bytes is also one in records: as many as records of this size would fill it.
Recovery takes its time by the record, so that a log full of tiny ones would take it for ever."""


@attrs.frozen
class LogOptions:
    """Limits of a log.

    Attributes:
        segment_size_bytes_min: size of the first segments; also what a rotation falls back to
            when nothing was prepared.
        segment_size_bytes_max: segments grow up to this under load. (One group that is larger
            gets a segment of its own size.)
        size_bytes_max: the most that may lie behind the last trim, in bytes and (see
            `RECORD_BYTES_MIN`) in records; past it `Log.append` raises `ResourceExhausted`.
        segments_kept: that many segments, the active one included, survive every trim.
        retention_bytes: segments of about that size, together, survive a trim although nobody
            needs them, for those who read the log (not on a full disk).
        segments_spare_max: trimmed segments kept for reuse; further ones are removed.
        fill_fast_ns: a segment that filled faster doubles the size of the next.
        fill_slow_ns: a segment that filled slower halves the size of the next.
        archived: what `Log.note_archived` was not told of is kept, and counts as live.
    """

    segment_size_bytes_min: int = 4 * MEBIBYTE
    segment_size_bytes_max: int = 100 * MEBIBYTE
    size_bytes_max: int = 512 * MEBIBYTE
    segments_kept: int = 3
    retention_bytes: int = 0
    segments_spare_max: int = 2
    fill_fast_ns: int = 10 * 10**9
    fill_slow_ns: int = 600 * 10**9
    archived: bool = False

    def __attrs_post_init__(self) -> None:
        low, high = self.segment_size_bytes_min, self.segment_size_bytes_max
        if low < 4 * BLOCK_BYTES or padded(low) != low or padded(high) != high or high < low:
            raise ValueError("segment sizes are multiples of 4096, at least 16384, min <= max")
        if self.segments_kept < 1 or self.segments_spare_max < 0:
            raise ValueError("at least one segment is kept, and spares are not negative")


@attrs.frozen
class LogStatistics:
    """A snapshot of the log's counters; those of events count since the log was opened.

    Attributes:
        live_bytes: bytes behind the last trim; what `LogOptions.size_bytes_max` bounds.
        disk_bytes: size of all segment files, spare ones included.
        segments: segment files in use.
        spares: segment files ready for use, without the reserve.
        appended_bytes: padded bytes of all groups.
        appended_records: records in them.
        groups: groups written, markers included.
        rotations: segments activated.
        syncs: syncs of group bytes.
        sync_ns_last: how long the last one took, with its write.
        sync_durations: seconds that the syncs took, without the writes.
        failed: whether the log is latched.
    """

    live_bytes: int
    disk_bytes: int
    segments: int
    spares: int
    appended_bytes: int
    appended_records: int
    groups: int
    rotations: int
    syncs: int
    sync_ns_last: int
    sync_durations: HistogramSnapshot
    failed: bool
