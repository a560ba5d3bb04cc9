"""The two meta slots: where recovery begins.

A slot is 512 bytes at offset 0 or 4,096 of the page file (never in one sector or block of the
other), whatever the page size. A checkpoint overwrites the older slot, so one whole slot exists at
every moment. Layout, integers little-endian::

    0    8 B  magic "TreeStor"
    8    u32  format version
    12   u32  page size in bytes
    16   u32  crc32c of bytes 0-15 and 20-511
    20   u32  size of the body
    24        body: msgpack array, the fields of `Meta` in order; then zeros
"""

from __future__ import annotations

import struct

import attrs
import msgspec
from crc32c import crc32c

from treestore.engine.disk import File
from treestore.errors import CorruptionError, InvalidArgument

MAGIC = b"TreeStor"
FORMAT_VERSION = 1
SLOT_OFFSETS = (0, 4096)
SLOT_SIZE = 512
RESERVED_BYTES = 8192
"""The start of the page file that holds the slots; pages begin after it."""

_HEAD = struct.Struct("<8sII")
_TAIL = struct.Struct("<II")
assert _HEAD.size + _TAIL.size == 24


class Meta(msgspec.Struct, array_like=True, frozen=True):
    """What one checkpoint left behind. Fields are only ever appended, with defaults."""

    database_uuid: bytes
    timeline: int
    sequence: int
    """Counts checkpoints; slot ``sequence % 2`` holds this one."""
    number: int
    """Commit number of the root."""
    root_page: int
    root_checksum: int
    key_count: int
    page_count: int
    """Pages from here on were never used by this root or an earlier one."""
    free_runs: tuple[tuple[int, int, int], ...]
    """(first page, pages, checksum) of the runs that hold the free-space list."""
    log_position: tuple[int, ...]
    """Replay begins after it."""
    created_at_ns: int
    replay_to_lsn: int = 0
    """Where this is beyond the log position, recovery wrote the slot in the middle of its work:
    the tree may hold changes up to that record, and is no state of its own before the log has
    been replayed to there."""


def first_page(page_size: int) -> int:
    """The first page number that the tree may use."""
    return -(-RESERVED_BYTES // page_size)


def encode_slot(meta: Meta, page_size: int) -> bytes:
    """The 512 bytes of a slot."""
    body = msgspec.msgpack.encode(meta)
    if len(body) > SLOT_SIZE - 24:
        raise AssertionError(f"a meta slot of {len(body)} bytes")
    head = _HEAD.pack(MAGIC, FORMAT_VERSION, page_size)
    rest = len(body).to_bytes(4, "little") + body.ljust(SLOT_SIZE - 24, b"\0")
    return head + crc32c(rest, crc32c(head)).to_bytes(4, "little") + rest


def decode_slot(raw: bytes, path: str) -> tuple[Meta, int] | None:
    """Meta and page size of a slot; None where it is blank, torn or damaged.

    Raises:
        InvalidArgument: a whole slot of a format version that this program does not know.
    """
    if len(raw) < SLOT_SIZE:
        return None
    magic, version, page_size = _HEAD.unpack_from(raw)
    checksum, size = _TAIL.unpack_from(raw, 16)
    if magic != MAGIC or crc32c(raw[20:], crc32c(raw[:16])) != checksum:
        return None
    if version != FORMAT_VERSION:
        raise InvalidArgument(
            f"{path} has format version {version}; this TreeStore reads version "
            f"{FORMAT_VERSION}. Open it with the release that wrote it, or a newer one.",
            file=path,
            format_version=version,
        )
    if size > SLOT_SIZE - 24 or page_size < SLOT_SIZE or page_size & (page_size - 1):
        return None
    try:
        return msgspec.msgpack.decode(raw[24 : 24 + size], type=Meta), page_size
    except msgspec.MsgspecError:
        return None


def read_slots(file: File) -> tuple[list[Meta], int]:
    """The valid slots, the newest first, and the page size.

    Raises:
        CorruptionError: there is no valid slot.
        InvalidArgument: a newer format version.
    """
    found: list[tuple[Meta, int]] = []
    for offset in SLOT_OFFSETS:
        slot = decode_slot(file.read_at(offset, SLOT_SIZE), file.path)
        if slot is not None:
            found.append(slot)
    if not found:
        raise CorruptionError(
            f"{file.path} has no valid meta slot (offsets {SLOT_OFFSETS[0]} and "
            f"{SLOT_OFFSETS[1]}): it is no TreeStore page file, or its start was overwritten. "
            "Restore a backup.",
            file=file.path,
            offset=0,
        )
    found.sort(key=lambda slot: slot[0].sequence, reverse=True)
    return [meta for meta, _ in found], found[0][1]


@attrs.frozen
class Slot:
    """One of the two meta slots, as it is.

    Attributes:
        offset: in the page file, in bytes.
        state: ``whole``; ``blank`` (zeros); ``damaged``; ``other version``.
        meta: what a whole one says.
        page_size: of the file, according to it.
    """

    offset: int
    state: str
    meta: Meta | None = None
    page_size: int = 0


def read_slot(file: File, offset: int) -> Slot:
    """The slot at ``offset``, whatever is there."""
    raw = file.read_at(offset, SLOT_SIZE)
    try:
        found = decode_slot(raw, file.path)
    except InvalidArgument:
        return Slot(offset, "other version")
    if found is not None:
        return Slot(offset, "whole", *found)
    return Slot(offset, "damaged" if raw.strip(b"\0") or len(raw) < SLOT_SIZE else "blank")


def damaged_slots(slots: list[Slot]) -> list[Slot]:
    """Those that are not as they should be, given the others.

    A whole one can be wrong too: checkpoints write them by turns, so their sequence numbers are
    neighbours. If not, the medium lost a write, and the slot is ``stale``.
    """
    newest = max((slot.meta.sequence for slot in slots if slot.meta is not None), default=-1)
    found = []
    for slot in slots:
        if slot.meta is None:
            found.append(slot)
        elif slot.meta.sequence < newest - 1:
            found.append(attrs.evolve(slot, state="stale"))
    return found


def slot_warnings(file: File, *, fresh: bool = False) -> list[str]:
    """What is wrong with the meta slots of a page file that can be opened, a sentence each.

    One whole slot is enough to open a store. Without the other one the next damage is the last.

    Args:
        file: the page file.
        fresh: read from the medium, past the operating system's cache.
    """
    if fresh:
        file.forget(0, RESERVED_BYTES)
    return [
        f"The meta slot of {file.path} at offset {slot.offset} is {slot.state}. The other one is "
        "used; a checkpoint writes this one anew. A crash during a checkpoint leaves that too; "
        "if there was none, look at the disk."
        for slot in damaged_slots([read_slot(file, offset) for offset in SLOT_OFFSETS])
    ]
