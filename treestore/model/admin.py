"""What the ``admin`` operations answer."""

from __future__ import annotations

from datetime import datetime

import attrs


@attrs.frozen
class Health:
    """Whether the store does its work.

    Attributes:
        status: ``ok``; ``degraded`` (works, but somebody should look: ``problems`` says at what);
            ``read_only`` (writing failed: reads go on, writes are refused).
        problems: sentences for people; empty when ok.
        writable: whether writes are taken.
        log_size_bytes: live log, of ``log_size_bytes_max``.
        disk_free_bytes: what the file system has left.
        checkpoint_age_s: seconds since the last checkpoint; None before the first.
        actors: each background actor's state: ``running`` or ``restarting``.
    """

    status: str
    problems: tuple[str, ...]
    writable: bool
    log_size_bytes: int
    log_size_bytes_max: int
    disk_free_bytes: int
    checkpoint_age_s: float | None
    actors: dict[str, str]


@attrs.frozen
class Stats:
    """Counters and sizes of a running store. Counters begin at zero when it is opened."""

    database_uuid: str
    timeline: int
    commit_number: int
    """Number of the last durable transaction."""
    lsn: int
    """Log sequence number of the last durable record."""
    keys: int
    policies: int
    """Policies that have a stored document."""
    documents: int
    """Stored documents: versions of policies."""
    nodes: int
    """Nodes of all documents."""
    page_size_bytes: int
    pages: int
    """Pages in use by the page file, free ones included."""
    pages_free: int
    pages_retired: int
    """Pages that wait for a snapshot or a meta slot to let go of them."""
    page_file_size_bytes: int
    dirty_pages: int
    """About how many pages the next checkpoint writes."""
    log_size_bytes: int
    log_segments: int
    log_appended_bytes: int
    log_syncs: int
    log_sync_s_last: float
    cache_used_bytes: int
    cache_budget_bytes: int
    cache_hit_rate: float
    cache_lookups: int
    cache_misses: int
    cache_evictions: int
    checkpoints: int
    checkpoint_failures: int
    checkpoint_duration_s_last: float | None
    commands: int
    commands_failed: int
    groups: int
    """Groups made durable, each with one sync."""
    transactions: int
    group_size_last: int
    """Transactions in the last group."""
    mailbox_waiting: int
    log_stalls: int
    """How often writers waited for room in the log."""
    snapshots: int
    """Snapshots that are open now."""
    snapshot_oldest_age_s: float | None
    snapshots_evicted: int
    compactions: int
    compaction_running: bool
    compaction_pages_moved: int
    """Nodes and values that compactions gave a lower page, the running one's included."""
    uptime_s: float
    scrub_passes: int = 0
    """How often the scrubber went over everything stored."""
    scrub_pages_verified: int = 0
    scrub_bytes_verified: int = 0
    """In pages and log."""
    scrub_errors: int = 0
    """Damage found, counted again in every pass; ``health`` names it."""
    scrub_finished_at: float | None = None
    """Unix time at which the last pass ended; None before."""
    scrub_bytes_per_s: float = 0.0
    """Of the pass under way, else of the last one."""
    archived_lsn: int | None = None
    """Up to which record the log is archived; None without an archive, or before it is known."""
    archived_pieces: int = 0
    archived_size_bytes: int = 0
    archive_failures: int = 0
    transactions_open: int = 0
    """Interactive transactions that are open now."""
    transactions_committed: int = 0
    """Interactive ones, those that only read included."""
    transaction_conflicts: int = 0
    """Interactive transactions that were refused because another one was first."""
    transactions_expired: int = 0
    """Interactive transactions that were rolled back because their time was up."""
    search_nodes: int = 0
    """Nodes in the full-text index."""
    search_lsn: int | None = None
    """The record that the index goes up to; None while it is rebuilt, or where there is none."""
    search_lag_records: int = 0
    """Records after it. Searches look at what these changed one by one."""
    search_size_bytes: int = 0
    search_commits: int = 0
    search_nodes_indexed: int = 0
    """Nodes put into the index, again and again where they changed."""
    search_rebuilds: int = 0
    search_rebuilding: bool = False
    search_rebuild_nodes: int = 0
    """Of the rebuild under way, or the last one; of ``search_rebuild_nodes_total``."""
    search_rebuild_nodes_total: int = 0
    search_rebuild_documents: int = 0
    search_rebuild_documents_total: int = 0
    namespaces_loaded: int = 0
    """Namespaces whose views are in memory."""
    namespaces_size_bytes: int = 0
    """What these take, mapped files of segments included."""
    namespace_queries: int = 0
    namespace_queries_from_tree: int = 0
    """Queries for which there was no view, so that every document was looked at."""
    namespace_cache_hit_rate: float = 1.0
    """Queries that found the view loaded, of all of them."""
    namespace_segments: int = 0
    """In namespaces that are loaded."""
    namespace_tail_rows: int = 0
    """In namespaces that are loaded: documents that are in no segment yet."""
    namespace_seals: int = 0
    namespace_merges: int = 0
    namespace_rebuilds: int = 0
    """Segments that were made again, since their files were lost or damaged."""
    namespace_upkeep: str = ""
    """What is being done for the segments at the moment."""
    namespace_text_lag_rows: int = 0
    """Documents that a full-text index does not have yet: searches look at them one by one."""
    namespace_text_rebuilds: int = 0


