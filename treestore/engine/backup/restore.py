"""Restoring: a new data directory from a backup and the archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

import attrs

from treestore.engine.backup.files import disk_errors
from treestore.engine.backup.founding import SCRATCH, Founding, open_and_check, successor
from treestore.engine.backup.index import Index
from treestore.engine.backup.manifest import PAGES, Backup, iso_time, open_chain
from treestore.engine.backup.replay import ArchiveReader, Entry, Gap
from treestore.engine.backup.timelines import TIMELINES, History, Leg
from treestore.engine.check import CheckReport
from treestore.engine.directory import LOCK, LOG
from treestore.engine.directory import PAGES as PAGE_FILE
from treestore.engine.disk import File
from treestore.engine.log import LogIdentity
from treestore.engine.log.position import Tip
from treestore.engine.options import EngineOptions, Environment
from treestore.engine.page import is_intact, peek
from treestore.engine.unfinished import new_directory
from treestore.errors import CorruptionError, InvalidArgument, RestoreIncomplete

BATCH_SIZE_BYTES = 32 << 20
"""Log payloads that are applied between two checkpoints of a replay."""

SYNC_SIZE_BYTES = 64 << 20

_OURS = frozenset({LOCK, LOG, PAGE_FILE, SCRATCH, TIMELINES})


@attrs.frozen(kw_only=True)
class Target:
    """What is asked for; without ``lsn`` and ``time_ns`` the end of the archive.

    Attributes:
        lsn: the last record that may count.
        time_ns: nanoseconds since 1970; nothing that was committed later counts.
        timeline: which one to follow; None for the newest that the backup lies on.
    """

    lsn: int | None = None
    time_ns: int | None = None
    timeline: int | None = None

    def admits(self, tip: Tip) -> bool:
        """Whether a transaction that ends at ``tip`` counts."""
        if self.lsn is not None and tip.lsn > self.lsn:
            return False
        return self.time_ns is None or tip.time_ns <= self.time_ns


@attrs.frozen(kw_only=True)
class RestoreReport:
    """What a restore made.

    Attributes:
        path: the data directory.
        backups: the backups that it was made from, the oldest first.
        database_uuid: of the store.
        timeline: the new one.
        parent_timeline: the one that it leaves.
        lsn: the last record that is in it.
        time: when that was committed, ISO 8601.
        commit_number: of the last transaction.
        replayed_transactions: taken from the archive.
        keys, pages: what the check counted.
    """

    path: str
    backups: tuple[str, ...]
    database_uuid: str
    timeline: int
    parent_timeline: int
    lsn: int
    time: str
    commit_number: int
    replayed_transactions: int
    keys: int
    pages: int


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and how much there is (0: unknown)."""


def restore(
    environment: Environment,
    backup: str,
    data: str,
    *,
    archive: str | None = None,
    target: Target | None = None,
    options: EngineOptions | None = None,
    progress: Progress = lambda what, done, total: None,
) -> RestoreReport:
    """Make the data directory ``data``.

    Raises:
        NotFound: there is no whole backup, or no archive of its database.
        CorruptionError: the backup, or what it builds on, is not as it was written.
        RestoreIncomplete: the archive does not reach what was asked for.
        InvalidArgument: what was asked for lies before the backup, or on no known timeline; or
            ``data`` cannot be made.
        AlreadyExists: ``data`` is there and not an empty directory.
        ResourceExhausted, PermissionDenied, Unavailable: as the operating system says.
    """
    with disk_errors(data):
        work = Restore(environment, backup, archive, target or Target(), options, progress)
        return work.run(data)


