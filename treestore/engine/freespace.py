"""Free space of the page file, as extents in memory.

Low pages are given out first, so that the file's tail empties and can be cut off. The list is
persisted only by checkpoints (one run of pages, see ``checkpoint.py``) and can be rebuilt by a
walk over the tree (see ``check.py``).

A page that the tree no longer uses is not free at once: a live snapshot, or a meta slot that
recovery could choose, may still reach it. Such pages wait as `Retired`: they were reachable from
every root with a commit number in ``[born, died)``, so they are free once no pin lies in there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nlargest
from operator import add, lt
from typing import Any

import msgspec

Extent = tuple[int, int]
"""(first page, number of pages)"""


class Retired(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Pages that were reachable from every root with a commit number in ``[born, died)``.

    Out of the garbage collector's sight: there may be 100,000, made and let go of in one go, and
    whoever happens to start the collector then would stand still for tens of milliseconds.
    """

    born: int
    died: int
    start: int
    """The first page."""
    pages: int


_COUNT_BITS = 40
_COUNT_MASK = (1 << _COUNT_BITS) - 1
"""Where many extents are sorted, each is one number, ``start << _COUNT_BITS | count``: no file has
more pages (`PAGES_MAX`), numbers sort faster than pairs, and the collector does not mind them."""

Pause = Callable[[], None]

SORTED_AT_ONCE = 2048
"""Extents that are sorted in one call, and gone over between two pauses: half a millisecond."""


def _no_pause() -> None:
    """Nobody waits."""


def let_go(entries: list[Any], pause: Pause) -> None:
    """Empty a list bit by bit: one call that frees 100,000 entries, and what hangs on them, holds
    the interpreter for 5 to 10 milliseconds."""
    while entries:
        del entries[-SORTED_AT_ONCE:]
        pause()


