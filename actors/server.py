"""The server: a database, its TCP port, its HTTP ports, and when they start and stop.

Start: database (recovery included), TCP, HTTP, metrics; then the ready line. Stop, on SIGTERM or
SIGINT: ``/ready`` answers 503, nothing new is accepted, requests under way may finish for
``grace`` seconds, then the database makes its last checkpoint and closes. A second signal cuts
the grace short. A signal during the start ends it as early as it can be ended. SIGHUP reads the
certificate's files again.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial

import attrs
import trio

from actors.audit_log import AuditFile
from actors.authority import RateLimits
from actors.certificates import Certificates
from actors.database import Database, open_database
from actors.http import HttpPort, HttpSettings, PathsApp, serve_http
from actors.http.app import build_app
from actors.listener import Listener, serve_listener
from actors.observability.loop_lag import LoopLag
from actors.observability.routes import paths_of, routes_of
from actors.observability.watching import Observability
from actors.principal import Principal
from actors.scrubber import FIRST_PAUSE_S, ScrubOptions
from actors.tuning import let_collector_rest, tune
from actors.wire import WireSettings
from protocol.limits import KIB, MIB, Limits
from treestore import __version__
from treestore.engine.options import EngineOptions, OpenProgress
from treestore.errors import InvalidArgument, PermissionDenied, Unavailable
from treestore.loggers import get_logger
from treestore.settings import ServerSettings, is_loopback
from treestore.stores.namespaces.upkeep import UpkeepOptions
from treestore.stores.security.audit import ACTOR

log = get_logger("treestore.server")

EXPORT_S = 5.0
"""How long the last spans may take to leave, where there are any."""


@attrs.frozen
class Addresses:
    """Where a server listens: ``host:port`` of each of its ports."""

    tcp: str
    http: str
    metrics: str


@attrs.define(eq=False)
class _Ports:
    listener: Listener
    http: HttpPort
    metrics: HttpPort
    measuring: trio.CancelScope

    def addresses(self) -> Addresses:
        return Addresses(
            _joined(self.listener.addresses[0]),
            _joined(self.http.addresses[0]),
            _joined(self.metrics.addresses[0]),
        )

    def stop(self) -> None:
        """Begin to stop all ports."""
        self.listener.stop()
        self.http.stop()
        self.metrics.stop()


def _joined(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(
    settings: ServerSettings,
    *,
    as_json: bool = False,
    progress: Callable[[OpenProgress], None] | None = None,
    task_status: trio.TaskStatus[Addresses] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a server until SIGTERM or SIGINT.

    Args:
        as_json: print the ready line as JSON.
        progress: told how far recovery has come, on another thread.

    Resource handling:
        Owns the data directory and all ports; both are closed on return, whatever happens. Sets
        process-wide knobs: the thread switch interval and the collector's thresholds.

    Error handling:
        `InvalidArgument`, `Unavailable`, `PermissionDenied` or `CorruptionError` where the server
        cannot start. Afterwards requests fail, not the server.
    """
    settings.check()
    assert settings.data_dir is not None  # settings.check
    if not settings.data_dir.exists():
        settings.check_exposure(keys_required=False)
    certificates = _certificates(settings)
    observability = Observability(settings)
    tune()
    let_collector_rest()
    stopping = trio.Event()
    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with trio.open_signal_receiver(*handled) as signals:
        async with trio.open_nursery() as nursery:
            work = trio.CancelScope()
            nursery.start_soon(_watch_signals, signals, stopping, work, certificates)
            with work:
                opening = open_database(
                    settings.data_dir,
                    options=_engine_options(settings),
                    progress=progress,
                    scrub=_scrub_options(settings),
                    namespaces=UpkeepOptions(
                        seal_rows=settings.namespace_seal_rows,
                        cache_size_bytes=settings.namespace_cache_mb * MIB,
                    ),
                )
                tls = None if certificates is None else certificates.context
                running = _run(
                    *(settings, opening, tls, observability, stopping, as_json),
                    lambda at: task_status.started(at),
                )
                try:
                    await running
                finally:
                    with trio.move_on_after(EXPORT_S, shield=True):
                        await observability.close()
            nursery.cancel_scope.cancel()
    log.info("stopped")