class Restore:
    """One restore under way."""

    def __init__(
        self,
        environment: Environment,
        backup: str,
        archive: str | None,
        target: Target,
        options: EngineOptions | None,
        progress: Progress,
    ) -> None:
        """Read what there is and choose the way; nothing is written yet."""
        disk = environment.disk
        self._environment = environment
        self._target = target
        self._options = options or EngineOptions()
        self._progress = progress
        self._chain = open_chain(disk, backup)
        self._manifest = manifest = self._chain[0].manifest
        self._tip = manifest.log_position.tip
        self._commit_number = manifest.commit_number
        self._timeline = manifest.timeline
        """The timeline that the last transaction is on."""
        self._replayed = 0
        history = manifest.history
        self._archive: ArchiveReader | None = None
        if archive is not None:
            self._archive = ArchiveReader(disk, archive, history.database_uuid)
        self._ensure_after_backup()
        self._history, self._legs = self._way(history)

    def _ensure_after_backup(self) -> None:
        if self._target.admits(self._tip):
            return
        raise InvalidArgument(
            f"{self._chain[0].path} is of record {self._tip.lsn}, committed at "
            f"{iso_time(self._tip.time_ns)}, which is after what was asked for. Take an older "
            "backup."
        )

    def _way(self, own: History) -> tuple[History, list[Leg]]:
        """The history of the timeline that is followed, and the way there from the backup."""
        wanted, archive = self._target.timeline, self._archive
        numbers = archive.timelines if archive is not None else []
        if wanted is not None:
            numbers = [number for number in numbers if number == wanted]
        for number in reversed(numbers):
            assert archive is not None
            history = archive.history(number)
            legs = history.legs(own.last, self._tip.lsn)
            if legs is not None:
                return history, legs
        if wanted is not None and wanted != own.last.number:
            raise InvalidArgument(
                f"The backup does not lie on timeline {wanted}, or the archive does not know it; "
                f"the backup is of timeline {own.last.number}, the archive has "
                f"{archive.timelines if archive is not None else []}."
            )
        return own, [Leg(own.last.number, None)]

    def run(self, data: str) -> RestoreReport:
        """Make the directory."""
        environment, disk = self._environment, self._environment.disk
        index = self._chain[0].index(len(self._chain))
        with new_directory(disk, data, _OURS.__contains__) as unfinished:
            self._lay_out(unfinished, index)
            history = self._found(unfinished, index)
            total = self._manifest.page_count
            report = open_and_check(
                environment,
                unfinished,
                self._options,
                lambda done: self._progress("checking", done, total),
            )
        return self._report(data, history, report)

    def _lay_out(self, directory: str, index: Index) -> None:
        """Put every page at its place; each is checked on its way."""
        manifest, disk = self._manifest, self._environment.disk
        size = manifest.page_size_bytes
        files = [backup.open(PAGES) for backup in self._chain]
        out = disk.open(f"{directory}/{PAGE_FILE}", create=True)
        try:
            out.allocate(manifest.page_count * size)
            done, total, unsynced = 0, index.pages(), 0
            for run in index.by_place():
                data = files[run.source].read_at(run.offset * size, run.pages * size)
                head = peek(data)
                found = (head.checksum, head.page, head.pages, head.born)
                if found != (run.checksum, run.page, run.pages, run.born) or not is_intact(data):
                    raise _damaged(self._chain[run.source], files[run.source], run.offset * size)
                out.write_at(run.page * size, [data])
                done += run.pages
                unsynced += len(data)
                if unsynced >= SYNC_SIZE_BYTES:
                    out.sync()
                    unsynced = 0
                if not done % 64:
                    self._progress("copying pages", done, total)
                    self._environment.pause()
            out.sync()
        finally:
            out.close()
            for file in files:
                file.close()
        disk.sync_directory(directory)

    def _found(self, directory: str, index: Index) -> History:
        """Replay what is wanted, and make it a store; its history."""
        manifest, environment = self._manifest, self._environment
        known = self._archive.timelines if self._archive is not None else []
        number = 1 + max(self._history.last.number, manifest.timeline, *known, 0)
        identity = LogIdentity(manifest.history.database_uuid, number)
        founding = Founding(environment, directory, manifest, index, identity, self._options)
        try:
            for batch in self._batches():
                founding.replay(batch)
                self._note(batch)
            left = [one.number for one in self._history.timelines].index(self._timeline) + 1
            trunk = attrs.evolve(self._history, timelines=self._history.timelines[:left])
            history = successor(trunk, number, self._tip, environment)
            founding.finish(history)
        finally:
            founding.close()
        return history

    def _note(self, batch: list[Entry]) -> None:
        last = batch[-1]
        self._tip, self._timeline = last.tip, last.timeline
        self._commit_number = last.transaction_id
        self._replayed += len(batch)
        self._progress("replaying", self._replayed, 0)

    def _batches(self) -> Iterator[list[Entry]]:
        """The wanted transactions of the archive, about 32 MiB at a time."""
        reached = self._tip
        broken: Gap | None = None
        batch: list[Entry] = []
        size = 0
        archive = self._archive
        if archive is not None:
            try:
                for entry in archive.transactions(self._legs, self._manifest.log_position):
                    if not self._target.admits(entry.tip):
                        break
                    batch.append(entry)
                    size += sum(map(len, entry.payloads))
                    if size >= BATCH_SIZE_BYTES:
                        yield batch
                        batch, size = [], 0
            except Gap as gap:
                broken = gap
            reached = archive.reached or reached
        if batch:
            yield batch
        self._ensure_reached(reached, broken)

    def _ensure_reached(self, reached: Tip, broken: Gap | None) -> None:
        """Whether the records that there are prove that nothing is missing before the target."""
        target = self._target
        if target.lsn is None and target.time_ns is None:
            enough = broken is None
        else:
            # Of both, the one that comes first ends it.
            enough = (target.lsn is not None and reached.lsn >= target.lsn) or (
                target.time_ns is not None and reached.time_ns > target.time_ns
            )
        if enough:
            return
        last = max(reached, self._tip, key=lambda tip: tip.lsn)
        at = iso_time(last.time_ns)
        why = "the archive ends there" if self._archive is not None else "no archive was given"
        raise RestoreIncomplete(
            f"What is there reaches record {last.lsn}, committed at {at}, and no further: "
            f"{why if broken is None else broken}. Nothing was made. To accept that point, ask "
            f"for --to-lsn {last.lsn}.",
            reached_lsn=last.lsn,
            reached_time=at,
        )

    def _report(self, data: str, history: History, report: CheckReport) -> RestoreReport:
        last = history.last
        assert last.parent is not None
        return RestoreReport(
            path=data,
            backups=tuple(backup.path for backup in reversed(self._chain)),
            database_uuid=str(UUID(bytes=history.database_uuid)),
            timeline=last.number,
            parent_timeline=last.parent,
            lsn=self._tip.lsn,
            time=iso_time(self._tip.time_ns),
            commit_number=self._commit_number,
            replayed_transactions=self._replayed,
            keys=report.keys,
            pages=report.pages_used,
        )


def _damaged(backup: Backup, file: File, offset: int) -> CorruptionError:
    return CorruptionError(
        f"{file.path} is damaged at byte {offset}: 'treestore verify {backup.path}' says more.",
        file=file.path,
        offset=offset,
    )
