"""The node cache: which clean nodes stay decoded in memory.

One budget in bytes over all leaves, branches and large values that have a page. The order is
CLOCK (first in, first out, with a second chance for what was used since): a hit costs one store of
a flag and no lock. Dirty nodes are not counted here; a checkpoint makes them clean and admits
them. Entries are `Ref` and `Large` objects themselves: dropping one sets its ``node`` to None, and
with a leaf its index, which no reader minds, since a reader holds the node, not the reference,
while it uses it.
"""

from __future__ import annotations

import threading
from collections import deque

import attrs

from treestore.engine.node import Large, Node, Ref

ENTRY_MEMORY_BYTES = 150
"""Python's overhead for a key and a value beside their bytes: two objects (33 bytes each, rounded
up), two list slots, and a place in the leaf's index."""


EVICTION_STEPS = 64
"""Entries looked at for each one admitted. The cache may be over its budget for a moment."""


@attrs.frozen
class CacheStatistics:
    """A snapshot of the cache's counters."""

    budget_bytes: int
    used_bytes: int
    entries: int
    lookups: int
    misses: int
    evictions: int

    @property
    def hit_rate(self) -> float:
        """Share of look-ups that needed no read of a page; 1.0 before the first."""
        return max(0.0, 1.0 - self.misses / self.lookups) if self.lookups else 1.0


def memory_of(node: Node | bytes) -> int:
    """Estimated bytes of memory that a decoded node or value takes."""
    if isinstance(node, bytes):
        return len(node) + 64
    entries = len(node.keys) if node.children is None else 2 * len(node.children)
    return node.size + ENTRY_MEMORY_BYTES * entries + 300


class NodeCache:
    """Keeps loaded nodes within a byte budget.

    Thread-safe: loads happen on the event loop and in worker threads. ``lookups`` is added to by
    whoever ran a read, in bulk: look-ups and leaves that it spent, misses included. A counter on
    the hot path would cost as much as the look-up itself.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self.misses = 0
        self.lookups = 0
        self.evictions = 0
        self._lock = threading.Lock()
        self._queue: deque[tuple[Ref | Large, int]] = deque()

    def admit(self, entry: Ref | Large, node: Node | bytes) -> None:
        """Count an entry that now has both a page and its node in memory."""
        size = memory_of(node)
        with self._lock:
            self._queue.append((entry, size))
            self.used_bytes += size
            if self.used_bytes > self.budget_bytes:
                self._evict()

    def missed(self) -> None:
        """Count one read from the page file."""
        self.misses += 1

    def _evict(self) -> None:
        queue = self._queue
        # A few at a time: with everything in use, a whole round would take tens of milliseconds.
        for _ in range(min(EVICTION_STEPS, len(queue))):
            if self.used_bytes <= self.budget_bytes:
                return
            entry, size = queue.popleft()
            if entry.hot:
                entry.hot = False
                queue.append((entry, size))
            else:
                entry.drop()
                self.used_bytes -= size
                self.evictions += 1

    def statistics(self) -> CacheStatistics:
        """The counters now."""
        return CacheStatistics(
            self.budget_bytes,
            self.used_bytes,
            len(self._queue),
            self.lookups,
            self.misses,
            self.evictions,
        )
