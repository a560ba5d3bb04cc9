"""Threads that are none: work beside the event loop, in slices that the seed decides.

A job runs in a greenlet. At each step that it takes on the disk, and wherever the engine offers a
pause, it may be put aside for a while of virtual time; the event loop, and other jobs, go on
meanwhile. So a checkpoint, a sync and a long command are interleaved with commands, reads and
publishing as they are with real threads, but in an order that can be had again.

The engine holds none of its locks over a step on the disk, so nothing can wait for a job that was
put aside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar, cast

import greenlet
import trio

from actors.log_thread import Done
from treestore.search.together import Together, one_by_one

T = TypeVar("T")

ASIDE_CHANCE = 0.5
"""How likely a job is put aside where it can be."""


class SimulatedThreads:
    """Implements `actors.threads.Threads`.

    Args:
        nursery: outlives the database; log threads run in it.
        random: decides how long everything takes.
    """

    def __init__(self, nursery: trio.Nursery, random: Random) -> None:
        self._nursery = nursery
        self._random = random
        self._loop = greenlet.getcurrent()
        self.slow = 1.0
        """Factor on all times: a disk, or a machine, that is busy with something else."""

    def pause(self) -> None:
        """Where a job may be put aside; does nothing on the event loop."""
        if greenlet.getcurrent() is not self._loop and self._random.random() < ASIDE_CHANCE:
            self._loop.switch()

    async def run(self, job: Callable[[], T], *, limiter: trio.CapacityLimiter | None = None) -> T:
        """See `Threads.run`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if limiter is None:
            return await self.run_to_end(job)
        async with limiter:
            return await self.run_to_end(job)

    def check_cancelled(self) -> None:
        """See `Threads.check_cancelled`. Jobs here run to their end, whatever is cancelled."""

    @property
    def together(self) -> Together:
        """See `Threads.together`. A job does all by itself here."""
        return one_by_one

    async def run_to_end(self, job: Callable[[], T]) -> T:
        """Run a job slice by slice, whatever is cancelled."""
        result: Any = None
        with trio.CancelScope(shield=True):
            worker = greenlet.greenlet(job)
            while not worker.dead:
                await trio.sleep(self._duration_s())
                result = worker.switch()
            await trio.sleep(self._duration_s())
        return cast("T", result)

    def _duration_s(self) -> float:
        random = self._random
        if random.random() < 0.4:
            return 0.0
        return self.slow * random.choice((1e-5, 1e-4, 1e-4, 1e-3, 1e-2)) * random.random()

    def log_thread(self) -> SimulatedLogThread:
        """See `Threads.log_thread`."""
        thread = SimulatedLogThread(self)
        self._nursery.start_soon(thread.serve)
        return thread


class SimulatedLogThread:
    """Implements `actors.threads.JobThread` with a task."""

    def __init__(self, threads: SimulatedThreads) -> None:
        self._threads = threads
        self._jobs: deque[tuple[Callable[[], Any], Done]] = deque()
        self._wake = trio.Event()
        self._stopping = False
        self._ended = trio.Event()

    def submit(self, job: Callable[[], Any], done: Done) -> None:
        """See `JobThread.submit`."""
        if self._stopping:
            raise AssertionError("the log thread was stopped")
        self._jobs.append((job, done))
        self._wake.set()

    async def serve(self) -> None:
        """Run jobs until `stop`."""
        try:
            while self._jobs or not self._stopping:
                if self._jobs:
                    await self._run(*self._jobs.popleft())
                else:
                    self._wake = trio.Event()
                    await self._wake.wait()
        finally:
            self._ended.set()

    async def _run(self, job: Callable[[], Any], done: Done) -> None:
        try:
            result = await self._threads.run_to_end(job)
        except Exception as error:
            done(None, error)
        else:
            done(result, None)

    async def stop(self) -> None:
        """See `JobThread.stop`."""
        self._stopping = True
        self._wake.set()
        with trio.CancelScope(shield=True):
            await self._ended.wait()
