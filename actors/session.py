"""One connection of the listener, from hello to goodbye.

The reader task parses everything that a read brought and answers queries on the spot, without a
task. Commands go to the writer with a callback, without a task either. Only what must wait (cold
queries, prepared commands, actions, streams) runs in a task of the session's nursery. Answers
gather in the outbox and leave together, one write per loop turn.

Back-pressure: the reader stops reading while the client has ``requests_max`` requests in flight or
``output_pause_size_bytes`` of output to take. Streams are counted apart (they need the reader, for
their credit) and refused above their limit.

Resource handling: a session owns its stream, its snapshots and what it charged to the memory
budget; all are given back when `Session.run` returns, however it ends. Commands that the writer
has not begun are taken back then; those it has begun finish, and their answers are dropped.

Error handling: a fault of the client ends the session with a goodbye. A fault of one request is
that request's answer. A fault of the session's own code ends this session only (the listener logs
it). `run` raises nothing but that, and `trio.Cancelled`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import trio

from actors.host import HostSnapshot, HostTransaction, Submission
from actors.memory import Account
from actors.principal import Principal
from actors.session_admission import STOPPING, Admission
from actors.session_answers import LARGE_SIZE_BYTES, Answers
from actors.session_reports import report, report_at_once
from actors.session_snapshots import Snapshots
from actors.session_streams import send_stream
from actors.session_transactions import SessionTransactions
from actors.session_watch import watch
from actors.session_work import STREAMED, Command, Task, deduplication_of, parameters_error
from actors.wire import Method, Shared
from protocol import codes
from protocol.connection import ServerConnection
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.messages import (
    Cancel,
    Credit,
    Goodbye,
    Ping,
    Pong,
    Request,
)
from treestore.client.duplex import Duplex
from treestore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    ResourceExhausted,
    SnapshotExpired,
    TreeStoreError,
    Unavailable,
)
from treestore.loggers import get_logger

log = get_logger("treestore.session")

BURST_S = 0.001
"""Answering queries holds the event loop for about this long and one query, then others run. The
clock is read after each: a small query takes 3 µs, one of 600 nodes a third of a millisecond."""

LINGER_S = 1.0
"""How long a goodbye may take to reach the client."""


class Session(Admission):
    """A client's connection. Made by the listener; `run` does everything."""

    def __init__(self, shared: Shared, stream: trio.abc.Stream, number: int, peer: str) -> None:
        self.number = number
        self.peer = peer
        self._shared = shared
        self._host = shared.host
        self._settings = shared.settings
        self._counters = shared.counters
        self._limits = shared.settings.limits
        self._query_now = shared.host.query_now
        self._duplex = Duplex(stream)
        self._connection = ServerConnection(self._limits)
        self._account = Account(shared.budget)
        self._duplex.on_empty = self._account.release_output
        self._answers = Answers(
            self._duplex, self._connection, self._account, shared.counters, f"{number} ({peer})"
        )
        self._answer = self._answers.answer
        self._fail = self._answers.fail
        self._client = b""
        self._principal = Principal()
        self._find = self._principal.free.get
        self._running: dict[int, Command | Task] = {}
        self._streams = 0
        self._backlog: deque[Command] = deque()
        self._snapshots = Snapshots(shared.host, shared.counters, self._limits.snapshots_max)
        owner = f"transaction, session {number} ({peer})"
        self._transactions = SessionTransactions(shared, self._account, owner)
        self._room: trio.Event | None = None
        self._nursery: trio.Nursery | None = None
        self._greeting: trio.CancelScope | None = None
        self._goodbye: tuple[str, str] | None = None
        self._linger = False
        self._stopping = False
        self._over = False
        self._counted_bytes = (0, 0)

    # --- life ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection until either side ends it. Closes the stream."""
        try:
            if await self._greet():
                await self._serve()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The peer is gone; there is nobody to tell.
        except Exception:
            self._goodbye = (codes.INTERNAL, "The session failed; the server's log says why.")
            self._linger = True
            raise
        finally:
            self._free()
            if self._goodbye is not None:
                self._counters.fault(self._goodbye[0])
                with suppress(LocalProtocolError):
                    self._duplex.append(self._connection.refuse(*self._goodbye))
            if self._linger:
                with trio.move_on_after(LINGER_S, shield=True):
                    await self._duplex.linger(LINGER_S, 4 * self._limits.frame_size_bytes_max)
            self.count_bytes()
            await self._duplex.aclose()

    async def refuse(self, code: str, message: str) -> None:
        """Answer whatever comes with a goodbye and close; instead of `run`."""
        self._goodbye = (code, message)
        self._linger = True
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self._counters.fault(code)
            self._duplex.append(self._connection.refuse(code, message))
            await self._duplex.linger(LINGER_S, LARGE_SIZE_BYTES)
        await self._duplex.aclose()

    def stop(self) -> None:
        """Take no new requests; end once those in flight are answered. A client that has not said
        hello is not waited for."""
        if self._stopping or self._nursery is None:
            self._stopping = True
            if self._greeting is not None:
                self._greeting.cancel()
            return
        self._stopping = True
        goodbye = Goodbye(codes.UNAVAILABLE, STOPPING)
        self._duplex.append(self._connection.send(goodbye))
        self._duplex.flush_soon()
        for entry in self._running.values():
            if isinstance(entry, Task) and entry.endless:
                entry.scope.cancel()
        self._end_if_idle()

    def count_bytes(self) -> None:
        """Add the traffic since the last call to the listener's counters."""
        received, sent = self._duplex.received_bytes, self._duplex.sent_bytes
        self._counters.received_bytes += received - self._counted_bytes[0]
        self._counters.sent_bytes += sent - self._counted_bytes[1]
        self._counted_bytes = (received, sent)

    async def _serve(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._write)
                nursery.start_soon(self._watch)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None

    def _end(self, code: str, message: str, *, linger: bool = True) -> None:
        """End the session for a reason that the client is told if it still listens."""
        if self._goodbye is None:
            self._goodbye, self._linger = (code, message), linger
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def _end_if_idle(self) -> None:
        if self._stopping and not self._running and self._nursery is not None:
            self._linger = True
            self._nursery.cancel_scope.cancel()

    def _free(self) -> None:
        """Give back everything that the session holds."""
        self._over = True
        self._principal.detach(self)
        self._backlog.clear()
        for entry in list(self._running.values()):
            if isinstance(entry, Command):
                if entry.submission is not None:
                    entry.submission.cancel()
                if self._finish(entry):
                    report(self, entry, abandoned=True)
        self._snapshots.close_all()
        self._transactions.close_all()
        self._account.close()

    # --- input -----------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read and handle messages until the connection ends."""
        duplex, connection = self._duplex, self._connection
        duplex.flush_soon()
        holding = False
        while True:
            try:
                # Without saying how much is still to come: one read a turn, so that a peer that
                # sends megabytes gets no larger share of the loop than the others.
                data = await duplex.receive()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not data:
                return
            fault: RemoteProtocolError | None = None
            try:
                messages: list[Any] = connection.receive_data(data)
            except RemoteProtocolError as error:
                messages, fault = error.messages, error
            if holding or connection.held_size_bytes > 0:
                holding = connection.held_size_bytes > 0
                if not self._account.hold_input(connection.held_size_bytes):
                    text = "The server has no memory for a message of this size now; try later."
                    return self._end(codes.RESOURCE_EXHAUSTED, text)
            try:
                await self._handle(messages)
            except RemoteProtocolError as error:
                fault = error
            if fault is not None:
                return self._end(codes.PROTOCOL_ERROR, str(fault))
            duplex.flush_now()
            if duplex.waiting_bytes >= LARGE_SIZE_BYTES:
                self._account.hold_output(duplex.waiting_bytes)
                await duplex.wait_below(self._settings.output_pause_size_bytes)

    async def _handle(self, messages: list[Any]) -> None:
        now = time.perf_counter()
        until = now + BURST_S
        answers, running = self._answers, self._running
        timing_of, quick_s = self._shared.requests.timings.known, self._shared.requests.quick_s
        duplex, pause = self._duplex, self._settings.output_pause_size_bytes
        limit = self._limits.requests_max
        for message in messages:
            if type(message) is Request:
                if len(running) - self._streams >= limit:
                    await self._wait_for_room(limit)
                    now = time.perf_counter()
                if duplex.waiting_bytes >= pause:
                    # One read may hold a thousand requests with an answer of megabytes each.
                    duplex.flush_now()
                    self._account.hold_output(duplex.waiting_bytes)
                    await duplex.wait_below(pause)
                    now = time.perf_counter()
                self._request(message)
                began, now = now, time.perf_counter()
                entry = running.get(message.id)
                if entry is None:
                    # Answered already, in 2 µs perhaps: here even a call would be felt.
                    duration_s = now - began
                    timing = timing_of(message.method)
                    if duration_s > quick_s or timing is None or answers.failed is not None:
                        report_at_once(self, message, duration_s)
                    else:
                        timing.quick += 1
                        timing.total += duration_s
                else:
                    entry.method, entry.began = message.method, began
            else:
                self._message(message)
                now = time.perf_counter()
            if now > until:
                duplex.flush_now()
                await trio.lowlevel.checkpoint()
                now = time.perf_counter()
                until = now + BURST_S

    def _message(self, message: Any) -> None:
        """What is no request."""
        kind = type(message)
        if kind is Credit:
            entry = self._running.get(message.id)
            if isinstance(entry, Task):
                entry.add_credit(message.size_bytes)
        elif kind is Cancel:
            self._cancel(message.id)
        elif kind is Ping:
            self._duplex.append(self._connection.send(Pong(message.token)))
        elif kind is Goodbye:
            self._stopping = True
            self._end_if_idle()

    async def _wait_for_room(self, limit: int) -> None:
        self._duplex.flush_now()
        while len(self._running) - self._streams >= limit:
            self._room = trio.Event()
            await self._room.wait()
        self._room = None

    def _request(self, request: Request) -> None:
        """Answer a request at once, or see to it that it will be."""
        self._counters.requests += 1
        if request.transaction is not None:
            return self._transactions.request(self, request)
        method = self._find(request.method)
        may = method is not None
        if method is not None:
            self._principal.uses += 1
        else:
            if not self._admit(request):
                return
            method = self._shared.methods.find(request.method)
            if method is None:
                return self._own_method(request)
            may = self._principal.is_free(method.operation)
            if may:
                self._principal.free[request.method] = method
        try:
            parameters = method.decode(request.params)
            if not may:
                self._principal.allow(method.operation, parameters)
        except TreeStoreError as error:
            return self._fail(request.id, error)
        except (msgspec.MsgspecError, RecursionError, ValueError, TypeError) as error:
            return self._fail(request.id, parameters_error(request.method, error))
        snapshot: HostSnapshot | None = None
        if request.snapshot is not None:
            snapshot = self._snapshots.find(request.snapshot)
            if snapshot is None:
                text = f"This connection has no open snapshot {request.snapshot}."
                return self._fail(request.id, SnapshotExpired(text))
        if method.kind == "query":
            try:
                result = self._query_now(method.operation, parameters, snapshot)
            except Exception as error:
                return self._fail(request.id, error)
            if result is not None:
                return self._answer(request.id, result)
        if self._may_start(request):
            self._start(request, method, parameters, snapshot)

    def _may_start(self, request: Request) -> bool:
        """Whether new work may be begun; if not, the request is answered."""
        if request.id in self._running:
            text = f"The client broke the rules: request {request.id} is in flight already."
            raise RemoteProtocolError(text)
        if self._stopping:
            text = "The server is stopping; nothing was done."
            self._fail(request.id, Unavailable(text, not_begun=True))
        return not self._stopping

    def _start(
        self,
        request: Request,
        method: Method,
        parameters: msgspec.Struct,
        snapshot: HostSnapshot | None = None,
        transaction: HostTransaction | None = None,
    ) -> None:
        """Set a request going that cannot be answered at once."""
        kind, operation = method.kind, method.operation
        if snapshot is not None and kind not in ("query", "awaited", "stream"):
            text = f"{request.method} cannot be done on a snapshot, which is only read."
            return self._fail(request.id, InvalidArgument(text))
        if kind in STREAMED and self._streams >= self._limits.streams_max:
            text = f"This connection has {self._streams} streams open, as many as are allowed."
            return self._fail(request.id, ResourceExhausted(text))
        size = len(memoryview(request.params))
        if not self._account.reserve(size):
            text = "The server has no memory for this request now; try again later."
            return self._fail(request.id, ResourceExhausted(text))
        deadline = None
        if request.deadline_ms is not None:
            deadline = trio.current_time() + request.deadline_ms / 1000
        self._counters.requests_in_flight += 1
        if kind == "command" and transaction is None:
            deduplication = deduplication_of(self._client, request)
            return self._send_to_writer(
                Command(request.id, operation, parameters, size, deadline, deduplication)
            )
        # The host itself minds the deadline of a command: only it knows whether it was begun.
        task = Task(request.id, size, None if kind == "prepared" else deadline)
        if kind in STREAMED:
            task.is_stream = True
            task.endless = kind == "feed"
            self._streams += 1
            self._counters.streams += 1
            if transaction is not None:
                source = transaction.stream(operation, parameters)
            else:
                source = self._host.stream(operation, parameters, snapshot)
            send, pause = self._connection.send, self._settings.output_pause_size_bytes
            return self._spawn(task, partial(send_stream, task, source, self._duplex, send, pause))
        work: Callable[[], Awaitable[bytes | memoryview]]
        if transaction is not None:
            task.scope.deadline = math.inf if deadline is None else deadline
            work = partial(transaction.run, operation, parameters, size)
        elif kind == "query":
            work = partial(self._query, operation, parameters, snapshot)
        elif kind == "awaited":
            work = partial(self._host.awaited, operation, parameters, snapshot)
        elif kind == "prepared":
            task.writes = True
            work = partial(
                self._host.prepared,
                operation,
                parameters,
                deduplication=deduplication_of(self._client, request),
                size_bytes=size,
                deadline=deadline,
            )
        else:
            work = partial(self._host.action, operation, parameters)
        self._spawn(task, work)

    def _send_to_writer(self, command: Command) -> None:
        """Submit it; where the writer's mailbox is full it waits behind those before it."""
        self._running[command.id] = command
        if self._backlog or not self._submit(command):
            self._backlog.append(command)
            if len(self._backlog) == 1:
                assert self._nursery is not None
                self._nursery.start_soon(self._submit_backlog)

    def _spawn(self, task: Task, work: Callable[[], Awaitable[bytes | memoryview | None]]) -> None:
        self._running[task.id] = task
        assert self._nursery is not None
        self._nursery.start_soon(self._run_task, task, work)

    def _own_method(self, request: Request) -> None:
        """Snapshots belong to the session, not to the database's operations."""
        try:
            result = self._snapshots.call(request, f"session {self.number} ({self.peer})")
            if result is None:
                hint = self._shared.methods.suggestions(request.method)
                raise InvalidArgument(f"There is no method {request.method[:100]!r}. {hint}")
        except msgspec.MsgspecError as error:
            return self._fail(request.id, parameters_error(request.method, error))
        except Exception as error:
            return self._fail(request.id, error)
        self._answer(request.id, result)

    # --- work ------------------------------------------------------------------------------

    def _submit(self, command: Command) -> bool:
        submission: Submission | None
        try:
            host = command.transaction or self._host
            submission = host.submit(
                command.operation,
                command.parameters,
                partial(self._done, command),
                deduplication=command.deduplication,
                size_bytes=command.size_bytes,
                deadline=command.deadline,
            )
        except Exception as error:
            self._done_with_error(command, error)
            return True
        if submission is None:
            return False
        command.submission = submission
        return True

    async def _submit_backlog(self) -> None:
        while self._backlog:
            await self._host.wait_writable()
            # A cancelled command may have left the backlog meanwhile.
            while self._backlog and self._submit(self._backlog[0]):
                self._backlog.popleft()

    def _done(self, command: Command, result: bytes | TreeStoreError) -> None:
        """The writer's answer. Called on the event loop; must not raise."""
        if isinstance(result, TreeStoreError):
            self._done_with_error(command, result)
        elif self._finish(command) and not self._over:
            self._answer(command.id, result)
            report(self, command)
            self._duplex.flush_soon()
            if self._stopping:
                self._end_if_idle()

    def _done_with_error(self, command: Command, error: Exception) -> None:
        if self._finish(command) and not self._over:
            self._fail(command.id, error)
            report(self, command)
            self._duplex.flush_soon()
            self._end_if_idle()

    def _finish(self, entry: Command | Task) -> bool:
        """Forget a request that is about to be answered; False where that happened before."""
        if self._running.get(entry.id) is not entry:
            return False
        del self._running[entry.id]
        if type(entry) is Command:
            if entry.transaction is not None and entry.submission is None:
                entry.transaction.abandon_commit()
            entry.submission = None  # The two would hold each other, and wait for the collector.
        self._account.release(entry.size_bytes)
        self._counters.requests_in_flight -= 1
        if self._room is not None:
            self._room.set()
        return True

    def _cancel(self, request: int) -> None:
        """Stop a request if that is still possible; it is answered in any case."""
        entry = self._running.get(request)
        if entry is None:
            self._snapshots.cancel(request)
        elif isinstance(entry, Task):
            entry.cancelled = True
            entry.scope.cancel()
        else:
            if entry in self._backlog:
                self._backlog.remove(entry)
            elif entry.submission is None or not entry.submission.cancel():
                return
            entry.cancelled = True
            text = "The client cancelled the command before it was begun; nothing was changed."
            self._done_with_error(entry, DeadlineExceeded(text))

    async def _run_task(
        self, task: Task, work: Callable[[], Awaitable[bytes | memoryview | None]]
    ) -> None:
        """Await ``work`` and send its answer; raises only `trio.Cancelled` of the session."""
        result: bytes | memoryview | None = None
        error: Exception | None = None
        try:
            with task.scope:
                result = await work()
            if task.scope.cancelled_caught:
                error = task.interrupted()
        except Exception as raised:
            error = raised
        except trio.Cancelled:
            report(self, task, abandoned=True)
            raise
        finally:
            if task.is_stream:
                self._streams -= 1
                self._counters.streams -= 1
            alive = self._finish(task) and not self._over
        if alive:
            if error is not None:
                self._fail(task.id, error)
            elif result is not None:
                self._answer(task.id, result)
            report(self, task)
            self._duplex.flush_soon()
            self._end_if_idle()

    async def _query(
        self, operation: Any, parameters: msgspec.Struct, snapshot: HostSnapshot | None
    ) -> bytes | memoryview:
        # Many may be in flight, each with a long answer: none is read before it can be sent.
        await self._duplex.wait_below(self._settings.output_pause_size_bytes)
        return await self._host.query(operation, parameters, snapshot)

    async def _watch(self) -> None:
        ending = await watch(
            self._settings, self._duplex, self._connection, self._account, lambda: not self._room
        )
        self._end(ending.code, ending.message, linger=ending.linger)

    async def _write(self) -> None:
        try:
            await self._duplex.run_writer()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            assert self._nursery is not None
            self._nursery.cancel_scope.cancel()
