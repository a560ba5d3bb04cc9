"""Operations, run for HTTP: JSON in, JSON out.

Parameters become the operation's own struct, the one that the wire uses, and the host runs it as
it runs those of TCP. So what is checked there is checked here, and nothing is defined twice.

JSON has no bytes: they travel as base64 (RFC 4648, with padding). Dates and times are strings of
ISO 8601.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import msgspec
import trio

from actors.host import EncodedStream, Host, HostSnapshot, Submission
from actors.http.access import Context
from actors.http.bodies import wrong
from actors.http.problems import problem
from actors.http.replies import LinesReply, Reply
from actors.misfits import misfit
from treestore.errors import DeadlineExceeded, InvalidArgument, TreeStoreError, Unavailable
from treestore.stores.operation import Operation

encode = msgspec.json.Encoder().encode

BATCH_SIZE_BYTES = 64 * 1024
BATCH_COUNT = 1000

FEED_LOOK_S = 1.0
"""How often a feed that has nothing to say looks whether the server stops."""

FEED_SILENCE_S = 15.0
"""A feed that has had nothing to say for so long sends an empty line, to see who is there."""


Encoded = bytes | memoryview


def to_json(result: Encoded) -> bytes:
    """An encoded result as JSON."""
    return encode(msgspec.msgpack.decode(result))


@attrs.frozen(kw_only=True)
class Runner:
    """Runs operations by name.

    Attributes:
        operations: those there are. One that is not there (yet) is answered with 501.
        timeout_s: see `HttpSettings.request_timeout_s`.
        stopping: whether the server is.
    """

    host: Host
    operations: Mapping[str, Operation]
    timeout_s: float
    stopping: Callable[[], bool]

    def find(self, name: str) -> Operation:
        """The operation called ``name``.

        Raises:
            Problem: 501: this server has none.
        """
        operation = self.operations.get(name)
        if operation is None:
            raise problem(501, f"This server has no {name} yet.")
        return operation

    def admit(
        self, context: Context, operation: Operation, arguments: Mapping[str, Any]
    ) -> msgspec.Struct:
        """The operation's parameters, if its caller may do that with them.

        Raises:
            InvalidArgument: they do not fit.
            PermissionDenied: the caller may not.
        """
        try:
            parameters = msgspec.convert(arguments, operation.parameters)
        except (msgspec.MsgspecError, RecursionError, ValueError, TypeError) as error:
            words = misfit(operation, error)
            if words is not None:
                raise InvalidArgument(words) from None
            raise wrong(f"request for {operation.name}", error) from None
        context.operation = operation.name
        context.principal.allow(operation, parameters)
        return parameters

    async def call(
        self,
        context: Context,
        name: str,
        arguments: Mapping[str, Any],
        *,
        snapshot: HostSnapshot | None = None,
    ) -> Encoded:
        """Run an operation that gives one result; returns that as msgpack."""
        operation = self.find(name)
        parameters = self.admit(context, operation, arguments)
        if operation.kind == "query":
            found = self.host.query_now(operation, parameters, snapshot)
            if found is not None:
                return found
            return await self._in_time(partial(self.host.query, operation, parameters, snapshot))
        if operation.kind == "awaited":
            return await self._in_time(partial(self.host.awaited, operation, parameters, snapshot))
        size_bytes = 0 if context.account is None else context.account.used_bytes
        deadline = trio.current_time() + self.timeout_s
        if operation.kind == "command":
            return await self._command(operation, parameters, size_bytes, deadline)
        if operation.kind == "prepared":
            return await self.host.prepared(
                operation, parameters, size_bytes=size_bytes, deadline=deadline
            )
        if operation.kind == "action":
            return await self._in_time(
                partial(self.host.action, operation, parameters), forever=operation.long
            )
        raise problem(406, f"{name} gives a stream: ask for it with Accept: application/x-ndjson.")

    async def _in_time(
        self, work: Callable[[], Awaitable[Encoded]], forever: bool = False
    ) -> Encoded:
        deadline = trio.current_time() + self.timeout_s
        with trio.CancelScope(deadline=float("inf") if forever else deadline) as scope:
            return await work()
        assert scope.cancelled_caught
        raise DeadlineExceeded(f"The request was not done after {self.timeout_s:g} seconds.")

    async def _command(
        self, operation: Operation, parameters: msgspec.Struct, size_bytes: int, deadline: float
    ) -> bytes:
        """Have the writer run a command. Taken back when it is cancelled, if not begun by then."""
        outcome: list[bytes | TreeStoreError] = []
        done = trio.Event()

        def tell(result: bytes | TreeStoreError) -> None:
            outcome.append(result)
            done.set()

        submission: Submission | None = None
        while submission is None:
            submission = self.host.submit(
                operation, parameters, tell, size_bytes=size_bytes, deadline=deadline
            )
            if submission is None:
                await self.host.wait_writable()
        try:
            await done.wait()
        except trio.Cancelled:
            submission.cancel()
            raise
        (result,) = outcome
        if isinstance(result, TreeStoreError):
            raise result
        return result

    async def reply(
        self,
        context: Context,
        name: str,
        arguments: Mapping[str, Any],
        *,
        snapshot: HostSnapshot | None = None,
    ) -> Reply:
        """Run an operation and answer with its result as JSON."""
        result = await self.call(context, name, arguments, snapshot=snapshot)
        return Reply(200, to_json(result))

    def lines(self, context: Context, name: str, arguments: Mapping[str, Any]) -> LinesReply:
        """Run a stream or feed and answer with its items as JSON lines."""
        operation = self.find(name)
        parameters = self.admit(context, operation, arguments)

        @asynccontextmanager
        async def opened() -> AsyncGenerator[AsyncIterator[bytes]]:
            async with self.host.stream(operation, parameters) as source:
                yield _Pieces(source, operation.kind == "feed", self.stopping)

        return LinesReply(opened)

    @contextlib.contextmanager
    def snapshot(self, owner: str) -> Generator[HostSnapshot]:
        """A pinned snapshot for several reads."""
        snapshot = self.host.open_snapshot(owner)
        try:
            yield snapshot
        finally:
            snapshot.close()


class _Pieces(AsyncIterator[bytes]):
    """The items of a stream, a batch at a time."""

    def __init__(self, source: EncodedStream, endless: bool, stopping: Callable[[], bool]) -> None:
        self._source = source
        self._endless = endless
        self._stopping = stopping

    async def __anext__(self) -> bytes:
        if not self._endless:
            batch = await self._source.next_batch(BATCH_SIZE_BYTES, BATCH_COUNT)
            if batch is None:
                raise StopAsyncIteration
            return as_lines(batch)
        silence_until = trio.current_time() + FEED_SILENCE_S
        while trio.current_time() < silence_until:
            if self._stopping():
                raise Unavailable("The server is stopping; watch on from here later.")
            with trio.move_on_after(FEED_LOOK_S):
                batch = await self._source.next_batch(BATCH_SIZE_BYTES, BATCH_COUNT)
                if batch is None:
                    raise StopAsyncIteration
                return _feed_lines(batch)
        return b"\n"


def as_lines(batch: list[bytes]) -> bytes:
    """Encoded items as lines of JSON."""
    return b"".join([to_json(item) + b"\n" for item in batch])


def _feed_lines(batch: list[bytes]) -> bytes:
    """The same of a feed, whose positions between the items become objects too."""
    items = map(msgspec.msgpack.decode, batch)
    return b"".join(
        [encode({"position": item} if isinstance(item, str) else item) + b"\n" for item in items]
    )
