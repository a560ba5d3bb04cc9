"""A disk that shows a chain of backups as a page file, and keeps every write in memory.

So a backup can be opened by the engine, recovered, checkpointed and checked, without a byte of it
being changed and without room for a copy.
"""

from __future__ import annotations

import errno
import os.path
from collections.abc import Sequence

from treestore.engine.backup.index import Index
from treestore.engine.disk import Buffer, File, Lock


class MemoryFile:
    """An open file of a `ViewDisk`; see `treestore.engine.disk.File`."""

    def __init__(self, path: str, data: bytearray) -> None:
        self.path = path
        self._data = data

    def read_at(self, offset: int, size: int) -> bytes:
        """See `treestore.engine.disk.File`."""
        return bytes(self._data[offset : offset + size])

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """See `treestore.engine.disk.File`."""
        data = b"".join(buffers)
        self.allocate(offset + len(data))
        self._data[offset : offset + len(data)] = data

    def size(self) -> int:
        """See `treestore.engine.disk.File`."""
        return len(self._data)

    def allocate(self, size: int) -> None:
        """See `treestore.engine.disk.File`."""
        if size > len(self._data):
            self._data.extend(bytes(size - len(self._data)))

    def truncate(self, size: int) -> None:
        """See `treestore.engine.disk.File`."""
        del self._data[size:]

    def sync(self) -> None:
        """Memory: there is nothing to sync."""

    def forget(self, offset: int, size: int) -> None:
        """Nothing is cached here."""

    def close(self) -> None:
        """The data stay with the disk."""


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


class ViewLock:
    """See `treestore.engine.disk.Lock`; nobody else can see this disk."""

    def release(self) -> None:
        """Nothing to give up."""


class ViewDisk:
    """See the head of this file, and `treestore.engine.disk.Disk`."""

    def __init__(self) -> None:
        self._files: dict[str, bytearray | PagesView | None] = {}
        """A directory is a name with None."""

    def put(self, view: PagesView) -> None:
        """Make a page file appear at its path."""
        self._files[view.path] = view

    def _find(self, path: str) -> bytearray | PagesView:
        found = self._files.get(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "not in memory", path)
        return found

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """See `treestore.engine.disk.Disk`."""
        if create:
            if path in self._files:
                raise FileExistsError(errno.EEXIST, "in memory already", path)
            self._files[path] = bytearray()
        found = self._find(path)
        return found if isinstance(found, PagesView) else MemoryFile(path, found)

    def exists(self, path: str) -> bool:
        """See `treestore.engine.disk.Disk`."""
        return path in self._files

    def list(self, directory: str) -> list[str]:
        """See `treestore.engine.disk.Disk`."""
        if self._files.get(directory, self) is not None:
            raise FileNotFoundError(errno.ENOENT, "not a directory in memory", directory)
        return sorted(
            os.path.basename(name) for name in self._files if os.path.dirname(name) == directory
        )

    def make_directory(self, path: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        self._files.setdefault(path, None)

    def remove_directory(self, path: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        if self.list(path):
            raise OSError(errno.ENOTEMPTY, "not empty in memory", path)
        del self._files[path]

    def rename(self, source: str, target: str) -> None:
        """See `treestore.engine.disk.Disk`; of files."""
        found = self._find(source)
        del self._files[source]
        self._files[target] = found

    def unlink(self, path: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        self._find(path)
        del self._files[path]

    def sync_directory(self, path: str) -> None:
        """Memory: there is nothing to sync."""

    def lock(self, path: str, *, create: bool = True) -> Lock:
        """See `treestore.engine.disk.Disk`."""
        self._files.setdefault(path, bytearray())
        return ViewLock()

    def free_bytes(self, path: str) -> int:
        """See `treestore.engine.disk.Disk`; more than anybody asks for."""
        return 1 << 40
