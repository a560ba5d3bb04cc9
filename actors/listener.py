"""The TCP listener: accepts connections and runs a session for each."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence

import attrs
import trio

from actors.host import Host
from actors.memory import MemoryBudget
from actors.observability.requests import WireRequests
from actors.pacing import Pace, PacedListener
from actors.principal import Principal
from actors.session import Session
from actors.wire import Authenticate, Counters, Methods, Shared, WireSettings, WireStatistics
from protocol import codes
from treestore.loggers import get_logger

log = get_logger("treestore.listener")

REFUSALS_MAX = 64
"""Connections above the limit that are told so at a time; more are closed without a word."""


def accept_any(_api_key: str | None, _peer: str) -> Principal:
    """Authentication of a server that has no API keys and never will."""
    return Principal()


@attrs.define(eq=False)
class Listener:
    """A running listener, as `serve_listener` hands it to its starter."""

    addresses: list[tuple[str, int]]
    """Where it listens: host and port as bound."""
    _shared: Shared
    _sessions: set[Session]
    _accepting: trio.CancelScope
    _stopping: bool = False

    @property
    def port(self) -> int:
        """The first bound port."""
        return self.addresses[0][1]

    def statistics(self) -> WireStatistics:
        """A snapshot of the numbers."""
        for session in self._sessions:
            session.count_bytes()
        return self._shared.counters.snapshot(self._shared.budget.statistics())

    def stop(self) -> None:
        """Begin a graceful stop; `serve_listener` returns when it is done."""
        if not self._stopping:
            self._stopping = True
            self._accepting.cancel()


async def serve_listener(
    host: Host,
    *,
    address: str = "127.0.0.1",
    port: int = 7707,
    settings: WireSettings | None = None,
    authenticate: Authenticate = accept_any,
    tls: ssl.SSLContext | None = None,
    requests: WireRequests | None = None,
    task_status: trio.TaskStatus[Listener] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``host`` over TCP until `Listener.stop` is called.

    Args:
        address: the interface to bind; a name may resolve to several addresses.
        port: 0 lets the system pick one.
        authenticate: called with each hello's API key and where it came from, on the event loop:
            ``Database.authority.authenticate`` where keys count.
        tls: speak TLS with this context.
        requests: where requests are counted and timed.

    Resource handling:
        Owns the listening sockets and every session. All are closed on return. After
        `Listener.stop` no connection is accepted, clients get a goodbye, requests in flight have
        ``grace_s`` seconds, and what is left is cancelled. Cancelling this function closes
        everything at once.

    Error handling:
        A session that fails is logged and closed; the others go on. Running out of file
        descriptors is waited out (`trio.serve_listeners` does). Errors of bind are raised.
    """
    listeners = await trio.open_tcp_listeners(port, host=address)
    addresses = [listener.socket.getsockname()[:2] for listener in listeners]
    await serve_on(
        listeners,
        addresses,
        host,
        settings=settings,
        authenticate=authenticate,
        tls=tls,
        requests=requests,
        started=lambda handle: task_status.started(handle),
    )


async def serve_on(
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    addresses: list[tuple[str, int]],
    host: Host,
    *,
    settings: WireSettings | None = None,
    authenticate: Authenticate = accept_any,
    tls: ssl.SSLContext | None = None,
    requests: WireRequests | None = None,
    started: Callable[[Listener], None] = lambda _handle: None,
) -> None:
    """`serve_listener` on listeners that are open already; owns them from now on."""
    settings = settings or WireSettings()
    shared = Shared(
        host=host,
        settings=settings,
        authenticate=authenticate,
        budget=MemoryBudget(settings.memory_size_bytes_max),
        counters=Counters(),
        methods=Methods(),
        requests=requests or WireRequests(),
    )
    sessions: set[Session] = set()
    pace = Pace(settings.connection_rate_max, settings.connections_max)
    paced = [PacedListener(listener, pace) for listener in listeners]
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as accepting:
            handle = Listener(addresses, shared, sessions, accepting)

            async def accepted(stream: trio.abc.Stream) -> None:
                await _handle(shared, sessions, stream, tls)

            # The sockets are bound and listen already: who connects from now on is served.
            started(handle)
            # The sessions run in the outer nursery, which outlives accepting.
            await trio.serve_listeners(accepted, paced, handler_nursery=nursery)
        # Stopped: what is in flight may finish.
        nursery.cancel_scope.deadline = trio.current_time() + settings.grace_s
        for session in list(sessions):
            session.stop()


async def _handle(
    shared: Shared,
    sessions: set[Session],
    tcp_stream: trio.abc.Stream,
    tls: ssl.SSLContext | None,
) -> None:
    counters, settings = shared.counters, shared.settings
    counters.connections_total += 1
    stream = tcp_stream
    if tls is not None:
        stream = trio.SSLStream(tcp_stream, tls, server_side=True, https_compatible=True)
    session = Session(shared, stream, counters.connections_total, _peer_of(tcp_stream))
    if len(sessions) >= settings.connections_max:
        counters.connections_refused += 1
        if counters.refusing < REFUSALS_MAX:
            counters.refusing += 1
            try:
                text = f"The server has {settings.connections_max} connections, as many as allowed."
                await session.refuse(codes.RESOURCE_EXHAUSTED, text)
            finally:
                counters.refusing -= 1
        else:
            await trio.aclose_forcefully(tcp_stream)
        return
    sessions.add(session)
    counters.connections += 1
    try:
        await session.run()
    except Exception:
        log.exception("session failed", session=session.number, peer=session.peer)
        counters.fault(codes.INTERNAL)
    finally:
        sessions.discard(session)
        counters.connections -= 1


def _peer_of(stream: trio.abc.Stream) -> str:
    if not isinstance(stream, trio.SocketStream):
        return "no socket"
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return "unknown"
    return f"{host}:{port}"
