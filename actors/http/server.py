"""An HTTP port: accepts connections and runs an ASGI application for them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence

import attrs
import trio

from actors.http.connection import Connection
from actors.http.exchange import AsgiApp
from actors.http.settings import HttpSettings
from treestore.loggers import get_logger

log = get_logger("treestore.http")

LOOK_INTERVAL_S = 0.5
"""How often connections are looked at: is somebody there for the answer, does a request come?"""

OVER_LIMIT_MAX = 64
"""Connections above the limit that are told so at a time; more are closed without a word."""


@attrs.frozen
class HttpStatistics:
    """Numbers of a port at a moment; totals count since it started."""

    connections: int
    """Open now."""
    connections_total: int
    """Accepted."""
    requests: int
    """Requests whose head arrived."""
    busy: int
    """Requests being answered now."""


@attrs.define(eq=False)
class HttpPort:
    """A running port, as `serve_http` hands it to its starter."""

    addresses: list[tuple[str, int]]
    settings: HttpSettings
    _accepting: trio.CancelScope
    idle: dict[Connection, float] = attrs.field(factory=dict)
    """Connections that wait for a request, and since when."""
    busy: set[Connection] = attrs.field(factory=set)
    """Connections whose request is being answered."""
    connections: int = 0
    """Open now."""
    connections_total: int = 0
    requests: int = 0
    stopping: bool = False
    looking: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Of the task that looks for peers that are gone or silent."""

    @property
    def port(self) -> int:
        """The first bound port."""
        return self.addresses[0][1]

    def statistics(self) -> HttpStatistics:
        """A snapshot of the numbers."""
        return HttpStatistics(
            connections=self.connections,
            connections_total=self.connections_total,
            requests=self.requests,
            busy=len(self.busy),
        )

    def stop(self) -> None:
        """Begin a graceful stop; `serve_http` returns when it is done."""
        self.stopping = True
        self._accepting.cancel()
        self.looking.cancel()
        for connection in list(self.idle):
            connection.let_go()


async def serve_http(
    app: AsgiApp,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    settings: HttpSettings | None = None,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[HttpPort] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until `HttpPort.stop` is called.

    Resource handling:
        Owns its sockets and connections; all are closed on return. Cancelling it closes them at
        once. After `HttpPort.stop` what is being answered has ``grace_s`` seconds.

    Error handling:
        An application that fails is logged and answered with 500; the connection ends, others go
        on. Errors of bind are raised.
    """
    listeners = await trio.open_tcp_listeners(port, host=address)
    addresses = [listener.socket.getsockname()[:2] for listener in listeners]
    await serve_http_on(
        listeners,
        addresses,
        app,
        settings=settings,
        tls=tls,
        started=lambda handle: task_status.started(handle),
    )


async def serve_http_on(
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    addresses: list[tuple[str, int]],
    app: AsgiApp,
    *,
    settings: HttpSettings | None = None,
    tls: ssl.SSLContext | None = None,
    started: Callable[[HttpPort], None] = lambda _handle: None,
) -> None:
    """`serve_http` on listeners that are open already; owns them from now on."""
    settings = settings or HttpSettings()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as accepting:
            handle = HttpPort(addresses, settings, accepting)

            async def accepted(stream: trio.abc.Stream) -> None:
                await _converse(app, handle, stream, tls)

            nursery.start_soon(_look, handle)
            started(handle)
            await trio.serve_listeners(accepted, list(listeners), handler_nursery=nursery)
        nursery.cancel_scope.deadline = trio.current_time() + settings.grace_s


async def _converse(
    app: AsgiApp, port: HttpPort, socket: trio.abc.Stream, tls: ssl.SSLContext | None
) -> None:
    port.connections_total += 1
    if port.connections >= port.settings.connections_max + OVER_LIMIT_MAX:
        await trio.aclose_forcefully(socket)
        return
    port.connections += 1
    try:
        stream = socket
        if tls is not None:
            stream = trio.SSLStream(socket, tls, server_side=True, https_compatible=True)
            with trio.fail_after(port.settings.head_timeout_s):
                await stream.do_handshake()
        scheme = "http" if tls is None else "https"
        await Connection(app, port, stream, socket, scheme).run()
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        pass  # The peer went away or stalled: nothing is left to say to it.
    except Exception:
        log.exception("connection failed")
    finally:
        port.connections -= 1
        await trio.aclose_forcefully(socket)


async def _look(port: HttpPort) -> None:
    """Give up answers that nobody waits for, and connections that nothing comes on; ends with the
    port. (A deadline for each wait would cost each request more than this loop does.)"""
    with port.looking:
        while True:
            await trio.sleep(LOOK_INTERVAL_S)
            now = trio.current_time()
            for connection in list(port.busy):
                connection.look(now, LOOK_INTERVAL_S)
            idle_before = now - port.settings.idle_timeout_s
            for connection, since in list(port.idle.items()):
                if since < idle_before:
                    connection.let_go()
