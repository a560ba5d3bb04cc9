"""The archive: what it holds back, what it holds, and restoring from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import attrs
import pytest

from tests.crash.simdisk import Crash, SimDisk
from tests.engine.backup.backups import (
    ARCHIVED,
    archive_of,
    archived_disk,
    back_up,
    contents_at,
    open_archived,
    open_at,
    restore_to,
)
from tests.engine.stores import SMALL, close_checked, contents, environment, open_small, put_now
from treestore.engine.directory import OpenStore, open_engine
from treestore.errors import (
    CorruptionError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    RestoreIncomplete,
)


def write(store: OpenStore, *numbers: int, size: int = 3000) -> None:
    """One transaction for each number."""
    for number in numbers:
        put_now(store, [(b"%04d" % number, bytes((number % 256,)) * size)])


def pieces(disk: SimDisk) -> list[str]:
    """The paths of all pieces."""
    (directory,) = disk.list("/archive")
    return [
        f"/archive/{directory}/{name}"
        for name in disk.list(f"/archive/{directory}")
        if name.endswith(".piece")
    ]


@pytest.fixture
def disk() -> SimDisk:
    return archived_disk(1)


@pytest.fixture
def store(disk: SimDisk) -> Iterator[OpenStore]:
    store = open_archived(disk)
    yield store
    if not store.engine.closed:
        close_checked(store)


def segments(disk: SimDisk) -> int:
    return len([name for name in disk.list("/db/log") if name.endswith(".log")])


def test_the_log_keeps_what_is_not_archived(disk: SimDisk, store: OpenStore) -> None:
    archive = archive_of(store)
    back_up(store, "/base")
    write(store, *range(40))
    for turn in range(3):
        write(store, 40 + turn)
        store.engine.checkpoint_now()
    kept = segments(disk)
    assert kept > 5
    live = store.engine.log.live_size_bytes()
    assert live > 40 * 3000
    archive.advance(store.engine.log, active=True)
    store.engine.checkpoint_now()
    write(store, 44)
    store.engine.checkpoint_now()
    assert segments(disk) == 3
    assert store.engine.log.live_size_bytes() < 10_000
    restore_to(disk, "/base", archive="/archive", lsn=43)
    assert len(contents_at(disk, "/new")) == 43


def test_what_is_not_archived_counts_against_the_log_s_limit() -> None:
    disk = archived_disk(2)
    options = attrs.evolve(ARCHIVED, log_size_bytes_max=1 << 18, transaction_size_bytes_max=1 << 16)
    store = open_small(disk, options)
    archive = archive_of(store)
    written = 0
    with pytest.raises(ResourceExhausted):
        while True:
            txn = store.engine.begin()
            txn.put(b"%04d" % written, b"x" * 3000)
            store.engine.commit(txn)
            group = store.engine.seal()
            assert group is not None
            try:
                store.engine.publish(group, store.engine.append(group))
            except ResourceExhausted:
                store.engine.abandon()
                raise
            written += 1
            store.engine.checkpoint_now()
    assert 40 < written < 90
    # The same after it was opened again.
    close_checked(store)
    store = open_small(disk, options)
    assert store.engine.log.room_bytes() < 40_000
    archive = archive_of(store)
    archive.advance(store.engine.log, active=True)
    assert store.engine.log.room_bytes() > 200_000
    put_now(store, [(b"now", b"there is room")])
    assert len(contents(store)) == written + 1
    close_checked(store)


def test_a_store_remembers_that_it_is_archived(disk: SimDisk, store: OpenStore) -> None:
    close_checked(store)
    plain = open_small(disk, SMALL)
    assert plain.engine.options.archive_directory == "/archive"
    write(plain, *range(60))
    for turn in range(3):
        write(plain, 60 + turn)
        plain.engine.checkpoint_now()
    close_checked(plain)
    again = open_archived(disk)
    archive = archive_of(again)
    archive.advance(again.engine.log, active=True)
    assert archive.gap is None
    close_checked(again)
    ended = open_small(disk, attrs.evolve(SMALL, archive_directory=""))
    assert ended.engine.log.archived is None
    close_checked(ended)
    assert open_small(disk, SMALL).engine.log.archived is None


def test_a_gap_is_reported_and_refused(disk: SimDisk, store: OpenStore) -> None:
    archive = archive_of(store)
    back_up(store, "/base")
    write(store, *range(10))
    archive.advance(store.engine.log, active=True)
    close_checked(store)
    off = open_small(disk, attrs.evolve(ARCHIVED, archive_directory=""))
    for turn in range(30):
        write(off, 10 + turn)
        off.engine.checkpoint_now()
    close_checked(off)
    again = open_archived(disk)
    archive = archive_of(again)
    assert archive.gap is not None
    assert "new full backup" in archive.gap
    write(again, 50)
    archive.advance(again.engine.log, active=True)
    with pytest.raises(RestoreIncomplete, match="--to-lsn 10") as caught:
        restore_to(disk, "/base", archive="/archive")
    assert caught.value.details["reached_lsn"] == 10
    assert not disk.exists("/new")
    restore_to(disk, "/base", archive="/archive", lsn=10)
    assert len(contents_at(disk, "/new")) == 10
    back_up(again, "/fresh")
    restore_to(disk, "/fresh", "/other", archive="/archive")
    assert contents_at(disk, "/other") == contents(again)
    close_checked(again)


def test_a_missing_or_damaged_piece_is_a_gap(disk: SimDisk, store: OpenStore) -> None:
    archive = archive_of(store)
    back_up(store, "/base")
    lsns = []
    for number in range(30):
        write(store, number)
        lsns.append(store.engine.durable.position.lsn)
        if number % 4 == 0:
            archive.advance(store.engine.log, active=True)
    archive.advance(store.engine.log, active=True)
    expected = contents(store)
    found = pieces(disk)
    assert len(found) > 6
    for path in found[:-1]:
        for spoil in ("remove", "flip", "cut"):
            spoiled = disk.clone()
            size = len(disk.image(path))
            if spoil == "remove":
                spoiled.unlink(path)
            elif spoil == "flip":
                byte = disk.image(path)[size // 2]
                spoiled.poke(path, size // 2, bytes((byte ^ 4,)))
            else:
                spoiled.open(path).truncate(size - 4096)
            with pytest.raises(RestoreIncomplete) as caught:
                restore_to(spoiled, "/base", archive="/archive")
            reached = caught.value.details["reached_lsn"]
            assert reached < lsns[-1]
            restore_to(spoiled, "/base", archive="/archive", lsn=reached)
            known = contents_at(spoiled, "/new")
            assert known.items() <= expected.items()
            assert len(known) == sum(lsn <= reached for lsn in lsns)


def test_a_point_before_the_backup_needs_an_older_one(disk: SimDisk, store: OpenStore) -> None:
    archive_of(store)
    write(store, 1, 2, 3)
    time_ns = store.engine.durable.position.time_ns
    back_up(store, "/base")
    with pytest.raises(InvalidArgument, match="older backup"):
        restore_to(disk, "/base", archive="/archive", lsn=2)
    with pytest.raises(InvalidArgument, match="older backup"):
        restore_to(disk, "/base", archive="/archive", time_ns=time_ns - 1)
    with pytest.raises(RestoreIncomplete):
        restore_to(disk, "/base", archive="/archive", time_ns=time_ns)
    with pytest.raises(RestoreIncomplete, match="no archive was given"):
        restore_to(disk, "/base", lsn=4)
    with pytest.raises(InvalidArgument, match="timeline 7"):
        restore_to(disk, "/base", archive="/archive", timeline=7)
    with pytest.raises(NotFound, match="no archive of database"):
        restore_to(disk, "/base", archive="/base")
    restore_to(disk, "/base", archive="/archive", lsn=3)
    assert len(contents_at(disk, "/new")) == 3


def test_two_restores_cannot_share_a_timeline_s_number(disk: SimDisk, store: OpenStore) -> None:
    archive = archive_of(store)
    write(store, 1)
    back_up(store, "/base")
    archive.advance(store.engine.log, active=True)
    restore_to(disk, "/base", "/one", seed=1)
    restore_to(disk, "/base", "/two", seed=2)
    one = open_at(disk, "/one", ARCHIVED)
    write(one, 2)
    archive_of(one, "/one").advance(one.engine.log, active=True)
    two = open_at(disk, "/two", ARCHIVED)
    write(two, 3)
    with pytest.raises(InvalidArgument, match="another history"):
        archive_of(two, "/two")
    # And the log of one is not opened by the other.
    close_checked(one)
    close_checked(two)
    third = restore_to(disk, "/base", "/three", archive="/archive")
    assert third.timeline == 3
    assert set(contents_at(disk, "/three")) == {b"0001", b"0002"}


def test_the_old_log_never_replays_onto_the_new_history(disk: SimDisk, store: OpenStore) -> None:
    write(store, 1)
    back_up(store, "/base")
    write(store, 2)
    close_checked(store)
    restore_to(disk, "/base")
    for name in disk.list("/new/log"):
        disk.unlink(f"/new/log/{name}")
    for name in disk.list("/db/log"):
        disk.rename(f"/db/log/{name}", f"/new/log/{name}")
    with pytest.raises(CorruptionError, match="timeline 1, the database of timeline 2"):
        open_at(disk, "/new")


def test_a_restored_store_needs_its_history(disk: SimDisk, store: OpenStore) -> None:
    back_up(store, "/base")
    restore_to(disk, "/base")
    restored = open_at(disk, "/new")
    disk.unlink("/new/TIMELINES")
    with pytest.raises(CorruptionError, match="TIMELINES"):
        back_up(restored, "/next")
    close_checked(restored)


def test_an_archive_that_is_not_there_is_said(disk: SimDisk) -> None:
    options = attrs.evolve(ARCHIVED, archive_directory="/nowhere")
    store = open_engine("/db", options, environment(disk))
    archive = archive_of(store)
    assert archive.position is not None
    from treestore.engine.backup.archive import Archive

    missing = Archive(disk, "/nowhere", "/db", store.engine.identity)
    with pytest.raises(InvalidArgument, match="/nowhere"):
        missing.open(store.engine.log)
    close_checked(store)


def group(store: OpenStore, *values: bytes) -> list[int]:
    """One group of transactions; the number of each one's last record."""
    engine = store.engine
    first = engine.durable.position.lsn
    for value in values:
        txn = engine.begin()
        txn.put(value[:20], value)
        engine.commit(txn)
    sealed = engine.seal()
    assert sealed is not None
    ends = []
    for transaction in sealed.transactions:
        first += len(transaction.payloads)
        ends.append(first)
    engine.publish(sealed, engine.append(sealed))
    return ends


