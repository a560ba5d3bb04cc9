"""Snapshots: durable states that stay readable while somebody holds a lease on them.

See ``docs/space.md``; ``leases.py`` keeps the list of them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs

from treestore.engine.log import LogPosition
from treestore.engine.node import Ref
from treestore.engine.pagefile import PageFile
from treestore.engine.transaction import ReadTransaction
from treestore.errors import SnapshotExpired


@attrs.frozen(eq=False)
class State:
    """One committed state of the tree."""

    root: Ref
    number: int
    """Commit number of the last transaction in it."""
    count: int
    """Keys in the tree."""
    position: LogPosition
    """Where the log stands after it."""
    replay_to_lsn: int = 0
    """See `treestore.engine.meta.Meta`: set only while recovery is at work."""


class Snapshot:
    """A lease on a state: none of its pages is reused while it is pinned.

    It is pinned until `close`, or `evict`, and until the reads in flight have ended. Everything is
    called on the thread that publishes states, but for what `read` gives: that goes to any thread.
    """

    def __init__(
        self,
        state: State,
        pages: PageFile,
        now: Callable[[], datetime],
        owner: str,
        let_go: Callable[[Snapshot], None],
        *,
        id: int = 0,
        evictable: bool = True,
    ) -> None:
        self.id = id
        self.state = state
        self.owner = owner
        self.opened_at = now()
        self.age_s = 0.0
        """As old as it was when the lease keeper last looked."""
        self.evictable = evictable
        self.closed = False
        self.evicted: str | None = None
        """Why it was evicted: the sentence that its readers get."""
        self.reads = 0
        """Reads in flight."""
        self.warned = False
        """Whether it was logged that it is old."""
        self._pages = pages
        self._now = now
        self._let_go = let_go
        self._pinned = True

    @property
    def number(self) -> int:
        """Commit number that it shows."""
        return self.state.number

    def ensure_usable(self, cursor: bytes | None = None) -> None:
        """Raise `SnapshotExpired`, with ``cursor``, once it was closed or evicted."""
        if self.evicted is not None:
            raise SnapshotExpired(self.evicted, cursor=cursor)
        if self.closed:
            raise SnapshotExpired("This snapshot was closed; open a new one.", cursor=cursor)

    def usable_root(self) -> Ref:
        """The root, as long as it may be read.

        Raises:
            SnapshotExpired: it was closed or evicted.
        """
        if self.closed or self.evicted is not None:
            self.ensure_usable()
        return self.state.root

    def read(self, *, raw: bool = False) -> LeasedRead:
        """A transaction on this state, to be used on any thread.

        Raises:
            SnapshotExpired: it was closed or evicted.
        """
        return LeasedRead(self, self.usable_root(), self._pages, self._now, raw=raw)

    def begin_read(self) -> None:
        """A read is in flight from now on: its pages stay until `end_read`, whatever happens.

        Raises:
            SnapshotExpired: it was closed or evicted.
        """
        self.ensure_usable()
        self.reads += 1

    def end_read(self) -> None:
        """A read that was begun has ended."""
        self.reads -= 1
        self._unpin_if_idle()

    def close(self) -> None:
        """Let go of the state; harmless when done twice."""
        self.closed = True
        self._unpin_if_idle()

    def evict(self, why: str) -> None:
        """Take the state away from its reader.

        Args:
            why: the sentence that later reads, and those in flight, raise.
        """
        if self.evicted is None and not self.closed:
            self.evicted = why
            self._unpin_if_idle()

    def _unpin_if_idle(self) -> None:
        over = self.closed or self.evicted is not None
        if over and self.reads == 0 and self._pinned:
            self._pinned = False
            self._let_go(self)


LEASE_SLICE = 1024
"""Look-ups and leaves after which a read in flight looks whether its lease was evicted."""


class LeasedRead(ReadTransaction):
    """A read as long as it likes, that ends with `SnapshotExpired` once its lease is evicted.

    Attributes:
        between_slices: called about once a millisecond; what it raises ends the read. A read on a
            thread looks there whether anybody still waits for it.
    """

    __slots__ = ("_lease", "between_slices", "granted")

    between_slices: Callable[[], None] | None

    def __init__(
        self,
        lease: Snapshot,
        root: Ref,
        pages: PageFile,
        clock: Callable[[], datetime],
        *,
        raw: bool,
    ) -> None:
        super().__init__(root, pages, clock, budget=LEASE_SLICE, raw=raw)
        self._lease = lease
        self.between_slices = None
        self.granted = LEASE_SLICE

    @property
    def spent(self) -> int:
        """Look-ups and leaves so far."""
        return self.granted - self.budget

    def over_budget(self) -> None:
        """Begin another slice."""
        lease = self._lease
        # Closed is not evicted: whoever lets go of a snapshot may leave reads in flight on it.
        if lease.evicted is not None:
            raise SnapshotExpired(lease.evicted)
        if self.between_slices is not None:
            self.between_slices()
        more = LEASE_SLICE - min(self.budget, 0)
        self.budget += more
        self.granted += more
