"""The ``admin`` service. What runs is the host's; here is only what can be asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from secrets import token_hex
from typing import Annotated, Protocol

from treestore.model.admin import (
    BackupProgress,
    BackupResult,
    CheckResult,
    CompactResult,
    Health,
    SnapshotInfo,
    Stats,
)
from treestore.model.security import ApiKey, ApiKeyInfo
from treestore.stores.operation import A, Action, M, Query, Service, Wire
from treestore.stores.records.moments import Moment, to_moment
from treestore.stores.security.audit import audit


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
    async def admin_create_key(
        self,
        scopes: Sequence[str],
        *,
        name: str,
        expires_at: datetime | None,
        rate_limit: float | None,
        token: str | None,
    ) -> ApiKey: ...
    async def admin_revoke_key(self, key_id: str) -> bool: ...
    async def admin_list_keys(self) -> list[ApiKeyInfo]: ...


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
    """Verify every page, key and free page of the store, and the stores' indexes.

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


RequestToken = Annotated[str | None, Wire(str, str, fill=lambda: token_hex(16))]
"""Names a request, so that it may be sent again and its answer, which nobody stores, made again."""


async def create_key(
    host: AdminHost,
    scopes: list[str],
    *,
    name: str = "",
    expires_at: Moment | None = None,
    rate_limit: float | None = None,
    token: RequestToken = None,
) -> ApiKey:
    """Make an API key. Its secret is in the answer, and never to be had again.

    Once there is a key, the server answers nobody without one. The first is therefore made on the
    server's own machine: over loopback, or in the data directory while no server has it.

    Args:
        scopes: what the key may do, such as ``["read", "write:collections/people*"]``; see
            ``docs/security.md``.
        name: what people call it; at most 200 characters.
        expires_at: when it stops to work: a datetime, a date (its first moment, UTC) or an ISO
            string; None: never.
        rate_limit: requests a second; None: the server's own limit holds.
        token: 16 to 200 ASCII characters that name this call: the same call with the same token
            gives the same key, as long as the server was not restarted. Clients of this package
            fill it in, so that a call whose connection was lost may be sent again.

    Raises:
        InvalidArgument: a scope is none, or another argument makes no sense.
        AlreadyExists: a key was made for this token, and its secret can be shown no more.
        ResourceExhausted: there are 10,000 keys, and none of them was revoked or has expired.
        PermissionDenied: there is no key yet, and this call does not come from the server's
            machine.
    """
    return await host.admin_create_key(
        scopes,
        name=name,
        expires_at=None if expires_at is None else to_moment(expires_at, "expires_at"),
        rate_limit=rate_limit,
        token=token,
    )


async def revoke_key(host: AdminHost, key_id: str) -> bool:
    """Make an API key count no more; returns whether it did before.

    When this returns, it is refused everywhere: its connections take no more requests, their
    streams have ended, their transactions cannot be committed, and they are closed. What they had
    asked for before has a second to be done. A server whose keys are all revoked answers nobody;
    make another key in the data directory while no server has it.

    Args:
        key_id: the part of the key between ``ts_`` and the secret; not the whole key.

    Raises:
        NotFound: there is no such key.
    """
    return await host.admin_revoke_key(key_id)


async def list_keys(host: AdminHost) -> list[ApiKeyInfo]:
    """Every API key, without its secret, the oldest first; revoked and expired ones too."""
    return await host.admin_list_keys()


class Admin(Service[M, A]):
    """Looking after a running store."""

    service_name = "admin"

    health = Action(health, right="read")
    stats = Action(stats, right="read")
    checkpoint = Action(checkpoint, audited=True)
    check = Action(check)
    snapshots = Action(snapshots)
    compact = Action(compact, audited=True)
    backup = Action(backup, long=True, audited=True)
    backup_progress = Action(backup_progress)
    # These two enter themselves into the audit trail, in the transaction that changes the key.
    create_key = Action(create_key)
    revoke_key = Action(revoke_key)
    list_keys = Action(list_keys)
    audit = Query(audit, right="admin")