def test_a_restore_may_end_within_a_group(disk: SimDisk, store: OpenStore) -> None:
    """And a timeline may be left, and gone along again, from there."""
    archive = archive_of(store)
    back_up(store, "/base")
    ends = group(store, b"one", b"two", b"three")
    assert ends == [1, 2, 3]
    archive.advance(store.engine.log, active=True)
    close_checked(store)
    report = restore_to(disk, "/base", "/second", archive="/archive", lsn=2)
    assert (report.lsn, report.timeline) == (2, 2)
    second = open_at(disk, "/second", ARCHIVED)
    assert set(contents(second)) == {b"one", b"two"}
    # The same number as on the old timeline, another transaction.
    assert group(second, b"four") == [3]
    archive_of(second, "/second").advance(second.engine.log, active=True)
    close_checked(second)
    restore_to(disk, "/base", "/new", archive="/archive")
    assert set(contents_at(disk, "/new")) == {b"one", b"two", b"four"}
    report = restore_to(disk, "/base", "/old", archive="/archive", timeline=1)
    assert (report.timeline, report.parent_timeline) == (3, 1)
    assert set(contents_at(disk, "/old")) == {b"one", b"two", b"three"}
    # Before the fork: what is left is the first timeline.
    report = restore_to(disk, "/base", "/early", archive="/archive", lsn=1)
    assert (report.timeline, report.parent_timeline) == (3, 1)


