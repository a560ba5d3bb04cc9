"""``chaos.py simulate``: crash points on the simulated disk, as many as asked, on every core.

A task is one run of one workload with one seed, crashed before each of its steps (or with each of
its calls failing in turn). Seeds count up, so a longer run goes on where a shorter one ended, and
every point can be come back to.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

import attrs

from tests.crash.points import Point, Tally, Violation, explore, explore_faults
from tests.crash.workloads import WORKLOADS

IMAGES = 4
"""Images at each step of one run: what a further seed shows is worth more than a further image."""

FAULTS_EVERY = 4
"""One round of so many lets calls fail, too; such a run is long, since each call is a run."""


@attrs.frozen
class Task:
    """One run of a workload."""

    workload: str
    seed: int
    faults: bool = False

    def run(self) -> Tally:
        """Raises `Violation`."""
        if self.faults:
            return explore_faults(self.workload, self.seed, 1)
        return explore(self.workload, self.seed, IMAGES)


@attrs.define
class Result:
    """What a run of many tasks found."""

    seed: int
    elapsed_s: float = 0.0
    tallies: dict[str, Tally] = attrs.Factory(dict)
    """By workload; those of failed calls are named ``<workload> + failures``."""
    runs: dict[str, int] = attrs.Factory(dict)
    violations: list[Violation] = attrs.Factory(list)
    seed_last: int = 0

    @property
    def total(self) -> Tally:
        """All workloads together."""
        total = Tally()
        for tally in self.tallies.values():
            total.add(tally)
        return total


def tasks(seed: int, workloads: tuple[str, ...]) -> Iterator[Task]:
    """Rounds over all workloads, without end."""
    for turn in itertools.count():
        for workload in workloads:
            yield Task(workload, seed + turn)
        if turn % FAULTS_EVERY == 0:
            for workload in workloads:
                if workload != "mixed":  # Its runs are long, and squared they would be all.
                    yield Task(workload, seed + turn, faults=True)


def simulate(
    points: int,
    seed: int,
    jobs: int,
    workloads: tuple[str, ...] = (),
    progress: Callable[[int], None] = lambda points: None,
) -> Result:
    """Try at least ``points`` crash points; stops at the first violation.

    Args:
        points: how many at least.
        seed: of the first round.
        jobs: processes.
        workloads: names of some; all where empty.
        progress: told the points so far.
    """
    began = time.monotonic()
    result = Result(seed)
    queue = tasks(seed, workloads or tuple(WORKLOADS))
    count = 0
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting: dict[Future[Tally], Task] = {}
        while count < points and not result.violations:
            while len(waiting) < jobs * 2:
                task = next(queue)
                waiting[pool.submit(task.run)] = task
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                count += _collect(future, waiting.pop(future), result)
            progress(count)
        for future in waiting:
            future.cancel()
    result.elapsed_s = time.monotonic() - began
    return result


def _collect(future: Future[Tally], task: Task, result: Result) -> int:
    try:
        tally = future.result()
    except Violation as violation:
        result.violations.append(violation)
        return 0
    name = task.workload + (" + failures" if task.faults else "")
    result.tallies.setdefault(name, Tally()).add(tally)
    result.runs[name] = result.runs.get(name, 0) + 1
    result.seed_last = max(result.seed_last, task.seed)
    return tally.points


def replay(point: Point) -> Tally:
    """Come back to one point.

    Raises:
        Violation: the promise is still broken there.
        LookupError: the workload has no such step.
    """
    run = explore_faults if point.fault else explore
    tally = run(point.workload, point.seed, point.image + 1, only=point)
    if not tally.points:
        raise LookupError(f"{point.workload} with seed {point.seed} has no step {point.step}.")
    return tally
