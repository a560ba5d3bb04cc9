"""Opening damaged logs: what is refused, what is cut, and that nothing is lost in silence."""

from __future__ import annotations

import errno
from random import Random
from unittest import mock

import pytest

from tests.crash.simdisk import Crash, SimDisk, SimFile
from tests.engine.log.logs import (
    DIRECTORY,
    IDENTITY,
    OPTIONS,
    Clock,
    Content,
    content,
    create,
    log_files,
    reopen,
    transaction,
)
from treestore.engine.log import (
    Clean,
    Log,
    LogFailed,
    LogIdentity,
    LogOptions,
    LogPosition,
    TornTail,
    Transaction,
)
from treestore.engine.log.segment import open_segment
from treestore.errors import CorruptionError, ResourceExhausted

TRANSACTIONS = [
    transaction(1, b"one"),
    transaction(2, b"two", b"two and a half"),
    transaction(3, b"three"),
]


def small_log(*, closed: bool) -> SimDisk:
    """Two groups in one segment, with or without a marker behind them."""
    disk = SimDisk()
    log = create(disk)
    log.append(TRANSACTIONS[:2])
    log.append(TRANSACTIONS[2:])
    if closed:
        log.close()
    return disk


def flipped(disk: SimDisk, path: str, offset: int, mask: int = 0x10) -> SimDisk:
    other = disk.clone()
    other.poke(path, offset, bytes([disk.image(path)[offset] ^ mask]))
    return other


def used_ranges(*, closed: bool) -> list[range]:
    header, group, entry = 92, 64, 13
    first = group + 3 * entry + len(b"one" + b"two" + b"two and a half")
    ranges = [
        *(range(88), range(4092, 4096)),
        *(range(4096, 4096 + first), range(8192, 8192 + group + entry + len(b"three"))),
    ]
    assert header == sum(map(len, ranges[:2]))
    return [*ranges, range(12288, 12288 + group + entry + 8)] if closed else ranges


@pytest.mark.parametrize("closed", [True, False])
def test_every_flipped_byte_is_noticed(closed):
    """Of a closed log every byte; of a log that was cut off, the last group is the tail."""
    disk = small_log(closed=closed)
    (path,) = log_files(disk)
    tail = 12288 if closed else 8192
    kept = content(TRANSACTIONS if closed else TRANSACTIONS[:2])
    for offsets in used_ranges(closed=closed):
        for offset in offsets:
            damaged = flipped(disk, path, offset)
            if offset < tail:
                before = damaged.image(path)
                with pytest.raises(CorruptionError) as caught:
                    reopen(damaged)
                details = caught.value.details
                assert details["file"] == path
                assert details["offset"] <= offset
                assert details["offset"] % 4096 == 0
                assert (damaged.list(DIRECTORY), damaged.image(path)) == (
                    disk.list(DIRECTORY),
                    before,
                )
            else:
                log, recovered = reopen(damaged)
                assert isinstance(recovered.outcome, TornTail)
                assert recovered.outcome.offset == tail
                assert list(recovered.transactions) == kept
                log.close()


def test_flips_in_padding_change_nothing():
    disk = small_log(closed=True)
    (path,) = log_files(disk)
    random = Random(5)
    used = {offset for offsets in used_ranges(closed=True) for offset in offsets}
    for offset in random.sample(range(4096, 16384), 300):
        if offset not in used:
            _, recovered = reopen(flipped(disk, path, offset))
            assert list(recovered.transactions) == content(TRANSACTIONS)


def test_damage_before_a_later_segment():
    disk = SimDisk()
    log = create(disk, options := LogOptions(16384, 16384, 1 << 20))
    for number in range(10):
        log.append([transaction(number)])
    log.close()
    for index, path in enumerate(log_files(disk)[:-1]):
        for block in (1, 2, 3):
            with pytest.raises(CorruptionError, match="acknowledged") as caught:
                reopen(flipped(disk, path, block * 4096 + 20), options=options)
            details = caught.value.details
            assert (details["file"], details["offset"]) == (path, block * 4096)
            # What lies before the checkpoint does no harm.
            start = LogPosition(3 * (index + 1))
            _, recovered = reopen(flipped(disk, path, block * 4096 + 20), start, options)
            assert len(list(recovered.transactions)) == 10 - start.lsn


