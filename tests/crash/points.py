"""A crash before every I/O step of a workload, several images of the medium each.

The workload runs once. Before each of its steps, images of what a crash may leave just then are
taken, and each is recovered on the side and compared with what the history allows: what was
acknowledged is there, what was not is whole or absent, the check is clean, recovery that is itself
cut short is repeated, and recovering once more gives the same state. So a workload of n steps
costs n recoveries, and not n runs of itself.

Image 0 is the death of the process alone (the operating system keeps what was written); the others
are power failures.
"""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import attrs

from tests.crash.keeping import go_on, start_keeper, verify_files, verify_namespaces
from tests.crash.simdisk import Crash, SimDisk
from tests.crash.workloads import WORKLOADS
from tests.crash.world import OPTIONS, World, verify_contents
from tests.engine.stores import assert_clean, open_small
from treestore.engine.log.failure import LogFailed
from treestore.errors import TreeStoreError

RECOVERY_STEPS = 24
"""A recovery of a small store has about so many steps; a crash within it is drawn from them."""

TIGHT = attrs.evolve(OPTIONS, recovery_batch_bytes=2000, recovery_dirty_bytes=2048)
"""Recovery with next to no memory: many batches, and checkpoints in the middle of them."""

WORK_EVERY = 8
"""One recovered store in so many is written to, checkpointed, closed and opened again."""

NEW_LUCK = 1000
"""Processes of a workload have luck of their own up to here, and those that go on from here."""

FAULTS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
"""What may befall a call; EIO leaves a part of a write, and forgets after a sync."""


@attrs.frozen
class Point:
    """One crash: enough to come back to it."""

    workload: str
    seed: int
    step: int
    image: int
    fault: str = ""
    """Name of the failure that hit the step, in place of the crash; the crash comes after it."""

    def replay_arguments(self) -> str:
        """What ``scripts/chaos.py simulate`` takes to come back here."""
        fault = f" --fault {self.fault}" if self.fault else ""
        return (
            f"--workload {self.workload} --seed {self.seed} --step {self.step} "
            f"--image {self.image}{fault}"
        )

    def random(self) -> Random:
        """Chance at this point."""
        return Random(f"{self.workload} {self.seed} {self.step} {self.image} {self.fault}")


class Violation(AssertionError):
    """A promise was broken at a point."""

    def __init__(self, point: Point, why: str) -> None:
        super().__init__(f"{point}: {why}\nreplay: chaos.py simulate {point.replay_arguments()}")
        self.point = point
        self.why = why

    def __reduce__(self) -> tuple[type, tuple[Point, str]]:
        return type(self), (self.point, self.why)


@dataclass
class Tally:
    """What was tried. Tallies of several runs add up."""

    points: int = 0
    """Images that were recovered and compared."""
    recoveries: int = 0
    steps: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """How recovery judged the log, and which state it found."""

    def add(self, other: Tally) -> None:
        """Count another run in."""
        self.points += other.points
        self.recoveries += other.recoveries
        self.steps += other.steps
        self.outcomes += other.outcomes


def explore(
    workload: str,
    seed: int,
    images: int,
    *,
    only: Point | None = None,
    points_max: int | None = None,
    part: tuple[int, int] = (0, 1),
) -> Tally:
    """Crash before every step of one run.

    Args:
        workload: a name of `WORKLOADS`.
        seed: of the workload.
        images: per step.
        only: look at this point alone.
        points_max: leave off after so many.
        part: one part of so many: every so-manieth step alone, so that processes can share them.

    Raises:
        Violation: a promise was broken.
    """
    tally = Tally()
    world = World(SimDisk(seed), seed)
    number, parts = part

    def observe(step: int, _op: str, _path: str) -> None:
        if world.quiet or step % parts != number:
            return
        tally.steps += 1
        for image in range(images):
            point = Point(workload, seed, step, image)
            if only is None or point == only:
                _examine(world, point, tally)
        if points_max is not None and tally.points >= points_max:
            raise Crash

    world.disk.on_step = observe
    try:
        WORKLOADS[workload](world)
    except Crash:
        return tally
    return tally


