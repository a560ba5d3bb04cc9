"""One client connection on trio: many callers, one reader task, one writer task, one timer task.

A call registers itself, queues its request and sleeps; the reader wakes the caller's task directly
when the answer is there. Requests of all callers in one turn of the event loop leave in one write.
Timeouts need no timer of their own: the timer task looks for calls whose time is up.

Resource handling: `Connection.open` makes the TCP connection and says hello; `run` serves it and
closes it on return. `run` returns when the connection is over, whatever the reason; it raises only
`trio.Cancelled` and faults of its own code.

Error handling: when the connection ends every call on it raises `ConnectionLost`, which the pool
turns into another attempt or an error of `treestore.errors`.
"""

from __future__ import annotations

import math
import ssl
from typing import Any, Protocol

import attrs
import msgspec
import outcome
import trio

import treestore.errors as errors
from protocol.connection import ClientConnection
from protocol.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError
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
from treestore.client.duplex import Duplex
from treestore.errors import TreeStoreError, Unavailable

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


class Receiver(Protocol):
    """A stream of items that is being received."""

    def items(self, items: list[msgspec.Raw]) -> None:
        """More items came."""
        ...

    def end(self, error: Exception | None) -> None:
        """No more will come. `ConnectionLost` where the connection ended."""
        ...


class _Waiter:
    """A caller that sleeps until its answer comes."""

    __slots__ = ("cancel_sent", "deadline", "settle", "task")

    def __init__(self, task: trio.lowlevel.Task, deadline: float, settle: bool) -> None:
        self.task = task
        self.deadline = deadline
        self.settle = settle
        """A command: after the deadline, wait a little for the server to say what became of it."""
        self.cancel_sent = False


