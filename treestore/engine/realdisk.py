"""The operating system's files behind the `Disk` protocol.

The only other place that touches files is the simulated medium in ``tests/crash``; both promise
what `treestore.engine.disk` says and nothing more. Errors are plain `OSError`s: what a failed
write or sync means is for the layer above to decide, and it never tries again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

from treestore.engine.disk import Buffer, File, Lock
from treestore.engine.options import Environment

_BUFFERS_PER_CALL: Final = min(os.sysconf("SC_IOV_MAX"), 1024)
"""More buffers than this in one pwritev are refused with EINVAL."""

_ZEROS_BYTES: Final = 1 << 20
_CLOSED: Final = -1

_held: set[tuple[int, int]] = set()
"""Device and inode of every lock file that this process holds. It is a global because the thing
it describes, the process, is one: two `RealDisk`s must see each other's locks even where flock
is emulated with locks per process (NFS)."""
_held_guard: Final = threading.Lock()


class RealFile:
    """An open file of the operating system."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def read_at(self, offset: int, size: int) -> bytes:
        """See `treestore.engine.disk.File`. Any thread may read at any time until `close`."""
        data = os.pread(self._fd, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]
        missing = size - len(data)
        while missing > 0:
            data = os.pread(self._fd, missing, offset + size - missing)
            if not data:
                break
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """See `treestore.engine.disk.File`."""
        views = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        index = 0
        while index < len(views):
            written = os.pwritev(self._fd, views[index : index + _BUFFERS_PER_CALL], offset)
            if written <= 0:
                raise OSError(errno.EIO, "a write wrote nothing", self.path)
            offset += written
            while written:
                size = len(views[index])
                if written < size:
                    views[index] = views[index][written:]
                    break
                written -= size
                index += 1

    def size(self) -> int:
        """See `treestore.engine.disk.File`."""
        return os.fstat(self._fd).st_size

    def allocate(self, size: int) -> None:
        """See `treestore.engine.disk.File`.

        File systems without allocation get the missing bytes written as zeros.
        """
        present = self.size()
        if present >= size:
            return
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._fd, present, size - present)
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
        zeros = bytes(min(_ZEROS_BYTES, size - present))
        for offset in range(present, size, len(zeros)):
            self.write_at(offset, [memoryview(zeros)[: size - offset]])

    def truncate(self, size: int) -> None:
        """See `treestore.engine.disk.File`."""
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """See `treestore.engine.disk.File`."""
        if self._fd == _CLOSED:  # os.fdatasync would raise a ValueError
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.path)
        _sync_data(self._fd)

    def forget(self, offset: int, size: int) -> None:
        """See `treestore.engine.disk.File`. What was not synced yet stays cached."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fd, offset, size, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """See `treestore.engine.disk.File`."""
        fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            os.close(fd)


class RealLock:
    """An exclusive lock: flock between processes, a registry within this one."""

    def __init__(self, fd: int, key: tuple[int, int]) -> None:
        self._fd = fd
        self._key = key

    def release(self) -> None:
        """See `treestore.engine.disk.Lock`."""
        with _held_guard:
            fd, self._fd = self._fd, _CLOSED
            if fd != _CLOSED:
                _held.discard(self._key)
                os.close(fd)


class RealDisk:
    """The file system of the machine."""

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """See `treestore.engine.disk.Disk`.

        Raises:
            FileExistsError: ``create``, and the file is there.
            FileNotFoundError: not ``create``, and the file is not there.
        """
        flags = os.O_RDONLY if read_only else os.O_RDWR
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        return RealFile(path, os.open(path, flags | os.O_CLOEXEC, 0o600))

    def exists(self, path: str) -> bool:
        """See `treestore.engine.disk.Disk`."""
        return os.path.exists(path)

    def list(self, directory: str) -> list[str]:
        """See `treestore.engine.disk.Disk`."""
        return sorted(os.listdir(directory))

    def make_directory(self, path: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise

    def remove_directory(self, path: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        os.rmdir(path)

    def rename(self, source: str, target: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        """See `treestore.engine.disk.Disk`."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync_all(fd)
        finally:
            os.close(fd)

    def lock(self, path: str, *, create: bool = True) -> Lock:
        """See `treestore.engine.disk.Disk`."""
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino)
            with _held_guard:
                if key in _held:
                    raise BlockingIOError(errno.EWOULDBLOCK, "held by this process", path)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    text = "held by another process"
                    raise BlockingIOError(errno.EWOULDBLOCK, text, path) from error
                _held.add(key)
            return RealLock(fd, key)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise

    def free_bytes(self, path: str) -> int:
        """See `treestore.engine.disk.Disk`. Blocks reserved for root do not count."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize


if sys.platform == "darwin":  # there fsync stops at the drive's volatile cache

    def _sync_all(fd: int) -> None:
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)

    _sync_data = _sync_all
else:

    def _sync_all(fd: int) -> None:
        os.fsync(fd)

    def _sync_data(fd: int) -> None:
        # Writes the size too wherever reading the data back needs it.
        os.fdatasync(fd)


def real_environment() -> Environment:
    """The outside world as it is; `attrs.evolve` adds a pause or somebody to tell of progress."""
    return Environment(RealDisk(), time.time_ns, random.SystemRandom())
