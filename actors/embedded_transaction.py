"""Interactive transactions of the embedding program: ``db.transaction()``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

from actors.embedded import EmbeddedStream, has_long_list
from actors.transactions import RunningTransaction, Transactions, as_it_is, refusal
from treestore.engine.transaction import OverBudget
from treestore.retrying import (
    ATTEMPTS,
    TRANSACTION_TIMEOUT_S,
    Attempts,
    checked_timeout,
    run_again,
)
from treestore.services import Stores
from treestore.stores.operation import Async, Operation, ReadWrite
from treestore.stores.security.audit import audited_here

if TYPE_CHECKING:
    from actors.database import Database

T = TypeVar("T")

Transaction = Stores[Async, ReadWrite]
"""The services inside a transaction: those of a database but ``admin``."""


class TransactionPart:
    """The part of `Database` that begins transactions."""

    transactions: Transactions

    def __init__(self) -> None:
        self.transactions = Transactions(cast("Database", self))
        self._retry_random = Random()

    def transaction(
        self, *, timeout: float = TRANSACTION_TIMEOUT_S
    ) -> AbstractAsyncContextManager[Transaction]:
        """The services, inside one transaction: ``async with db.transaction() as txn``.

        Everything that ``txn`` reads is of one state, with its own writes. Leaving the block
        commits, and what was written is then durable; an exception or cancellation rolls back.
        Transactions are strictly serialisable. Calls of several tasks inside one are run one after
        the other. Within ``txn``, ``admin`` is not to be had.

        Args:
            timeout: seconds after which it is rolled back, wherever it stands.

        Raises:
            TransactionConflict: at the exit: another transaction was committed meanwhile and
                changed what this one read. Nothing was changed; run it again, or use
                `run_transaction`, which does that.
            DeadlineExceeded: its time was up; nothing was changed.
            SnapshotExpired: its snapshot was evicted; nothing was changed.
            ResourceExhausted: too many transactions are open, or this one writes too much.
            OutcomeUnknown: writing the log failed while the commit was on its way.
            Exception: what the body raised, as it is.
        """
        return OpenTransaction(cast("Database", self), checked_timeout(timeout))

    async def run_transaction(
        self,
        function: Callable[[Transaction], Awaitable[T]],
        *,
        attempts: int = ATTEMPTS,
        timeout: float = TRANSACTION_TIMEOUT_S,  # noqa: ASYNC109
    ) -> T:
        """``await function(txn)`` in a transaction; run again, from the start, after a conflict.

        Args:
            function: called once for each attempt; it should have no effects but on ``txn``.
            attempts: how often it is called at most; there is a growing, random pause between.
            timeout: of each attempt, see `transaction`.

        Returns:
            What ``function`` returned in the attempt that was committed.

        Raises:
            TransactionConflict: the last attempt met one too.
            Exception: see `transaction`; what ``function`` raises is raised as it is.
        """
        return await run_again(
            lambda: self.transaction(timeout=timeout),
            function,
            Attempts(attempts, self._retry_random),
            trio.sleep,
        )


class OpenTransaction:
    """A transaction for the time of a block, committed where that ends well."""

    def __init__(self, database: Database, timeout_s: float) -> None:
        self._database = database
        self._timeout_s = timeout_s
        self._running: RunningTransaction | None = None

    async def __aenter__(self) -> Transaction:
        await trio.lowlevel.checkpoint_if_cancelled()
        database = self._database
        running = database.transactions.begin("transaction, embedded", self._timeout_s)
        self._running = running
        return Stores(TransactionCaller(database, running))

    async def __aexit__(self, kind: object, error: BaseException | None, where: object) -> None:
        running = self._running
        assert running is not None
        try:
            if error is None:
                await running.commit()  # noqa: ASYNC102 - no clean-up: it may be cancelled
        finally:
            running.roll_back()


class TransactionCaller:
    """Binds operations to one transaction."""

    def __init__(self, database: Database, running: RunningTransaction) -> None:
        self._database = database
        self._running = running

    def bind(self, operation: Operation) -> Callable[..., Any]:
        """The callable that stands behind ``txn.service.method``."""
        if operation.kind == "query":
            return self._bind_query(operation)
        if operation.kind == "stream":
            return partial(TransactionStream, self._database, self._running, operation)
        if operation.kind == "prepared":
            return self._bind_prepared(operation)
        if operation.kind == "command":
            return self._bind_command(operation)
        if operation.kind == "awaited":
            return self._bind_awaited(operation)
        return _bind_refusal(operation)

    def _bind_query(self, operation: Operation) -> Callable[..., Any]:
        function, running = operation.function, self._running

        async def query(*args: Any, **kwargs: Any) -> Any:
            read: Callable[[Any], Any] = lambda txn: function(txn, *args, **kwargs)  # noqa: E731
            try:
                return running.try_query(read, raw=False)
            except OverBudget:
                return await running.query(read, raw=False)

        return query

    def _bind_command(self, operation: Operation) -> Callable[..., Any]:
        function, running = audited_here(operation), self._running

        async def command(*args: Any, **kwargs: Any) -> Any:
            change: Callable[[Any], Any] = lambda txn: function(txn, *args, **kwargs)  # noqa: E731
            long = operation.long or has_long_list(args, kwargs)
            if not long:
                try:
                    return running.try_command(change, raw=False)
                except OverBudget:
                    pass
            return await running.command(change, raw=False, long=long)

        return command

    def _bind_prepared(self, operation: Operation) -> Callable[..., Any]:
        function, running = operation.function, self._running

        async def prepared(*args: Any, **kwargs: Any) -> Any:
            prepare = partial(function, *args, **kwargs)
            return await running.prepared(prepare, encode=as_it_is)

        return prepared

    def _bind_awaited(self, operation: Operation) -> Callable[..., Any]:
        function, running = operation.function, self._running

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await running.awaited(
                lambda reader: function(reader, *args, **kwargs), raw=False
            )

        return awaited


def _bind_refusal(operation: Operation) -> Callable[..., Any]:
    async def refuse(*_args: Any, **_kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise refusal(operation)

    return refuse


class TransactionStream(EmbeddedStream):
    """A stream inside a transaction: of its state when the stream was opened, own writes included.

    What is gone through counts as read, as far as it is gone through.
    """

    def __init__(
        self,
        database: Database,
        running: RunningTransaction,
        operation: Operation,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        running.ensure_open()
        self._running = running
        super().__init__(database, running.core.lease, operation, *args, **kwargs)

    def _open_read(self) -> Any:
        return self._running.core.long_query(raw=False, lease=self._own)

    def _ensure_usable(self) -> None:
        try:
            self._running.ensure_open()
        except BaseException:
            self._release()
            raise
        super()._ensure_usable()
