"""One client connection on trio: many callers, one reader task, one writer task, one timer task.

A call registers itself, queues its request and sleeps; the reader wakes the caller's task directly
when the answer is there. Requests of all callers in one turn of the event loop leave in one write.
Timeouts need no timer of their own: the timer task looks for calls whose time is up.

Leading
    Where calls come one at a time the reader only adds a turn of the event loop to each. It then
    stands by, and a caller *leads*: it waits on the socket itself, in its own task, and dispatches
    what comes (also other callers' answers) until its own answer is there. The reader takes the
    socket back as soon as a leader leaves others behind or a stream is opened, and after a while
    without calls. So exactly one task reads at any time: the reader, or one leader, or nobody for
    at most two `STAND_BY_S`.

Resource handling: `Connection.open` makes the TCP connection and says hello; `run` serves it and
closes it on return. `run` returns when the connection is over, whatever the reason; it raises only
`trio.Cancelled` and faults of its own code.

Error handling: when the connection ends every call on it raises `ConnectionLost`, which the pool
turns into another attempt or an error of `treestore.errors`.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from random import Random, SystemRandom
from typing import Any, Protocol

import attrs
import msgspec
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

STAND_BY_S = 0.01
"""A reader that stands by looks this often whether it is needed again."""

LONELY_ANSWERS = 8
"""The reader stands by after so many reads in a row that brought one answer and left nobody
waiting. Callers that come in groups must not pay for the handing over."""

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
    open_stream: Callable[[str, int], Awaitable[trio.abc.Stream]] | None = None
    """Connects to host and port; None: over TCP."""


class Receiver(Protocol):
    """A stream of items that is being received."""

    def items(self, items: list[msgspec.Raw]) -> None:
        """More items came."""
        ...

    def end(self, error: Exception | None) -> None:
        """No more will come. `ConnectionLost` where the connection ended."""
        ...


class _Waiter:
    """A caller whose answer is to come.

    The answer is left here instead of being sent through `trio.lowlevel.reschedule`, which would
    wrap it into one more object (0.4 µs of a pipelined call's 10).
    """

    __slots__ = ("cancel_sent", "deadline", "error", "result", "settle", "task")

    def __init__(self, task: trio.lowlevel.Task, deadline: float, settle: bool) -> None:
        self.task: trio.lowlevel.Task | None = task
        """The task to wake; None while it leads, since it then sleeps on the socket."""
        self.deadline = deadline
        self.settle = settle
        """A command: after the deadline, wait a little for the server to say what became of it."""
        self.cancel_sent = False
        self.result: msgspec.Raw | None = None
        self.error: Exception | None = None


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
        self._standing_by: trio.Event | None = None
        """Set while the reader leaves the socket to leaders; `_recall_reader` ends that."""
        self._leader: _Waiter | None = None
        self._led = False
        """Whether a caller led since the reader last looked."""
        self._lonely_answers = 0
        self._end: str | None = None
        """Why nothing more can be read, as a leader found it."""
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
            stream: trio.abc.Stream = await (target.open_stream or trio.open_tcp_stream)(
                target.host, target.port
            )
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
        receive = self._duplex.receive
        try:
            while True:
                if self._lonely_answers >= LONELY_ANSWERS:
                    await self._stand_by()
                    if self._end is not None:
                        return self._end
                end = self._take(await receive(self._protocol.missing_size_bytes))
                if end is not None:
                    return end
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return f"The connection broke: {error}."
        finally:
            self.closing = True  # At once: nobody may begin a call on it from here on.

    def _take(self, data: bytes) -> str | None:
        """Dispatch what was read; returns why nothing more will come, once that is so."""
        if not data:
            return "The server closed the connection."
        try:
            messages = self._protocol.receive_data(data)
        except RemoteProtocolError as error:
            self._dispatch(error.messages)
            return str(error)
        self._dispatch(messages)
        if self._waiters or self._streams:
            self._lonely_answers = 0
        elif self.closing:
            return "The server said goodbye."
        else:
            self._lonely_answers = self._lonely_answers + 1 if len(messages) == 1 else 0
        return None

    async def _stand_by(self) -> None:
        """Leave the socket to leaders until the reader is needed again."""
        self._lonely_answers = 0
        if not self._duplex.pollable:
            return
        self._led = True
        self._standing_by = recalled = trio.Event()
        while not recalled.is_set():
            with trio.move_on_after(STAND_BY_S):
                await recalled.wait()
            if self._leader is None and not self._led:
                break
            self._led = False
        self._standing_by = None

    def _recall_reader(self) -> None:
        """Have the reader read again. Not while somebody leads."""
        assert self._leader is None
        if self._standing_by is not None:
            self._standing_by.set()
            self._standing_by = None

    async def _lead(self, request: int, waiter: _Waiter) -> None:
        """Read in place of the reader until ``waiter`` has its answer or nothing can be read."""
        self._leader = waiter
        self._led = True
        task, waiter.task = waiter.task, None
        receive = self._duplex.receive
        try:
            while waiter.result is None and waiter.error is None and self._end is None:
                self._end = self._take(await receive(self._protocol.missing_size_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # Closed is also how `_wake` interrupts a leader; then it has its error.
            if waiter.error is None:
                self._end = f"The connection broke: {error}."
        except BaseException:  # Cancelled: nothing was read.
            self._give_up(request)
            raise
        finally:
            waiter.task = task
            self._leader = None
            if self._end is not None:
                self.closing = True
            if self._waiters or self._streams or self._end is not None:
                self._recall_reader()

    def _dispatch(self, messages: Any) -> None:
        waiters = self._waiters
        reschedule = trio.lowlevel.reschedule
        for message in messages:
            kind = type(message)
            if kind is Response:
                waiter = waiters.pop(message.id, None)
                # An answer nobody waits for belongs to a call that was cancelled.
                if waiter is not None:
                    waiter.result = message.result
                    if waiter.task is not None:
                        reschedule(waiter.task)
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
            waiter.error = error
            if waiter.task is not None:
                trio.lowlevel.reschedule(waiter.task)
            return
        receiver = self._streams.pop(failure.id, None)
        if receiver is not None:
            receiver.end(error)

    def _wake(self, waiter: _Waiter, error: Exception) -> None:
        """End a call from outside of reading."""
        waiter.error = error
        if waiter.task is not None:
            trio.lowlevel.reschedule(waiter.task)
        else:
            self._duplex.interrupt()

    def _fail_all(self, lost: ConnectionLost) -> None:
        self._lost = lost
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            # Each caller gets its own exception: tracebacks must not be shared.
            self._wake(waiter, ConnectionLost(str(lost)))
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
        if deadline < self._timer_at:
            self._wake_timer(deadline)
        if settle and deadline != math.inf:
            # The server must not begin what nobody waits for, so a command tells it how long
            # somebody does. A query does no harm; it is cancelled when its time is up. (Looking
            # through the enclosing scopes was 9 % of a query's time.)
            limit = min(deadline, trio.current_effective_deadline())
            deadline_ms = max(0, int((limit - trio.current_time()) * 1000))
        self._send(Request(request, method, params, deadline_ms, snapshot, sequence, watermark))
        waiters = self._waiters
        waiter = waiters[request] = _Waiter(trio.lowlevel.current_task(), deadline, settle)
        if len(waiters) == 1:
            self._duplex.flush_now()  # Nobody else is under way to share a write with.
            if self._standing_by is not None and self._leader is None:
                await self._lead(request, waiter)
        else:
            self._duplex.flush_soon()
        if waiter.result is None and waiter.error is None:

            def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
                self._give_up(request)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        if waiter.error is not None:
            raise waiter.error
        assert waiter.result is not None
        return waiter.result

    def _give_up(self, request: int) -> None:
        """The caller was cancelled."""
        waiter = self._waiters.pop(request, None)
        if waiter is not None and not waiter.cancel_sent:
            self._cancel(request)

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
        if self._leader is None:
            self._recall_reader()
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
            self._wake(waiter, error)
        return earliest


def _safe(details: dict[str, Any]) -> dict[str, Any]:
    """Details as keyword arguments: a peer's keys must not collide with the message."""
    return {key: value for key, value in details.items() if key not in ("self", "message")}
