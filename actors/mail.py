"""A command in the writer's mailbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from treestore.engine.transaction import WriteTransaction

Outcome = Callable[[Any, Exception | None], None]
"""Called once on the event loop with the command's result or its error; never raises."""

QUEUED, BEGUN, ENDED, TAKEN_BACK = range(4)


class Mail:
    """One command: what to run, whom to tell, and where it stands."""

    __slots__ = ("deadline", "error", "long", "outcome", "raw", "result", "run", "size", "state")

    def __init__(
        self,
        run: Callable[[WriteTransaction], Any],
        outcome: Outcome,
        *,
        size: int = 0,
        deadline: float | None = None,
        long: bool = False,
        raw: bool = False,
    ) -> None:
        self.run = run
        self.outcome = outcome
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

    def cancel(self) -> bool:
        """Take it back: True where the writer had not begun it."""
        if self.state == QUEUED:
            self.state = TAKEN_BACK
            return True
        return False

    def end(self) -> None:
        """Report the outcome."""
        self.state = ENDED
        self.outcome(self.result, self.error)


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
