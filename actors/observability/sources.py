"""What the metrics are made of: every part's own statistics, read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from actors.archiver import ArchiverStatistics
from actors.checkpointer import CheckpointerStatistics
from actors.indexer import IndexerStatistics
from actors.mail import WriterStatistics
from actors.namespace_segments import SegmentCounters
from actors.namespace_texts import TextCounters
from actors.namespace_views import ViewStatistics
from actors.observability.loop_lag import LoopLag
from actors.observability.request_log import RequestLog
from actors.observability.requests import HttpRequests, TimingSnapshot, WireRequests
from actors.scrubber import ScrubberStatistics
from actors.supervisor import ActorStatus
from actors.wire import WireStatistics
from treestore.engine.cache import CacheStatistics
from treestore.engine.log import LogStatistics
from treestore.histogram import HistogramSnapshot
from treestore.log_lines import LOG_LINES
from treestore.model.admin import Health

if TYPE_CHECKING:
    from actors.database import Database
    from actors.listener import Listener


class HttpPortNumbers(Protocol):
    """As much of an HTTP port as metrics need."""

    @property
    def connections(self) -> int:
        """Open now."""
        ...


@attrs.frozen(kw_only=True)
class Space:
    """The page file and the disk."""

    page_file_size_bytes: int
    pages: int
    pages_free: int
    pages_retired: int
    pages_dirty: int


@attrs.frozen(kw_only=True)
class InteractiveTransactions:
    """Interactive transactions."""

    active: int
    begun: int
    conflicts: int
    durations: Mapping[str, HistogramSnapshot]
    """By outcome."""


@attrs.frozen(kw_only=True)
class Readers:
    """Snapshots, streams and long queries."""

    open: int
    oldest_age_s: float
    evictions: int


@attrs.frozen(kw_only=True)
class Compactions:
    """What the compactor did."""

    count: int
    running: bool
    pages_moved: int
    bytes_given_back: int
    duration_s_last: float | None


@attrs.frozen(kw_only=True)
class Namespaces:
    """What is done for searching namespaces."""

    views: ViewStatistics
    segments: SegmentCounters
    texts: TextCounters


@attrs.frozen(kw_only=True)
class Now:
    """Everything at a moment."""

    health: Health
    keys: int
    lsn: int
    uptime_s: float
    log: LogStatistics
    cache: CacheStatistics
    writer: WriterStatistics
    checkpoints: CheckpointerStatistics
    space: Space
    transactions: InteractiveTransactions
    readers: Readers
    compactions: Compactions
    scrub: ScrubberStatistics
    archive: ArchiverStatistics | None
    index: IndexerStatistics | None
    namespaces: Namespaces | None
    actors: Mapping[str, ActorStatus]
    wire: WireStatistics | None
    http_connections: int
    timings: Mapping[str, Mapping[str, TimingSnapshot]]
    """By edge, then by operation."""
    http_statuses: Mapping[tuple[str, str], int]
    loop_lag: HistogramSnapshot
    loop_lag_max_s: float
    tasks: int
    lines_suppressed: int
    lines_dropped: int


class Sources:
    """Where the numbers come from. The edges are added as they start."""

    def __init__(
        self,
        database: Database,
        wire: WireRequests,
        http: HttpRequests,
        log: RequestLog | None = None,
    ) -> None:
        self.database = database
        self.wire = wire
        self.http = http
        self.request_log = log
        self.lag = LoopLag()
        self.listener: Listener | None = None
        self.http_ports: Sequence[HttpPortNumbers] = ()

    async def gather(self) -> Now:
        """The numbers now. A millisecond of work on the event loop."""
        db, engine = self.database, self.database.engine
        health = await db.admin_health()
        index = None
        if db.indexer is not None:
            index = await db.threads.run(db.indexer.statistics)
        compactor, suppressed = db.compactor, self.request_log
        return Now(
            health=health,
            keys=engine.durable.count,
            lsn=engine.durable.position.lsn,
            uptime_s=trio.current_time() - db.opened_at,
            log=engine.log.statistics(),
            cache=engine.pages.cache.statistics(),
            writer=db.writer.statistics(),
            checkpoints=db.checkpointer.statistics(),
            space=Space(
                page_file_size_bytes=engine.pages.file.size(),
                pages=engine.free_space.page_count,
                pages_free=engine.free_space.free_pages(),
                pages_retired=engine.free_space.retired_pages(),
                pages_dirty=engine.dirty_pages,
            ),
            transactions=self._transactions(),
            readers=self._readers(),
            compactions=Compactions(
                count=compactor.compactions,
                running=compactor.running,
                pages_moved=compactor.pages_moved,
                bytes_given_back=compactor.bytes_given_back,
                duration_s_last=compactor.duration_s_last,
            ),
            scrub=db.scrubber.statistics(),
            archive=None if db.archiver is None else db.archiver.statistics(),
            index=index,
            namespaces=self._namespaces(),
            actors=dict(db.supervisor.actors) if db.supervisor else {},
            wire=None if self.listener is None else self.listener.statistics(),
            http_connections=sum(port.connections for port in self.http_ports),
            timings={
                "tcp": self.wire.timings.snapshot(),
                "http": self.http.timings.snapshot(),
            },
            http_statuses=dict(self.http.statuses),
            loop_lag=self.lag.snapshot(),
            loop_lag_max_s=self.lag.max_s,
            tasks=trio.lowlevel.current_statistics().tasks_living,
            lines_suppressed=0 if suppressed is None else suppressed.suppressed,
            lines_dropped=LOG_LINES.dropped,
        )

    def _namespaces(self) -> Namespaces | None:
        db = self.database
        views, segments, texts = db.namespace_views, db.segment_keeper, db.text_keeper
        if views is None or segments is None or texts is None:
            return None
        return Namespaces(
            views=views.statistics(), segments=segments.counters, texts=texts.counters
        )

    def _transactions(self) -> InteractiveTransactions:
        transactions = self.database.transactions
        return InteractiveTransactions(
            active=transactions.open,
            begun=transactions.begun,
            conflicts=transactions.conflicts,
            durations=transactions.durations(),
        )

    def _readers(self) -> Readers:
        snapshots = self.database.engine.snapshots()
        return Readers(
            open=len(snapshots),
            oldest_age_s=max((lease.age_s for lease in snapshots), default=0.0),
            evictions=self.database.lease_keeper.evictions,
        )
