"""The ``admin`` service. What runs is the host's; here is only what can be asked of it."""

from __future__ import annotations

from typing import Protocol

from treestore.model.admin import CheckResult, CompactResult, Health, SnapshotInfo, Stats
from treestore.stores.operation import A, Action, M, Service


class AdminHost(Protocol):
    """The running database, as far as ``admin`` needs it."""

    async def admin_health(self) -> Health: ...
    async def admin_stats(self) -> Stats: ...
    async def admin_checkpoint(self) -> bool: ...
    async def admin_check(self) -> CheckResult: ...
    async def admin_snapshots(self) -> list[SnapshotInfo]: ...
    async def admin_compact(self) -> CompactResult: ...


async def health(host: AdminHost) -> Health:
    """Whether the store does its work, and what is wrong where it does not."""
    return await host.admin_health()


async def stats(host: AdminHost) -> Stats:
    """Counters and sizes of the running store."""
    return await host.admin_stats()


async def checkpoint(host: AdminHost) -> bool:
    """Write the durable state to the page file now; whether there was anything to write."""
    return await host.admin_checkpoint()


async def check(host: AdminHost) -> CheckResult:
    """Verify every page, key and free page of the store, and the documents' indexes.

    Of the newest durable state; writers and readers go on, checkpoints wait.
    """
    return await host.admin_check()


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


class Admin(Service[M, A]):
    """Looking after a running store."""

    service_name = "admin"

    health = Action(health)
    stats = Action(stats)
    checkpoint = Action(checkpoint)
    check = Action(check)
    snapshots = Action(snapshots)
    compact = Action(compact)
