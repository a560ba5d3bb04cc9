"""The part of the database that edges call: operations with encoded parameters and results."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio

from actors.embedded import PACE_S, SLICE_RESERVE, InlineReader, in_thread
from actors.host import Deduplication, Done, EncodedStream, HostSnapshot, Submission
from actors.mail import Mail
from treestore.engine.snapshot import Snapshot
from treestore.engine.transaction import OverBudget, WriteTransaction
from treestore.errors import InternalError, TreeStoreError
from treestore.stores import deduplication as answers
from treestore.stores.operation import Operation

if TYPE_CHECKING:
    from actors.database import Database

LONG_SIZE_BYTES = 32 << 10
"""A command with larger parameters is run on a thread."""

SESSIONS_REMEMBERED = 10_000

_encode = msgspec.msgpack.Encoder().encode


class HostPart:
    """Implements `actors.host.Host` for `Database`."""

    def __init__(self) -> None:
        self._inline: InlineReader | None = None
        self._watermarks: dict[bytes, int] = {}
        """Session prefix -> watermark up to which its answers were pruned."""

    @property
    def _database(self) -> Database:
        return cast("Database", self)

    # -- reading --------------------------------------------------------------------------------

    def query_now(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes | None:
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
            return _encode(operation.function(txn, **operation.arguments(parameters)))
        except OverBudget:
            return None

    async def query(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes:
        """See `Host.query`."""
        arguments = operation.arguments(parameters)
        result: bytes = await in_thread(
            self._database,
            None if snapshot is None else _pinned(snapshot),
            lambda txn: _encode(operation.function(txn, **arguments)),
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
        engine = self._database.engine
        own = engine.snapshot(operation.name) if snapshot is None else None
        pinned = own or _pinned(cast("HostSnapshot", snapshot))
        try:
            items = operation.function(pinned.read(raw=True), **operation.arguments(parameters))
            yield _Batches(items)
        finally:
            if own is not None:
                own.close()

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
        function = operation.function
        arguments = operation.arguments(parameters)
        run: Callable[[WriteTransaction], bytes] = lambda txn: _encode(  # noqa: E731
            function(txn, **arguments)
        )
        if deduplication is not None:
            run = self._once(
                operation.name,
                _encode(parameters),
                deduplication,
                lambda txn: function(txn, **arguments),
            )
        mail = Mail(
            run,
            lambda result, error: done(result if error is None else _typed(error)),
            size=size_bytes,
            deadline=deadline,
            long=operation.long or size_bytes > LONG_SIZE_BYTES,
            raw=True,
        )
        return mail if self._database.writer.submit(mail) else None

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
        checksum = b""
        if deduplication is not None:
            checksum = _encode(parameters)
        arguments = operation.arguments(parameters)
        apply = await trio.to_thread.run_sync(partial(operation.function, **arguments))
        run: Callable[[WriteTransaction], bytes] = lambda txn: _encode(apply(txn))  # noqa: E731
        if deduplication is not None:
            run = self._once(operation.name, checksum, deduplication, apply)
        result: bytes = await database.writer.execute(
            lambda outcome: Mail(
                run, outcome, size=size_bytes, deadline=deadline, long=True, raw=True
            )
        )
        return result

    def _once(
        self,
        method: str,
        parameters: bytes,
        request: Deduplication,
        function: Callable[[WriteTransaction], Any],
    ) -> Callable[[WriteTransaction], bytes]:
        """``function`` with its encoded answer, run at most once for this request."""
        prefix = answers.session_prefix(request.client, request.session)
        checksum = answers.request_checksum(method, parameters)
        watermarks = self._watermarks

        def run(txn: WriteTransaction) -> bytes:
            answer = answers.recall(txn, prefix, request.sequence, checksum)
            if answer is not None:
                return answer
            answer = _encode(function(txn))
            answers.remember(txn, prefix, request.sequence, checksum, answer)
            pruned = watermarks.get(prefix)
            if pruned is None or request.watermark >= pruned + answers.PRUNE_EVERY:
                # Also what makes the session known, at its first command here.
                answers.prune(txn, prefix, request.watermark, txn.now)
                if len(watermarks) >= SESSIONS_REMEMBERED:
                    watermarks.clear()
                watermarks[prefix] = request.watermark
            return answer

        return run

    async def action(self, operation: Operation, parameters: msgspec.Struct) -> bytes:
        """See `Host.action`."""
        return _encode(await operation.function(self, **operation.arguments(parameters)))


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

    def __init__(self, batches: Iterator[list[Any]]) -> None:
        self._batches = batches
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
            if encoded and time.perf_counter() > until:
                return encoded
            batch = next(self._batches, None)
            if batch is None:
                return encoded or None
            self._items = iter(batch)
