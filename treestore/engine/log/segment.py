"""One segment file: opening it, activating it, appending a group to it."""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

import attrs
from crc32c import crc32c

from treestore.engine.disk import Buffer, Disk, File
from treestore.engine.log import format as fmt
from treestore.engine.log.group import LogGroup
from treestore.engine.log.header import SegmentHeader, damaged
from treestore.engine.log.names import segment_name
from treestore.engine.log.pool import Spare
from treestore.engine.log.position import LogPosition, Tip
from treestore.engine.log.record import encode_header
from treestore.histogram import Histogram

MARK_EVERY_BYTES = 1 << 20
"""How far apart the places in a segment are that are remembered."""

_ZERO_BLOCK = bytes(fmt.BLOCK_BYTES)
_JOIN_BYTES_MAX = 1 << 20
"""Up to here one copy into one buffer is cheaper than handing many buffers to the system."""


_offset = attrgetter("offset")
_lsn = attrgetter("lsn")


@attrs.define(eq=False)
class Segment:
    """A segment that is part of the log.

    Attributes:
        path, file, header: the file, open, and what its header says.
        end: where the next group would start, in bytes; meaningful in the last segment.
        tip: the state of the chain at ``end``.
        stale: whether the file held other bytes before it was activated.
        marked: whether nothing was appended since the last marker or since the activation.
        readers: iterators that are reading it; it is not recycled under them.
        places: some positions in it, ascending: whoever looks for a record begins at the one
            before it.
    """

    path: str
    file: File
    header: SegmentHeader
    end: int
    tip: Tip
    stale: bool
    marked: bool = True
    readers: int = 0
    places: list[LogPosition] = attrs.field(factory=list)

    @property
    def position(self) -> LogPosition:
        """The position at ``end``."""
        return self.position_at(self.tip, self.end)

    def position_at(self, tip: Tip, offset: int) -> LogPosition:
        """The position at the end of a group of this segment."""
        header = self.header
        return LogPosition(
            tip.lsn, tip.group, tip.chain, tip.time_ns, header.sequence, header.epoch, offset
        )

    def advance(self, tip: Tip, size: int) -> None:
        """A group of ``size`` bytes is on the medium at ``end``."""
        self.tip = tip
        self.end += size
        self.remember(self.position)

    def remember(self, position: LogPosition) -> None:
        """A position in it, to be kept unless there is one nearby."""
        places = self.places
        index = len(places)
        if places and places[-1].offset > position.offset:
            index = bisect_right(places, position.offset, key=_offset)
        if index and position.offset - places[index - 1].offset < MARK_EVERY_BYTES:
            return
        if places[index:] and places[index].offset - position.offset < MARK_EVERY_BYTES:
            return
        places.insert(index, position)

    def place_before(self, lsn: int) -> tuple[int, Tip]:
        """Offset and tip of the last place that is remembered before record ``lsn + 1``."""
        index = bisect_right(self.places, lsn, key=_lsn)
        if index:
            return self.places[index - 1].offset, self.places[index - 1].tip
        return fmt.BLOCK_BYTES, self.header.follows

    @property
    def room(self) -> int:
        """Bytes that still fit."""
        return self.header.size_bytes - self.end

    def write(self, pieces: Sequence[bytes], size: int) -> int:
        """Write a group, or a part of one, at ``end``, without syncing or advancing.

        Pads with zeros to the next block. Where the file held other bytes before, one block of
        zeros follows, so that a block of zeros always stands behind the last group: that is how
        recovery tells a clean end from a torn one. Neither touches a byte of a synced group.

        Args:
            pieces: the encoded records.
            size: their total size in bytes.

        Returns:
            The padded size.

        Raises:
            OSError: any part of it may have been written.
        """
        buffers: list[Buffer] = [*pieces, bytes(self._padding(size))]
        if size <= _JOIN_BYTES_MAX:
            buffers = [b"".join(buffers)]
        self.file.write_at(self.end, buffers)
        return fmt.padded(size)

    def _padding(self, size: int) -> int:
        """How many zeros follow a group of ``size`` bytes at ``end``."""
        padded = fmt.padded(size)
        padding = padded - size
        if self.stale and self.end + padded + fmt.BLOCK_BYTES <= self.header.size_bytes:
            padding += fmt.BLOCK_BYTES
        return padding

    def copy(self, group: LogGroup) -> None:
        """Append a group of another segment; not synced.

        Raises:
            CorruptionError: its bytes changed since they were verified.
        """
        tip = group.tip
        head, after = encode_header(
            self.tip,
            group.records,
            tip.time_ns,
            group.size,
            group.checksum,
            seed=self.header.seed,
            salt=self.header.salt,
        )
        offset, checksum = self.end, 0
        self.file.write_at(offset, [head])
        offset += len(head)
        for chunk in group.chunks(_JOIN_BYTES_MAX):
            checksum = crc32c(chunk, checksum)
            self.file.write_at(offset, [chunk])
            offset += len(chunk)
        if checksum != group.checksum:
            raise damaged(group.file.path, group.offset, "changed while it was being read")
        size = offset - self.end
        self.file.write_at(offset, [bytes(self._padding(size))])
        self.end += fmt.padded(size)
        self.tip = after
        self.marked = group.is_marker