class Connection:
    """An open connection to a server."""

    def __init__(self, duplex: Duplex, protocol: ClientConnection, target: Target) -> None:
        self._duplex = duplex
        self._protocol = protocol
        self._target = target
        self._waiters: dict[int, _Waiter] = {}
        self._streams: dict[int, Receiver] = {}
        self._last_id = 0
        self._timer_scope = trio.CancelScope()
        self._timer_at = math.inf
        self._scope = trio.CancelScope()
        self._lost: ConnectionLost | None = None
        self.closing = False
        """The server said goodbye: calls in flight are answered, new ones go elsewhere."""
        self.welcome: Welcome | None = None

    @classmethod
    async def open(cls, target: Target, sequencer: Sequencer) -> Connection:
        """Connect and say hello.

        Raises:
            Unavailable: the server cannot be reached or did not answer properly.
            TreeStoreError: the server refused (`Unauthenticated`, `ResourceExhausted`, …).
        """
        try:
            stream: trio.abc.Stream = await trio.open_tcp_stream(target.host, target.port)
            if target.tls is not None:
                stream = trio.SSLStream(
                    stream, target.tls, server_hostname=target.host, https_compatible=True
                )
        except OSError as error:
            where = f"{target.host}:{target.port}"
            raise Unavailable(f"No connection to {where}: {error}.") from error
        return await cls.over(stream, target, sequencer)

    @classmethod
    async def over(
        cls, stream: trio.abc.Stream, target: Target, sequencer: Sequencer
    ) -> Connection:
        """Say hello over a stream that is connected already; owns the stream from now on."""
        duplex = Duplex(stream)
        protocol = ClientConnection(target.limits)
        connection = cls(duplex, protocol, target)
        try:
            await connection._greet(sequencer)
        except BaseException:
            await duplex.aclose()
            raise
        return connection

    async def _greet(self, sequencer: Sequencer) -> None:
        hello = Hello(
            api_key=self._target.api_key,
            client_id=sequencer.client_id,
            session=sequencer.session,
            software=SOFTWARE,
        )
        try:
            self._duplex.append(self._protocol.send(hello))
            await self._duplex.drain()
            while True:
                data = await self._duplex.receive()
                if not data:
                    raise Unavailable("The server closed the connection without a word.")
                for message in self._protocol.receive_data(data):
                    if isinstance(message, Welcome):
                        self.welcome = message
                        self._duplex.outbox.limit(message.limits)
                        return
                    assert isinstance(message, Goodbye)
                    raise errors.from_code(message.code, message.message)
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            why = error.__cause__ or error  # trio wraps what TLS says.
            raise Unavailable(f"The connection broke during the hello: {why}.") from error
        except RemoteProtocolError as error:
            raise errors.ProtocolError(str(error)) from None

    # --- serving ---------------------------------------------------------------------------

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

    async def run(self) -> None:
        """Serve the connection until it ends; then fail what is in flight and close it."""
        reason = "The connection was closed."
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._keep_time)
                    reason = await self._read()
                    nursery.cancel_scope.cancel()
        finally:
            self.closing = True
            self._fail_all(ConnectionLost(reason))
            await self._duplex.aclose()

    def close(self) -> None:
        """End the connection now; `run` returns soon after."""
        self.closing = True
        if self._lost is None:
            try:
                self._duplex.append(self._protocol.send(Goodbye()))
                self._duplex.flush_now()
            except LocalProtocolError:
                pass
        self._scope.cancel()

    async def aclose(self) -> None:
        """Close the socket of a connection that `run` does not serve; harmless otherwise."""
        await self._duplex.aclose()

    async def _write(self) -> None:
        try:
            await self._duplex.run_writer()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._scope.cancel()

    async def _read(self) -> str:
        """Dispatch what comes until nothing more will; returns why."""
        receive, receive_data = self._duplex.receive, self._protocol.receive_data
        try:
            while True:
                data = await receive()
                if not data:
                    return "The server closed the connection."
                self._dispatch(receive_data(data))
                if self.closing and not self._waiters and not self._streams:
                    return "The server said goodbye."
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return f"The connection broke: {error}."
        except RemoteProtocolError as error:
            self._dispatch(error.messages)
            return str(error)
        finally:
            self.closing = True  # At once: nobody may begin a call on it from here on.

    def _dispatch(self, messages: Any) -> None:
        waiters = self._waiters
        reschedule = trio.lowlevel.reschedule
        for message in messages:
            kind = type(message)
            if kind is Response:
                waiter = waiters.pop(message.id, None)
                # An answer nobody waits for belongs to a call that was cancelled.
                if waiter is not None:
                    reschedule(waiter.task, outcome.Value(message.result))
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
                self._duplex.append(self._protocol.send(Pong(message.token)))
                self._duplex.flush_soon()
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
            trio.lowlevel.reschedule(waiter.task, outcome.Error(error))
            return
        receiver = self._streams.pop(failure.id, None)
        if receiver is not None:
            receiver.end(error)

    def _fail_all(self, lost: ConnectionLost) -> None:
        self._lost = lost
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            # Each caller gets its own exception: tracebacks must not be shared.
            trio.lowlevel.reschedule(waiter.task, outcome.Error(ConnectionLost(str(lost))))
        streams, self._streams = self._streams, {}
        for receiver in streams.values():
            receiver.end(ConnectionLost(str(lost)))

    # --- calls -----------------------------------------------------------------------------

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
    ) -> msgspec.Raw:
        """Send a request and wait for its result. A checkpoint.

        Args:
            deadline: `trio.current_time` at which to give up.
            settle: it is a command; after the deadline wait a little for its outcome.

        Raises:
            ConnectionLost: no answer will come.
            TreeStoreError: the server's answer, or `DeadlineExceeded`, or for a command that may
                have been applied `OutcomeUnknown`.
            trio.Cancelled: the server is told; a command may still be applied.
        """
        if self._lost is not None:
            raise ConnectionLost(str(self._lost), begun=False)
        await trio.lowlevel.checkpoint_if_cancelled()
        self._last_id = request = self._last_id + 1
        deadline_ms = None
        if deadline != math.inf:
            # An enclosing scope ends this call by itself, as a trio program expects; the server is
            # told, so that it does not begin what nobody waits for.
            limit = min(deadline, trio.current_effective_deadline())
            deadline_ms = max(0, int((limit - trio.current_time()) * 1000))
            if deadline < self._timer_at:
                self._wake_timer(deadline)
        self._send(Request(request, method, params, deadline_ms, snapshot, sequence, watermark))
        self._waiters[request] = _Waiter(trio.lowlevel.current_task(), deadline, settle)
        if len(self._waiters) == 1:
            self._duplex.flush_now()  # Nobody else is under way to share a write with.
        else:
            self._duplex.flush_soon()

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            waiter = self._waiters.pop(request, None)
            if waiter is not None and not waiter.cancel_sent:
                self._cancel(request)
            return trio.lowlevel.Abort.SUCCEEDED

        result: msgspec.Raw = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def _send(self, message: Request) -> None:
        try:
            self._duplex.append(self._protocol.send(message), message.id)
        except MessageTooLarge as error:
            raise errors.ResourceExhausted(f"The request is too long to send. {error}") from None
        except LocalProtocolError as error:
            raise ConnectionLost(str(error), begun=False) from None

    def _cancel(self, request: int) -> None:
        try:
            # Under the request's key: behind the request itself, if that is still being sent.
            self._duplex.append(self._protocol.send(Cancel(request)), request)
            self._duplex.flush_soon()
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
    ) -> int:
        """Ask for a stream; its items go to ``receiver``. Returns the request's number."""
        if self._lost is not None:
            raise ConnectionLost(str(self._lost), begun=False)
        self._last_id = request = self._last_id + 1
        self._send(Request(request, method, params, None, snapshot))
        self._streams[request] = receiver
        self.grant(request, credit_bytes)
        return request

    def grant(self, stream: int, size_bytes: int) -> None:
        """Tell the server that there is room for more items of a stream."""
        if stream in self._streams:
            self._duplex.append(self._protocol.send(Credit(stream, size_bytes)), stream)
            self._duplex.flush_soon()

    def close_stream(self, stream: int) -> None:
        """Stop a stream that was not read to its end; harmless otherwise."""
        if self._streams.pop(stream, None) is not None:
            self._cancel(stream)

    def post(self, method: str, params: msgspec.Raw) -> None:
        """Send a request whose answer does not matter."""
        if self._lost is None:
            self._last_id += 1
            self._send(Request(self._last_id, method, params))
            self._duplex.flush_soon()

    # --- time ------------------------------------------------------------------------------

    def _wake_timer(self, deadline: float) -> None:
        self._timer_at = deadline
        self._timer_scope.cancel()

    async def _keep_time(self) -> None:
        """Time out calls, keep the connection alive and notice when it is dead."""
        interval = self._target.keep_alive_interval_s
        received, received_at = self._duplex.received_bytes, trio.current_time()
        while True:
            with trio.CancelScope() as self._timer_scope:
                self._timer_at = min(self._timer_at, trio.current_time() + interval)
                await trio.sleep_until(self._timer_at)
            now = trio.current_time()
            self._timer_at = self._time_out(now)
            if self._duplex.received_bytes != received:
                received, received_at = self._duplex.received_bytes, now
            elif now - received_at >= self._target.keep_alive_timeout_s:
                self._scope.cancel()
                return
            elif now - received_at >= interval:
                self._duplex.append(self._protocol.send(Ping()))
                self._duplex.flush_soon()

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
            trio.lowlevel.reschedule(waiter.task, outcome.Error(error))
        return earliest


def _safe(details: dict[str, Any]) -> dict[str, Any]:
    """Details as keyword arguments: a peer's keys must not collide with the message."""
    return {key: value for key, value in details.items() if key not in ("self", "message")}
