"""Spare segment files: made ahead of time, or trimmed off the log and kept for reuse.

Two of them are the *reserve*, for a full disk. Only groups that free space may take the first, so
that what was deleted can be written down; only recovery may take the last, so that the log can be
opened again whatever was going on. A trim brings them back.
"""

from __future__ import annotations

import contextlib
import errno
import threading

import attrs

from treestore.engine.disk import Disk, File
from treestore.engine.log import format as fmt
from treestore.engine.log.names import NEW_SUFFIX, SPARE_SUFFIX, new_name, number_in, spare_name
from treestore.engine.log.options import LogOptions
from treestore.errors import ResourceExhausted

RESERVES = 2
"""Files in the reserve."""

_ZEROS = bytes(1 << 20)
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_no_space(error: BaseException) -> bool:
    """Whether the disk, or a quota, is full."""
    return isinstance(error, OSError) and error.errno in _NO_SPACE


def no_space(directory: str, size: int, error: BaseException) -> ResourceExhausted:
    """The error for a segment that could not be reserved."""
    return ResourceExhausted(
        f"There is no room on the disk for {size} bytes of log in {directory} ({error}). "
        "Nothing was written. Free some space and try again.",
        size_bytes=size,
    )


@attrs.define(eq=False)
class Spare:
    """A file that can become a segment: all its bytes were written and synced once.

    Attributes:
        path, file: the file, open.
        size_bytes: its size.
        stale: whether it may hold something else than zeros.
    """

    path: str
    file: File
    size_bytes: int
    stale: bool


