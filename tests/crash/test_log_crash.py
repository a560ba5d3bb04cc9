"""The log against power failures: at every step, on every kind of legal image.

The oracle: an acknowledged group is there; the one in flight is there as a whole or not at all;
recovering again, after another crash too, gives the same.
"""

from __future__ import annotations

import errno
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.crash.simdisk import Crash, SimDisk
from tests.engine.log.logs import (
    DIRECTORY,
    OPTIONS,
    Content,
    content,
    create,
    grouped,
    log_files,
    recovered_from,
    reopen,
    transaction,
)
from treestore.engine.log import Clean, Log, LogFailed, LogPosition, TornTail, Transaction


class Story:
    """A log in use, and what a client knows about it.

    Attributes:
        disk: present medium.
        log: the open log; None before it was created.
        acknowledged: every transaction that `Log.append` returned for.
        pending: those of the group in flight.
        older, newer: the two positions that meta slots would hold, each with how many
            transactions lie before it.
    """

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self.log: Log | None = None
        self.acknowledged: list[Transaction] = []
        self.pending: list[Transaction] = []
        self.older = self.newer = (LogPosition(0), 0)
        self.reopening = False
        self._number = 0

    def create(self) -> None:
        self.log = create(self.disk)
        self.older = self.newer = (self.log.position, 0)

    def append(self, *sizes: int) -> None:
        assert self.log is not None
        group = []
        for size in sizes:
            self._number += 1
            fill = Random(self._number)
            cuts = [size] if size < 2000 else [size // 2, size - size // 2]
            group.append(transaction(self._number, *[fill.randbytes(cut) for cut in cuts]))
        self.pending = group
        self.log.append(group)
        self.acknowledged += group
        self.pending = []

    def checkpoint(self) -> None:
        assert self.log is not None
        self.older, self.newer = self.newer, (self.log.position, len(self.acknowledged))
        self.log.trim(self.older[0])

    def prepare(self) -> None:
        assert self.log is not None
        self.log.prepare_next()

    def mark(self) -> None:
        assert self.log is not None
        self.log.mark_synced()

    def reopen(self) -> None:
        assert self.log is not None
        self.log.close()
        self.open_again()

    def open_again(self) -> None:
        position, before = self.newer
        self.log, recovered = reopen(self.disk, position)
        found = list(recovered.transactions)
        self.check(found, before)
        if len(found) > len(self.acknowledged) - before:
            self.acknowledged += self.pending
        self.pending = []

    def check(self, found: Content, before: int) -> None:
        """Whether that is what may be found behind the first ``before`` transactions."""
        sure = content(self.acknowledged[before:])
        assert found in (sure, sure + content(self.pending))


def small_story(story: Story) -> None:
    """Every operation, each meeting the others: rotation, recycling, markers, oversize groups."""
    story.create()
    story.append(10)
    story.append(10, 3000, 20)
    story.mark()
    story.append(100)
    story.prepare()
    story.append(9000)
    story.checkpoint()
    story.append(40000)
    story.append(1)
    story.append(5000)
    story.checkpoint()
    story.append(4000)
    story.append(9000)
    story.checkpoint()
    story.append(9000)
    story.append(10)
    story.reopen()
    story.append(10)
    story.append(9000, 500)
    story.checkpoint()
    story.prepare()
    story.append(9000)
    story.append(9000)
    story.checkpoint()
    story.append(20)
    story.reopen()


def crashed_at(step: int) -> Story | None:
    """The small story up to a power failure before that step; None where it ends before."""
    story = Story(SimDisk())

    def stop(number: int, op: str, path: str) -> None:
        if number == step:
            raise Crash

    story.disk.make_directory("/home")
    story.disk.sync_directory("/")
    story.disk.on_step = stop
    try:
        small_story(story)
    except Crash:
        return story
    return None


def steps_of_the_story() -> int:
    story = Story(SimDisk())
    small_story(story)
    return story.disk.steps


STEPS = steps_of_the_story()


def recover(disk: SimDisk, story: Story) -> Content | None:
    """What recovery finds from the newest position; None where there is no log yet."""
    if not disk.exists(DIRECTORY) or not log_files(disk):
        assert not story.acknowledged
        assert story.log is None
        create(disk).close()
        return None
    position, before = story.newer
    log, recovered = reopen(disk, position)
    found = list(recovered.transactions)
    story.check(found, before)
    log.close()
    return found


@pytest.mark.parametrize("step", range(3, STEPS + 3))
def test_crash_at_every_step(step):
    story = crashed_at(step)
    assert story is not None
    for seed in range(6):
        random = Random(step * 1000 + seed)
        image = story.disk.crash(random)
        for position, before in (story.older, story.newer):
            if image.exists(DIRECTORY) and log_files(image) and position.sequence:
                story.check(recovered_from(image, position), before)
        found = recover(image, story)
        if found is None:
            continue
        assert recover(image.crash(random), story) == found
        assert recovered_from(image.crash(random), story.newer[0]) == found


@pytest.mark.parametrize("step", range(8, STEPS + 3, 4))
def test_crash_at_every_step_of_a_recovery(step):
    story = crashed_at(step)
    assert story is not None
    random = Random(step)
    image = story.disk.crash(random)
    if not image.exists(DIRECTORY) or not log_files(image):
        return
    expected = recovered_from(image, story.newer[0])
    for stop in range(1, 40):
        disk = image.clone()

        def crash(number: int, op: str, path: str, stop: int = stop) -> None:
            if number == stop:
                raise Crash

        disk.on_step = crash
        try:
            recover(disk, story)
        except Crash:
            for _ in range(3):
                again = disk.crash(random)
                assert recover(again, story) == expected
                assert recover(again.crash(random), story) == expected
        else:
            assert stop > 4
            return
    pytest.fail("recovery never ended")


def test_the_story_does_what_it_should():
    story = Story(SimDisk())
    small_story(story)
    assert story.log is not None
    number = max(int(name[5:21], 16) for name in log_files(story.disk))
    assert number > 8
    assert STEPS > 100


def test_what_was_only_in_memory_is_durable_after_recovery():
    """A process whose sync failed is gone; what the next one serves must survive a crash."""
    seen = set()
    for seed in range(40):
        story = Story(SimDisk(seed))
        story.create()
        story.append(100)
        story.disk.fail_next("sync", errno.EIO, ".log")
        with pytest.raises(LogFailed):
            story.append(6000, 50)
        story.disk.restart()
        served = recover(story.disk, story)
        assert served is not None
        seen.add(len(served))
        for crash in range(10):
            assert recover(story.disk.crash(Random(crash)), story) == served
    assert seen == {3}  # the live image has the group, so it is served


def test_a_process_that_dies_before_its_sync():
    for seed in range(20):
        story = Story(SimDisk(seed))
        story.create()
        story.append(100)

        def die(number: int, op: str, path: str) -> None:
            if op == "sync":
                raise Crash

        story.disk.on_step = die
        with pytest.raises(Crash):
            story.append(6000, 50)
        story.disk.restart()
        served = recover(story.disk, story)
        assert served is not None
        assert len(served) == 3
        assert recover(story.disk.crash(Random(seed)), story) == served


def test_a_torn_tail_is_saved_aside():
    story = Story(SimDisk(1))
    story.create()
    story.append(100)
    story.disk.fail_next("write", errno.EIO, ".log")
    with pytest.raises(LogFailed):
        story.append(6000)
    (path,) = log_files(story.disk)
    cut = story.disk.image(path)[8192:]
    story.disk.restart()
    log, recovered = reopen(story.disk)
    outcome = recovered.outcome
    assert isinstance(outcome, TornTail)
    assert (outcome.path, outcome.offset) == (path, 8192)
    saved = story.disk.durable_image(outcome.saved_as)
    assert cut.strip(b"\0")
    assert saved.rstrip(b"\0") == cut.rstrip(b"\0")
    assert outcome.saved_as == "/log/torn-0000000000000001-0000000000002000.saved"
    assert len(list(recovered.transactions)) == 1
    log.close()
    _, recovered = reopen(story.disk)
    assert recovered.outcome == Clean()


def test_repeated_crashes_do_not_fill_the_disk():
    story = Story(SimDisk(1))
    story.create()
    for seed in range(60):
        story.append(100)
        story.disk.fail_next("write", errno.EIO, ".log")
        with pytest.raises(LogFailed):
            story.append(6000)
        story.disk = story.disk.crash(Random(seed))
        story.open_again()
    assert len(log_files(story.disk, ".saved")) <= 8
    assert story.disk.used_bytes() < 60 * 16384


def test_reopening_does_not_lengthen_the_log():
    story = Story(SimDisk())
    story.create()
    story.append(100)
    for _ in range(30):
        story.reopen()
    assert len(log_files(story.disk)) <= 2
    assert story.disk.used_bytes() <= 4 * OPTIONS.segment_size_bytes_min


class LogMachine(RuleBasedStateMachine):
    """Any order of operations, process deaths, power failures and disk errors."""

    @initialize(seed=st.integers(0, 1 << 32))
    def start(self, seed):
        self.random = Random(seed)
        self.story = Story(SimDisk(seed))
        self.story.create()

    def usable(self) -> bool:
        return self.story.log is not None and not self.story.log.statistics().failed

    @precondition(usable)
    @rule(sizes=st.lists(st.sampled_from([0, 1, 50, 2500, 4019, 4020, 9000, 30000]), min_size=1,
                         max_size=4))  # fmt: skip
    def append(self, sizes):
        self.story.append(*sizes)

    @precondition(usable)
    @rule()
    def mark(self):
        self.story.mark()

    @precondition(usable)
    @rule()
    def prepare(self):
        self.story.prepare()

    @precondition(usable)
    @rule()
    def checkpoint(self):
        self.story.checkpoint()

    @precondition(usable)
    @rule()
    def reopen(self):
        self.story.reopen()

    @precondition(usable)
    @rule(op=st.sampled_from(["write", "sync"]), size=st.sampled_from([10, 9000]))
    def disk_error(self, op, size):
        self.story.disk.fail_next(op, errno.EIO, ".log")
        with pytest.raises(LogFailed):
            self.story.append(size)
        assert not self.usable()

    @rule()
    def process_dies(self):
        self.story.disk.restart()
        self.story.open_again()

    @rule(at=st.integers(1, 12), what=st.sampled_from(["append", "checkpoint", "mark", "reopen"]))
    def power_fails(self, at, what):
        story = self.story
        limit = story.disk.steps + at

        def stop(number: int, op: str, path: str) -> None:
            if number >= limit:
                raise Crash

        story.disk.on_step = stop
        try:
            if self.usable():
                {
                    "append": lambda: story.append(9000, 10),
                    "checkpoint": story.checkpoint,
                    "mark": story.mark,
                    "reopen": story.reopen,
                }[what]()
        except Crash:
            pass
        story.disk = story.disk.crash(self.random)
        story.open_again()

    @invariant()
    def all_is_there(self):
        story = self.story
        if self.usable():
            assert story.log is not None
            position, before = story.newer
            records = grouped(story.log.read(position.lsn + 1))
            assert records == content(story.acknowledged[before:])

    def teardown(self):
        if hasattr(self, "story"):
            position, before = self.story.newer
            self.story.disk.restart()
            self.story.check(recovered_from(self.story.disk, position), before)


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(settings.default, stateful_step_count=30)
