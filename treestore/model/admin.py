"""What the ``admin`` operations answer."""

from __future__ import annotations

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
