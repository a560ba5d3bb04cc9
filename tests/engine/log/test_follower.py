"""Following a log that is written, trimmed and reopened meanwhile."""

from __future__ import annotations

import itertools

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.simdisk import SimDisk
from tests.engine.log.logs import OPTIONS, create, reopen, transaction
from treestore.engine.log import Log, LogOptions, LogPosition, follower, reader
from treestore.engine.log import segment as segment_module
from treestore.engine.log.follower import Entry, LogFollower
from treestore.errors import CorruptionError, NotFound


def drain(found: LogFollower, until: int, size: int = 1) -> list[Entry]:
    entries: list[Entry] = []
    while found.lsn < until:
        entries += found.read(until, size)
    assert found.read(until, size) == []
    return entries


def told(entries: list[Entry]) -> list[tuple[int, int, int, bytes]]:
    return [(e.lsn, e.commit_lsn, e.number, e.payload) for e in entries]


def test_each_record_names_the_one_that_ends_its_transaction():
    log = create(SimDisk())
    log.append([transaction(7, b"a", b"b", b"c"), transaction(9, b"d")])
    log.mark_synced()
    log.append([transaction(8, b"", b"e")])
    found = log.follow(LogPosition(0))
    assert told(drain(found, log.position.lsn)) == [
        *((1, 3, 7, b"a"), (2, 3, 7, b"b"), (3, 3, 7, b"c"), (4, 4, 9, b"d")),
        *((6, 7, 8, b""), (7, 7, 8, b"e")),
    ]
    assert [e.ends_transaction for e in drain(log.follow(LogPosition(4)), 7)] == [False, True]


def test_it_begins_with_the_whole_group_of_the_record():
    log = create(SimDisk())
    log.append([transaction(1)])
    log.append([transaction(2, b"a", b"b"), transaction(3)])
    assert [e.lsn for e in drain(log.follow(LogPosition(2)), log.position.lsn)] == [2, 3, 4]


def test_nothing_behind_the_limit_is_read():
    log = create(SimDisk())
    first = log.append([transaction(1)])
    log.append([transaction(2)])
    found = log.follow(LogPosition(0))
    assert [e.number for e in found.read(first.lsn, 1 << 20)] == [1]
    assert found.lsn == first.lsn
    assert [e.number for e in drain(found, 2)] == [2]


def test_a_long_group_comes_in_pieces_and_goes_on_after_any_of_them(monkeypatch):
    monkeypatch.setattr(reader, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(follower, "PIECE_BYTES", 5000)
    log = create(SimDisk())
    log.append([transaction(1)])
    payloads = [bytes([n]) * 3000 for n in range(10)]
    log.append([transaction(2, *payloads), transaction(3)])
    found = log.follow(LogPosition(1))
    slices = []
    while found.lsn < log.position.lsn:
        slices.append(found.read(log.position.lsn, 1))
    assert max(map(len, slices)) <= 2
    assert [e.payload for part in slices for e in part] == [*payloads, b"payload of 3"]
    assert {e.commit_lsn for part in slices[:-1] for e in part} == {11}


def test_it_keeps_nothing_and_says_what_it_lost():
    log = create(SimDisk(), attrs.evolve(OPTIONS, segments_kept=1))
    found = log.follow(LogPosition(0))
    log.append([transaction(1)])
    assert len(found.read(1, 1)) == 1
    for number in range(2, 40):
        log.append([transaction(number, bytes(3000))])
    log.trim(log.position)
    assert found.is_trimmed
    with pytest.raises(NotFound) as raised:
        found.read(log.position.lsn, 1)
    assert raised.value.details["first_lsn"] == found.first_lsn > 2
    assert not log.follow(LogPosition(found.first_lsn - 1)).is_trimmed


def test_a_trim_within_a_long_group_is_noticed(monkeypatch):
    monkeypatch.setattr(reader, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(follower, "PIECE_BYTES", 3000)
    log = create(SimDisk(), attrs.evolve(OPTIONS, segments_kept=1))
    log.append([transaction(1, *[bytes(3000)] * 4)])
    found = log.follow(LogPosition(0))
    assert len(found.read(4, 1)) == 1
    for number in range(2, 40):
        log.append([transaction(number, bytes(3000))])
    log.trim(log.position)
    with pytest.raises(NotFound):
        found.read(log.position.lsn, 1)


def test_retention_keeps_segments_beyond_a_trim():
    def kept(options: LogOptions) -> int:
        log = create(SimDisk(), options)
        for number in range(1, 200):
            log.append([transaction(number, bytes(3000))])
            log.trim(log.position)
        sizes = [segment.header.size_bytes for segment in log._segments[:-1]]
        return sum(sizes)

    plain = kept(OPTIONS)
    more = kept(attrs.evolve(OPTIONS, retention_bytes=400_000))
    assert plain < 400_000 <= more <= 400_000 + OPTIONS.segment_size_bytes_max


def test_damage_is_told():
    disk = SimDisk()
    log = create(disk)
    log.append([transaction(1, bytes(100))])
    log.append([transaction(2, bytes(100))])
    [path] = [segment.path for segment in log._segments]
    disk.poke(path, 4096 + 100, b"?")
    found = log.follow(LogPosition(0))
    with pytest.raises(CorruptionError):
        found.read(2, 1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 9000), min_size=1, max_size=4)),
        st.tuples(st.just("read"), st.integers(1, 20_000)),
        st.sampled_from([("mark",), ("trim",), ("reopen",)]),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(steps=STEPS)
