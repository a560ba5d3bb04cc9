"""A command in the writer's mailbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import trio

from treestore.engine.transaction import WriteTransaction
from treestore.histogram import HistogramSnapshot

QUEUED, BEGUN, ENDED, TAKEN_BACK = range(4)

NO_ARGUMENTS: Mapping[str, Any] = {}


class Mail:
    """One command and where it stands. What is run, and who is told, subclasses say.

    Whoever is told must not be led to keep the mail: the two would hold each other, and so what
    hangs on every command would wait for the garbage collector (a fifth of a put's time).
    """

    __slots__ = ("deadline", "error", "long", "raw", "result", "size", "state")

    moves: ClassVar[bool] = False
    """Whether it moves pages and changes no key."""

    def __init__(self, size: int, deadline: float | None, long: bool, raw: bool) -> None:
        self.size = size
        """Bytes that it occupies while it waits."""
        self.deadline = deadline
        self.long = long
        """Run it on a thread: it takes more than a moment."""
        self.raw = raw
        """Its results go to the wire."""
        self.state = QUEUED
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, transaction: WriteTransaction) -> Any:
        """Do what the command does."""
        raise NotImplementedError

    def report(self) -> None:
        """Tell of ``result`` or ``error``. Called once, on the event loop; never raises."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """It is not done, or undone; before any other command is run. It ends later."""
        self.result, self.error = None, error

    def cancel(self) -> bool:
        """Take it back: True where the writer had not begun it."""
        if self.state == QUEUED:
            self.state = TAKEN_BACK
            return True
        return False

    def end(self) -> None:
        """Report the outcome."""
        self.state = ENDED
        self.report()


class Call(Mail):
    """A command whose caller waits for it in `Writer.execute`.

    Args:
        function: called with the transaction, ``args`` and ``kwargs``.
        on_failure: called when it failed; see `Mail.fail`.
    """

    __slots__ = ("_args", "_function", "_kwargs", "_on_failure", "_task")

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] = NO_ARGUMENTS,
        *,
        size: int = 0,
        deadline: float | None = None,
        long: bool = False,
        raw: bool = False,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        # What `Mail.__init__` does: the call is a part of what a small command costs.
        self.size = size
        self.deadline = deadline
        self.long = long
        self.raw = raw
        self.state = QUEUED
        self.result = None
        self.error = None
        self._on_failure = on_failure
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._task: trio.lowlevel.Task | None = None

    def run(self, transaction: WriteTransaction) -> Any:
        """See `Mail.run`."""
        return self._function(transaction, *self._args, **self._kwargs)

    def fail(self, error: Exception) -> None:
        """See `Mail.fail`."""
        super().fail(error)
        if self._on_failure is not None:
            self._on_failure()

    def report(self) -> None:
        """See `Mail.report`."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def outcome(self) -> Any:
        """Wait until it ended; returns its result or raises its error.

        Cancelled, it takes itself back where it was not begun.
        """
        if self.state != ENDED:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abandon)
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self.result

    def _abandon(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self.cancel()
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class MovesCall(Call):
    """A step of a compaction: see `Engine.begin`."""

    __slots__ = ()

    moves = True


@attrs.frozen
class WriterLimits:
    """Bounds on what waits and on what becomes durable together."""

    mailbox_count_max: int = 4096
    mailbox_size_bytes_max: int = 256 << 20
    group_count_max: int = 2048
    group_size_bytes_max: int = 8 << 20
    """A group is closed when it is this large; a single larger transaction is a group alone."""
    slice_s: float = 0.001
    """After this much work in one go the writer lets other tasks run."""


@attrs.frozen
class WriterStatistics:
    """A snapshot of the writer's counters."""

    waiting: int
    waiting_bytes: int
    commands: int
    failed_commands: int
    groups: int
    transactions: int
    group_size_last: int
    stalls: int
    """How often it waited for a checkpoint to make room in the log."""
    stalled: bool
    """Whether it waits for that now."""
    group_transactions: HistogramSnapshot
    """Transactions in each group."""
    group_sizes_bytes: HistogramSnapshot
    """Payload of each group."""
    commit_durations: HistogramSnapshot
    """Seconds from handing a group to the log thread until it was durable."""