async def _watch_signals(
    signals: AsyncIterator[int],
    stopping: trio.Event,
    work: trio.CancelScope,
    certificates: Certificates | None,
) -> None:
    async for number in signals:
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            await _reload(certificates)
        elif stopping.is_set():
            log.warning("second signal: not waiting for requests under way", signal=name)
            work.cancel()
        else:
            log.info("stopping", signal=name)
            stopping.set()


async def _reload(certificates: Certificates | None) -> None:
    """Read the certificate's files again; a fault in them is logged, and the old one stays."""
    if certificates is None:
        log.info("nothing to reload: the server speaks no TLS")
        return
    try:
        await trio.to_thread.run_sync(certificates.reload)
    except InvalidArgument as error:
        log.error("certificate not reloaded; the old one stays", error=error.message)
    else:
        log.info("certificate reloaded")


async def _run(
    settings: ServerSettings,
    opening: contextlib.AbstractAsyncContextManager[Database],
    tls: ssl.SSLContext | None,
    observability: Observability,
    stopping: trio.Event,
    as_json: bool,
    started: Callable[[Addresses], None],
) -> None:
    async with opening as database:
        if stopping.is_set():
            return
        _guard(settings, database)
        await _import_search(database)
        async with trio.open_nursery() as nursery:
            ports = await _open_ports(settings, tls, database, observability, stopping, nursery)
            # What exists now lives as long as the process: the collector need not look at it.
            gc.collect()
            gc.freeze()
            addresses = ports.addresses()
            _announce(settings, addresses, as_json)
            # Not sooner: a server that cannot start says so in one line, and nothing else.
            log.info("opened", data=str(settings.data_dir), outcome=str(database.report.outcome))
            log.info("ready", **attrs.asdict(addresses))
            if tls is None and not is_loopback(settings.host):
                log.warning("API keys and data travel in clear; --tls-cert encrypts them")
            started(addresses)
            await stopping.wait()
            ports.stop()
            ports.measuring.cancel()
            # The ports keep to their own grace period; this is the fence behind it.
            nursery.cancel_scope.deadline = trio.current_time() + settings.grace + 5


async def _import_search(database: Database) -> None:
    """Where there are namespaces, import what searches them before anybody waits for it: half a
    second, in much of which the interpreter lets no other thread run."""
    views = database.namespace_views
    if views is not None and (await database.namespaces.list(limit=1)).items:
        await trio.to_thread.run_sync(views.views)


def _guard(settings: ServerSettings, database: Database) -> None:
    """Set up who may do what, and how often, before the first port is open."""
    authority = database.authority
    settings.check_exposure(authority.required)
    authority.limit(
        RateLimits(
            rate=settings.rate_limit,
            burst=settings.rate_burst,
            total=settings.total_rate_limit,
        )
    )
    if settings.audit_log is not None:
        authority.log_audit = AuditFile(settings.audit_log)


async def _open_ports(
    settings: ServerSettings,
    tls: ssl.SSLContext | None,
    database: Database,
    observability: Observability,
    stopping: trio.Event,
    nursery: trio.Nursery,
) -> _Ports:
    sources, pages = observability.of(database, stopping)
    http_settings = _http_settings(settings)
    app = build_app(
        database,
        settings=http_settings,
        authenticate=partial(_who, database),
        observe=observability.http.answered,
        stopping=stopping.is_set,
        more=routes_of(pages),
    )
    with _bind_errors("--port", settings.host, settings.port):
        listener = await nursery.start(
            partial(
                serve_listener,
                database,
                address=settings.host,
                port=settings.port,
                settings=_wire_settings(settings),
                authenticate=database.authority.authenticate,
                tls=tls,
                requests=observability.wire,
            )
        )
    with _bind_errors("--http-port", settings.host, settings.http_port):
        http = await nursery.start(
            partial(
                serve_http,
                app,
                address=settings.host,
                port=settings.http_port,
                settings=http_settings,
                tls=tls,
            )
        )
    with _bind_errors("--metrics-port", settings.host, settings.metrics_port):
        metrics = await nursery.start(
            partial(
                serve_http,
                PathsApp(paths_of(pages)),
                address=settings.host,
                port=settings.metrics_port,
                settings=HttpSettings(grace_s=settings.grace),
            )
        )
    sources.listener, sources.http_ports = listener, (http, metrics)
    measuring = trio.CancelScope()
    nursery.start_soon(_measure, measuring, sources.lag)
    return _Ports(listener, http, metrics, measuring)


