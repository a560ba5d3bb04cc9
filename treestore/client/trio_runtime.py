"""The client's `Runtime` on trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import trio

from treestore.client.calls import Sequencer
from treestore.client.connection import Target
from treestore.client.runtime import Event, Tasks
from treestore.client.trio_connection import TrioConnection
from treestore.errors import Unavailable


class _Tasks:
    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start(self, run: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._nursery.start_soon(run, *args)


class TrioRuntime:
    """See `treestore.client.runtime.Runtime`."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self.now: Callable[[], float] = trio.current_time

    def inside(self) -> bool:
        """Whether the caller is run by this loop at this moment."""
        try:
            return trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            return False

    def event(self) -> Event:
        """A new event that is not set."""
        return trio.Event()

    async def wait(self, event: Event, deadline: float) -> bool:
        """Wait for ``event``; False where the deadline came first."""
        with trio.move_on_at(deadline) as scope:
            await event.wait()
        return not scope.cancelled_caught

    async def sleep(self, seconds: float) -> None:
        """Do nothing for so long."""
        await trio.sleep(seconds)

    async def checkpoint(self) -> None:
        """Let others run, and be cancelled."""
        await trio.lowlevel.checkpoint()

    async def give_way(self) -> None:
        """Let others run; where the caller is cancelled meanwhile it learns of that later."""
        await trio.lowlevel.cancel_shielded_checkpoint()

    @asynccontextmanager
    async def background(self) -> AsyncGenerator[Tasks, None]:
        """Tasks that are cancelled, and waited for, where the block ends."""
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    yield _Tasks(nursery)
                except BaseException as error:
                    failure = error
                    raise
                finally:
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup:
            # The nursery wraps what the block raised; the tasks themselves raise nothing.
            if failure is None:
                raise
        if failure is not None:
            raise failure

    async def connect(
        self, target: Target, sequencer: Sequencer, timeout_s: float
    ) -> TrioConnection:
        """Connect and say hello, within ``timeout_s`` seconds."""
        with trio.move_on_after(timeout_s):
            return await TrioConnection.open(target, sequencer)
        raise Unavailable(f"{target.where} did not answer the hello.")
