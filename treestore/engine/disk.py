"""The one seam to the operating system's files.

Everything that the engine does to files goes through a `Disk` and the `File` objects that it
hands out, so that a simulated medium can stand in for the real one (see ``tests/crash``). No
other module of the engine opens, renames, syncs or lists anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class File(Protocol):
    """An open file. Offsets and sizes are bytes. Not thread-safe but for `read_at`."""

    path: str

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer only where the file ends."""
        ...

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write all buffers one after the other from ``offset``; all bytes or an `OSError`."""
        ...

    def size(self) -> int:
        """The file's size now."""
        ...

    def allocate(self, size: int) -> None:
        """Make the file at least ``size`` bytes, its blocks reserved (`ENOSPC` comes here).

        New bytes read as zeros. Never shrinks.
        """
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        ...

    def sync(self) -> None:
        """Return once everything written, and the size, is on the medium."""
        ...

    def forget(self, offset: int, size: int) -> None:
        """Ask for these bytes to be read from the medium next time, not from a cache of the
        operating system. A hint: what cannot do it does nothing. Any thread."""
        ...

    def close(self) -> None:
        """Close without syncing. Closing twice is harmless."""
        ...


class Lock(Protocol):
    """An exclusive lock that is held until `release`."""

    def release(self) -> None:
        """Give the lock up. Releasing twice is harmless."""
        ...


class Disk(Protocol):
    """A file system, as far as the engine needs one. Paths are plain strings."""

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """Open an existing file, or with ``create`` a new one (it must not exist yet)."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file or directory of that name is there."""
        ...

    def list(self, directory: str) -> list[str]:
        """The names in a directory, sorted."""
        ...

    def make_directory(self, path: str) -> None:
        """Create a directory (its parent must exist); harmless where it is there already."""
        ...

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory. Durable only after `sync_directory` of its parent."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename, replacing ``target``. Durable only after `sync_directory`.

        A directory replaces at most an empty directory; what is in it was synced before.
        """
        ...

    def unlink(self, path: str) -> None:
        """Remove a file. Durable only after `sync_directory`."""
        ...

    def sync_directory(self, path: str) -> None:
        """Make creations, renames and removals in a directory durable."""
        ...

    def lock(self, path: str, *, create: bool = True) -> Lock:
        """Take the exclusive lock at ``path`` (a file, created where absent).

        Args:
            create: False: nothing in the directory is changed, the file must be there already.

        Raises:
            BlockingIOError: somebody, in this process or another, holds it.
            FileNotFoundError: not ``create``, and the file is not there.
        """
        ...

    def free_bytes(self, path: str) -> int:
        """Bytes that can still be written on the file system that holds ``path``."""
        ...
