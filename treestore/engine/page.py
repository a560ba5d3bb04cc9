"""Pages: the fixed-size unit of the page file, and the header that seals each one.

Layout of a sealed run (one page, or several adjacent ones that hold one piece of a large value),
integers little-endian; ``docs/file-format.md`` draws it::

    0   u32  crc32c of everything after it, to the end of the run
    4   u8   kind (`LEAF` ...)
    5   3 B  zero
    8   u64  page number of the first page
    16  u64  commit number that the content was born in
    24  u32  payload size in bytes
    28  u32  pages in the run
    32       payload, then zeros to the end of the run

The reference that leads to a run repeats its checksum, so a page that was written to the wrong
place, or not at all, is found out even though it is a valid page by itself.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from crc32c import crc32c

from treestore.errors import CorruptionError

LEAF = 1
BRANCH = 2
LEAF_WITH_LARGE = 3
LARGE = 4
FREE_SPACE = 5

_CHECKSUM = struct.Struct("<I")
_HEADER = struct.Struct("<B3xQQII")
HEADER_SIZE = 32
assert _CHECKSUM.size + _HEADER.size == HEADER_SIZE

PAGE_SIZE_BYTES = 8192
"""Default. A leaf of 8 KiB holds about 60 entries of 100 bytes: half of it is copied for each
random write, and a value just too long for a leaf wastes at most 6 KiB of its own page."""

PAGE_SIZE_BYTES_MIN = 1024
PAGE_SIZE_BYTES_MAX = 65536


def seal(kind: int, page: int, born: int, payload: bytes, pages: int, page_size: int) -> bytes:
    """The bytes of a run that carries ``payload``, checksum included."""
    room = pages * page_size - HEADER_SIZE - len(payload)
    if room < 0:
        raise AssertionError(f"{len(payload)} payload bytes do not fit into {pages} pages")
    body = b"".join((_HEADER.pack(kind, page, born, len(payload), pages), payload, bytes(room)))
    return _CHECKSUM.pack(crc32c(body)) + body


class Head(NamedTuple):
    """What the header of a run says, unverified."""

    checksum: int
    kind: int
    page: int
    born: int
    size: int
    pages: int


def peek(header: bytes) -> Head:
    """The header of a run, of which nothing is believed yet; zeros where the file ends."""
    header = header.ljust(HEADER_SIZE, b"\0")
    return Head(checksum_of(header), *_HEADER.unpack_from(header, 4))


def checksum_of(run: bytes) -> int:
    """The checksum a sealed run carries."""
    value: int = _CHECKSUM.unpack_from(run)[0]
    return value


def is_intact(run: bytes) -> bool:
    """Whether a run's checksum is that of its content."""
    return len(run) >= HEADER_SIZE and crc32c(memoryview(run)[4:]) == checksum_of(run)


def unpack_header(run: bytes) -> tuple[int, int, int, int, int]:
    """Kind, page number, birth, payload size and pages that a run of bytes claims, unverified."""
    kind, number, born, size, pages = _HEADER.unpack_from(run, _CHECKSUM.size)
    return kind, number, born, size, pages


def unseal(
    run: bytes, path: str, page: int, checksum: int, kinds: tuple[int, ...], page_size: int
) -> tuple[int, int, memoryview]:
    """Verify a run read from ``page`` and take it apart.

    Returns:
        kind, commit number of birth, payload.

    Raises:
        CorruptionError: naming the file, offset and what is wrong.
    """
    offset = page * page_size
    if len(run) < HEADER_SIZE:
        raise damaged(path, offset, page, f"the file ends after {len(run)} bytes of it")
    view = memoryview(run)
    stored = checksum_of(run)
    if crc32c(view[4:]) != stored:
        raise damaged(path, offset, page, "its checksum does not match its content")
    kind, number, born, size, pages = _HEADER.unpack_from(run, 4)
    if number != page or pages * page_size != len(run):
        raise damaged(path, offset, page, f"it is page {number} ({pages} long) in a wrong place")
    if stored != checksum:
        raise damaged(path, offset, page, "it is not the version that its parent refers to")
    if kind not in kinds or size > len(run) - HEADER_SIZE:
        raise damaged(path, offset, page, f"its kind {kind} or size {size} is impossible here")
    return kind, born, view[HEADER_SIZE : HEADER_SIZE + size]


def damaged(path: str, offset: int, page: int, what: str) -> CorruptionError:
    """The error for a page that is not what was written."""
    return CorruptionError(
        f"Page {page} of {path} (offset {offset}) is damaged: {what}. Run 'treestore check' to "
        "see all damage, then restore a backup or salvage with 'treestore repair'.",
        file=path,
        offset=offset,
        page=page,
    )
