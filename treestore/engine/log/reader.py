"""Reading a segment: `walk` follows the chain, `find_later_group` looks behind its end."""

from __future__ import annotations

from collections.abc import Iterator

from crc32c import crc32c

from treestore.engine.disk import File
from treestore.engine.log import format as fmt
from treestore.engine.log.header import SegmentHeader
from treestore.engine.log.position import Tip
from treestore.engine.log.record import LogRecord

CHUNK_BYTES = 1 << 20
"""Read at a time; only a record that is larger takes more memory."""


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
    file: File, header: SegmentHeader, offset: int, tip: Tip
) -> Iterator[tuple[LogRecord, int]]:
    """The records that follow ``tip``, each with the offset behind it.

    Ends, without an error, at the first bytes that are not the record that must come next:
    checksum, salt, LSN, group, chain, time and flags all have to fit. Records of a last group
    that is not whole are yielded too; whoever asks decides where the log ends.

    Args:
        file: the segment file.
        header: its header.
        offset: a block boundary where a group starts.
        tip: the state of the chain there.
    """
    size, salt, seed = header.size_bytes, header.salt, header.seed
    window = Window(file, size)
    unpack, overhead = fmt.RECORD_BODY.unpack_from, fmt.RECORD_HEADER_BYTES
    lsn, group, chain, time_ns = tip.lsn, tip.group, tip.chain, tip.time_ns
    inside = False
    while offset + overhead <= size:
        head = window.at(offset, overhead)
        if len(head) < overhead:
            return
        fields = unpack(head, fmt.RECORD_CRC_BYTES)
        length, its_lsn, its_group, its_id, its_time, its_salt, before, kind, flags, rest = fields
        end = offset + overhead + length
        if (
            its_salt != salt
            or its_lsn != lsn + 1
            or before != chain
            or its_group != (group if inside else group + 1)
            or end > size
            or its_time < time_ns
            or kind not in fmt.KINDS
            or flags & ~fmt.FLAGS_ALL
            or bool(flags & fmt.FLAG_FIRST) is inside
            or rest
        ):
            return
        data = window.at(offset, overhead + length)
        (checksum,) = fmt.CRC.unpack_from(data)
        if crc32c(data[fmt.RECORD_CRC_BYTES :], seed) != checksum:
            return
        payload = bytes(data[overhead:])
        lsn, group, chain, time_ns = its_lsn, its_group, checksum, its_time
        inside = not flags & fmt.FLAG_LAST
        offset = end if inside else fmt.padded(end)
        yield LogRecord(lsn, group, its_id, time_ns, kind, flags, chain, payload), offset


class Remains:
    """What stands in the last segment behind the end of the log.

    Attributes:
        later: offset of a record that only exists because the group at the end was synced; None
            where there is none.
        nothing: whether the block at the end is zeros and no record of this activation follows:
            nothing had been begun there.
        last: offset behind the last sign of a record of this activation.
    """

    __slots__ = ("last", "later", "nothing")

    def __init__(self, later: int | None, nothing: bool, last: int) -> None:
        self.later = later
        self.nothing = nothing
        self.last = last


def find_remains(file: File, header: SegmentHeader, end: int, group: int) -> Remains:
    """Look for records behind ``end``, wherever they start.

    A group is written only after the one before it was synced. So after the end of group g,
    pieces of g+1 are what a crash leaves; a valid record of g+2 or later (a marker too) proves
    that g+1 was once whole and on the medium.

    Every record repeats the segment's salt at a known place, so the search is one for four
    bytes, at memory speed, and finds records at any offset.

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
            record = offset + found - fmt.RECORD_SALT_OFFSET
            its_group = _group_at(file, record) if record >= end else 0
            if its_group > group:  # else bytes of an earlier life of the file, by chance
                nothing = False
                last = max(last, record + fmt.RECORD_HEADER_BYTES)
                if its_group > group + 1 and _is_valid(file, header, record):
                    return Remains(record, False, last)
            found = chunk.find(salt, found + 1)
        if offset + len(chunk) >= size:
            break
        offset += len(chunk) - len(salt) + 1
    return Remains(None, nothing, min(last, size))


def _group_at(file: File, offset: int) -> int:
    """The group number of the record at ``offset``, if there is a record; 0 where the file ends."""
    head = file.read_at(offset, fmt.RECORD_HEADER_BYTES)
    if len(head) < fmt.RECORD_HEADER_BYTES:
        return 0
    group: int = fmt.RECORD_BODY.unpack_from(head, fmt.RECORD_CRC_BYTES)[2]
    return group


def _is_valid(file: File, header: SegmentHeader, offset: int) -> bool:
    """Whether there is a whole record of this activation, whatever it follows."""
    head = file.read_at(offset, fmt.RECORD_HEADER_BYTES)
    (length,) = fmt.CRC.unpack_from(head, fmt.RECORD_CRC_BYTES)
    if offset + len(head) + length > header.size_bytes:
        return False
    (checksum,) = fmt.CRC.unpack_from(head)
    payload = file.read_at(offset + len(head), length)
    found: int = crc32c(payload, crc32c(head[fmt.RECORD_CRC_BYTES :], header.seed))
    return found == int(checksum)
