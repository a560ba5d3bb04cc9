"""One client connection, whatever event loop runs it: what is under way, and what comes of it.

Every decision is made here, in one synchronous step: which call an answer belongs to, what a
failure means, whose time is up, when to ask whether the server is still there. A subclass
(`TrioConnection`, `AsyncioConnection`) does the waiting, reading and writing.

A call registers a waiter, queues its request and sleeps; whoever reads wakes it when the answer is
there. Requests of all callers in one turn of the event loop leave in one write. Timeouts need no
timer of their own: one timer of the connection looks for calls whose time is up.

Resource handling: `run` serves an open connection and closes it on return. It returns when the
connection is over, whatever the reason; it raises only the loop's cancellation and faults of its
own code.

Error handling: when the connection ends every call on it raises `ConnectionLost`, which the pool
turns into another attempt or an error of `treestore.errors`.
"""

from __future__ import annotations

import abc
import math
import ssl
from collections.abc import Awaitable, Callable
from random import Random, SystemRandom
from typing import Any, Generic, Protocol, TypeVar

import attrs
import msgspec

import treestore.errors as errors
from protocol.connection import ClientConnection, Fragments
from protocol.errors import LocalProtocolError, MessageTooLarge
from protocol.limits import Limits
from protocol.messages import (
    Cancel,
    Credit,
    Failure,
    Goodbye,
    Hello,
    Ping,
    Pong,
    Request,
    Response,
    StreamEnd,
    StreamItems,
    Welcome,
)
from treestore.client.calls import ConnectionLost, Sequencer
from treestore.errors import TreeStoreError

SETTLE_S = 1.0
"""How long the answer of a command is waited for after its deadline: the server says then whether
it was applied."""

SOFTWARE = "treestore-python"


@attrs.frozen(kw_only=True)
class Target:
    """Where a client connects to, and how."""

    host: str
    port: int
    api_key: str | None = attrs.field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    limits: Limits = attrs.field(factory=Limits)
    keep_alive_interval_s: float = 20.0
    keep_alive_timeout_s: float = 60.0
    random: Random = attrs.field(factory=SystemRandom, repr=False)
    """Names the client and spreads its attempts to connect."""
    open_stream: Callable[[str, int], Awaitable[Any]] | None = None
    """On trio: connects to host and port and gives a `trio.abc.Stream`; None: over TCP."""

    @property
    def where(self) -> str:
        """The address, for messages."""
        return f"{self.host}:{self.port}"


class Receiver(Protocol):
    """A stream of items that is being received."""

    def items(self, items: list[msgspec.Raw]) -> None:
        """More items came."""
        ...

    def end(self, error: Exception | None) -> None:
        """No more will come. `ConnectionLost` where the connection ended."""
        ...


class Waiter:
    """A caller whose answer is to come.

    The answer is left here instead of being sent through the loop's own means, which would wrap it
    into one more object (0.4 µs of a pipelined call's 10).
    """

    __slots__ = ("cancel_sent", "deadline", "error", "result", "settle")

    def __init__(self, deadline: float, settle: bool) -> None:
        self.deadline = deadline
        self.settle = settle
        """A command: after the deadline, wait a little for the server to say what became of it."""
        self.cancel_sent = False
        self.result: msgspec.Raw | None = None
        self.error: Exception | None = None


W = TypeVar("W", bound=Waiter)


