"""Appending, trimming, limits and failures of an open log."""

from __future__ import annotations

import errno
import threading
import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crash.simdisk import SimDisk
from tests.engine.log.logs import (
    DIRECTORY,
    IDENTITY,
    OPTIONS,
    Clock,
    content,
    create,
    grouped,
    log_files,
    reopen,
    transaction,
)
from treestore.engine.log import (
    Clean,
    Log,
    LogFailed,
    LogOptions,
    LogPosition,
    Transaction,
    group_bytes,
)
from treestore.engine.realdisk import RealDisk
from treestore.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)


def test_a_new_log_is_empty():
    log = create(SimDisk())
    assert log.position.lsn == 0
    assert list(log.read(1)) == []
    assert log.live_size_bytes() == 0
    assert log.room_bytes() == OPTIONS.size_bytes_max


def test_records_carry_what_was_appended():
    log = create(SimDisk())
    first = log.append([Transaction(7, [b"a", b"b"]), Transaction(9, [b"c"])])
    second = log.append([Transaction(8, [b""])])
    assert (first.lsn, first.group, second.lsn, second.group) == (3, 1, 4, 2)
    rows = [(r.lsn, r.group, r.transaction_id, r.kind, r.payload) for r in log.read(1)]
    assert rows == [
        (1, 1, 7, 1, b"a"),
        (2, 1, 7, 2, b"b"),
        (3, 1, 9, 2, b"c"),
        (4, 2, 8, 2, b""),
    ]
    for number in (2, 3, 4):  # in the middle of a group, too
        assert [record.lsn for record in log.read(number)] == list(range(number, 5))
    assert list(log.read(5)) == []


def test_time_never_falls():
    disk, clock = SimDisk(), Clock(10**9)
    log = Log.create(disk, DIRECTORY, IDENTITY, OPTIONS, clock_ns=clock, random=Random(1))
    log.append([transaction(1)])
    clock.now_ns = 5
    log.append([transaction(2)])
    log.close()
    log, _ = reopen(disk, clock=Clock(7))
    log.append([transaction(3)])
    times = [record.time_ns for record in log.read(1)]
    assert times == sorted(times)
    assert times[0] >= 10**9


def test_a_second_log_is_not_created_over_the_first():
    disk = SimDisk()
    create(disk).close()
    with pytest.raises(AlreadyExists):
        create(disk)


def test_groups_must_not_be_empty():
    log = create(SimDisk())
    for group in ([], [Transaction(1, [])], [transaction(1), Transaction(2, [])]):
        with pytest.raises(InvalidArgument):
            log.append(group)
    assert log.append([transaction(3)]).lsn == 1


def test_a_group_larger_than_any_segment():
    disk = SimDisk()
    log = create(disk)
    log.append([transaction(1)])
    payloads = [bytes([n]) * 50_000 for n in range(5)]
    log.append([Transaction(2, payloads)])
    log.append([transaction(3)])
    log.close()
    _, recovered = reopen(disk)
    assert [(n, len(p)) for n, p in recovered.transactions] == [(1, 1), (2, 5), (3, 1)]


def test_markers_are_written_once_and_only_where_needed():
    log = create(SimDisk())
    log.mark_synced()
    assert log.position.lsn == 0
    log.append([transaction(1)])
    log.mark_synced()
    log.mark_synced()
    assert log.position.lsn == 2
    assert [(r.kind, r.payload) for r in log.read(2)] == [(3, (1).to_bytes(8, "little"))]


def test_segments_grow_under_load_and_shrink_without():
    disk, clock = SimDisk(), Clock()
    log = Log.create(disk, DIRECTORY, IDENTITY, OPTIONS, clock_ns=clock, random=Random(1))

    def size_of_next() -> int:
        rotations = log.statistics().rotations
        while log.statistics().rotations == rotations:
            log.append([Transaction(1, [bytes(4000)])])
        log.prepare_next()
        return log._pool.sizes()[0]

    assert [size_of_next() for _ in range(4)] == [32768, 65536, 65536, 65536]
    clock.now_ns += 60 * 10**9
    assert size_of_next() == 65536
    for _ in range(4):
        clock.now_ns += 3600 * 10**9
        size_of_next()
    assert log._pool.target_bytes == 16384


