"""A database on the other end of a connection: the same services as an embedded one."""

from __future__ import annotations

import abc
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from protocol.messages import EMPTY_MAP
from treestore.client.breaker import Breaker
from treestore.client.calls import ConnectionLost, Deduplicate
from treestore.client.connection import AnyConnection, Target
from treestore.client.pool import Pool
from treestore.client.runtime import current_runtime
from treestore.client.stream import RemoteStream
from treestore.client.watch import Place, RemoteFeed
from treestore.errors import InvalidArgument, SnapshotExpired
from treestore.retrying import ATTEMPTS, TRANSACTION_TIMEOUT_S, Attempts, run_again
from treestore.services import Services
from treestore.stores.changes.service import Watching
from treestore.stores.json_values import check_values, encode, reason_of
from treestore.stores.operation import READS, Async, Operation, ReadOnly, ReadWrite

if TYPE_CHECKING:
    from treestore.client.transaction import RemoteTransaction

T = TypeVar("T")


def encoded(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> msgspec.Raw:
    """The parameters of a call as they are sent."""
    return _packed(operation, _parameters(operation, args, kwargs))


def _parameters(
    operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> msgspec.Struct:
    """The parameters of a call, none of which the encoder would make something else of."""
    # A wrong call is a TypeError here, as it would be on a plain function.
    parameters = operation.encode_parameters(args, kwargs)
    for name in operation.unwired:
        value = getattr(parameters, name)
        if type(value) not in _SIMPLE:
            if isinstance(value, Iterable) and not isinstance(value, _WHOLE):
                value = list(value)
                setattr(parameters, name, value)
            check_values(value, name)
    return parameters


_SIMPLE = frozenset({str, int, float, bool, bytes, type(None), msgspec.UnsetType})
"""Types of values that need no look."""

_WHOLE = (str, bytes, bytearray, memoryview, list, tuple, set, frozenset, dict)
"""What can be gone through, and is not on that account sent as a list."""


def _packed(operation: Operation, parameters: msgspec.Struct) -> msgspec.Raw:
    try:
        return msgspec.Raw(encode(parameters))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidArgument(
            f"The arguments of {operation.name} cannot be sent: one holds {reason_of(error)}."
        ) from None


Send = Callable[[msgspec.Raw], Coroutine[Any, Any, msgspec.Raw]]
"""Sends the encoded parameters of an operation; gives the encoded result."""


class ClientCaller(abc.ABC):
    """What stands behind the services of a client: `treestore.stores.operation.Caller`.

    A subclass says how the parameters of an operation get to the server, which is all that a
    pool, a snapshot and a transaction differ in. The blocking client binds the same ones.
    """

    @property
    @abc.abstractmethod
    def pool(self) -> Pool:
        """The connections."""

    @abc.abstractmethod
    def sender(self, operation: Operation) -> Send:
        """How the operation is sent."""

    @abc.abstractmethod
    async def connection(self) -> AnyConnection:
        """The connection to open a stream on."""

    @property
    def snapshot(self) -> int | None:
        """The snapshot that streams are of, on that connection; None: each has its own."""
        return None

    def bind(self, operation: Operation) -> Callable[..., Any]:
        """A callable with the operation's parameters."""
        if operation.kind == "stream":

            def stream(*args: Any, **kwargs: Any) -> RemoteStream[Any]:
                return self.stream(operation, encoded(operation, args, kwargs), kwargs)

            return stream
        if operation.kind == "feed":
            return partial(self.feed, operation)
        send, decode = self.sender(operation), decoder_of(operation)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return decode(await send(encoded(operation, args, kwargs)))

        return call

    def feed(self, operation: Operation, *args: Any, **kwargs: Any) -> RemoteFeed[Any]:
        """A feed with these parameters, not yet begun."""
        parameters = _parameters(operation, args, kwargs)
        place: Place[Any] = Place(parameters, partial(_packed, operation), operation.result)
        return RemoteFeed(self.pool, operation.name, place)

    def stream(
        self, operation: Operation, params: msgspec.Raw, arguments: dict[str, Any]
    ) -> RemoteStream[Any]:
        """A stream with these parameters, not yet begun."""
        return RemoteStream(
            self.pool.runtime,
            self.connection,
            operation.name,
            params,
            decoder_of(operation),
            snapshot=self.snapshot,
            timeout_s=self.pool.timeout_s,
            cursor=partial(operation.cursor_after, arguments),
        )


@cache
def decoder_of(operation: Operation) -> Callable[[Any], Any]:
    """Decodes a result of the operation, or an item of the stream."""
    decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(operation.result)
    return decoder.decode


class RemoteCaller(ClientCaller):
    """Over a pool of connections: each call on whichever has the least to do."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def pool(self) -> Pool:
        """The connections."""
        return self._pool

    def sender(self, operation: Operation) -> Send:
        """How the operation is sent."""
        if operation.kind in READS:
            return partial(self._pool.query, operation.name)
        return partial(self._pool.command, operation)

    async def connection(self) -> AnyConnection:
        """The connection to open a stream on."""
        return await self._pool.connection(self._pool.deadline())


class SnapshotCaller(ClientCaller):
    """Reads see one snapshot, which lives on one connection; commands are refused."""

    def __init__(self, pool: Pool, connection: AnyConnection, snapshot: int) -> None:
        self._pool = pool
        self._connection = connection
        self._snapshot = snapshot
        self.closed = False

    @property
    def pool(self) -> Pool:
        """The connections."""
        return self._pool

    @property
    def snapshot(self) -> int:
        """Its number on the connection."""
        return self._snapshot

    def sender(self, operation: Operation) -> Send:
        """How the operation is sent."""
        name = operation.name

        async def query(params: msgspec.Raw) -> msgspec.Raw:
            if operation.kind not in READS:
                raise InvalidArgument(f"{name} cannot be done on a snapshot, which is only read.")
            connection = await self.connection()
            try:
                return await connection.call(
                    name, params, self._pool.deadline(), snapshot=self._snapshot
                )
            except ConnectionLost as lost:
                raise _gone(str(lost)) from lost

        return query

    async def connection(self) -> AnyConnection:
        """The snapshot's own."""
        if self.closed:
            raise SnapshotExpired("This snapshot was closed.")
        if self._connection.lost:
            raise _gone("The connection was lost.")
        return self._connection


def _gone(why: str) -> SnapshotExpired:
    return SnapshotExpired(f"The snapshot is gone with its connection; open a new one. {why}")


class Opened(msgspec.Struct):
    """The answer of ``session.open_snapshot``."""

    snapshot: int
    number: int
    lsn: int = 0
    position: str = ""


class RemoteSnapshot(Services[Async, ReadOnly]):
    """Read-only services that see one state of the database.

    Attributes:
        number: commit number of the state.
        lsn: of the last transaction in it; what a feed gives behind it is not in it.
        position: the same for a feed's ``from_lsn``, with the history that it belongs to.
    """

    def __init__(self, caller: SnapshotCaller, opened: Opened) -> None:
        super().__init__(caller)
        self.number = opened.number
        self.lsn = opened.lsn
        self.position = opened.position


class RemoteDatabase(Services[Async, ReadWrite], Watching[Async, ReadWrite]):
    """A database on a server. Made by `connect`; belongs to one event loop."""

    def __init__(self, pool: Pool) -> None:
        caller = RemoteCaller(pool)
        Services.__init__(self, caller)
        Watching.__init__(self, caller)
        self._pool = pool

    @property
    def pool(self) -> Pool:
        """The connections."""
        return self._pool

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[RemoteSnapshot, None]:
        """Services that all see the state of this moment.

        The snapshot lives on one connection; if that is lost, reads raise `SnapshotExpired`.
        """
        async with open_snapshot(self._pool) as (caller, opened):
            yield RemoteSnapshot(caller, opened)

    def transaction(
        self, *, timeout: float = TRANSACTION_TIMEOUT_S
    ) -> AbstractAsyncContextManager[RemoteTransaction]:
        """The services, inside one transaction: ``async with db.transaction() as txn``.

        Everything that ``txn`` reads is of one state, with its own writes. Leaving the block
        commits, and what was written is then durable; an exception or cancellation rolls back.
        Transactions are strictly serialisable. Calls of several tasks inside one are run one after
        the other. Within ``txn``, ``admin`` is not to be had. It lives on one connection: if that
        is lost, it is rolled back.

        Args:
            timeout: seconds after which it is rolled back, wherever it stands.

        Raises:
            TransactionConflict: at the exit: another transaction was committed meanwhile and
                changed what this one read. Nothing was changed; run it again, or use
                `run_transaction`, which does that.
            DeadlineExceeded: its time was up; nothing was changed.
            SnapshotExpired: its snapshot was evicted, or its connection lost; nothing was changed.
            ResourceExhausted: too many transactions are open, or this one writes too much.
            OutcomeUnknown: the connection was lost while the commit was on its way, and the server
                could not be asked since; or writing its log failed.
            Exception: what the body raised, as it is.
        """
        from treestore.client.transaction import OpenTransaction, RemoteTransaction

        return OpenTransaction(self._pool, timeout, RemoteTransaction)

    async def run_transaction(
        self,
        function: Callable[[RemoteTransaction], Awaitable[T]],
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
        pool = self._pool
        return await run_again(
            lambda: self.transaction(timeout=timeout),
            function,
            Attempts(attempts, pool.target.random),
            pool.runtime.sleep,
        )


@asynccontextmanager
async def open_snapshot(pool: Pool) -> AsyncGenerator[tuple[SnapshotCaller, Opened], None]:
    """A caller on a snapshot of this moment, and what the server says of that."""
    deadline = pool.deadline()
    while True:
        connection = await pool.connection(deadline)
        try:
            raw = await connection.call("session.open_snapshot", EMPTY_MAP, deadline)
            break
        except ConnectionLost:
            await pool.runtime.checkpoint()
    opened = msgspec.msgpack.decode(raw, type=Opened)
    caller = SnapshotCaller(pool, connection, opened.snapshot)
    try:
        yield caller, opened
    finally:
        caller.closed = True
        params = msgspec.Raw(encode({"snapshot": opened.snapshot}))
        connection.post("session.close_snapshot", params)


@asynccontextmanager
async def connect(
    address: str,
    *,
    api_key: str | None = None,
    connections: int = 2,
    timeout: float = 30.0,
    tls: ssl.SSLContext | None = None,
    deduplicate: Deduplicate = "all",
    breaker_failures: int = 10,
    breaker_pause: float = 5.0,
    wait_when_limited: bool = False,
) -> AsyncGenerator[RemoteDatabase, None]:
    """Connect to a server: ``async with connect("127.0.0.1:7707") as db``.

    For trio and asyncio programs alike: it uses the event loop that runs the caller.

    Args:
        address: ``host:port``; ``[::1]:7707`` for IPv6.
        api_key: needed where the server has keys.
        connections: connections to keep open; callers share them.
        timeout: seconds that a call may take, lost connections and retries included. An
            enclosing `trio.fail_after` or `asyncio.timeout` that ends earlier counts as well.
        tls: speak TLS with this context.
        deduplicate: which commands are sent under a number, so that a retry after a lost
            connection is applied once. ``"not_idempotent"`` leaves out those that give the same
            end state when they are applied twice (``kv.put``): cheaper for the server, but a
            retry may then undo what another client wrote in between.
        breaker_failures: after so many attempts to connect that failed in a row calls fail at
            once; 0: they always wait until their time is up.
        breaker_pause: seconds between two attempts from then on.
        wait_when_limited: single calls beyond the server's rate limit wait until it takes them,
            within their ``timeout``, in place of raising `RateLimited`. (Streams and calls inside
            a transaction raise it.)

    Raises:
        Unavailable: the server cannot be reached.
        Unauthenticated: the API key is missing or unknown.
        Exception: what the body raised, as it is, never in a group.

    Resource handling: the connections are closed at the exit; calls that are still under way in
    other tasks raise `Unavailable`.
    """
    target = target_of(address, api_key, tls)
    breaker = Breaker(breaker_failures, breaker_pause)
    opening = connect_to(
        target, connections, timeout, deduplicate, breaker, wait_when_limited=wait_when_limited
    )
    async with opening as database:
        yield database


@asynccontextmanager
async def connect_to(
    target: Target,
    connections: int,
    timeout: float,
    deduplicate: Deduplicate = "all",
    breaker: Breaker | None = None,
    *,
    wait_when_limited: bool = False,
) -> AsyncGenerator[RemoteDatabase, None]:
    """`connect` to a target that is put together already."""
    pool = Pool(
        current_runtime(),
        target,
        connections=connections,
        timeout_s=timeout,
        deduplicate=deduplicate,
        breaker=breaker,
        wait_when_limited=wait_when_limited,
    )
    async with pool.serve():
        yield RemoteDatabase(pool)


def target_of(address: str, api_key: str | None, tls: ssl.SSLContext | None) -> Target:
    """Where ``host:port`` is.

    Raises:
        InvalidArgument: it is not of that form.
    """
    host, port = parse_address(address)
    return Target(host=host, port=port, api_key=api_key, tls=tls)


def parse_address(address: str) -> tuple[str, int]:
    """``host:port`` as a pair.

    Raises:
        InvalidArgument: it is not of that form.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"An address is host:port, such as 127.0.0.1:7707, not {address!r}.")
    return host, int(port)
