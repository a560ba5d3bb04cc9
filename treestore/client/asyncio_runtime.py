"""The client's `Runtime` on asyncio, and on whatever implements its loop (uvloop)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from treestore.client.asyncio_connection import AsyncioConnection
from treestore.client.calls import Sequencer
from treestore.client.connection import Target
from treestore.client.runtime import Event, Tasks
from treestore.errors import Unavailable


class _Tasks:
    """Not an `asyncio.TaskGroup`, which would cancel the block when a task fails."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: set[asyncio.Task[None]] = set()

    def start(self, run: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        task = self._loop.create_task(run(*args))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def end(self) -> None:
        """Cancel them and wait for them, however often the caller is cancelled meanwhile."""
        cancelled: asyncio.CancelledError | None = None
        while self._running:
            try:
                # A task that is cancelled before it has begun never runs at all, and what was
                # handed to it would never be closed.
                await asyncio.sleep(0)
                for task in self._running:
                    task.cancel()
                if self._running:
                    await asyncio.wait(list(self._running))
            except asyncio.CancelledError as error:  # noqa: ASYNC103 - raised in the end
                cancelled = error
        if cancelled is not None:
            raise cancelled


class AsyncioRuntime:
    """See `treestore.client.runtime.Runtime`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now: Callable[[], float] = loop.time

    def inside(self) -> bool:
        """Whether the caller is run by this loop at this moment."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def event(self) -> Event:
        """A new event that is not set."""
        return asyncio.Event()

    async def wait(self, event: Event, deadline: float) -> bool:
        """Wait for ``event``; False where the deadline came first."""
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                await event.wait()
        except TimeoutError:
            return False
        return True

    async def sleep(self, seconds: float) -> None:
        """Do nothing for so long."""
        await asyncio.sleep(seconds)

    async def checkpoint(self) -> None:
        """Let others run, and be cancelled."""
        await asyncio.sleep(0)

    async def give_way(self) -> None:
        """Let others run; where the caller is cancelled meanwhile it learns of that later."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:  # noqa: ASYNC103 - told later
            task = asyncio.current_task()
            assert task is not None
            self._loop.call_soon(task.cancel)  # Once it waits again.

    @asynccontextmanager
    async def background(self) -> AsyncGenerator[Tasks, None]:
        """Tasks that are cancelled, and waited for, where the block ends."""
        tasks = _Tasks(self._loop)
        try:
            yield tasks
        finally:
            await tasks.end()

    async def connect(
        self, target: Target, sequencer: Sequencer, timeout_s: float
    ) -> AsyncioConnection:
        """Connect and say hello, within ``timeout_s`` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                return await AsyncioConnection.open(target, sequencer)
        except TimeoutError:
            raise Unavailable(f"{target.where} did not answer the hello.") from None
