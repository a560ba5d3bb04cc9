"""Opening a log: find where it ends, tell a torn tail from damage, start afresh behind it.

The rules, in order; ``docs/log-format.md`` argues why they are right:

=====================================================  ==========================================
found                                                  outcome
=====================================================  ==========================================
a header or a file size is not as it was written       `CorruptionError`
a sequence number is missing, or ``start`` is ahead    `CorruptionError`
a segment does not reach what its successor follows    `CorruptionError`
last segment: after the last good group g comes a      `CorruptionError`
valid record of group g+2 or later
last segment: anything else behind the last good group `TornTail`: saved aside
last segment: a block of zeros, nothing behind it      `Clean`
=====================================================  ==========================================

Nothing on the disk is changed before all of that is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random

import attrs

from treestore.engine.disk import Disk
from treestore.engine.log import format as fmt
from treestore.engine.log.group import LogGroup
from treestore.engine.log.header import SegmentHeader, damaged
from treestore.engine.log.names import SEGMENT_SUFFIX, is_saved, number_in, saved_name
from treestore.engine.log.pool import SparePool, is_no_space
from treestore.engine.log.position import LogIdentity, LogPosition, Tip
from treestore.engine.log.reader import Remains, find_remains, walk
from treestore.engine.log.segment import Segment, begin, open_segment, publish
from treestore.errors import CorruptionError, InvalidArgument

REPLACE_BYTES_MAX = 1 << 20
"""A last segment with no more than this in it is replaced when the log is opened; behind a
fuller one a new segment is started. So opening again and again does not lengthen the log."""

SAVED_BYTES_MAX = 16 << 20
SAVED_FILES_MAX = 8

_COPY_BYTES = 1 << 20


@attrs.frozen
class Clean:
    """The log ended with a whole group and nothing behind it."""


@attrs.frozen
class TornTail:
    """Behind the last whole group stood pieces of one that was never acknowledged.

    Attributes:
        path: the segment file.
        offset: where in it the log was cut, in bytes.
        saved_as: the file that holds the cut bytes (at most 16 MiB of them).
    """

    path: str
    offset: int
    saved_as: str


@attrs.frozen
class Recovered:
    """What `Log.open` found.

    Attributes:
        outcome: how the log ended.
        groups: those after ``start``, each with the position behind it; markers among them. To
            be read once, and before the log is trimmed to a position that they lie before.
        last: the position after all of them.
    """

    outcome: Clean | TornTail
    groups: Iterator[tuple[LogGroup, LogPosition]]
    last: LogPosition

    @property
    def transactions(self) -> Iterator[tuple[int, list[bytes]]]:
        """What ``groups`` holds, as transaction id and payloads; memory holds one at a time."""
        return transactions_in(group for group, _ in self.groups)


@attrs.frozen
class Place:
    """Where reading begins.

    Attributes:
        index: of the segment, in the list of segments.
        offset: in its file, in bytes.
        tip: the state of the chain there.
    """

    index: int
    offset: int
    tip: Tip


@attrs.define
class Tail:
    """What the last segment holds.

    Attributes:
        end, tip: where its last good group ends, and the state of the chain there.
        group_offset, before: where that group starts and the state of the chain before it;
            None where nothing stands behind the place that reading began at.
    """

    end: int
    tip: Tip
    group_offset: int | None = None
    before: Tip | None = None


def open_segments(
    disk: Disk, directory: str, identity: LogIdentity, start: LogPosition
) -> tuple[list[Segment], list[str]]:
    """Open the segments that form the log's dense end, oldest first.

    Returns:
        The segments, and the names of files older than a gap, which nothing needs: they lie
        before ``start``.

    Raises:
        CorruptionError: a segment that ``start`` needs is missing, damaged or not this log's.
        InvalidArgument: a file is of another format version.
    """
    names = [n for n in disk.list(directory) if number_in(n, SEGMENT_SUFFIX) is not None]
    segments: list[Segment] = []
    try:
        while names:
            try:
                older = open_segment(disk, directory, names[-1])
            except (CorruptionError, InvalidArgument):
                if segments and segments[0].header.follows.lsn <= start.lsn:
                    break
                raise
            if segments and not _precedes(older, segments[0]):
                older.file.close()
                break
            segments.insert(0, older)
            if older.header.identity != identity:
                raise _foreign(older, identity)
            names.pop()
        _check_start(directory, segments, start)
    except BaseException:
        for segment in segments:
            segment.file.close()
        raise
    return segments, names


def _precedes(older: Segment, newer: Segment) -> bool:
    first, second = older.header, newer.header
    return (
        first.sequence + 1 == second.sequence
        and first.epoch < second.epoch
        and first.follows.lsn <= second.follows.lsn
    )


def _foreign(segment: Segment, identity: LogIdentity) -> CorruptionError:
    found = segment.header.identity
    if found.database_uuid != identity.database_uuid:
        text = f"belongs to another database ({found.database_uuid.hex()})"
    else:
        text = f"is of timeline {found.timeline}, the database of timeline {identity.timeline}"
    return damaged(segment.path, 0, text)


def _check_start(directory: str, segments: list[Segment], start: LogPosition) -> None:
    if not segments:
        text = f"The log in {directory} has no segments"
    elif segments[0].header.follows.lsn > start.lsn:
        text = (
            f"The log in {directory} begins after record {segments[0].header.follows.lsn} "
            f"(segment {segments[0].header.sequence}) and a segment before it is missing or "
            "damaged"
        )
    elif segments[-1].header.sequence < start.sequence:
        text = (
            f"The log in {directory} ends with segment {segments[-1].header.sequence} and "
            f"segment {start.sequence} is missing"
        )
    else:
        return
    raise CorruptionError(
        f"{text}, but the checkpoint needs what follows record {start.lsn}. Nothing was changed. "
        "If files were moved away, put them back.",
        file=segments[0].path if segments else directory,
        offset=0,
    )


def locate(segments: list[Segment], start: LogPosition) -> Place:
    """Where to begin reading to find everything after ``start``."""
    index = len(segments) - 1
    while segments[index].header.follows.lsn > start.lsn:
        index -= 1
    header = segments[index].header
    if header.sequence == start.sequence and header.epoch == start.epoch:
        return Place(index, start.offset, start.tip)
    return Place(index, fmt.BLOCK_BYTES, header.follows)


def verify(
    segments: list[Segment], place: Place, lsn_min: int, progress: Callable[[int, int], None]
) -> tuple[Tail, Remains]:
    """Check everything from ``place`` to the end of the log.

    Args:
        segments: the log.
        place: where to begin.
        lsn_min: the record that the checkpoint's pages hold changes of; the log must reach it.
        progress: told now and then how many bytes of how many were looked at.

    Raises:
        CorruptionError: damage before the end.
    """
    offset, tip = place.offset, place.tip
    for index in range(place.index, len(segments) - 1):
        segment, follows = segments[index], segments[index + 1].header.follows
        tail = find_tail(segment, offset, tip, follows.lsn)
        if tail.tip != follows:
            name = segments[index + 1].path
            text = (
                f"is damaged behind record {tail.tip.lsn}; {name} follows record {follows.lsn}, "
                "so what stood here was acknowledged"
            )
            raise damaged(segment.path, tail.end, text)
        segment.end, segment.tip = tail.end, tail.tip
        offset, tip = fmt.BLOCK_BYTES, follows
    last = segments[-1]
    tail = find_tail(last, offset, tip, None)
    remains = find_remains(last.file, last.header, tail.end, tail.tip.group)
    if remains.later is not None:
        text = (
            f"is damaged behind record {tail.tip.lsn}: a later group at byte {remains.later} "
            "proves that what stood here was acknowledged"
        )
        raise damaged(last.path, tail.end, text)
    if tail.tip.lsn < lsn_min:
        text = f"ends after record {tail.tip.lsn}, but the checkpoint holds record {lsn_min}"
        raise damaged(last.path, tail.end, text)
    last.end, last.tip = tail.end, tail.tip
    return tail, remains


def find_tail(segment: Segment, offset: int, tip: Tip, lsn_max: int | None) -> Tail:
    """Follow the chain to its last whole group, or to the end of the group with ``lsn_max``."""
    tail = Tail(offset, tip)
    if tip.lsn == lsn_max:
        return tail
    for group in walk(segment.file, segment.header, offset, tip):
        tail = Tail(group.end, group.tip, tail.end, tail.tip)
        if group.tip.lsn == lsn_max:
            break
    return tail


def save_remains(disk: Disk, directory: str, last: Segment, tail: Tail, remains: Remains) -> str:
    """Copy what stands behind the end into a file of its own; returns its path.

    Doing it again after a crash gives the same file. The oldest of too many are removed. On a
    full disk nothing is copied: the bytes stay where they are, until the segment is trimmed.
    """
    path = f"{directory}/{saved_name(tail.tip.lsn, tail.end)}"
    if disk.exists(path):
        disk.unlink(path)
    size = min(fmt.padded(remains.last - tail.end) + fmt.BLOCK_BYTES, SAVED_BYTES_MAX)
    size = min(size, last.header.size_bytes - tail.end)
    file = disk.open(path, create=True)
    try:
        for offset in range(0, size, _COPY_BYTES):
            data = last.file.read_at(tail.end + offset, min(_COPY_BYTES, size - offset))
            file.write_at(offset, [data])
        file.sync()
    except OSError as error:
        if not is_no_space(error):
            raise
        file.close()
        disk.unlink(path)
        path = last.path
    finally:
        file.close()
    saved = [name for name in disk.list(directory) if is_saved(name)]
    for name in saved[:-SAVED_FILES_MAX]:
        if f"{directory}/{name}" != path:
            disk.unlink(f"{directory}/{name}")
    disk.sync_directory(directory)
    return path


def start_afresh(
    disk: Disk,
    directory: str,
    pool: SparePool,
    segments: list[Segment],
    place: Place,
    tail: Tail,
    random: Random,
    *,
    keep: bool = False,
) -> None:
    """Write what may not be on the medium again, under a new epoch, and end the log with it.

    The last group may have been read from the operating system's memory only (every earlier one
    was synced before its successor was written). It is copied, with new checksums, into a file
    that then either replaces the last segment (where that holds little and was read whole) or
    becomes its successor (always with ``keep``). Either way one rename makes the change, so that
    a crash here leaves the log as it was or as it will be.
    """
    last = segments[-1]
    whole = place.index < len(segments) - 1 or place.offset == fmt.BLOCK_BYTES
    # What fits into any spare, so that a full disk does not stand in the way.
    small = tail.end <= min(fmt.BLOCK_BYTES + REPLACE_BYTES_MAX, pool.smallest_bytes)
    replace = not keep and whole and small
    if replace:
        origin, follows = fmt.BLOCK_BYTES, last.header.follows
    elif tail.group_offset is not None and tail.before is not None:
        origin, follows = tail.group_offset, tail.before
    else:
        origin, follows = tail.end, tail.tip
    spare = pool.take_at_open(tail.end - origin + fmt.BLOCK_BYTES * (1 if replace else 2))
    header = SegmentHeader(
        identity=last.header.identity,
        sequence=last.header.sequence + (not replace),
        epoch=last.header.epoch + 1,
        size_bytes=spare.size_bytes,
        salt=new_salt(random),
        follows=follows,
    )
    fresh = begin(spare, header)
    copy_groups(last, origin, tail.tip, fresh)
    if replace:
        last.file.close()
        segments.pop()
    publish(disk, directory, fresh)
    segments.append(fresh)


def copy_groups(source: Segment, offset: int, until: Tip, target: Segment) -> None:
    """Append the groups from ``offset`` up to ``until`` to a segment that is not in use yet.

    Raises:
        CorruptionError: the bytes changed since they were verified.
    """
    reached = follows = target.tip
    if follows.lsn < until.lsn:
        for group in walk(source.file, source.header, offset, follows):
            target.copy(group)
            reached = group.tip
            if reached.lsn == until.lsn:
                break
    if reached != until:
        raise damaged(source.path, offset, "changed while it was being read")


def new_salt(random: Random) -> int:
    """Any number of 32 bits but zero, which preallocated space is full of."""
    return random.randrange(1, 1 << 32)


def transactions_in(groups: Iterable[LogGroup]) -> Iterator[tuple[int, list[bytes]]]:
    """Put records together again: transaction id and payloads of each transaction."""
    payloads: list[bytes] = []
    for group in groups:
        for record in group.log_records():
            if record.kind == fmt.KIND_SYNCED:
                continue
            payloads.append(record.payload)
            if record.kind == fmt.KIND_COMMIT:
                yield record.transaction_id, payloads
                payloads = []
