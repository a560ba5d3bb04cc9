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

RECORD_BODY: Final = struct.Struct("<IQQQQIIBBH")
"""length, LSN, group, transaction id, time, salt, chain, kind, flags, reserved (zero)."""

CRC: Final = struct.Struct("<I")

RECORD_CRC_BYTES: Final = CRC.size
RECORD_HEADER_BYTES: Final = CRC.size + RECORD_BODY.size
RECORD_SALT_OFFSET: Final = CRC.size + 36

SYNCED_PAYLOAD: Final = struct.Struct("<Q")
"""What a `Kind.SYNCED` record carries: the group that is known to be on the medium."""

KIND_DATA: Final = 1
KIND_COMMIT: Final = 2
KIND_SYNCED: Final = 3
KINDS: Final = frozenset({KIND_DATA, KIND_COMMIT, KIND_SYNCED})

FLAG_FIRST: Final = 1
FLAG_LAST: Final = 2
FLAGS_ALL: Final = FLAG_FIRST | FLAG_LAST


def check_layouts() -> None:
    """Raise unless the layouts have the sizes that the format document draws."""
    sizes = (SEGMENT_HEADER.size, RECORD_BODY.size, RECORD_HEADER_BYTES, CRC.size)
    if sizes != (88, 48, 52, 4):
        raise ImportError(f"the log's layouts have unexpected sizes: {sizes}")


check_layouts()


def padded(size: int) -> int:
    """``size`` bytes, rounded up to whole blocks."""
    return (size + BLOCK_BYTES - 1) & -BLOCK_BYTES
