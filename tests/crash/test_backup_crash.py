"""A crash before every I/O step of a backup, of the archiver and of a restore.

As in ``points.py``, a workload runs once, and what a crash may leave is looked at on the side.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.crash.history import History, State, numbered, put, remove
from tests.crash.simdisk import Crash, SimDisk, SimFile
from tests.engine.backup.backups import (
    archive_of,
    archived_disk,
    back_up,
    contents_at,
    open_archived,
    open_at,
    restore_to,
)
from tests.engine.stores import assert_clean, close_checked, contents, environment
from treestore.engine.backup.verify import verify_backup
from treestore.errors import NotFound

IMAGES = 3


def each_image(disk: SimDisk, examine: Callable[[SimDisk, Random], None], name: str) -> None:
    """Before each step from now on, look at some of what a crash may leave."""

    def observe(step: int, op: str, path: str) -> None:
        for image in range(IMAGES):
            random = Random(f"{name} {step} {image}")
            left = disk.killed() if image == 0 else disk.crash(random)
            try:
                examine(left, random)
            except (Exception, Crash) as error:
                raise AssertionError(f"{name}: step {step} ({op} {path}), image {image}") from error

    disk.on_step = observe


def test_a_crash_during_a_backup_leaves_a_whole_one_or_none() -> None:
    disk = archived_disk(1)
    store = open_archived(disk)
    history = History()
    wanted: dict[str, State] = {}
    """Path -> the state that a backup there must hold."""
    acknowledged: set[str] = set()
    turns = iter(range(1000))

    def write() -> None:
        turn = next(turns)
        history.write(store, put(numbered(range(turn, turn + 12), 100 + turn)))
        history.write(store, remove(b"k%04d" % (turn - 3), b"k%04d" % (turn - 1)))
        if not turn % 3:
            store.engine.checkpoint_now()

    def examine(left: SimDisk, random: Random) -> None:
        for path, state in wanted.items():
            if not left.exists(path):
                assert path not in acknowledged
                with pytest.raises(NotFound):
                    verify_backup(environment(left), path)
                continue
            verify_backup(environment(left), path)
            restore_to(left, path, f"/restored{len(path)}")
            assert contents_at(left, f"/restored{len(path)}") == state
        again = open_archived(left)
        assert contents(again) in history.allowed()
        if random.randrange(4) == 0:
            for path in wanted.keys() - acknowledged:
                if not left.exists(path):
                    # What the crash left of it is no obstacle.
                    back_up(again, path)
                    verify_backup(environment(left), path)
        close_checked(again)

    history.write(store, put(numbered(range(60), 90) | numbered(range(70, 72), 5000)))
    each_image(disk, examine, "backup")
    for path, parent in (("/full", None), ("/incremental", "/full"), ("/again", "/incremental")):
        write()
        wanted[path] = dict(history.acknowledged)
        back_up(store, path, parent, between=write)
        acknowledged.add(path)
        write()
    disk.on_step = None
    close_checked(store)


def test_a_crash_of_the_archiver_loses_nothing_that_it_reported() -> None:
    disk = archived_disk(2)
    store = open_archived(disk)
    history = History()
    states: list[State] = []
    """Every state from the backup on, in order."""
    reported = 0
    """Of them, the one that is archived for certain."""

    def write(turn: int) -> None:
        change = put(numbered(range(turn, turn + 9), 150 + turn))
        before = dict(history.acknowledged)
        after = dict(before)
        after.update(numbered(range(turn, turn + 9), 150 + turn))
        states.append(after)
        history.write(store, change)

    def examine(left: SimDisk, random: Random) -> None:
        if random.random() < 0.5:
            # The store's disk is gone.
            restore_to(left, "/base", archive="/archive")
            assert contents_at(left, "/new") in states[reported:]
            return
        again = open_archived(left)
        found = contents(again)
        assert found in history.allowed()
        archive = archive_of(again)
        archive.advance(again.engine.log, active=True)
        assert archive.gap is None
        again.engine.checkpoint_now()
        close_checked(again)
        restore_to(left, "/base", archive="/archive")
        assert contents_at(left, "/new") == found

    history.write(store, put(numbered(range(40), 60)))
    states.append(dict(history.acknowledged))
    archive = archive_of(store)
    back_up(store, "/base")
    each_image(disk, examine, "archiver")
    for turn in range(24):
        write(turn)
        if turn % 3 == 0:
            archive.advance(store.engine.log, active=turn % 2 == 0)
            if turn % 2 == 0:
                reported = len(states) - 1
        if turn % 5 == 0:
            store.engine.checkpoint_now()
        if turn == 13:
            store.close()
            store = open_archived(disk)
            archive = archive_of(store)
    disk.on_step = None
    assert archive.pieces > 3
    close_checked(store)


def test_a_crash_during_a_restore_leaves_a_whole_store_or_none() -> None:
    disk = archived_disk(3)
    store = open_archived(disk)
    history = History()
    archive = archive_of(store)
    history.write(store, put(numbered(range(40), 60)))
    back_up(store, "/base")
    for turn in range(10):
        history.write(store, put(numbered(range(turn, turn + 9), 150 + turn)))
    archive.advance(store.engine.log, active=True)
    expected = history.acknowledged
    finished = False
    close_checked(store)

    def examine(left: SimDisk, random: Random) -> None:
        assert left.exists("/new") or not finished
        if not left.exists("/new"):
            restore_to(left, "/base", archive="/archive", seed=random.randrange(1000))
        again = open_at(left, "/new")
        assert contents(again) == expected
        assert again.engine.identity.timeline == 2
        txn = again.engine.begin()
        txn.put(b"after", b"restore")
        again.engine.write_now(txn)
        again.engine.checkpoint_now()
        assert_clean(again)
        again.close()

    each_image(disk, examine, "restore")
    restore_to(disk, "/base", archive="/archive")
    finished = True
    disk.sync_directory("/")
    disk.on_step = None
    assert contents_at(disk, "/new") == expected


# --- bugs that must be found ---------------------------------------------------------------------


def test_a_backup_that_is_not_synced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = SimFile.sync
    monkeypatch.setattr(
        SimFile, "sync", lambda self: None if "/full.unfinished" in self.path else sync(self)
    )
    with pytest.raises(AssertionError, match="backup: step"):
        test_a_crash_during_a_backup_leaves_a_whole_one_or_none()


def test_a_piece_that_is_not_synced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = SimFile.sync
    monkeypatch.setattr(SimFile, "sync", lambda self: None if ".piece" in self.path else sync(self))
    with pytest.raises(AssertionError, match="archiver: step"):
        test_a_crash_of_the_archiver_loses_nothing_that_it_reported()


def test_a_restore_that_is_not_synced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = SimFile.sync
    monkeypatch.setattr(
        SimFile, "sync", lambda self: None if "/new.unfinished/pages" in self.path else sync(self)
    )
    with pytest.raises(AssertionError, match="restore: step"):
        test_a_crash_during_a_restore_leaves_a_whole_store_or_none()
