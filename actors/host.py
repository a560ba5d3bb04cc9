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

    def feed_position(self, snapshot: HostSnapshot) -> tuple[int, str]:
        """The LSN of a snapshot's state, and the position of a feed behind it."""
        ...