def test_trim_keeps_three_segments_and_recycles():
    disk = SimDisk()
    options = LogOptions(16384, 16384, 1 << 20)
    log = create(disk, options)
    position = log.position
    for number in range(30):
        position = log.append([Transaction(number, [bytes(4000)])])
    assert log.live_size_bytes() == 30 * 4096
    assert log.statistics().segments == 10
    log.trim(LogPosition(0))
    assert log.statistics().segments == 10
    log.trim(position)
    statistics = log.statistics()
    assert (statistics.segments, statistics.spares, statistics.live_bytes) == (3, 2, 0)
    assert len(log_files(disk, ".spare")) == 4  # two are the reserve
    assert disk.used_bytes() == statistics.disk_bytes == 7 * 16384
    files = disk.used_bytes()
    for number in range(6):
        log.append([Transaction(number, [bytes(4000)])])
    assert disk.used_bytes() == files
    with pytest.raises(NotFound, match="begins with record 22"):
        log.read(21)


def test_trim_stops_at_the_position():
    log = create(SimDisk())
    positions = [log.append([Transaction(n, [bytes(4000)])]) for n in range(30)]
    for position in positions:
        log.trim(position)
        lsns = [record.lsn for record in log.read(position.lsn + 1)]
        assert lsns == list(range(position.lsn + 1, 31))
        assert log.live_size_bytes() == 4096 * (30 - position.lsn)


def test_an_iterator_keeps_its_segments():
    log = create(SimDisk(), LogOptions(16384, 16384, 1 << 20))
    position = log.position
    for number in range(30):
        position = log.append([Transaction(number, [bytes([number]) * 4000])])
    iterator = log.read(1)
    next(iterator)
    log.trim(position)
    for number in range(9):
        log.append([Transaction(number, [bytes(4000)])])
    assert [record.lsn for record in iterator] == list(range(2, 31))
    log.trim(position)
    assert log.statistics().segments == 3


def test_the_hard_limit_refuses_before_writing():
    disk = SimDisk()
    log = create(disk, LogOptions(16384, 65536, size_bytes_max=10 * 4096))
    position = log.position
    for number in range(10):
        position = log.append([transaction(number)])
    assert log.room_bytes() == 0
    steps = disk.steps
    with pytest.raises(ResourceExhausted, match="limit"):
        log.append([transaction(99)])
    assert disk.steps == steps
    log.trim(position)
    assert log.room_bytes() == 10 * 4096
    log.append([transaction(99)])
    with pytest.raises(ResourceExhausted, match="never fits"):
        log.append([Transaction(1, [bytes(50_000)])])


def test_half_the_limit_always_fits_after_a_checkpoint():
    log = create(SimDisk(), LogOptions(16384, 65536, size_bytes_max=1 << 20))
    position = log.position
    for number in range(8):
        position = log.append([Transaction(number, [bytes((1 << 19) - 100)])])
        log.trim(position)


@pytest.mark.parametrize("op", ["write", "sync"])
def test_a_failed_write_or_sync_latches(op):
    disk = SimDisk()
    log = create(disk)
    log.append([transaction(1)])
    disk.fail_next(op, errno.EIO, ".log")
    with pytest.raises(LogFailed) as caught:
        log.append([transaction(2)])
    assert isinstance(caught.value.cause, OSError)
    assert caught.value.cause.errno == errno.EIO
    steps = disk.steps
    for _ in range(2):
        with pytest.raises(LogFailed):
            log.append([transaction(3)])
        with pytest.raises(LogFailed):
            log.mark_synced()
    assert not log.prepare_next()
    log.trim(log.position)
    assert log.statistics().failed
    assert log.position.lsn == 1
    assert [record.lsn for record in log.read(1)] == [1]
    log.close()
    assert disk.steps == steps


