"""One HTTP/1.1 connection, run for an ASGI application.

h11 knows the protocol, and `actors.http.plain` the form that nearly all requests have; this file
gives them bytes, calls the application for each request, one after the other, in the connection's
own task, and keeps the limits. Rules:

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
from typing import TYPE_CHECKING, Any

import h11
import trio

from actors.http.exchange import REASONS, AsgiApp, Exchange, PlainExchange, date_now
from actors.http.plain import Plain, PlainReader
from actors.http.problems import JSON, Problem, problem, told
from actors.http.requests import new_request_id
from actors.pacing import is_gone
from treestore.errors import ProtocolError, TreeStoreError
from treestore.loggers import get_logger

if TYPE_CHECKING:
    from actors.http.server import HttpPort

log = get_logger("treestore.http")

RECEIVE_SIZE_BYTES = 64 * 1024
WRITE_SIZE_BYTES = 64 * 1024

LINGER_S = 2.0
"""How long what a refused peer still sends is read and dropped: closing with unread bytes resets
the connection, and the peer may then never see the answer."""


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
        self._plain = PlainReader(self._settings.head_size_bytes_max)
        self._pending: Plain | None = None
        """A request that h11 knows nothing of, while it is being answered."""
        self._client, self._server = _peers(socket)
        # The descriptor of a plain socket: good until this object's owner closes it, after `run`.
        self._fd: int | None = None
        if os.name == "posix" and isinstance(stream, trio.SocketStream):
            self._fd = stream.socket.fileno()
        # Of everything that the connection does: a scope for each request would cost more than the
        # rest of this file.
        self._life = trio.CancelScope()
        self._since = 0.0

    async def run(self) -> None:
        """Answer requests until the peer, a limit or a stop ends it."""
        request_id = new_request_id()
        try:
            with self._life:
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

    async def _next_request(self) -> h11.Request | Plain | None:
        """The next request's head; None where there will be none."""
        connection, settings = self._h11, self._settings
        request: h11.Request | Plain | None = None
        if not connection.trailing_data[0]:
            data = await self._next_data()
            if not data:
                return None  # The peer is gone, or silent for too long, between two requests.
            request = self._pending = self._plain.read(data)
            if request is None:
                connection.receive_data(data)
        if request is None:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                with trio.move_on_after(settings.head_timeout_s):
                    while event is h11.NEED_DATA:
                        connection.receive_data(await self._receive())
                        event = connection.next_event()
                if event is h11.NEED_DATA:
                    raise problem(408, "The request took too long to arrive.")
            if not isinstance(event, h11.Request):
                return None
            request = event
        if self._port.connections > settings.connections_max:
            raise problem(503, "The server has as many connections as allowed.")
        return request

    async def _next_data(self) -> bytes:
        """What comes first of the next request; nothing where the peer is gone, or the port let go
        of a connection on which nothing comes (see `let_go`)."""
        idle = self._port.idle
        idle[self] = trio.current_time()
        try:
            return await self._receive()
        finally:
            del idle[self]

    async def _receive(self) -> bytes:
        fd = self._fd
        if fd is None:
            return bytes(await self._stream.receive_some(RECEIVE_SIZE_BYTES))
        # What `trio.SocketStream` does, but for an attempt before waiting: nothing is there yet.
        while True:
            await trio.lowlevel.wait_readable(fd)
            try:
                return os.read(fd, RECEIVE_SIZE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError("the peer is gone") from error

    async def _serve(self, request: h11.Request | Plain) -> bool:
        """Have a request answered; whether the connection serves for another one."""
        exchange: Exchange | PlainExchange
        if isinstance(request, Plain):
            exchange = PlainExchange(self, request)
        else:
            exchange = Exchange(self, self._h11, request)
        self._since = trio.current_time()
        self._port.requests += 1
        self._port.busy.add(self)
        try:
            await self._app(self._scope(request), exchange.receive, exchange.send)
        except TreeStoreError:
            if exchange.begun:
                return False  # Likewise, below.
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
        if self._pending is not None:
            self._pending = None
            return True
        return await self._recycle()

    def hand_over(self, request: Plain) -> Exchange:
        """Have h11 go on with a request that it knew nothing of; nothing was answered yet."""
        self._pending = None
        self._h11.receive_data(request.raw)
        event = self._h11.next_event()
        assert isinstance(event, h11.Request)
        return Exchange(self, self._h11, event)

    async def _recycle(self) -> bool:
        """Get ready for the next request; False where the connection has to end."""
        connection = self._h11
        if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
            connection.start_next_cycle()
            return True
        if connection.their_state is h11.SEND_BODY:
            await self._linger()
        return False

    def _scope(self, request: h11.Request | Plain) -> dict[str, Any]:
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
            connection.receive_data(await self._receive())
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
        if self._pending is not None:
            self.hand_over(self._pending)
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        status, extra, body = told(error, request_id)
        headers = [
            JSON,
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode()),
            (b"date", date_now()),
            (b"connection", b"close"),
            *extra,
        ]
        head = h11.Response(status_code=status, headers=headers, reason=REASONS.get(status, b""))
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
        if now - self._since > patience_s and is_gone(self._socket):
            self._life.cancel()

    def let_go(self) -> None:
        """End the connection, which waits for a request. One that has come just now is answered."""
        if isinstance(self._socket, trio.SocketStream):
            try:
                # It reads what is there, then the end.
                self._socket.socket.shutdown(trio.socket.SHUT_RD)
            except OSError:
                pass  # The peer is gone, as will be seen.
        else:
            self._life.cancel()


def _peers(stream: trio.abc.Stream) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    if not isinstance(stream, trio.SocketStream):
        return None, None
    try:
        return stream.socket.getpeername()[:2], stream.socket.getsockname()[:2]
    except OSError:
        return ("unknown", 0), None  # It is gone already; nobody may take it for a neighbour.
