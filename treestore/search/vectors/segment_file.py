"""An immutable file of named sections, of which every byte is covered by a checksum.

A file is written under a temporary name, synced, and renamed; so under its own name it is whole or
not there. It is read by mapping it into memory. Nothing is said here about what the sections hold;
`docs/segment-format.md` draws the bytes.

A `SegmentFile` cannot be closed: the mapping lives as long as anything that was taken from it, an
array, a view, or an index that points into it, and goes with the last one. So an unmapped page can
never be touched. Removing the file does not harm whoever has it open.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal

import attrs
import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

Buffer = bytes | bytearray | memoryview | NDArray[Any]
Damage = Literal["missing", "unreadable", "cut", "version", "foreign", "checksum", "content"]

FORMAT_VERSION: Final = 1
PAGE_BYTES: Final = 4096
"""The header's size, and what large arrays are aligned to."""
ALIGNMENT_BYTES: Final = 64
"""What every section is aligned to at least: a cache line, enough for any array."""

_MAGIC: Final = b"TSsegmnt"
_HEADER: Final = struct.Struct("<8sI16s16sQQQIII")
_CHECKSUM: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<QQQIHH")
_TEMPORARY: Final = ".new"
_STEP_BYTES: Final = 1 << 20
"""What is written, read or checksummed in one call."""
_SYNC_BYTES: Final = 64 << 20
"""Synced after so many bytes, so that the log's syncs never wait for a long one."""
_NAME_BYTES_MAX: Final = 1000


class SegmentDamaged(Exception):
    """A file that cannot be used: make it again from what is stored.

    Attributes:
        damage: what kind: it is ``missing``, ``unreadable`` (the medium's fault), ``cut`` (or too
            long), of another ``version`` of the format or of a library, ``foreign`` (of another
            database, or another segment), not what its ``checksum`` says, or its ``content`` makes
            no sense although the checksums fit.
        section: which section; None: the header, the table, or the whole file.
        path: of the file.
    """

    def __init__(self, damage: Damage, path: Path, what: str, section: str | None = None) -> None:
        where = f"section {section!r} of {path}" if section is not None else str(path)
        super().__init__(f"{where}: {what}")
        self.damage: Final = damage
        self.path: Final = path
        self.section: Final = section


@attrs.frozen(kw_only=True)
class Section:
    """Where a section lies.

    Attributes:
        name: unique in its file.
        offset: of its first byte in the file.
        size: in bytes.
        extent: bytes up to the next section, or the table: ``size`` and zeros after it.
        checksum: crc32c of the whole extent.
    """

    name: str
    offset: int
    size: int
    extent: int
    checksum: int


# -- writing ------------------------------------------------------------------------------------


