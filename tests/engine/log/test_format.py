"""The bytes of the log, pinned. If one of these fails, the format has changed."""

from __future__ import annotations

import struct

import pytest
from crc32c import crc32c

from tests.crash.simdisk import SimDisk
from tests.engine.log.logs import IDENTITY, create, log_files, transaction
from treestore.engine.log import format as fmt
from treestore.engine.log.header import SegmentHeader
from treestore.engine.log.position import LogIdentity, LogPosition, Tip
from treestore.engine.log.record import encode_group, encode_marker, group_bytes
from treestore.errors import CorruptionError, InvalidArgument

HEADER = SegmentHeader(
    identity=IDENTITY,
    sequence=0x11,
    epoch=0x22,
    size_bytes=0x4000,
    salt=0x33445566,
    follows=Tip(lsn=7, group=5, chain=0xAABBCCDD, time_ns=9),
)


def test_segment_header_bytes():
    block = HEADER.encode()
    assert len(block) == 4096
    assert block[:88].hex(" ", 8) == (
        "8954534c4f470d0a 0100000003000000 0001020304050607 08090a0b0c0d0e0f "
        "1100000000000000 2200000000000000 0040000000000000 66554433ddccbbaa "
        "0700000000000000 0500000000000000 0900000000000000"
    )
    assert block[88:4092] == bytes(4004)
    assert struct.unpack("<I", block[4092:]) == (crc32c(block[:4092]),)
    assert block[4092:].hex() == "4164808b"


def test_group_bytes_on_the_medium():
    group = [transaction(0x99, b"ab", b"c"), transaction(0x9A, b"def")]
    pieces, tip = encode_group(group, Tip(1, 2, 3, 4), 0x55, seed=0x77, salt=0x33445566)
    raw = b"".join(pieces)
    head, body = raw[:64], raw[64:]
    assert body.hex(" ") == bytes.fromhex(
        "9900000000000000 9900000000000000 9a00000000000000"
        "02000000 01000000 03000000"
        "01 02 02"
        "6162 63 646566"
    ).hex(" ")
    assert (
        head[4:].hex(" ")
        == bytes.fromhex(
            "66554433" + "0300000000000000" + "0200000000000000" + "5500000000000000"
            "03000000" + "03000000" + "2d00000000000000"
        ).hex(" ")
        + " "
        + struct.pack("<I", crc32c(body)).hex(" ")
        + " 00" * 12
    )
    assert struct.unpack("<I", head[:4]) == (crc32c(head[4:], 0x77),)
    assert tip == Tip(4, 3, struct.unpack("<I", head[:4])[0], 0x55)
    assert (head[:4].hex(), head[48:52].hex()) == ("7708e9b6", "c6df7f28")


def test_a_large_group_has_the_same_bytes():
    """It is not joined, and its checksum is made piece by piece."""
    payloads = [bytes([n]) * 300_000 for n in range(5)]
    pieces, _ = encode_group([transaction(1, *payloads)], Tip(), 1, seed=2, salt=3)
    head, body = pieces[0], b"".join(pieces[1:])
    assert len(pieces) == 7
    assert head[48:52] == struct.pack("<I", crc32c(body))
    assert body.endswith(b"".join(payloads))


def test_marker_bytes():
    pieces, tip = encode_marker(Tip(1, 2, 3, 4), 5, seed=6, salt=7)
    head, body = pieces
    assert body.hex() == "0000000000000000" + "08000000" + "03" + "0200000000000000"
    assert head[4:48].hex() == (
        "07000000" + "0300000000000000" + "0200000000000000" + "0500000000000000"
        "03000000" + "01000000" + "1500000000000000"
    )
    assert tip == Tip(2, 3, crc32c(head[4:], 6), 5)


def test_groups_are_padded_to_blocks():
    disk = SimDisk()
    log = create(disk)
    positions = [log.append([transaction(n)]) for n in range(2)]
    assert [position.offset for position in positions] == [8192, 12288]
    (path,) = log_files(disk)
    image = disk.image(path)
    assert len(image) == 16384
    used = 64 + 13 + len(b"payload of 0")
    assert image[4096 + used : 8192] == bytes(4096 - used)
    assert image[12288:] == bytes(4096)


@pytest.mark.parametrize(("size", "blocks"), [(0, 1), (4019, 1), (4020, 2)])
def test_group_bytes(size, blocks):
    assert group_bytes([transaction(1, bytes(size))]) == blocks * 4096


def test_header_reads_back():
    block = HEADER.encode()
    decoded = SegmentHeader.decode(block, "x")
    assert decoded.seed == struct.unpack("<I", block[4092:])[0]
    assert (decoded.identity, decoded.follows) == (HEADER.identity, HEADER.follows)
    assert (decoded.sequence, decoded.epoch, decoded.size_bytes, decoded.salt) == (
        (0x11, 0x22, 0x4000, 0x33445566)
    )


@pytest.mark.parametrize("offset", [*range(92), 2000, *range(4088, 4096)])
def test_any_damage_to_a_header_is_noticed(offset):
    block = bytearray(HEADER.encode())
    block[offset] ^= 0x10
    with pytest.raises(CorruptionError) as caught:
        SegmentHeader.decode(bytes(block), "some/file")
    assert caught.value.details["file"] == "some/file"


def test_another_version_is_refused():
    block = bytearray(HEADER.encode())
    block[8] = 2
    block[4092:] = struct.pack("<I", crc32c(bytes(block[:4092])))
    with pytest.raises(InvalidArgument, match=r"version 2.*reads version 1"):
        SegmentHeader.decode(bytes(block), "x")


def test_short_headers_and_foreign_files_are_refused():
    with pytest.raises(CorruptionError, match="ends within"):
        SegmentHeader.decode(HEADER.encode()[:100], "x")
    foreign = bytes(4092) + struct.pack("<I", crc32c(bytes(4092)))
    with pytest.raises(CorruptionError, match="not a log segment"):
        SegmentHeader.decode(foreign, "x")


def test_layout_sizes():
    assert (fmt.SEGMENT_HEADER.size, fmt.GROUP_HEADER_BYTES, fmt.BLOCK_BYTES) == (88, 64, 4096)
    sizes = [4, 8, 8, 8, 4, 4, 8, 4, 12]
    body = b"".join(bytes([n]) * size for n, size in enumerate(sizes))
    assert fmt.GROUP_SALT_OFFSET == 4
    assert struct.pack("<I", fmt.GROUP_BODY.unpack(body)[0]) == body[:4]


def test_positions_survive_as_tuples():
    position = LogPosition(1, 2, 3, 4, 5, 6, 7)
    assert position.to_tuple() == (1, 2, 3, 4, 5, 6, 7)
    assert LogPosition.from_tuple(list(position.to_tuple())) == position
    assert position.tip == Tip(1, 2, 3, 4)


def test_an_identity_has_16_bytes():
    with pytest.raises(ValueError, match="16 bytes"):
        LogIdentity(b"short")
