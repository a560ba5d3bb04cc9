"""The bytes of the log: sizes, magic numbers and struct layouts. See ``docs/log-format.md``.

Everything is little-endian and unpadded. The sizes are asserted at import, so that a change of
a layout cannot go unnoticed; golden bytes in ``tests/engine/log/test_format.py`` pin the rest.
"""

from __future__ import annotations

import struct
from typing import Final

FORMAT_VERSION: Final = 1
"""Written into every segment; a log of another version is refused."""

BLOCK_BYTES: Final = 4096
"""Groups start on multiples of this: no sector is shared by two groups."""

SEGMENT_MAGIC: Final = b"\x89TSLOG\r\n"
"""A high bit and a line end, so that a transfer as text is noticed at once."""

SEGMENT_HEADER: Final = struct.Struct("<8sII16sQQQIIQQQ")
"""magic, version, timeline, database uuid, sequence, epoch, size, salt, follows: chain, LSN,
group, time. Zeros follow up to the checksum in the last four bytes of the block."""

SEGMENT_HEADER_CRC_OFFSET: Final = BLOCK_BYTES - 4
"""The same in every version of the format, so that a version can be believed."""

GROUP_BODY: Final = struct.Struct("<IQQQIIQI12s")
"""salt, group, first LSN, time, chain, records, size of table and payloads, their checksum,
reserved (zero). The header's own checksum stands before it."""

CRC: Final = struct.Struct("<I")

GROUP_HEADER_BYTES: Final = CRC.size + GROUP_BODY.size
GROUP_SALT_OFFSET: Final = CRC.size
GROUP_RESERVED: Final = bytes(12)

ENTRY_BYTES: Final = 13
"""What each record takes in a group's table: transaction id 8, length 4, kind 1; by columns."""

SYNCED_PAYLOAD: Final = struct.Struct("<Q")
"""What a `KIND_SYNCED` record carries: the group that is known to be on the medium."""

KIND_DATA: Final = 1
KIND_COMMIT: Final = 2
KIND_SYNCED: Final = 3


def table(records: int) -> struct.Struct:
    """The layout of the table of a group with so many records: ids, then lengths, then kinds."""
    return struct.Struct(f"<{records}Q{records}I{records}B")


def check_layouts() -> None:
    """Raise unless the layouts have the sizes that the format document draws."""
    sizes = (SEGMENT_HEADER.size, GROUP_BODY.size, GROUP_HEADER_BYTES, table(1).size, CRC.size)
    if sizes != (88, 60, 64, ENTRY_BYTES, 4):
        raise ImportError(f"the log's layouts have unexpected sizes: {sizes}")


check_layouts()


def padded(size: int) -> int:
    """``size`` bytes, rounded up to whole blocks."""
    return (size + BLOCK_BYTES - 1) & -BLOCK_BYTES
