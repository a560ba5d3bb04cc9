"""What an edge (TCP session, HTTP) needs of the running database.

`actors.database.Database` is the real one. Everything here is called on the event loop's thread.
Results cross this boundary encoded (msgpack), since an edge sends them on as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from treestore.errors import TreeStoreError
from treestore.stores.deduplication import Deduplication
from treestore.stores.operation import Operation

Done = Callable[[bytes | TreeStoreError], None]
"""Called once on the event loop with the encoded result or the error; must not raise or block."""


class Submission(Protocol):
    """A command that was handed to the writer."""

    def cancel(self) -> bool:
        """Take it back: True where the writer had not begun it (``done`` is never called)."""
        ...


class EncodedStream(Protocol):
    """Items of a stream operation, all of one snapshot, pinned while the context is open; or of a
    feed, which has no end."""

    async def next_batch(self, size_bytes_max: int, count_max: int) -> list[bytes] | None:
        """The next items, each encoded; None at the end. At least one item unless at the end.

        Raises:
            SnapshotExpired: the snapshot was evicted; ``cursor`` says where to go on.
        """
        ...


class HostSnapshot(Protocol):
    """A pinned snapshot that belongs to a session."""

    @property
    def number(self) -> int:
        """Commit number that it shows."""
        ...

    def close(self) -> None:
        """Let go of it; closing twice is harmless."""
        ...


class HostTransaction(Protocol):
    """An interactive transaction that belongs to a session."""

    def run_now(
        self, operation: Operation, parameters: msgspec.Struct, size_bytes: int
    ) -> bytes | memoryview | None:
        """Run a query or command inside it at once; None where that must wait: then await `run`.

        Args:
            size_bytes: size of the encoded parameters.
        """
        ...

    async def run(
        self, operation: Operation, parameters: msgspec.Struct, size_bytes: int
    ) -> bytes | memoryview:
        """Run a query, command or two-stage command, or a read that may have to wait, inside it,
        after the calls before it."""
        ...

    def stream(
        self, operation: Operation, parameters: msgspec.Struct
    ) -> AbstractAsyncContextManager[EncodedStream]:
        """Open a stream inside it."""
        ...

    def begin_commit(self) -> bool | None:
        """Take no more calls, to be followed by `submit`; or False where there is nothing to
        commit, and it is over; or None where this must wait: then await `commit` instead."""
        ...

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
        """Hand the commit to the writer, as `Host.submit` does with a command."""
        ...

    async def commit(
        self, deduplication: Deduplication | None = None, deadline: float | None = None
    ) -> bytes:
        """Commit, however long it takes."""
        ...

    def abandon_commit(self) -> None:
        """There will be no `submit` after `begin_commit`; harmless after one."""
        ...

    def roll_back(self) -> bool:
        """Drop it; whether it was open."""
        ...


class Host(Protocol):
    """The database as edges see it."""

    def query_now(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes | memoryview | None:
        """Answer a query at once on the newest durable state (or ``snapshot``).

        Returns None where it needs more than the small budget of work that may be done on the
        event loop: then await `query`.
        """
        ...

    async def query(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes | memoryview:
        """Answer a query in a worker thread, on a snapshot pinned meanwhile."""
        ...

    async def awaited(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes:
        """Answer a read that may have to wait (``Awaited``); cancelling it is harmless."""
        ...

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
        """Hand a command to the writer; ``done`` is called once it is durable.

        Args:
            size_bytes: size of the encoded parameters, for the mailbox's budget.
            deadline: `trio.current_time` after which the writer must not begin it
                (`DeadlineExceeded`).

        Returns:
            None where the mailbox is full: await `wait_writable`, then submit again.
        """
        ...

    async def wait_writable(self) -> None:
        """Return once the writer's mailbox has room."""
        ...

    async def prepared(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        *,
        deduplication: Deduplication | None = None,
        size_bytes: int = 0,
        deadline: float | None = None,
    ) -> bytes:
        """Run a two-stage command (``Prepared``); returns once it is durable.

        Cancelling it before the writer began it means it is never applied.
        """
        ...

    async def action(self, operation: Operation, parameters: msgspec.Struct) -> bytes:
        """Run an ``Action`` (admin)."""
        ...

    def stream(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> AbstractAsyncContextManager[EncodedStream]:
        """Open a stream."""
        ...

    def open_snapshot(self, owner: str) -> HostSnapshot:
        """Pin the newest durable state."""
        ...

    def open_transaction(
        self, owner: str, timeout_s: float, ended: Callable[[TreeStoreError], None]
    ) -> HostTransaction:
        """Begin an interactive transaction on the newest durable state.

        Args:
            timeout_s: after so long it is rolled back.
            ended: called once when it is over, with what whoever uses it is told; must not raise.
        """
        ...

    def feed_position(self, snapshot: HostSnapshot) -> tuple[int, str]:
        """The LSN of a snapshot's state, and the position of a feed behind it."""
        ...