class SegmentWriter:
    """Writes one file, section by section. A context manager: left without `commit`, nothing
    stays."""

    def __init__(self, path: Path, *, database: uuid.UUID, segment: uuid.UUID) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + _TEMPORARY)
        self._database = database
        self._segment = segment
        self._sections: dict[str, Section] = {}
        self._open_section: str | None = None
        self._offset = PAGE_BYTES
        self._synced = 0
        self._checksum = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd: int | None = os.open(self._temporary, flags, 0o600)

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd is not None:
            self._close()
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()

    def add(self, name: str, content: Buffer, *, alignment: int = ALIGNMENT_BYTES) -> None:
        """Write a whole section."""
        with self.section(name, alignment=alignment) as write:
            write(content)

    @contextlib.contextmanager
    def section(
        self, name: str, *, alignment: int = ALIGNMENT_BYTES
    ) -> Generator[Callable[[Buffer], None]]:
        """Write a section piece by piece, with the function that this gives.

        Args:
            name: unique in the file, at most 1,000 bytes of UTF-8, not empty.
            alignment: of its first byte; a power of two, at most `PAGE_BYTES`.
        """
        if not 1 <= len(name.encode()) <= _NAME_BYTES_MAX or name in self._sections:
            raise ValueError(f"a section cannot be named {name!r:.60}, or there is one already")
        if alignment & (alignment - 1) or not ALIGNMENT_BYTES <= alignment <= PAGE_BYTES:
            raise ValueError(f"an alignment cannot be {alignment}")
        if self._open_section is not None:
            raise RuntimeError(f"section {self._open_section!r} is still being written")
        # The zeros before this section belong to the extent of the one before.
        self._pad(alignment)
        self._finish_last()
        self._open_section = name
        start, self._checksum = self._offset, 0
        yield self._write
        self._open_section = None
        self._sections[name] = Section(
            name=name, offset=start, size=self._offset - start, extent=0, checksum=0
        )

    def _pad(self, alignment: int) -> None:
        self._write(bytes(-self._offset % alignment))

    def _finish_last(self) -> None:
        """The zeros up to here belong to the last section, and its checksum is known now."""
        if self._sections:
            name, last = self._sections.popitem()
            self._sections[name] = attrs.evolve(
                last, extent=self._offset - last.offset, checksum=self._checksum
            )
        # Before the first section there is nothing: the header's size is a page.

    def _write(self, content: Buffer) -> None:
        assert self._fd is not None
        whole = memoryview(content)  # type: ignore[arg-type]
        if not whole.nbytes:
            return
        view = whole.cast("B")
        for start in range(0, len(view), _STEP_BYTES):
            piece = view[start : start + _STEP_BYTES]
            self._checksum = crc32c(piece, self._checksum)
            _write_at(self._fd, self._offset, piece, self._temporary)
            self._offset += len(piece)
        if self._offset - self._synced >= _SYNC_BYTES:
            _sync_data(self._fd)
            self._synced = self._offset

    def written(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        """A section that was written already, as an array that reads the file."""
        assert self._fd is not None
        section = self._sections[name]
        if not section.size:
            return np.empty(shape, dtype)
        mapped = mmap.mmap(self._fd, self._offset, access=mmap.ACCESS_READ)
        count = int(np.prod(shape))
        return np.frombuffer(mapped, dtype, count, section.offset).reshape(shape)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._offset

    def commit(self) -> int:
        """Write the table and the header, sync, and give the file its name.

        Returns:
            The header's checksum. It covers the checksums of all sections, so whoever keeps it
            can tell this file from any other.
        """
        assert self._fd is not None
        if self._open_section is not None:
            raise RuntimeError(f"section {self._open_section!r} is still being written")
        self._pad(ALIGNMENT_BYTES)
        self._finish_last()
        table = b"".join(map(_pack_entry, self._sections.values()))
        at = self._offset
        self._write(table)
        header = _HEADER.pack(
            *(_MAGIC, FORMAT_VERSION, self._database.bytes, self._segment.bytes),
            *(self._offset, at, len(table), len(self._sections), crc32c(table), 0),
        )
        body = header.ljust(PAGE_BYTES - _CHECKSUM.size, b"\0")
        checksum: int = crc32c(body)
        _write_at(self._fd, 0, memoryview(body + _CHECKSUM.pack(checksum)), self._temporary)
        os.fsync(self._fd)
        os.rename(self._temporary, self._path)
        self._close()
        _sync_directory(self._path.parent)
        return checksum

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _pack_entry(section: Section) -> bytes:
    name = section.name.encode()
    entry = _ENTRY.pack(
        section.offset, section.size, section.extent, section.checksum, len(name), 0
    )
    packed = entry + name
    return packed + bytes(-len(packed) % 8)


def _write_at(fd: int, offset: int, content: memoryview, path: Path) -> None:
    while content:
        written = os.pwrite(fd, content, offset)
        if written <= 0:
            raise OSError(errno.EIO, "a write wrote nothing", str(path))
        offset += written
        content = content[written:]


_sync_data: Final = getattr(os, "fdatasync", os.fsync)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_segment_file(path: Path) -> None:
    """Remove a file, and what an interrupted writer left of it. Harmless where it is gone."""
    for name in (path, path.with_name(path.name + _TEMPORARY)):
        with contextlib.suppress(FileNotFoundError):
            name.unlink()


def list_segment_files(folder: Path) -> Iterator[Path]:
    """Everything in a folder, what interrupted writers left included."""
    with contextlib.suppress(FileNotFoundError):
        yield from sorted(folder.iterdir())


def make_folder(folder: Path) -> None:
    """Make a folder for segments, with its parents; when this returns, their names are safe."""
    if not folder.parent.exists():
        make_folder(folder.parent)
    there = folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        _sync_directory(folder.parent)
    except OSError:
        if not there:  # Or whoever comes next would take it for safe.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


# -- reading ------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class SegmentFile:
    """An open file. Any thread may read it; see above for how long it stays mapped.

    Attributes:
        path: where it was found.
        database: uuid of the database it was made for.
        segment: its own uuid.
        size: in bytes.
        checksum: of its header; see `SegmentWriter.commit`.
        sections: by name, in the order in which they lie.
    """

    path: Path
    database: uuid.UUID
    segment: uuid.UUID
    size: int
    checksum: int
    sections: Mapping[str, Section]
    _mapped: mmap.mmap = attrs.field(repr=False)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        database: uuid.UUID,
        segment: uuid.UUID,
        checksum: int | None = None,
    ) -> SegmentFile:
        """Map a file and verify its header and table. The sections are verified by `verify`.

        Args:
            path: of the file.
            database: whose it must be.
            segment: which one it must be.
            checksum: what `SegmentWriter.commit` returned for it; None: not known.

        Raises:
            SegmentDamaged: it is not what it should be.
            OSError: the system could not open it, which says nothing about the file (too many
                open files, no permission).
        """
        mapped = _map(path)
        header, found = _read_header(mapped, path)
        magic, version, database_bytes, segment_bytes, size, at, table_size, count, sum_, _ = header
        assert magic == _MAGIC
        assert version == FORMAT_VERSION
        theirs = uuid.UUID(bytes=database_bytes), uuid.UUID(bytes=segment_bytes)
        if theirs != (database, segment):
            raise SegmentDamaged("foreign", path, f"it is of database {theirs[0]}, {theirs[1]}")
        if checksum is not None and found != checksum:
            raise SegmentDamaged("foreign", path, "it is another file of that name")
        if size != len(mapped) or at + table_size != size:
            raise SegmentDamaged("cut", path, f"it has {len(mapped):,} bytes, not {size:,}")
        table = mapped[at:size]
        if crc32c(table) != sum_:
            raise SegmentDamaged("checksum", path, "its table is damaged")
        sections = dict(_read_table(table, count, at, path))
        return cls(path, *theirs, size, found, MappingProxyType(sections), mapped)

    def __contains__(self, name: object) -> bool:
        return name in self.sections

    def view(self, name: str) -> memoryview:
        """The bytes of a section, where they lie.

        Raises:
            SegmentDamaged: there is no such section.
        """
        section = self._section(name)
        return memoryview(self._mapped)[section.offset : section.offset + section.size]

    def array(self, name: str, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """A section as an array that cannot be written to, where it lies.

        Raises:
            SegmentDamaged: there is no such section, or it has another size.
        """
        section = self._section(name)
        count = int(np.prod(shape, dtype=np.int64))
        if count * np.dtype(dtype).itemsize != section.size:
            what = f"{section.size:,} bytes are no {np.dtype(dtype).name}{shape}"
            raise SegmentDamaged("content", self.path, what, name)
        if not count:
            return np.empty(shape, dtype)
        return np.frombuffer(self._mapped, dtype, count, section.offset).reshape(shape)

    def _section(self, name: str) -> Section:
        try:
            return self.sections[name]
        except KeyError:
            raise SegmentDamaged("content", self.path, "it is missing", name) from None

    def verify(
        self, names: Iterable[str] | None = None, *, pause: Callable[[], None] | None = None
    ) -> None:
        """Read sections and compare their checksums, a MiB at a time.

        Args:
            names: which; None: all.
            pause: called after each MiB; what it raises ends the reading.

        Raises:
            SegmentDamaged: with the section that is not as it was written.
        """
        whole = memoryview(self._mapped)
        for name in self.sections if names is None else names:
            section = self._section(name)
            checksum = 0
            end = section.offset + section.extent
            for start in range(section.offset, end, _STEP_BYTES):
                checksum = crc32c(whole[start : min(start + _STEP_BYTES, end)], checksum)
                if pause is not None:
                    pause()
            if checksum != section.checksum:
                raise SegmentDamaged("checksum", self.path, "it is damaged", name)

    def warm(
        self, names: Iterable[str] | None = None, *, pause: Callable[[], None] | None = None
    ) -> int:
        """Have sections read from the medium before they are needed; how many bytes they have."""
        whole = memoryview(self._mapped)
        total = 0
        for name in self.sections if names is None else names:
            section = self._section(name)
            end = section.offset + section.extent
            total += section.extent
            if hasattr(mmap, "MADV_WILLNEED") and section.extent:
                start = section.offset // mmap.PAGESIZE * mmap.PAGESIZE
                with contextlib.suppress(OSError):
                    self._mapped.madvise(mmap.MADV_WILLNEED, start, end - start)
            for at in range(section.offset, end, _STEP_BYTES):
                # A checksum reads every byte, and lets the interpreter go while it does.
                crc32c(whole[at : min(at + _STEP_BYTES, end)])
                if pause is not None:
                    pause()
        return total


def _map(path: Path) -> mmap.mmap:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SegmentDamaged("missing", path, "there is no such file") from None
    try:
        size = os.fstat(fd).st_size
        if size < PAGE_BYTES:
            raise SegmentDamaged("cut", path, f"it has only {size:,} bytes")
        # The header once without the mapping, since there a fault of the medium is an error that
        # can be caught.
        os.pread(fd, PAGE_BYTES, 0)
        return mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno == errno.EIO:
            raise SegmentDamaged("unreadable", path, "it cannot be read") from error
        raise
    finally:
        os.close(fd)


def _read_header(mapped: mmap.mmap, path: Path) -> tuple[tuple[Any, ...], int]:
    header = mapped[:PAGE_BYTES]
    body = header[: -_CHECKSUM.size]
    (wanted,) = _CHECKSUM.unpack(header[-_CHECKSUM.size :])
    fields = _HEADER.unpack_from(body)
    if crc32c(body) != wanted:
        raise SegmentDamaged("checksum", path, "its header is damaged")
    if fields[0] != _MAGIC:
        raise SegmentDamaged("foreign", path, "it is no segment")
    if fields[1] != FORMAT_VERSION:
        what = f"its format is version {fields[1]}, this program writes {FORMAT_VERSION}"
        raise SegmentDamaged("version", path, what)
    return fields, wanted


def _read_table(table: bytes, count: int, start: int, path: Path) -> Iterator[tuple[str, Section]]:
    """The table's checksum fits, so what is wrong here was written wrong."""
    at, expected = 0, PAGE_BYTES
    try:
        for _ in range(count):
            offset, size, extent, checksum, name_size, _ = _ENTRY.unpack_from(table, at)
            at += _ENTRY.size
            name = table[at : at + name_size].decode()
            at += name_size + -(_ENTRY.size + name_size) % 8
            if offset != expected or not 0 <= size <= extent:
                raise ValueError(f"section {name!r} lies at {offset:,}")
            expected = offset + extent
            yield (
                name,
                Section(name=name, offset=offset, size=size, extent=extent, checksum=checksum),
            )
        if expected != start:
            raise ValueError(f"the last section ends at {expected:,}")
    except (struct.error, ValueError) as error:
        raise SegmentDamaged("content", path, f"its table makes no sense: {error}") from error
