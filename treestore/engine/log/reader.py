"""Reading a segment: `walk` follows the chain, `find_remains` looks behind its end."""

from __future__ import annotations

from collections.abc import Iterator

from crc32c import crc32c

from treestore.engine.disk import File
from treestore.engine.log import format as fmt
from treestore.engine.log.group import LogGroup
from treestore.engine.log.header import SegmentHeader
from treestore.engine.log.position import Tip

CHUNK_BYTES = 1 << 20
"""Read at a time; a longer group is verified in chunks of this size."""


class Window:
    """A buffered view of a file that only moves forward."""

    def __init__(self, file: File, size: int) -> None:
        self._file = file
        self._size = size
        self._start = 0
        self._data = memoryview(b"")

    def at(self, offset: int, size: int) -> memoryview:
        """``size`` bytes from ``offset``; fewer only where the file is shorter."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._data):
            wanted = min(max(size, CHUNK_BYTES), self._size - offset)
            self._data = memoryview(self._file.read_at(offset, max(wanted, 0)))
            self._start, begin = offset, 0
        return self._data[begin : begin + size]


def walk(
    file: File, header: SegmentHeader, offset: int, tip: Tip, end: int | None = None
) -> Iterator[LogGroup]:
    """The groups that follow ``tip``, one after the other.

    Ends, without an error, at the first bytes that are not the group that must come next: both
    checksums, salt, LSN, group number, chain and time all have to fit.

    Args:
        file: the segment file.
        header: its header.
        offset: a block boundary where a group starts.
        tip: the state of the chain there.
        end: where to stop at the latest, so that nothing behind it is read; None: the file's end.
    """
    size, salt, seed = end or header.size_bytes, header.salt, header.seed
    window = Window(file, size)
    unpack, overhead, minimum = fmt.GROUP_BODY.unpack_from, fmt.GROUP_HEADER_BYTES, fmt.ENTRY_BYTES
    lsn, group, chain, time_ns = tip.lsn, tip.group, tip.chain, tip.time_ns
    while offset + overhead <= size:
        head = window.at(offset, overhead)
        if len(head) < overhead:
            return
        fields = unpack(head, fmt.CRC.size)
        its_salt, its_group, its_lsn, its_time, before, count, length, checksum, rest = fields
        behind = offset + overhead + length
        if (
            its_salt != salt
            or its_lsn != lsn + 1
            or its_group != group + 1
            or before != chain
            or its_time < time_ns
            or not 0 < count * minimum <= length
            or behind > size
            or rest != fmt.GROUP_RESERVED
        ):
            return
        (chain,) = fmt.CRC.unpack_from(head)
        if crc32c(head[fmt.CRC.size :], seed) != chain:
            return
        body: memoryview | None = None
        if overhead + length <= CHUNK_BYTES:
            body = window.at(offset, overhead + length)[overhead:]
            found = crc32c(body)
        else:
            found = _checksum(file, offset + overhead, length)
        if found != checksum:
            return
        lsn, group, time_ns = lsn + count, its_group, its_time
        yield LogGroup(
            file, offset, Tip(lsn, group, chain, time_ns), its_lsn, count, length, checksum, body
        )
        offset = fmt.padded(behind)


def _checksum(file: File, offset: int, size: int) -> int:
    """The checksum of a part of a file."""
    checksum = 0
    for at in range(0, size, CHUNK_BYTES):
        checksum = crc32c(file.read_at(offset + at, min(CHUNK_BYTES, size - at)), checksum)
    return checksum


class Remains:
    """What stands in the last segment behind the end of the log.

    Attributes:
        later: offset of a group that was only begun because the group at the end was synced; None
            where there is none.
        nothing: whether the block at the end is zeros and no group of this activation follows:
            nothing had been begun there.
        last: offset behind the last sign of a group of this activation.
    """

    __slots__ = ("last", "later", "nothing")

    def __init__(self, later: int | None, nothing: bool, last: int) -> None:
        self.later = later
        self.nothing = nothing
        self.last = last


def find_remains(file: File, header: SegmentHeader, end: int, group: int) -> Remains:
    """Look for groups behind ``end``, in whatever block they start.

    A group is written only after the one before it was synced. So after the end of group g,
    pieces of g+1 are what a crash leaves; the valid header of g+2 or later (a marker too) proves
    that g+1 was once whole and on the medium.

    Every header repeats the segment's salt at a known place of a block, so the search is one for
    four bytes, at memory speed.

    Args:
        file: the segment file.
        header: its header.
        end: where the last good group ends: a block boundary.
        group: the number of the last good group.
    """
    size = header.size_bytes
    salt = fmt.CRC.pack(header.salt)
    first = file.read_at(end, min(fmt.BLOCK_BYTES, size - end))
    nothing = not first.strip(b"\0")
    last = end if nothing else end + len(first)
    offset = end
    while offset < size:
        chunk = file.read_at(offset, min(CHUNK_BYTES, size - offset))
        if not chunk:
            break
        found = chunk.find(salt)
        while found >= 0:
            start = offset + found - fmt.GROUP_SALT_OFFSET
            if start >= end and start % fmt.BLOCK_BYTES == 0:
                its_group, its_end = _group_at(file, header, start)
                if its_group > group:  # else bytes of an earlier life of the file, by chance
                    nothing = False
                    last = max(last, its_end or start + fmt.GROUP_HEADER_BYTES)
                    if its_group > group + 1 and its_end:
                        return Remains(start, False, last)
            found = chunk.find(salt, found + 1)
        if offset + len(chunk) >= size:
            break
        offset += len(chunk) - len(salt) + 1
    return Remains(None, nothing, min(last, size))


def _group_at(file: File, header: SegmentHeader, offset: int) -> tuple[int, int]:
    """Number and end of the group whose header is at ``offset``; its end is 0 where the header is
    not whole, both are 0 where the file ends."""
    head = file.read_at(offset, fmt.GROUP_HEADER_BYTES)
    if len(head) < fmt.GROUP_HEADER_BYTES:
        return 0, 0
    fields = fmt.GROUP_BODY.unpack_from(head, fmt.CRC.size)
    group, length = fields[1], fields[6]
    (checksum,) = fmt.CRC.unpack_from(head)
    end = offset + len(head) + length
    if end > header.size_bytes or crc32c(head[fmt.CRC.size :], header.seed) != checksum:
        return group, 0
    return group, end