def test_only_what_a_crash_can_leave_is_a_torn_tail():
    """Damage to group 2 of 4: groups 3 and 4 are proof. Of 2 and 3 and 4 at once: nothing is."""
    disk = SimDisk()
    log = create(disk, options := LogOptions(65536, 65536, 1 << 20))
    for number in range(4):
        log.append([transaction(number)])
    (path,) = log_files(disk)
    twice = flipped(flipped(disk, path, 8192), path, 12288)
    with pytest.raises(CorruptionError, match="byte 16384 proves"):
        reopen(twice, options=options)
    _, recovered = reopen(flipped(twice, path, 16384), options=options)
    assert isinstance(recovered.outcome, TornTail)
    assert recovered.outcome.offset == 8192
    assert len(list(recovered.transactions)) == 1


@pytest.mark.parametrize("size", [30, 6000])
def test_the_header_of_a_later_group_is_proof_enough(size):
    """It was begun, so what stood before it was synced; whether it is whole does not matter."""
    disk = SimDisk()
    log = create(disk, options := LogOptions(65536, 65536, 1 << 20))
    log.append([transaction(1)])
    log.append([transaction(2)])
    log.append([transaction(3, bytes(size), b"b" * 30)])
    (path,) = log_files(disk)
    damaged = flipped(flipped(disk, path, 8192), path, 12288 + 100)
    with pytest.raises(CorruptionError, match="byte 12288 proves"):
        reopen(damaged, options=options)
    # Of its header nothing is left: the window that docs/log-format.md describes.
    _, recovered = reopen(flipped(damaged, path, 12288), options=options)
    assert isinstance(recovered.outcome, TornTail)


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_missing_segments(missing):
    disk = SimDisk()
    log = create(disk, options := LogOptions(16384, 16384, 1 << 20))
    positions = [log.append([transaction(number)]) for number in range(10)]
    paths = log_files(disk)
    disk.unlink(paths[missing])
    if missing < 3:
        with pytest.raises(CorruptionError, match="missing") as caught:
            reopen(disk, options=options)
        assert "file" in caught.value.details
    with pytest.raises(CorruptionError, match=r"missing|ends after"):
        reopen(disk, positions[-1] if missing == 3 else positions[0], options)


def test_no_segments():
    disk = SimDisk()
    create(disk).close()
    (path,) = log_files(disk)
    disk.unlink(path)
    with pytest.raises(CorruptionError, match="no segments"):
        reopen(disk)


def test_a_checkpoint_ahead_of_the_log():
    disk = small_log(closed=False)
    (path,) = log_files(disk)
    log, _ = reopen(disk.clone())
    position = log.append([transaction(4)])
    with pytest.raises(CorruptionError, match="checkpoint holds record 5"):
        reopen(disk, position)
    assert path


def test_other_databases_and_timelines():
    disk = small_log(closed=True)
    for identity, text in (
        (LogIdentity(bytes(16), 3), "another database"),
        (LogIdentity(IDENTITY.database_uuid, 4), "timeline 3"),
    ):
        with pytest.raises(CorruptionError, match=text):
            Log.open(
                disk, DIRECTORY, identity, OPTIONS, LogPosition(0), clock_ns=Clock(),
                random=Random(0),
            )  # fmt: skip


def test_renamed_and_shortened_files():
    disk = small_log(closed=True)
    (path,) = log_files(disk)
    short = disk.clone()
    short.open(path).truncate(12288)
    with pytest.raises(CorruptionError, match="was cut"):
        reopen(short)
    disk.rename(path, path.replace("1.log", "2.log"))
    with pytest.raises(CorruptionError, match="renamed"):
        reopen(disk)