async def _measure(scope: trio.CancelScope, lag: LoopLag) -> None:
    with scope:
        await lag.run()


def _announce(settings: ServerSettings, addresses: Addresses, as_json: bool) -> None:
    """Print the ready line."""
    facts = {
        **attrs.asdict(addresses),
        "pid": os.getpid(),
        "data": os.path.abspath(str(settings.data_dir)),
    }
    if as_json:
        line = json.dumps({"event": "ready", **facts})
    else:
        line = " ".join(["treestore ready", *(f"{name}={value}" for name, value in facts.items())])
    try:
        print(line, flush=True)
    except OSError:
        pass  # Nobody reads it; the server serves all the same.


@contextlib.contextmanager
def _bind_errors(flag: str, host: str, port: int) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        where = _joined((host, port))
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(
                f"{where} is in use by another program; choose another with {flag} "
                "(0 picks a free one)."
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PermissionDenied(
                f"This user may not listen on {where}; choose another with {flag}."
            ) from None
        raise Unavailable(f"Cannot listen on {where}: {error.strerror or error}.") from None


def _engine_options(settings: ServerSettings) -> EngineOptions:
    log_size_bytes_max = settings.wal_size_mb * MIB
    archive = None if settings.archive_dir is None else os.path.abspath(settings.archive_dir)
    return EngineOptions(
        cache_size_bytes=settings.cache_size_mb * MIB,
        log_size_bytes_max=log_size_bytes_max,
        log_retention_bytes=settings.watch_retention_mb * MIB,
        transaction_size_bytes_max=min(
            EngineOptions().transaction_size_bytes_max, log_size_bytes_max // 2
        ),
        checkpoint_log_size_bytes=settings.checkpoint_wal_mb * MIB,
        checkpoint_interval_s=settings.checkpoint_interval,
        snapshot_age_s_soft=settings.snapshot_soft_age,
        snapshot_age_s_hard=settings.snapshot_max_age,
        snapshot_pinned_bytes_max=settings.snapshot_pinned_mb * MIB,
        transactions_max=settings.max_transactions,
        compact_free_percent=settings.compact_free_percent,
        compact_size_bytes_min=settings.compact_min_mb * MIB,
        archive_directory="" if settings.no_archive else archive,
        archive_interval_s=settings.archive_interval_s,
    )


def _scrub_options(settings: ServerSettings) -> ScrubOptions:
    return ScrubOptions(
        rate_bytes_per_s=int(settings.scrub_rate_mb * MIB),
        pause_s=settings.scrub_pause,
        first_pause_s=min(FIRST_PAUSE_S, settings.scrub_pause),
    )


def _wire_settings(settings: ServerSettings) -> WireSettings:
    limits = Limits(
        frame_size_bytes_max=settings.max_frame_kb * KIB,
        message_size_bytes_max=settings.max_message_mb * MIB,
        partial_size_bytes_max=settings.max_message_mb * MIB,
    )
    return WireSettings(
        limits=limits,
        connections_max=settings.max_connections,
        connection_rate_max=settings.connection_rate,
        memory_size_bytes_max=settings.wire_memory_mb * MIB,
        grace_s=settings.grace,
        server_name=f"TreeStore {__version__}",
    )


def _who(database: Database, key: str | None, peer: str) -> Principal:
    """Who sends an HTTP request; what it does is entered into the audit trail under that name."""
    principal = database.authority.authenticate(key, peer)
    ACTOR.set(principal.actor(peer))
    return principal


def _http_settings(settings: ServerSettings) -> HttpSettings:
    return HttpSettings(
        connections_max=settings.http_connections,
        body_size_bytes_max=settings.http_body_mb * MIB,
        memory_size_bytes_max=max(settings.http_memory_mb, settings.http_body_mb) * MIB,
        request_timeout_s=settings.http_timeout,
        grace_s=settings.grace,
        origins=tuple(settings.http_origins.replace(",", " ").split()),
    )


def _certificates(settings: ServerSettings) -> Certificates | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
