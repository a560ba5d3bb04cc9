"""Watching changes over a connection, and over the next one when that is lost.

`Place` decides, without any input or output: what to ask the server for, what an item means, and
whether an end is one to come back from. `RemoteFeed` does the waiting.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from protocol.limits import MIB
from treestore.client.calls import ConnectionLost
from treestore.client.connection import AnyConnection
from treestore.client.pool import Pool

T = TypeVar("T")

PACE_S = 0.001
"""One that takes changes which wait here already gives way to other tasks this often ..."""

PACE_ITEMS = 64
"""... and looks at the clock after so many."""

WINDOW_SIZE_BYTES = 1 * MIB
"""Bytes of changes that may be under way or waiting here; one may exceed it. What is beyond that
stays in the server's log."""


class Place(Generic[T]):
    """How far a feed has come.

    The server sends changes, and positions as strings: where the feed begins, and now and then how
    far it has come where there was nothing to send.
    """

    __slots__ = ("_decode", "_encode", "_parameters", "position")

    def __init__(
        self,
        parameters: msgspec.Struct,
        encode: Callable[[msgspec.Struct], msgspec.Raw],
        item: Any,
    ) -> None:
        """Begin where the parameters say.

        Args:
            parameters: of the call, as the operation has them.
            encode: what turns them into what is sent.
            item: the type of the feed's items.
        """
        self._parameters = parameters
        self._encode = encode
        self._decode: Callable[[Any], T | str] = msgspec.msgpack.Decoder(item | str).decode
        self.position: str | None = None
        """Where to go on; None until the server said where the feed begins."""

    def request(self) -> msgspec.Raw:
        """The parameters to send now."""
        if self.position is None:
            return self._encode(self._parameters)
        return self._encode(msgspec.structs.replace(self._parameters, from_lsn=self.position))

    def take(self, raw: msgspec.Raw) -> T | None:
        """The change that came; None where it was a position."""
        item: Any = self._decode(raw)
        if isinstance(item, str):
            self.position = item
            return None
        self.position = item.position
        return item  # type: ignore[no-any-return]

    @staticmethod
    def may_resume(error: Exception | None) -> bool:
        """Whether a feed that ended like this goes on over another connection."""
        return error is None or isinstance(error, ConnectionLost)


class Inbox:
    """What came of a feed and was not taken yet; the connection's reader fills it.

    Apart from the feed, so that the connection does not keep that alive.
    """

    __slots__ = ("ended", "error", "waiting", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.waiting: deque[msgspec.Raw] = deque()
        self.ended = False
        self.error: Exception | None = None
        self.wake = wake

    def items(self, items: list[msgspec.Raw]) -> None:
        """More came."""
        self.waiting.extend(items)
        self.wake()

    def end(self, error: Exception | None) -> None:
        """No more will come."""
        self.ended = True
        self.error = error
        self.wake()


class RemoteFeed(Generic[T]):
    """Changes as they are committed on the server: ``async for``, or ``async with`` to let go of
    it for certain when it is left early.

    Error handling: a lost connection is none; the feed goes on over the next one from where it
    was, without a change left out or given twice. `Unavailable` where no connection came up for
    as long as the client's timeout: the feed may be asked again. Other errors end it.
    """

    def __init__(self, pool: Pool, method: str, place: Place[T]) -> None:
        self._pool = pool
        self._runtime = pool.runtime
        self._method = method
        self._place = place
        self._connection: AnyConnection | None = None
        self._id = 0
        self._came = self._runtime.event()
        self._inbox = Inbox(self._came.set)
        self._taken_bytes = 0
        self._given = 0
        self._pace_until = 0.0
        self._closed = False
        self._begun = False

    @property
    def position(self) -> str:
        """Where to go on behind what was delivered: another feed's ``from_lsn``. Empty until the
        feed was entered, or asked for its first item."""
        return self._place.position or ""

    def __aiter__(self) -> RemoteFeed[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            if self._inbox.waiting:
                item = self._take()
                if item is not None:
                    self._given += 1
                    if self._given % PACE_ITEMS == 0:
                        await self._give_way()
                    return item
            elif self._closed:
                await self._runtime.checkpoint()
                raise StopAsyncIteration
            else:
                await self._more()

    async def fill(self, here: deque[T | str]) -> None:
        """Put everything that came into ``here``, in order: changes, and positions; something at
        least, unless the feed is closed."""
        while not self._inbox.waiting:
            if self._closed:
                return
            await self._more()
        while self._inbox.waiting:
            item = self._take()
            here.append(self.position if item is None else item)

    async def _give_way(self) -> None:
        """Let other tasks run, without being cancelled: the item at hand would be lost."""
        if time.perf_counter() > self._pace_until:
            await self._runtime.give_way()
            self._pace_until = time.perf_counter() + PACE_S

    def _take(self) -> T | None:
        """The first thing that waits."""
        raw = self._inbox.waiting.popleft()
        self._taken_bytes += len(memoryview(raw))
        if self._taken_bytes >= WINDOW_SIZE_BYTES // 2 and self._connection is not None:
            self._connection.grant(self._id, self._taken_bytes)
            self._taken_bytes = 0
        return self._place.take(raw)

    async def _more(self) -> None:
        """Open the feed if need be, and wait until something came, or it ended."""
        if self._inbox.ended:
            error, self._inbox = self._inbox.error, Inbox(self._came.set)
            self._connection = None
            if error is not None and not self._place.may_resume(error):
                self._closed = True
                raise error
        if self._connection is None:
            await self._open()
        # Only after a look whether it came already: what wakes is the event of this turn.
        if not self._inbox.waiting and not self._inbox.ended and not self._closed:
            self._came = self._runtime.event()
            self._inbox.wake = self._came.set
            await self._came.wait()

    async def _open(self) -> None:
        connection = await self._pool.connection(self._pool.deadline())
        if self._closed:
            return
        self._begun = True
        self._taken_bytes = 0
        try:
            self._id = connection.open_stream(
                self._method,
                self._place.request(),
                self._inbox,
                snapshot=None,
                credit_bytes=WINDOW_SIZE_BYTES,
            )
        except ConnectionLost as lost:
            await self._runtime.checkpoint()
            self._inbox.end(lost)
            return
        self._connection = connection

    async def __aenter__(self) -> RemoteFeed[T]:
        while self._place.position is None:
            await self._more()
            if self._inbox.waiting:
                self._take()  # The first is always a position.
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    async def aclose(self) -> None:
        """Let go of the feed; the server is told. Never waits; closing twice is harmless."""
        self.close()

    def close(self) -> None:
        """What `aclose` does; on the event loop only. Whoever waits for a change is told."""
        self._drop()
        self._closed = True
        self._inbox.waiting.clear()
        self._came.set()

    def _drop(self) -> None:
        if self._connection is not None and not self._inbox.ended:
            self._inbox.ended = True
            self._connection.close_stream(self._id)

    def __del__(self) -> None:
        # Left early by a bare `async for`. Only the event loop's own thread may touch the
        # connection; anywhere else the connection's end will clean up.
        if self._begun and not self._closed and self._runtime.inside():
            self._drop()