class OneSalt(Random):
    """Draws the same salt every time."""

    def randrange(self, *arguments, **more):
        return 0x01020304


def test_recycled_segments_never_give_old_records():
    """Old content of the same size, at the same offsets, even with the same salt."""
    disk = SimDisk()
    options = LogOptions(16384, 16384, 1 << 20)
    log = Log.create(disk, DIRECTORY, IDENTITY, options, clock_ns=Clock(), random=OneSalt())
    start, recycled = log.position, 0
    expected: Content = []
    for number in range(60):
        was = log.statistics().rotations
        start = log.append([transaction(number)]) if number % 7 else start
        log.trim(start)
        recycled += log.statistics().rotations > was and log._segments[-1].stale
        crashed = disk.crash(Random(number))
        for image in (crashed, disk.clone()):
            other, recovered = reopen(image, start, options)
            assert list(recovered.transactions) == expected
            other.close()
    assert recycled > 10


def test_stale_bytes_behind_the_end_are_no_torn_tail():
    disk = SimDisk()
    log = create(disk, options := LogOptions(16384, 16384, 1 << 20))
    position = log.position
    for number in range(30):
        position = log.append([Transaction(number, [bytes([255]) * 4000])])
        log.trim(position)
        _, recovered = reopen(disk.clone(), position, options)
        assert recovered.outcome == Clean()
    assert log._segments[-1].stale


def test_positions_from_before_a_rewrite_still_count():
    disk = small_log(closed=False)
    log, _ = reopen(disk)
    positions = [log.position, log.append([transaction(4)]), log.append([transaction(5)])]
    for _ in range(3):
        log.close()
        log, _ = reopen(disk)
        for index, position in enumerate(positions):
            _, recovered = reopen(disk.clone(), position)
            assert [n for n, _ in recovered.transactions] == [4, 5][index:]


def test_a_large_last_segment_is_continued_in_a_new_one():
    disk = SimDisk()
    options = LogOptions(4 << 20, 4 << 20, 64 << 20)
    log = create(disk, options)
    for number in range(3):
        log.append([Transaction(number, [bytes([number]) * 600_000])])
    log, recovered = reopen(disk, options=options)
    assert [n for n, _ in recovered.transactions] == [0, 1, 2]
    assert [s.header.sequence for s in log._segments] == [1, 2]
    assert log._segments[1].header.follows.lsn == 2  # the last group was written again
    log.append([transaction(3)])
    log.close()
    # The old copy of the last group is no longer part of the log, nor is what is behind it.
    first, second = log_files(disk)
    for offset in (4096 + 2 * 602_112 + 20, 3 << 20):
        _, recovered = reopen(flipped(disk, first, offset), options=options)
        assert [n for n, _ in recovered.transactions] == [0, 1, 2, 3]
    with pytest.raises(CorruptionError):
        reopen(flipped(disk, second, 4096 + 20), options=options)


def test_leftovers_are_removed():
    disk = small_log(closed=True)
    for name in ("0000000000000009.new", "0000000000000008.spare"):
        disk.open(f"{DIRECTORY}/{name}", create=True).allocate(100)
    disk.open(f"{DIRECTORY}/notes.txt", create=True)
    log, _ = reopen(disk)
    others = [name for name in disk.list(DIRECTORY) if not name.endswith((".log", ".spare"))]
    assert others == ["notes.txt"]
    assert [disk.open(path).size() for path in log_files(disk, ".spare")] == [16384] * 2
    log.close()


def test_a_full_disk_at_open():
    disk = small_log(closed=False)
    disk.capacity_bytes = disk.used_bytes()
    for _ in range(5):  # the reserve is enough, again and again
        disk.restart()
        log, recovered = reopen(disk)
        assert list(recovered.transactions) == content(TRANSACTIONS)
        assert not log.lacks_reserve


