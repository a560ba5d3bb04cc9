"""The lease keeper: warns of readers that hold a state for long, and evicts those that hold too
much (``docs/space.md``)."""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors.threads import WORKER_THREADS, Threads
from treestore.engine.engine import Engine
from treestore.engine.leases import Pinned
from treestore.engine.snapshot import Snapshot
from treestore.loggers import get_logger

log = get_logger("treestore.lease_keeper")

TICK_S = 1.0

COUNTING_SHARE_MAX = 0.02
"""Counting what leases pin goes over all retired pages: it may take this much of the time."""

_NEXT = "Open a new one to go on."


class LeaseKeeper:
    """Runs until cancelled; the supervisor starts it again when it crashes."""

    def __init__(
        self,
        engine: Engine,
        threads: Threads = WORKER_THREADS,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._engine = engine
        self._threads = threads
        self._clock = clock
        self._advanced_at = clock()
        self._next_count = 0.0
        self.evictions = 0

    async def run(self) -> None:
        """The actor's task."""
        while True:
            await trio.sleep(TICK_S)
            await self.check()

    def advance(self) -> None:
        """Bring the ages of all leases up to date."""
        now = self._clock()
        self._engine.leases.advance(now - self._advanced_at)
        self._advanced_at = now

    async def check(self) -> None:
        """Warn of what is old, evict what is too old or holds too much."""
        self.advance()
        for lease in self._engine.snapshots():
            self._check_age(lease)
        if self._active() and self._clock() >= self._next_count:
            began = self._clock()
            await self._check_pinned()
            self._next_count = self._clock() + (self._clock() - began) / COUNTING_SHARE_MAX

    def is_soft(self, lease: Snapshot) -> bool:
        """Whether a lease is old enough to be warned of."""
        return lease.age_s >= self._engine.options.snapshot_age_s_soft

    def _active(self) -> list[Snapshot]:
        """Leases that could be evicted."""
        return [
            lease for lease in self._engine.snapshots() if lease.evictable and not lease.evicted
        ]

    def _check_age(self, lease: Snapshot) -> None:
        hard = self._engine.options.snapshot_age_s_hard
        if lease.evictable and not lease.evicted and lease.age_s >= hard:
            self._evict(
                lease,
                f"This snapshot was evicted: it was open for {lease.age_s:.0f} s, and {hard:g} s "
                f"are allowed. {_NEXT}",
            )
        elif self.is_soft(lease) and not lease.warned:
            lease.warned = True
            log.warning(
                "a snapshot is open for long", id=lease.id, owner=lease.owner, age_s=lease.age_s
            )

    async def _check_pinned(self) -> None:
        engine = self._engine
        page_size = engine.pages.shape.page_size
        limit = engine.options.snapshot_pinned_bytes_max
        pinned = await self.count({lease.number for lease in self._active()})
        highest = pinned.oldest_to_evict(limit // page_size)
        if highest is None:
            return
        for lease in self._active():
            if lease.number <= highest and pinned.of(lease.number):
                size = pinned.of(lease.number) * page_size
                self._evict(
                    lease,
                    f"This snapshot was evicted: it kept {size} bytes from being used again, and "
                    f"all snapshots together may keep {limit}. {_NEXT}",
                )

    async def count(self, numbers: set[int] | None = None) -> Pinned:
        """What leases keep from being used again.

        Args:
            numbers: which leases, by their commit numbers; what the others need then does not
                count. None: all.
        """
        engine = self._engine
        others: set[int] = set()
        if numbers is None:
            numbers = set(engine.pinned())
        else:
            others = set(engine.pinned()) - numbers
        books = engine.lease_books(numbers, others)
        return await self._threads.run(lambda: books.count(engine.environment.pause))

    def _evict(self, lease: Snapshot, why: str) -> None:
        self.evictions += 1
        log.warning("a snapshot was evicted", id=lease.id, owner=lease.owner, reason=why)
        lease.evict(why)
