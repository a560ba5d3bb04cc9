"""The index of a backup: every run of pages that its state reaches, and where it is kept."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator

import attrs

from treestore.engine.freespace import Extent
from treestore.engine.meta import first_page

_ENTRY = struct.Struct("<QQQIII")
ENTRY_SIZE = _ENTRY.size
assert ENTRY_SIZE == 36


@attrs.frozen
class Run:
    """A run of pages in a backup.

    Attributes:
        page, pages: where in the page file, and how long.
        born: its birth.
        checksum: what it carries, and what refers to it repeats.
        offset: where it begins in the ``pages`` file that holds it, in pages.
        source: whose file that is: 0 this backup's, 1 its parent's, and so on.
    """

    page: int
    born: int
    offset: int
    checksum: int
    pages: int
    source: int


class Index:
    """Runs by page. Filled with `add` in any order, then `sort`ed.

    Six arrays and no objects: a large store has millions of runs.
    """

    def __init__(self) -> None:
        self._page = array("Q")
        self._born = array("Q")
        self._offset = array("Q")
        self._checksum = array("I")
        self._pages = array("I")
        self._source = array("I")

    def __len__(self) -> int:
        return len(self._page)

    def add(self, run: Run) -> None:
        """Append an entry."""
        self._page.append(run.page)
        self._born.append(run.born)
        self._offset.append(run.offset)
        self._checksum.append(run.checksum)
        self._pages.append(run.pages)
        self._source.append(run.source)

    def at(self, index: int) -> Run:
        """An entry by its place."""
        return Run(
            self._page[index],
            self._born[index],
            self._offset[index],
            self._checksum[index],
            self._pages[index],
            self._source[index],
        )

    def __iter__(self) -> Iterator[Run]:
        return map(self.at, range(len(self)))

    def sort(self) -> None:
        """Order by page."""
        order = sorted(range(len(self)), key=self._page.__getitem__)
        for name in ("_page", "_born", "_offset", "_checksum", "_pages", "_source"):
            column: array[int] = getattr(self, name)
            setattr(self, name, array(column.typecode, [column[index] for index in order]))

    def find(self, page: int) -> Run | None:
        """The run that begins at a page, or that holds it."""
        index = bisect_left(self._page, page + 1) - 1
        if index >= 0 and page < self._page[index] + self._pages[index]:
            return self.at(index)
        return None

    def pages(self) -> int:
        """Pages in all runs."""
        return sum(self._pages)

    def by_place(self) -> Iterator[Run]:
        """All runs, those of one file together and in its order."""
        places = range(len(self))
        for index in sorted(places, key=lambda i: (self._source[i], self._offset[i])):
            yield self.at(index)

    def free(self, page_count: int, page_size: int) -> list[Extent]:
        """What lies between the runs."""
        extents: list[Extent] = []
        position = first_page(page_size)
        for page, pages in zip(self._page, self._pages, strict=True):
            if page > position:
                extents.append((position, page - position))
            position = page + pages
        if position < page_count:
            extents.append((position, page_count - position))
        return extents

    def encode(self) -> Iterator[bytes]:
        """The index file, in pieces of about a megabyte."""
        columns = (
            *(self._page, self._born, self._offset),
            *(self._checksum, self._pages, self._source),
        )
        step = (1 << 20) // ENTRY_SIZE
        for start in range(0, len(self), step):
            rows = zip(*(column[start : start + step] for column in columns), strict=True)
            yield b"".join([_ENTRY.pack(*row) for row in rows])

    @classmethod
    def decode(cls, raw: bytes, sources: int, page_count: int, page_size: int) -> Index:
        """The reverse of `encode`.

        Raises:
            ValueError: entries that no backup has.
        """
        index = cls()
        if len(raw) % ENTRY_SIZE:
            raise ValueError("a part of an entry")
        end = first_page(page_size)
        for fields in _ENTRY.iter_unpack(raw):
            run = Run(*fields)
            if run.page < end or run.source >= sources or not run.pages:
                raise ValueError(f"an impossible entry for page {run.page}")
            end = run.page + run.pages
            index.add(run)
        if end > page_count:
            raise ValueError(f"page {end - 1} lies beyond the file's {page_count} pages")
        return index