def test_a_restore_never_ends_within_a_transaction(disk: SimDisk, store: OpenStore) -> None:
    archive = archive_of(store)
    back_up(store, "/base")
    [before] = group(store, b"before")
    txn = store.engine.begin()
    for number in range(12):
        txn.put(b"large%d" % number, bytes(90_000))
    store.engine.write_now(txn)
    last = store.engine.durable.position.lsn
    assert last > before + 2
    archive.advance(store.engine.log, active=True)
    for lsn in range(before, last):
        report = restore_to(disk, "/base", f"/to{lsn}", archive="/archive", lsn=lsn)
        assert report.lsn == before
        assert set(contents_at(disk, f"/to{lsn}")) == {b"before"}
    restore_to(disk, "/base", archive="/archive", lsn=last)
    assert contents_at(disk, "/new") == contents(store)


def test_a_segment_that_a_crash_left_empty_is_no_gap() -> None:
    """It holds nothing and is not archived; the chain of records tells that nothing is missing."""
    gaps = 0
    for steps in range(1, 20):
        disk = archived_disk()
        store = open_archived(disk)
        back_up(store, "/base")
        archive = archive_of(store)
        put_now(store, [(b"1", bytes(13_000))])
        archive.advance(store.engine.log, active=True)
        last = disk.steps + steps

        def stop(number: int, _op: str, _path: str, last: int = last) -> None:
            if number > last:
                raise Crash

        disk.on_step = stop
        with contextlib.suppress(Crash):
            # A new segment is begun for it.
            put_now(store, [(b"2", bytes(13_000))])
        disk = disk.killed()
        store = open_archived(disk)
        put_now(store, [(b"3", b"")])
        known = contents(store)
        archive = archive_of(store)
        archive.advance(store.engine.log, active=True)
        pieces = [name for name in disk.list(archive.directory) if name.endswith(".piece")]
        numbers = sorted({int(name.split("-")[1], 16) for name in pieces})
        gaps += numbers != list(range(numbers[0], numbers[-1] + 1))
        close_checked(store)
        restore_to(disk, "/base", archive="/archive")
        assert contents_at(disk, "/new") == known
    assert gaps
