"""Operations of edges: what goes in and out of them is msgpack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import trio

from actors.embedded import PACE_S
from actors.host import Done
from actors.mail import Mail
from treestore.engine.snapshot import Snapshot
from treestore.engine.transaction import WriteTransaction
from treestore.errors import InternalError, TreeStoreError
from treestore.stores.deduplication import Deduplication, Sessions

encode = msgspec.msgpack.Encoder().encode


def encoded(result: Any) -> bytes | memoryview:
    """A query's result as msgpack. A stored record is that already: it is not copied."""
    return memoryview(result) if result.__class__ is msgspec.Raw else encode(result)


class Submitted(Mail):
    """A command of an edge, which is told with a call."""

    __slots__ = ("_arguments", "_deduplication", "_done", "_function", "_sessions")

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        done: Done,
        deduplication: Deduplication | None,
        sessions: Sessions,
        size: int,
        deadline: float | None,
        long: bool,
    ) -> None:
        super().__init__(size, deadline, long, True)
        self._function = function
        self._arguments = arguments
        self._done = done
        self._deduplication = deduplication
        self._sessions = sessions

    def run(self, transaction: WriteTransaction) -> bytes:
        """See `Mail.run`."""
        request = self._deduplication
        if request is None:
            return encode(self._function(transaction, **self._arguments))
        return self._sessions.run(transaction, request, self._function, self._arguments)

    def fail(self, error: Exception) -> None:
        """See `Mail.fail`."""
        super().fail(error)
        if self._deduplication is not None:
            self._sessions.forget(self._deduplication.session)

    def report(self) -> None:
        """See `Mail.report`."""
        self._done(self.result if self.error is None else typed(self.error))


def typed(error: Exception) -> TreeStoreError:
    """The error that an edge is told of."""
    if isinstance(error, TreeStoreError):
        return error
    fault = InternalError(f"The command failed unexpectedly: {type(error).__name__}: {error}")
    fault.__cause__ = error
    return fault


class Batches:
    """Implements `EncodedStream` over the lists that a stream operation gives."""

    def __init__(
        self,
        batches: Iterator[list[Any]],
        lease: Snapshot,
        cursor: Callable[[list[Any]], bytes | None],
    ) -> None:
        self._batches = batches
        self._lease = lease
        self._cursor = cursor
        self._batch: list[Any] = []
        self._items: Iterator[Any] = iter(())

    async def next_batch(self, size_bytes_max: int, count_max: int) -> list[bytes] | None:
        """See `EncodedStream.next_batch`. At most about a millisecond of work at a time."""
        await trio.lowlevel.checkpoint()
        until = time.perf_counter() + PACE_S
        encoded: list[bytes] = []
        size = 0
        while True:
            for item in self._items:
                encoded.append(encode(item))
                size += len(encoded[-1])
                if size >= size_bytes_max or len(encoded) >= count_max:
                    return encoded
            if encoded and (self._lease.evicted is not None or time.perf_counter() > until):
                return encoded
            if self._lease.evicted is not None:
                # Everything of the last batch is on its way.
                self._lease.ensure_usable(self._cursor(self._batch))
            if not encoded and time.perf_counter() > until:
                # Whoever gives the batches looks for items that are rare.
                await trio.lowlevel.checkpoint()
                until = time.perf_counter() + PACE_S
            batch = next(self._batches, None)
            if batch is None:
                return encoded or None
            self._items = iter(batch)
            self._batch = batch or self._batch
