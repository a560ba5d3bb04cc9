"""Salvaging a damaged store into a new directory. `docs/repair.md` argues why this is right.

Of each range of keys, the first of these that has it:

1. the newest slot's tree;
2. the older slot's tree, which the log after *its* position brings up to date;
3. if asked for: leaves that nothing refers to;
4. nothing: then only what the log says of keys in that range.

Then the log: records up to the newest slot's position for the ranges that did not come from its
tree, records behind it for all keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from treestore.engine.check import check_engine
from treestore.engine.directory import open_engine
from treestore.engine.engine import Engine
from treestore.engine.log import LogIdentity, LogPosition
from treestore.engine.meta import Meta, damaged_slots
from treestore.engine.node import Ref
from treestore.engine.options import EngineOptions, Environment
from treestore.engine.pagefile import PageFile
from treestore.engine.salvage.logmap import LogMap, Stretch, map_log
from treestore.engine.salvage.orphans import Orphans, find_orphans
from treestore.engine.salvage.replay import Change, apply, changes, transactions
from treestore.engine.salvage.report import RepairReport, Replaced, Skipped
from treestore.engine.salvage.source import Source, open_source
from treestore.engine.salvage.walk import Items, Lost, Range, Ranges, walk
from treestore.engine.transaction import WriteTransaction
from treestore.errors import CorruptionError, InvalidArgument

BATCH_BYTES = 1 << 20
BATCH_ITEMS = 20_000
"""A transaction of the new store is not larger: memory and undo stay small."""

EVERYTHING: Range = (b"", None)
LSN_MAX = 1 << 63

Progress = Callable[[str, int, int], None]
"""Told of each step: what is done, how much of it, of how much (0: unknown)."""

CheckDocuments = Callable[[Engine], list[str]]


@attrs.frozen
class RepairOptions:
    """What to put into the new store beside what is certain.

    Attributes:
        include_unreferenced: leaves that nothing refers to, for ranges that are lost otherwise.
        past_damage: log groups behind damage in the middle of the log.
    """

    include_unreferenced: bool = False
    past_damage: bool = False


def repair(
    source_directory: str,
    target_directory: str,
    options: RepairOptions,
    engine_options: EngineOptions,
    environment: Environment,
    *,
    check_documents: CheckDocuments = lambda _engine: [],
    progress: Progress = lambda _what, _done, _total: None,
) -> RepairReport:
    """Salvage ``source_directory`` into a new store in ``target_directory``.

    The source is only read. The target is a new database: it has its own uuid, its log and its
    commit numbers begin anew.

    Args:
        source_directory: the damaged store.
        target_directory: where the new one goes; does not exist yet, or is empty.
        options: what to include.
        engine_options: for the new store; the page size is the old one's.
        environment: for both.
        check_documents: what is wrong with the stores' own structures, a sentence each.
        progress: told of each step.

    Raises:
        InvalidArgument: the target is in use, or the source is of another format version.
        NotFound, Unavailable: see `open_source`.
    """
    disk = environment.disk
    if disk.exists(target_directory) and disk.list(target_directory):
        raise InvalidArgument(f"{target_directory} is not empty; name a new directory.")
    source = open_source(disk, source_directory)
    try:
        if source.other_version and not source.metas:
            raise InvalidArgument(
                f"{source_directory} has a format version that this TreeStore does not know. Use "
                "the release that wrote it, or a newer one."
            )
        engine_options = attrs.evolve(engine_options, page_size_bytes=source.page_size)
        store = open_engine(target_directory, engine_options, environment)
        try:
            report = RepairReport(source_directory, target_directory, source.page_size)
            job = _Repair(source, store.engine, options, report, progress)
            job.run()
            _check(store.engine, report, check_documents, progress)
        finally:
            store.close()
        return report
    finally:
        source.close()


def _check(
    engine: Engine, report: RepairReport, check_documents: CheckDocuments, progress: Progress
) -> None:
    total = engine.free_space.page_count
    checked = check_engine(engine, lambda done: progress("checking pages", done, total))
    report.check_errors = checked.errors
    report.keys = checked.keys
    report.new_database_uuid = engine.identity.database_uuid.hex()
    if checked.ok:
        progress("checking documents", 0, 0)
        report.documents = check_documents(engine)


class _Writer:
    """Puts things into the new store, in transactions of a bounded size."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._txn: WriteTransaction | None = None

    @property
    def txn(self) -> WriteTransaction:
        """The transaction under way."""
        if self._txn is None:
            self._txn = self.engine.begin(long=True)
        return self._txn

    def put_sorted(self, items: Items) -> None:
        """Store what comes after everything stored so far."""
        self.txn.put_sorted(iter(items))
        self.step()

    def step(self) -> None:
        """Commit where enough came together."""
        txn = self.txn
        if txn.size_bytes >= BATCH_BYTES or txn.working.created >= BATCH_ITEMS:
            self.flush()

    def flush(self) -> None:
        """Commit, and make a checkpoint where one is due."""
        if self._txn is None:
            return
        txn, self._txn = self._txn, None
        self.engine.write_now(txn)
        log_full = self.engine.log.live_size_bytes() * 4 > self.engine.options.log_size_bytes_max
        if self.engine.checkpoint_due() or log_full:
            self.engine.checkpoint_now()


