"""The follower: brings views up to a state, reading the log once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from treestore.engine.log import LogPosition
from treestore.errors import CorruptionError, NotFound
from treestore.stores.namespaces.live.changes import ReadLog, groups_of
from treestore.stores.namespaces.live.view import View, ViewLost

LOG_FAILURES = (NotFound, CorruptionError, OSError)


class Follower:
    """Keeps views up. Any thread may call it.

    Args:
        read: reads the log.
        lost: told of views that were given up, with the reason; under the lock.
    """

    def __init__(self, read: ReadLog, lost: Callable[[View], None] | None = None) -> None:
        self._read = read
        self._lost = lost
        self._lock = threading.RLock()
        self._views: dict[int, View] = {}

    def view(self, number: int) -> View | None:
        """The view of a namespace, if it is loaded."""
        return self._views.get(number)

    def views(self) -> list[View]:
        """All that are loaded."""
        return list(self._views.values())

    def add(self, view: View) -> None:
        """Keep a view up from now on; it takes the place of another one of the namespace.

        Raises:
            ViewLost: the log that it needs is gone.
        """
        # What lies far behind is caught up with alone, while nobody waits.
        newest = max((one.position for one in self.views()), key=_lsn, default=view.position)
        self._advance([view], newest)
        with self._lock:
            if view.lost is not None:
                raise ViewLost(view.lost)
            self._views[view.number] = view

    def forget(self, number: int) -> None:
        """Keep a namespace's view up no more."""
        with self._lock:
            self._views.pop(number, None)

    def advance(self, until: LogPosition) -> None:
        """Bring all views up to a position that ends a group. Views that cannot be are given up."""
        if all(view.position.lsn >= until.lsn for view in self.views()):
            return
        with self._lock:
            self._advance(self.views(), until)

    def advance_one(self, view: View, until: LogPosition) -> None:
        """Bring a view up to a state, and the others along.

        Raises:
            ViewLost: it could not be.
        """
        if view.position.lsn < until.lsn:
            with self._lock:
                self._advance(self.views(), until)
                if view.position.lsn < until.lsn:
                    # It was replaced, or given up, since the caller got it.
                    raise ViewLost(view.lost or "another one took its place")
        if view.lost is not None:
            raise ViewLost(view.lost)

    @contextmanager
    def halted(self) -> Generator[None]:
        """Nothing is changed meanwhile, but by the caller."""
        with self._lock:
            yield

    def lose(self, view: View, why: str) -> None:
        """Give a view up: something of it is wrong."""
        with self._lock:
            if view.lost is None:
                view.lost = why
                if self._views.get(view.number) is view:
                    del self._views[view.number]
                if self._lost is not None:
                    self._lost(view)

    def _advance(self, views: list[View], until: LogPosition) -> None:
        behind = {view.number: view for view in views if view.position.lsn < until.lsn}
        if not behind:
            return
        start = min((view.position for view in behind.values()), key=_lsn)
        try:
            for position, changes in groups_of(self._read(start, until.lsn), behind.__contains__):
                for number, its in changes.items():
                    view = behind.get(number)
                    if view is not None and view.position.lsn < position.lsn:
                        try:
                            view.apply(its, position.lsn)
                        except Exception as error:  # Whatever it is: the tree still answers.
                            del behind[number]
                            self.lose(view, f"it could not be kept up: {error!r}")
        except LOG_FAILURES as error:
            for view in behind.values():
                self.lose(view, f"the log could not be read: {error}")
            return
        for view in behind.values():
            view.position = until


def _lsn(position: LogPosition) -> int:
    return position.lsn
