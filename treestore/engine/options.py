"""Settings of the engine, and what it needs from outside."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs

from treestore.engine.disk import Disk
from treestore.engine.page import PAGE_SIZE_BYTES

MEBIBYTE = 1 << 20


@attrs.frozen
class EngineOptions:
    """Limits and sizes; the defaults suit a server with a few GiB of memory."""

    page_size_bytes: int = PAGE_SIZE_BYTES
    """Only for a new store; an existing one keeps its own."""
    cache_size_bytes: int = 256 * MEBIBYTE
    """Budget of the node cache (decoded size in memory)."""
    log_size_bytes_max: int = 512 * MEBIBYTE
    """Hard limit of the live log: past it writers wait for a checkpoint."""
    log_segment_size_bytes_min: int = 4 * MEBIBYTE
    log_segment_size_bytes_max: int = 100 * MEBIBYTE
    log_retention_bytes: int = 0
    """Log that is kept although no checkpoint needs it, for feeds of changes that fell behind. The
    last three segments stay anyway; on a full disk nothing does."""
    transaction_size_bytes_max: int = 200 * MEBIBYTE
    """Log bytes of one transaction; below half of the log's limit, so that one transaction can
    never wait for a checkpoint that waits for it."""
    window_transactions_max: int = 1_000_000
    """Transactions that are remembered while an interactive transaction is open, so that it can be
    validated against them ..."""
    window_size_bytes_max: int = 128 * MEBIBYTE
    """... and memory that they take, values included. Beyond either the oldest are forgotten, and
    interactive transactions that began before them are refused at their commit."""
    transactions_max: int = 4096
    """Interactive transactions that may be open at a time; one more is refused."""
    checkpoint_log_size_bytes: int = 64 * MEBIBYTE
    """A checkpoint begins when this much log came since the last one ..."""
    checkpoint_records: int = 200_000
    """... or this many transactions ..."""
    checkpoint_interval_s: float = 60.0
    """... or, if anything changed at all, after this time."""
    recovery_batch_bytes: int = 1024 * MEBIBYTE
    """Memory for changes that recovery has read from the log and not yet put into the tree. Less
    means more passes over the tree ..."""
    recovery_dirty_bytes: int = 256 * MEBIBYTE
    """... and memory for pages that it changed and not yet wrote, beyond what leaves the batch;
    past it, it makes a checkpoint. Opening takes at most about the two and the cache's budget."""
    headroom_pages: int = 256
    """Pages kept in reserve so that deletes and checkpoints work on a full disk."""
    snapshot_age_s_soft: float = 300.0
    """A snapshot, or stream, that is older is warned of ..."""
    snapshot_age_s_hard: float = 3600.0
    """... and one that is older than this is evicted."""
    snapshot_pinned_bytes_max: int = 1024 * MEBIBYTE
    """What snapshots may keep from being used again, together; past it the oldest is evicted."""
    compact_free_percent: float = 33.0
    """The page file is compacted when more of it than this was free for a minute ..."""
    compact_size_bytes_min: int = 64 * MEBIBYTE
    """... and that is more than this."""

    archive_directory: str | None = None
    """Where the log is archived to; what is not there yet is never given up. The store remembers
    it. None: as it was; "": no archive any more."""
    archive_interval_s: float = 60.0
    """How often the segment in use is archived, where something was written."""

    def __attrs_post_init__(self) -> None:
        if self.transaction_size_bytes_max * 2 > self.log_size_bytes_max:
            raise ValueError("transaction_size_bytes_max must be below half of log_size_bytes_max")


@attrs.frozen
class OpenProgress:
    """How far opening a store has come.

    Attributes:
        phase: ``verifying`` or ``replaying`` the log, or ``done``.
        done_bytes, total_bytes: of the log, in this phase.
    """

    phase: str
    done_bytes: int
    total_bytes: int

    @property
    def share(self) -> float:
        """From 0 to 1, in this phase."""
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 1.0


@attrs.frozen
class Environment:
    """The outside world, injected: a simulation replaces all three."""

    disk: Disk
    clock_ns: Callable[[], int]
    """Wall-clock time in nanoseconds since the epoch."""
    random: Random
    """Source of uuids and salts (`random.SystemRandom` outside of tests)."""
    pause: Callable[[], None] = lambda: None
    """Called by long background work every fraction of a millisecond: lets other threads run."""
    progress: Callable[[OpenProgress], None] = lambda progress: None
    """Told how far opening has come, on the thread that opens: every few MiB of a log that takes
    long, and once at the end."""
