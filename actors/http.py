"""A small HTTP/1.1 edge: fixed paths, JSON answers, bodies of requests ignored.

h11 knows the protocol; this file gives it bytes and keeps the limits. Rules:

1. Nothing a peer sends grows without bound: the head of a request, its (discarded) body, the
   time it takes to arrive and the number of connections have limits.
2. A request that breaks the protocol gets one answer that says so, then the connection ends.
3. A stop lets the request being answered finish and closes what is idle.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import attrs
import h11
import msgspec
import structlog
import trio

log = structlog.get_logger("treestore.http")

_RECEIVE_SIZE_BYTES = 16 * 1024


@attrs.frozen(kw_only=True)
class HttpSettings:
    """Limits of an HTTP port. Times are in seconds, sizes in bytes."""

    connections_max: int = 256
    """One more is told 503."""
    head_size_bytes_max: int = 16 * 1024
    """Request line and headers (nginx's and Node's limit); 431 past it."""
    body_size_bytes_max: int = 64 * 1024
    """No path here needs a body; a longer one is refused with 413."""
    idle_timeout_s: float = 75.0
    """How long a connection may wait for its (next) request."""
    request_timeout_s: float = 10.0
    """From a request's first byte to its last."""
    write_timeout_s: float = 10.0
    """For the peer to take the answer."""
    grace_s: float = 10.0
    """For answers under way when a stop is asked for."""


@attrs.frozen
class Answer:
    """An answer of a path: its status and a value for JSON."""

    status: int
    body: object
    headers: tuple[tuple[str, str], ...] = ()


Paths = Mapping[str, Callable[[], Awaitable[Answer]]]
"""What GET (and HEAD) of each path answers."""


@attrs.define(eq=False)
class HttpPort:
    """A running port, as `serve_http` hands it to its starter."""

    addresses: list[tuple[str, int]]
    _accepting: trio.CancelScope
    _idle: set[trio.CancelScope]
    connections: int = 0
    """Open now."""
    stopping: bool = False

    @property
    def port(self) -> int:
        """The first bound port."""
        return self.addresses[0][1]

    def stop(self) -> None:
        """Begin a graceful stop; `serve_http` returns when it is done."""
        self.stopping = True
        self._accepting.cancel()
        for scope in list(self._idle):
            scope.cancel()


