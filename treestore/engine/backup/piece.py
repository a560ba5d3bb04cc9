"""A piece of the archive: part of one segment in a file that is written once."""

from __future__ import annotations

import re
import struct
from typing import Final

import attrs
from crc32c import crc32c

from treestore.engine.disk import Disk, File
from treestore.engine.log import LogIdentity, LogPosition
from treestore.engine.log import format as fmt
from treestore.engine.log.header import SegmentHeader
from treestore.engine.log.position import Tip
from treestore.engine.log.stretch import Stretch
from treestore.errors import CorruptionError, InvalidArgument

MAGIC: Final = b"\x89TSARC\r\n"
FORMAT_VERSION: Final = 1

_HEAD = struct.Struct("<8sII16sQQQQQQQIQQQII")
_CHECKSUM_OFFSET: Final = fmt.BLOCK_BYTES - 4
BODY_OFFSET: Final = 2 * fmt.BLOCK_BYTES
CHUNK_SIZE_BYTES: Final = 1 << 20
assert _HEAD.size == 124

NEW_SUFFIX: Final = ".new"
_NAME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{12})\.piece")
_TIMELINE = re.compile(r"([0-9a-f]{8})\.timeline")


@attrs.frozen(order=True)
class PieceName:
    """What a piece's name says; ordered like the log."""

    timeline: int
    sequence: int
    epoch: int
    start: int

    def __str__(self) -> str:
        return f"{self.timeline:08x}-{self.sequence:016x}-{self.epoch:016x}-{self.start:012x}.piece"

    @classmethod
    def parse(cls, name: str) -> PieceName | None:
        """The reverse of ``str``; None for other names."""
        match = _NAME.fullmatch(name)
        return None if match is None else cls(*(int(part, 16) for part in match.groups()))


def timeline_name(number: int) -> str:
    """The file with the history of a timeline."""
    return f"{number:08x}.timeline"


def timeline_in(name: str) -> int | None:
    """The number in such a name; None for other names."""
    match = _TIMELINE.fullmatch(name)
    return None if match is None else int(match[1], 16)


@attrs.frozen
class Piece:
    """The head of a piece.

    Attributes:
        path: the file.
        identity: whose log it is.
        sequence, epoch: of the segment's activation.
        start, end: which bytes of the segment's file it holds.
        before, after: the state of the chain at those.
        crc: of everything behind the head.
    """

    path: str
    identity: LogIdentity
    sequence: int
    epoch: int
    start: int
    end: int
    before: Tip
    after: Tip
    crc: int

    @property
    def position(self) -> LogPosition:
        """The position at its end."""
        tip = self.after
        return LogPosition(
            tip.lsn, tip.group, tip.chain, tip.time_ns, self.sequence, self.epoch, self.end
        )

    def encode(self) -> bytes:
        """The head block."""
        before, after = self.before, self.after
        fields = _HEAD.pack(
            *(MAGIC, FORMAT_VERSION, self.identity.timeline, self.identity.database_uuid),
            *(self.sequence, self.epoch, self.start, self.end),
            *(before.lsn, before.group, before.time_ns, before.chain),
            *(after.lsn, after.group, after.time_ns, after.chain),
            self.crc,
        )
        block = fields.ljust(_CHECKSUM_OFFSET, b"\0")
        return block + fmt.CRC.pack(crc32c(block))


def read_piece(disk: Disk, path: str) -> Piece:
    """The head of the piece at ``path``.

    Raises:
        CorruptionError: it is not as it was written, or was renamed or cut.
        InvalidArgument: it is of another format version.
    """
    file = disk.open(path, read_only=True)
    try:
        block, size = file.read_at(0, fmt.BLOCK_BYTES), file.size()
    finally:
        file.close()
    short = len(block) < fmt.BLOCK_BYTES
    if short or fmt.CRC.pack(crc32c(block[:_CHECKSUM_OFFSET])) != block[_CHECKSUM_OFFSET:]:
        raise _damaged(path, 0, "has a head whose checksum does not match")
    magic, version, timeline, uuid, sequence, epoch, start, end, *rest = _HEAD.unpack_from(block)
    if magic != MAGIC:
        raise _damaged(path, 0, "is no piece of an archive")
    if version != FORMAT_VERSION:
        raise InvalidArgument(
            f"{path} has format version {version}; this TreeStore reads {FORMAT_VERSION}."
        )
    lsn, group, time_ns, chain, *rest = rest
    before = Tip(lsn, group, chain, time_ns)
    lsn, group, time_ns, chain, crc = rest
    after = Tip(lsn, group, chain, time_ns)
    identity = LogIdentity(uuid, timeline)
    if not path.endswith(f"/{PieceName(timeline, sequence, epoch, start)}"):
        raise _damaged(path, 0, "was renamed: its head says otherwise")
    if size != BODY_OFFSET + end - start:
        raise _damaged(path, size, f"has {size} bytes and should have {BODY_OFFSET + end - start}")
    return Piece(path, identity, sequence, epoch, start, end, before, after, crc)


