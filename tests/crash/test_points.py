"""Requirement 15: a crash at every I/O step of small workloads, several images each.

Together these look at more than 20,000 crash points; `scripts/chaos.py simulate` goes on from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.crash.namespaces import NAMESPACE_WORKLOADS
from tests.crash.points import Tally, Violation, explore, explore_faults
from tests.crash.simdisk import SimDisk, SimFile
from tests.crash.workloads import WORKLOADS
from tests.crash.world import World
from treestore.engine import compaction
from treestore.engine.bulk import BulkTree
from treestore.engine.engine import Engine
from treestore.engine.freespace import FreeSpace
from treestore.engine.pagefile import PageFile

IMAGES = 12
"""Per step; about 1,700 steps."""

NAMESPACES = {workload.__name__ for workload in NAMESPACE_WORKLOADS}
NAMESPACE_IMAGES = 2
"""Theirs: each has files besides the engine's, which are opened and searched."""


LONG = {"mixed": 4}
"""Workloads that take so long that processes share their steps, in so many parts."""

PARTS = [
    (workload, number, LONG.get(workload, 1))
    for workload in WORKLOADS
    for number in range(LONG.get(workload, 1))
]


@pytest.mark.parametrize(("workload", "number", "parts"), PARTS)
def test_requirement_15_a_crash_at_every_step_loses_nothing(
    workload: str, number: int, parts: int
) -> None:
    images = NAMESPACE_IMAGES if workload in NAMESPACES else IMAGES
    tally = explore(workload, 1, images, part=(number, parts))
    assert tally.points == tally.steps * images > 0


@pytest.mark.parametrize("workload", sorted({*WORKLOADS} - NAMESPACES - {"mixed"}))
def test_requirement_5_a_call_that_fails_loses_nothing(workload: str) -> None:
    """EIO and ENOSPC at every call in turn, then a crash."""
    tally = explore_faults(workload, 2, 1)
    assert tally.points == tally.steps > 100


def test_there_are_enough_points() -> None:
    """Counted without recovering any."""
    steps = 0
    for name, workload in WORKLOADS.items():
        world = World(SimDisk(1), 1)
        workload(world)
        assert world.disk.steps > 50, name
        if name not in NAMESPACES:
            steps += world.disk.steps
    assert steps * IMAGES >= 20_000


def test_what_is_looked_at_is_what_a_crash_leaves() -> None:
    """Torn tails, and both the state before and after, are among the images."""
    tally = Tally()
    for workload in ("puts", "overflow_values"):
        tally.add(explore(workload, 3, 6))
    assert tally.outcomes["torn tail"]
    assert tally.outcomes["older"]
    assert tally.outcomes["newest"]
    assert tally.outcomes["cut short"]
    assert tally.outcomes["checkpointed"]


# --- bugs that must be found ---------------------------------------------------------------------


def never_sync_the_log(patch: pytest.MonkeyPatch) -> None:
    """Commits are acknowledged before they are on the medium."""
    sync = SimFile.sync
    patch.setattr(SimFile, "sync", lambda self: None if "/log/" in self.path else sync(self))


def never_sync_pages(patch: pytest.MonkeyPatch) -> None:
    """The slot is flipped before its pages are on the medium."""
    patch.setattr(PageFile, "sync", lambda self: None)


def never_sync_names(patch: pytest.MonkeyPatch) -> None:
    """Files are durable, their names are not."""
    patch.setattr(SimDisk, "sync_directory", lambda self, path: None)


def reuse_at_once(patch: pytest.MonkeyPatch) -> None:
    """Pages are reused though a slot still reaches them."""
    reclaim = FreeSpace.reclaim
    patch.setattr(FreeSpace, "reclaim", lambda self, pins, *pause: reclaim(self, []))


def lose_a_change(patch: pytest.MonkeyPatch) -> None:
    """Replay leaves a change out."""
    merge = BulkTree.merge

    def short(self: BulkTree, keys: list[bytes], *rest: Any) -> int:
        return merge(self, keys[:-1] if len(keys) > 1 else keys, *rest) + (len(keys) > 1)

    patch.setattr(BulkTree, "merge", short)


def cut_too_soon(patch: pytest.MonkeyPatch) -> None:
    """The file is cut to where the last page in use ends, though the slots do not say so yet."""
    tail = compaction._tail

    def soon(engine: Engine) -> tuple[int, int]:
        found = tail(engine)
        slots = engine.slots
        engine.slots = [msgspec.structs.replace(meta, page_count=0) for meta in slots]
        engine.shorten()
        engine.slots = slots
        while engine.pages.cut():
            pass
        return found

    patch.setattr(compaction, "_tail", soon)


def forget_the_batch(patch: pytest.MonkeyPatch) -> None:
    """A slot that recovery writes in the middle of a batch says that the batch is in it."""
    replayed = Engine.replayed

    def wrong(self: Engine, working: Any, number: int, position: Any, replay_to_lsn: int) -> None:
        replayed(self, working, number, self.log.position, replay_to_lsn)

    patch.setattr(Engine, "replayed", wrong)


BUGS = [
    never_sync_the_log,
    never_sync_pages,
    never_sync_names,
    reuse_at_once,
    lose_a_change,
    cut_too_soon,
    forget_the_batch,
]


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Violation) as caught:
        for seed in range(4):
            for workload in ("puts", "deletes", "overflow_values", "checkpoints", "compaction"):
                explore(workload, seed, 4)
    monkeypatch.undo()
    point = caught.value.point
    explore(point.workload, point.seed, point.image + 1, only=point)
