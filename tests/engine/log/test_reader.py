"""Which bytes count as the next record, and what proves that a later group was there."""

from __future__ import annotations

import struct

import attrs
import pytest
from crc32c import crc32c

from tests.crash.simdisk import SimDisk, SimFile
from tests.engine.log.logs import IDENTITY, transaction
from treestore.engine.log import Transaction, reader
from treestore.engine.log import format as fmt
from treestore.engine.log import group as group_module
from treestore.engine.log.format import padded
from treestore.engine.log.header import SegmentHeader
from treestore.engine.log.position import Tip
from treestore.engine.log.reader import find_remains, walk
from treestore.engine.log.record import encode_group
from treestore.errors import CorruptionError

TIP = Tip(lsn=10, group=4, chain=77, time_ns=1000)
SIZE = 1 << 16


def segment_header(epoch: int = 5) -> SegmentHeader:
    block = SegmentHeader(IDENTITY, 2, epoch, SIZE, 0x01020304, TIP).encode()
    return SegmentHeader.decode(block, "x")


def file_of(disk: SimDisk, *groups: bytes, offset: int = 4096) -> SimFile:
    file = disk.open("/f", create=True)
    file.allocate(SIZE)
    for group in groups:
        file.write_at(offset, [group])
        offset += padded(len(group))
    return file


def group_of(
    header: SegmentHeader, *transactions: Transaction, tip: Tip = TIP
) -> tuple[bytes, Tip]:
    pieces, after = encode_group(
        transactions, tip, tip.time_ns + 1, seed=header.seed, salt=header.salt
    )
    return b"".join(pieces), after


def found(file: SimFile, header: SegmentHeader) -> list[int]:
    return [r.lsn for group in walk(file, header, 4096, TIP) for r in group.log_records()]


def test_walk_reads_what_was_encoded():
    header = segment_header()
    first, tip = group_of(header, transaction(1, b"a", b"b"), transaction(2))
    second, _ = group_of(header, transaction(3, bytes(5000)), tip=tip)
    file = file_of(SimDisk(), first, second)
    rows = [
        (group.lsn, group.tip.lsn, group.end, [record.payload for record in group.log_records()])
        for group in walk(file, header, 4096, TIP)
    ]
    assert rows == [
        (11, 13, 8192, [b"a", b"b", b"payload of 2"]),
        (14, 14, 16384, [bytes(5000)]),
    ]
    assert next(walk(file, header, 4096, TIP)).tip == tip


def test_requirement_3_records_of_another_activation_are_never_valid():
    """Same place, salt, LSN, group and chain: only the epoch in the header is another."""
    old, new = segment_header(epoch=5), segment_header(epoch=6)
    raw, _ = group_of(old, transaction(1))
    file = file_of(SimDisk(), raw)
    assert found(file, old) == [11]
    assert found(file, new) == []
    later, _ = group_of(old, transaction(2), tip=Tip(20, 9, 1, 1))
    file = file_of(SimDisk(), raw, later)
    assert find_remains(file, old, 4096, 4).later == 8192
    assert find_remains(file, new, 4096, 4).later is None


def forged(header: SegmentHeader, body: bytes, **wrong: int | bytes) -> bytes:
    """A group with right checksums whose header says something else."""
    fields: dict[str, int | bytes] = {
        "salt": header.salt, "group": 5, "lsn": 11, "time_ns": 1001, "chain": TIP.chain,
        "records": 1, "size": len(body), "checksum": crc32c(body), "reserved": bytes(12),
    }  # fmt: skip
    rest = fmt.GROUP_BODY.pack(*(fields | wrong).values())
    return struct.pack("<I", crc32c(rest, header.seed)) + rest + body


BODY = struct.pack("<QIB", 1, 7, fmt.KIND_COMMIT) + b"payload"


@pytest.mark.parametrize(
    "wrong",
    [
        {"salt": 5},
        {"lsn": 10},
        {"lsn": 12},
        {"group": 4},
        {"group": 6},
        {"time_ns": 999},
        {"chain": TIP.chain + 1},
        {"records": 0},
        {"records": 2},
        {"size": len(BODY) + 1},
        {"checksum": 1},
        {"reserved": b"later use..."},
    ],
    ids=str,
)
def test_a_group_must_fit(wrong):
    header = segment_header()
    for changes, expected in (({}, [11]), (wrong, [])):
        assert found(file_of(SimDisk(), forged(header, BODY, **changes)), header) == expected


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<QIB", 1, 6, fmt.KIND_COMMIT) + b"payload",
        struct.pack("<QIB", 1, 7, fmt.KIND_DATA) + b"payload",
    ],
)
def test_a_table_that_makes_no_sense_is_refused(body):
    """The checksums are right: that is no torn group, and nothing to be guessed at."""
    header = segment_header()
    with pytest.raises(CorruptionError, match="makes no sense"):
        found(file_of(SimDisk(), forged(header, body)), header)


