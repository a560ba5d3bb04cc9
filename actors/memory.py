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
        used = self.used_bytes + size_bytes
        if used > self.size_bytes_max:
            self._refusals += 1
            return False
        self.used_bytes = used
        if used > self._peak:
            self._peak = used
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
        self._input_bytes = 0
        self._output_bytes = 0
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

    def hold_input(self, size_bytes: int) -> bool:
        """Half-received messages take ``size_bytes`` now; returns whether they fit."""
        fits = self._change(size_bytes - self._input_bytes)
        if fits:
            self._input_bytes = size_bytes
        return fits

    def hold_output(self, size_bytes: int) -> bool:
        """Waiting output takes ``size_bytes`` now; returns whether it fits."""
        fits = self._change(size_bytes - self._output_bytes)
        if fits:
            self._output_bytes = size_bytes
        return fits

    def release_output(self) -> None:
        """No output waits."""
        if self._output_bytes:
            self.release(self._output_bytes)
            self._output_bytes = 0

    def _change(self, size_bytes: int) -> bool:
        if size_bytes > 0:
            return self.reserve(size_bytes)
        self.release(-size_bytes)
        return True

    def close(self) -> None:
        """Give everything back; closing twice is harmless."""
        if not self._closed:
            self._budget.release(self.used_bytes)
            self.used_bytes = 0
            self._closed = True
