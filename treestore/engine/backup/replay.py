"""Reading the archive: the records of a way through its timelines, each of them checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import attrs

from treestore.engine.backup.piece import (
    Piece,
    PieceName,
    SegmentView,
    check_piece,
    read_piece,
    timeline_in,
    timeline_name,
)
from treestore.engine.backup.timelines import History, Leg, read_history
from treestore.engine.disk import Disk, File
from treestore.engine.log import LogPosition
from treestore.engine.log import format as fmt
from treestore.engine.log.position import Tip
from treestore.engine.log.reader import walk
from treestore.engine.log.record import LogRecord
from treestore.errors import CorruptionError, NotFound


class Gap(Exception):
    """The archive does not go on; ``str`` says why, as the rest of a sentence."""


@attrs.frozen
class Entry:
    """A transaction of the archive.

    Attributes:
        transaction_id, payloads: what to apply.
        tip: the state of the chain after it.
        timeline: where it lies.
    """

    transaction_id: int
    payloads: list[bytes]
    tip: Tip
    timeline: int


class ArchiveReader:
    """The archive of one database. Never writes."""

    def __init__(self, disk: Disk, root: str, database_uuid: bytes) -> None:
        """List what is there.

        Raises:
            NotFound: nothing of this database is.
        """
        self._disk = disk
        self._uuid = database_uuid
        self.directory = f"{root}/{database_uuid.hex()}"
        if not disk.exists(self.directory):
            raise NotFound(f"{root} has no archive of database {database_uuid.hex()}.")
        names = disk.list(self.directory)
        numbers = [timeline_in(name) for name in names]
        self.timelines = sorted(number for number in numbers if number is not None)
        found = [name for name in map(PieceName.parse, names) if name is not None]
        self._names = sorted(found)
        self.reached: Tip | None = None
        """Behind the last record that `transactions` came across."""

    def history(self, timeline: int) -> History:
        """The history of one of its timelines.

        Raises:
            CorruptionError: its file is damaged or another database's.
        """
        path = f"{self.directory}/{timeline_name(timeline)}"
        history = read_history(self._disk, path)
        if (history.database_uuid, history.last.number) != (self._uuid, timeline):
            raise CorruptionError(f"{path} belongs elsewhere.", file=path, offset=0)
        return history

    def transactions(self, legs: list[Leg], start: LogPosition) -> Iterator[Entry]:
        """The transactions after ``start``, along ``legs``, to the end of the archive.

        Raises:
            Gap: a part is missing, damaged, or of another history.
        """
        payloads: list[bytes] = []
        for record, tip, timeline in self._along(legs, start):
            self.reached = tip
            if record.kind == fmt.KIND_SYNCED:
                continue
            payloads.append(record.payload)
            if record.kind == fmt.KIND_COMMIT:
                yield Entry(record.transaction_id, payloads, tip, timeline)
                payloads = []

    def _along(self, legs: list[Leg], start: LogPosition) -> Iterator[tuple[LogRecord, Tip, int]]:
        tip = start.tip
        for leg in legs:
            if leg.until_lsn is not None and leg.until_lsn <= tip.lsn:
                continue
            for record, here in self._leg(leg, tip):
                yield record, here, leg.timeline
                tip = here
            if leg.until_lsn is not None and tip.lsn < leg.until_lsn:
                raise Gap(
                    f"timeline {leg.timeline} was left at record {leg.until_lsn} and the archive "
                    f"has it up to record {tip.lsn}"
                )

    def _leg(self, leg: Leg, tip: Tip) -> Iterator[tuple[LogRecord, Tip]]:
        """The records of one timeline behind ``tip``."""
        segments = self._segments(leg.timeline)
        index = _last_before(segments, tip.lsn)
        if not segments:
            return
        if index is None:
            raise Gap(
                f"the archive of timeline {leg.timeline} begins behind record "
                f"{segments[0][0].before.lsn}"
            )
        until = leg.until_lsn
        expected: Tip | None = None
        for place in range(index, len(segments)):
            pieces = segments[place]
            following = segments[place + 1][0] if place + 1 < len(segments) else None
            if expected is not None and pieces[0].before != expected:
                raise Gap(f"{pieces[0].path} does not follow the segment before it")
            stop = following.before.lsn if following is not None else None
            for record, here in self._segment(pieces, tip, stop):
                expected = here
                if here.lsn > tip.lsn:
                    yield record, here
                    tip = here
                if until is not None and here.lsn >= until:
                    return
            expected = expected or pieces[0].before
            if following is None:
                return
            # The tip holds the chain's checksum: nothing is between the two. The numbers of the
            # segments prove nothing; one that a crash left without records is not archived.
            if expected != following.before:
                raise Gap(
                    f"the archive has segment {pieces[0].sequence} of timeline {leg.timeline} up "
                    f"to record {expected.lsn}; the next that it has is segment "
                    f"{following.sequence}, behind record {following.before.lsn}"
                )

    def _segment(
        self, pieces: list[Piece], tip: Tip, stop: int | None
    ) -> Iterator[tuple[LogRecord, Tip]]:
        """The records of one segment up to ``stop``; ``tip`` must lie on them, or before.

        The chain of a point within a group is that of the group: what leaves it there goes on
        from its header.
        """
        if stop is not None and stop <= pieces[0].before.lsn:
            return
        try:
            header = check_piece(self._disk, pieces[0])
            for piece in pieces[1:]:
                if check_piece(self._disk, piece) != header:
                    raise Gap(f"{piece.path} is of another segment than the one before it")
        except CorruptionError as error:
            raise Gap(error.message) from error
        _ensure_on(pieces[0].before, tip, pieces[0])
        view = SegmentView(
            [(piece, self._disk.open(piece.path, read_only=True)) for piece in pieces]
        )
        try:
            last = pieces[0].before
            for group in walk(cast("File", view), header, fmt.BLOCK_BYTES, last):
                for record in group.log_records():
                    here = attrs.evolve(group.tip, lsn=record.lsn)
                    _ensure_on(here, tip, pieces[0])
                    yield record, here
                last = group.tip
                if last.lsn == stop:
                    return
            if last != pieces[-1].after:
                raise Gap(f"{pieces[-1].path} is damaged behind record {last.lsn}")
        finally:
            view.close()

    def _segments(self, timeline: int) -> list[list[Piece]]:
        """The pieces of each segment of a timeline: of its last activation, without a break."""
        latest: dict[int, int] = {}
        for name in self._names:
            if name.timeline == timeline:
                latest[name.sequence] = name.epoch  # in order, so the highest stays
        segments: list[list[Piece]] = []
        for name in self._names:
            if name.timeline != timeline or latest[name.sequence] != name.epoch:
                continue
            fresh = not segments or segments[-1][0].sequence != name.sequence
            expected = fmt.BLOCK_BYTES if fresh else segments[-1][-1].end
            try:
                piece = read_piece(self._disk, f"{self.directory}/{name}")
            except CorruptionError as error:
                raise Gap(error.message) from error
            if piece.identity.database_uuid != self._uuid:
                raise Gap(f"{piece.path} is of another database")
            if piece.start != expected:
                raise Gap(f"{piece.path} begins at byte {piece.start}, not at {expected}")
            if fresh:
                segments.append([piece])
            else:
                segments[-1].append(piece)
        return segments


def _last_before(segments: list[list[Piece]], lsn: int) -> int | None:
    """The segment that holds what follows a record."""
    found = None
    for index, pieces in enumerate(segments):
        if pieces[0].before.lsn <= lsn:
            found = index
    return found


def _ensure_on(here: Tip, tip: Tip, piece: Piece) -> None:
    """The record that reading goes on from is the one that the archive has under its number."""
    if here.lsn == tip.lsn and (here.group, here.time_ns) != (tip.group, tip.time_ns):
        raise Gap(f"{piece.path} has another record {here.lsn} than the backup")
