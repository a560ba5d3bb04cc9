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

from actors.feeds import EmbeddedFeed
from actors.mail import Call
from treestore.engine.snapshot import LeasedRead, Snapshot
from treestore.engine.transaction import OverBudget, ReadTransaction
from treestore.errors import InvalidArgument
from treestore.services import Services
from treestore.stores.changes.position import FeedPosition
from treestore.stores.operation import Async, Operation, ReadOnly
from treestore.stores.security.audit import audited_here

if TYPE_CHECKING:
    from actors.database import Database

SLICE_BUDGET = 500
"""Look-ups and leaves that may be spent on the event loop between two checkpoints: about a
millisecond. A budget rather than a clock: reading the clock costs a tenth of a look-up."""

SLICE_RESERVE = 100
"""A query begins with at least this much; with less left it waits for the next slice."""

PACE_S = 0.001
"""The same for streams, whose items differ too much in size to be counted."""

LONG_ITEMS = 200
"""A command with a list longer than this is run on a thread."""


class InlineReader:
    """The transaction that queries on the event loop use one after the other.

    Its budget lasts for a slice of work; `next_slice` starts another one.
    """

    __slots__ = ("_database", "txn")

    def __init__(self, database: Database, *, raw: bool) -> None:
        self._database = database
        budget = SLICE_BUDGET if database.is_open else -1
        self.txn = database.engine.read(budget=budget, raw=raw)
        database.inline_readers.append(self)

    def end_slice(self) -> None:
        """Account for what was spent, and allow as much again."""
        txn = self.txn
        self._database.engine.pages.cache.lookups += SLICE_BUDGET - max(txn.budget, 0)
        txn.budget = SLICE_BUDGET

    def forbid(self) -> None:
        """The database is closed: make the next query notice."""
        self.txn.budget = -1

    async def next_slice(self) -> None:
        """Let the other tasks run, and see whether this one was cancelled."""
        self._database.ensure_open()
        await trio.lowlevel.checkpoint()
        self.end_slice()


