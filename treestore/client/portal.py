"""An event loop on a thread of its own, and ways for other threads to have it do something.

The blocking client is the asyncio client behind a portal. Blocking sockets in the caller's thread
would answer a lonely call in about 50 µs less (no thread is woken twice), but nobody would answer
the server's pings while the program computes: a snapshot, a transaction or a watch that is open
during one slow step of the program would be lost. It also makes every thread's calls share the same
few connections, as tasks do.

Resource handling: `Portal` starts the thread and opens what it serves; `stop` closes that and ends
the thread. The thread is a daemon, so it never keeps a program from ending; what is open then is
closed by `atexit`, within a bounded time.

Error handling: what the coroutine raised is raised in the calling thread, as it is. A call that is
interrupted there (`KeyboardInterrupt`) is cancelled on the loop. After `stop`, and in a forked
process, calls raise `Unavailable`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from treestore.client.pool import CLOSED
from treestore.errors import Unavailable

T = TypeVar("T")

EXIT_S = 2.0
"""How long the end of a program waits for its clients to close."""


class _Outcome:
    """What a thread waits for and the loop's thread provides."""

    __slots__ = ("_error", "_ready", "_value")

    def __init__(self) -> None:
        # A bare lock: the cheapest thing that one thread can wait on and another let go, and
        # signals interrupt it.
        self._ready = threading.Lock()
        self._ready.acquire()
        self._value: Any = None
        self._error: BaseException | None = None

    def set(self, value: Any, error: BaseException | None = None) -> None:
        """Provide it; what comes later is ignored."""
        if self._ready.locked():
            self._value, self._error = value, error
            self._ready.release()

    def wait(self) -> Any:
        """Return the value or raise the error once it is there. Once only."""
        self._ready.acquire()
        error = self._error
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error, self  # The traceback refers to this frame.