class SparePool:
    """The spare files of one log directory. Every method may be called from any thread."""

    def __init__(self, disk: Disk, directory: str, options: LogOptions) -> None:
        self._disk = disk
        self._directory = directory
        self._options = options
        self._lock = threading.Lock()
        self._ready: list[Spare] = []
        self._reserve: list[Spare] = []
        self.short = False
        """Whether the disk had no room when it was last asked for some; the engine sets it too."""
        self._number = 0
        self._preparing = False
        self._closed = False
        self.target_bytes = options.segment_size_bytes_min
        """The size that the next segment should have under the present load."""

    def load(self) -> None:
        """Take over the spare files of an earlier process; remove what it left half done.

        They count as stale: the process may have died while it was writing into one.
        """
        for name in self._disk.list(self._directory):
            path = f"{self._directory}/{name}"
            if number_in(name, NEW_SUFFIX) is not None:
                self._disk.unlink(path)
            number = number_in(name, SPARE_SUFFIX)
            if number is None:
                continue
            self._number = max(self._number, number)
            file = self._disk.open(path)
            size = file.size()
            usable = size == fmt.padded(size) and size >= self._options.segment_size_bytes_min
            if usable and len(self._ready) < self._options.segments_spare_max + RESERVES:
                self._ready.append(Spare(path, file, size, stale=True))
            else:
                file.close()
                self._disk.unlink(path)
        self._reserve_ready()
        # Not only for the removals: the process may have died before it synced the name of a
        # spare that was a segment until then.
        self._disk.sync_directory(self._directory)

    def _reserve_ready(self) -> None:
        """Move ready spares, the smallest first, to the reserve."""
        self._ready.sort(key=lambda spare: spare.size_bytes)
        while self._ready and len(self._reserve) < RESERVES:
            self._reserve.append(self._ready.pop(0))

    def take(self, needed: int, *, reserved: int = RESERVES) -> Spare:
        """A spare of at least ``needed`` bytes: a ready one, or one that is made now.

        Args:
            needed: how many bytes it must have.
            reserved: how many files must stay in the reserve, out of which one is taken where
                neither is possible.

        Raises:
            ResourceExhausted: none is ready and the disk is full.
            OSError: making one failed for another reason.
        """
        with self._lock:
            for index, spare in enumerate(self._ready):
                if spare.size_bytes >= needed:
                    return self._ready.pop(index)
        try:
            return self._make(max(needed, self._options.segment_size_bytes_min))
        except ResourceExhausted:
            with self._lock:
                for index, spare in enumerate(self._reserve):
                    if spare.size_bytes >= needed and len(self._reserve) > reserved:
                        return self._reserve.pop(index)
            raise

    def take_at_open(self, needed: int) -> Spare:
        """What recovery goes on with: any spare, the reserve; at worst a file of ``needed`` bytes.

        Raises:
            ResourceExhausted: the disk is full to the last byte and holds no spare.
            OSError: making one failed for another reason.
        """
        try:
            return self.take(needed, reserved=0)
        except ResourceExhausted:
            # A short segment is soon full, but the log can be opened and trimmed.
            return self._make(max(needed, 4 * fmt.BLOCK_BYTES))

    @property
    def smallest_bytes(self) -> int:
        """No spare is smaller."""
        return self._options.segment_size_bytes_min

    @property
    def has_reserve(self) -> bool:
        """Whether the reserve is whole."""
        return len(self._reserve) >= RESERVES

    def fill_reserve(self) -> None:
        """Make the reserve whole: out of spares, or files that are made now.

        Raises:
            ResourceExhausted: the disk is full.
            OSError: it failed for another reason.
        """
        with self._lock:
            self._reserve_ready()
        while not self.has_reserve and not self._closed:
            self._add([self._make(self._options.segment_size_bytes_min)])

    def prepare(self) -> bool:
        """Make a spare of the target size unless one is ready; whether it did.

        Raises:
            ResourceExhausted: the disk is full.
            OSError: it failed for another reason. Nothing depends on the file yet.
        """
        with self._lock:
            if self._preparing or self._closed or (self._ready and self.has_reserve):
                return False
            self._preparing = True
        try:
            self.fill_reserve()
            if self._ready:
                return True
            self._add([self._make(self.target_bytes)])
        finally:
            self._preparing = False
        return True

    def recycle(self, retired: list[tuple[str, File, int]]) -> None:
        """Take over files (path, file, size) that the log no longer needs.

        Returns only once their old names are durably gone: before that, writing into one could
        put a wrong segment into the log after a crash.

        Raises:
            OSError: the files stay unused.
        """
        spares: list[Spare] = []
        for path, file, size in retired:
            if self._wanted(size, len(spares)):
                name = f"{self._directory}/{spare_name(self._next_number())}"
                self._disk.rename(path, name)
                file.path = name
                spares.append(Spare(name, file, size, stale=True))
            else:
                file.close()
                self._disk.unlink(path)
        if retired:
            self._disk.sync_directory(self._directory)
        self._add(spares)
        if self.short:
            self._give_back()

    def _wanted(self, size: int, taken: int) -> bool:
        """Whether a file of this size is kept; ``taken`` were kept just now."""
        options = self._options
        with self._lock:
            missing = RESERVES - len(self._reserve)
            if taken < missing:
                return size >= options.segment_size_bytes_min
            room = len(self._ready) + taken < options.segments_spare_max + missing
            fits = self.target_bytes <= size <= options.segment_size_bytes_max
            return room and fits and not self.short

    def _give_back(self) -> None:
        """The disk is full: leave it everything but a reserve of the smallest size."""
        low = self._options.segment_size_bytes_min
        with self._lock:
            self.target_bytes = low
            if not self.has_reserve or self._closed:
                return
            spares, self._ready = self._ready, []
            reserve, self._reserve = self._reserve, []
        for spare in spares:
            spare.file.close()
            self._disk.unlink(spare.path)
        for spare in reserve:
            if spare.size_bytes > low:
                # Nothing depends on when, or whether, that reaches the medium.
                spare.file.truncate(low)
                spare.size_bytes = low
        self._add(reserve)

    def close(self) -> None:
        """Close the files; they stay on the disk for the next process."""
        with self._lock:
            self._closed = True
            spares = [*self._ready, *self._reserve]
            self._ready, self._reserve = [], []
        for spare in spares:
            spare.file.close()

    def sizes(self) -> list[int]:
        """The sizes of the ready files, without the reserve, in bytes."""
        with self._lock:
            return [spare.size_bytes for spare in self._ready]

    def reserve_bytes(self) -> int:
        """The size of the reserve."""
        with self._lock:
            return sum(spare.size_bytes for spare in self._reserve)

    def _add(self, spares: list[Spare]) -> None:
        with self._lock:
            if not self._closed:
                self._ready += spares
                self._reserve_ready()
                return
        for spare in spares:
            spare.file.close()

    def _next_number(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _make(self, size: int) -> Spare:
        """Create, fill with zeros, sync, rename, sync the directory.

        Really writing the zeros is the point: a sync after writing into blocks that were only
        allocated has to change the file's metadata, which takes ten times as long. They are
        synced piece by piece, because the sync of a group waits behind what is on its way to the
        medium: measured beside a 100 MiB segment, 4 ms at worst instead of 34.
        """
        size = fmt.padded(size)
        number = self._next_number()
        temporary = f"{self._directory}/{new_name(number)}"
        file: File | None = None
        try:
            file = self._disk.open(temporary, create=True)
            file.allocate(size)
            for offset in range(0, size, len(_ZEROS)):
                file.write_at(offset, [memoryview(_ZEROS)[: size - offset]])
                file.sync()
            path = f"{self._directory}/{spare_name(number)}"
            self._disk.rename(temporary, path)
            self._disk.sync_directory(self._directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                if file is not None:
                    file.close()
                self._disk.unlink(temporary)
            if is_no_space(error):
                self.short = True
                raise no_space(self._directory, size, error) from error
            raise
        self.short = False
        file.path = path
        return Spare(path, file, size, stale=False)
