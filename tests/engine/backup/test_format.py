"""The bytes of an archive's piece and of a backup's index, pinned to docs/backup.md."""

from __future__ import annotations

import struct

import pytest
from crc32c import crc32c

from tests.crash.simdisk import SimDisk
from treestore.engine.backup.index import ENTRY_SIZE, Index, Run
from treestore.engine.backup.piece import Piece, PieceName, read_piece, timeline_in, timeline_name
from treestore.engine.log import LogIdentity
from treestore.engine.log.position import Tip
from treestore.errors import CorruptionError, InvalidArgument

PIECE = Piece(
    "/archive/00000002-0000000000000003-0000000000000004-000000001000.piece",
    LogIdentity(bytes(range(16)), 2),
    3,
    4,
    4096,
    12288,
    Tip(10, 11, 12, 13),
    Tip(20, 21, 22, 23),
    99,
)


def test_a_piece_s_head() -> None:
    block = PIECE.encode()
    assert len(block) == 4096
    assert block[:8] == b"\x89TSARC\r\n"
    assert struct.unpack_from("<II", block, 8) == (1, 2)
    assert block[16:32] == bytes(range(16))
    assert struct.unpack_from("<QQQQ", block, 32) == (3, 4, 4096, 12288)
    assert struct.unpack_from("<QQQI", block, 64) == (10, 11, 13, 12)
    assert struct.unpack_from("<QQQI", block, 92) == (20, 21, 23, 22)
    assert struct.unpack_from("<I", block, 120) == (99,)
    assert not block[124:4092].strip(b"\0")
    assert struct.unpack_from("<I", block, 4092) == (crc32c(block[:4092]),)


def test_reading_a_piece_s_head() -> None:
    disk = SimDisk()
    disk.make_directory("/archive")
    file = disk.open(PIECE.path, create=True)
    file.write_at(0, [PIECE.encode(), bytes(4096 + 8192)])
    assert read_piece(disk, PIECE.path) == PIECE
    assert PIECE.position.to_tuple() == (20, 21, 22, 23, 3, 4, 12288)
    disk.rename(PIECE.path, other := PIECE.path.replace("1000", "2000"))
    with pytest.raises(CorruptionError, match="was renamed"):
        read_piece(disk, other)
    disk.rename(other, PIECE.path)
    file = disk.open(PIECE.path)
    file.truncate(9000)
    with pytest.raises(CorruptionError, match="has 9000 bytes"):
        read_piece(disk, PIECE.path)
    newer = bytearray(PIECE.encode())
    newer[8] = 2
    newer[4092:] = struct.pack("<I", crc32c(bytes(newer[:4092])))
    disk.poke(PIECE.path, 0, bytes(newer))
    with pytest.raises(InvalidArgument, match="format version 2"):
        read_piece(disk, PIECE.path)
    disk.poke(PIECE.path, 50, b"\xff")
    with pytest.raises(CorruptionError, match="checksum"):
        read_piece(disk, PIECE.path)


def test_names() -> None:
    name = PieceName(2, 3, 4, 4096)
    assert str(name) == PIECE.path.rpartition("/")[2]
    assert PieceName.parse(str(name)) == name
    assert PieceName.parse(f"{name}.new") is None
    assert timeline_name(2) == "00000002.timeline"
    assert timeline_in("00000002.timeline") == 2
    assert timeline_in("2.timeline") is None


def test_an_index_entry() -> None:
    index = Index()
    index.add(Run(page=9, born=5, offset=3, checksum=77, pages=2, source=1))
    index.add(Run(page=8, born=6, offset=0, checksum=78, pages=1, source=0))
    index.sort()
    raw = b"".join(index.encode())
    assert len(raw) == 2 * ENTRY_SIZE
    assert struct.unpack("<QQQIII", raw[36:]) == (9, 5, 3, 77, 2, 1)
    again = Index.decode(raw, 2, 12, 1024)
    assert list(again) == list(index)
    assert again.free(12, 1024) == [(11, 1)]
    assert [again.find(page) for page in (7, 11)] == [None, None]
    assert again.find(10) == again.find(9) == index.at(1)
    for wrong in (raw[:-1], raw[36:] + raw[:36], raw + raw[36:]):
        with pytest.raises(ValueError, match="entry"):
            Index.decode(wrong, 2, 12, 1024)
    with pytest.raises(ValueError, match="entry"):
        Index.decode(raw, 1, 12, 1024)
    with pytest.raises(ValueError, match="beyond"):
        Index.decode(raw, 2, 10, 1024)
