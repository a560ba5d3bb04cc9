"""One trio run in which everything follows from a seed.

* The clock is virtual and jumps to the next deadline when nothing can run.
* trio's scheduler shuffles the tasks of each turn; it does so with our generator. Cancellations and
  equal deadlines come in the order in which tasks and scopes were made, not in that of addresses.
* `time.perf_counter`, which is read only to see whether a slice of work took long enough, goes
  forward by a random bit each time it is read: so slices end anywhere.
* The cyclic garbage collector rests: what it finalises would run at moments that the history of
  the process decides.

What cannot be had from here: the order in which a `set` of bytes or strings is gone through
differs between processes. So nothing that is simulated may go through one.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from hashlib import blake2b
from random import Random
from typing import Any, TypeVar

import trio
import trio.testing

T = TypeVar("T")

TRACED_MAX = 200_000
"""Events whose text is kept, where it is kept at all."""


class Trace:
    """A hash over everything that happened, in order; with ``keep`` the text as well."""

    def __init__(self, *, keep: bool = False) -> None:
        self._hash = blake2b(digest_size=16)
        self.lines: list[str] | None = [] if keep else None
        self.events = 0

    def note(self, *what: object) -> None:
        """Something happened now."""
        line = f"{trio.current_time():.9f} {' '.join(map(str, what))}"
        self.events += 1
        self._hash.update(line.encode())
        if self.lines is not None and len(self.lines) < TRACED_MAX:
            self.lines.append(line)

    def digest(self) -> str:
        """The hash so far, in hex."""
        return self._hash.hexdigest()


def run_deterministically(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """`trio.run` on a virtual clock, all of it decided by ``seed``.

    Not to be used inside of another trio run, nor by two threads at a time: scheduler and clock
    are put in place for the whole process meanwhile.
    """
    random = Random(seed)
    with _scheduling(random.getrandbits(64)), _stop_watch(random.getrandbits(64)), _no_collector():
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def lift_shields() -> None:
    """Let every cancellation through: what hangs can then be ended, and reported."""
    tasks = [trio.lowlevel.current_root_task()]
    while tasks:
        task: Any = tasks.pop()
        if task is None:
            continue
        status = task._cancel_status
        while status is not None:
            status._scope.shield = False
            status = status._parent
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


class OrderedSet(dict[Any, None]):
    """What trio needs of a set; gone through in the order in which things were added."""

    def add(self, item: Any) -> None:
        """Put it in."""
        self[item] = None

    def remove(self, item: Any) -> None:
        """Take it out."""
        del self[item]


@contextmanager
def _scheduling(seed: int) -> Generator[None]:
    # What trio has for Hypothesis: tasks in order of their creation, then shuffled.
    scheduler: Any = trio._core._run  # pyright: ignore[reportAttributeAccessIssue]
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r
    # Cancellation goes to the tasks of a scope in the order of a set, that is, of their addresses.
    made: dict[str, Any] = scheduler.CancelStatus.__init__.__globals__
    factories = {name: made[name] for name in ("__attr_factory__children", "__attr_factory__tasks")}
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = True, Random(seed)
    made.update(dict.fromkeys(factories, OrderedSet))
    # Deadlines that are equal come in the order of an address, too.
    numbered: dict[int, tuple[int, object]] = {}
    scheduler.id = lambda item: numbered.setdefault(id(item), (len(numbered), item))[0]
    try:
        yield
    finally:
        del scheduler.id
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = before
        made.update(factories)


@contextmanager
def _stop_watch(seed: int) -> Generator[None]:
    random = Random(seed)
    now = 0.0

    def perf_counter() -> float:
        nonlocal now
        now += random.choice((1e-6, 1e-5, 1e-4, 1e-3))
        return now

    before = time.perf_counter
    time.perf_counter = perf_counter
    try:
        yield
    finally:
        time.perf_counter = before


@contextmanager
def _no_collector() -> Generator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        if enabled:
            gc.enable()
