"""Opening a store that may be damaged: read-only, and without taking it over."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from treestore.engine.cache import NodeCache
from treestore.engine.directory import CREATING, LOCK, LOG, PAGES
from treestore.engine.disk import Buffer, Disk, File, Lock
from treestore.engine.meta import SLOT_OFFSETS, Meta, Slot, read_slot
from treestore.engine.node import Shape
from treestore.engine.page import PAGE_SIZE_BYTES
from treestore.engine.pagefile import PageFile
from treestore.engine.salvage.scan import guess_page_size
from treestore.errors import InvalidArgument, NotFound, Unavailable

BLOCK_BYTES = 4096
"""Where a read fails, this much at a time is tried by itself."""


class TolerantFile:
    """A file that is only read; what the medium refuses reads as zeros.

    Checksums then find the zeros out like any other damage, and what lies around them is read.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self.path = file.path
        self.unreadable: set[int] = set()
        """Offsets of blocks that could not be read."""

    def read_at(self, offset: int, size: int) -> bytes:
        """See `treestore.engine.disk.File`."""
        try:
            return self._file.read_at(offset, size)
        except OSError:
            return self._pieces(offset, min(size, max(0, self.size() - offset)))

    def _pieces(self, offset: int, size: int) -> bytes:
        end = offset + size
        pieces = []
        while offset < end:
            length = min(end, (offset // BLOCK_BYTES + 1) * BLOCK_BYTES) - offset
            try:
                pieces.append(self._file.read_at(offset, length))
            except OSError:
                self.unreadable.add(offset // BLOCK_BYTES * BLOCK_BYTES)
                pieces.append(bytes(length))
            offset += length
        return b"".join(pieces)

    def size(self) -> int:
        """See `treestore.engine.disk.File`."""
        return self._file.size()

    def close(self) -> None:
        """See `treestore.engine.disk.File`."""
        self._file.close()

    def forget(self, offset: int, size: int) -> None:
        """See `treestore.engine.disk.File`."""

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Refused, like everything that changes the file."""
        raise AssertionError(f"{self.path} is only read")

    def allocate(self, size: int) -> None:
        """Refused."""
        raise AssertionError(f"{self.path} is only read")

    def truncate(self, size: int) -> None:
        """Refused."""
        raise AssertionError(f"{self.path} is only read")

    def sync(self) -> None:
        """Refused."""
        raise AssertionError(f"{self.path} is only read")


@attrs.define
class Source:
    """A data directory that is read as far as it can be.

    Attributes:
        directory: its path.
        pages: the page file; None where it is missing.
        slots: both slots, in the order of the file; empty without a page file.
        metas: what the whole ones say, the newest first.
        page_size_known: whether a slot named the page size; else it is a guess from the pages.
        log_directory: of its log.
        has_log: whether there is one.
    """

    directory: str
    pages: PageFile | None
    slots: list[Slot]
    metas: list[Meta]
    page_size_known: bool
    log_directory: str
    has_log: bool
    disk: Disk
    lock: Lock | None = None
    other_version: bool = False

    @property
    def page_size(self) -> int:
        """Bytes in a page; the default where there is no page file."""
        return PAGE_SIZE_BYTES if self.pages is None else self.pages.shape.page_size

    def close(self) -> None:
        """Close the page file and let go of the lock."""
        if self.pages is not None:
            self.pages.file.close()
        if self.lock is not None:
            self.lock.release()


def open_source(disk: Disk, directory: str) -> Source:
    """Open a data directory for reading; the caller closes it.

    Raises:
        NotFound: there is no store.
        InvalidArgument: the directory is something else.
        Unavailable: another process has it open.
    """
    if not disk.exists(directory):
        raise NotFound(f"There is no store at {directory}.")
    try:
        names = disk.list(directory)
    except NotADirectoryError:
        names = []
    if not {PAGES, LOG, CREATING} & set(names):
        raise InvalidArgument(f"{directory} is no TreeStore data directory.")
    lock = _lock(disk, directory)
    try:
        return _open(disk, directory, names, lock)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _lock(disk: Disk, directory: str) -> Lock | None:
    try:
        return disk.lock(f"{directory}/{LOCK}", create=False)
    except FileNotFoundError:
        return None  # A copy without it: nobody can have the store open.
    except BlockingIOError as error:
        raise Unavailable(
            f"{directory} is in use by another process (or is open in this one already). Stop it, "
            "or work on a copy of the directory."
        ) from error


def _open(disk: Disk, directory: str, names: list[str], lock: Lock | None) -> Source:
    source = Source(
        directory,
        None,
        [],
        [],
        False,
        f"{directory}/{LOG}",
        LOG in names,
        disk,
        lock,
    )
    if PAGES not in names:
        return source
    file = TolerantFile(disk.open(f"{directory}/{PAGES}", read_only=True))
    source.slots = [read_slot(file, offset) for offset in SLOT_OFFSETS]
    source.other_version = any(slot.state == "other version" for slot in source.slots)
    whole = [slot for slot in source.slots if slot.meta is not None]
    whole.sort(key=lambda slot: slot.meta.sequence if slot.meta else 0, reverse=True)
    source.metas = [slot.meta for slot in whole if slot.meta is not None]
    source.page_size_known = bool(whole)
    page_size = whole[0].page_size if whole else guess_page_size(file)
    source.pages = PageFile(file, Shape(page_size), NodeCache(0))
    return source
