"""Namespaces on the crash disk: calls on segments' files that fail, and bugs that must be found.

The crash before each step is in ``test_points.py``, as that of every workload.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from actors.namespace_segments import SegmentKeeper
from tests.crash import simpath
from tests.crash.keeping import FOLDER, Keeping
from tests.crash.points import Violation, explore, explore_faults
from tests.crash.simdisk import SimDisk
from tests.crash.simpath import SimPath
from tests.crash.workloads import WORKLOADS
from tests.crash.world import World
from treestore.stores.namespaces import segments
from treestore.stores.namespaces.layout import Space, packed_row
from treestore.stores.namespaces.live import files
from treestore.stores.namespaces.live.files import SUFFIX
from treestore.stores.namespaces.live.making import Made
from treestore.stores.namespaces.manifests import all_names, manifest_of


def test_a_call_on_a_file_that_fails_loses_nothing() -> None:
    """EIO and ENOSPC at each call in turn; the keeper tries again, and then there is a crash."""
    tally = explore_faults("namespace_seals", 2, 1, path="/namespaces")
    assert tally.points == tally.steps > 100


def test_files_are_among_the_steps() -> None:
    """A crash comes between any two things that are done to a segment's file in its life."""
    steps: list[str] = []
    world = World(SimDisk(1), 1)

    def note(_step: int, op: str, path: str) -> None:
        if path.startswith(FOLDER):
            steps.append(f"{op} {'folder' if path == FOLDER else path.rpartition('.')[2]}")
        elif not steps or steps[-1] != "engine":
            steps.append("engine")

    world.disk.on_step = note
    WORKLOADS["namespace_merges"](world)
    life = ["open new", "write new", "sync new", "rename new", "sync_directory folder", "engine"]
    life += ["unlink segment"]
    left = iter(steps)
    assert [step for step in life if step in left] == life


# --- bugs that must be found ---------------------------------------------------------------------


def leave_the_tail(patch: pytest.MonkeyPatch) -> None:
    """A seal enters its manifest, and its rows stay in the tail."""
    remove = segments._remove

    def wrong(txn: Any, prefix: bytes, rows: Any, chosen: Any) -> None:
        if prefix != Space(1).tail:
            remove(txn, prefix, rows, chosen)

    patch.setattr(segments, "_remove", wrong)


def forget_late_deaths(patch: pytest.MonkeyPatch) -> None:
    """A merge takes away the tombstones of rows that died while its file was written."""
    replace = segments.replace_segments

    def wrong(txn: Any, number: int, old: Any, manifest: Any, rows: Any) -> Any:
        found = replace(txn, number, old, manifest, rows)
        for row in segments.dead_rows(txn, number).tolist():
            txn.delete(Space(number).dead + packed_row(row))
        return found

    patch.setattr(segments, "replace_segments", wrong)


def forget_early_deaths(patch: pytest.MonkeyPatch) -> None:
    """A seal enters its rows, and not that some of them died meanwhile."""
    seal = segments.seal

    def wrong(txn: Any, number: int, manifest: Any, rows: Any) -> Any:
        found = seal(txn, number, manifest, rows)
        for row in rows.tolist():
            txn.delete(Space(number).dead + packed_row(row))
        return found

    patch.setattr(segments, "seal", wrong)


def ignore_snapshots(patch: pytest.MonkeyPatch) -> None:
    """A file goes though a snapshot that is open names it."""

    def wrong(self: Any, lease: Any) -> int:
        removed: int = self._maker.remove_orphans(all_names(lease.read()))
        return removed

    patch.setattr(SegmentKeeper, "_orphans", wrong)


def remove_too_soon(patch: pytest.MonkeyPatch) -> None:
    """Old files go before the new manifest is on the medium."""
    make = Keeping.enter

    def wrong(self: Keeping, made: Made | None) -> int:
        assert made is not None
        for segment in made.old:
            manifest = manifest_of(self.txn, made.number, segment)
            assert manifest is not None
            SimPath(self.world.disk, f"{FOLDER}/{manifest.uuid}{SUFFIX}").unlink()
        return make(self, made)

    patch.setattr(Keeping, "enter", wrong)


def never_sync_files(patch: pytest.MonkeyPatch) -> None:
    """A manifest names a file that may not be on the medium."""
    patch.setattr(simpath._OS, "fsync", lambda fd: None)


def forget_folders(patch: pytest.MonkeyPatch) -> None:
    """A file is on the medium, and the folder that it is in is not."""

    def wrong(folder: Any) -> None:
        if not folder.parent.exists():
            wrong(folder.parent)
        folder.mkdir(exist_ok=True)

    patch.setattr(files, "make_folder", wrong)


def publish_in_two(patch: pytest.MonkeyPatch) -> None:
    """What was stored apart is shown in two transactions."""
    write = Keeping.write

    def wrong(self: Keeping, change: Any) -> None:
        if "bulk_end" in getattr(getattr(change, "__code__", None), "co_names", ()):
            plan = self.plan(change)
            half = len(plan.calls) // 2
            self.world.write(partial(plan.repeat, end=half))
            write(self, partial(plan.repeat, start=half))
        else:
            write(self, change)

    patch.setattr(Keeping, "write", wrong)


# With the images that it takes at each step: 0 is the death of the process, 1 a power failure.
BUGS: list[tuple[Callable[[pytest.MonkeyPatch], None], str, int]] = [
    (leave_the_tail, "namespace_seals", 1),
    (forget_late_deaths, "namespace_merges", 1),
    (forget_early_deaths, "namespace_seals", 1),
    (ignore_snapshots, "namespace_merges", 1),
    (remove_too_soon, "namespace_merges", 1),
    (never_sync_files, "namespace_merges", 2),
    (forget_folders, "namespace_merges", 2),
    (publish_in_two, "namespace_imports", 1),
]


@pytest.mark.parametrize(
    ("plant", "workload", "images"), BUGS, ids=[plant.__name__ for plant, *_ in BUGS]
)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None],
    workload: str,
    images: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError) as caught:
        explore(workload, 1, images)
    monkeypatch.undo()
    if isinstance(caught.value, Violation):  # Else the workload itself met it.
        point = caught.value.point
        explore(point.workload, point.seed, point.image + 1, only=point)