def test_a_full_disk_at_open_without_a_reserve():
    disk = small_log(closed=False)
    for path in log_files(disk, ".spare"):
        disk.unlink(path)
    disk.capacity_bytes = disk.used_bytes()
    with pytest.raises(ResourceExhausted, match=r"no room on the disk for 16384 bytes"):
        reopen(disk)
    disk.capacity_bytes = None
    _, recovered = reopen(disk)
    assert list(recovered.transactions) == content(TRANSACTIONS)


@pytest.mark.parametrize("op", ["open", "allocate", "write", "sync", "rename", "sync_directory"])
def test_a_disk_error_at_open_changes_nothing(op):
    disk = small_log(closed=False)
    disk.fail_next(op, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        reopen(disk)
    disk.restart()
    _, recovered = reopen(disk)
    assert list(recovered.transactions) == content(TRANSACTIONS)


def test_a_read_error_is_no_torn_tail():
    disk = small_log(closed=False)
    for skip in range(4):
        disk.fail_next("read", errno.EIO, skip=skip)
        with pytest.raises(OSError, match="Input/output"):
            reopen(disk)
        disk.restart()


def test_a_failed_log_opens_again_in_the_same_process():
    disk = SimDisk()
    log = create(disk)
    log.append([transaction(1)])
    disk.fail_next("sync", errno.EIO, ".log")
    with pytest.raises(LogFailed):
        log.append([transaction(2)])
    log.close()
    log, recovered = reopen(disk)
    assert [n for n, _ in recovered.transactions] == [1, 2]
    assert log.append([transaction(3)]).lsn == 3


def test_open_segment_closes_what_it_refuses():
    disk = small_log(closed=True)
    (path,) = log_files(disk)
    disk.poke(path, 0, b"x")
    with mock.patch.object(disk, "open", return_value=disk.open(path)) as opened:
        with pytest.raises(CorruptionError):
            open_segment(disk, DIRECTORY, path.rpartition("/")[2])
        assert not opened.return_value._open


def test_a_missing_last_segment_that_the_checkpoint_names():
    """What is left ends exactly where the checkpoint stands; the file's name gives it away."""
    disk = SimDisk()
    log = create(disk)
    for number in range(3):
        log.append([transaction(number)])
    log.close()
    log, _ = reopen(disk)
    start = log.position
    assert (start.lsn, start.sequence, start.offset) == (3, 2, 4096)
    log.append([transaction(4)])
    disk.unlink(log_files(disk)[-1])
    with pytest.raises(CorruptionError, match="segment 2 is missing"):
        reopen(disk, start)


def test_the_last_group_gets_a_marker_after_a_crash_too():
    disk = small_log(closed=False)
    log, _ = reopen(disk)
    log.close()
    path = log_files(disk)[-1]
    with pytest.raises(CorruptionError):
        reopen(flipped(disk, path, 8192 + 20))


def test_a_recycled_segment_without_groups_is_clean():
    disk = SimDisk()
    log = create(disk, options := LogOptions(16384, 16384, 1 << 20))
    position = log.position
    for number in range(30):
        position = log.append([Transaction(number, [bytes([255]) * 4000])])
        log.trim(position)
    while log._segments[-1].room:
        position = log.append([Transaction(1, [bytes([255]) * 4000])])
    assert log._pool._ready[0].stale

    def stop(number: int, op: str, path: str) -> None:
        if op == "write" and path.endswith(".log"):
            raise Crash

    disk.on_step = stop
    with pytest.raises(Crash):
        log.append([Transaction(1, [bytes([255]) * 8000])])
    crashed = disk.crash(Random(1))
    assert len(log_files(crashed)) == 4
    _, recovered = reopen(crashed, position, options)
    assert list(recovered.transactions) == []
    assert recovered.outcome == Clean()


def test_spares_are_really_written():
    """Blocks that are only allocated would make every first sync slow."""
    disk = SimDisk()
    log = create(disk)
    with mock.patch.object(SimFile, "write_at", autospec=True) as write:
        log.prepare_next()
    sizes = [
        (offset, sum(map(len, buffers)))
        for _, offset, buffers in (call.args for call in write.call_args_list)
    ]
    assert sizes == [(0, 16384)]
