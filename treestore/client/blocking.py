"""The client for programs without an event loop: scripts, notebooks, threads."""

from __future__ import annotations

import ssl
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

import msgspec

from treestore.client.breaker import Breaker
from treestore.client.calls import Deduplicate
from treestore.client.portal import Portal
from treestore.client.remote import (
    ClientCaller,
    Opened,
    RemoteCaller,
    RemoteDatabase,
    connect_to,
    decoder_of,
    encoded,
    open_snapshot,
    target_of,
)
from treestore.client.stream import RemoteStream
from treestore.client.transaction import OpenTransaction, TransactionCaller
from treestore.client.watch import RemoteFeed
from treestore.retrying import (
    ATTEMPTS,
    TRANSACTION_TIMEOUT_S,
    Attempts,
    run_again_blocking,
)
from treestore.services import Services, Stores
from treestore.stores.changes.service import Watching
from treestore.stores.operation import Blocking, Operation, ReadOnly, ReadWrite

T = TypeVar("T")


class BlockingCaller:
    """`treestore.stores.operation.Caller` whose calls return when they are done.

    Parameters and results are encoded and decoded in the calling thread.
    """

    blocks = True

    def __init__(self, portal: Portal[Any], inner: ClientCaller, owner: object) -> None:
        self._portal = portal
        self._inner = inner
        self._owner = owner  # Services keep their database from being closed.

    def bind(self, operation: Operation) -> Callable[..., Any]:
        """A callable with the operation's parameters."""
        inner, portal = self._inner, self._portal
        if operation.kind == "stream":

            def stream(*args: Any, **kwargs: Any) -> BlockingRemoteStream[Any]:
                params = encoded(operation, args, kwargs)
                return BlockingRemoteStream(
                    portal, inner.stream(operation, params, kwargs), decoder_of(operation)
                )

            return stream
        if operation.kind == "feed":

            def feed(*args: Any, **kwargs: Any) -> BlockingRemoteFeed[Any]:
                return BlockingRemoteFeed(portal, inner.feed(operation, *args, **kwargs))

            return feed
        send, run, decode = inner.sender(operation), portal.run, decoder_of(operation)

        def call(*args: Any, **kwargs: Any) -> Any:
            return decode(run(send, encoded(operation, args, kwargs)))

        return call


