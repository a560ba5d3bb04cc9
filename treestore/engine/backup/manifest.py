"""What a backup says of itself, and opening one with those that it builds on."""

from __future__ import annotations

import os.path
from datetime import UTC, datetime
from typing import Any

import attrs
from crc32c import crc32c

from treestore.engine.backup.files import json_checksum, read_json, write_json
from treestore.engine.backup.index import Index
from treestore.engine.backup.timelines import History
from treestore.engine.disk import Buffer, Disk, File
from treestore.engine.log import LogPosition
from treestore.engine.meta import FORMAT_VERSION as PAGE_FILE_VERSION
from treestore.errors import CorruptionError, InvalidArgument, NotFound

MANIFEST = "manifest.json"
INDEX = "index"
PAGES = "pages"
NAMES = frozenset({MANIFEST, INDEX, PAGES})

FORMAT = "treestore-backup"
FORMAT_VERSION = 1
CHUNK_SIZE_BYTES = 4 << 20
CHAIN_MAX = 10_000


@attrs.frozen
class Parent:
    """The backup that an incremental one builds on."""

    backup_id: str
    checksum: str
    path: str


@attrs.frozen
class FileEntry:
    """A file of a backup: the crc32c of each chunk of it."""

    name: str
    size_bytes: int
    chunk_size_bytes: int
    crc32c: list[int]


@attrs.frozen(kw_only=True)
class Manifest:
    """See ``docs/backup.md``; times are nanoseconds since 1970 here and ISO 8601 in the file."""

    backup_id: str
    parent: Parent | None
    history: History
    commit_number: int
    key_count: int
    root_page: int
    root_checksum: int
    page_size_bytes: int
    page_count: int
    log_position: LogPosition
    created_at_ns: int
    files: tuple[FileEntry, ...]
    checksum: str = ""
    """Of the file; set when it was read or written."""

    @property
    def timeline(self) -> int:
        """The timeline that the state is of."""
        return self.history.last.number

    def to_document(self) -> dict[str, Any]:
        """The JSON object, without its checksum."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "backup_id": self.backup_id,
            "parent": None if self.parent is None else attrs.asdict(self.parent),
            "database_uuid": self.history.database_uuid.hex(),
            "timeline": self.timeline,
            "history": self.history.to_list(),
            "commit_number": self.commit_number,
            "key_count": self.key_count,
            "root_page": self.root_page,
            "root_checksum": self.root_checksum,
            "page_size_bytes": self.page_size_bytes,
            "page_count": self.page_count,
            "page_file_version": PAGE_FILE_VERSION,
            "log_position": list(self.log_position.to_tuple()),
            "lsn": self.log_position.lsn,
            "time": iso_time(self.log_position.time_ns),
            "created_at": iso_time(self.created_at_ns),
            "created_at_ns": self.created_at_ns,
            "files": [attrs.asdict(entry) for entry in self.files],
        }

    def write(self, disk: Disk, directory: str) -> Manifest:
        """Write it, synced; with the checksum that it has now."""
        document = self.to_document()
        write_json(disk, f"{directory}/{MANIFEST}", document)
        return attrs.evolve(self, checksum=json_checksum(document))

    @classmethod
    def read(cls, disk: Disk, directory: str) -> Manifest:
        """The manifest of the backup in ``directory``.

        Raises:
            NotFound: there is none: it is no backup, or one that was never finished.
            CorruptionError: it is not as it was written.
            InvalidArgument: it is of another format version.
        """
        path = f"{directory}/{MANIFEST}"
        try:
            found = read_json(disk, path)
        except NotFound as error:
            raise NotFound(
                f"{directory} is no whole backup: it has no {MANIFEST}. A backup that was stopped "
                "half way cannot be used."
            ) from error
        if found.get("format") != FORMAT:
            raise CorruptionError(f"{path} is no manifest of a backup.", file=path, offset=0)
        versions = (found.get("format_version"), found.get("page_file_version"))
        if versions != (FORMAT_VERSION, PAGE_FILE_VERSION):
            raise InvalidArgument(
                f"{directory} is a backup of format version {versions[0]} (page file version "
                f"{versions[1]}); this TreeStore reads {FORMAT_VERSION} ({PAGE_FILE_VERSION})."
            )
        try:
            return cls._from_document(found, path)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(f"{path} is incomplete: {error}.", file=path, offset=0) from error

    @classmethod
    def _from_document(cls, found: dict[str, Any], path: str) -> Manifest:
        uuid = bytes.fromhex(found["database_uuid"])
        return cls(
            backup_id=found["backup_id"],
            parent=None if found["parent"] is None else Parent(**found["parent"]),
            history=History.from_list(uuid, found["history"], path),
            commit_number=found["commit_number"],
            key_count=found["key_count"],
            root_page=found["root_page"],
            root_checksum=found["root_checksum"],
            page_size_bytes=found["page_size_bytes"],
            page_count=found["page_count"],
            log_position=LogPosition.from_tuple(found["log_position"]),
            created_at_ns=found["created_at_ns"],
            files=tuple(FileEntry(**entry) for entry in found["files"]),
            checksum=found["checksum"],
        )

    def file(self, name: str) -> FileEntry:
        """The entry of a file."""
        return next(entry for entry in self.files if entry.name == name)


def iso_time(time_ns: int) -> str:
    """Nanoseconds since 1970 as ISO 8601, UTC, to the microsecond; rounded down."""
    whole, rest = divmod(time_ns, 1_000_000_000)
    return datetime.fromtimestamp(whole, UTC).replace(microsecond=rest // 1000).isoformat()


class ChunkedWriter:
    """Writes a file from its start to its end, and notes the crc32c of each chunk."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.file = disk.open(path, create=True)
        self.size = 0
        self._name = os.path.basename(path)
        self._crcs: list[int] = []
        self._crc = 0

    def write(self, data: Buffer) -> None:
        """Append bytes."""
        if not len(data):
            return
        self.file.write_at(self.size, [data])
        view = memoryview(data)
        while len(view):
            room = CHUNK_SIZE_BYTES - self.size % CHUNK_SIZE_BYTES
            piece = view[:room]
            self._crc = crc32c(piece, self._crc)
            self.size += len(piece)
            view = view[room:]
            if self.size % CHUNK_SIZE_BYTES == 0:
                self._crcs.append(self._crc)
                self._crc = 0

    def finish(self) -> FileEntry:
        """Sync and close; what the manifest says of it."""
        if self.size % CHUNK_SIZE_BYTES:
            self._crcs.append(self._crc)
        self.file.sync()
        self.file.close()
        return FileEntry(self._name, self.size, CHUNK_SIZE_BYTES, self._crcs)


