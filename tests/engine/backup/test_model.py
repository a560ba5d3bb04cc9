"""Random histories with backups, an archive and restores to random points, against a model."""

from __future__ import annotations

from random import Random

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.engine.backup.backups import (
    ARCHIVED,
    archive_of,
    archived_disk,
    back_up,
    contents_at,
    open_archived,
    open_at,
    restore_to,
)
from tests.engine.stores import close_checked, contents, environment
from treestore.engine.backup.restore import RestoreReport
from treestore.engine.backup.verify import verify_backup
from treestore.errors import RestoreIncomplete

State = dict[bytes, bytes]

KEYS = st.integers(0, 150).map(lambda n: b"%03d" % n)
VALUES = st.sampled_from([0, 3, 90, 250, 1500, 9000]).flatmap(
    lambda n: st.integers(0, 255).map(lambda b: bytes((b,)) * n)
)
CHANGES = st.lists(st.tuples(KEYS, st.one_of(VALUES, st.none())), min_size=1, max_size=12)


@attrs.frozen
class Moment:
    """The store after a transaction."""

    lsn: int
    time_ns: int
    state: State


@attrs.define
class Line:
    """A timeline: its moments, those that it shares with its parents too, and how it came."""

    number: int
    forks: list[tuple[int, int]]
    """Its parents, and the record at which each was left; the oldest first."""
    moments: list[Moment]
    archived: Moment | None = None
    """Up to where it is known to be archived (the state is not filled in)."""


@attrs.frozen
class Made:
    """A backup."""

    path: str
    line: int
    moment: Moment