class BlockingRemoteStream(Generic[T]):
    """Items of one snapshot, fetched as they are taken; `RemoteStream` for threads.

    Use it with a bare ``for``, or as ``with`` to let go of it for certain when it is left early.
    It can be gone through once.
    """

    def __init__(
        self, portal: Portal[Any], stream: RemoteStream[T], decode: Callable[[Any], T]
    ) -> None:
        self._portal = portal
        self._stream = stream
        self._decode = decode
        self._here: deque[msgspec.Raw] = deque()
        self._lock = threading.Lock()
        self._ended = False

    def __iter__(self) -> BlockingRemoteStream[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            if not self._here and not self._ended:
                # Everything that came meanwhile: one turn of the loop's thread for many items.
                try:
                    self._here.extend(self._portal.run(self._stream.batch))
                except BaseException:
                    self.close()
                    raise
                self._ended = not self._here
            if not self._here:
                raise StopIteration
            raw = self._here.popleft()
        return self._decode(raw)

    def __enter__(self) -> BlockingRemoteStream[T]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the stream; the server is told. Never waits; closing twice is harmless."""
        self._here.clear()
        if not self._ended:
            self._ended = True
            self._portal.post(self._stream.close)

    def __del__(self) -> None:
        if not self._ended:  # Left early by a bare `for`.
            self.close()


class BlockingRemoteFeed(Generic[T]):
    """Changes as they are committed on the server; `RemoteFeed` for threads.

    Asked for its next item it waits for as long as it takes. Another thread may close it; it ends
    then.
    """

    def __init__(self, portal: Portal[Any], feed: RemoteFeed[T]) -> None:
        self._portal = portal
        self._feed = feed
        # Filled where the loop runs: an interruption here loses nothing of it.
        self._here: deque[T | str] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._position = ""

    @property
    def position(self) -> str:
        """Where to go on behind what was delivered: another feed's ``from_lsn``. Empty until the
        feed was entered, or asked for its first item."""
        return self._position

    def __iter__(self) -> BlockingRemoteFeed[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            while True:
                while self._here:
                    item: Any = self._here.popleft()
                    if not isinstance(item, str):
                        self._position = item.position
                        return cast("T", item)
                    self._position = item
                if self._closed:
                    raise StopIteration
                self._portal.run(self._feed.fill, self._here)
                if not self._here:  # It was closed, or an error ended it.
                    self._closed = True

    def __enter__(self) -> BlockingRemoteFeed[T]:
        self._portal.run(self._feed.__aenter__)
        self._position = self._position or self._feed.position
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the feed; the server is told. Never waits; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._here.clear()
            self._portal.post(self._feed.close)

    def __del__(self) -> None:
        self.close()  # Left early by a bare `for`.


class BlockingSnapshot(Services[Blocking, ReadOnly]):
    """Read-only services that see one state of the database; attributes as `RemoteSnapshot`'s."""

    def __init__(self, caller: BlockingCaller, opened: Opened) -> None:
        super().__init__(caller)
        self.number = opened.number
        self.lsn = opened.lsn
        self.position = opened.position


class BlockingTransaction(Stores[Blocking, ReadWrite]):
    """The services inside a transaction: those of a database but ``admin``."""


class BlockingDatabase(Services[Blocking, ReadWrite], Watching[Blocking, ReadWrite]):
    """A database on a server. Made by `connect_sync`; any number of threads may share it."""

    def __init__(self, portal: Portal[RemoteDatabase]) -> None:
        self._portal = portal
        self._closed = False
        self._pool = portal.opened.pool
        caller = BlockingCaller(portal, RemoteCaller(self._pool), self)
        Services.__init__(self, caller)
        Watching.__init__(self, caller)

    @contextmanager
    def snapshot(self) -> Generator[BlockingSnapshot]:
        """Services that all see the state of this moment.

        The snapshot lives on one connection; if that is lost, reads raise `SnapshotExpired`.
        """
        with self._portal.hold(open_snapshot(self._pool)) as (caller, opened):
            yield BlockingSnapshot(BlockingCaller(self._portal, caller, self), opened)

    @contextmanager
    def transaction(
        self, *, timeout: float = TRANSACTION_TIMEOUT_S
    ) -> Generator[BlockingTransaction]:
        """The services, inside one transaction: ``with db.transaction() as txn``.

        See `RemoteDatabase.transaction`. It may be used from several threads, whose calls are run
        one after the other.
        """
        opening: OpenTransaction[TransactionCaller] = OpenTransaction(
            self._pool, timeout, lambda caller: caller
        )
        with self._portal.hold(opening, commits=True) as caller:
            yield BlockingTransaction(BlockingCaller(self._portal, caller, self))

    def run_transaction(
        self,
        function: Callable[[BlockingTransaction], T],
        *,
        attempts: int = ATTEMPTS,
        timeout: float = TRANSACTION_TIMEOUT_S,
    ) -> T:
        """``function(txn)`` in a transaction; run again, from the start, after a conflict.

        See `RemoteDatabase.run_transaction`.
        """
        return run_again_blocking(
            lambda: self.transaction(timeout=timeout),
            function,
            Attempts(attempts, self._pool.target.random),
            time.sleep,
        )

    def close(self) -> None:
        """Close the connections. From any thread; calls under way in others raise `Unavailable`.

        Harmless where that happened before.
        """
        self._closed = True
        self._portal.stop()

    def __enter__(self) -> BlockingDatabase:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self.__dict__.get("_closed", True):
            warnings.warn(f"{self!r} was not closed.", ResourceWarning, source=self, stacklevel=2)
            self._portal.stop(wait=False)


def connect_sync(
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
) -> BlockingDatabase:
    """Connect to a server, blocking: ``with connect_sync("127.0.0.1:7707") as db``.

    For programs without an event loop, for threads and for notebooks, where the ``with`` may be
    left out: ``db = connect_sync(…)``, and ``db.close()`` in the end. Arguments as `connect`'s.

    Raises:
        Unavailable: the server cannot be reached.
        Unauthenticated: the API key is missing or unknown.

    Resource handling: a thread runs the connections until the database is closed. What is open
    when the program ends is closed then. A forked process opens its own.
    """
    target = target_of(address, api_key, tls)
    breaker = Breaker(breaker_failures, breaker_pause)
    return BlockingDatabase(
        Portal(
            lambda: connect_to(
                target,
                connections,
                timeout,
                deduplicate,
                breaker,
                wait_when_limited=wait_when_limited,
            )
        )
    )
