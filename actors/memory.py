"""Memory budgets: what the connections of a server may hold together.

Small things are bounded by counts (connections, requests in flight) and are not charged one by
one, which would cost more than they do. What is charged: messages that are being put together,
parameters of commands that wait for the writer, and output that a peer has not taken yet.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class MemoryStatistics:
    """What a budget is used for at a moment."""

    used_bytes: int
    """Bytes charged now."""
    used_bytes_peak: int
    """Most bytes that were charged at a time."""
    size_bytes_max: int
    """The budget."""
    refusals: int
    """How often something was refused for lack of memory."""


class MemoryBudget:
    """Bytes shared by all connections of a server."""

    def __init__(self, size_bytes_max: int) -> None:
        self.size_bytes_max = size_bytes_max
        self.used_bytes = 0
        self._peak = 0
        self._refusals = 0

    def reserve(self, size_bytes: int) -> bool:
        """Charge ``size_bytes`` where they fit; returns whether they did."""
        if self.used_bytes + size_bytes > self.size_bytes_max:
            self._refusals += 1
            return False
        self.used_bytes += size_bytes
        self._peak = max(self._peak, self.used_bytes)
        return True

    def release(self, size_bytes: int) -> None:
        """Give ``size_bytes`` back."""
        self.used_bytes -= size_bytes
        assert self.used_bytes >= 0

    def statistics(self) -> MemoryStatistics:
        """A snapshot of the numbers."""
        return MemoryStatistics(
            used_bytes=self.used_bytes,
            used_bytes_peak=self._peak,
            size_bytes_max=self.size_bytes_max,
            refusals=self._refusals,
        )


class Account:
    """What one connection has charged to the budget; closing it gives everything back."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._closed = False
        self._held: dict[str, int] = {}
        self.used_bytes = 0

    def reserve(self, size_bytes: int) -> bool:
        """Charge ``size_bytes`` where they fit; returns whether they did."""
        if self._closed or not self._budget.reserve(size_bytes):
            return False
        self.used_bytes += size_bytes
        return True

    def release(self, size_bytes: int) -> None:
        """Give ``size_bytes`` back; harmless after `close`."""
        if not self._closed:
            self._budget.release(size_bytes)
            self.used_bytes -= size_bytes

    def hold(self, what: str, size_bytes: int) -> bool:
        """Set what ``what`` takes to ``size_bytes``; returns whether it fits."""
        change = size_bytes - self._held.get(what, 0)
        if change > 0:
            if not self.reserve(change):
                return False
        elif change < 0:
            self.release(-change)
        self._held[what] = size_bytes
        return True

    def close(self) -> None:
        """Give everything back; closing twice is harmless."""
        if not self._closed:
            self._budget.release(self.used_bytes)
            self.used_bytes = 0
            self._closed = True