class _Call:
    """One coroutine to run on the loop, and its outcome."""

    __slots__ = ("_arguments", "_function", "_task", "done", "outcome")

    def __init__(
        self, function: Callable[..., Coroutine[Any, Any, Any]], arguments: tuple[Any, ...]
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._task: asyncio.Task[Any] | None = None
        self.outcome = _Outcome()
        self.done: Callable[[], None] | None = None
        """Called on the loop once it has ended."""

    def start(self, tasks: set[asyncio.Task[Any]]) -> None:
        """On the loop: begin."""
        self._task = task = asyncio.get_running_loop().create_task(self._function(*self._arguments))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        if self.done is not None:
            self.done()
        if task.cancelled():
            self.outcome.set(None, Unavailable(CLOSED))
            return
        error = task.exception()
        self.outcome.set(None if error is not None else task.result(), error)

    def abandon(self) -> None:
        """On the loop: nobody waits for it any more."""
        if self._task is not None:
            self._task.cancel()


class _Held(Generic[T]):
    """An async context manager that one task of the loop enters and leaves."""

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager
        self._leaving: asyncio.Future[BaseException | None] | None = None
        self.entered = _Outcome()

    async def live(self) -> bool | None:
        """Enter it, wait for `leave`, and leave it; what its exit says of the exception."""
        try:
            value = await self._manager.__aenter__()
        except BaseException as error:
            # Cancelled: the thread is gone, or the client is closed.
            self.entered.set(None, error if isinstance(error, Exception) else Unavailable(CLOSED))
            raise
        self._leaving = asyncio.get_running_loop().create_future()
        self.entered.set(value)
        try:
            error_of_block = await self._leaving
        except asyncio.CancelledError as cancelled:
            await self._exit(cancelled)
            raise
        return await self._exit(error_of_block)

    async def _exit(self, error: BaseException | None) -> bool | None:
        traceback: TracebackType | None = None if error is None else error.__traceback__
        kind = None if error is None else type(error)
        return await self._manager.__aexit__(kind, error, traceback)

    def leave(self, error: BaseException | None) -> None:
        """On the loop: the block ended, with this exception."""
        if self._leaving is not None and not self._leaving.done():
            self._leaving.set_result(error)


class Portal(Generic[T]):
    """A loop on a thread of its own, with what was opened on it."""

    def __init__(self, manager: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._pid = os.getpid()
        self._manager = manager
        # Not by way of the policy, which another library may have replaced.
        self._loop = asyncio.SelectorEventLoop()
        self._stop = asyncio.Event()
        # Reentrant: while one thread submits, the collector may run a finalizer that submits.
        self._lock = threading.RLock()
        self._accepts = True
        self._tasks: set[asyncio.Task[Any]] = set()
        opened = _Outcome()
        self._thread = threading.Thread(
            target=self._work, args=(opened,), name="treestore-client", daemon=True
        )
        self._thread.start()
        try:
            self.opened: T = opened.wait()
        except BaseException:
            self.stop(wait=False)
            raise
        _open_portals.add(self)

    def _work(self, opened: _Outcome) -> None:
        try:
            self._loop.run_until_complete(self._live(opened))
        except BaseException as error:  # noqa: ASYNC103 - raised where it is waited for
            opened.set(None, error)
        finally:
            with self._lock:
                self._accepts = False
            self._loop.close()

    async def _live(self, opened: _Outcome) -> None:
        try:
            async with self._manager() as value:
                opened.set(value)
                await self._stop.wait()
        finally:
            # Calls under way have been answered by the closing; what is left are blocks that
            # nobody left.
            await asyncio.sleep(0)
            with self._lock:
                self._accepts = False
            await asyncio.sleep(0)  # What was accepted until then begins, and fails.
            while tasks := list(self._tasks):
                await asyncio.wait(tasks, timeout=0.1)
                for task in tasks:
                    task.cancel()

    # --- for other threads -------------------------------------------------------------------

    def run(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        """Run ``function(*arguments)`` on the loop; returns or raises what it does."""
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError("A finalizer that the client's own thread runs cannot wait for it.")
        call = _Call(function, arguments)
        try:
            self._submit(call.start, self._tasks)
            return call.outcome.wait()
        except BaseException as error:
            if not isinstance(error, Exception):  # Interrupted, here in this thread.
                self.post(call.abandon)
            raise

    @contextmanager
    def hold(
        self, manager: AbstractAsyncContextManager[Any], *, commits: bool = False
    ) -> Generator[Any]:
        """An async context manager of the loop, as one of the calling thread.

        Args:
            commits: leaving it without an exception does something, which must not be left out
                in silence where the client was closed meanwhile.
        """
        held = _Held(manager)
        call = _Call(held.live, ())
        call.done = partial(held.entered.set, None, Unavailable(CLOSED))
        try:
            self._submit(call.start, self._tasks)
            value = held.entered.wait()
        except BaseException:
            # Interrupted while it opens, or after: let go of what is open, or will be.
            self.post(call.abandon)
            raise
        try:
            yield value
        except GeneratorExit:  # Nobody will ever leave the block.
            self.post(call.abandon)
            raise
        except BaseException as error:  # noqa: ASYNC103 - not async
            # An exit that is done with the exception says so; else it raised it, or another.
            if not self._leave(held, call, error, quiet=True):
                raise
        else:
            self._leave(held, call, None, quiet=not commits)

    def _leave(
        self, held: _Held[Any], call: _Call, error: BaseException | None, *, quiet: bool
    ) -> bool:
        try:
            self._submit(held.leave, error)
        except Unavailable:  # The client was closed, and with it the block left.
            if quiet:
                return False
            raise
        try:
            return bool(call.outcome.wait())
        except BaseException as raised:
            if not isinstance(raised, Exception) and raised is not error:
                self.post(call.abandon)
            raise

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the loop call ``function(*arguments)`` soon, if it still runs. Never waits."""
        try:
            self._submit(function, *arguments)
        except Unavailable:
            pass

    def _submit(self, function: Callable[..., object], *arguments: Any) -> None:
        if os.getpid() != self._pid:
            raise Unavailable(
                f"This client was opened by process {self._pid}, of which this one is a fork; "
                "open one of its own here."
            )
        with self._lock:
            if not self._accepts:
                raise Unavailable(CLOSED)
            self._loop.call_soon_threadsafe(function, *arguments)

    def stop(self, *, wait: bool = True, timeout_s: float | None = None) -> None:
        """Close what was opened and end the thread; harmless where that happened before.

        Args:
            wait: return once the thread has ended.
            timeout_s: wait no longer than this; None: as long as it takes.
        """
        if os.getpid() != self._pid:
            return
        self.post(self._stop.set)
        if wait and threading.get_ident() != self._thread.ident:
            self._thread.join(timeout_s)


_open_portals: weakref.WeakSet[Portal[Any]] = weakref.WeakSet()


def _close_at_exit() -> None:
    for portal in list(_open_portals):
        portal.stop(wait=False)
    for portal in list(_open_portals):
        portal.stop(timeout_s=EXIT_S)


atexit.register(_close_at_exit)
