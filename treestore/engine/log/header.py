"""The header block of a segment."""

from __future__ import annotations

import attrs
from crc32c import crc32c

from treestore.engine.log import format as fmt
from treestore.engine.log.position import LogIdentity, Tip
from treestore.errors import CorruptionError, InvalidArgument


@attrs.frozen
class SegmentHeader:
    """What the first block of a segment file says. It is written once per activation.

    Attributes:
        identity: whose log it is.
        sequence: the segment's place in the log: dense and rising.
        epoch: rises with every activation of any segment, so never comes back.
        size_bytes: size of the file.
        salt: random; repeated in every group, so that groups can be found by it.
        follows: the state of the chain before the segment's first group. It also says where
            the segment before this one *ends*: what lies behind there is not part of the log.
        seed: the header's own checksum. Every group's checksum starts from it, so that no
            group of another activation, file or database is ever valid here.
    """

    identity: LogIdentity
    sequence: int
    epoch: int
    size_bytes: int
    salt: int
    follows: Tip
    seed: int = 0

    def encode(self) -> bytes:
        """The header block, one `BLOCK_BYTES` long."""
        fields = fmt.SEGMENT_HEADER.pack(
            fmt.SEGMENT_MAGIC,
            fmt.FORMAT_VERSION,
            self.identity.timeline,
            self.identity.database_uuid,
            self.sequence,
            self.epoch,
            self.size_bytes,
            self.salt,
            self.follows.chain,
            self.follows.lsn,
            self.follows.group,
            self.follows.time_ns,
        )
        block = fields.ljust(fmt.SEGMENT_HEADER_CRC_OFFSET, b"\0")
        return block + fmt.CRC.pack(crc32c(block))

    @classmethod
    def decode(cls, block: bytes, path: str) -> SegmentHeader:
        """Read a header block.

        Args:
            block: the first `BLOCK_BYTES` of the file.
            path: named in errors.

        Raises:
            CorruptionError: the block is not what was written.
            InvalidArgument: the file is of another format version.
        """
        if len(block) < fmt.BLOCK_BYTES:
            raise damaged(path, 0, f"ends within its header, after {len(block)} bytes")
        (checksum,) = fmt.CRC.unpack_from(block, fmt.SEGMENT_HEADER_CRC_OFFSET)
        if crc32c(memoryview(block)[: fmt.SEGMENT_HEADER_CRC_OFFSET]) != checksum:
            raise damaged(path, 0, "has a header whose checksum does not match")
        magic, version, timeline, uuid, sequence, epoch, size, salt, *follows = (
            fmt.SEGMENT_HEADER.unpack_from(block)
        )
        if magic != fmt.SEGMENT_MAGIC:
            raise damaged(path, 0, "is not a log segment")
        if version != fmt.FORMAT_VERSION:
            raise InvalidArgument(
                f"The log file {path} has format version {version}; this TreeStore reads "
                f"version {fmt.FORMAT_VERSION}. Open it with the TreeStore that wrote it."
            )
        chain, lsn, group, time_ns = follows
        return cls(
            identity=LogIdentity(uuid, timeline),
            sequence=sequence,
            epoch=epoch,
            size_bytes=size,
            salt=salt,
            follows=Tip(lsn, group, chain, time_ns),
            seed=checksum,
        )


def damaged(path: str, offset: int, what: str) -> CorruptionError:
    """The error for a log file that is not as it was written.

    Args:
        path: the file.
        offset: where in it, in bytes.
        what: the rest of a sentence that begins with the file.
    """
    return CorruptionError(
        f"The log file {path} {what} (at byte {offset}). Nothing was changed. Keep a copy of the "
        "directory; `treestore repair` salvages what can be read into a new one.",
        file=path,
        offset=offset,
    )
