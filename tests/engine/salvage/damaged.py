"""Small stores with a known history, to be damaged."""

from __future__ import annotations

from random import Random

import attrs

from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, Clock, open_small
from treestore.engine.directory import OpenStore
from treestore.engine.log.reader import walk
from treestore.engine.meta import SLOT_OFFSETS, SLOT_SIZE, Meta, decode_slot
from treestore.engine.options import EngineOptions, Environment
from treestore.engine.salvage.logmap import map_log
from treestore.engine.salvage.rebuild import RepairOptions, repair
from treestore.engine.salvage.report import RepairReport
from treestore.engine.salvage.scan import Run, scan_runs

OPTIONS = attrs.evolve(
    SMALL,
    log_segment_size_bytes_min=16384,
    log_segment_size_bytes_max=32768,
)
"""Segments that are full soon."""

PAGES = "/db/pages"


@attrs.define
class History:
    """A store on a disk and every state that it was in.

    Attributes:
        disk: with the closed (or killed) store ``/db``.
        states: LSN of the commit and what the store held then, ascending.
        slots: LSN of each checkpoint.
    """

    disk: SimDisk
    states: list[tuple[int, dict[bytes, bytes]]] = attrs.field(factory=list)

    def at(self, lsn: int) -> dict[bytes, bytes]:
        """What the store held after the record ``lsn``."""
        return next((s for number, s in reversed(self.states) if number <= lsn), {})

    @property
    def last(self) -> dict[bytes, bytes]:
        """What it held in the end."""
        return self.states[-1][1]

    def damaged(self, path: str, offset: int, data: bytes) -> SimDisk:
        """A copy of the disk with other bytes in a file."""
        disk = self.disk.clone()
        disk.poke(path, offset, data)
        return disk


def change(store: OpenStore, state: dict[bytes, bytes], random: Random) -> None:
    """One random transaction."""
    txn = store.engine.begin()
    for _ in range(random.randint(1, 12)):
        key = b"%06d" % random.randrange(900)
        what = random.random()
        if what < 0.12:
            txn.delete(key)
            state.pop(key, None)
        elif what < 0.16:
            end = key + b"5"
            txn.delete_range(key, end)
            for each in [k for k in state if key <= k < end]:
                del state[each]
        else:
            size = random.choice([5, 40, 200, 200, 3000]) if random.random() < 0.3 else 30
            state[key] = random.randbytes(size)
            txn.put(key, state[key])
    store.engine.write_now(txn)


def make_history(seed: int, *, steps: int = 60, clean: bool = True) -> History:
    """A store with large values, free pages, several segments and two checkpoints or more."""
    random = Random(seed)
    disk = SimDisk(seed)
    history = History(disk)
    state: dict[bytes, bytes] = {}
    store = open_small(disk, OPTIONS, seed=seed)
    for step in range(steps):
        change(store, state, random)
        history.states.append((store.engine.durable.position.lsn, dict(state)))
        if step in (steps // 4, steps // 2) or random.random() < 0.04:
            store.engine.checkpoint_now()
        if random.random() < 0.03:
            store.close()
            store = open_small(disk, OPTIONS, seed=seed + step)
    if clean:
        store.close()
    disk.restart()
    return history


def make_settled_history(seed: int) -> History:
    """A store most of which is older than both checkpoints, so that they share their pages."""
    random = Random(seed)
    disk = SimDisk(seed)
    history = History(disk)
    store = open_small(disk, OPTIONS, seed=seed)
    state = {b"%06d" % n: random.randbytes(random.choice([20, 60, 90])) for n in range(1500)}
    for first in range(0, 1500, 300):
        txn = store.engine.begin()
        for number in range(first, first + 300):
            txn.put(b"%06d" % number, state[b"%06d" % number])
        store.engine.write_now(txn)
    for step in range(12):
        txn = store.engine.begin()
        for _ in range(5):
            key = b"%06d" % random.randrange(1500 if step < 4 else 60)
            if random.random() < 0.3:
                txn.delete(key)
                state.pop(key, None)
            else:
                state[key] = random.randbytes(30)
                txn.put(key, state[key])
        store.engine.write_now(txn)
        history.states.append((store.engine.durable.position.lsn, dict(state)))
        if step in (4, 7, 9):
            store.engine.checkpoint_now()
    store.close()
    disk.restart()
    return history


def groups(disk: SimDisk) -> list[tuple[str, int, int, int]]:
    """Every group of the log: its segment, its offset there, its first and its last LSN."""
    found = []
    log = map_log(disk, "/db/log", None)
    for run in log.runs:
        for stretch in run:
            segment = stretch.segment
            assert segment.header is not None
            for group in walk(segment.file, segment.header, stretch.offset, stretch.before):
                found.append((segment.path, group.offset, group.lsn, group.tip.lsn))
                if group.tip.lsn == stretch.tip.lsn:
                    break
    log.close()
    return found


def segments(disk: SimDisk) -> list[str]:
    """The log's segments, the oldest first."""
    return [f"/db/log/{name}" for name in disk.list("/db/log") if name.endswith(".log")]


def newest_slot(disk: SimDisk) -> Meta:
    """What the newest meta slot says."""
    raw = disk.image(PAGES)
    found = [decode_slot(raw[at : at + SLOT_SIZE], PAGES) for at in SLOT_OFFSETS]
    return max((each[0] for each in found if each), key=lambda meta: meta.sequence)


def runs(disk: SimDisk, *kinds: int) -> list[Run]:
    """The whole runs of the page file, of these kinds."""
    file = disk.open(PAGES, read_only=True)
    return [run for run in scan_runs(file, OPTIONS.page_size_bytes) if run.kind in kinds]


def repaired(disk: SimDisk, **options: bool) -> tuple[RepairReport, dict[bytes, bytes]]:
    """Repair ``/db`` into ``/new``: the report, and what is in the new store.

    The old store is not changed by it, and the new one opens and passes its check.
    """
    before = {path: disk.image(path) for path in (PAGES, *segments(disk)) if disk.exists(path)}
    report = repair(
        "/db", "/new", RepairOptions(**options), OPTIONS, Environment(disk, Clock(), Random(10**9))
    )
    assert {path: disk.image(path) for path in before} == before
    assert not report.check_errors
    return report, new_contents(disk, OPTIONS)


def new_contents(disk: SimDisk, options: EngineOptions) -> dict[bytes, bytes]:
    """Everything in the new store."""
    from treestore.engine.check import check_engine
    from treestore.engine.directory import open_engine

    store = open_engine("/new", options, Environment(disk, Clock(), Random(2)), create=False)
    found = dict(store.engine.read().scan(b"", None))
    assert check_engine(store.engine).ok
    store.close()
    return found
