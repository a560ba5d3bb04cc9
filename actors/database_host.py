"""The part of the database that edges call: operations with encoded parameters and results."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio
from crc32c import crc32c

from actors.embedded import PACE_S, SLICE_RESERVE, InlineReader, in_thread, pin
from actors.host import Deduplication, Done, EncodedStream, HostSnapshot, Submission
from actors.mail import Mail
from actors.tuning import collector_paused
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

SESSION_TOUCHED_EVERY = timedelta(hours=2)
"""How stale the time of last use in a session's row may be; well below the day after which a
session is put to rest."""

_encode = msgspec.msgpack.Encoder().encode


class HostPart:
    """Implements `actors.host.Host` for `Database`."""

    def __init__(self) -> None:
        self._inline: InlineReader | None = None
        self._sessions: dict[bytes, tuple[int, datetime]] = {}
        """Session prefix -> what its row says: watermark, and when it was last used."""

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
        given = None if snapshot is None else _pinned(snapshot)
        pinned = pin(self._database, given, operation.name)
        try:
            items = operation.function(pinned.read(raw=True), **operation.arguments(parameters))
            yield _Batches(items)
        finally:
            pinned.close()

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
        once: _Once | None = None
        if deduplication is not None:
            once = _Once(
                self._sessions,
                operation.name,
                _encode(parameters),
                deduplication,
                lambda txn: function(txn, **arguments),
            )
            run = once.run

        def outcome(result: Any, error: Exception | None) -> None:
            if error is None and once is not None:
                once.landed()
            done(result if error is None else _typed(error))

        mail = Mail(
            run,
            outcome,
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
        once: _Once | None = None

        def prepare() -> Callable[[WriteTransaction], bytes]:
            nonlocal once
            apply = operation.function(**operation.arguments(parameters))
            run: Callable[[WriteTransaction], bytes] = lambda txn: _encode(apply(txn))  # noqa: E731
            if deduplication is not None:
                digest = _digest(parameters)
                once = _Once(self._sessions, operation.name, digest, deduplication, apply)
                run = once.run
            return partial(_run_and_let_go, run, apply)

        with collector_paused():
            run = await database.threads.run(prepare)
        result: bytes = await database.writer.execute(
            lambda outcome: Mail(
                run, outcome, size=size_bytes, deadline=deadline, long=True, raw=True
            )
        )
        if once is not None:
            once.landed()
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


def _digest(parameters: msgspec.Struct) -> bytes:
    """Stands for long parameters in a request's checksum. Taken of one list item at a time:
    encoding ten megabytes in one call keeps the interpreter for 7 ms."""
    checksum = 0
    for name in parameters.__struct_fields__:
        value = getattr(parameters, name)
        if not isinstance(value, list):
            checksum = crc32c(_encode(value), checksum)
            continue
        checksum = crc32c(_encode(len(value)), checksum)
        for item in value:
            checksum = crc32c(_encode(item), checksum)
    return checksum.to_bytes(4, "big")


class _Once:
    """One numbered request: run at most once, its answer stored in the same transaction."""

    def __init__(
        self,
        sessions: dict[bytes, tuple[int, datetime]],
        method: str,
        parameters: bytes,
        request: Deduplication,
        function: Callable[[WriteTransaction], Any],
    ) -> None:
        self._sessions = sessions
        self._prefix = answers.session_prefix(request.client, request.session)
        self._checksum = answers.request_checksum(method, parameters)
        self._request = request
        self._function = function
        self._noted: tuple[int, datetime] | None = None

    def run(self, txn: WriteTransaction) -> bytes:
        """The answer, from memory or from running it."""
        request, prefix = self._request, self._prefix
        answer = answers.recall(txn, prefix, request.sequence, self._checksum)
        if answer is not None:
            return answer
        answer = _encode(self._function(txn))
        answers.remember(txn, prefix, request.sequence, self._checksum, answer)
        known = self._sessions.get(prefix)
        now = txn.now
        if (
            known is None
            or request.watermark >= known[0] + answers.PRUNE_EVERY
            or now - known[1] > SESSION_TOUCHED_EVERY
        ):
            # Also what makes the session known, at its first command here.
            answers.prune(txn, prefix, request.watermark, now)
            self._noted = (request.watermark, now)
        return answer

    def landed(self) -> None:
        """It is durable: what was noted about the session need not be written again soon."""
        if self._noted is not None:
            if len(self._sessions) >= SESSIONS_REMEMBERED:
                self._sessions.clear()
            self._sessions[self._prefix] = self._noted


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