class _Repair:
    """One repair under way."""

    def __init__(
        self,
        source: Source,
        engine: Engine,
        options: RepairOptions,
        report: RepairReport,
        progress: Progress,
    ) -> None:
        self.source = source
        self.writer = _Writer(engine)
        self.engine = engine
        self.options = options
        self.report = report
        self.progress = progress
        self.newest: Meta | None = source.metas[0] if source.metas else None
        self.older: Meta | None = source.metas[1] if len(source.metas) > 1 else None
        self.seen: set[int] = set()
        """First pages that a walk reached, or tried to."""
        self.not_newest: list[Lost] = []
        """What the newest slot's tree does not have."""
        self.lost: list[Lost] = []
        """What neither tree has."""

    def run(self) -> None:
        source, newest = self.source, self.newest
        self._slots()
        identity = None
        if newest is not None:
            self.report.slot = newest.sequence
            self.report.database_uuid = newest.database_uuid.hex()
            self.report.keys_expected = newest.key_count
            identity = LogIdentity(newest.database_uuid, newest.timeline)
        self.progress("reading the log", 0, 0)
        log = LogMap([], [], [[]])
        if source.has_log:
            log = map_log(source.disk, source.log_directory, identity)
        try:
            index = self._first_run(log)
            self._note_unfinished(log, index)
            self._choose_older(log, index)
            if source.pages is not None:
                self._copy(source.pages)
            self._apply(log, index)
        finally:
            log.close()
        self.writer.flush()
        self.progress("writing a checkpoint", 0, 0)
        self.engine.checkpoint_now()

    # -- slots ------------------------------------------------------------------------------------

    def _slots(self) -> None:
        file = f"{self.source.directory}/pages"
        if self.source.pages is None:
            why = "The page file is missing: only the log is left."
            self.report.skipped.append(Skipped("slot", file, 0, why))
            return
        for slot in damaged_slots(self.source.slots):
            what = f"The meta slot at offset {slot.offset} is {slot.state}."
            if self.newest is not None:
                self.report.replaced.append(Replaced(file, slot.offset, "the other slot", what))
            else:
                what += " Without a slot nobody knows where the tree begins."
                self.report.skipped.append(Skipped("slot", file, slot.offset, what))

    def _first_run(self, log: LogMap) -> int | None:
        """The run of the log that the newest tree continues with; None where there is none."""
        if self.newest is None:
            return 0 if log.runs else None
        return log.run_of(self.newest.log_position[0])

    def _note_unfinished(self, log: LogMap, index: int | None) -> None:
        """A slot that recovery wrote in the middle of its work needs the log up to a record."""
        newest = self.newest
        if newest is None or newest.replay_to_lsn <= newest.log_position[0]:
            return
        reached = newest.log_position[0] if index is None else log.runs[index][-1].tip.lsn
        if reached < newest.replay_to_lsn:
            why = (
                "An interrupted recovery wrote the tree, and the log does not reach as far as "
                "that recovery did: transactions after the last record may be there in part."
            )
            file = f"{self.source.directory}/pages"
            lsns = (reached + 1, newest.replay_to_lsn)
            self.report.skipped.append(
                Skipped("log", file, 0, why, lsn_first=lsns[0], lsn_last=lsns[1])
            )

    def _choose_older(self, log: LogMap, index: int | None) -> None:
        """The older tree is of use only if the log leads from it to the newer one."""
        older = self.older
        if older is not None and (index is None or log.run_of(older.log_position[0]) != index):
            self.older = None

    # -- the tree ---------------------------------------------------------------------------------

    def _copy(self, pages: PageFile) -> None:
        """Everything that the trees have, in the order of keys; then what they do not have."""
        for part in self._newest(pages):
            if isinstance(part, Lost):
                self.not_newest.append(part)
                self._fill(pages, part)
            else:
                self.report.leaves += 1
                self.report.keys_from_tree += len(part)
                self.writer.put_sorted(part)
                self.progress("copying keys", self.report.keys_from_tree, self._expected())
        self.writer.flush()
        if self.lost:
            self._unreferenced(pages)
            for lost in self.lost:
                self._skip_lost(lost)
        for lost in self.not_newest:
            if self._is_lost(lost):
                continue
            offset = lost.page * pages.shape.page_size
            by = "the older checkpoint and the log after it"
            self.report.replaced.append(Replaced(pages.file.path, offset, by, lost.why))

    def _expected(self) -> int:
        return 0 if self.newest is None else self.newest.key_count

    def _newest(self, pages: PageFile) -> Iterator[Items | Lost]:
        if self.newest is None:
            yield Lost(*EVERYTHING, 0, 1, "branch or leaf", "No meta slot names the tree's root.")
            return
        root = Ref(None, self.newest.root_page, self.newest.root_checksum)
        yield from walk(pages, root, seen=self.seen)

    def _fill(self, pages: PageFile, lost: Lost) -> None:
        """What the older tree has of a range that the newest one lacks."""
        if self.older is None:
            self.lost.append(lost)
            return
        root = Ref(None, self.older.root_page, self.older.root_checksum)
        for part in walk(pages, root, (lost.low, lost.high)):
            if isinstance(part, Lost):
                self.lost.append(part)
            else:
                self.report.keys_from_older_slot += len(part)
                self.writer.put_sorted(part)

    def _is_lost(self, lost: Lost) -> bool:
        return bool(Ranges([(each.low, each.high) for each in self.lost]).parts_of(
            (lost.low, lost.high)
        ))  # fmt: skip

    def _unreferenced(self, pages: PageFile) -> None:
        """Look for the lost ranges in leaves that nothing refers to."""
        self.progress("looking for unreferenced pages", 0, 0)
        ranges = Ranges([(lost.low, lost.high) for lost in self.lost])
        orphans = find_orphans(pages, self.newest, self.seen, ranges)
        report = self.report
        report.unreferenced_leaves = len(orphans.leaves)
        report.unreferenced_proven = orphans.proven
        for index, lost in enumerate(self.lost):
            items = self._orphans_of(orphans, lost)
            report.unreferenced_keys += len(items)
            if self.options.include_unreferenced and items:
                report.keys_from_unreferenced += len(items)
                self.writer.put_sorted(items)
                self.lost[index] = attrs.evolve(lost, keys_recovered=len(items))
        self.writer.flush()

    @staticmethod
    def _orphans_of(orphans: Orphans, lost: Lost) -> Items:
        # A large value that is damaged: its key is known, and so is that its value is not there.
        return orphans.items((lost.low, lost.high)) if lost.kind != "large value" else []

    def _skip_lost(self, lost: Lost) -> None:
        page_size = self.source.page_size
        kind = "large value" if lost.kind == "large value" else "keys"
        self.report.skipped.append(
            Skipped(
                kind,
                f"{self.source.directory}/pages",
                lost.page * page_size,
                lost.why,
                lost.page,
                lost.pages,
                lost.low,
                lost.high,
                keys_recovered=lost.keys_recovered,
            )
        )

    # -- the log ----------------------------------------------------------------------------------

    def _apply(self, log: LogMap, index: int | None) -> None:
        newest = self.newest
        start = 0 if newest is None else LogPosition.from_tuple(newest.log_position).lsn
        self.report.log_lsn_last = start
        if index is not None:
            self._catch_up(log.runs[index], start)
        self._count_missing()
        if index is not None:
            self._replay(log.runs[index], start, LSN_MAX, None)
        self._past(log, index, start)

    def _catch_up(self, run: list[Stretch], start: int) -> None:
        """Bring the ranges that did not come from the newest tree up to its position."""
        if self.newest is None:
            return
        holes = [(lost.low, lost.high) for lost in self.lost]
        older = start if self.older is None else self.older.log_position[0]
        if holes:
            self._replay(run, 0, older, Ranges(holes))
        if self.not_newest:
            scope = Ranges([(lost.low, lost.high) for lost in self.not_newest])
            self._replay(run, older, start, scope)

    def _count_missing(self) -> None:
        self.writer.flush()
        if self.newest is not None:
            missing = self.newest.key_count - self.engine.durable.count
            self.report.keys_missing = max(0, missing)

    def _replay(self, run: list[Stretch], after: int, until: int, scope: Ranges | None) -> None:
        applied = 0
        for payloads in transactions(run, after, until):
            for payload in payloads:
                for change in self._changes(payload):
                    apply(self.writer.txn, change, scope)
                self.writer.step()
            applied += 1
            self.progress("applying the log", applied, 0)
        self.writer.flush()
        if scope is None:
            self.report.transactions_applied += applied
            self.report.log_lsn_last = max(self.report.log_lsn_last, run[-1].tip.lsn)

    def _changes(self, payload: bytes) -> list[Change]:
        try:
            return list(changes(payload))
        except ValueError as error:
            raise CorruptionError(
                f"The log in {self.source.log_directory} holds a whole record that is no change of "
                f"the tree ({error}); it was not written by this version of TreeStore.",
                file=self.source.log_directory,
                offset=0,
            ) from error

    def _past(self, log: LogMap, index: int | None, start: int) -> None:
        """Damage behind what was applied, and what follows it."""
        first = 0 if index is None else index + 1
        if self.newest is None and index is not None and log.runs[0][0].before.lsn:
            why = "The log does not begin with the first record, so it gives later changes only."
            self._skip_log(
                self.source.log_directory, 0, why, (1, log.runs[0][0].before.lsn)
            )  # fmt: skip
        told = len(self.report.skipped)
        for number in range(first, len(log.runs) + 1):
            run = log.runs[number] if number < len(log.runs) else None
            if run is not None and run[-1].tip.lsn < start:
                continue
            for gap in log.gaps[number]:
                ends = max(start, gap.after or 0) + 1, None if gap.until is None else gap.until - 1
                self._skip_log(gap.path, gap.offset, gap.why, ends, torn=gap.torn)
            if run is not None:
                if index is None and told == len(self.report.skipped):
                    self._skip_missing(start, run[0].before.lsn)
                self._later(run, start)
        if index is None and told == len(self.report.skipped):
            self._skip_missing(start, None)

    def _skip_missing(self, start: int, last: int | None) -> None:
        why = f"The log does not have what came after the checkpoint's position, record {start}."
        self._skip_log(self.source.log_directory, 0, why, (start + 1, last))

    def _later(self, run: list[Stretch], start: int) -> None:
        """A run behind damage."""
        lsns = max(start, run[0].before.lsn) + 1, run[-1].tip.lsn
        if lsns[0] > lsns[1]:
            return
        if self.options.past_damage:
            self._replay(run, start, LSN_MAX, None)
            self.report.past_damage.append(lsns)
            return
        why = (
            "These groups are whole but come after damage; they were not applied, since they may "
            "build on what is missing. --past-damage applies them."
        )
        self._skip_log(run[0].segment.path, run[0].offset, why, lsns)

    def _skip_log(
        self,
        file: str,
        offset: int,
        why: str,
        lsns: tuple[int, int | None],
        *,
        torn: bool = False,
    ) -> None:
        kind = "torn tail" if torn else "log"
        self.report.skipped.append(
            Skipped(kind, file, offset, why, lsn_first=lsns[0], lsn_last=lsns[1])
        )
