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
from collections.abc import Iterable, Sequence
from operator import add, lt

Extent = tuple[int, int]
"""(first page, number of pages)"""

Retired = tuple[int, int, int, int]
"""(born, died, first page, number of pages)"""


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
        return sum(entry[3] for entry in self.retired)

    def release(self, extents: Iterable[Extent]) -> None:
        """Make pages free.

        Raises:
            AssertionError: a page is free already: the books are wrong, and going on would give
                the same page out twice.
        """
        added = sorted(extents)
        if not added:
            return
        merged = sorted([*zip(self.starts, self.counts, strict=True), *added])
        starts: list[int] = []
        counts: list[int] = []
        end = -1
        for start, count in merged:
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

    def reclaim(self, pins: Sequence[int]) -> int:
        """Free every retired page that no pin needs; how many there were.

        Args:
            pins: sorted commit numbers of live snapshots and both meta slots.
        """
        kept: list[Retired] = []
        freed: list[Extent] = []
        for entry in self.retired:
            born, died, start, count = entry
            index = bisect_left(pins, born)
            if index < len(pins) and pins[index] < died:
                kept.append(entry)
            else:
                freed.append((start, count))
        self.retired = kept
        self.release(freed)
        return sum(count for _, count in freed)

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
        largest = sorted(zip(self.counts, self.starts, strict=True), reverse=True)[:extents_max]
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
