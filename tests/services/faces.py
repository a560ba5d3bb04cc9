"""Every way of reaching a database, as trio's tests see it.

The asyncio client runs on a loop in a thread of its own, the blocking one in worker threads. What
a test awaits is handed over, and its answer or error handed back: streams, snapshots and
transactions too. A cancelled call is cancelled over there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import trio

import treestore
from treestore.stores.operation import Service

STREAMS = ("watch",)
"""Methods of a database that give a stream."""

MANAGERS = ("snapshot", "transaction")
"""Methods of a database that give a context manager."""


class There:
    """Where a client runs that is not on trio."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.token = trio.lowlevel.current_trio_token()

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What ``function`` gives over there, awaited if need be."""
        raise NotImplementedError

    async def step(self, stream: Any, method: str) -> Any:
        """Call one of a stream's methods; `StopAsyncIteration` at its end."""
        raise NotImplementedError

    async def enter(self, manager: Any) -> Any:
        """Enter a context manager."""
        raise NotImplementedError

    async def leave(self, manager: Any, error: BaseException | None) -> bool:
        """Leave it; whether it took care of the error."""
        raise NotImplementedError

    def handed_back(self, function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Any]:
        """A function for over there that runs the test's ``function`` here."""
        raise NotImplementedError

    def _run_here(
        self, function: Callable[[Any], Awaitable[Any]], argument: Any
    ) -> concurrent.futures.Future[Any]:
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()

        async def run() -> None:
            try:
                answer.set_result(await function(Forwarded(self, argument)))
            except BaseException as error:  # noqa: ASYNC103 - raised elsewhere
                answer.set_exception(error)
                if not isinstance(error, Exception):
                    raise

        self.token.run_sync_soon(self.nursery.start_soon, run)
        return answer


class Forwarded:
    """A database, a snapshot, a transaction or a service over there."""

    def __init__(self, there: There, target: Any) -> None:
        self._there = there
        self._target = target

    def __getattr__(self, name: str) -> Any:
        there, found = self._there, getattr(self._target, name)
        if isinstance(found, Service):
            return Forwarded(there, found)
        if not callable(found):
            return found
        operation = getattr(getattr(type(self._target), name, None), "operation", None)
        if name in MANAGERS:
            return lambda *args, **kwargs: entered(there, found(*args, **kwargs))
        if name in STREAMS or (operation is not None and operation.kind == "stream"):
            return lambda *args, **kwargs: ForwardedStream(there, found(*args, **kwargs))

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name == "run_transaction":
                args = (there.handed_back(args[0]), *args[1:])
            return await there.call(found, *args, **kwargs)

        return call


@asynccontextmanager
async def entered(there: There, manager: Any) -> AsyncGenerator[Forwarded]:
    """A context manager over there, as one here."""
    target = Forwarded(there, await there.enter(manager))
    try:
        yield target
    except BaseException as error:  # noqa: ASYNC103 - the manager took care of it
        with trio.CancelScope(shield=True):
            if not await there.leave(manager, error):
                raise
    else:
        await there.leave(manager, None)


class ForwardedStream:
    """A stream over there."""

    def __init__(self, there: There, stream: Any) -> None:
        self._there = there
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await self._there.step(self._stream, "next")

    @property
    def position(self) -> Any:
        """A feed's."""
        return self._stream.position

    async def __aenter__(self) -> ForwardedStream:
        await self._there.step(self._stream, "enter")
        return self

    async def __aexit__(self, *_exception: object) -> None:
        with trio.CancelScope(shield=True):
            await self._there.step(self._stream, "exit")


class OnAsyncio(There):
    """An asyncio loop on another thread."""

    def __init__(self, nursery: trio.Nursery, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(nursery)
        self.loop = loop

    async def awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        done = trio.Event()

        def tell(_future: object) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                self.token.run_sync_soon(done.set)

        future.add_done_callback(tell)
        try:
            await done.wait()
        except trio.Cancelled:
            future.cancel()
            raise
        return future.result()

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async def there() -> Any:
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return await self.awaited(there())

    async def step(self, stream: Any, method: str) -> Any:
        if method == "exit":
            return await self.awaited(stream.__aexit__(None, None, None))
        return await self.awaited(getattr(stream, f"__a{method}__")())

    async def enter(self, manager: Any) -> Any:
        return await self.awaited(manager.__aenter__())

    async def leave(self, manager: Any, error: BaseException | None) -> bool:
        traceback = None if error is None else error.__traceback__
        kind = None if error is None else type(error)
        return bool(await self.awaited(manager.__aexit__(kind, error, traceback)))

    def handed_back(self, function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Any]:
        async def run(argument: Any) -> Any:
            return await asyncio.wrap_future(self._run_here(function, argument))

        return run


class Waiting:
    """A thread that waits for a stream's next item."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.item: Any = None
        self.error: BaseException | None = None


class InThreads(There):
    """Worker threads, each of which makes one blocking call."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.limiter = trio.CapacityLimiter(200)
        self._waiting: dict[Any, Waiting] = {}

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await trio.to_thread.run_sync(
            lambda: function(*args, **kwargs), abandon_on_cancel=True, limiter=self.limiter
        )

    async def step(self, stream: Any, method: str) -> Any:
        if method == "exit":
            return await self.call(stream.__exit__, None, None, None)
        if method == "enter":
            return await self.call(stream.__enter__)
        # A thread that waits cannot be cancelled: whoever asks next gets what it was given.
        waiting = self._waiting.get(stream)
        if waiting is None:
            waiting = self._waiting[stream] = Waiting()
            self.nursery.start_soon(self._next, stream, waiting)
        await waiting.done.wait()
        self._waiting.pop(stream, None)
        if waiting.error is not None:
            raise waiting.error
        return waiting.item

    async def _next(self, stream: Any, waiting: Waiting) -> None:
        end = object()
        try:
            waiting.item = await self.call(next, stream, end)
        except Exception as error:
            waiting.error = error
        if waiting.item is end:
            waiting.error = StopAsyncIteration()
        waiting.done.set()

    async def enter(self, manager: Any) -> Any:
        return await self.call(manager.__enter__)

    async def leave(self, manager: Any, error: BaseException | None) -> bool:
        traceback = None if error is None else error.__traceback__
        kind = None if error is None else type(error)
        return bool(await self.call(manager.__exit__, kind, error, traceback))

    def handed_back(self, function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Any]:
        return lambda argument: self._run_here(function, argument).result()


@asynccontextmanager
async def nursery_here() -> AsyncGenerator[trio.Nursery]:
    """A nursery that wraps nothing: what the block raises goes through as it is."""
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                failure = error
                raise
    except BaseExceptionGroup:
        if failure is None:
            raise
    if failure is not None:
        raise failure


@asynccontextmanager
async def asyncio_client(address: str, **options: Any) -> AsyncGenerator[Forwarded]:
    """`treestore.connect` in a plain asyncio program, on another thread."""
    loop = asyncio.SelectorEventLoop()
    thread = threading.Thread(target=loop.run_forever, name="asyncio-client")
    thread.start()
    try:
        async with nursery_here() as nursery:
            there = OnAsyncio(nursery, loop)
            async with entered(there, treestore.connect(address, **options)) as db:
                yield db
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def blocking_client(address: str, **options: Any) -> AsyncGenerator[Forwarded]:
    """`treestore.connect_sync`, each call in a worker thread."""
    async with nursery_here() as nursery:
        there = InThreads(nursery)
        db = await there.call(treestore.connect_sync, address, **options)
        async with entered(there, db) as forwarded:
            yield forwarded