def explore_faults(
    workload: str, seed: int, images: int, *, only: Point | None = None, path: str = ""
) -> Tally:
    """Let every call of a run fail in turn, each way, and crash after what came of it.

    Args:
        workload, seed, images, only: as for `explore`.
        path: only calls whose path contains it.

    Raises:
        Violation: a promise was broken, or the failure came out as an error of no known type.
    """
    tally = Tally()
    total = World(SimDisk(seed), seed)
    steps: list[int] = []

    def note(step: int, _op: str, its: str) -> None:
        if path in its and not total.quiet:
            steps.append(step)

    total.disk.on_step = note
    WORKLOADS[workload](total)
    for step in steps:
        for fault in FAULTS:
            first = Point(workload, seed, step, 0, fault)
            if only is not None and attrs.evolve(only, image=0) != first:
                continue
            world = _with_fault(first)
            tally.steps += 1
            for image in range(images):
                point = attrs.evolve(first, image=image)
                if only is None or point == only:
                    _examine(world, point, tally)
    return tally


def _with_fault(point: Point) -> World:
    """The world after a run in which the call of that step failed."""
    world = World(SimDisk(point.seed), point.seed)

    def fail(step: int, op: str, path: str) -> None:
        if step == point.step:
            world.disk.fail_next(op, FAULTS[point.fault], path)

    world.disk.on_step = fail
    try:
        WORKLOADS[point.workload](world)
    except (TreeStoreError, LogFailed, OSError):
        pass  # Whatever it was: nothing that was acknowledged may be lost by it.
    except Exception as error:
        raise Violation(point, f"the failure came out as {error!r}") from error
    world.disk.on_step = None
    return world


def _examine(world: World, point: Point, tally: Tally) -> None:
    random = point.random()
    disk = world.disk
    image = disk.killed() if point.image == 0 else disk.crash(random)
    try:
        _recover(image, world, random, tally)
    except (Exception, Crash) as error:
        raise Violation(point, f"{type(error).__name__}: {error}") from error
    tally.points += 1


def _recover(image: SimDisk, crashed: World, random: Random, tally: Tally) -> None:
    """Recover, perhaps with crashes within; then once more; then perhaps go on working."""
    allowed, spoiled = crashed.history.allowed(), crashed.spoiled
    for _ in range(random.choice([0, 0, 1, 1, 2])):
        image = _recover_in_part(image, random, tally)
    store = open_small(image, random.choice([OPTIONS, TIGHT]))
    tally.recoveries += 1
    found = verify_contents(store, allowed)
    crashed.verify_once(found, lambda: verify_namespaces(store.engine.read()))
    verify_files(image, store, spoiled)
    tally.outcomes[store.report.outcome] += 1
    tally.outcomes["checkpointed"] += store.engine.checkpoints > 0
    tally.outcomes["newest" if found == allowed[-1] else "older"] += 1
    image = image.crash(random) if random.random() < 0.5 else image.killed()
    store = open_small(image, OPTIONS, seed=NEW_LUCK)
    tally.recoveries += 1
    verify_contents(store, [found])
    if random.randrange(WORK_EVERY) == 0:
        world = World(image, random.getrandbits(32))
        world.history.acknowledged = found
        world.store, world.starts = store, NEW_LUCK + 1
        world.write(lambda txn: txn.put(b"~after", b"recovery"))
        world.checkpoint()
        go_on(world)
        assert_clean(world.store)
        world.reopen()
        tally.recoveries += 1
        verify_contents(world.store, [world.history.acknowledged])
        verify_files(image, world.store, set())


def _recover_in_part(image: SimDisk, random: Random, tally: Tally) -> SimDisk:
    """A recovery that a crash cuts short (or not, where it is short itself); what is left."""
    options = random.choice([OPTIONS, TIGHT])
    stop_at = random.randint(1, RECOVERY_STEPS * (1 + (options is TIGHT)))

    def stop(step: int, _op: str, _path: str) -> None:
        if step == stop_at:
            raise Crash

    image.steps = 0
    image.on_step = stop
    try:
        start_keeper(image, open_small(image, options))
    except Crash:
        tally.outcomes["cut short"] += 1
    tally.recoveries += 1
    image.on_step = None
    return image.crash(random) if random.random() < 0.8 else image.killed()
