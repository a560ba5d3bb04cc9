"""A client connection on asyncio: a protocol that answers are dispatched in as they arrive.

No task of its own reads or writes: `data_received` finishes the callers' futures, and what they
queue in one turn of the loop leaves in one write. While the transport asks for a pause the rest
waits in the outbox, where cancellations and long messages keep their order.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, cast

import msgspec

import treestore.errors as errors
from protocol.connection import Fragments
from protocol.errors import RemoteProtocolError
from protocol.messages import Request
from protocol.outbox import Outbox
from treestore.client.calls import ConnectionLost, Sequencer
from treestore.client.connection import Connection, Target, Waiter
from treestore.errors import TreeStoreError, Unavailable


class _Waiter(Waiter):
    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[None], deadline: float, settle: bool) -> None:
        super().__init__(deadline, settle)
        self.future = future


class AsyncioConnection(Connection[_Waiter], asyncio.Protocol):
    """An open connection to a server, on asyncio."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox()
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[None] = self._loop.create_future()
        """Done once the hello is answered, or cannot be any more."""
        self._gone = asyncio.Event()
        """Set once the transport is closed."""
        self._over = asyncio.Event()
        """Set once nothing more will be read."""
        self._reason = "The connection was closed."
        self._fault: Exception | None = None
        self._received = 0
        self._paused = False
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, target: Target, sequencer: Sequencer) -> AsyncioConnection:
        """Connect and say hello; errors as `treestore.client.runtime.Runtime.connect`'s."""
        connection = cls(target)
        try:
            await connection._loop.create_connection(
                lambda: connection,
                target.host,
                target.port,
                ssl=target.tls,
                server_hostname=target.host if target.tls is not None else None,
            )
        except BaseException as error:
            connection._answered.cancel()  # Nobody will ask for it.
            if not isinstance(error, OSError | UnicodeError):  # OSError: what TLS says as well.
                raise
            raise Unavailable(  # noqa: ASYNC104 - an OSError, by now
                f"No connection to {target.where}: {error}."
            ) from error
        try:
            connection._append(connection._hello(sequencer))
            connection._flush()
            await connection._answered
        except BaseException:
            await connection.aclose()
            raise
        return connection

    # --- serving -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection until it ends; then fail what is in flight and close it."""
        self._keep_time()
        try:
            await self._over.wait()
        finally:
            self._end(self._reason)
            await self.aclose()
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """End the connection now; `run` returns soon after."""
        self._say_goodbye()
        self._flush()
        self._end("The connection was closed.")

    async def aclose(self) -> None:
        """Close the socket and wait until it is gone; harmless where it is."""
        if self._transport is not None:
            # What was written is with the system already, unless the server takes nothing.
            self._transport.abort()
            await self._gone.wait()

    def _end(self, reason: str) -> None:
        """Nothing more will come."""
        if not self._over.is_set():
            self._reason = reason
            self._over.set()
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lost is None:
            self._fail_all(ConnectionLost(self._reason))

    # --- called by the transport -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected, and TLS agreed on."""
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Dispatch what was read."""
        self._received += len(data)
        try:
            messages: list[Any] = self._protocol.receive_data(data)
        except RemoteProtocolError as error:
            if self.welcome is None:
                self._refused(errors.ProtocolError(str(error)))
                return
            self._dispatch(error.messages)
            self._end(str(error))
            return
        try:
            if self.welcome is None:
                messages = self._first(messages)
            self._dispatch(messages)
        except Exception as fault:  # Of our own: `run` raises it.
            self._fault = fault
            self._end(f"The client failed: {fault!r}.")
            return
        if self.closing and not (self._waiters or self._streams):
            self._end("The server said goodbye.")

    def _first(self, messages: list[Any]) -> list[Any]:
        """The answer to the hello; returns what came after it."""
        if not messages:
            return []
        try:
            self._greeted(messages[:1])
        except TreeStoreError as error:
            self._refused(error)
            return []
        assert self.welcome is not None
        self._outbox.limit(self.welcome.limits)
        if not self._answered.done():
            self._answered.set_result(None)
        return messages[1:]

    def _refused(self, error: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(error)

    def eof_received(self) -> None:
        """The server sends no more; the transport closes itself."""
        self._end("The server closed the connection.")

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._gone.set()
        if self.welcome is None:
            why = "The server closed the connection without a word."
            if exc is not None:
                why = f"The connection broke during the hello: {exc}."
            self._refused(Unavailable(why))
        self._end(f"The connection broke: {exc}." if exc else "The server closed the connection.")

    def pause_writing(self) -> None:
        """The server takes less than is sent."""
        self._paused = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._paused = False
        self._flush()

    # --- writing -----------------------------------------------------------------------------

    def _append(self, item: bytes | Fragments, key: int = 0) -> None:
        self._outbox.append(item, key)

    def _flush_soon(self) -> None:
        if not self._flush_scheduled and not self._paused:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Hand on what is queued, until the transport asks for a pause."""
        self._flush_scheduled = False
        transport, outbox = self._transport, self._outbox
        if transport is None or transport.is_closing():
            return
        while outbox and not self._paused:
            transport.write(outbox.take())

    # --- calls -------------------------------------------------------------------------------

    def _received_bytes(self) -> int:
        return self._received

    def _resume(self, waiter: _Waiter) -> None:
        if not waiter.future.done():  # Or the caller was cancelled in this turn of the loop.
            waiter.future.set_result(None)

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
        """See `Connection.call`."""
        if self._lost is not None:
            raise ConnectionLost(str(self._lost), begun=False)
        self._last_id = request = self._last_id + 1
        deadline_ms = None
        if deadline < self._timer_at:
            self._set_timer(deadline)
        if settle and deadline != math.inf:
            # The server must not begin what nobody waits for.
            deadline_ms = max(0, int((deadline - self._loop.time()) * 1000))
        self._send(
            Request(
                request,
                method,
                params,
                deadline_ms,
                snapshot,
                sequence,
                watermark,
                transaction,
                begin_ms,
            )
        )
        waiters = self._waiters
        waiter = waiters[request] = _Waiter(self._loop.create_future(), deadline, settle)
        if len(waiters) == 1:
            self._flush()  # Nobody else is under way to share a write with.
        else:
            self._flush_soon()
        try:
            await waiter.future
        except asyncio.CancelledError:
            if waiter.result is not None:
                # The answer is here and its caller is not: a snapshot that it opened is let go.
                self._cancel(request)
            self._give_up(request)
            raise
        if waiter.error is not None:
            raise waiter.error
        assert waiter.result is not None
        return waiter.result

    # --- time --------------------------------------------------------------------------------

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._keep_time)

    def _keep_time(self) -> None:
        """Time out calls, keep the connection alive and notice when it is dead."""
        if self._over.is_set():
            return
        if self._tend(self._loop.time()):
            self._set_timer(self._timer_at)
        else:
            self._end("The server did not answer for too long.")
