"""Every metric of ours: its name, meaning and labels, and where its value comes from.

``docs/metrics.md`` describes each; a test holds the two together. Names end with their unit, and
totals with ``_total``. Label values come from fixed sets: operations, edges, codes of errors.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import attrs

from actors.namespace_views import ViewStatistics
from actors.observability.requests import ABANDONED, CANCELLED, OK
from actors.observability.sources import Namespaces, Now
from treestore import __version__
from treestore.histogram import HistogramSnapshot
from treestore.stores.operation import OPERATIONS

Kind = Literal["gauge", "counter", "histogram"]
Labelled = Iterable[tuple[tuple[str, ...], Any]]
"""Values by the values of the labels, in the labels' order."""

READING_KINDS = ("query", "awaited", "stream")


@attrs.frozen
class Metric:
    """One metric.

    Attributes:
        name: without ``treestore_``; a counter's without ``_total``.
        read: its value (None: there is none now), or, where it has labels, its values by them.
    """

    kind: Kind
    name: str
    help: str
    read: Callable[[Now], Any]
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """As it is exported; a histogram's is the stem of its series."""
        return f"treestore_{self.name}" + ("_total" if self.kind == "counter" else "")


def _request_durations(now: Now) -> Labelled:
    for edge, timings in now.timings.items():
        for operation, timing in timings.items():
            yield (edge, operation), timing.durations


def _query_durations(now: Now) -> Labelled:
    """Of the operations that read, over all edges."""
    sums: dict[str, HistogramSnapshot] = {}
    for timings in now.timings.values():
        for name, timing in timings.items():
            operation = OPERATIONS.get(name)
            if operation is not None and operation.kind in READING_KINDS:
                found, more = sums.get(name), timing.durations
                sums[name] = more if found is None else _added(found, more)
    for name, durations in sums.items():
        store, _, method = name.partition(".")
        yield (store, method), durations


def _added(one: HistogramSnapshot, other: HistogramSnapshot) -> HistogramSnapshot:
    counts = tuple(map(sum, zip(one.counts, other.counts, strict=True)))
    return HistogramSnapshot(one.bounds, counts, one.total + other.total)


def _requests(now: Now) -> Labelled:
    """TCP's by operation and outcome, HTTP's by method and status: as each edge speaks."""
    for operation, timing in now.timings["tcp"].items():
        failures = sum(timing.failures.values())
        if timing.durations.count > failures:
            yield ("tcp", operation, OK), timing.durations.count - failures
        for code, count in timing.failures.items():
            yield ("tcp", operation, code), count
    for (method, status), count in now.http_statuses.items():
        yield ("http", method, status), count


def _errors(now: Now) -> Labelled:
    counts: Counter[tuple[str, str]] = Counter()
    for timings in now.timings.values():
        for operation, timing in timings.items():
            for code, count in timing.failures.items():
                if code not in (ABANDONED, CANCELLED):
                    counts[code, operation] += count
    for code, count in now.wire.faults.items() if now.wire else ():
        counts[code, "connection"] += count
    yield from counts.items()


def _of_wire(name: str) -> Callable[[Now], Any]:
    return lambda now: None if now.wire is None else getattr(now.wire, name)


def _connections(now: Now) -> Labelled:
    if now.wire is not None:
        yield ("tcp",), now.wire.connections
    yield ("http",), now.http_connections


def _build(_now: Now) -> Labelled:
    yield (__version__, platform.python_version()), 1


def _caches(
    node: Callable[[Now], float], namespace: Callable[[ViewStatistics], float]
) -> Callable[[Now], Labelled]:
    """Of the cache of the tree's nodes, and of the views of namespaces."""

    def read(now: Now) -> Labelled:
        yield ("node",), node(now)
        if now.namespaces is not None:
            yield ("namespace",), namespace(now.namespaces.views)

    return read


def _of_namespaces(value: Callable[[Namespaces], Any]) -> Callable[[Now], Any]:
    return lambda now: None if now.namespaces is None else value(now.namespaces)


def _by(value: Callable[[Now], Mapping[str, Any]]) -> Callable[[Now], Labelled]:
    return lambda now: [((key,), found) for key, found in value(now).items()]


