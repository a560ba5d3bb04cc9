"""The part of the database that makes backups."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import trio

from treestore.engine.backup.copy import BackupCopy, Source
from treestore.engine.backup.files import disk_errors
from treestore.engine.backup.manifest import PAGES, Backup, iso_time, open_chain
from treestore.engine.backup.verify import open_view
from treestore.engine.options import MEBIBYTE
from treestore.errors import InvalidArgument, TreeStoreError, Unavailable
from treestore.loggers import get_logger
from treestore.model.admin import BackupProgress, BackupResult

if TYPE_CHECKING:
    from actors.database import Database

log = get_logger("treestore.backup")

T = TypeVar("T")

PAGES_BEFORE_PAUSE = 16


class _Stopped(Exception):
    """The verification is not wanted any more."""


class BackupPart:
    """Implements the backups of ``treestore.stores.admin.AdminHost`` for `Database`."""

    def __init__(self) -> None:
        self._backup: _Running | None = None

    @property
    def _whole(self) -> Database:
        return cast("Database", self)

    async def admin_backup(
        self,
        path: str,
        *,
        incremental_from: str | None,
        verify: bool,
        rate_limit_mb: float | None,
    ) -> BackupResult:
        """See ``admin.backup``."""
        await trio.lowlevel.checkpoint()
        if not path or "\0" in path:
            raise InvalidArgument("The path of a backup is not empty.")
        if rate_limit_mb is not None and not 0 < rate_limit_mb < math.inf:
            raise InvalidArgument(f"rate_limit_mb is above 0, not {rate_limit_mb}.")
        if self._backup is not None:
            raise Unavailable(
                f"A backup is being made already, to {self._backup.path}; wait for it."
            )
        running = self._backup = _Running(self._whole, path, incremental_from)
        try:
            with running.scope:
                return await running.run(verify, rate_limit_mb)
            raise Unavailable("The store is shutting down; the backup was stopped.")
        finally:
            self._backup = None
            running.ended.set()

    async def admin_backup_progress(self) -> BackupProgress | None:
        """See ``admin.backup_progress``."""
        await trio.lowlevel.checkpoint()
        return None if self._backup is None else self._backup.progress()

    async def stop_backup(self) -> None:
        """Stop the backup that is being made, if there is one, and wait until it let go."""
        if self._backup is not None:
            self._backup.scope.cancel()
            await self._backup.ended.wait()


class _Running:
    """One backup under way."""

    def __init__(self, database: Database, path: str, parent: str | None) -> None:
        self.path = os.path.abspath(path)
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self._database = database
        self._environment = database.engine.environment
        self._parent = None if parent is None else os.path.abspath(parent)
        self._phase = "starting"
        self._copy: BackupCopy | None = None
        self._checked = 0

    def progress(self) -> BackupProgress:
        """How far it is."""
        copy = self._copy
        if copy is None:
            return BackupProgress(self.path, self._phase, 0, 0, 0)
        done = copy.progress
        if self._phase == "verifying":
            return BackupProgress(
                self.path, self._phase, self._checked, done.pages, done.size_bytes
            )
        return BackupProgress(self.path, self._phase, done.pages, done.pages_total, done.size_bytes)

    async def run(self, verify: bool, rate_limit_mb: float | None) -> BackupResult:
        """Make it."""
        began = trio.current_time()
        checkpointer = self._database.checkpointer
        # The newest durable state gets pages, so that everything acknowledged so far is in it.
        await checkpointer.checkpoint()
        async with checkpointer.paused():
            source = Source.of(self._database.engine)
        try:
            copy = self._copy = await self._in_thread(
                partial(BackupCopy, self._environment, source, self.path, self._parent)
            )
            try:
                await self._copy_all(copy, rate_limit_mb)
                sealed = await self._in_thread(copy.seal)
                if verify:
                    self._phase = "verifying"
                    await self._verify(sealed)
                await self._in_thread(copy.publish)
            except BaseException:
                with trio.CancelScope(shield=True), contextlib.suppress(TreeStoreError):
                    await self._in_thread(copy.abort)
                raise
        finally:
            source.pin.close()
        result = self._result(sealed, copy, trio.current_time() - began, verify)
        log.info("backed up", path=self.path, lsn=result.lsn, size_bytes=result.size_bytes)
        return result

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            with disk_errors(self.path):
                return work()

        return await self._database.threads.run(guarded)

    async def _copy_all(self, copy: BackupCopy, rate_limit_mb: float | None) -> None:
        self._phase = "copying"
        allowed_at = trio.current_time()
        while await self._in_thread(copy.step):
            if rate_limit_mb is not None:
                size = copy.progress.size_bytes
                due = allowed_at + size / (rate_limit_mb * MEBIBYTE)
                await trio.sleep_until(max(due, trio.current_time()))

    async def _verify(self, sealed: Backup) -> None:
        """Open it, on a thread that looks every few pages whether it is still wanted."""
        environment = self._environment
        stopped = False
        failure: Exception | None = None

        async def watch() -> None:
            nonlocal stopped
            try:
                await trio.sleep_forever()
            finally:
                stopped = True

        def progress(pages: int) -> None:
            self._checked = pages
            if not pages % PAGES_BEFORE_PAUSE:
                environment.pause()
            if stopped:
                raise _Stopped

        def verify() -> None:
            chain = open_chain(environment.disk, sealed.path)
            chain[0].check(PAGES)
            open_view(environment, chain, progress)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                await self._in_thread(verify)
            except Exception as error:
                # Not through the nursery, which would wrap it into a group.
                failure = error
            nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint_if_cancelled()
        if failure is not None:
            raise failure

    def _result(
        self, sealed: Backup, copy: BackupCopy, duration_s: float, verified: bool
    ) -> BackupResult:
        manifest, progress = sealed.manifest, copy.progress
        return BackupResult(
            path=self.path,
            backup_id=manifest.backup_id,
            parent_id=None if manifest.parent is None else manifest.parent.backup_id,
            timeline=manifest.timeline,
            commit_number=manifest.commit_number,
            lsn=manifest.log_position.lsn,
            time=iso_time(manifest.log_position.time_ns),
            keys=manifest.key_count,
            pages=progress.pages,
            pages_copied=progress.pages_copied,
            size_bytes=sum(entry.size_bytes for entry in manifest.files),
            duration_s=duration_s,
            verified=verified,
        )