def test_nothing_is_missed_or_repeated(steps):
    disk = SimDisk()
    options = attrs.evolve(OPTIONS, segments_kept=2)
    log = create(disk, options)
    found = log.follow(LogPosition(0))
    written: dict[int, bytes] = {}
    seen = 0
    number = 0
    for step, *rest in [*steps, ("read", 1 << 30)]:
        if step == "append":
            number += 1
            payloads = [bytes([number % 250]) * size for size in rest[0]]
            last = log.append([transaction(number, *payloads)]).lsn
            lsns = range(last - len(payloads) + 1, last + 1)
            written.update(zip(lsns, payloads, strict=True))
        elif step == "mark":
            log.mark_synced()
        elif step == "trim":
            log.trim(log.position)
        elif step == "reopen":
            before = log.position
            log.close()
            log, recovered = reopen(disk, LogPosition(before.lsn), options)
            found = log.follow(LogPosition(found.lsn))
            list(recovered.groups)
        else:
            try:
                entries = found.read(log.position.lsn, rest[0])
            except NotFound:
                assert found.first_lsn > seen + 1
                seen = found.first_lsn - 1
                found = log.follow(LogPosition(seen))
                continue
            fresh = [entry for entry in entries if entry.lsn > seen]
            assert all(entry.payload == written[entry.lsn] for entry in entries)
            missed = [lsn for lsn in written if seen < lsn <= found.lsn]
            assert [entry.lsn for entry in fresh] == missed
            seen = max(seen, found.lsn)
    log.close()


def test_a_record_is_looked_for_from_a_place_nearby(monkeypatch):
    monkeypatch.setattr(segment_module, "MARK_EVERY_BYTES", 20_000)
    log = create(SimDisk(), LogOptions(segment_size_bytes_min=1 << 20))
    positions = [log.append([transaction(number, bytes(3000))]) for number in range(1, 200)]
    log.close()
    log, recovered = reopen(log._disk, LogPosition(0), LogOptions(segment_size_bytes_min=1 << 20))
    list(recovered.groups)
    [first, *_] = log._segments
    assert first.places == []
    for before in (150, 20, 149, 199, 1, 60):
        found = log.follow(LogPosition(before))
        assert [e.lsn for e in found.read(log.position.lsn, 1)] == [before + 1] * (before < 199)
    offsets = [place.offset for place in first.places]
    assert offsets == sorted(offsets)
    assert len(offsets) > 3
    assert all(b - a >= 20_000 for a, b in itertools.pairwise(offsets))
    assert first.place_before(149)[0] > first.place_before(60)[0] > first.place_before(0)[0] == 4096
    assert positions[-1].lsn == 199
    log.close()


def test_what_is_read_on_the_spot_is_told_apart():
    log: Log = create(SimDisk())
    log.append([transaction(1, bytes(5_000))])
    found = log.follow(LogPosition(0))
    assert found.backlog_bytes() > 5_000
    drain(found, 1)
    assert found.backlog_bytes() == 0
    log.append([transaction(2)])
    assert found.backlog_bytes() == 4096