def _of_index(name: str) -> Callable[[Now], Labelled]:
    return lambda now: [] if now.index is None else [(("text",), getattr(now.index, name))]


def _of_archive(name: str) -> Callable[[Now], Any]:
    return lambda now: None if now.archive is None else getattr(now.archive, name)


def _archive_lag(now: Now) -> int | None:
    if now.archive is None or now.archive.archived_lsn is None:
        return None
    return max(0, now.lsn - now.archive.archived_lsn)


def _gauge(name: str, help: str, read: Callable[[Now], Any], *labels: str) -> Metric:
    return Metric("gauge", name, help, read, labels)


def _counter(name: str, help: str, read: Callable[[Now], Any], *labels: str) -> Metric:
    return Metric("counter", name, help, read, labels)


def _histogram(name: str, help: str, read: Callable[[Now], Any], *labels: str) -> Metric:
    return Metric("histogram", name, help, read, labels)


REQUESTS = (
    _histogram(
        "request_duration_seconds",
        "From taking a request to its answer, by operation and edge, failures included.",
        _request_durations,
        "edge",
        "operation",
    ),
    _histogram(
        "query_duration_seconds",
        "The same for operations that read, over all edges, by store and operation.",
        _query_durations,
        "store",
        "operation",
    ),
    _counter(
        "requests",
        "Requests answered: TCP's by operation and outcome, HTTP's by method and status.",
        _requests,
        *("edge", "method", "status"),
    ),
    _counter(
        "errors",
        "Errors answered, by code and operation; 'connection' are connections ended for a fault.",
        _errors,
        *("error_type", "operation"),
    ),
    _gauge("requests_in_flight", "TCP requests being worked on.", _of_wire("requests_in_flight")),
    _gauge("connections", "Open connections.", _connections, "edge"),
    _counter("connections_accepted", "TCP connections accepted.", _of_wire("connections_total")),
    _counter("connections_refused", "TCP connections refused.", _of_wire("connections_refused")),
    _gauge("streams_open", "Open streams and feeds of TCP clients.", _of_wire("streams")),
    _counter("received_bytes", "Bytes received over TCP.", _of_wire("received_bytes")),
    _counter("sent_bytes", "Bytes sent over TCP.", _of_wire("sent_bytes")),
    _gauge(
        "wire_memory_bytes",
        "Memory held by TCP requests and answers under way.",
        lambda now: None if now.wire is None else now.wire.memory.used_bytes,
    ),
    _gauge(
        "wire_memory_limit_bytes",
        "The most that they may hold.",
        lambda now: None if now.wire is None else now.wire.memory.size_bytes_max,
    ),
)

WRITING = (
    _gauge(
        "writable", "1 while writes are taken; 0: read-only.", lambda now: int(now.health.writable)
    ),
    _counter("commands", "Commands run by the writer.", lambda now: now.writer.commands),
    _counter(
        "commands_failed",
        "Of them, those that were rolled back.",
        lambda now: now.writer.failed_commands,
    ),
    _counter(
        "transactions_applied",
        "Transactions made durable, single commands included.",
        lambda now: now.writer.transactions,
    ),
    _histogram(
        "group_transactions",
        "Transactions that became durable together, with one sync.",
        lambda now: now.writer.group_transactions,
    ),
    _histogram(
        "group_size_bytes",
        "Payload of such a group in the log.",
        lambda now: now.writer.group_sizes_bytes,
    ),
    _histogram(
        "commit_duration_seconds",
        "From handing a group to the log until it was durable.",
        lambda now: now.writer.commit_durations,
    ),
    _histogram("fsync_duration_seconds", "Syncs of the log.", lambda now: now.log.sync_durations),
    _gauge("writer_queue", "Commands waiting for the writer.", lambda now: now.writer.waiting),
    _gauge("writer_queue_bytes", "Memory that they hold.", lambda now: now.writer.waiting_bytes),
    _counter(
        "writer_stalls",
        "How often the writer waited for a checkpoint to make room in the log.",
        lambda now: now.writer.stalls,
    ),
    _histogram(
        "transaction_duration_seconds",
        "Interactive transactions from begin to end, by outcome.",
        _by(lambda now: now.transactions.durations),
        "outcome",
    ),
    _counter(
        "transaction_conflicts",
        "Interactive transactions refused because another one was first.",
        lambda now: now.transactions.conflicts,
    ),
    _gauge(
        "transactions_active",
        "Open interactive transactions.",
        lambda now: now.transactions.active,
    ),
)

