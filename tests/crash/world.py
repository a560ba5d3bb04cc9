"""A store on the crash disk with the history of what was done to it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs

from tests.crash.history import Change, History, State
from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, assert_clean, open_small
from treestore.engine.directory import OpenStore
from treestore.stores.collections.check import check_collections
from treestore.stores.documents.check import check_documents

OPTIONS = attrs.evolve(
    SMALL,
    log_segment_size_bytes_min=1 << 14,
    log_segment_size_bytes_max=1 << 17,
    log_size_bytes_max=4 << 20,
    transaction_size_bytes_max=1 << 20,
)
"""Small segments, so that the log rotates within some transactions."""


STATES_KEPT = 4
"""A crash leaves one of a few states; which ones moves on with the workload."""


class World:
    """What a workload works on.

    Attributes:
        disk: the medium.
        store: the open store; `start` opens it.
        history: which states a crash may leave.
        random: of the workload, from its seed.
        spoiled: segments whose files the workload damaged.
        starts: processes that opened the store.
        quiet: a crash now is for other workloads to look at.
    """

    def __init__(self, disk: SimDisk, seed: int, history: History | None = None) -> None:
        self.disk = disk
        self.random = Random(seed)
        self.history = history or History()
        self.store: OpenStore
        self.spoiled: set[str] = set()
        self.starts = 0
        self.quiet = False
        self._verified: list[State] = []

    def start(self) -> None:
        """Open the store."""
        # Each process has luck of its own, so that names are not given twice.
        self.store = open_small(self.disk, OPTIONS, seed=self.starts)
        self.starts += 1

    def verify_once(self, found: State, verify: Callable[[], None]) -> None:
        """Do what depends on a state alone, unless it was done for the same one."""
        if found not in self._verified[-STATES_KEPT:]:
            verify()
            self._verified.append(found)

    def write(self, change: Change) -> None:
        """One durable transaction."""
        self.history.write(self.store, change)

    def groups(self, *groups: list[Change]) -> None:
        """Groups of transactions, pipelined."""
        self.history.groups(self.store, groups)

    def checkpoint(self) -> None:
        """Write what is dirty to the page file, and trim the log."""
        self.store.engine.checkpoint_now()

    def reopen(self) -> None:
        """Close in an orderly way and open again."""
        self.store.close()
        self.start()

    def kill(self) -> None:
        """The process dies, the operating system lives; open again."""
        observer = self.disk.on_step
        self.disk.restart()
        self.disk.on_step = observer
        self.start()


def verify_contents(store: OpenStore, allowed: list[State]) -> State:
    """The store's content, which must be one of ``allowed``, and sound."""
    found = dict(store.engine.read().scan(b"", None))
    if found not in allowed:
        raise AssertionError(describe(found, allowed))
    assert_clean(store)
    problems = check_documents(store.engine.read()) + check_collections(store.engine.read())
    if problems:
        raise AssertionError(f"stores: {problems[:5]}")
    return found


def describe(found: State, allowed: list[State]) -> str:
    """How a state differs from the nearest allowed one."""

    def distance(state: State) -> int:
        return sum(found.get(key) != state.get(key) for key in found.keys() | state.keys())

    nearest = min(range(len(allowed)), key=lambda n: distance(allowed[n]))
    state = allowed[nearest]
    missing = sorted(state.keys() - found.keys())
    extra = sorted(found.keys() - state.keys())
    changed = sorted(key for key in found.keys() & state.keys() if found[key] != state[key])
    return (
        f"the state is none of the {len(allowed)} allowed ones; against number {nearest} it lacks "
        f"{len(missing)} keys {missing[:3]}, has {len(extra)} that are not due {extra[:3]}, and "
        f"{len(changed)} with another value {changed[:3]}"
    )
