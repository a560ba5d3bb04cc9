"""Segments' files on the crash disk.

Segments are mapped into memory, so their module calls the operating system itself. Here it is given
one whose files are those of a `SimDisk`, wherever the path is a `SimPath`: each of its writes,
syncs, renames and removals is a step like the engine's own, and may be torn, lost, or fail.
"""

from __future__ import annotations

import errno
import mmap
import os
import posixpath
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import attrs

from tests.crash.simdisk import SimDisk, SimFile
from treestore.search.vectors import segment_file

FIRST_FD: Final = 1 << 20
"""Numbers of simulated files are above those that a process gets."""


@attrs.frozen(order=False, eq=False, str=False, repr=False)
class SimPath:
    """A path on a disk, as far as segments' files need one of `pathlib.Path`."""

    disk: SimDisk
    path: str

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"SimPath({self.path!r})"

    def __lt__(self, other: SimPath) -> bool:
        return self.path < other.path

    def __truediv__(self, name: str) -> SimPath:
        return SimPath(self.disk, posixpath.join(self.path, name))

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    @property
    def parent(self) -> SimPath:
        return SimPath(self.disk, posixpath.dirname(self.path))

    def with_name(self, name: str) -> SimPath:
        return self.parent / name

    def exists(self) -> bool:
        return self.disk.exists(self.path)

    def is_dir(self) -> bool:
        try:
            self.disk.list(self.path)
        except FileNotFoundError:
            return False
        return True

    def iterdir(self) -> Iterator[SimPath]:
        return iter([self / name for name in self.disk.list(self.path)])

    def mkdir(self, *, exist_ok: bool = False) -> None:
        if not self.exists():
            self.disk.make_directory(self.path)
        elif not exist_ok:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path)

    def rmdir(self) -> None:
        self.disk.remove_directory(self.path)

    def unlink(self) -> None:
        self.disk.unlink(self.path)


class _System:
    """`os` and `mmap` for files of crash disks; everything else is the real one's."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[SimPath, SimFile | None]] = {}
        self._next = FIRST_FD

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if not isinstance(path, SimPath):
            return os.open(path, flags, mode)
        disk, name = path.disk, path.path
        file: SimFile | None = None
        if flags & os.O_DIRECTORY:
            disk.list(name)
        elif flags & os.O_CREAT:
            file = disk.open(name, create=not disk.exists(name))
            if flags & os.O_TRUNC and file.size():
                file.truncate(0)
        else:
            file = disk.open(name, read_only=True)
        self._next += 1
        self._open[self._next] = path, file
        return self._next

    def close(self, fd: int) -> None:
        if self._open.pop(fd, None) is None:
            os.close(fd)

    def file(self, fd: int) -> SimFile:
        file = self._open[fd][1]
        assert file is not None
        return file

    def pwrite(self, fd: int, content: Any, offset: int) -> int:
        if fd not in self._open:
            return os.pwrite(fd, content, offset)
        self.file(fd).write_at(offset, [bytes(content)])
        return len(content)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        if fd not in self._open:
            return os.pread(fd, size, offset)
        return self.file(fd).read_at(offset, size)

    def fstat(self, fd: int) -> Any:
        if fd not in self._open:
            return os.fstat(fd)
        return SimpleNamespace(st_size=self.file(fd).size())

    def fsync(self, fd: int) -> None:
        if fd not in self._open:
            os.fsync(fd)
            return
        path, file = self._open[fd]
        if file is None:
            path.disk.sync_directory(path.path)
        else:
            file.sync()

    def rename(self, source: Any, target: Any) -> None:
        if isinstance(source, SimPath):
            source.disk.rename(source.path, target.path)
        else:
            os.rename(source, target)

    def mmap(self, fd: int, length: int, **options: Any) -> mmap.mmap:
        if fd not in self._open:
            return mmap.mmap(fd, length, **options)
        mapped = mmap.mmap(-1, length)
        mapped[:] = self.file(fd).read_at(0, length)
        return mapped


class _Instead:
    """A module of which some functions are others."""

    def __init__(self, module: Any, **functions: Any) -> None:
        self._module = module
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


_SYSTEM: Final = _System()
_NAMES: Final = ("open", "close", "pwrite", "pread", "fstat", "fsync", "rename")
_OS: Final = _Instead(os, **{name: getattr(_SYSTEM, name) for name in _NAMES})
_MMAP: Final = _Instead(mmap, mmap=_SYSTEM.mmap)


@contextmanager
def simulated_files() -> Generator[None]:
    """Meanwhile a segment's path may be a `SimPath`."""
    with mock.patch.object(segment_file, "os", _OS), mock.patch.object(segment_file, "mmap", _MMAP):
        yield