def open_segment(disk: Disk, directory: str, name: str) -> Segment:
    """Open a segment file and check its header. Its ``end`` and ``tip`` are at its start.

    Raises:
        CorruptionError: the header, or the file's size, is not as it was written.
        InvalidArgument: the file is of another format version.
    """
    path = f"{directory}/{name}"
    file = disk.open(path)
    try:
        header = SegmentHeader.decode(file.read_at(0, fmt.BLOCK_BYTES), path)
        if segment_name(header.sequence) != name:
            raise damaged(path, 0, f"says it is segment {header.sequence}: it was renamed")
        size = file.size()
        if size < header.size_bytes:
            text = f"was cut: it has {size} bytes and its header says {header.size_bytes}"
            raise damaged(path, size, text)
    except BaseException:
        file.close()
        raise
    return Segment(path, file, header, fmt.BLOCK_BYTES, header.follows, stale=True)


def begin(spare: Spare, header: SegmentHeader) -> Segment:
    """Write a header into a spare file; not synced, and not part of the log before `publish`.

    Raises:
        OSError: the spare file is of no more use.
    """
    block = header.encode()
    buffers = [block, _ZERO_BLOCK] if spare.stale else [block]
    spare.file.write_at(0, buffers)
    (seed,) = fmt.CRC.unpack_from(block, fmt.SEGMENT_HEADER_CRC_OFFSET)
    header = attrs.evolve(header, seed=seed)
    return Segment(
        spare.path, spare.file, header, fmt.BLOCK_BYTES, header.follows, stale=spare.stale
    )


def sync(segment: Segment, durations: Histogram) -> None:
    """Return once what was written is on the medium; how long that took goes to ``durations``."""
    began = time.perf_counter()
    segment.file.sync()
    durations.observe(time.perf_counter() - began)


def publish(disk: Disk, directory: str, segment: Segment) -> None:
    """Make what was begun part of the log: sync it, then give it its name, durably.

    The file has its final name only once its header, and what recovery copied behind it, are on
    the medium. So a segment never shows a torn header, whenever the power goes.

    Raises:
        OSError: whether it is part of the log is unknown.
    """
    segment.file.sync()
    path = f"{directory}/{segment_name(segment.header.sequence)}"
    disk.rename(segment.path, path)
    disk.sync_directory(directory)
    segment.path = segment.file.path = path


def discard(disk: Disk, spare: Spare) -> None:
    """Close and remove a spare file, as far as that succeeds: it is removed at the next open."""
    with contextlib.suppress(OSError):
        spare.file.close()
    with contextlib.suppress(OSError):
        disk.unlink(spare.path)
