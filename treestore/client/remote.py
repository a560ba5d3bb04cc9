"""A database on the other end of a connection: the same services as an embedded one."""

from __future__ import annotations

import importlib
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from protocol.messages import EMPTY_MAP
from treestore.client.calls import ConnectionLost, Deduplicate
from treestore.client.connection import Connection, Target
from treestore.client.pool import Pool
from treestore.client.stream import RemoteStream
from treestore.client.watch import Place, RemoteFeed
from treestore.errors import InvalidArgument, SnapshotExpired
from treestore.stores.changes.service import Watching
from treestore.stores.operation import Async, Operation, ReadOnly, ReadWrite

if TYPE_CHECKING:
    from treestore.stores.admin import Admin
    from treestore.stores.documents.service import Documents
    from treestore.stores.kv import KV
    from treestore.stores.versions.service import Versions

SERVICES = {
    "kv": ("treestore.stores.kv", "KV"),
    "documents": ("treestore.stores.documents.service", "Documents"),
    "versions": ("treestore.stores.versions.service", "Versions"),
    "admin": ("treestore.stores.admin", "Admin"),
}
"""Attribute of a database → module and class of the service."""


def _as_list(value: Any) -> list[Any]:
    """Whatever can be gone through travels as a list: a generator, a view of a dict's keys."""
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"one is a {type(value).__name__}.")


_encode = msgspec.msgpack.Encoder(enc_hook=_as_list).encode


def _encoded(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> msgspec.Raw:
    # A wrong call is a TypeError here, as it would be on a plain function.
    return _packed(operation, operation.encode_parameters(args, kwargs))


def _packed(operation: Operation, parameters: msgspec.Struct) -> msgspec.Raw:
    try:
        return msgspec.Raw(_encode(parameters))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, UnicodeEncodeError):
            reason = "one holds half of a surrogate pair, which is no character."
        elif isinstance(error, OverflowError):
            reason = "one holds a whole number of more than 64 bits."
        else:
            reason = str(error)
        raise InvalidArgument(
            f"The arguments of {operation.name} cannot be sent: {reason}"
        ) from None


class RemoteCaller:
    """`treestore.stores.operation.Caller` over a pool of connections."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def bind(self, operation: Operation) -> Callable[..., Any]:
        """A callable with the operation's parameters."""
        pool, name = self._pool, operation.name
        decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(operation.result)
        decode = decoder.decode

        if operation.kind == "stream":

            def stream(*args: Any, **kwargs: Any) -> RemoteStream[Any]:
                return RemoteStream(
                    lambda: pool.connection(pool.deadline()),
                    name,
                    _encoded(operation, args, kwargs),
                    decode,
                    snapshot=None,
                    timeout_s=pool.timeout_s,
                    cursor=partial(operation.cursor_after, kwargs),
                )

            return stream

        if operation.kind == "feed":
            item = operation.result

            def feed(*args: Any, **kwargs: Any) -> RemoteFeed[Any]:
                parameters = operation.encode_parameters(args, kwargs)
                return RemoteFeed(pool, name, Place(parameters, partial(_packed, operation), item))

            return feed

        if operation.kind == "query":

            async def query(*args: Any, **kwargs: Any) -> Any:
                return decode(await pool.query(name, _encoded(operation, args, kwargs)))

            return query

        async def command(*args: Any, **kwargs: Any) -> Any:
            return decode(await pool.command(operation, _encoded(operation, args, kwargs)))

        return command


class SnapshotCaller:
    """A `Caller` whose reads see one snapshot, which lives on one connection."""

    def __init__(self, pool: Pool, connection: Connection, snapshot: int) -> None:
        self._pool = pool
        self._connection = connection
        self._snapshot = snapshot
        self.closed = False

    def bind(self, operation: Operation) -> Callable[..., Any]:
        """A callable with the operation's parameters; commands are refused."""
        name = operation.name
        decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(operation.result)
        decode = decoder.decode

        if operation.kind == "stream":

            def stream(*args: Any, **kwargs: Any) -> RemoteStream[Any]:
                return RemoteStream(
                    self._here,
                    name,
                    _encoded(operation, args, kwargs),
                    decode,
                    snapshot=self._snapshot,
                    timeout_s=self._pool.timeout_s,
                    cursor=partial(operation.cursor_after, kwargs),
                )

            return stream

        async def query(*args: Any, **kwargs: Any) -> Any:
            if operation.kind != "query":
                raise InvalidArgument(f"{name} cannot be done on a snapshot, which is only read.")
            params = _encoded(operation, args, kwargs)
            connection = await self._here()
            try:
                raw = await connection.call(
                    name, params, self._pool.deadline(), snapshot=self._snapshot
                )
            except ConnectionLost as lost:
                raise _gone(str(lost)) from lost
            return decode(raw)

        return query

    async def _here(self) -> Connection:
        if self.closed:
            raise SnapshotExpired("This snapshot was closed.")
        if self._connection.lost:
            raise _gone("The connection was lost.")
        return self._connection