class FreeSpace:
    """Free extents below ``page_count``, the first page number that was never used.

    Invariant: ``starts`` is sorted, ``counts[i]`` belongs to ``starts[i]``, extents neither touch
    nor overlap, and all end at or below ``page_count``.
    """

    __slots__ = ("counts", "page_count", "retired", "starts")

    def __init__(self, page_count: int, extents: Iterable[Extent] = ()) -> None:
        self.page_count = page_count
        self.starts: list[int] = []
        self.counts: list[int] = []
        self.retired: list[Retired] = []
        self.release(extents)

    @classmethod
    def restore(cls, page_count: int, starts: list[int], counts: list[int]) -> FreeSpace:
        """What a checkpoint wrote down. As `release` for a long list, ten times as fast.

        Raises:
            ValueError: the lists cannot be what a checkpoint wrote.
        """
        ends = list(map(add, starts, counts))
        if (
            len(starts) != len(counts)
            or min(counts, default=1) < 1
            or not all(map(lt, ends, starts[1:]))
            or (starts and (starts[0] < 0 or ends[-1] > page_count))
        ):
            raise ValueError("a list of free space that makes no sense")
        restored = cls(page_count)
        restored.starts, restored.counts = starts, counts
        return restored

    def extents(self) -> list[Extent]:
        """All free extents, ascending."""
        return list(zip(self.starts, self.counts, strict=True))

    def free_pages(self) -> int:
        """Pages that can be given out without growing the file."""
        return sum(self.counts)

    def retired_pages(self) -> int:
        """Pages that wait for a snapshot or a meta slot."""
        return sum(entry.pages for entry in self.retired)

    def release(self, extents: Iterable[Extent], pause: Pause = _no_pause) -> None:
        """Make pages free.

        Args:
            pause: called again and again; a list of 100,000 extents takes tens of milliseconds.

        Raises:
            AssertionError: a page is free already: the books are wrong, and going on would give
                the same page out twice.
        """
        self._release([start << _COUNT_BITS | count for start, count in extents], pause)

    def _release(self, added: list[int], pause: Pause) -> None:
        """`release` of packed extents."""
        if not added:
            return
        starts: list[int] = []
        counts: list[int] = []
        end = -1
        for piece in self._in_order(added, pause):
            pause()
            for packed in piece:
                start, count = packed >> _COUNT_BITS, packed & _COUNT_MASK
                if start < end:
                    raise AssertionError(f"page {start} was released twice")
                if start == end:
                    counts[-1] += count
                else:
                    starts.append(start)
                    counts.append(count)
                end = start + count
        if end > self.page_count:
            raise AssertionError(f"page {end - 1} is beyond the file's {self.page_count} pages")
        self.starts = starts
        self.counts = counts

    def _in_order(self, added: list[int], pause: Pause) -> Iterator[list[int]]:
        """What is free and what is added, ascending, in short sorted lists.

        One call of `sorted` over everything would hold the interpreter, and with it the event
        loop, until it returned: 20 ms for 100,000 extents.
        """
        pieces = 1 + (len(added) + len(self.starts)) // SORTED_AT_ONCE
        width = 1 + max(self.page_count, 1 + (max(added) >> _COUNT_BITS)) // pieces
        buckets: list[list[int]] = [[] for _ in range(pieces)]
        for turn, packed in enumerate(added):
            buckets[(packed >> _COUNT_BITS) // width].append(packed)
            if not turn % SORTED_AT_ONCE:
                pause()
        first = 0
        for number, bucket in enumerate(buckets):
            last = bisect_left(self.starts, (number + 1) * width, first)
            present = zip(self.starts[first:last], self.counts[first:last], strict=True)
            bucket += [start << _COUNT_BITS | count for start, count in present]
            bucket.sort()
            yield bucket
            first = last

    def trim(self) -> int:
        """Lower ``page_count`` to the end of the last page that is not free; by how many pages.

        What is retired is not free: whatever a slot or a lease reaches stays below.
        """
        if not self.starts or self.starts[-1] + self.counts[-1] != self.page_count:
            return 0
        self.page_count = self.starts.pop()
        return self.counts.pop()

    def copy(self) -> FreeSpace:
        """The same free extents, to plan with; nothing is retired in it."""
        other = FreeSpace(self.page_count)
        other.starts, other.counts = self.starts[:], self.counts[:]
        return other

    def free_below(self, page: int) -> list[Extent]:
        """Free extents below ``page``."""
        last = bisect_left(self.starts, page)
        below = list(zip(self.starts[:last], self.counts[:last], strict=True))
        if below and sum(below[-1]) > page:
            start = below[-1][0]
            below[-1] = (start, page - start)
        return below

    def reclaim(self, pins: Sequence[int], pause: Pause = _no_pause) -> int:
        """Free every retired page that no pin needs; how many there were.

        Args:
            pins: sorted commit numbers of live snapshots and both meta slots.
            pause: see `release`.
        """
        kept: list[Retired] = []
        freed: list[int] = []
        pages = 0
        for turn, entry in enumerate(self.retired):
            if not turn % SORTED_AT_ONCE:
                pause()
            index = bisect_left(pins, entry.born)
            if index < len(pins) and pins[index] < entry.died:
                kept.append(entry)
            else:
                freed.append(entry.start << _COUNT_BITS | entry.pages)
                pages += entry.pages
        retired, self.retired = self.retired, kept
        let_go(retired, pause)
        self._release(freed, pause)
        return pages

    def take(self, pages: int) -> list[Extent]:
        """Any ``pages`` pages, the lowest first, growing the file for what is missing."""
        taken: list[Extent] = []
        used = 0
        left = pages
        for start, count in zip(self.starts, self.counts, strict=True):
            if left == 0:
                break
            if count > left:
                taken.append((start, left))
                self.starts[used] = start + left
                self.counts[used] = count - left
                left = 0
                break
            taken.append((start, count))
            left -= count
            used += 1
        del self.starts[:used]
        del self.counts[:used]
        if left:
            taken.append(self._grow(left))
        return taken

    def take_runs(self, pages: int, extents_max: int) -> list[Extent]:
        """``pages`` pages in at most ``extents_max`` runs: one where possible.

        First fit of a whole run; then the largest free runs together; else the file grows.
        """
        for index, count in enumerate(self.counts):
            if count >= pages:
                start = self.starts[index]
                if count == pages:
                    del self.starts[index], self.counts[index]
                else:
                    self.starts[index] = start + pages
                    self.counts[index] = count - pages
                return [(start, pages)]
        largest = nlargest(extents_max, zip(self.counts, self.starts, strict=True))
        if sum(count for count, _ in largest) < pages:
            return [self._grow(pages)]
        taken: list[Extent] = []
        left = pages
        for count, start in largest:
            used = min(count, left)
            taken.append((start, used))
            left -= used
            index = bisect_left(self.starts, start)
            if used == count:
                del self.starts[index], self.counts[index]
            else:
                self.starts[index] = start + used
                self.counts[index] = count - used
            if left == 0:
                break
        return taken

    def _grow(self, pages: int) -> Extent:
        start = self.page_count
        self.page_count += pages
        return start, pages
