"""Interactive transactions of sessions: implements `actors.host.HostTransaction`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from actors.embedded import pin
from actors.encoding import Batches, Submitted, encode, encoded
from actors.host import Done, EncodedStream, Submission
from actors.transactions import (
    LONG_COMMIT_BYTES,
    CommitCall,
    CommitMail,
    RunningTransaction,
    refusal,
)
from treestore.engine.transaction import OverBudget
from treestore.stores.deduplication import Deduplication
from treestore.stores.operation import Operation
from treestore.stores.security.audit import audited_here

if TYPE_CHECKING:
    from actors.database import Database

LONG_SIZE_BYTES = 32 << 10
"""A command with larger parameters is run on a thread."""

_TRUE = encode(True)


class EncodedTransaction:
    """See `HostTransaction`."""

    def __init__(self, database: Database, running: RunningTransaction) -> None:
        self._database = database
        self._running = running

    # -- calls ----------------------------------------------------------------------------------

    def run_now(
        self, operation: Operation, parameters: msgspec.Struct, size_bytes: int
    ) -> bytes | memoryview | None:
        """See `HostTransaction.run_now`."""
        running, kind = self._running, operation.kind
        if kind in ("prepared", "awaited"):
            return None
        if kind not in ("query", "command"):
            raise refusal(operation)
        work = self._work(operation, parameters)
        try:
            if kind == "query":
                return running.try_query(work, raw=True)
            if operation.long or size_bytes > LONG_SIZE_BYTES:
                return None
            return running.try_command(work, raw=True)
        except OverBudget:
            return None

    async def run(
        self, operation: Operation, parameters: msgspec.Struct, size_bytes: int
    ) -> bytes | memoryview:
        """See `HostTransaction.run`."""
        running = self._running
        if operation.kind == "prepared":
            arguments = operation.arguments(parameters)
            return await running.prepared(lambda: operation.function(**arguments), encode=encode)
        if operation.kind == "awaited":
            arguments = operation.arguments(parameters)
            call = partial(operation.function, **arguments)
            return encode(await running.awaited(call, raw=True))
        work = self._work(operation, parameters)
        if operation.kind == "query":
            return await running.query(work, raw=True)
        long = operation.long or size_bytes > LONG_SIZE_BYTES
        return await running.command(work, raw=True, long=long)

    def _work(
        self, operation: Operation, parameters: msgspec.Struct
    ) -> Callable[[Any], bytes | memoryview]:
        function, arguments = audited_here(operation), operation.arguments(parameters)
        return lambda txn: encoded(function(txn, **arguments))

    @asynccontextmanager
    async def stream(
        self, operation: Operation, parameters: msgspec.Struct
    ) -> AsyncGenerator[EncodedStream]:
        """See `HostTransaction.stream`."""
        await trio.lowlevel.checkpoint()
        running = self._running
        running.ensure_open()
        lease = pin(self._database, running.core.lease, operation.name)
        try:
            arguments = operation.arguments(parameters)
            read = running.core.long_query(raw=True, lease=lease)
            items = operation.function(read, **arguments)
            cursor = partial(operation.cursor_after, arguments)
            yield _TransactionBatches(running, Batches(items, lease, cursor))
        finally:
            lease.close()

    # -- the end --------------------------------------------------------------------------------

    def begin_commit(self) -> bool | None:
        """See `HostTransaction.begin_commit`."""
        running = self._running
        if running.core.size_bytes > LONG_COMMIT_BYTES:
            return None
        return running.begin_commit_now()

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
        """See `HostTransaction.submit`."""
        database, running = self._database, self._running
        mail = _SubmittedCommit(running, done, deduplication, database.sessions, deadline)
        try:
            return mail if database.writer.submit(mail) else None
        except BaseException:
            mail.cancel()
            raise

    async def commit(
        self, deduplication: Deduplication | None = None, deadline: float | None = None
    ) -> bytes:
        """See `HostTransaction.commit`."""
        running, sessions, request = self._running, self._database.sessions, deduplication

        def call() -> CommitCall:
            apply = running.core.apply
            if request is None:
                return CommitCall(running, lambda txn: encode(apply(txn)))
            return CommitCall(
                running,
                partial(sessions.run, request=request, function=apply, arguments={}),
                on_failure=partial(sessions.forget, request.session),
            )

        return await running.commit(call) or _TRUE

    def abandon_commit(self) -> None:
        """See `HostTransaction.abandon_commit`."""
        self._running.taken_back()

    def roll_back(self) -> bool:
        """See `HostTransaction.roll_back`."""
        was_open = self._running.is_open
        self._running.roll_back()
        return was_open


class _TransactionBatches:
    """A stream that ends with its transaction."""

    def __init__(self, running: RunningTransaction, batches: Batches) -> None:
        self._running = running
        self._batches = batches

    async def next_batch(self, size_bytes_max: int, count_max: int) -> list[bytes] | None:
        """See `EncodedStream.next_batch`."""
        await trio.lowlevel.checkpoint()
        self._running.ensure_open()
        return await self._batches.next_batch(size_bytes_max, count_max)


class _SubmittedCommit(CommitMail, Submitted):
    """A commit whose session is told with a call."""

    __slots__ = ("_transaction",)

    def __init__(
        self,
        running: RunningTransaction,
        done: Done,
        deduplication: Deduplication | None,
        sessions: Any,
        deadline: float | None,
    ) -> None:
        until = running.deadline if deadline is None else min(deadline, running.deadline)
        core = running.core
        super().__init__(
            core.apply, {}, done, deduplication, sessions, core.size_bytes, until, False
        )
        self._transaction = running

    def report(self) -> None:
        """See `Mail.report`."""
        self._transaction.finished(self.error)
        super().report()

    def cancel(self) -> bool:
        """See `Mail.cancel`."""
        taken_back = super().cancel()
        if taken_back:
            self._transaction.taken_back()
        return taken_back