class EmbeddedCaller:
    """Binds operations to a `Database`, or to one snapshot of it."""

    def __init__(self, database: Database, snapshot: Snapshot | None = None) -> None:
        self._database = database
        self._snapshot = snapshot
        self._reader: InlineReader | None = None

    def bind(self, operation: Operation) -> Callable[..., Any]:
        """The callable that stands behind ``db.service.method``."""
        if operation.kind == "query":
            return self._bind_query(operation)
        if operation.kind == "stream":
            return partial(EmbeddedStream, self._database, self._snapshot, operation)
        if operation.kind == "awaited":
            return self._bind_awaited(operation)
        if self._snapshot is not None:
            return _bind_refusal(operation)
        if operation.kind == "feed":
            return partial(EmbeddedFeed, self._database, operation)
        if operation.kind == "action":
            return self._bind_action(operation)
        if operation.kind == "prepared":
            return self._bind_prepared(operation)
        return self._bind_command(operation)

    def _bind_query(self, operation: Operation) -> Callable[..., Any]:
        function = operation.function
        database, snapshot = self._database, self._snapshot
        engine = database.engine
        if operation.long:
            return self._bind_long_query(function)
        if self._reader is None:
            self._reader = InlineReader(database, raw=False)
        next_slice = self._reader.next_slice
        txn = self._reader.txn

        async def query(*args: Any, **kwargs: Any) -> Any:
            if txn.budget < SLICE_RESERVE:
                await next_slice()
            txn.renew(snapshot.usable_root())  # type: ignore[union-attr]
            try:
                return function(txn, *args, **kwargs)
            except OverBudget:
                return await self._in_thread(function, args, kwargs)

        async def query_newest(*args: Any, **kwargs: Any) -> Any:
            if txn.budget < SLICE_RESERVE:
                await next_slice()
            # What `renew` does, without the call.
            txn.root = engine.durable.root
            txn.time = None
            try:
                return function(txn, *args, **kwargs)
            except OverBudget:
                return await self._in_thread(function, args, kwargs)

        return query_newest if snapshot is None else query

    def _bind_long_query(self, function: Callable[..., Any]) -> Callable[..., Any]:
        database = self._database

        async def query(*args: Any, **kwargs: Any) -> Any:
            database.ensure_open()
            return await self._in_thread(function, args, kwargs)

        return query

    async def _in_thread(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return await in_thread(
            self._database, self._snapshot, lambda txn: function(txn, *args, **kwargs), raw=False
        )

    def _bind_awaited(self, operation: Operation) -> Callable[..., Any]:
        function, database, snapshot = operation.function, self._database, self._snapshot

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await function(database.reader(snapshot, raw=False), *args, **kwargs)

        return awaited

    def _bind_command(self, operation: Operation) -> Callable[..., Any]:
        function, database = audited_here(operation), self._database

        async def command(*args: Any, **kwargs: Any) -> Any:
            database.ensure_open()
            long = operation.long or has_long_list(args, kwargs)
            return await database.writer.execute(Call(function, args, kwargs, long=long))

        return command

    def _bind_prepared(self, operation: Operation) -> Callable[..., Any]:
        function, database = operation.function, self._database

        async def prepared(*args: Any, **kwargs: Any) -> Any:
            database.ensure_open()
            apply = await database.threads.run(partial(function, *args, **kwargs))
            return await database.writer.execute(Call(apply, long=True))

        return prepared

    def _bind_action(self, operation: Operation) -> Callable[..., Any]:
        function, database = operation.function, self._database

        async def action(*args: Any, **kwargs: Any) -> Any:
            database.ensure_open()
            return await function(database, *args, **kwargs)

        return action


class EmbeddedSnapshot(Services[Async, ReadOnly]):
    """Read-only services that see one state of the database.

    Attributes:
        number: commit number of the state.
        lsn: of the last transaction in it; what a feed gives behind it is not in it.
        position: the same for a feed's ``from_lsn``, with the history that it belongs to.
    """

    def __init__(self, database: Database, snapshot: Snapshot) -> None:
        super().__init__(EmbeddedCaller(database, snapshot))
        self.number = snapshot.number
        self.lsn = snapshot.state.position.lsn
        self.position = str(FeedPosition.at(database.engine.identity, self.lsn))


def has_long_list(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether one of a command's arguments is too long for the event loop."""
    for argument in args:
        if isinstance(argument, _LISTS) and len(argument) > LONG_ITEMS:
            return True
    for argument in kwargs.values():
        if isinstance(argument, _LISTS) and len(argument) > LONG_ITEMS:
            return True
    return False


_LISTS = (list, tuple)


def _bind_refusal(operation: Operation) -> Callable[..., Any]:
    async def refuse(*_args: Any, **_kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise InvalidArgument(
            f"{operation.name} cannot be done on a snapshot, which is only read; call it on the "
            "database."
        )

    return refuse


async def in_thread(
    database: Database,
    snapshot: Snapshot | None,
    read: Callable[[ReadTransaction], Any],
    *,
    raw: bool,
) -> Any:
    """Run a read on a worker thread, on ``snapshot`` or the newest state, pinned meanwhile.

    Cancellation: the read notices within about a millisecond of its work, and ends.
    """
    lease = database.engine.snapshot("query") if snapshot is None else snapshot
    # Whoever holds the snapshot may let go of it meanwhile, or it may be evicted.
    lease.begin_read()
    try:
        txn = lease.read(raw=raw)
        txn.between_slices = database.threads.check_cancelled
        return await database.threads.run(lambda: read(txn), limiter=database.read_limiter)
    finally:
        lease.end_read()
        if snapshot is None:
            lease.close()


def read_at_once(database: Database, snapshot: Snapshot | None, *, raw: bool) -> ReadTransaction:
    """Reads ``snapshot``, or the newest state, on the event loop: what takes more look-ups than a
    slice of work has raises `OverBudget`."""
    txn = database.engine.read(budget=SLICE_BUDGET, raw=raw)
    if snapshot is not None:
        txn.renew(snapshot.usable_root())
    return txn


def pin(database: Database, snapshot: Snapshot | None, owner: str) -> Snapshot:
    """A lease of its own on ``snapshot``'s state, or on the newest; the caller closes it."""
    if snapshot is None:
        return database.engine.snapshot(owner)
    snapshot.usable_root()
    return database.engine.pin(snapshot.state, owner)


class EmbeddedStream:
    """Items of a stream operation: ``async for``, or ``async with`` to let go early.

    Holds a snapshot from the first item to the last, to the end of the ``async with``, or until
    it is dropped. Where that is evicted: `SnapshotExpired`, whose ``cursor`` says where to go on.
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
        self._database = database
        self._given = snapshot
        self._own: Snapshot | None = pin(database, snapshot, operation.name)
        self._batches: Iterator[list[Any]] | None = None
        self._items: Iterator[Any] = iter(())
        self._batch: list[Any] = []
        self._cursor = partial(operation.cursor_after, kwargs)
        try:
            self._read = self._open_read()
            self._batches = operation.function(self._read, *args, **kwargs)
        except BaseException:
            self._release()
            raise
        self._pace_until = 0.0

    def _open_read(self) -> LeasedRead:
        assert self._own is not None
        return self._own.read()

    def _release(self) -> None:
        self._batches = None
        if self._own is not None:
            self._database.engine.pages.cache.lookups += self._read.spent
            self._own.close()
            self._own = None

    def __del__(self) -> None:
        if getattr(self, "_own", None) is not None:
            self._release()

    def __aiter__(self) -> EmbeddedStream:
        return self

    async def __anext__(self) -> Any:
        for item in self._items:
            return item
        return await self._next_batch()

    async def _next_batch(self) -> Any:
        """The first item of the next batch; once a millisecond other tasks run before it.

        A batch may be empty: whoever gives it looks for items that are rare.
        """
        while True:
            if time.perf_counter() > self._pace_until:
                await trio.lowlevel.checkpoint()
                self._pace_until = time.perf_counter() + PACE_S
            if self._batches is None:
                raise StopAsyncIteration
            self._ensure_usable()
            batch = next(self._batches, None)
            if batch is None:
                self._release()
                raise StopAsyncIteration
            self._items = iter(batch)
            self._batch = batch or self._batch
            for item in self._items:
                return item

    def _ensure_usable(self) -> None:
        """Raise `SnapshotExpired`, with where to go on, once the state may not be read any more.

        Everything of the last batch was delivered before.
        """
        for lease in (self._given, self._own):
            if lease is not None and (lease.closed or lease.evicted is not None):
                cursor = self._cursor(self._batch)
                self._release()
                lease.ensure_usable(cursor)

    async def __aenter__(self) -> EmbeddedStream:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._release()