def write_piece(disk: Disk, directory: str, stretch: Stretch) -> Piece:
    """Copy a stretch into a piece, durably. Doing it again after a crash replaces nothing.

    Raises:
        OSError: it could not be written.
        CorruptionError: the segment changed under the copy.
    """
    header = stretch.header
    name = PieceName(header.identity.timeline, header.sequence, header.epoch, stretch.start)
    path = f"{directory}/{name}"
    temporary = path + NEW_SUFFIX
    if disk.exists(temporary):
        disk.unlink(temporary)
    file = disk.open(temporary, create=True)
    try:
        block = stretch.file.read_at(0, fmt.BLOCK_BYTES)
        if SegmentHeader.decode(block, stretch.file.path) != header:
            raise _damaged(stretch.file.path, 0, "has another header than when it was opened")
        crc = crc32c(block)
        file.write_at(fmt.BLOCK_BYTES, [block])
        for offset in range(stretch.start, stretch.end, CHUNK_SIZE_BYTES):
            data = stretch.file.read_at(offset, min(CHUNK_SIZE_BYTES, stretch.end - offset))
            crc = crc32c(data, crc)
            file.write_at(BODY_OFFSET + offset - stretch.start, [data])
            # Like the log's own segments: the next sync of a group waits behind this one.
            file.sync()
        piece = Piece(
            path,
            header.identity,
            header.sequence,
            header.epoch,
            stretch.start,
            stretch.end,
            stretch.before,
            stretch.after,
            crc,
        )
        file.write_at(0, [piece.encode()])
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, path)
    disk.sync_directory(directory)
    return piece


def check_piece(disk: Disk, piece: Piece) -> SegmentHeader:
    """Read all of a piece; the header of its segment.

    Raises:
        CorruptionError: it is not as it was written.
    """
    file = disk.open(piece.path, read_only=True)
    try:
        block = file.read_at(fmt.BLOCK_BYTES, fmt.BLOCK_BYTES)
        crc, size = 0, BODY_OFFSET + piece.end - piece.start
        for offset in range(fmt.BLOCK_BYTES, size, CHUNK_SIZE_BYTES):
            crc = crc32c(file.read_at(offset, min(CHUNK_SIZE_BYTES, size - offset)), crc)
    finally:
        file.close()
    if crc != piece.crc:
        raise _damaged(piece.path, fmt.BLOCK_BYTES, "does not match its checksum")
    header = SegmentHeader.decode(block, piece.path)
    if (header.identity, header.sequence, header.epoch) != (
        *(piece.identity, piece.sequence, piece.epoch),
    ):
        raise _damaged(piece.path, fmt.BLOCK_BYTES, "holds the header of another segment")
    return header


class SegmentView:
    """The bytes of a segment's file, as far as adjacent pieces hold them."""

    def __init__(self, files: list[tuple[Piece, File]]) -> None:
        self._files = files
        self.path = files[0][0].path

    def read_at(self, offset: int, size: int) -> bytes:
        """See `treestore.engine.disk.File`: fewer bytes where the pieces end."""
        parts: list[bytes] = []
        for piece, file in self._files:
            if offset < piece.end and size > 0 and offset >= piece.start:
                part = file.read_at(
                    BODY_OFFSET + offset - piece.start, min(size, piece.end - offset)
                )
                parts.append(part)
                offset += len(part)
                size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the pieces' files."""
        for _, file in self._files:
            file.close()


def _damaged(path: str, offset: int, what: str) -> CorruptionError:
    return CorruptionError(f"The archive file {path} {what}.", file=path, offset=offset)
