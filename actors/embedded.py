"""Calls from the same process: the services of ``treestore.open``.

A query runs at once, on the caller's task: no message, no thread, no copy. It gets a small budget
of work; one that needs more is run again on a worker thread, on a pinned snapshot. Once a
millisecond of such work a call pays for a checkpoint, so that a task which only reads cannot
starve the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from actors.mail import Mail
from treestore.engine.snapshot import Snapshot
from treestore.engine.transaction import OverBudget, ReadTransaction
from treestore.errors import Unavailable
from treestore.stores.operation import Operation

if TYPE_CHECKING:
    from actors.database import Database

INLINE_BUDGET = 1000
"""Look-ups and leaves that a query may spend on the event loop: about two milliseconds."""

PACE_S = 0.001
LONG_ITEMS = 200
"""A command with a list longer than this is run on a thread."""


class Pace:
    """Lets a task that makes many short calls give way once a millisecond."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = 0.0

    async def rest(self) -> None:
        """Let the other tasks run, and see whether this one was cancelled."""
        await trio.lowlevel.checkpoint()
        self.until = time.perf_counter() + PACE_S


class EmbeddedCaller:
    """Binds operations to a `Database`, or to one snapshot of it."""

    def __init__(self, database: Database, snapshot: Snapshot | None = None) -> None:
        self._database = database
        self._snapshot = snapshot
        self._pace = Pace()

    def bind(self, operation: Operation) -> Callable[..., Any]:
        """The callable that stands behind ``db.service.method``."""
        if operation.kind == "query":
            return self._bind_query(operation)
        if operation.kind == "stream":
            return partial(EmbeddedStream, self._database, self._snapshot, operation)
        if operation.kind == "action":
            return self._bind_action(operation)
        if self._snapshot is not None:
            return _bind_refusal(operation)
        if operation.kind == "prepared":
            return self._bind_prepared(operation)
        return self._bind_command(operation)

    def _bind_query(self, operation: Operation) -> Callable[..., Any]:
        function = operation.function
        database, snapshot, pace = self._database, self._snapshot, self._pace
        engine = database.engine
        reader = engine.read(budget=INLINE_BUDGET)
        cache = engine.pages.cache
        clock = time.perf_counter

        async def query(*args: Any, **kwargs: Any) -> Any:
            if clock() > pace.until:
                database.ensure_open()
                await pace.rest()
            if snapshot is None:
                reader.renew(engine.durable.root, INLINE_BUDGET)
            else:
                reader.renew(snapshot.usable_root(), INLINE_BUDGET)
            try:
                return function(reader, *args, **kwargs)
            except OverBudget:
                pass
            finally:
                cache.lookups += INLINE_BUDGET - reader.budget
            return await in_thread(
                database, snapshot, lambda txn: function(txn, *args, **kwargs), raw=False
            )

        return query

    def _bind_command(self, operation: Operation) -> Callable[..., Any]:
        function, database = operation.function, self._database

        async def command(*args: Any, **kwargs: Any) -> Any:
            database.ensure_open()
            long = any(isinstance(arg, list | tuple) and len(arg) > LONG_ITEMS for arg in args)
            long = long or any(
                isinstance(arg, list | tuple) and len(arg) > LONG_ITEMS for arg in kwargs.values()
            )
            return await database.writer.execute(
                lambda outcome: Mail(
                    lambda txn: function(txn, *args, **kwargs), outcome, long=long
                )
            )

        return command

    def _bind_prepared(self, operation: Operation) -> Callable[..., Any]:
        function, database = operation.function, self._database

        async def prepared(*args: Any, **kwargs: Any) -> Any:
            database.ensure_open()
            apply = await trio.to_thread.run_sync(partial(function, *args, **kwargs))
            return await database.writer.execute(
                lambda outcome: Mail(apply, outcome, long=True)
            )

        return prepared

    def _bind_action(self, operation: Operation) -> Callable[..., Any]:
        function, database = operation.function, self._database

        async def action(*args: Any, **kwargs: Any) -> Any:
            database.ensure_open()
            return await function(database, *args, **kwargs)

        return action


def _bind_refusal(operation: Operation) -> Callable[..., Any]:
    async def refuse(*_args: Any, **_kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise Unavailable(f"A snapshot is read-only; call {operation.name} on the database.")

    return refuse


async def in_thread(
    database: Database,
    snapshot: Snapshot | None,
    read: Callable[[ReadTransaction], Any],
    *,
    raw: bool,
) -> Any:
    """Run a read on a worker thread, on ``snapshot`` or the newest state, pinned meanwhile.

    Cancellation: waits for the read, which cannot be interrupted.
    """
    own = database.engine.snapshot("query") if snapshot is None else None
    pinned = own or snapshot
    assert pinned is not None
    try:
        return await trio.to_thread.run_sync(
            lambda: read(pinned.read(raw=raw)), limiter=database.read_limiter
        )
    finally:
        if own is not None:
            own.close()


class EmbeddedStream:
    """Items of a stream operation: ``async for``, or ``async with`` to let go early.

    Holds a snapshot from the first item to the last, to the end of the ``async with``, or until
    it is dropped.
    """

    def __init__(
        self,
        database: Database,
        snapshot: Snapshot | None,
        operation: Operation,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        database.ensure_open()
        self._own = database.engine.snapshot(operation.name) if snapshot is None else None
        pinned = self._own or snapshot
        assert pinned is not None
        self._items: Iterator[Any] | None = None
        try:
            self._items = operation.function(pinned.read(), *args, **kwargs)
        except BaseException:
            self._release()
            raise
        self._pace_until = 0.0

    def _release(self) -> None:
        self._items = None
        if self._own is not None:
            self._own.close()
            self._own = None

    def __del__(self) -> None:
        if getattr(self, "_own", None) is not None:
            self._release()

    def __aiter__(self) -> EmbeddedStream:
        return self

    async def __anext__(self) -> Any:
        if time.perf_counter() > self._pace_until:
            await trio.lowlevel.checkpoint()
            self._pace_until = time.perf_counter() + PACE_S
        items = self._items
        if items is None:
            raise StopAsyncIteration
        try:
            return next(items)
        except StopIteration:
            self._release()
            raise StopAsyncIteration from None

    async def __aenter__(self) -> EmbeddedStream:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._release()
