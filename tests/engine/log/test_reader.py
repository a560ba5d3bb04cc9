"""Which bytes count as the next record, and what proves that a later group was there."""

from __future__ import annotations

import attrs
import pytest

from tests.crash.simdisk import SimDisk, SimFile
from tests.engine.log.logs import IDENTITY, transaction
from treestore.engine.log import Transaction, reader
from treestore.engine.log.format import padded
from treestore.engine.log.header import SegmentHeader
from treestore.engine.log.position import Tip
from treestore.engine.log.reader import find_remains, walk
from treestore.engine.log.record import LogRecord, encode_group, encode_record

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
    return [record.lsn for record, _ in walk(file, header, 4096, TIP)]


def test_walk_reads_what_was_encoded():
    header = segment_header()
    first, tip = group_of(header, transaction(1, b"a", b"b"), transaction(2))
    second, _ = group_of(header, transaction(3, bytes(5000)), tip=tip)
    file = file_of(SimDisk(), first, second)
    records = list(walk(file, header, 4096, TIP))
    assert [(r.lsn, r.group, end) for r, end in records] == [
        (11, 5, 4096 + 53),
        (12, 5, 4096 + 106),
        (13, 5, 8192),
        (14, 6, 16384),
    ]
    assert records[2][0].tip == tip


def test_records_of_another_activation_are_never_valid():
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


GOOD = LogRecord(11, 5, 1, 1001, 2, 3, 0, b"payload")


@pytest.mark.parametrize(
    "wrong",
    [
        {"lsn": 10},
        {"lsn": 12},
        {"group": 4},
        {"group": 6},
        {"time_ns": 999},
        {"kind": 0},
        {"kind": 4},
        {"flags": 2},
        {"flags": 7},
    ],
    ids=str,
)
def test_a_record_must_fit(wrong):
    header = segment_header()
    for record, expected in ((GOOD, [11]), (attrs.evolve(GOOD, **wrong), [])):
        head, _ = encode_record(record, TIP.chain, seed=header.seed, salt=header.salt)
        assert found(file_of(SimDisk(), head + record.payload), header) == expected


def test_a_record_must_follow_the_one_before():
    header = segment_header()
    head, _ = encode_record(GOOD, TIP.chain + 1, seed=header.seed, salt=header.salt)
    assert found(file_of(SimDisk(), head + GOOD.payload), header) == []


def test_a_group_has_one_first_record():
    header = segment_header()
    first = attrs.evolve(GOOD, flags=1)
    head, chain = encode_record(first, TIP.chain, seed=header.seed, salt=header.salt)
    for flags, expected in ((2, [11, 12]), (3, [11])):
        second = attrs.evolve(GOOD, lsn=12, flags=flags)
        head2, _ = encode_record(second, chain, seed=header.seed, salt=header.salt)
        raw = head + first.payload + head2 + second.payload
        assert found(file_of(SimDisk(), raw), header) == expected


def test_a_length_beyond_the_file_ends_the_walk():
    header = segment_header()
    raw, _ = group_of(header, transaction(1, bytes(8000)))
    file = file_of(SimDisk(), raw)
    assert list(walk(file, attrs.evolve(header, size_bytes=8192), 4096, TIP)) == []
    file.write_at(4096 + 4, [b"\xff\xff\xff\xff"])
    assert found(file, header) == []


@pytest.mark.parametrize("chunk", [64, 100, 4096, 5000])
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


def test_a_damaged_later_record_proves_nothing():
    header = segment_header()
    raw, _ = group_of(header, transaction(1))
    damaged = raw[:-1] + b"?"
    assert find_remains(file_of(SimDisk(), damaged), header, 4096, 3).later is None
    long = raw[:4] + (1 << 20).to_bytes(4, "little") + raw[8:]
    assert find_remains(file_of(SimDisk(), long), header, 4096, 3).later is None
    at_end = file_of(SimDisk(), raw[:42], offset=SIZE - 42)
    assert find_remains(at_end, header, 4096, 3).later is None
