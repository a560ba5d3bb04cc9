"""What the client needs of an event loop: a clock, events, sleep, tasks and connections.

The client's rules (pool, retries, streams, snapshots) are written once, as coroutines over this
interface. There are two of it, `TrioRuntime` and `AsyncioRuntime`; the blocking client runs the
latter on a thread of its own.

Why not anyio: these few functions are all that is needed. anyio would be one more dependency of
every program, its scopes and events cost 2 to 5 µs each on top of asyncio's own (an event that is
set already: 3.9 µs in place of 0.4), and on asyncio they cancel again and again where asyncio
programs expect `Task.cancel` to cancel once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from treestore.client.calls import Sequencer
from treestore.client.connection import AnyConnection, Target


class Event(Protocol):
    """Set once; whoever waits goes on then. `trio.Event` and `asyncio.Event` are such."""

    def set(self) -> None:
        """Let everybody go on."""
        ...

    def is_set(self) -> bool:
        """Whether `set` was called."""
        ...

    async def wait(self) -> object:
        """Return once it is set."""
        ...


class Tasks(Protocol):
    """Tasks that run in the background of a ``with`` block."""

    def start(self, run: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run ``run(*args)``, which must raise nothing but the loop's cancellation."""
        ...


class Runtime(Protocol):
    """An event loop, as the client sees it."""

    @property
    def now(self) -> Callable[[], float]:
        """The loop's clock, in seconds; deadlines are times of it."""
        ...

    def inside(self) -> bool:
        """Whether the caller is run by this loop at this moment."""
        ...

    def event(self) -> Event:
        """A new event that is not set."""
        ...

    async def wait(self, event: Event, deadline: float) -> bool:
        """Wait for ``event``; False where the deadline came first."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Do nothing for so long."""
        ...

    async def checkpoint(self) -> None:
        """Let others run, and be cancelled."""
        ...

    async def give_way(self) -> None:
        """Let others run; where the caller is cancelled meanwhile it learns of that later."""
        ...

    def background(self) -> AbstractAsyncContextManager[Tasks]:
        """Tasks that are cancelled, and waited for, where the block ends.

        What the block raises goes through as it is, never in a group.
        """
        ...

    async def connect(
        self, target: Target, sequencer: Sequencer, timeout_s: float
    ) -> AnyConnection:
        """Connect and say hello, within ``timeout_s`` seconds.

        Raises:
            Unavailable: the server cannot be reached or did not answer properly.
            TreeStoreError: the server refused (`Unauthenticated`, `ResourceExhausted`, …).
        """
        ...


def current_runtime() -> Runtime:
    """The runtime of the event loop that runs the caller; trio first, where it runs on top of
    asyncio (guest mode).

    Raises:
        RuntimeError: neither trio nor asyncio runs the caller.
    """
    # Only a loop whose library is loaded can be running: an asyncio program never loads trio.
    if (trio := sys.modules.get("trio")) is not None and trio.lowlevel.in_trio_task():
        from treestore.client.trio_runtime import TrioRuntime

        return TrioRuntime()
    if (asyncio := sys.modules.get("asyncio")) is not None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            from treestore.client.asyncio_runtime import AsyncioRuntime

            return AsyncioRuntime(running)
    raise RuntimeError(
        "treestore.connect works in a trio or an asyncio program, inside of trio.run or "
        "asyncio.run; everywhere else use treestore.connect_sync."
    )
