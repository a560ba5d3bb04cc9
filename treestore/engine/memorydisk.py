"""A disk in memory, made for being copied a hundred thousand times.

Backups are verified on one, and damage is tried out on others. It forgets nothing and fails never:
whoever wants crashes takes the simulated medium of the tests. Files are shared between copies until
they are written to.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Sequence

from treestore.engine.disk import Buffer, File

Images = dict[str, bytes | None]
"""The content of each file by its path; None: it is a directory."""


class MemoryNode:
    """A file's content: ``bytes`` as long as it is shared, then a ``bytearray``."""

    __slots__ = ("data",)

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data

    def own(self) -> bytearray:
        """The content, to be changed."""
        if not isinstance(self.data, bytearray):
            self.data = bytearray(self.data)
        return self.data


class MemoryFile:
    """See `treestore.engine.disk.File`."""

    def __init__(self, path: str, node: MemoryNode) -> None:
        self.path = path
        self._node = node

    def read_at(self, offset: int, size: int) -> bytes:
        """See `treestore.engine.disk.File`."""
        return bytes(self._node.data[offset : offset + size])

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """See `treestore.engine.disk.File`."""
        content = b"".join(buffers)
        data = self._node.own()
        if offset > len(data):
            data.extend(bytes(offset - len(data)))
        data[offset : offset + len(content)] = content

    def size(self) -> int:
        """See `treestore.engine.disk.File`."""
        return len(self._node.data)

    def allocate(self, size: int) -> None:
        """See `treestore.engine.disk.File`."""
        if size > len(self._node.data):
            data = self._node.own()
            data.extend(bytes(size - len(data)))

    def truncate(self, size: int) -> None:
        """See `treestore.engine.disk.File`."""
        del self._node.own()[size:]

    def sync(self) -> None:
        """Memory: there is nothing to sync."""

    def forget(self, offset: int, size: int) -> None:
        """Nothing is cached here."""

    def close(self) -> None:
        """The content stays with the disk."""


class MemoryLock:
    """See `treestore.engine.disk.Lock`."""

    def __init__(self, held: set[str], path: str) -> None:
        self._held = held
        self._path = path

    def release(self) -> None:
        """See `treestore.engine.disk.Lock`."""
        self._held.discard(self._path)


class MemoryDisk:
    """See `treestore.engine.disk.Disk`."""

    def __init__(self, images: Images | None = None) -> None:
        self._nodes: dict[str, MemoryNode | None] = {"/": None}
        for path, data in (images or {}).items():
            self._nodes[path] = None if data is None else MemoryNode(data)
        self._held: set[str] = set()

    def images(self) -> Images:
        """A copy of everything."""
        return {
            path: None if node is None else bytes(node.data) for path, node in self._nodes.items()
        }

    def _node(self, path: str) -> MemoryNode:
        node = self._nodes.get(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """See `treestore.engine.disk.Disk`."""
        if create:
            if path in self._nodes:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            self._nodes[path] = MemoryNode(b"")
        return MemoryFile(path, self._node(path))

    def exists(self, path: str) -> bool:
        """See `treestore.engine.disk.Disk`."""
        return path in self._nodes

    def list(self, directory: str) -> list[str]:
        """See `treestore.engine.disk.Disk`."""
        return sorted(
            posixpath.basename(path)
            for path in self._nodes
            if path != "/" and posixpath.dirname(path) == directory
        )

    def make_directory(self, path: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        self._nodes.setdefault(path, None)

    def remove_directory(self, path: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        if self.list(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        del self._nodes[path]

    def rename(self, source: str, target: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        self._nodes[target] = self._node(source)
        del self._nodes[source]

    def unlink(self, path: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        self._node(path)
        del self._nodes[path]

    def sync_directory(self, path: str) -> None:
        """Memory: there is nothing to sync."""

    def lock(self, path: str, *, create: bool = True) -> MemoryLock:
        """See `treestore.engine.disk.Disk`."""
        if path not in self._nodes:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._nodes[path] = MemoryNode(b"")
        if path in self._held:
            raise BlockingIOError(errno.EWOULDBLOCK, "held", path)
        self._held.add(path)
        return MemoryLock(self._held, path)

    def free_bytes(self, path: str) -> int:
        """See `treestore.engine.disk.Disk`; more than anybody asks for."""
        return 1 << 40
