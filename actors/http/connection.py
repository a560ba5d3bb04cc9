"""One HTTP/1.1 connection, run for an ASGI application.

h11 knows the protocol; this file gives it bytes, calls the application for each request, one after
the other, in the connection's own task, and keeps the limits. Rules:

1. Nothing a peer sends grows without bound: the head of a request, the pace of its body, the time
   an answer takes to leave and the number of connections have limits. (The application limits the
   size of bodies, since it is who holds them.)
2. A request that breaks the protocol gets one answer that says so, then the connection ends.
3. What the application sends in one go leaves in one write, head and body together.
4. A stop lets the request being answered finish and closes what is idle.
5. An application whose peer is gone is cancelled (`Connection.look`).

Why not an ASGI server from elsewhere: per request hypercorn's trio worker starts two tasks, takes
three locks and writes twice, which costs more than three times what everything here does together
(`docs/http.md` has the figures); it bounds neither the writing of answers nor the pace of bodies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import h11
import structlog
import trio

from actors.http.problems import JSON, Problem, problem, told
from actors.http.requests import new_request_id
from actors.pacing import is_gone
from treestore.errors import ProtocolError, TreeStoreError

if TYPE_CHECKING:
    from actors.http.server import HttpPort

log = structlog.get_logger("treestore.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

RECEIVE_SIZE_BYTES = 64 * 1024
WRITE_SIZE_BYTES = 64 * 1024

LINGER_S = 2.0
"""How long what a refused peer still sends is read and dropped: closing with unread bytes resets
the connection, and the peer may then never see the answer."""

BODYLESS = frozenset({204, 304})

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Connection:
    """Reads requests, calls the application, writes its answers."""

    def __init__(
        self,
        app: AsgiApp,
        port: HttpPort,
        stream: trio.abc.Stream,
        socket: trio.abc.Stream,
        scheme: str,
    ) -> None:
        self._app = app
        self._port = port
        self._settings = port.settings
        self._stream = stream
        self._socket = socket
        self._scheme = scheme
        self._h11 = h11.Connection(
            h11.SERVER, max_incomplete_event_size=self._settings.head_size_bytes_max
        )
        self._client, self._server = _peers(socket)
        # The descriptor of a plain socket: good until this object's owner closes it, after `run`.
        self._fd: int | None = None
        if os.name == "posix" and isinstance(stream, trio.SocketStream):
            self._fd = stream.socket.fileno()
        self._working: trio.CancelScope | None = None
        self._since = 0.0

    async def run(self) -> None:
        """Answer requests until the peer, a limit or a stop ends it."""
        request_id = new_request_id()
        try:
            while not self._port.stopping:
                request = await self._next_request()
                if request is None or not await self._serve(request):
                    return
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            text = f"The request is not HTTP/1.1 as it should be: {error}."
            if status == 431:
                most = self._settings.head_size_bytes_max
                text = f"The request line and headers have more than {most} bytes."
            await self._refuse(Problem(status, ProtocolError, text), request_id)
        except TreeStoreError as error:
            await self._refuse(error, request_id)
        finally:
            if isinstance(self._stream, trio.SSLStream):
                await self._say_goodbye()  # noqa: ASYNC102 - it is shielded, for a second

    # -- reading ----------------------------------------------------------------------------

    async def _next_request(self) -> h11.Request | None:
        """The next request's head; None where there will be none."""
        connection, settings = self._h11, self._settings
        if not connection.trailing_data[0]:
            data: bytes | bytearray = b""
            with trio.move_on_after(settings.idle_timeout_s) as idle:
                self._port.idle.add(idle)
                try:
                    data = await self._stream.receive_some(RECEIVE_SIZE_BYTES)
                finally:
                    self._port.idle.discard(idle)
            if idle.cancelled_caught:
                return None
            connection.receive_data(bytes(data))
        event = connection.next_event()
        if event is h11.NEED_DATA:
            with trio.move_on_after(settings.head_timeout_s):
                while event is h11.NEED_DATA:
                    connection.receive_data(
                        bytes(await self._stream.receive_some(RECEIVE_SIZE_BYTES))
                    )
                    event = connection.next_event()
            if event is h11.NEED_DATA:
                raise problem(408, "The request took too long to arrive.")
        if not isinstance(event, h11.Request):
            return None  # The peer is gone, between two requests.
        if self._port.connections > settings.connections_max:
            raise problem(503, "The server has as many connections as allowed.")
        return event

    async def _serve(self, request: h11.Request) -> bool:
        """Have a request answered; whether the connection serves for another one."""
        exchange = Exchange(self, self._h11, request)
        self._since = trio.current_time()
        self._port.requests += 1
        with trio.CancelScope() as self._working:
            self._port.busy.add(self)
            try:
                await self._app(self._scope(request), exchange.receive, exchange.send)
            except TreeStoreError:
                raise
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False  # The peer went away.
            except Exception as error:
                if isinstance(error.__cause__, trio.BrokenResourceError | trio.ClosedResourceError):
                    return False
                request_id = new_request_id()
                log.exception("request failed", request_id=request_id)
                if exchange.begun:
                    return False  # Cut off: the peer sees that the answer is not whole.
                await self._refuse(error, request_id)
                return False
            finally:
                self._port.busy.discard(self)
        if not exchange.complete:
            return False
        return await self._recycle()

    async def _recycle(self) -> bool:
        """Get ready for the next request; False where the connection has to end."""
        connection = self._h11
        if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
            connection.start_next_cycle()
            return True
        if connection.their_state is h11.SEND_BODY:
            await self._linger()
        return False

    def _scope(self, request: h11.Request) -> dict[str, Any]:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "scheme": self._scheme,
            # Percent-encoded still: who routes knows which parts of it are data.
            "path": path.decode("ascii"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": self._client,
            "server": self._server,
            "state": {},
            "extensions": {},
        }

    async def receive_body(self, deadline: float) -> None:
        """Read more of a body.

        Raises:
            Problem: nothing came until ``deadline``.
        """
        connection = self._h11
        if connection.they_are_waiting_for_100_continue:
            go_on = connection.send(h11.InformationalResponse(status_code=100, headers=[]))
            await self.write(go_on or b"")
        with trio.CancelScope(deadline=deadline) as scope:
            connection.receive_data(bytes(await self._stream.receive_some(RECEIVE_SIZE_BYTES)))
        if scope.cancelled_caught:
            raise problem(408, "The request's body comes too slowly, or stopped to come.")

    # -- writing ----------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Send bytes; a peer that does not take them is given up.

        Raises:
            trio.BrokenResourceError: it is gone, or took too long.
        """
        if self._fd is not None:
            # What the socket's buffer takes leaves at once: without a turn of the event loop.
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                written = 0
            except OSError as error:
                raise trio.BrokenResourceError("the peer is gone") from error
            if written == len(data):
                return
            data = data[written:]
        await self._write_slowly(data)

    async def _write_slowly(self, data: bytes) -> None:
        timeout_s = self._settings.write_timeout_s
        if len(data) <= WRITE_SIZE_BYTES:
            with trio.CancelScope(deadline=trio.current_time() + timeout_s) as scope:
                await self._stream.send_all(data)
            if scope.cancelled_caught:
                raise trio.BrokenResourceError("the peer does not take its answer")
            return
        view = memoryview(data)
        for start in range(0, len(view), WRITE_SIZE_BYTES):
            await self._write_slowly(bytes(view[start : start + WRITE_SIZE_BYTES]))

    @property
    def stopping(self) -> bool:
        """Whether this is the connection's last answer."""
        return self._port.stopping

    async def _refuse(self, error: Exception, request_id: str) -> None:
        """Tell why the connection ends, if an answer may still be sent."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        status, extra, body = told(error, request_id)
        headers = [
            JSON,
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode()),
            (b"date", _date()),
            (b"connection", b"close"),
            *extra,
        ]
        head = h11.Response(status_code=status, headers=headers, reason=_REASONS.get(status, b""))
        sent = (self._h11.send(head) or b"") + (self._h11.send(h11.Data(data=body)) or b"")
        try:
            await self.write(sent)
            await self._linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # Nobody listens.

    async def _linger(self) -> None:
        with trio.move_on_after(LINGER_S):
            try:
                if isinstance(self._stream, trio.SocketStream):
                    await self._stream.send_eof()
                while await self._stream.receive_some(RECEIVE_SIZE_BYTES):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def _say_goodbye(self) -> None:
        with trio.move_on_after(1) as scope:
            scope.shield = True
            try:
                await self._stream.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    # -- from the port ----------------------------------------------------------------------

    def look(self, now: float, patience_s: float) -> None:
        """Cancel the request being worked on if it has been for a while and its peer is gone."""
        if self._working is not None and now - self._since > patience_s and is_gone(self._socket):
            self._working.cancel()


class Exchange:
    """A request and its answer: what the application reads and sends."""

    __slots__ = (
        "_body_deadline",
        "_connection",
        "_h11",
        "_head",
        "_headless",
        "_settings",
        "begun",
        "complete",
    )

    def __init__(
        self, connection: Connection, protocol: h11.Connection, request: h11.Request
    ) -> None:
        self._connection = connection
        self._h11 = protocol
        self._settings = connection._settings
        self._headless = request.method == b"HEAD"
        self._head: h11.Response | None = None
        self._body_deadline = 0.0
        self.begun = False
        """Whether anything of the answer left."""
        self.complete = False

    async def receive(self) -> Message:
        """See ASGI. A piece of the body; after its end it returns only when the answer is sent."""
        if not self._body_deadline:
            self._body_deadline = trio.current_time() + self._settings.body_timeout_s
        while self._h11.their_state is h11.SEND_BODY:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                await self._connection.receive_body(self._body_deadline)
            elif isinstance(event, h11.Data):
                size = len(event.data)
                self._body_deadline += size / self._settings.body_rate_min
                return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            elif isinstance(event, h11.EndOfMessage):
                return {"type": "http.request", "body": b"", "more_body": False}
            else:
                break
        if not self.complete:
            await trio.sleep_forever()  # Until it is cancelled: see `Connection.look`.
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """See ASGI. The head waits for the first piece of the body."""
        if message["type"] == "http.response.start":
            status = message["status"]
            self._headless = self._headless or status in BODYLESS
            headers = [*message["headers"], (b"date", _date())]
            if self._leaves_body() or self._connection.stopping:
                headers.append((b"connection", b"close"))
            reason = _REASONS.get(status, b"")
            self._head = h11.Response(status_code=status, headers=headers, reason=reason)
            return
        data = b""
        if self._head is not None:
            data = self._h11.send(self._head) or b""
            self._head = None
        body = message.get("body", b"")
        if body and not self._headless:
            data += self._h11.send(h11.Data(data=body)) or b""
        if not message.get("more_body", False):
            data += self._h11.send(h11.EndOfMessage()) or b""
            self.complete = True
        self.begun = True
        if data:
            await self._connection.write(data)

    def _leaves_body(self) -> bool:
        """Whether there is more of a body than is here already: not worth reading on for.

        What is here is dropped, so that the connection serves for the next request.
        """
        while self._h11.their_state is h11.SEND_BODY:
            if self._h11.next_event() is h11.NEED_DATA:
                return True
        return False


def _peers(stream: trio.abc.Stream) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    if not isinstance(stream, trio.SocketStream):
        return None, None
    try:
        return stream.socket.getpeername()[:2], stream.socket.getsockname()[:2]
    except OSError:
        return ("unknown", 0), None  # It is gone already; nobody may take it for a neighbour.


_date_at = 0
_date_text = b""


def _date() -> bytes:
    """The time as HTTP has it, made once a second."""
    global _date_at, _date_text
    now = int(time.time())
    if now != _date_at:
        _date_at, _date_text = now, formatdate(now, usegmt=True).encode()
    return _date_text
