"""A stream of items from the server, with flow control."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec

from protocol.limits import MIB
from treestore.client.calls import ConnectionLost
from treestore.client.connection import AnyConnection
from treestore.client.runtime import Event, Runtime
from treestore.errors import DeadlineExceeded, SnapshotExpired, Unavailable

T = TypeVar("T")

WINDOW_SIZE_BYTES = 1 * MIB
"""Bytes of items that may be under way or waiting here; one item may exceed it."""

Connect = Callable[[], Awaitable[AnyConnection]]


class _Inbox:
    """What came of a stream and was not taken yet; the connection's reader fills it.

    Apart from `RemoteStream`, so that the connection does not keep that alive: a stream that is
    dropped must be noticed.
    """

    __slots__ = ("ended", "error", "waiting", "wake")

    def __init__(self, wake: Event) -> None:
        self.waiting: deque[msgspec.Raw] = deque()
        self.ended = False
        self.error: Exception | None = None
        self.wake = wake

    def items(self, items: list[msgspec.Raw]) -> None:
        """More items came."""
        self.waiting.extend(items)
        self.wake.set()

    def end(self, error: Exception | None) -> None:
        """No more will come."""
        self.ended = True
        self.error = error
        self.wake.set()


class RemoteStream(Generic[T]):
    """Items of one snapshot, fetched as they are taken.

    Use it with a bare ``async for``, or as ``async with`` to let go of it for certain when it is
    left early. It can be gone through once.

    Error handling: where the server evicts the snapshot, or it is lost with its connection,
    `SnapshotExpired`; its ``cursor`` says where to go on, see the operation.

    Resource handling: the server holds a snapshot for the stream until it is read to the end,
    closed, or dropped; leaving an ``async for`` early drops it.
    """

    def __init__(
        self,
        runtime: Runtime,
        connect: Connect,
        method: str,
        params: msgspec.Raw,
        decode: Callable[[Any], T],
        *,
        snapshot: int | None,
        timeout_s: float,
        cursor: Callable[[list[Any]], bytes | None],
    ) -> None:
        self._runtime = runtime
        self._cursor = cursor
        self._last: msgspec.Raw | None = None
        self._connect = connect
        self._method = method
        self._params = params
        self._decode = decode
        self._snapshot = snapshot
        self._timeout_s = timeout_s
        self._connection: AnyConnection | None = None
        self._id = 0
        self._inbox = _Inbox(runtime.event())
        self._taken_bytes = 0
        self._closed = False
        self._begun = False

    def __aiter__(self) -> RemoteStream[T]:
        return self

    async def __anext__(self) -> T:
        waiting = self._inbox.waiting
        if not waiting:
            await self._some()
            waiting = self._inbox.waiting
            if not waiting:
                raise StopAsyncIteration
        raw = waiting.popleft()
        self._took(raw, len(memoryview(raw)))
        return self._decode(raw)

    async def batch(self) -> list[msgspec.Raw]:
        """Everything that is here, at least one item; empty at the end."""
        await self._some()
        waiting = self._inbox.waiting
        items = list(waiting)
        if items:
            waiting.clear()
            self._took(items[-1], sum(len(memoryview(raw)) for raw in items))
        return items

    async def _some(self) -> None:
        """Return once an item waits, or it is certain that none will."""
        while not self._inbox.waiting:
            if self._closed:
                await self._runtime.checkpoint()
                return
            if self._inbox.ended:
                self._finish()
            else:
                await self._more()

    def _took(self, last: msgspec.Raw, size_bytes: int) -> None:
        self._last = last
        self._taken_bytes += size_bytes
        if self._taken_bytes >= WINDOW_SIZE_BYTES // 2:
            assert self._connection is not None
            self._connection.grant(self._id, self._taken_bytes)
            self._taken_bytes = 0

    def _finish(self) -> None:
        """The stream ended: note it, raise why, or prepare to set out again."""
        error = self._inbox.error
        if isinstance(error, ConnectionLost) and self._last is None and self._repeatable:
            self._connection = None
            self._inbox = _Inbox(self._runtime.event())
            return
        self._closed = True
        if isinstance(error, ConnectionLost):
            if self._snapshot is not None:
                delivered = [] if self._last is None else [self._decode(self._last)]
                raise SnapshotExpired(
                    f"The snapshot is gone with its connection. {error}",
                    cursor=self._cursor(delivered),
                )
            raise Unavailable(f"The stream was cut off. {error}") from error
        if error is not None:
            raise error

    @property
    def _repeatable(self) -> bool:
        """Whether it may be opened anew where its connection is lost before anything came."""
        return self._snapshot is None

    def _open(self, connection: AnyConnection) -> int:
        """Ask for it; the request's number."""
        return connection.open_stream(
            self._method,
            self._params,
            self._inbox,
            snapshot=self._snapshot,
            credit_bytes=WINDOW_SIZE_BYTES,
        )

    async def _more(self) -> None:
        """Open the stream if need be, and wait for items or the end."""
        if self._connection is None:
            connection = await self._connect()
            self._begun = True
            try:
                self._id = self._open(connection)
            except ConnectionLost as lost:
                await self._runtime.checkpoint()
                self._inbox.end(lost)
                return
            self._connection = connection
        runtime = self._runtime
        self._inbox.wake = wake = runtime.event()
        if not await runtime.wait(wake, runtime.now() + self._timeout_s):
            self.close()
            raise DeadlineExceeded(f"No item came for {self._timeout_s:g} s.")

    async def __aenter__(self) -> RemoteStream[T]:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the stream; the server is told. Never waits; closing twice is harmless."""
        self.close()

    def close(self) -> None:
        """What `aclose` does; on the event loop only."""
        self._drop()
        self._closed = True
        self._inbox.waiting.clear()

    def _drop(self) -> None:
        if self._connection is not None and not self._inbox.ended:
            self._inbox.ended = True
            self._connection.close_stream(self._id)

    def __del__(self) -> None:
        # Left early by a bare `async for`. Only the event loop's own thread may touch the
        # connection; anywhere else the connection's end will clean up.
        if self._begun and not self._closed and self._runtime.inside():
            self._drop()