STORAGE = (
    _gauge("wal_size_bytes", "Live log.", lambda now: now.log.live_bytes),
    _gauge("wal_limit_bytes", "Its hard limit.", lambda now: now.health.log_size_bytes_max),
    _gauge("wal_disk_bytes", "All segment files, spares included.", lambda now: now.log.disk_bytes),
    _gauge("wal_segments", "Segments in use.", lambda now: now.log.segments),
    _counter("wal_appended_bytes", "Written to the log.", lambda now: now.log.appended_bytes),
    _gauge(
        "cache_hit_rate",
        "Share of look-ups that found it in memory, since the store was opened.",
        _caches(lambda now: now.cache.hit_rate, lambda its: its.hit_rate),
        "cache_type",
    ),
    _counter(
        "cache_lookups",
        "Look-ups.",
        _caches(lambda now: now.cache.lookups, lambda its: its.queries),
        "cache_type",
    ),
    _counter(
        "cache_misses",
        "Look-ups that read a page, or loaded a namespace.",
        _caches(lambda now: now.cache.misses, lambda its: its.queries - its.hits),
        "cache_type",
    ),
    _counter(
        "cache_evictions",
        "Entries dropped for room.",
        _caches(lambda now: now.cache.evictions, lambda its: its.evicted),
        "cache_type",
    ),
    _gauge(
        "cache_used_bytes",
        "In use.",
        _caches(lambda now: now.cache.used_bytes, lambda its: its.size_bytes),
        "cache_type",
    ),
    _gauge(
        "cache_budget_bytes",
        "The most that it takes.",
        _caches(lambda now: now.cache.budget_bytes, lambda its: its.budget_bytes),
        "cache_type",
    ),
    _gauge("page_file_size_bytes", "The page file.", lambda now: now.space.page_file_size_bytes),
    _gauge("pages", "Pages of it, free ones included.", lambda now: now.space.pages),
    _gauge("pages_free", "Free pages.", lambda now: now.space.pages_free),
    _gauge(
        "pages_retired",
        "Pages that wait for a snapshot or a meta slot to let go of them.",
        lambda now: now.space.pages_retired,
    ),
    _gauge(
        "pages_dirty",
        "About how many pages the next checkpoint writes.",
        lambda now: now.space.pages_dirty,
    ),
    _gauge("keys", "Keys stored, indexes' included.", lambda now: now.keys),
    _gauge(
        "disk_free_bytes",
        "Left on the data directory's file system.",
        lambda now: now.health.disk_free_bytes,
    ),
    _gauge(
        "snapshots_active", "Open snapshots, streams and long reads.", lambda now: now.readers.open
    ),
    _gauge("snapshot_oldest_seconds", "Age of the oldest.", lambda now: now.readers.oldest_age_s),
    _counter(
        "snapshots_evicted",
        "Snapshots taken from their readers for age or size.",
        lambda now: now.readers.evictions,
    ),
)