class BackupMachine(RuleBasedStateMachine):
    """Writes, checkpoints, crashes; backups, the archive, and restores."""

    @initialize(seed=st.integers(0, 2**32))
    def create(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = archived_disk(seed)
        self.store = open_archived(self.disk, seed=seed)
        self.directory = "/db"
        self.archive = archive_of(self.store)
        self.line = Line(1, [], [Moment(0, 0, {})])
        self.lines = {1: self.line}
        self.backups: list[Made] = []
        self.count = 0

    def _name(self, what: str) -> str:
        self.count += 1
        return f"/{what}{self.count}"

    def _write(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        engine = self.store.engine
        state = dict(self.line.moments[-1].state)
        txn = engine.begin()
        for key, value in changes:
            if value is None:
                txn.delete(key)
                state.pop(key, None)
            else:
                txn.put(key, value)
                state[key] = value
        if engine.write_now(txn):
            position = engine.durable.position
            self.line.moments.append(Moment(position.lsn, position.time_ns, state))

    @rule(changes=CHANGES)
    def write(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        self._write(changes)

    @rule()
    def checkpoint(self) -> None:
        self.store.engine.checkpoint_now()

    @rule(active=st.booleans())
    def archive_log(self, active: bool) -> None:
        self.archive.advance(self.store.engine.log, active=active)
        self._note_archived()

    def _note_archived(self) -> None:
        position = self.archive.position
        assert position is not None
        known = self.line.archived
        # It falls where recovery wrote a segment anew; what was archived of it before still counts.
        if known is None or position.lsn > known.lsn:
            self.line.archived = Moment(position.lsn, position.time_ns, {})

    @rule()
    def mark_synced(self) -> None:
        """Records that are no transactions."""
        self.store.engine.log.mark_synced()

    @rule(incremental=st.booleans(), meanwhile=st.lists(CHANGES, max_size=3))
    def make_backup(
        self, incremental: bool, meanwhile: list[list[tuple[bytes, bytes | None]]]
    ) -> None:
        parents = [made for made in self.backups if made.line == self.line.number]
        parent = self.random.choice(parents) if incremental and parents else None
        path, moment = self._name("backup"), self.line.moments[-1]

        def between() -> None:
            if meanwhile:
                self._write(meanwhile.pop())
                self.store.engine.checkpoint_now()

        made = back_up(self.store, path, None if parent is None else parent.path, between)
        _, report = verify_backup(environment(self.disk), path)
        assert report.keys == len(moment.state)
        # Markers are records, too: it may be of a later one than the last transaction's.
        position = made.manifest.log_position
        assert position.lsn >= moment.lsn
        moment = Moment(position.lsn, position.time_ns, moment.state)
        self.backups.append(Made(path, self.line.number, moment))

    @rule(crash=st.booleans())
    def open_again(self, crash: bool) -> None:
        """After a crash, or an orderly close."""
        if crash:
            self.disk = self.disk.crash(self.random)
        else:
            close_checked(self.store)
        self.store = open_at(self.disk, self.directory, ARCHIVED)
        self.archive = archive_of(self.store, self.directory)
        self._note_archived()

    def _way(self, made: Made, number: int) -> list[tuple[int, int | None]] | None:
        """Timelines and their ends on the way from a backup to the end of a timeline."""
        whole = [*self.lines[number].forks, (number, None)]
        numbers = [one for one, _ in whole]
        if made.line not in numbers:
            return None
        way = whole[numbers.index(made.line) :]
        end = way[0][1]
        return None if end is not None and made.moment.lsn > end else way

    def _reach(self, made: Made, way: list[tuple[int, int | None]]) -> Moment:
        """How far the archive goes along a way (the state is not filled in)."""
        reach = made.moment
        for number, end in way:
            archived = self.lines[number].archived
            if end is not None and end <= reach.lsn:
                continue
            if archived is not None and archived.lsn > reach.lsn:
                reach = archived
            if end is not None and reach.lsn < end:
                return reach
            if end is not None:
                reach = next(m for m in self._known(number) if m.lsn == end)
        return reach

    def _known(self, number: int) -> list[Moment]:
        """Moments of a timeline, and those of backups, between transactions, too."""
        made = [made.moment for made in self.backups if made.line == number]
        return [*self.lines[number].moments, *made]

    def _restore(self, until: str) -> tuple[str, int, Moment, int] | None:
        """Restore a backup to somewhere; where it is, its timeline, what is in it, the parent."""
        made = self.random.choice(self.backups)
        ways = {n: way for n in self.lines if (way := self._way(made, n)) is not None}
        number = self.random.choice([None, *ways])
        followed = max(ways) if number is None else number
        way = ways[followed]
        reach = self._reach(made, way)
        moments = [m for m in self.lines[followed].moments if m.lsn > made.moment.lsn]
        moments.insert(0, made.moment)
        aim = self.random.choice(moments)
        data = self._name("db")
        lsn: int | None = None
        time_ns: int | None = None
        if until == "lsn":
            lsn, possible = aim.lsn, reach.lsn >= aim.lsn
        elif until == "time":
            time_ns, possible = aim.time_ns, reach.time_ns > aim.time_ns
        else:
            possible = way[-1][0] == followed and self._unbroken(made, way)
            aim = [m for m in moments if m.lsn <= reach.lsn][-1]
        refused: RestoreIncomplete | None = None
        report: RestoreReport | None = None
        try:
            report = restore_to(
                *(self.disk, made.path, data),
                archive="/archive",
                timeline=number,
                lsn=lsn,
                time_ns=time_ns,
            )
        except RestoreIncomplete as error:
            refused = error
        if report is None:
            assert refused is not None
            assert not possible
            assert refused.details["reached_lsn"] == reach.lsn
            assert not self.disk.exists(data)
            return None
        assert possible
        assert report.lsn == aim.lsn
        assert contents_at(self.disk, data) == aim.state
        return data, report.timeline, aim, report.parent_timeline

    def _unbroken(self, made: Made, way: list[tuple[int, int | None]]) -> bool:
        reach = self._reach(made, way)
        ends = [end for _, end in way[:-1] if end is not None]
        return not ends or reach.lsn >= ends[-1]

    @precondition(lambda self: self.backups)
    @rule(until=st.sampled_from(["end", "lsn", "time"]))
    def restore_beside(self, until: str) -> None:
        self._restore(until)

    @precondition(lambda self: self.backups and len(self.lines) < 5)
    @rule(until=st.sampled_from(["end", "lsn", "time"]))
    def go_on_from_a_restore(self, until: str) -> None:
        """The restored store takes the old one's place, and its archive."""
        made = self._restore(until)
        if made is None:
            return
        directory, number, moment, parent = made
        close_checked(self.store)
        self.directory = directory
        self.store = open_at(self.disk, directory, ARCHIVED)
        old = self.lines[parent]
        shared = [one for one in old.moments if one.lsn < moment.lsn] + [moment]
        self.line = Line(number, [*old.forks, (parent, moment.lsn)], shared)
        self.lines[number] = self.line
        self.archive = archive_of(self.store, directory)
        self._note_archived()

    @invariant()
    def matches_the_model(self) -> None:
        assert contents(self.store) == self.line.moments[-1].state

    def teardown(self) -> None:
        if hasattr(self, "store"):
            close_checked(self.store)


BackupMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
test_backups_and_restores_match_a_model = BackupMachine.TestCase