async def serve_http(
    paths: Paths,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    settings: HttpSettings | None = None,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[HttpPort] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``paths`` until `HttpPort.stop` is called.

    Resource handling:
        Owns its sockets and connections; all are closed on return. Cancelling it closes them at
        once.

    Error handling:
        A handler that fails is logged and answered with 500; the connection ends, others go on.
        Errors of bind are raised.
    """
    settings = settings or HttpSettings()
    listeners = await trio.open_tcp_listeners(port, host=address)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as accepting:
            addresses = [listener.socket.getsockname()[:2] for listener in listeners]
            handle = HttpPort(addresses, accepting, set())

            async def accepted(stream: trio.SocketStream) -> None:
                handle.connections += 1
                try:
                    await _Conversation(paths, handle, settings, stream, tls).run()
                except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                    pass  # The peer went away or stalled: nothing is left to say to it.
                except Exception:
                    log.exception("connection failed")
                finally:
                    handle.connections -= 1

            task_status.started(handle)
            await trio.serve_listeners(accepted, listeners, handler_nursery=nursery)
        nursery.cancel_scope.deadline = trio.current_time() + settings.grace_s


class _Conversation:
    """One connection."""

    def __init__(
        self,
        paths: Paths,
        port: HttpPort,
        settings: HttpSettings,
        stream: trio.SocketStream,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.paths = paths
        self.port = port
        self.settings = settings
        self.stream: trio.abc.Stream = stream
        if tls is not None:
            self.stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        self.connection = h11.Connection(
            h11.SERVER, max_incomplete_event_size=settings.head_size_bytes_max
        )

    async def run(self) -> None:
        """Answer requests until the peer, a limit or a stop ends it."""
        while not self.port.stopping:
            try:
                with trio.move_on_after(self.settings.idle_timeout_s) as idle:
                    self.port._idle.add(idle)
                    try:
                        await self._first_byte()
                    finally:
                        self.port._idle.discard(idle)
                if idle.cancelled_caught:
                    return
                with trio.fail_after(self.settings.request_timeout_s):
                    request = await self._request()
                if request is None:
                    return
                await self._send(await self._answer(request), request.method == b"HEAD")
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                await self._refuse(status, f"The request is not HTTP/1.1 as it should be: {error}")
                return
            except _Refused as refused:
                await self._refuse(refused.status, refused.text)
                return
            except trio.TooSlowError:
                # (Where the answer took too long to leave, this says nothing more.)
                await self._refuse(408, "The request took too long to arrive.")
                return
            if self.connection.our_state is not h11.DONE:
                return  # MUST_CLOSE: the peer asked for it, or speaks HTTP/1.0.
            self.connection.start_next_cycle()

    async def _first_byte(self) -> None:
        """Wait for a request to begin, unless bytes of one are here already (pipelining)."""
        if not self.connection.trailing_data[0]:
            self.connection.receive_data(bytes(await self.stream.receive_some(_RECEIVE_SIZE_BYTES)))

    async def _request(self) -> h11.Request | None:
        """The next request, its body read and dropped; None where the peer is gone."""
        request: h11.Request | None = None
        body_size_bytes = 0
        while True:
            event = self.connection.next_event()
            if event is h11.NEED_DATA:
                if self.connection.they_are_waiting_for_100_continue:
                    raise _Refused(413, "No path here takes a body.")
                self.connection.receive_data(
                    bytes(await self.stream.receive_some(_RECEIVE_SIZE_BYTES))
                )
            elif isinstance(event, h11.Request):
                request = event
                if self.port.connections > self.settings.connections_max:
                    raise _Refused(503, "The server has as many connections as allowed.")
            elif isinstance(event, h11.Data):
                body_size_bytes += len(event.data)
                if body_size_bytes > self.settings.body_size_bytes_max:
                    raise _Refused(413, "No path here takes a body.")
            elif isinstance(event, h11.EndOfMessage):
                return request
            else:  # ConnectionClosed, between requests
                return None

    async def _answer(self, request: h11.Request) -> Answer:
        path = request.target.partition(b"?")[0].decode("ascii", "replace")
        handler = self.paths.get(path)
        if handler is None:
            known = ", ".join(sorted(self.paths))
            return problem(404, f"There is nothing at {path}; there is: {known}.")
        if request.method not in (b"GET", b"HEAD"):
            method = request.method.decode("ascii", "replace")
            text = f"{path} answers GET and HEAD, not {method}."
            return attrs.evolve(problem(405, text), headers=(("Allow", "GET, HEAD"),))
        try:
            return await handler()
        except Exception:
            log.exception("request failed", path=path)
            return problem(500, "A fault in TreeStore; the server's log has the details.")

    async def _send(self, answer: Answer, head_only: bool = False, close: bool = False) -> None:
        body = msgspec.json.encode(answer.body) + b"\n"
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            *answer.headers,
        ]
        if close or self.port.stopping:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(answer.status).phrase
        head = h11.Response(status_code=answer.status, headers=headers, reason=reason)
        sent = [self.connection.send(head)]
        if not head_only:
            sent.append(self.connection.send(h11.Data(data=body)))
        sent.append(self.connection.send(h11.EndOfMessage()))
        with trio.fail_after(self.settings.write_timeout_s):
            await self.stream.send_all(b"".join(part for part in sent if part))

    async def _refuse(self, status: int, text: str) -> None:
        if self.connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self._send(problem(status, text), close=True)
        # Closing with unread bytes resets the connection, and the peer may then never see the
        # answer: so read on for a moment, within bounds.
        with trio.move_on_after(1):
            if isinstance(self.stream, trio.SocketStream):
                await self.stream.send_eof()
            for _ in range(64):
                if not await self.stream.receive_some(_RECEIVE_SIZE_BYTES):
                    break


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def problem(status: int, text: str) -> Answer:
    """An error as every path answers it."""
    code = HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    return Answer(status, {"error": {"code": code, "message": text}})
