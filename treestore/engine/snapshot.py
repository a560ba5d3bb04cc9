"""Snapshots: durable states that stay readable while somebody holds them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs

from treestore.engine.log import LogPosition
from treestore.engine.node import Ref
from treestore.engine.pagefile import PageFile
from treestore.engine.transaction import UNLIMITED, ReadTransaction
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
    """A pinned state. None of its pages is reused before `close`.

    Opened and closed on the thread that publishes states; read from any thread.
    """

    def __init__(
        self,
        state: State,
        pages: PageFile,
        now: Callable[[], datetime],
        owner: str,
        close: Callable[[Snapshot], None],
    ) -> None:
        self.state = state
        self.owner = owner
        self.opened_at = now()
        self.closed = False
        self._pages = pages
        self._now = now
        self._close = close

    @property
    def number(self) -> int:
        """Commit number that it shows."""
        return self.state.number

    def usable_root(self) -> Ref:
        """The root, as long as the snapshot is open.

        Raises:
            SnapshotExpired: it was closed.
        """
        if self.closed:
            raise SnapshotExpired("This snapshot was closed; open a new one.")
        return self.state.root

    def read(self, *, budget: int = UNLIMITED, raw: bool = False) -> ReadTransaction:
        """A transaction on this state.

        Raises:
            SnapshotExpired: it was closed.
        """
        return ReadTransaction(self.usable_root(), self._pages, self._now, budget=budget, raw=raw)

    def close(self) -> None:
        """Let go of the state; harmless when done twice."""
        if not self.closed:
            self.closed = True
            self._close(self)