def test_no_space_during_a_group_latches():
    disk = SimDisk()
    log = create(disk)
    disk.fail_next("write", errno.ENOSPC, ".log")
    with pytest.raises(LogFailed):
        log.append([transaction(1)])


@pytest.mark.parametrize("op", ["open", "allocate", "write", "sync", "rename", "sync_directory"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_for_a_segment_changes_nothing(op, number):
    disk = SimDisk()
    log = create(disk)
    for n in range(3):
        log.append([transaction(n)])
    disk.fail_next(op, number)
    with pytest.raises(ResourceExhausted, match="no room on the disk"):
        log.append([transaction(3)])
    assert log.append([transaction(4)]).lsn == 4
    log.close()
    _, recovered = reopen(disk)
    assert [n for n, _ in recovered.transactions] == [0, 1, 2, 4]


def test_no_space_while_a_spare_is_activated_changes_nothing():
    disk = SimDisk()
    log = create(disk)
    for n in range(3):
        log.append([transaction(n)])
    log.prepare_next()
    disk.fail_next("write", errno.ENOSPC, ".spare")
    with pytest.raises(ResourceExhausted):
        log.append([transaction(3)])
    assert log.append([transaction(4)]).lsn == 4
    assert len(log_files(disk, ".spare")) == 2  # the reserve


@pytest.mark.parametrize("op", ["rename", "sync_directory", "sync", "write"])
def test_a_failed_activation_latches(op):
    disk = SimDisk()
    log = create(disk)
    for n in range(3):
        log.append([transaction(n)])
    log.prepare_next()
    disk.fail_next(op, errno.EIO)
    with pytest.raises(LogFailed):
        log.append([transaction(3)])
    with pytest.raises(LogFailed):
        log.append([transaction(4)])
    disk.restart()
    _, recovered = reopen(disk)
    assert [n for n, _ in recovered.transactions] == [0, 1, 2]


def test_a_full_disk_does_not_stop_a_prepared_log():
    disk = SimDisk()
    log = create(disk)
    log.prepare_next()
    disk.capacity_bytes = disk.used_bytes()
    with pytest.raises(ResourceExhausted):
        for n in range(100):
            log.append([transaction(n)])
    assert log.position.lsn == 6
    assert log_files(disk, ".new") == []
    with pytest.raises(ResourceExhausted):
        log.prepare_next()
    disk.capacity_bytes = None
    log.append([transaction(7)])


def test_a_failed_trim_latches():
    disk = SimDisk()
    log = create(disk, LogOptions(16384, 16384, 1 << 20))
    position = log.position
    for n in range(30):
        position = log.append([Transaction(n, [bytes(4000)])])
    disk.fail_next("sync_directory", errno.EIO)
    with pytest.raises(LogFailed):
        log.trim(position)
    assert log.statistics().spares == 0
    with pytest.raises(LogFailed):
        log.append([transaction(1)])
    disk.restart()
    _, recovered = reopen(disk, position)
    assert list(recovered.transactions) == []


def test_prepare_next_fails_alone():
    disk = SimDisk()
    log = create(disk)
    disk.fail_next("sync", errno.EIO, ".new")
    with pytest.raises(OSError, match="Input/output"):
        log.prepare_next()
    assert log_files(disk, ".new") == []
    log.append([transaction(1)])
    assert log.prepare_next()
    assert not log.prepare_next()


def test_closing():
    disk = SimDisk()
    log = create(disk)
    log.append([transaction(1)])
    log.close()
    log.close()
    with pytest.raises(Unavailable):
        log.append([transaction(2)])
    _, recovered = reopen(disk)
    assert recovered.outcome == Clean()
    assert recovered.last.lsn == 2  # the marker
    assert list(recovered.transactions) == [(1, [b"payload of 1"])]


def test_closing_on_a_full_disk():
    disk = SimDisk()
    log = create(disk)
    for n in range(3):
        log.append([transaction(n)])
    disk.capacity_bytes = disk.used_bytes()
    log.close()
    disk.capacity_bytes = None
    _, recovered = reopen(disk)
    assert len(list(recovered.transactions)) == 3


def test_statistics():
    log = create(SimDisk())
    for number in range(4):
        log.append([transaction(number), transaction(number)])
    statistics = log.statistics()
    assert statistics.appended_bytes == statistics.live_bytes == 4 * 4096
    assert (statistics.appended_records, statistics.groups, statistics.syncs) == (8, 4, 4)
    assert (statistics.segments, statistics.rotations, statistics.spares) == (2, 1, 0)
    assert statistics.sync_ns_last == 1000
    assert not statistics.failed


def test_nonsense_limits_are_refused():
    for arguments in ((4096, 65536), (16385, 65536), (65536, 16384)):
        with pytest.raises(ValueError, match="segment sizes"):
            LogOptions(*arguments)
    with pytest.raises(ValueError, match="at least one"):
        LogOptions(segments_kept=0)


def test_background_threads_beside_appends(tmp_path):
    """`prepare_next`, `trim` and `read` run while groups are appended, on a real disk."""
    directory = str(tmp_path / "log")
    options = LogOptions(16384, 65536, 1 << 20)
    log = Log.create(
        RealDisk(), directory, IDENTITY, options, clock_ns=time.time_ns, random=Random(1)
    )
    stop = threading.Event()
    errors: list[BaseException] = []
    last = [log.position]

    def background(act):
        def run():
            try:
                while not stop.is_set():
                    act()
                    time.sleep(0.0005)
            except BaseException as error:  # noqa: ASYNC103
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def read():
        position = last[0]
        try:
            lsns = [record.lsn for record in log.read(position.lsn + 1)]
        except NotFound:
            return
        assert lsns == list(range(position.lsn + 1, position.lsn + 1 + len(lsns)))

    acts = (log.prepare_next, lambda: log.trim(last[0]), read, log.statistics)
    threads = [background(act) for act in acts]
    try:
        for number in range(400):
            position = log.append([Transaction(number, [bytes([number % 256]) * 3000])])
            if number % 20 == 0:
                last[0] = position
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors
    log.close()
    log, recovered = Log.open(
        RealDisk(), directory, IDENTITY, options, last[0], clock_ns=time.time_ns, random=Random(2)
    )
    found = list(recovered.transactions)
    assert found == [(n, [bytes([n % 256]) * 3000]) for n in range(381, 400)]
    log.close()


SIZES = st.sampled_from([0, 1, 51, 4018, 4019, 4020, 9000, 20000])
GROUPS = st.lists(st.lists(SIZES, min_size=1, max_size=3), min_size=1, max_size=4)
ACTIONS = st.one_of(
    st.tuples(st.just("append"), GROUPS),
    st.sampled_from([("mark",), ("trim",), ("prepare",), ("reopen",)]),
)


@given(st.lists(ACTIONS, max_size=25))
def test_a_log_is_a_list(actions):
    disk = SimDisk()
    log = create(disk)
    start, model = log.position, []
    fill = Random(0)
    for action in actions:
        match action:
            case ("append", groups):
                group = [Transaction(n, [fill.randbytes(s) for s in g]) for n, g in
                         enumerate(groups)]  # fmt: skip
                size = log.live_size_bytes()
                log.append(group)
                assert log.live_size_bytes() == size + group_bytes(group)
                model += content(group)
            case ("mark",):
                log.mark_synced()
            case ("trim",):
                start, model = log.position, []
                log.trim(start)
                assert log.live_size_bytes() == 0
            case ("prepare",):
                log.prepare_next()
            case ("reopen",):
                last = log.position.lsn
                log.close()
                log, recovered = reopen(disk, start)
                assert recovered.outcome == Clean()
                assert recovered.last.lsn in (last, last + 1)
                assert list(recovered.transactions) == model
            case _:
                raise AssertionError(action)
        assert grouped(log.read(start.lsn + 1)) == model
    log.close()