class Connection(abc.ABC, Generic[W]):
    """An open connection to a server."""

    def __init__(self, target: Target) -> None:
        self._protocol = ClientConnection(target.limits)
        self._target = target
        self._waiters: dict[int, W] = {}
        self._streams: dict[int, Receiver] = {}
        self._last_id = 0
        self._last_transaction = 0
        self._timer_at = math.inf
        self._received_bytes_before = 0
        self._received_at = 0.0
        self._lost: ConnectionLost | None = None
        self.closing = False
        """The server said goodbye: calls in flight are answered, new ones go elsewhere."""
        self.welcome: Welcome | None = None

    # --- what an event loop adds -------------------------------------------------------------

    @abc.abstractmethod
    async def run(self) -> None:
        """Serve the connection until it ends; then fail what is in flight and close it."""

    @abc.abstractmethod
    async def call(
        self,
        method: str,
        params: msgspec.Raw,
        deadline: float,
        *,
        snapshot: int | None = None,
        sequence: int | None = None,
        watermark: int = 0,
        settle: bool = False,
        transaction: int | None = None,
        begin_ms: int | None = None,
    ) -> msgspec.Raw:
        """Send a request and wait for its result.

        Args:
            deadline: time of the loop's clock at which to give up.
            settle: it is a command; after the deadline wait a little for its outcome.
            transaction: do it inside this one, of `new_transaction` ...
            begin_ms: ... and begin that, for so long, unless it is open.

        Raises:
            ConnectionLost: no answer will come.
            TreeStoreError: the server's answer, or `DeadlineExceeded`, or for a command that may
                have been applied `OutcomeUnknown`.
            the loop's cancellation: the server is told; a command may still be applied.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the connection now; `run` returns soon after."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close the socket of a connection that `run` does not serve; harmless otherwise."""

    @abc.abstractmethod
    def _append(self, item: bytes | Fragments, key: int = 0) -> None:
        """Queue what the protocol made; never waits. Under a request's key it stays behind what
        was queued under the same key."""

    @abc.abstractmethod
    def _flush_soon(self) -> None:
        """Have what is queued written in this turn of the loop."""

    @abc.abstractmethod
    def _resume(self, waiter: W) -> None:
        """Wake a caller; called by whoever reads."""

    @abc.abstractmethod
    def _received_bytes(self) -> int:
        """How much was received so far."""

    def _wake(self, waiter: W, error: Exception) -> None:
        """End a call from outside of reading."""
        waiter.error = error
        self._resume(waiter)

    def _stream_opened(self) -> None:
        """Items may come at any time from now on."""

    # --- state -------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether calls may be made."""
        return self._lost is None and not self.closing

    @property
    def lost(self) -> bool:
        """Whether the connection is over."""
        return self._lost is not None

    @property
    def load(self) -> int:
        """Calls and streams under way."""
        return len(self._waiters) + len(self._streams)

    # --- the beginning -----------------------------------------------------------------------

    def _hello(self, sequencer: Sequencer) -> bytes | Fragments:
        """The bytes to begin with."""
        return self._protocol.send(
            Hello(
                api_key=self._target.api_key,
                client_id=sequencer.client_id,
                session=sequencer.session,
                software=SOFTWARE,
            )
        )

    def _greeted(self, messages: list[Any]) -> bool:
        """Whether the server's answer to the hello is among the messages.

        Raises:
            TreeStoreError: the server refused.
        """
        for message in messages:
            if isinstance(message, Welcome):
                self.welcome = message
                return True
            assert isinstance(message, Goodbye)
            raise errors.from_code(message.code, message.message)
        return False

    # --- what comes in -----------------------------------------------------------------------

    def _dispatch(self, messages: Any) -> None:
        waiters = self._waiters
        resume = self._resume
        for message in messages:
            kind = type(message)
            if kind is Response:
                waiter = waiters.pop(message.id, None)
                # An answer nobody waits for belongs to a call that was cancelled.
                if waiter is not None:
                    waiter.result = message.result
                    resume(waiter)
            elif kind is Failure:
                self._failure(message)
            elif kind is StreamItems:
                receiver = self._streams.get(message.id)
                if receiver is not None:
                    receiver.items(message.items)
            elif kind is StreamEnd:
                receiver = self._streams.pop(message.id, None)
                if receiver is not None:
                    receiver.end(None)
            elif kind is Ping:
                self._append(self._protocol.send(Pong(message.token)))
                self._flush_soon()
            elif kind is Goodbye:
                self.closing = True

    def _failure(self, failure: Failure) -> None:
        error: Exception
        if failure.details.get("not_begun"):
            error = ConnectionLost(failure.message, begun=False)
        else:
            error = errors.from_code(failure.code, failure.message, _safe(failure.details))
        waiter = self._waiters.pop(failure.id, None)
        if waiter is not None:
            waiter.error = error
            self._resume(waiter)
            return
        receiver = self._streams.pop(failure.id, None)
        if receiver is not None:
            receiver.end(error)

    def _fail_all(self, lost: ConnectionLost) -> None:
        self._lost = lost
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            # Each caller gets its own exception: tracebacks must not be shared.
            self._wake(waiter, ConnectionLost(str(lost)))
        streams, self._streams = self._streams, {}
        for receiver in streams.values():
            receiver.end(ConnectionLost(str(lost)))

    # --- what goes out -----------------------------------------------------------------------

    def _send(self, message: Request) -> None:
        try:
            self._append(self._protocol.send(message), message.id)
        except MessageTooLarge as error:
            raise errors.ResourceExhausted(f"The request is too long to send. {error}") from None
        except LocalProtocolError as error:
            raise ConnectionLost(str(error), begun=False) from None

    def _give_up(self, request: int) -> None:
        """The caller was cancelled."""
        waiter = self._waiters.pop(request, None)
        if waiter is not None and not waiter.cancel_sent:
            self._cancel(request)

    def _cancel(self, request: int) -> None:
        try:
            # Under the request's key: behind the request itself, if that is still being sent.
            self._append(self._protocol.send(Cancel(request)), request)
            self._flush_soon()
        except LocalProtocolError:
            pass

    def _say_goodbye(self) -> None:
        self.closing = True
        if self._lost is None:
            try:
                self._append(self._protocol.send(Goodbye()))
            except LocalProtocolError:
                pass

    def open_stream(
        self,
        method: str,
        params: msgspec.Raw,
        receiver: Receiver,
        *,
        snapshot: int | None,
        credit_bytes: int,
        transaction: int | None = None,
        begin_ms: int | None = None,
    ) -> int:
        """Ask for a stream; its items go to ``receiver``. Returns the request's number."""
        if self._lost is not None:
            raise ConnectionLost(str(self._lost), begun=False)
        self._last_id = request = self._last_id + 1
        self._send(
            Request(
                request,
                method,
                params,
                snapshot=snapshot,
                transaction=transaction,
                begin_ms=begin_ms,
            )
        )
        self._streams[request] = receiver
        self.grant(request, credit_bytes)
        self._stream_opened()
        return request

    def grant(self, stream: int, size_bytes: int) -> None:
        """Tell the server that there is room for more items of a stream."""
        if stream in self._streams:
            self._append(self._protocol.send(Credit(stream, size_bytes)), stream)
            self._flush_soon()

    def close_stream(self, stream: int) -> None:
        """Stop a stream that was not read to its end; harmless otherwise."""
        if self._streams.pop(stream, None) is not None:
            self._cancel(stream)

    def post(self, method: str, params: msgspec.Raw, *, transaction: int | None = None) -> None:
        """Send a request whose answer does not matter."""
        if self._lost is None:
            self._last_id += 1
            self._send(Request(self._last_id, method, params, transaction=transaction))
            self._flush_soon()

    def new_transaction(self) -> int:
        """A number for a transaction on this connection."""
        self._last_transaction += 1
        return self._last_transaction

    # --- time ------------------------------------------------------------------------------

    def _tend(self, now: float) -> bool:
        """Time out calls and ask after a server that is silent; False where it is dead.

        ``_timer_at`` says afterwards when to look again.
        """
        interval = self._target.keep_alive_interval_s
        self._timer_at = min(self._time_out(now), now + interval)
        received = self._received_bytes()
        if received != self._received_bytes_before or not self._received_at:
            self._received_bytes_before, self._received_at = received, now
            return True
        silent_s = now - self._received_at
        if silent_s >= self._target.keep_alive_timeout_s:
            return False
        if silent_s >= interval:
            self._append(self._protocol.send(Ping()))
            self._flush_soon()
        return True

    def _time_out(self, now: float) -> float:
        """End the calls whose time is up; returns when the next one's will be."""
        earliest = math.inf
        for request, waiter in list(self._waiters.items()):
            if waiter.deadline > now:
                earliest = min(earliest, waiter.deadline)
                continue
            if not waiter.cancel_sent:
                waiter.cancel_sent = True
                self._cancel(request)
                if waiter.settle:
                    waiter.deadline = now + SETTLE_S
                    earliest = min(earliest, waiter.deadline)
                    continue
            del self._waiters[request]
            error: TreeStoreError = errors.DeadlineExceeded("No answer came in time.")
            if waiter.settle:
                error = errors.OutcomeUnknown(
                    "No answer came in time; the command may or may not have been applied."
                )
            self._wake(waiter, error)
        return earliest


AnyConnection = Connection[Any]
"""A connection on whatever event loop."""


def _safe(details: dict[str, Any]) -> dict[str, Any]:
    """Details as keyword arguments: a peer's keys must not collide with the message."""
    return {key: value for key, value in details.items() if key not in ("self", "message")}
