"""Feeds of changes: they follow the log, as far as it is durable and published.

A feed holds no snapshot, no segment and no changes beyond a slice: it stands somewhere in the log
and reads on when its consumer asks. Where it has caught up it waits here for the writer's next
group. Without feeds that costs the writer the look at an empty list.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio

from treestore.model.changes import Change
from treestore.stores.changes.reader import begin
from treestore.stores.changes.services import Selection
from treestore.stores.operation import FeedSource, Operation

if TYPE_CHECKING:
    from actors.database import Database

INLINE_SIZE_BYTES = 16 << 10
"""A backlog up to this is read and decoded on the event loop: its bytes were written a moment ago,
so they are in memory, and are decoded in a millisecond or two. More goes to a thread."""

PACE_S = 0.001
"""A feed gives way to the other tasks after about so much work."""

PACE_ITEMS = 64
"""How often it looks whether it was as much."""

PROGRESS_S = 5.0
"""A client whose filter leaves nothing over is told this often how far its feed has come, so that
it resumes from there."""

_encode = msgspec.msgpack.Encoder().encode


class FeedPart:
    """Implements `treestore.stores.changes.service.Watched` for `Database`."""

    def begin_feed(self, from_lsn: int | str | None, selection: Selection) -> FeedSource[Change]:
        """See `treestore.stores.changes.reader.begin`."""
        return begin(cast("Database", self).engine, from_lsn, selection)


class FeedHub:
    """Where feeds wait. Belongs to the event loop of its database."""

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()
        self.feeds = 0
        """How many there are."""

    def announce(self) -> None:
        """Something was published, or the database closes: have all feeds look."""
        if self._waiting:
            self._waiting.unpark_all()

    async def wait(self) -> None:
        """Return at the next announcement."""
        await self._waiting.park()

    @contextmanager
    def one_more(self) -> Generator[None]:
        """Count a feed."""
        self.feeds += 1
        try:
            yield
        finally:
            self.feeds -= 1


class Follower:
    """One feed's way through the log.

    Attributes:
        ready: items that were read and not yet taken.
    """

    def __init__(self, database: Database, source: FeedSource[Any]) -> None:
        self._database = database
        self._source = source
        self.ready: deque[Any] = deque()
        self._failed: Exception | None = None
        self._pace_until = 0.0

    @property
    def position(self) -> str:
        """Behind everything that was read, the transaction at hand left out."""
        return self._source.position

    async def fill(self) -> None:
        """Return once something is ready. Nothing is lost where it is cancelled.

        Raises:
            FeedExpired: the log was trimmed beyond the feed.
            Unavailable: the database was closed.
            CorruptionError: the log is damaged.
        """
        database, source = self._database, self._source
        while not self.ready:
            database.ensure_open()
            if self._failed is not None:
                raise self._failed
            until = self._shown_lsn()
            if source.lsn >= until:
                await database.feeds.wait()
            elif source.backlog_bytes() > INLINE_SIZE_BYTES:
                await database.threads.run(
                    partial(self._read, until), limiter=database.read_limiter
                )
            else:
                if time.perf_counter() > self._pace_until:
                    await trio.lowlevel.checkpoint()
                    self._pace_until = time.perf_counter() + PACE_S
                    continue
                self._read(until)

    def _shown_lsn(self) -> int:
        """The last record that may be shown: what is durable, and what readers see already."""
        return self._database.engine.durable.position.lsn

    def _read(self, until_lsn: int) -> None:
        try:
            self.ready.extend(self._source.read(until_lsn))
        except Exception as error:
            # What it stands on is read once: the next attempt would not find it as it was.
            self._failed = error
            raise


class EmbeddedFeed:
    """A feed in the same process: ``async for``, or ``async with`` to let go early."""

    def __init__(self, database: Database, operation: Operation, *args: Any, **kwargs: Any) -> None:
        database.ensure_open()
        self._follower = Follower(database, operation.function(database, *args, **kwargs))
        self._hub = database.feeds
        self._start = self._follower.position
        self._last: Any = None
        self._closed = False
        self._given = 0
        self._pace_until = 0.0

    @property
    def position(self) -> str:
        """Where to go on behind what was delivered."""
        follower, last = self._follower, self._last
        if last is not None and (follower.ready or not last.last):
            return str(last.position)
        if follower.ready:
            return self._start
        return follower.position

    def __aiter__(self) -> EmbeddedFeed:
        return self

    async def __anext__(self) -> Any:
        ready = self._follower.ready
        if not ready:
            if self._closed:
                raise StopAsyncIteration
            with self._hub.one_more():
                await self._follower.fill()
        self._last = ready.popleft()
        self._given += 1
        if self._given % PACE_ITEMS == 0:
            await self._give_way()
        return self._last

    async def _give_way(self) -> None:
        """Let other tasks run, without being cancelled: the item at hand would be lost."""
        if time.perf_counter() > self._pace_until:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._pace_until = time.perf_counter() + PACE_S

    async def __aenter__(self) -> EmbeddedFeed:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._closed = True
        self._follower.ready.clear()


class EncodedFeed:
    """Implements `actors.host.EncodedStream`: changes, and positions as strings in between.

    The first item is the position that the feed begins at.
    """

    def __init__(self, database: Database, source: FeedSource[Any]) -> None:
        self._follower = Follower(database, source)
        self._told = ""

    async def next_batch(self, size_bytes_max: int, count_max: int) -> list[bytes] | None:
        """See `EncodedStream.next_batch`. It has no end."""
        follower = self._follower
        await trio.lowlevel.checkpoint()
        if not self._told:
            return [self._progress()]
        while not follower.ready:
            with trio.move_on_after(PROGRESS_S):
                await follower.fill()
            if not follower.ready and follower.position != self._told:
                return [self._progress()]
        return self._encoded(size_bytes_max, count_max)

    def _progress(self) -> bytes:
        self._told = self._follower.position
        return _encode(self._told)

    def _encoded(self, size_bytes_max: int, count_max: int) -> list[bytes]:
        ready = self._follower.ready
        until = time.perf_counter() + PACE_S
        encoded: list[bytes] = []
        size = 0
        while ready and size < size_bytes_max and len(encoded) < count_max:
            item = ready.popleft()
            encoded.append(_encode(item))
            size += len(encoded[-1])
            self._told = item.position
            if len(encoded) % PACE_ITEMS == 0 and time.perf_counter() > until:
                break
        return encoded