def test_a_length_beyond_the_file_ends_the_walk():
    header = segment_header()
    raw, _ = group_of(header, transaction(1, bytes(8000)))
    file = file_of(SimDisk(), raw)
    assert list(walk(file, attrs.evolve(header, size_bytes=8192), 4096, TIP)) == []
    file.write_at(0, [forged(header, BODY, size=1 << 40)])
    assert list(walk(file, header, 0, TIP)) == []


def test_a_long_group_is_read_in_pieces(monkeypatch):
    monkeypatch.setattr(reader, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(group_module, "PIECE_BYTES", 5000)
    header = segment_header()
    payloads = [bytes([n]) * size for n, size in enumerate([3000, 3000, 9000, 0, 1, 4999, 5000])]
    raw, _ = group_of(header, transaction(1, *payloads), transaction(2))
    file = file_of(SimDisk(), raw)
    (group,) = walk(file, header, 4096, TIP)
    assert group.body is None
    pieces = list(group.pieces())
    assert [len(piece.ids) for piece in pieces] == [2, 1, 3, 1, 1]
    assert [piece.last for piece in pieces] == [False] * 4 + [True]
    assert [piece.lsn for piece in pieces] == [11, 13, 14, 17, 18]
    assert [r.payload for r in group.log_records()] == [*payloads, b"payload of 2"]
    file.write_at(4096 + len(raw) - 1, [b"?"])
    with pytest.raises(CorruptionError, match="changed while"):
        list(group.pieces())


@pytest.mark.parametrize("chunk", [64, 100, 1000, 4096, 5000])
def test_chunks_may_end_anywhere(monkeypatch, chunk):
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk)
    header = segment_header()
    groups, tip = [], TIP
    for number in range(5):
        raw, tip = group_of(
            header, transaction(number, *[bytes(n) for n in range(0, 300, 37)]), tip=tip
        )
        groups.append(raw)
    file = file_of(SimDisk(), *groups)
    assert found(file, header) == list(range(11, 11 + 45))
    for number in range(5):
        remains = find_remains(file, header, 4096 * (1 + number), 4 + number)
        assert remains.later == (4096 * (2 + number) if number < 4 else None)
        assert not remains.nothing
    assert find_remains(file, header, 4096 * 6, 9).nothing


@pytest.mark.parametrize("group", [3, 4, 5])
def test_remains_by_group(group):
    """What stands behind group g: g+1 is what a crash leaves, g+2 is proof of damage."""
    header = segment_header()
    raw, _ = group_of(header, transaction(1))  # group 5
    remains = find_remains(file_of(SimDisk(), raw, offset=8192), header, 4096, group)
    assert remains.later == (8192 if group == 3 else None)
    assert remains.nothing == (group == 5)  # of an earlier life, with the same salt by chance
    assert (remains.last > 8192) == (group < 5)


def test_remains_of_nothing():
    header = segment_header()
    file = file_of(SimDisk())
    assert find_remains(file, header, 4096, 4).nothing
    assert find_remains(file, header, SIZE, 4).nothing
    file.write_at(SIZE - 100, [b"old"])  # not right behind the end: stale bytes
    assert find_remains(file, header, 4096, 4).nothing
    file.write_at(5000, [b"x"])
    remains = find_remains(file, header, 4096, 4)
    assert (remains.nothing, remains.later, remains.last) == (False, None, 8192)


def test_a_damaged_header_of_a_later_group_proves_nothing():
    header = segment_header()
    raw, _ = group_of(header, transaction(1))
    for offset in (0, 8, 60):
        damaged = raw[:offset] + b"?" + raw[offset + 1 :]
        assert find_remains(file_of(SimDisk(), damaged), header, 4096, 3).later is None
    cut = attrs.evolve(header, size_bytes=8192 + 60)
    at_end = file_of(SimDisk(), raw[:60], offset=8192)
    assert find_remains(at_end, cut, 4096, 3).later is None


def test_remains_reach_to_the_end_of_a_torn_group():
    header = segment_header()
    raw, _ = group_of(header, transaction(1, bytes(9000)))
    remains = find_remains(file_of(SimDisk(), raw[:5000]), header, 4096, 4)
    assert (remains.later, remains.nothing, remains.last) == (None, False, 4096 + len(raw))
