"""How late the event loop is: how long a task that could run has to wait for its turn."""

from __future__ import annotations

from collections import deque

import trio

from treestore.histogram import Histogram, HistogramSnapshot

INTERVAL_S = 0.1
SLOT_S = 10.0
SLOTS = 6
"""The maximum is one of the last minute: a scrape that resets it would take it from another."""


class LoopLag:
    """Sleeps a little, again and again, and notes by how much it was woken too late."""

    def __init__(self) -> None:
        self._lags = Histogram()
        self._maxima: deque[float] = deque([0.0], maxlen=SLOTS)

    async def run(self) -> None:
        """Measure until cancelled."""
        slot_ends = trio.current_time() + SLOT_S
        while True:
            due = trio.current_time() + INTERVAL_S
            await trio.sleep_until(due)
            now = trio.current_time()
            self.note(now - due)
            if now >= slot_ends:
                slot_ends = now + SLOT_S
                self._maxima.append(0.0)

    def note(self, lag_s: float) -> None:
        """Count one."""
        self._lags.observe(lag_s)
        if lag_s > self._maxima[-1]:
            self._maxima[-1] = lag_s

    def snapshot(self) -> HistogramSnapshot:
        """All since the start."""
        return self._lags.snapshot()

    @property
    def max_s(self) -> float:
        """The longest of the last minute."""
        return max(self._maxima)
