"""The one seam to threads: who runs what would hold up the event loop.

`WorkerThreads` is what runs; a simulation puts its own in place, which runs the same work at
moments that a seed decides. Nothing else in this package starts a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import trio

from actors.log_thread import Done, LogThread
from actors.side_by_side import SideBySide, processor_count
from treestore.search.together import Together

T = TypeVar("T")


class JobThread(Protocol):
    """One thread that runs jobs strictly one after the other; see `LogThread`."""

    def submit(self, job: Callable[[], Any], done: Done) -> None:
        """Run ``job`` after those submitted before; ``done`` follows on the event loop."""
        ...

    async def stop(self) -> None:
        """Let the submitted jobs finish, then end the thread."""
        ...


class Threads(Protocol):
    """Runs work beside the event loop."""

    async def run(self, job: Callable[[], T], *, limiter: trio.CapacityLimiter | None = None) -> T:
        """Run ``job`` on a thread and return what it returns, or raise what it raises.

        Cancellation: waits for the job, which cannot be interrupted; but it may ask
        `check_cancelled`.
        """
        ...

    def check_cancelled(self) -> None:
        """Raise `trio.Cancelled` in a job whose caller was cancelled, or is past its deadline."""
        ...

    @property
    def together(self) -> Together:
        """Runs jobs of a job on several threads, where processors are idle."""
        ...

    def log_thread(self) -> JobThread:
        """A thread of its own for a database's log; whoever asks for it stops it."""
        ...


class WorkerThreads:
    """Implements `Threads` with trio's pool of threads."""

    def __init__(self) -> None:
        self._side_by_side = SideBySide(processor_count())

    async def run(self, job: Callable[[], T], *, limiter: trio.CapacityLimiter | None = None) -> T:
        """See `Threads.run`."""
        return await trio.to_thread.run_sync(job, limiter=limiter)

    def check_cancelled(self) -> None:
        """See `Threads.check_cancelled`."""
        trio.from_thread.check_cancelled()

    @property
    def together(self) -> Together:
        """See `Threads.together`."""
        return self._side_by_side

    def log_thread(self) -> JobThread:
        """See `Threads.log_thread`."""
        return LogThread()


WORKER_THREADS = WorkerThreads()