@attrs.frozen(eq=False)
class Backup:
    """An opened backup: its manifest, and where it lies."""

    disk: Disk
    path: str
    manifest: Manifest

    def open(self, name: str) -> File:
        """One of its files, as long as the manifest says.

        Raises:
            CorruptionError: it is missing or has another size.
        """
        path, size = f"{self.path}/{name}", self.manifest.file(name).size_bytes
        try:
            file = self.disk.open(path, read_only=True)
        except FileNotFoundError as error:
            raise CorruptionError(f"{path} is missing.", file=path, offset=0) from error
        if file.size() != size:
            found = file.size()
            file.close()
            raise CorruptionError(
                f"{path} has {found} bytes and should have {size}.", file=path, offset=found
            )
        return file

    def read(self, name: str) -> bytes:
        """A whole file, checked."""
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> list[bytes]:
        """A whole file in its chunks, checked."""
        file = self.open(name)
        try:
            count = len(self.manifest.file(name).crc32c)
            return [self._chunk(file, name, number) for number in range(count)]
        finally:
            file.close()

    def check(self, name: str) -> None:
        """Compare a file with its checksums.

        Raises:
            CorruptionError: it is not as it was written.
        """
        file = self.open(name)
        try:
            for number in range(len(self.manifest.file(name).crc32c)):
                self._chunk(file, name, number)
        finally:
            file.close()

    def _chunk(self, file: File, name: str, number: int) -> bytes:
        entry = self.manifest.file(name)
        offset = number * entry.chunk_size_bytes
        data = file.read_at(offset, entry.chunk_size_bytes)
        if crc32c(data) != entry.crc32c[number]:
            raise CorruptionError(
                f"{file.path} is damaged between bytes {offset} and {offset + len(data)}.",
                file=file.path,
                offset=offset,
            )
        return data

    def index(self, sources: int) -> Index:
        """Its index; ``sources`` is how many backups the chain has from it on."""
        manifest = self.manifest
        try:
            return Index.decode(
                self.read(INDEX), sources, manifest.page_count, manifest.page_size_bytes
            )
        except ValueError as error:
            path = f"{self.path}/{INDEX}"
            raise CorruptionError(f"{path} has {error}.", file=path, offset=0) from error


def open_chain(disk: Disk, path: str) -> list[Backup]:
    """The backup at ``path`` and those that it builds on, the newest first.

    Raises:
        NotFound: there is no backup.
        CorruptionError: one is damaged, missing, or not the one that was built on.
    """
    chain = [Backup(disk, path, Manifest.read(disk, path))]
    while (parent := chain[-1].manifest.parent) is not None:
        if len(chain) >= CHAIN_MAX:
            raise CorruptionError(f"{path} builds on more than {CHAIN_MAX} backups.", file=path)
        chain.append(_find(chain[-1], parent))
    return chain


def _find(child: Backup, parent: Parent) -> Backup:
    """The parent of a backup: where it was, or beside the child."""
    folder = os.path.dirname(child.path) or "."
    beside = os.path.join(folder, os.path.basename(parent.path))
    places = [parent.path, beside]
    places += [os.path.join(folder, name) for name in child.disk.list(folder)]
    damage: CorruptionError | None = None
    for place in places:
        if not child.disk.exists(f"{place}/{MANIFEST}"):
            continue
        try:
            manifest = Manifest.read(child.disk, place)
        except (CorruptionError, InvalidArgument) as error:
            if isinstance(error, CorruptionError) and place in places[:2]:
                damage = error
            continue
        if manifest.backup_id == parent.backup_id:
            _ensure_parent(child, manifest, parent, place)
            return Backup(child.disk, place, manifest)
    if damage is not None:
        raise damage
    raise CorruptionError(
        f"{child.path} builds on backup {parent.backup_id} (made at {parent.path}), which is not "
        "there. Put it back, there or beside it.",
        file=child.path,
    )


def _ensure_parent(child: Backup, found: Manifest, parent: Parent, place: str) -> None:
    own = child.manifest
    fits = (
        found.checksum == parent.checksum
        and found.history == own.history
        and found.commit_number <= own.commit_number
        and found.page_size_bytes == own.page_size_bytes
    )
    if not fits:
        raise CorruptionError(
            f"{place} has the id of the backup that {child.path} builds on, but is not that "
            "backup: its manifest is another one.",
            file=place,
        )
