"""The part of the database that edges call: operations with encoded parameters and results."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio

from actors.embedded import SLICE_RESERVE, InlineReader, in_thread, pin
from actors.encoding import Batches, Submitted, encode, encoded
from actors.feeds import EncodedFeed
from actors.host import Done, EncodedStream, HostSnapshot, HostTransaction, Submission
from actors.host_transaction import LONG_SIZE_BYTES, EncodedTransaction
from actors.mail import Call
from actors.tuning import collector_paused
from treestore.engine.snapshot import Snapshot
from treestore.engine.transaction import OverBudget, WriteTransaction
from treestore.errors import TreeStoreError
from treestore.stores.changes.position import FeedPosition
from treestore.stores.deduplication import Deduplication
from treestore.stores.operation import Operation
from treestore.stores.security.audit import audited_here

if TYPE_CHECKING:
    from actors.database import Database


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
        if operation.long:
            return None
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
            return encoded(operation.function(txn, **operation.arguments(parameters)))
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
            lambda txn: encoded(operation.function(txn, **arguments)),
            raw=True,
        )
        return result

    async def awaited(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes:
        """See `Host.awaited`."""
        given = None if snapshot is None else _pinned(snapshot)
        reader = self._database.reader(given, raw=True)
        return encode(await operation.function(reader, **operation.arguments(parameters)))

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
            yield Batches(items, pinned, partial(operation.cursor_after, arguments))
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

    def open_transaction(
        self, owner: str, timeout_s: float, ended: Callable[[TreeStoreError], None]
    ) -> HostTransaction:
        """See `Host.open_transaction`."""
        database = self._database
        return EncodedTransaction(database, database.transactions.begin(owner, timeout_s, ended))

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
        mail = Submitted(
            audited_here(operation),
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
        run: Callable[[WriteTransaction], bytes] = lambda txn: encode(apply(txn))  # noqa: E731
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
        arguments = operation.arguments(parameters)
        if operation.audited:
            return encode(await self._database.audited_action(operation, arguments))
        return encode(await operation.function(self, **arguments))


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


def _pinned(snapshot: HostSnapshot) -> Snapshot:
    assert isinstance(snapshot, Snapshot)
    return snapshot
