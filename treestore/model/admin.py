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
    """What an integrity check found; ``errors`` is empty where nothing is wrong."""

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
