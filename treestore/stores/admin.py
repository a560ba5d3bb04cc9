"""The ``admin`` service. What runs is the host's; here is only what can be asked of it."""

from __future__ import annotations

from typing import Protocol

from treestore.model.admin import (
    BackupProgress,
    BackupResult,
    CheckResult,
    CompactResult,
    Health,
    SnapshotInfo,
    Stats,
)
from treestore.stores.operation import A, Action, M, Service


class AdminHost(Protocol):
    """The running database, as far as ``admin`` needs it."""

    async def admin_health(self) -> Health: ...
    async def admin_stats(self) -> Stats: ...
    async def admin_checkpoint(self) -> bool: ...
    async def admin_check(self, *, search: bool) -> CheckResult: ...
    async def admin_snapshots(self) -> list[SnapshotInfo]: ...
    async def admin_compact(self) -> CompactResult: ...
    async def admin_backup(
        self,
        path: str,
        *,
        incremental_from: str | None,
        verify: bool,
        rate_limit_mb: float | None,
    ) -> BackupResult: ...
    async def admin_backup_progress(self) -> BackupProgress | None: ...


async def health(host: AdminHost) -> Health:
    """Whether the store does its work, and what is wrong where it does not."""
    return await host.admin_health()


async def stats(host: AdminHost) -> Stats:
    """Counters and sizes of the running store."""
    return await host.admin_stats()


async def checkpoint(host: AdminHost) -> bool:
    """Write the durable state to the page file now; whether there was anything to write."""
    return await host.admin_checkpoint()


async def check(host: AdminHost, *, search: bool = False) -> CheckResult:
    """Verify every page, key and free page of the store, and the documents' indexes.

    Of the newest durable state; writers and readers go on, checkpoints wait.

    Args:
        search: also read all files of the full-text index, and compare its rows with the
            documents. Waits for the index where that is behind. What is wrong with it is a
            warning: it is rebuilt, and no data are lost.
    """
    return await host.admin_check(search=search)


async def snapshots(host: AdminHost) -> list[SnapshotInfo]:
    """The readers that hold a state now, the oldest first, and what each keeps from being reused.

    The server closes snapshots with their connection, and evicts those that are too old or keep
    too much; their readers get `SnapshotExpired`.
    """
    return await host.admin_snapshots()


async def compact(host: AdminHost) -> CompactResult:
    """Give free space of the page file back to the file system now; returns when that is done.

    Readers and writers go on, and the file does not grow because of it. What open snapshots keep
    is not given back. It also happens by itself when much of the file was free for a while.
    """
    return await host.admin_compact()


async def backup(
    host: AdminHost,
    path: str,
    *,
    incremental_from: str | None = None,
    verify: bool = True,
    rate_limit_mb: float | None = None,
) -> BackupResult:
    """Back the store up into the directory ``path``, while readers and writers go on.

    Holds everything that was acknowledged before the call. ``path`` must not exist or be empty,
    and appears when the backup is whole; over TCP it is a path of the server's. Takes as long as
    it takes, with no deadline of its own; when the call is cancelled, or its connection is lost,
    the backup is stopped and cleared away.

    Args:
        incremental_from: an earlier backup; what is in it, or in one that it builds on, is not
            copied again, and all of them are needed for restoring.
        verify: open the backup and check every page of it before it counts as made.
        rate_limit_mb: copy at most this many MiB a second.

    Raises:
        AlreadyExists: ``path`` exists and is not an empty directory.
        InvalidArgument: ``path`` cannot be made, or the earlier backup is of another database or
            timeline.
        NotFound: there is no whole earlier backup.
        CorruptionError: a page of the store, or the earlier backup, is damaged.
        ResourceExhausted: there is no room.
        Unavailable: another backup is being made, or the store is read-only or closing.
    """
    return await host.admin_backup(
        path,
        incremental_from=incremental_from,
        verify=verify,
        rate_limit_mb=rate_limit_mb,
    )


async def backup_progress(host: AdminHost) -> BackupProgress | None:
    """How far the backup is that is being made; None where there is none."""
    return await host.admin_backup_progress()


class Admin(Service[M, A]):
    """Looking after a running store."""

    service_name = "admin"

    health = Action(health)
    stats = Action(stats)
    checkpoint = Action(checkpoint)
    check = Action(check)
    snapshots = Action(snapshots)
    compact = Action(compact)
    backup = Action(backup, long=True)
    backup_progress = Action(backup_progress)
