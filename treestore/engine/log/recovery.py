"""Going on behind the end of a log that was inspected: nothing read is left unsynced.

What is found, and whether the log is opened at all, is decided in ``inspection.py`` by the table in
``verdict.py``; nothing on the disk is changed before that. ``docs/log-format.md`` argues why it is
right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

import attrs

from treestore.engine.decision import Row
from treestore.engine.disk import Disk
from treestore.engine.log import format as fmt
from treestore.engine.log.group import LogGroup
from treestore.engine.log.header import SegmentHeader, damaged
from treestore.engine.log.inspection import Place, Tail
from treestore.engine.log.names import is_saved, saved_name
from treestore.engine.log.pool import SparePool, is_no_space
from treestore.engine.log.position import LogPosition, Tip
from treestore.engine.log.reader import Remains, walk
from treestore.engine.log.segment import Segment, begin, publish

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
        row: the row of the decision table that says so.
        groups: those after ``start``, each with the position behind it; markers among them. To
            be read once, and before the log is trimmed to a position that they lie before.
        last: the position after all of them.
    """

    outcome: Clean | TornTail
    row: Row
    groups: Iterator[tuple[LogGroup, LogPosition]]
    last: LogPosition

    @property
    def transactions(self) -> Iterator[tuple[int, list[bytes]]]:
        """What ``groups`` holds, as transaction id and payloads; memory holds one at a time."""
        return transactions_in(group for group, _ in self.groups)


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
