"""A database for tests of the wire: a dict behind the `Host` protocol, with knobs.

Commands are applied in the order submitted: at once, or when a test calls `run_commands` if
``hold_commands`` is set, so that tests can look at every moment of a command's life.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

import treestore.stores.kv  # noqa: F401 - defines the operations
from actors.host import Done, HostSnapshot, HostTransaction
from treestore.errors import (
    DeadlineExceeded,
    OutcomeUnknown,
    SnapshotExpired,
    TreeStoreError,
    Unavailable,
)
from treestore.stores.deduplication import Deduplication
from treestore.stores.operation import Operation

_encode = msgspec.msgpack.encode


class FakeTransaction:
    """`Read` and `Write` over a dict."""

    def __init__(self, data: dict[bytes, bytes]) -> None:
        self.data = data
        self.snapshot_number = 0

    def get(self, key: bytes) -> bytes | None:
        return self.data.get(key)

    def contains(self, key: bytes) -> bool:
        return key in self.data

    def put(self, key: bytes, value: bytes) -> None:
        self.data[key] = value

    def put_sorted(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        self.data.update(items)

    def delete(self, key: bytes) -> bool:
        return self.data.pop(key, None) is not None

    def scan(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self.data, reverse=reverse):
            if key >= start and (end is None or key < end):
                yield key, self.data[key]

    def batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        for key, value in self.scan(start, end, reverse=reverse):
            yield [key], [value]


class FakeSnapshot:
    def __init__(self, host: FakeHost, owner: str) -> None:
        self.data = dict(host.data)
        self.number = host.commits
        self.owner = owner
        self.closed = False
        self._host = host
        host.snapshots.add(self)

    def close(self) -> None:
        self.closed = True
        self._host.snapshots.discard(self)


class FakeSubmission:
    def __init__(self, host: FakeHost, operation: Operation, parameters: Any, done: Done) -> None:
        self.host = host
        self.operation = operation
        self.parameters = parameters
        self.done = done
        self.deduplication: Deduplication | None = None
        self.deadline: float | None = None

    def cancel(self) -> bool:
        if self in self.host.waiting:
            self.host.waiting.remove(self)
            return True
        return False


class FakeStream:
    def __init__(self, host: FakeHost, items: Iterator[Any]) -> None:
        self._items = items
        self._host = host

    async def next_batch(self, size_bytes_max: int, count_max: int) -> list[bytes] | None:
        await trio.lowlevel.checkpoint()
        batch: list[bytes] = []
        size = 0
        while len(batch) < count_max and size < size_bytes_max:
            item = next(self._items, None)
            if item is None:
                break
            self._host.streamed += 1
            batch.append(_encode(item))
            size += len(batch[-1])
        return batch or None


class FakeHost:
    """Implements `actors.host.Host`."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.commits = 0
        self.applied: list[str] = []
        self.answers: dict[tuple[bytes, int], bytes] = {}
        self.forget_answers = False
        self.hold_commands = False
        self.cold_queries = False
        self.query_gate: trio.Event | None = None
        self.fail_queries_with: Exception | None = None
        self.mailbox_max = 1000
        self.waiting: list[FakeSubmission] = []
        self.snapshots: set[FakeSnapshot] = set()
        self.streams = 0
        self.streamed = 0
        self._room = trio.Event()

    def put(self, key: bytes, value: bytes) -> None:
        self.data[b"\x01" + key] = value

    def query_now(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes | None:
        if self.fail_queries_with is not None:
            raise self.fail_queries_with
        if self.cold_queries:
            return None
        return self._read(operation, parameters, snapshot)

    async def query(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.query_gate is not None:
            await self.query_gate.wait()
        return self._read(operation, parameters, snapshot)

    def _read(self, operation: Operation, parameters: msgspec.Struct, snapshot: Any) -> bytes:
        if snapshot is not None and snapshot.closed:
            raise SnapshotExpired("closed")
        data = self.data if snapshot is None else snapshot.data
        result = operation.function(FakeTransaction(data), **operation.arguments(parameters))
        return _encode(result)

    def submit(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        done: Done,
        *,
        deduplication: Deduplication | None = None,
        size_bytes: int = 0,
        deadline: float | None = None,
    ) -> FakeSubmission | None:
        if len(self.waiting) >= self.mailbox_max:
            return None
        submission = FakeSubmission(self, operation, parameters, done)
        submission.deduplication = deduplication
        submission.deadline = deadline
        self.waiting.append(submission)
        if not self.hold_commands:
            self.run_commands()
        return submission

    def run_commands(self, count: int = -1) -> None:
        """Apply the first ``count`` waiting commands (all by default)."""
        while self.waiting and count != 0:
            count -= 1
            submission = self.waiting.pop(0)
            try:
                result: bytes | TreeStoreError = self._apply(submission)
            except TreeStoreError as error:
                result = error
            submission.done(result)
        self._room.set()

    def _apply(self, submission: FakeSubmission) -> bytes:
        if submission.deadline is not None and trio.current_time() >= submission.deadline:
            raise DeadlineExceeded("The deadline passed before the command was begun.")
        key = None
        if (deduplication := submission.deduplication) is not None:
            key = (deduplication.session, deduplication.sequence)
            if key in self.answers:
                if self.forget_answers:
                    raise OutcomeUnknown("The answer was forgotten.")
                return self.answers[key]
            for old in [
                k for k in self.answers if k[0] == key[0] and k[1] < deduplication.watermark
            ]:
                del self.answers[old]
        operation = submission.operation
        result = _encode(
            operation.function(
                FakeTransaction(self.data), **operation.arguments(submission.parameters)
            )
        )
        self.applied.append(operation.name)
        self.commits += 1
        if key is not None:
            self.answers[key] = result
        return result

    async def wait_writable(self) -> None:
        while len(self.waiting) >= self.mailbox_max:
            self._room = trio.Event()
            await self._room.wait()
        await trio.lowlevel.checkpoint()

    async def prepared(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        *,
        deduplication: Deduplication | None = None,
        size_bytes: int = 0,
        deadline: float | None = None,
    ) -> bytes:
        await trio.lowlevel.checkpoint()
        work = operation.function(**operation.arguments(parameters))
        return _encode(work(FakeTransaction(self.data)))

    async def awaited(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> bytes:
        raise Unavailable("There is nothing to search here.")

    async def action(self, operation: Operation, parameters: msgspec.Struct) -> bytes:
        return _encode(await operation.function(self, **operation.arguments(parameters)))

    @asynccontextmanager
    async def stream(
        self,
        operation: Operation,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
    ) -> AsyncGenerator[FakeStream]:
        data = dict(self.data) if snapshot is None else snapshot.data  # type: ignore[attr-defined]
        self.streams += 1
        try:
            batches = operation.function(FakeTransaction(data), **operation.arguments(parameters))
            yield FakeStream(self, (item for batch in batches for item in batch))
        finally:
            self.streams -= 1

    def feed_position(self, snapshot: HostSnapshot) -> tuple[int, str]:
        return 0, "00000000-1-0"

    def open_snapshot(self, owner: str) -> FakeSnapshot:
        return FakeSnapshot(self, owner)

    def open_transaction(
        self, owner: str, timeout_s: float, ended: Callable[[TreeStoreError], None]
    ) -> HostTransaction:
        raise NotImplementedError("Transactions are tested on a real database.")
