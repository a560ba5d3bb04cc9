"""Writing the archive: the log's stretches, one piece after the other."""

from __future__ import annotations

from collections.abc import Callable

from treestore.engine.backup.files import disk_errors
from treestore.engine.backup.piece import (
    NEW_SUFFIX,
    Piece,
    PieceName,
    read_piece,
    timeline_name,
    write_piece,
)
from treestore.engine.backup.timelines import History, history_of, read_history, write_history
from treestore.engine.disk import Disk
from treestore.engine.log import Log, LogIdentity, LogPosition
from treestore.engine.log import format as fmt
from treestore.errors import InvalidArgument


class Archive:
    """The archive of one store. One thread at a time; nothing of it is open between calls.

    Attributes:
        directory: where its files are: the archive directory's part for this database.
        position: up to where the log is archived; None before `open`.
        pieces, size_bytes: written since `open`.
        gap: what is missing from the archive, for people; None where nothing is known to be.
    """

    def __init__(self, disk: Disk, root: str, data: str, identity: LogIdentity) -> None:
        self._disk = disk
        self._root = root
        self._data = data
        self._identity = identity
        self.directory = f"{root}/{identity.database_uuid.hex()}"
        self.position: LogPosition | None = None
        self.pieces = self.size_bytes = 0
        self.gap: str | None = None

    def open(self, log: Log) -> None:
        """Find out how far it is, and tell the log.

        Raises:
            InvalidArgument: the archive directory is missing, or the timeline's number is taken
                by another history.
            CorruptionError: what is there cannot be trusted.
            ResourceExhausted, PermissionDenied, Unavailable: as the operating system says.
        """
        disk, directory = self._disk, self.directory
        with disk_errors(directory):
            if not disk.exists(self._root):
                raise InvalidArgument(f"There is no archive directory {self._root}; create it.")
            disk.make_directory(directory)
            disk.sync_directory(self._root)
            names = disk.list(directory)
            # Names that the last process did not sync would not count as archived after a crash.
            disk.sync_directory(directory)
            for name in names:
                if name.endswith(NEW_SUFFIX):
                    disk.unlink(f"{directory}/{name}")
            self._claim_timeline()
            self.position = self._position(log, sorted(names))
        log.note_archived(self.position)

    def _claim_timeline(self) -> None:
        disk = self._disk
        own = history_of(disk, self._data, self._identity)
        path = f"{self.directory}/{timeline_name(self._identity.timeline)}"
        if disk.exists(path):
            _ensure_same(read_history(disk, path), own, path)
            return
        temporary = path + NEW_SUFFIX
        if disk.exists(temporary):
            disk.unlink(temporary)
        write_history(disk, temporary, own)
        disk.rename(temporary, path)
        disk.sync_directory(self.directory)

    def _position(self, log: Log, names: list[str]) -> LogPosition:
        """The end of what is archived without a gap, seen from the log's oldest segment."""
        found = [name for name in map(PieceName.parse, names) if name is not None]
        own = sorted(name for name in found if name.timeline == self._identity.timeline)
        stretches = log.stretches(LogPosition(0))
        if not stretches:
            return log.position
        first = stretches[0]
        position = LogPosition(first.before.lsn)
        self._note_gap(own, first.before.lsn)
        for stretch in stretches:
            header = stretch.header
            end = fmt.BLOCK_BYTES
            for name in own:
                if (name.sequence, name.epoch, name.start) == (header.sequence, header.epoch, end):
                    piece = self._read(name)
                    end, position = piece.end, piece.position
            if position.lsn < stretch.after.lsn:
                break
        return position

    def _note_gap(self, own: list[PieceName], lsn: int) -> None:
        """See whether the log still has what follows the last piece."""
        self.gap = None
        if own and self._read(own[-1]).after.lsn < lsn:
            self.gap = (
                f"The archive ends before record {lsn}, with which the log begins now: the store "
                "was written to while nothing was archived. Make a new full backup."
            )

    def _read(self, name: PieceName) -> Piece:
        return read_piece(self._disk, f"{self.directory}/{name}")

    def advance(self, log: Log, *, active: bool, pause: Callable[[], None] = lambda: None) -> bool:
        """Archive what is closed, and with ``active`` also what is not; whether there was any.

        The log hears of each piece once it is durable.

        Raises:
            Everything that `open` raises.
        """
        if self.position is None:
            self.open(log)
        assert self.position is not None
        wrote = False
        with disk_errors(self.directory):
            for stretch in log.stretches(self.position):
                if not stretch.closed and not active:
                    break
                piece = write_piece(self._disk, self.directory, stretch)
                self.pieces += 1
                self.size_bytes += piece.end - piece.start
                self.position = piece.position
                log.note_archived(self.position)
                wrote = True
                pause()
        return wrote


def _ensure_same(found: History, own: History, path: str) -> None:
    if found != own:
        raise InvalidArgument(
            f"{path} is of another history than this store: another restore took the same "
            "timeline. Archive to another directory."
        )
