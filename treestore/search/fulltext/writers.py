"""The writers that are open: each takes about seven threads and some memory, so there are few.

All indexes that share a `Writers` have one owner thread at a time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

WRITERS_MAX: Final = 4
IDLE_S: Final = 10.0
"""Seconds after which a writer that nobody used is given back."""


class Writing(Protocol):
    """An index that can let go of its writer."""

    def give_back(self) -> None:
        """Commit what is not committed yet, and let go of the writer's threads and memory."""
        ...


class Writers:
    """Which indexes have writers; the one that was used longest ago gives its own back first."""

    def __init__(
        self, limit: int = WRITERS_MAX, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._used: OrderedDict[Writing, float] = OrderedDict()

    def use(self, index: Writing) -> None:
        """Say that an index is about to write."""
        if index not in self._used:
            while len(self._used) >= self._limit:
                next(iter(self._used)).give_back()
        self._used[index] = self._clock()
        self._used.move_to_end(index)

    def forget(self, index: Writing) -> None:
        """Say that an index has no writer any more."""
        self._used.pop(index, None)

    def release_idle(self, idle_s: float = IDLE_S) -> None:
        """Have the writers given back that nobody used for so long."""
        until = self._clock() - idle_s
        while self._used:
            index, used = next(iter(self._used.items()))
            if used > until:
                return
            index.give_back()

    def __len__(self) -> int:
        return len(self._used)
