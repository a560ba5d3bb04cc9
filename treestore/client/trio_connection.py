"""A client connection on trio: one reader task, one writer task, one timer task.

Leading
    Where calls come one at a time the reader only adds a turn of the event loop to each. It then
    stands by, and a caller *leads*: it waits on the socket itself, in its own task, and dispatches
    what comes (also other callers' answers) until its own answer is there. The reader takes the
    socket back as soon as a leader leaves others behind or a stream is opened, and after a while
    without calls. So exactly one task reads at any time: the reader, or one leader, or nobody for
    at most two `STAND_BY_S`.
"""

from __future__ import annotations

import math
import ssl
from typing import Any

import msgspec
import trio

import treestore.errors as errors
from protocol.connection import Fragments
from protocol.errors import RemoteProtocolError
from protocol.messages import Request
from treestore.client.calls import ConnectionLost, Sequencer
from treestore.client.connection import Connection, Target, Waiter
from treestore.client.duplex import Duplex
from treestore.errors import Unavailable

STAND_BY_S = 0.01
"""A reader that stands by looks this often whether it is needed again."""

LONELY_ANSWERS = 8
"""The reader stands by after so many reads in a row that brought one answer and left nobody
waiting. Callers that come in groups must not pay for the handing over."""


class _Waiter(Waiter):
    __slots__ = ("task",)

    def __init__(self, task: trio.lowlevel.Task, deadline: float, settle: bool) -> None:
        super().__init__(deadline, settle)
        self.task: trio.lowlevel.Task | None = task
        """The task to wake; None while it leads, since it then sleeps on the socket."""


class TrioConnection(Connection[_Waiter]):
    """An open connection to a server, on trio."""

    def __init__(self, duplex: Duplex, target: Target) -> None:
        super().__init__(target)
        self._duplex = duplex
        self._timer_scope = trio.CancelScope()
        self._scope = trio.CancelScope()
        self._standing_by: trio.Event | None = None
        """Set while the reader leaves the socket to leaders; `_recall_reader` ends that."""
        self._leader: _Waiter | None = None
        self._led = False
        """Whether a caller led since the reader last looked."""
        self._lonely_answers = 0
        self._end: str | None = None
        """Why nothing more can be read, as a leader found it."""

    @classmethod
    async def open(cls, target: Target, sequencer: Sequencer) -> TrioConnection:
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
            raise Unavailable(f"No connection to {target.where}: {error}.") from error
        return await cls.over(stream, target, sequencer)

    @classmethod
    async def over(
        cls, stream: trio.abc.Stream, target: Target, sequencer: Sequencer
    ) -> TrioConnection:
        """Say hello over a stream that is connected already; owns the stream from now on."""
        duplex = Duplex(stream)
        connection = cls(duplex, target)
        try:
            await connection._greet(sequencer)
        except BaseException:
            await duplex.aclose()
            raise
        return connection

    async def _greet(self, sequencer: Sequencer) -> None:
        try:
            self._duplex.append(self._hello(sequencer))
            await self._duplex.drain()
            while True:
                data = await self._duplex.receive()
                if not data:
                    raise Unavailable("The server closed the connection without a word.")
                if self._greeted(self._protocol.receive_data(data)):
                    assert self.welcome is not None
                    self._duplex.outbox.limit(self.welcome.limits)
                    return
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            why = error.__cause__ or error  # trio wraps what TLS says.
            raise Unavailable(f"The connection broke during the hello: {why}.") from error
        except RemoteProtocolError as error:
            raise errors.ProtocolError(str(error)) from None

    # --- serving ---------------------------------------------------------------------------

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
        self._say_goodbye()
        self._duplex.flush_now()
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

    def _append(self, item: bytes | Fragments, key: int = 0) -> None:
        self._duplex.append(item, key)

    def _flush_soon(self) -> None:
        self._duplex.flush_soon()

    def _received_bytes(self) -> int:
        return self._duplex.received_bytes

    def _resume(self, waiter: _Waiter) -> None:
        if waiter.task is not None:
            trio.lowlevel.reschedule(waiter.task)

    def _wake(self, waiter: _Waiter, error: Exception) -> None:
        """End a call from outside of reading."""
        waiter.error = error
        if waiter.task is not None:
            trio.lowlevel.reschedule(waiter.task)
        else:
            self._duplex.interrupt()

    def _stream_opened(self) -> None:
        if self._leader is None:
            self._recall_reader()

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
        transaction: int | None = None,
        begin_ms: int | None = None,
    ) -> msgspec.Raw:
        """See `Connection.call`. A checkpoint."""
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

    # --- time ------------------------------------------------------------------------------

    def _wake_timer(self, deadline: float) -> None:
        self._timer_at = deadline
        self._timer_scope.cancel()

    async def _keep_time(self) -> None:
        """Time out calls, keep the connection alive and notice when it is dead."""
        self._tend(trio.current_time())
        while True:
            with trio.CancelScope() as self._timer_scope:
                await trio.sleep_until(self._timer_at)
            if not self._tend(trio.current_time()):
                self._scope.cancel()
                return