BACKGROUND = (
    _counter("checkpoints", "Checkpoints made.", lambda now: now.checkpoints.checkpoints),
    _counter(
        "checkpoint_failures", "Checkpoints that failed.", lambda now: now.checkpoints.failures
    ),
    _histogram(
        "checkpoint_duration_seconds",
        "Checkpoints that wrote something.",
        lambda now: now.checkpoints.durations,
    ),
    _counter(
        "checkpoint_written_bytes",
        "Written by them to the page file.",
        lambda now: now.checkpoints.written_bytes,
    ),
    _gauge(
        "checkpoint_age_seconds",
        "Since the last checkpoint; none before the first since the store was opened.",
        lambda now: now.health.checkpoint_age_s,
    ),
    _counter("compactions", "Compactions ended.", lambda now: now.compactions.count),
    _gauge("compaction_running", "1 while one runs.", lambda now: int(now.compactions.running)),
    _counter("compaction_moved_pages", "Pages moved.", lambda now: now.compactions.pages_moved),
    _counter(
        "compaction_returned_bytes",
        "Given back to the file system.",
        lambda now: now.compactions.bytes_given_back,
    ),
    _gauge(
        "compaction_last_duration_seconds",
        "How long the last one took.",
        lambda now: now.compactions.duration_s_last,
    ),
    _counter("scrub_verified_bytes", "Verified against bit rot.", lambda now: now.scrub.bytes),
    _counter("scrub_errors", "Damage found, again in each pass.", lambda now: now.scrub.errors),
    _gauge("archive_lag_records", "Records of the log not archived yet.", _archive_lag),
    _counter("archive_failures", "Attempts to archive that failed.", _of_archive("failures")),
    _gauge(
        "index_lag_records",
        "Records of the log that an index does not cover yet.",
        _of_index("lag_records"),
        "index",
    ),
    _gauge("index_rows", "Rows of an index.", _of_index("rows"), "index"),
    _gauge("index_size_bytes", "Its files.", _of_index("size_bytes"), "index"),
    _counter("index_rebuilds", "How often it was made anew.", _of_index("rebuilds"), "index"),
    _counter(
        "namespace_queries_from_tree",
        "Queries for which no view was there, so that every document was looked at.",
        _of_namespaces(lambda its: its.views.queries_from_tree),
    ),
    _gauge(
        "namespace_segments",
        "Segments of the namespaces that are loaded.",
        _of_namespaces(lambda its: its.views.segments),
    ),
    _gauge(
        "namespace_tail_rows",
        "Documents of these that are in no segment yet.",
        _of_namespaces(lambda its: its.views.tail_rows),
    ),
    _counter(
        "namespace_seals",
        "Tails that became segments.",
        _of_namespaces(lambda its: its.segments.seals),
    ),
    _counter(
        "namespace_merges",
        "Segments made of others.",
        _of_namespaces(lambda its: its.segments.merges),
    ),
    _counter(
        "namespace_rebuilds",
        "Segments made again, since their files were lost or damaged.",
        _of_namespaces(lambda its: its.segments.rebuilds),
    ),
    _counter(
        "namespace_segment_seconds",
        "Spent on making segments.",
        _of_namespaces(lambda its: its.segments.seconds),
    ),
    _gauge(
        "namespace_text_lag_rows",
        "Documents that a full-text index does not have yet.",
        _of_namespaces(lambda its: its.texts.lag_rows),
    ),
    _counter(
        "namespace_text_rebuilds",
        "Full-text indexes of namespaces that were made anew.",
        _of_namespaces(lambda its: its.texts.rebuilds),
    ),
    _gauge(
        "actor_up",
        "1 while a background actor runs; 0 while it waits to be started again.",
        _by(
            lambda now: {name: int(state == "running") for name, state in now.health.actors.items()}
        ),
        "actor",
    ),
    _counter(
        "actor_restarts",
        "How often it was started again after a crash.",
        _by(lambda now: {name: status.restarts for name, status in now.actors.items()}),
        "actor",
    ),
)

PROCESS = (
    _gauge("build_info", "1, with the versions as labels.", _build, "version", "python"),
    _gauge("uptime_seconds", "Since the store was opened.", lambda now: now.uptime_s),
    _histogram(
        "event_loop_lag_seconds",
        "How late a task is woken; timers themselves may be late by a millisecond.",
        lambda now: now.loop_lag,
    ),
    _gauge(
        "event_loop_lag_max_seconds",
        "The longest of the last minute.",
        lambda now: now.loop_lag_max_s,
    ),
    _gauge("tasks", "Tasks on the event loop.", lambda now: now.tasks),
    _counter(
        "log_lines_suppressed",
        "Lines about requests left out because there were too many.",
        lambda now: now.lines_suppressed,
    ),
    _counter(
        "log_lines_dropped",
        "Log lines lost because nobody read standard error.",
        lambda now: now.lines_dropped,
    ),
)

CATALOGUE: tuple[Metric, ...] = (*REQUESTS, *WRITING, *STORAGE, *BACKGROUND, *PROCESS)

PROCESS_METRICS = (
    "treestore_process_cpu_seconds_total",
    "treestore_process_max_fds",
    "treestore_process_open_fds",
    "treestore_process_resident_memory_bytes",
    "treestore_process_start_time_seconds",
    "treestore_process_virtual_memory_bytes",
)
"""What the metrics library itself adds (on Linux)."""
