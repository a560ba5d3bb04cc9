"""The part of the database that edges call: operations with encoded parameters and results."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio

from actors.embedded import PACE_S, SLICE_RESERVE, InlineReader, in_thread, pin
from actors.feeds import EncodedFeed
from actors.host import Done, EncodedStream, HostSnapshot, Submission
from actors.mail import Call, Mail
from actors.tuning import collector_paused
from treestore.engine.snapshot import Snapshot
from treestore.engine.transaction import OverBudget, WriteTransaction
from treestore.errors import InternalError, TreeStoreError
from treestore.stores.changes.position import FeedPosition
from treestore.stores.deduplication import Deduplication, Sessions
from treestore.stores.operation import Operation

if TYPE_CHECKING:
    from actors.database import Database

LONG_SIZE_BYTES = 32 << 10
"""A command with larger parameters is run on a thread."""

_encode = msgspec.msgpack.Encoder().encode


def _encoded(result: Any) -> bytes | memoryview:
    """A query's result as msgpack. A stored record is that already: it is not copied."""
    return memoryview(result) if result.__class__ is msgspec.Raw else _encode(result)


class HostPart:
    """Implements `actors.host.Host` for `Database`."""

    def __init__(self) -> None:
        self._inline: InlineReader | None = None

    @property
    def _database(self) -> Database:
        return cast("Database", self)

    # -- reading --------------------------------------------------------------------------------

    def query_now(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes | memoryview | None:
        """See `Host.query_now`."""
        database = self._database
        reader = self._inline
        if reader is None:
            reader = self._inline = InlineReader(database, raw=True)
        txn = reader.txn
        if txn.budget < SLICE_RESERVE:
            # A session gives way between chunks of requests, not between two of them.
            database.ensure_open()
            reader.end_slice()
        txn.renew(
            database.engine.durable.root if snapshot is None else _pinned(snapshot).usable_root()
        )
        try:
            return _encoded(operation.function(txn, **operation.arguments(parameters)))
        except OverBudget:
            return None

    async def query(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes | memoryview:
        """See `Host.query`."""
        arguments = operation.arguments(parameters)
        result: bytes | memoryview = await in_thread(
            self._database,
            None if snapshot is None else _pinned(snapshot),
            lambda txn: _encoded(operation.function(txn, **arguments)),
            raw=True,
        )
        return result

    @asynccontextmanager
    async def stream(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> AsyncGenerator[EncodedStream]:
        """See `Host.stream`."""
        await trio.lowlevel.checkpoint()
        if operation.kind == "feed":
            source = operation.function(self, **operation.arguments(parameters))
            with self._database.feeds.one_more():
                yield EncodedFeed(self._database, source)
            return
        given = None if snapshot is None else _pinned(snapshot)
        pinned = pin(self._database, given, operation.name)
        try:
            arguments = operation.arguments(parameters)
            items = operation.function(pinned.read(raw=True), **arguments)
            yield _Batches(items, pinned, partial(operation.cursor_after, arguments))
        finally:
            pinned.close()

    def feed_position(self, snapshot: HostSnapshot) -> tuple[int, str]:
        """See `Host.feed_position`."""
        lsn = _pinned(snapshot).state.position.lsn
        return lsn, str(FeedPosition.at(self._database.engine.identity, lsn))

    def open_snapshot(self, owner: str) -> HostSnapshot:
        """See `Host.open_snapshot`."""
        self._database.ensure_open()
        return self._database.engine.snapshot(owner)

    # -- writing --------------------------------------------------------------------------------

    def submit(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        done: Done,
        *,
        deduplication: Deduplication | None = None,
        size_bytes: int = 0,
        deadline: float | None = None,
    ) -> Submission | None:
        """See `Host.submit`."""
        database = self._database
        mail = _Submitted(
            operation.function,
            operation.arguments(parameters),
            done,
            deduplication,
            database.sessions,
            size_bytes,
            deadline,
            operation.long or size_bytes > LONG_SIZE_BYTES,
        )
        return mail if database.writer.submit(mail) else None

    async def wait_writable(self) -> None:
        """See `Host.wait_writable`."""
        await self._database.writer.wait_room()

    async def prepared(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        *,
        deduplication: Deduplication | None = None,
        size_bytes: int = 0,
        deadline: float | None = None,
    ) -> bytes:
        """See `Host.prepared`."""
        database = self._database
        with collector_paused():
            apply = await database.threads.run(
                lambda: operation.function(**operation.arguments(parameters))
            )
        run: Callable[[WriteTransaction], bytes] = lambda txn: _encode(apply(txn))  # noqa: E731
        on_failure: Callable[[], None] | None = None
        if deduplication is not None:
            sessions, request = database.sessions, deduplication
            run = lambda txn: sessions.run(txn, request, apply, {})  # noqa: E731
            on_failure = partial(sessions.forget, request.session)
        call = Call(
            partial(_run_and_let_go, run, apply),
            size=size_bytes,
            deadline=deadline,
            long=True,
            raw=True,
            on_failure=on_failure,
        )
        result: bytes = await database.writer.execute(call)
        return result

    async def action(self, operation: Operation, parameters: msgspec.Struct) -> bytes:
        """See `Host.action`."""
        return _encode(await operation.function(self, **operation.arguments(parameters)))


def _run_and_let_go(
    run: Callable[[WriteTransaction], bytes], prepared: Any, txn: WriteTransaction
) -> bytes:
    """Run a prepared command, then free what it held: here, on a thread, and bit by bit. All at
    once on the event loop, a document's entries take 5 to 15 ms."""
    try:
        return run(txn)
    finally:
        let_go = getattr(prepared, "let_go", None)
        if let_go is not None:
            let_go()


class _Submitted(Mail):
    """A command of an edge, which is told with a call."""

    __slots__ = ("_arguments", "_deduplication", "_done", "_function", "_sessions")

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        done: Done,
        deduplication: Deduplication | None,
        sessions: Sessions,
        size: int,
        deadline: float | None,
        long: bool,
    ) -> None:
        super().__init__(size, deadline, long, True)
        self._function = function
        self._arguments = arguments
        self._done = done
        self._deduplication = deduplication
        self._sessions = sessions

    def run(self, transaction: WriteTransaction) -> bytes:
        """See `Mail.run`."""
        request = self._deduplication
        if request is None:
            return _encode(self._function(transaction, **self._arguments))
        return self._sessions.run(transaction, request, self._function, self._arguments)

    def fail(self, error: Exception) -> None:
        """See `Mail.fail`."""
        super().fail(error)
        if self._deduplication is not None:
            self._sessions.forget(self._deduplication.session)

    def report(self) -> None:
        """See `Mail.report`."""
        self._done(self.result if self.error is None else _typed(self.error))


def _pinned(snapshot: HostSnapshot) -> Snapshot:
    assert isinstance(snapshot, Snapshot)
    return snapshot


def _typed(error: Exception) -> TreeStoreError:
    if isinstance(error, TreeStoreError):
        return error
    fault = InternalError(f"The command failed unexpectedly: {type(error).__name__}: {error}")
    fault.__cause__ = error
    return fault


class _Batches:
    """Implements `EncodedStream` over the lists that a stream operation gives."""

    def __init__(
        self,
        batches: Iterator[list[Any]],
        lease: Snapshot,
        cursor: Callable[[list[Any]], bytes | None],
    ) -> None:
        self._batches = batches
        self._lease = lease
        self._cursor = cursor
        self._batch: list[Any] = []
        self._items: Iterator[Any] = iter(())

    async def next_batch(self, size_bytes_max: int, count_max: int) -> list[bytes] | None:
        """See `EncodedStream.next_batch`. At most about a millisecond of work at a time."""
        await trio.lowlevel.checkpoint()
        until = time.perf_counter() + PACE_S
        encoded: list[bytes] = []
        size = 0
        while True:
            for item in self._items:
                encoded.append(_encode(item))
                size += len(encoded[-1])
                if size >= size_bytes_max or len(encoded) >= count_max:
                    return encoded
            if encoded and (self._lease.evicted is not None or time.perf_counter() > until):
                return encoded
            if self._lease.evicted is not None:
                # Everything of the last batch is on its way.
                self._lease.ensure_usable(self._cursor(self._batch))
            batch = next(self._batches, None)
            if batch is None:
                return encoded or None
            self._items = iter(batch)
            self._batch = batch or self._batch