def _gone(why: str) -> SnapshotExpired:
    return SnapshotExpired(f"The snapshot is gone with its connection; open a new one. {why}")


def _services(caller: RemoteCaller | SnapshotCaller) -> dict[str, Any]:
    """Every service that this build has, bound to ``caller``."""
    services: dict[str, Any] = {}
    for attribute, (module_name, class_name) in SERVICES.items():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not module_name.startswith(error.name):
                raise  # The service is there, and something that it needs is not.
            continue
        services[attribute] = getattr(module, class_name)(caller)
    return services


class _Opened(msgspec.Struct):
    """The answer of ``session.open_snapshot``."""

    snapshot: int
    number: int
    lsn: int = 0
    position: str = ""


class RemoteSnapshot:
    """Read-only services that see one state of the database."""

    kv: KV[Async, ReadOnly]
    documents: Documents[Async, ReadOnly]
    versions: Versions[Async, ReadOnly]

    def __init__(self, caller: SnapshotCaller, opened: _Opened) -> None:
        self.number = opened.number
        """Commit number of the state."""
        self.lsn = opened.lsn
        """Of the last transaction in it; what a feed gives behind it is not in it."""
        self.position = opened.position
        """The same for a feed's ``from_lsn``, with the history that it belongs to."""
        self.__dict__.update(_services(caller))


class RemoteDatabase(Watching[Async, ReadWrite]):
    """A database on a server. Made by `connect`; belongs to one event loop."""

    kv: KV[Async, ReadWrite]
    documents: Documents[Async, ReadWrite]
    versions: Versions[Async, ReadWrite]
    admin: Admin[Async, ReadWrite]

    def __init__(self, pool: Pool) -> None:
        caller = RemoteCaller(pool)
        super().__init__(caller)
        self._pool = pool
        self.__dict__.update(_services(caller))

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[RemoteSnapshot, None]:
        """Services that all see the state of this moment.

        The snapshot lives on one connection; if that is lost, reads raise `SnapshotExpired`.
        """
        pool = self._pool
        deadline = pool.deadline()
        while True:
            connection = await pool.connection(deadline)
            try:
                raw = await connection.call("session.open_snapshot", EMPTY_MAP, deadline)
                break
            except ConnectionLost:
                continue
        opened = msgspec.msgpack.decode(raw, type=_Opened)
        caller = SnapshotCaller(pool, connection, opened.snapshot)
        try:
            yield RemoteSnapshot(caller, opened)
        finally:
            caller.closed = True
            params = msgspec.Raw(_encode({"snapshot": opened.snapshot}))
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
) -> AsyncGenerator[RemoteDatabase, None]:
    """Connect to a server: ``async with connect("127.0.0.1:7707") as db``.

    Args:
        address: ``host:port``; ``[::1]:7707`` for IPv6.
        api_key: needed where the server has keys.
        connections: connections to keep open; callers share them.
        timeout: seconds that a call may take, lost connections and retries included. An
            enclosing `trio.fail_after` that ends earlier counts as well.
        tls: speak TLS with this context.
        deduplicate: which commands are sent under a number, so that a retry after a lost
            connection is applied once. ``"not_idempotent"`` leaves out those that give the same
            end state when they are applied twice (``kv.put``): cheaper for the server, but a
            retry may then undo what another client wrote in between.

    Raises:
        Unavailable: the server cannot be reached.
        Unauthenticated: the API key is missing or unknown.
        Exception: what the body raised, as it is, never in a group.

    Resource handling: the connections are closed at the exit; calls that are still under way in
    other tasks raise `Unavailable`.
    """
    host, port = parse_address(address)
    target = Target(host=host, port=port, api_key=api_key, tls=tls)
    async with connect_to(target, connections, timeout, deduplicate) as database:
        yield database


@asynccontextmanager
async def connect_to(
    target: Target, connections: int, timeout: float, deduplicate: Deduplicate = "all"
) -> AsyncGenerator[RemoteDatabase, None]:
    """`connect` to a target that is put together already."""
    pool = Pool(target, connections, timeout, deduplicate)
    first = await pool.connect()
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run, first)
            try:
                # One turn of the loop, so that the first call finds the connection.
                await pool.connection(trio.current_time() + timeout)
                yield RemoteDatabase(pool)
            except BaseException as error:
                failure = error
                raise
            finally:
                pool.close("The client was closed.")
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup:
        # The nursery wraps what the body raised; `Pool.run` itself raises nothing.
        if failure is None:
            raise
    finally:
        await first.aclose()  # Where the pool was cancelled before it took it over.
    if failure is not None:
        raise failure


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
