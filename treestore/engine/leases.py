"""The leases of one engine: who reads which state, and what that keeps from being reused.

See ``docs/space.md``. Counting what leases pin goes over every retired page, so it is done on a
copy, on any thread (`Pinned`); everything else belongs to the thread that publishes states.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import accumulate

import attrs

from treestore.engine.freespace import Retired
from treestore.engine.group import Superseded, retired_pages
from treestore.engine.node import Large
from treestore.engine.pagefile import PageFile
from treestore.engine.snapshot import Snapshot, State

ENTRIES_BEFORE_PAUSE = 1024


class Leases:
    """The open leases, the oldest first."""

    def __init__(self, pages: PageFile) -> None:
        self._pages = pages
        self._open: dict[Snapshot, None] = {}
        self._pinned: Counter[int] = Counter()
        self._last_id = 0
        self._unwritten: Counter[tuple[int, int]] = Counter()
        """(born, died) -> pages of superseded nodes and values that never got any: they are in
        memory as long as a lease reaches them."""

    def open(
        self, state: State, now: Callable[[], datetime], owner: str, *, evictable: bool = True
    ) -> Snapshot:
        """Pin a state that is pinned already, or is the newest."""
        self._last_id += 1
        snapshot = Snapshot(
            state,
            self._pages,
            now,
            owner,
            self._let_go,
            id=self._last_id,
            evictable=evictable,
        )
        self._open[snapshot] = None
        self._pinned[state.number] += 1
        return snapshot

    def _let_go(self, snapshot: Snapshot) -> None:
        del self._open[snapshot]
        number = snapshot.number
        self._pinned[number] -= 1
        if self._pinned[number] == 0:
            del self._pinned[number]
            if self._unwritten:
                pins = sorted(self._pinned)
                self._unwritten = Counter(
                    {span: pages for span, pages in self._unwritten.items() if _held(span, pins)}
                )

    def listed(self) -> list[Snapshot]:
        """Those that are open, or evicted with a read in flight; the oldest first."""
        return list(self._open)

    def numbers(self) -> list[int]:
        """Commit numbers that are pinned."""
        return list(self._pinned)

    def note_unwritten(self, superseded: Iterable[Superseded], died: int) -> None:
        """Count what a group superseded that never had a page and never will."""
        if not self._pinned:
            return
        # In most cases all of them: the state without it is the newest.
        pins = [pin for pin in sorted(self._pinned) if pin < died]
        if not pins:
            return
        last = pins[-1]
        page_size = self._pages.shape.page_size
        for ref, born in superseded:
            if born <= last and not ref.page:
                pages = 1 + ref.length // page_size if isinstance(ref, Large) else 1
                # As if it had lived from the first to the last of the pins that hold it: the same
                # for all of them, and so few different spans that letting go of one is quick.
                first = pins[bisect_left(pins, born)]
                self._unwritten[first, last + 1] += pages

    def advance(self, seconds: float) -> None:
        """Let all leases grow older."""
        for snapshot in self._open:
            snapshot.age_s += seconds

    def unwritten(self) -> list[Retired]:
        """What is pinned in memory, in the form of retired pages that are nowhere."""
        return [Retired(born, died, 0, pages) for (born, died), pages in self._unwritten.items()]


def _held(span: tuple[int, int], pins: Sequence[int]) -> bool:
    """Whether a sorted pin lies in ``[born, died)``."""
    index = bisect_left(pins, span[0])
    return index < len(pins) and pins[index] < span[1]


@attrs.frozen
class Pinned:
    """What leases keep from being reused, in pages; made by `LeaseBooks.count`."""

    numbers: list[int]
    """Pinned commit numbers, ascending."""
    pages: list[int]
    """Pages that each of them needs and no slot does."""
    total: int
    """Pages that any of them needs: less than the sum where they share some."""
    released: list[int]
    """Pages that are free once the first i numbers are let go of, for i from 0."""

    def of(self, number: int) -> int:
        """Pages that a lease with that number keeps."""
        index = bisect_left(self.numbers, number)
        found = index < len(self.numbers) and self.numbers[index] == number
        return self.pages[index] if found else 0

    def oldest_to_evict(self, pages_max: int) -> int | None:
        """The highest number that must go, with all below it, so that the others pin no more than
        ``pages_max``; None where they do not now."""
        for index, released in enumerate(self.released):
            if self.total - released <= pages_max:
                return self.numbers[index - 1] if index else None
        return None


class LeaseBooks:
    """A copy of what `Pinned` is counted from. Made quickly, counted on any thread.

    Args:
        retired: retired pages, and what is in memory only.
        published: what published groups superseded since.
        numbers: of the leases that are asked about.
        slots: of whoever keeps pages besides: what they need does not count.
    """

    def __init__(
        self,
        retired: list[Retired],
        published: list[tuple[list[Superseded], int]],
        numbers: Iterable[int],
        slots: Iterable[int],
    ) -> None:
        self._retired = retired
        self._published = published
        self._numbers = sorted(numbers)
        self._slots = sorted(slots)

    def count(self, pause: Callable[[], None] = lambda: None) -> Pinned:
        """Go over all retired pages."""
        numbers, slots = self._numbers, self._slots
        changes = [0] * (len(numbers) + 1)
        released = [0] * (len(numbers) + 1)
        total = 0
        for entries in (self._retired, retired_pages(self._published)):
            for turn, entry in enumerate(entries):
                if not turn % ENTRIES_BEFORE_PAUSE:
                    pause()
                born, died, pages = entry.born, entry.died, entry.pages
                first = bisect_left(numbers, born)
                last = bisect_left(numbers, died)
                if first == last or _held((born, died), slots):
                    continue
                total += pages
                changes[first] += pages
                changes[last] -= pages
                released[last] += pages
        return Pinned(numbers, list(accumulate(changes[:-1])), total, list(accumulate(released)))
