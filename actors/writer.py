"""The writer: the one actor that changes the tree.

Commands are run strictly one after the other, as they come out of the bounded mailbox. While one
group of transactions is being synced on the log thread, the writer goes on with the next: its
commands see the unsynced state, so whatever they answer waits until that state is durable too.

    mailbox -> run -> waiting --seal--> in flight --synced--> published, callers answered

Error handling:
    A command that raises is rolled back and its caller gets the exception; nothing else happens.
    When the log, or the disk, has no room for a group, the writer waits for a checkpoint (`poke`
    tells it of one). When that did not help, or a group could not be written because the disk is
    full, nothing of it was: its callers, and those whose commands built on it, get
    `ResourceExhausted`. When a write or sync *failed*, the group's callers get `OutcomeUnknown`,
    everybody else `Unavailable`, from then on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from actors.mail import BEGUN, TAKEN_BACK, Call, Mail, WriterLimits, WriterStatistics
from actors.threads import WORKER_THREADS, JobThread, Threads
from actors.tuning import collector_paused
from treestore.engine.engine import Engine
from treestore.engine.group import Group
from treestore.engine.transaction import WriteTransaction
from treestore.errors import (
    DeadlineExceeded,
    OutcomeUnknown,
    ResourceExhausted,
    TreeStoreError,
    Unavailable,
)
from treestore.histogram import COUNTS, SIZES_BYTES, Histogram
from treestore.loggers import get_logger

log = get_logger("treestore.writer")


class Writer:
    """Runs commands on one engine."""

    def __init__(
        self,
        engine: Engine,
        log_thread: JobThread,
        limits: WriterLimits | None = None,
        threads: Threads = WORKER_THREADS,
    ) -> None:
        self.engine = engine
        self.limits = limits or WriterLimits()
        self._log_thread = log_thread
        self._threads = threads
        self._mailbox: deque[Mail] = deque()
        self._mailbox_bytes = 0
        self._parked: trio.lowlevel.Task | None = None
        self._room = trio.lowlevel.ParkingLot()
        self._waiting: list[Mail] = []
        """Run, but not durable: what they saw is in the open group or in the one in flight."""
        self._in_flight: list[Mail] | None = None
        self._running_long = False
        self._landed_just_now = False
        self._in_hand: Mail | None = None
        """The long command that is being run."""
        self._stalled: tuple[Group, list[Mail]] | None = None
        self._stopping = False
        self.stopped = trio.Event()
        self.need_checkpoint: Callable[[bool], None] = lambda log_full: None
        """Called when a checkpoint is due, with True when the log is full."""
        self.published: Callable[[], None] = lambda: None
        """Called when a group was published, before its callers are answered."""
        self._commands = self._failed = self._groups = self._transactions = 0
        self._group_last = self._stalls = 0
        self._sent_at = 0.0
        self._group_transactions = Histogram(COUNTS)
        self._group_sizes = Histogram(SIZES_BYTES)
        self._commit_durations = Histogram()

    # -- the mailbox ----------------------------------------------------------------------------

    def submit(self, mail: Mail) -> bool:
        """Hand a command in; False where the mailbox is full (`wait_room`, then try again).

        Raises:
            Unavailable: the writer is stopping, or the store is read-only.
        """
        if self._stopping:
            raise Unavailable("The store is shutting down; nothing was changed.")
        if self.engine.failed is not None:
            raise self.engine.read_only()
        if len(self._mailbox) >= self.limits.mailbox_count_max or (
            self._mailbox_bytes + mail.size > self.limits.mailbox_size_bytes_max and self._mailbox
        ):
            return False
        if self._resting() and not mail.long:
            self._run_here(mail)
            return True
        self._mailbox.append(mail)
        self._mailbox_bytes += mail.size
        self._wake()
        return True

    def _resting(self) -> bool:
        """Whether the writer waits for work, nothing of what it did is on its way, and commands
        come one at a time: where they come together they should share a group."""
        return (
            self._parked is not None
            and not self._mailbox
            and self._group_last <= 1
            and self._idle()
        )

    def _run_here(self, mail: Mail) -> None:
        """Run a command at once, in its caller's task: it saves the way through the writer's."""
        try:
            self._run_one(mail)
            self._ship()
        except Exception as error:
            log.exception("the writer crashed; the store is read-only now")
            self.engine.fail(error)
            raise self.engine.read_only() from error

    async def wait_room(self) -> None:
        """Return once the mailbox had room."""
        await self._room.park()

    async def execute(self, call: Call) -> Any:
        """Run one command and wait until it is durable.

        Cancellation: before the writer began it, the command is taken back and never applied;
        afterwards its outcome is unknown to the caller (it will normally be applied).
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.submit(call):
            await self.wait_room()
        return await call.outcome()

    def _wake(self) -> None:
        if self._parked is not None:
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)

    async def _park(self) -> None:
        def abort(_raise: Callable[[], Any]) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    # -- running --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run commands until `stop`; the actor's task."""
        try:
            while True:
                if self._landed_just_now:
                    # Those who were just answered often have their next command ready: let them
                    # join this group, rather than wait a whole sync for the one after it.
                    self._landed_just_now = False
                    await trio.lowlevel.cancel_shielded_checkpoint()
                if self._blocked() or not self._mailbox:
                    self._ship()
                    if self._stopping and not self._mailbox and self._idle():
                        return
                    await self._park()
                    continue
                mail = self._work_slice()
                if mail is not None:
                    self._in_hand = mail
                    await self._run_long(mail)
                    self._in_hand = None
                else:
                    # A command's caller may be waiting for the loop since a whole slice.
                    await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._end_all()
            self.stopped.set()

    def _end_all(self) -> None:
        """The actor ends, perhaps by a crash: nobody may be left waiting."""
        error = Unavailable("The store was closed; nothing was changed.")
        unfinished, self._waiting = self._waiting, []
        if self._in_hand is not None and self._in_hand not in unfinished:
            unfinished.append(self._in_hand)
        if self._stalled is not None:
            unfinished += self._stalled[1]
            self._stalled = None
        _fail(unfinished, error)
        self._fail_queued(error)

    def _idle(self) -> bool:
        return self._in_flight is None and self._stalled is None and not self._waiting

    def _blocked(self) -> bool:
        """Whether the open group is full and has to wait for the one before it."""
        if self._stalled is not None:
            return True
        return self._in_flight is not None and (
            len(self._waiting) >= self.limits.group_count_max
            or self.engine.open_group_bytes >= self.limits.group_size_bytes_max
        )

    def _work_slice(self) -> Mail | None:
        """Run what waits, for one time slice at most; a long command is returned instead."""
        mailbox = self._mailbox
        until = time.perf_counter() + self.limits.slice_s
        long: Mail | None = None
        while mailbox and not self._blocked():
            mail = mailbox.popleft()
            self._mailbox_bytes -= mail.size
            if mail.state == TAKEN_BACK:
                continue
            if mail.long:
                long = mail
                break
            self._run_one(mail)
            if time.perf_counter() > until:
                break
        if self._room:
            self._room.unpark_all()
        if long is None:
            self._ship()
        return long

    def _begin(self, mail: Mail) -> bool:
        mail.state = BEGUN
        self._commands += 1
        if mail.deadline is not None and trio.current_time() > mail.deadline:
            text = "The deadline passed while the command waited for its turn; nothing was changed."
            mail.fail(DeadlineExceeded(text))
            self._waiting.append(mail)
            return False
        return True

    def _run_one(self, mail: Mail) -> None:
        if not self._begin(mail):
            return
        engine = self.engine
        try:
            transaction = engine.begin(raw=mail.raw, moves=mail.moves)
            try:
                mail.result = mail.run(transaction)
                engine.commit(transaction)
            except BaseException:
                engine.rollback(transaction)
                raise
        except Exception as error:
            self._failed += 1
            self._refused(mail, error)
        self._waiting.append(mail)

    def _refused(self, mail: Mail, error: Exception) -> None:
        """A command raised; where that was for want of space, a checkpoint may make some."""
        mail.fail(_presentable(error))
        if isinstance(error, ResourceExhausted) and self.engine.short_of_space:
            self.need_checkpoint(True)

    async def _run_long(self, mail: Mail) -> None:
        """Run one command on a worker thread, while groups before it still complete here."""
        if self._begin(mail):
            engine = self.engine
            transaction: WriteTransaction | None = None
            self._running_long = True
            try:
                transaction = engine.begin(raw=mail.raw, long=True)
                try:
                    with trio.CancelScope(shield=True), collector_paused():
                        mail.result = await self._threads.run(partial(mail.run, transaction))
                    engine.commit(transaction)
                except BaseException:
                    engine.rollback(transaction)
                    raise
            except Exception as error:
                self._failed += 1
                self._refused(mail, error)
                if transaction is not None and transaction.doomed:
                    mail.fail(
                        ResourceExhausted(
                            "The disk is full: what this was built on could not be written. "
                            "Nothing was changed."
                        )
                    )
            finally:
                self._running_long = False
            self._waiting.append(mail)
        self._ship()

    # -- becoming durable -----------------------------------------------------------------------

    def _ship(self) -> None:
        """Send the open group to the log thread, unless one is on its way."""
        if self._in_flight is not None or self._stalled is not None or self._running_long:
            return
        if not self._waiting:
            return
        mails, self._waiting = self._waiting, []
        if self.engine.failed is not None:
            # What they did, or saw, is not written and never will be.
            _fail(mails, self.engine.read_only())
            return
        group = self.engine.seal()
        if group is None:
            # Nothing was changed, and what was read is durable.
            for mail in mails:
                mail.end()
            return
        self._send(group, mails)

    def _send(self, group: Group, mails: list[Mail]) -> None:
        if self.engine.log.room_bytes() < group.size_bytes + 4096 * (2 + len(group.transactions)):
            self._stall(group, mails)
            return
        self._in_flight = mails
        self._sent_at = time.perf_counter()
        self._log_thread.submit(
            lambda: self.engine.append(group),
            lambda position, error: self._landed(group, mails, position, error),
        )

    def _stall(self, group: Group, mails: list[Mail]) -> None:
        self._stalls += 1
        self._stalled = (group, mails)
        self.need_checkpoint(True)

    def _landed(
        self, group: Group, mails: list[Mail], position: Any, error: BaseException | None
    ) -> None:
        """The log thread is done with a group (on the event loop, where nothing may be raised)."""
        self._in_flight = None
        if isinstance(error, ResourceExhausted) and self.engine.short_of_space:
            # Nothing was written. A checkpoint may make room; if it does not, `poke` refuses.
            self._stall(group, mails)
            return
        if error is None:
            try:
                self.engine.publish(group, position)
            except Exception as fault:
                log.exception("publishing a group failed; the store is read-only now")
                error = fault
        if error is not None:
            self._not_landed(mails, error)
            return
        self._groups += 1
        self._transactions += len(group.transactions)
        self._group_last = len(group.transactions)
        self._commit_durations.observe(time.perf_counter() - self._sent_at)
        self._group_transactions.observe(len(group.transactions))
        self._group_sizes.observe(group.size_bytes)
        self.published()
        for mail in mails:
            mail.end()
        if self.engine.checkpoint_due():
            self.need_checkpoint(False)
        if self._waiting or self._mailbox or self._stopping:
            self._landed_just_now = True
            self._wake()

    def _not_landed(self, mails: list[Mail], error: BaseException) -> None:
        if isinstance(error, ResourceExhausted):
            # Nothing was written: undo this group, and what was built on it.
            self.engine.abandon()
            mails += self._waiting
            self._waiting = []
            # An error of their own, too, may rest on what is undone now.
            _fail(mails, ResourceExhausted(error.message))
            self._wake()
            return
        log.error("writing the log failed; the store is read-only now", error=str(error))
        self.engine.fail(error)
        unknown = OutcomeUnknown(
            "Writing the log failed while this was on its way: it may or may not have been "
            "applied. Look after the server was restarted."
        )
        _fail(mails, unknown)
        waiting, self._waiting = self._waiting, []
        _fail(waiting, self.engine.read_only())
        self._fail_queued(self.engine.read_only())
        self._wake()

    def _fail_queued(self, error: TreeStoreError) -> None:
        while self._mailbox:
            mail = self._mailbox.popleft()
            if mail.state != TAKEN_BACK:
                mail.fail(error)
                mail.end()
        self._mailbox_bytes = 0
        if self._room:
            self._room.unpark_all()

    def poke(self, *, checkpoint_failed: bool = False) -> None:
        """A checkpoint ended: try again what waited for room in the log."""
        if self._stalled is not None:
            group, mails = self._stalled
            self._stalled = None
            if checkpoint_failed:
                self._not_landed(
                    mails,
                    ResourceExhausted(
                        "There is no room for more log, and no checkpoint can make any; nothing "
                        "was changed. Delete something, free some space on the disk, or where the "
                        "log is archived (admin.health says so) make the archive writable."
                    ),
                )
                return
            self._send(group, mails)
        self._wake()

    # -- the end --------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Take nothing more, finish everything that was handed in, and end `run`."""
        self._stopping = True
        self._wake()
        with trio.CancelScope(shield=True):
            await self.stopped.wait()

    def statistics(self) -> WriterStatistics:
        """The counters now."""
        return WriterStatistics(
            len(self._mailbox),
            self._mailbox_bytes,
            self._commands,
            self._failed,
            self._groups,
            self._transactions,
            self._group_last,
            self._stalls,
            self._stalled is not None,
            self._group_transactions.snapshot(),
            self._group_sizes.snapshot(),
            self._commit_durations.snapshot(),
        )


def _fail(mails: list[Mail], error: TreeStoreError) -> None:
    for mail in mails:
        mail.fail(error)
        mail.end()


def _presentable(error: Exception) -> Exception:
    """A `TreeStoreError` as it is; anything else too, but logged: it is a fault of ours or of
    the embedding program's own function."""
    if isinstance(error, OSError):
        return Unavailable(f"Reading the store failed: {error}.")
    return error