@attrs.frozen
class SnapshotInfo:
    """A reader that holds a state: a snapshot, a stream, a long query.

    Attributes:
        id: counts the readers since the store was opened.
        owner: who reads: ``session 7 (10.0.0.2:53112)``, ``embedded``, or an operation's name.
        opened_at: UTC.
        number: commit number of the state.
        pinned_bytes: what it keeps from being used again, in the page file and in memory; what
            several keep counts for each.
        reads_in_flight: reads that run now.
        state: ``ok``; ``soft`` (open for so long that `health` warns of it); ``hard`` (evicted: its
            pages wait only for the reads in flight).
    """

    id: int
    owner: str
    opened_at: datetime
    age_s: float
    number: int
    pinned_bytes: int
    reads_in_flight: int
    state: str


@attrs.frozen
class CompactResult:
    """What a compaction did."""

    pages_moved: int
    """Nodes and large values that were given a lower page."""
    bytes_given_back: int
    """By how much the page file is shorter."""
    page_file_size_bytes: int
    """How long it is now."""
    duration_s: float


@attrs.frozen
class CheckResult:
    """What an integrity check found; ``errors`` is empty where nothing is wrong.

    ``warnings`` tell of what does no harm by itself, such as one damaged meta slot.
    """

    ok: bool
    errors: tuple[str, ...]
    keys: int
    leaves: int
    branches: int
    large_values: int
    height: int
    pages_used: int
    pages_free: int
    pages_retired: int
    leaf_fill: float
    """Mean share of a leaf page that is used."""
    warnings: tuple[str, ...] = ()


@attrs.frozen
class BackupResult:
    """A backup that was made.

    Attributes:
        path: where it is.
        backup_id: its own id.
        parent_id: of the backup that it builds on; None for a full one.
        timeline, commit_number, lsn: the state that it holds.
        time: when that state's last record was committed, ISO 8601.
        keys: in that state.
        pages: that the state reaches.
        pages_copied: of them, those that are in this backup; the others are in its parents.
        size_bytes: written.
        duration_s: how long it took.
        verified: whether it was opened and checked.
    """

    path: str
    backup_id: str
    parent_id: str | None
    timeline: int
    commit_number: int
    lsn: int
    time: str
    keys: int
    pages: int
    pages_copied: int
    size_bytes: int
    duration_s: float
    verified: bool


@attrs.frozen
class BackupProgress:
    """How far the backup is that is being made.

    Attributes:
        path: where it will be.
        phase: ``starting``, ``copying`` or ``verifying``.
        pages: done in this phase, of about ``pages_total``.
        size_bytes: written so far.
    """

    path: str
    phase: str
    pages: int
    pages_total: int
    size_bytes: int
