"""Opened segments, within a budget.

Opening a segment reads and verifies all of it, so those that are searched often stay open. Which
ones go is decided by S3-FIFO: a new one enters a small queue (a tenth of the budget); one that is
used again before it reaches the end moves to the main queue, the others go and are remembered by
name; one that comes back while it is remembered enters the main queue at once. At the end of the
main queue, what was used since goes round again. So a scan over many segments that nobody asks for
twice drives out none of those that everybody asks for, and a hit writes one number, without moving
anything.

What is in use is *pinned*: it is never evicted, even if that means to be above the budget for a
while. And what is evicted is only let go of: a segment is unmapped when nothing uses it any more,
so that nobody can meet a closed one, whatever mistake was made about pins.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Mapping
from typing import Final, Generic, Protocol, TypeVar

import attrs

_SMALL_SHARE: Final = 0.1
_USES_MAX: Final = 3
"""Uses are counted up to here, as many rounds as an entry can then make in the main queue."""
_REMEMBERED_PER_ENTRY: Final = 1
_REMEMBERED_MIN: Final = 16


class Opened(Protocol):
    """What can be kept: a `treestore.search.vectors.segment.Segment`."""

    @property
    def mapped_bytes(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Opened)


@attrs.frozen(kw_only=True)
class CacheStatistics:
    """A cache at one moment.

    Attributes:
        hits: uses that found what they wanted open, since the start.
        misses: uses that had to open it, or to wait for somebody who did.
        evictions: entries that were let go to keep the budget.
        entries: what is open now.
        pinned: how many of these are in use.
        mapped_bytes: of files that are mapped: the system keeps as much of them in memory as it
            likes.
        memory_bytes: what entries take besides.
    """

    hits: int
    misses: int
    evictions: int
    entries: int
    pinned: int
    mapped_bytes: int
    memory_bytes: int

    @property
    def hit_rate(self) -> float:
        """Hits of all uses, 0 to 1; 1 where there were none."""
        uses = self.hits + self.misses
        return self.hits / uses if uses else 1.0


@attrs.define(eq=False)
class _Entry(Generic[V]):
    """Something open, or being opened (``value`` is None, and ``ready`` tells when)."""

    value: V | None = None
    ready: threading.Event = attrs.field(factory=threading.Event)
    users: int = 0
    uses: int = 0
    mapped_bytes: int = 0
    memory_bytes: int = 0
    in_main: bool = False


class SegmentCache(Generic[K, V]):
    """See above. Any thread.

    Args:
        mapped_bytes_max: budget of what is mapped.
        memory_bytes_max: budget of what is in memory besides.
        entries_max: how many may be open: a system allows a process some 65,000 mappings.
    """

    def __init__(
        self, *, mapped_bytes_max: int, memory_bytes_max: int, entries_max: int = 8192
    ) -> None:
        if min(mapped_bytes_max, memory_bytes_max, entries_max) < 1:
            raise ValueError("a cache needs a budget of at least 1 of everything")
        self._mapped_max = mapped_bytes_max
        self._memory_max = memory_bytes_max
        self._entries_max = entries_max
        self._guard = threading.Lock()
        self._entries: dict[K, _Entry[V]] = {}
        # Oldest first. Only entries that are open are in a queue.
        self._small: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._main: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._remembered: OrderedDict[K, None] = OrderedDict()
        self._small_cost = 0.0
        self._mapped = self._memory = 0
        self._hits = self._misses = self._evictions = 0

    @contextlib.contextmanager
    def use(self, key: K, load: Callable[[], V]) -> Generator[V]:
        """Something open, pinned for as long as the block runs.

        Args:
            key: its name.
            load: opens it, where it is not open. Of several threads that want the same, one
                opens it and the others wait. What it raises comes out here, and the next one
                tries again.
        """
        entry = self._take(key, load)
        try:
            assert entry.value is not None
            yield entry.value
        finally:
            with self._guard:
                entry.users -= 1
                self._shrink()

    def _take(self, key: K, load: Callable[[], V]) -> _Entry[V]:
        waited = False
        while True:
            with self._guard:
                entry = self._entries.get(key)
                mine = entry is None
                if entry is None:
                    entry = self._entries[key] = _Entry()
                if entry.value is not None:
                    entry.users += 1
                    entry.uses = min(entry.uses + 1, _USES_MAX)
                    self._hits += not waited
                    return entry
                self._misses += not waited
            waited = True
            if mine:
                return self._load(key, entry, load)
            entry.ready.wait()

    def _load(self, key: K, entry: _Entry[V], load: Callable[[], V]) -> _Entry[V]:
        try:
            value = load()
        except BaseException:
            with self._guard:
                self._forget(key, entry)
            entry.ready.set()
            raise
        with self._guard:
            entry.value = value
            entry.mapped_bytes, entry.memory_bytes = value.mapped_bytes, value.memory_bytes
            entry.users = 1
            if self._entries.get(key) is entry:  # else it was dropped meanwhile
                self._enter(key, entry)
                self._shrink()
        entry.ready.set()
        return entry

    def _forget(self, key: K, entry: _Entry[V]) -> None:
        if self._entries.get(key) is entry:
            del self._entries[key]

    def _enter(self, key: K, entry: _Entry[V]) -> None:
        self._mapped += entry.mapped_bytes
        self._memory += entry.memory_bytes
        if key in self._remembered:
            del self._remembered[key]
            entry.in_main = True
            self._main[key] = entry
        else:
            self._small[key] = entry
            self._small_cost += self._cost(entry)

    def _cost(self, entry: _Entry[V]) -> float:
        """The share of the budget that an entry takes, of the scarcest thing."""
        return max(
            entry.mapped_bytes / self._mapped_max,
            entry.memory_bytes / self._memory_max,
            1 / self._entries_max,
        )

    def _too_much(self) -> bool:
        return (
            self._mapped > self._mapped_max
            or self._memory > self._memory_max
            or len(self._small) + len(self._main) > self._entries_max
        )

    def _shrink(self) -> None:
        """Let go of entries until the budget is kept, or everything left is in use."""
        # Each step takes an entry away, moves it to the main queue, or takes a use from it.
        steps = (len(self._small) + len(self._main)) * (_USES_MAX + 2)
        while self._too_much() and steps:
            steps -= 1
            if self._small and (self._small_cost > _SMALL_SHARE or not self._main):
                self._step_small()
            elif self._main:
                self._step_main()

    def _step_small(self) -> None:
        key, entry = self._small.popitem(last=False)
        self._small_cost = self._small_cost - self._cost(entry) if self._small else 0.0
        if entry.users or entry.uses:
            entry.in_main = True
            entry.uses = 0
            self._main[key] = entry
            return
        self._remembered[key] = None
        open_now = len(self._small) + len(self._main)
        while len(self._remembered) > max(_REMEMBERED_MIN, _REMEMBERED_PER_ENTRY * open_now):
            self._remembered.popitem(last=False)
        self._let_go(key, entry)

    def _step_main(self) -> None:
        key, entry = self._main.popitem(last=False)
        if entry.users or entry.uses:
            entry.uses = max(0, entry.uses - 1)
            self._main[key] = entry
            return
        self._let_go(key, entry)

    def _let_go(self, key: K, entry: _Entry[V]) -> None:
        self._evictions += 1
        self._mapped -= entry.mapped_bytes
        self._memory -= entry.memory_bytes
        self._forget(key, entry)

    def drop(self, key: K) -> None:
        """Let go of one that is not needed any more: its file was removed. Who uses it goes on."""
        with self._guard:
            entry = self._entries.pop(key, None)
            self._remembered.pop(key, None)
            if entry is None or entry.value is None:
                return
            queue = self._main if entry.in_main else self._small
            del queue[key]
            if not entry.in_main:
                self._small_cost = self._small_cost - self._cost(entry) if queue else 0.0
            self._mapped -= entry.mapped_bytes
            self._memory -= entry.memory_bytes

    def __contains__(self, key: K) -> bool:
        with self._guard:
            entry = self._entries.get(key)
            return entry is not None and entry.value is not None

    def statistics(self) -> CacheStatistics:
        """As it is now."""
        with self._guard:
            queues = (self._small, self._main)
            return CacheStatistics(
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                entries=sum(map(len, queues)),
                pinned=sum(entry.users > 0 for queue in queues for entry in queue.values()),
                mapped_bytes=self._mapped,
                memory_bytes=self._memory,
            )


class Warmable(Opened, Protocol):
    """Something whose bytes can be read ahead."""

    def warm(self, *, pause: Callable[[], None] | None = None) -> int: ...


W = TypeVar("W", bound=Warmable)


def warm(
    cache: SegmentCache[K, W],
    wanted: Mapping[K, Callable[[], W]],
    *,
    bytes_max: int | None = None,
    pause: Callable[[], None] | None = None,
) -> int:
    """Open segments and read them into the system's cache, before somebody asks for them.

    Args:
        cache: where they are kept.
        wanted: what opens each, by name; the most wanted first.
        bytes_max: stop when so many bytes were read; None: read them all.
        pause: called after each MiB; what it raises ends the reading.

    Returns:
        How many bytes were read.
    """
    total = 0
    for key, load in wanted.items():
        if bytes_max is not None and total >= bytes_max:
            break
        with cache.use(key, load) as opened:
            total += opened.warm(pause=pause)
    return total
