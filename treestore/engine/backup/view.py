"""A disk that shows a chain of backups as a page file, and keeps every write in memory.

So a backup can be opened by the engine, recovered, checkpointed and checked, without a byte of it
being changed and without room for a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

from treestore.engine.backup.index import Index
from treestore.engine.disk import Buffer, File
from treestore.engine.memorydisk import MemoryDisk


class PagesView:
    """The page file that a chain of backups makes up, under what was written to it since."""

    def __init__(self, path: str, index: Index, files: Sequence[File], page_size: int) -> None:
        self.path = path
        self._index = index
        self._files = files
        self._page_size = page_size
        self._written: dict[int, bytes] = {}
        self._size = 0

    def read_at(self, offset: int, size: int) -> bytes:
        """See `treestore.engine.disk.File`."""
        unit = self._page_size
        end = min(offset + size, self._size)
        if end <= offset:
            return b""
        first, last = offset // unit, -(-end // unit)
        parts: list[bytes] = []
        page = first
        while page < last:
            part = self._part(page, last - page)
            parts.append(part)
            page += len(part) // unit
        begin = offset - first * unit
        return b"".join(parts)[begin : begin + end - offset]

    def _part(self, page: int, pages_max: int) -> bytes:
        """Some whole pages from ``page`` on: what was written, what is backed up, or zeros."""
        unit = self._page_size
        written = self._written.get(page)
        if written is not None:
            return written
        run = self._index.find(page)
        if run is None:
            return bytes(unit)
        count = 1
        if not self._written.keys() & set(range(page, min(run.page + run.pages, page + pages_max))):
            count = min(run.page + run.pages - page, pages_max)
        data = self._files[run.source].read_at((run.offset + page - run.page) * unit, count * unit)
        return data.ljust(count * unit, b"\0")

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """See `treestore.engine.disk.File`."""
        data, unit = b"".join(buffers), self._page_size
        self.allocate(offset + len(data))
        begin = offset // unit * unit
        end = -(-(offset + len(data)) // unit) * unit
        self._size, size = max(self._size, end), self._size
        around = bytearray(self.read_at(begin, end - begin))
        self._size = size
        around[offset - begin : offset - begin + len(data)] = data
        for start in range(0, len(around), unit):
            self._written[(begin + start) // unit] = bytes(around[start : start + unit])

    def size(self) -> int:
        """See `treestore.engine.disk.File`."""
        return self._size

    def allocate(self, size: int) -> None:
        """See `treestore.engine.disk.File`."""
        self._size = max(self._size, size)

    def truncate(self, size: int) -> None:
        """See `treestore.engine.disk.File`. What is written behind it later reads as it was."""
        self._size = size

    def sync(self) -> None:
        """Memory: there is nothing to sync."""

    def forget(self, offset: int, size: int) -> None:
        """Nothing is cached here."""

    def close(self) -> None:
        """The backups' files belong to whoever opened them."""


class ViewDisk(MemoryDisk):
    """A disk in memory whose page file is a view."""

    def __init__(self, view: PagesView) -> None:
        super().__init__({view.path: b""})
        self._view = view

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """See `treestore.engine.disk.Disk`."""
        if path == self._view.path and not create:
            return self._view
        return super().open(path, create=create, read_only=read_only)
