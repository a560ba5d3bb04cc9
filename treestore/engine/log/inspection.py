"""Looking at a log from end to end before anything is changed: which row of the table is it?"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from treestore.engine.decision import Row
from treestore.engine.disk import Disk
from treestore.engine.log import format as fmt
from treestore.engine.log.names import SEGMENT_SUFFIX, number_in
from treestore.engine.log.position import LogIdentity, LogPosition, Tip
from treestore.engine.log.reader import Remains, find_remains, walk
from treestore.engine.log.segment import Segment, open_segment
from treestore.engine.log.verdict import TABLE
from treestore.errors import CorruptionError, InvalidArgument

PROGRESS_BYTES = 4 << 20
"""How often somebody hears of progress."""

Progress = Callable[[int, int], None]
"""Told how many bytes of how many are done."""


@attrs.frozen
class Place:
    """Where reading begins.

    Attributes:
        index: of the segment, in the list of segments.
        offset: in its file, in bytes.
        tip: the state of the chain there.
    """

    index: int
    offset: int
    tip: Tip


@attrs.define
class Tail:
    """What the last segment holds.

    Attributes:
        end, tip: where its last good group ends, and the state of the chain there.
        group_offset, before: where that group starts and the state of the chain before it;
            None where nothing stands behind the place that reading began at.
    """

    end: int
    tip: Tip
    group_offset: int | None = None
    before: Tip | None = None


@attrs.frozen
class Inspected:
    """A log that may be opened.

    Attributes:
        row: the row of the table.
        segments: the log, oldest first; open.
        strays: names of files older than a gap, which nothing needs.
        place: where what follows the checkpoint begins.
        tail: where it ends.
        remains: what stands behind that.
    """

    row: Row
    segments: list[Segment]
    strays: list[str]
    place: Place
    tail: Tail
    remains: Remains


class Inspection:
    """Finds the facts one after the other; ends as soon as the table refuses."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        identity: LogIdentity,
        start: LogPosition,
        reach_lsn: int,
        progress: Progress,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._identity = identity
        self._start = start
        self._reach_lsn = max(start.lsn, reach_lsn)
        self._progress = progress
        self._answers: dict[str, bool] = {}
        self._segments: list[Segment] = []

    def run(self) -> Inspected:
        """Look at everything.

        Raises:
            CorruptionError, InvalidArgument: a row of the table refuses; all files are closed.
        """
        try:
            strays = self._open_segments()
            place = locate(self._segments, self._start)
            tail, remains = self._verify(place)
            row = TABLE.decided(self._answers)
        except BaseException:
            for segment in self._segments:
                segment.file.close()
            raise
        return Inspected(row, self._segments, strays, place, tail, remains)

    def _learn(self, details: dict[str, object], words: dict[str, object], **answers: bool) -> None:
        """Take note of facts; raise if they are enough to refuse."""
        self._answers.update(answers)
        row = TABLE.decide(self._answers)
        if row is not None and row.error is not None:
            words = {"directory": self._directory, "start": self._start.lsn, **details, **words}
            raise row.refusal(details, **words)

    def _open_segments(self) -> list[str]:
        """Open the segments that form the log's dense end; the names of what is older."""
        directory, start, segments = self._directory, self._start, self._segments
        names = [n for n in self._disk.list(directory) if number_in(n, SEGMENT_SUFFIX) is not None]
        self._learn({"file": directory, "offset": 0}, {}, found=bool(names))
        while names:
            try:
                older = open_segment(self._disk, directory, names[-1])
            except (CorruptionError, InvalidArgument) as error:
                if segments and segments[0].header.follows.lsn <= start.lsn:
                    break
                damaged = isinstance(error, CorruptionError)
                words: dict[str, object] = {"problem": error.message}
                self._learn(error.details, words, readable=not damaged, known=damaged)
                raise
            if segments and not _precedes(older, segments[0]):
                older.file.close()
                break
            segments.insert(0, older)
            self._check_owner(older)
            names.pop()
        self._check_ends()
        return names

    def _check_owner(self, segment: Segment) -> None:
        found, wanted = segment.header.identity, self._identity
        self._learn(
            {"file": segment.path, "offset": 0},
            {
                "uuid": found.database_uuid.hex(),
                "timeline": found.timeline,
                "wanted": wanted.timeline,
            },
            readable=True,
            known=True,
            same_database=found.database_uuid == wanted.database_uuid,
            same_timeline=found.timeline == wanted.timeline,
        )

    def _check_ends(self) -> None:
        first, last, start = self._segments[0], self._segments[-1].header, self._start
        details: dict[str, object] = {"file": first.path, "offset": 0}
        lsn = first.header.follows.lsn
        self._learn(
            details,
            {"lsn": lsn, "sequence": first.header.sequence},
            reaches_back=lsn <= start.lsn,
        )
        self._learn(
            details,
            {"sequence": last.sequence, "wanted": start.sequence},
            reaches_segment=last.sequence >= start.sequence,
        )

    def _verify(self, place: Place) -> tuple[Tail, Remains]:
        """Check everything from ``place`` to the end of the log."""
        segments = self._segments
        offset, tip = place.offset, place.tip
        for index in range(place.index, len(segments) - 1):
            segment, follows = segments[index], segments[index + 1].header.follows
            tail = self._find_tail(segment, offset, tip, follows.lsn)
            if tail.tip != follows:
                self._learn(
                    {"file": segment.path, "offset": tail.end},
                    {
                        "lsn": tail.tip.lsn,
                        "next": segments[index + 1].path,
                        "follows": follows.lsn,
                    },
                    chained=False,
                )
            segment.end, segment.tip = tail.end, tail.tip
            offset, tip = fmt.BLOCK_BYTES, follows
        last = segments[-1]
        tail = self._find_tail(last, offset, tip, None)
        remains = find_remains(last.file, last.header, tail.end, tail.tip.group)
        self._learn(
            {"file": last.path, "offset": tail.end},
            {"lsn": tail.tip.lsn, "later": remains.later, "wanted": self._reach_lsn},
            chained=True,
            later_group=remains.later is not None,
            reaches_record=tail.tip.lsn >= self._reach_lsn,
            remains=not remains.nothing,
        )
        last.end, last.tip = tail.end, tail.tip
        return tail, remains

    def _find_tail(self, segment: Segment, offset: int, tip: Tip, lsn_max: int | None) -> Tail:
        """Follow the chain to its last whole group, or to the end of the group with ``lsn_max``."""
        tail = Tail(offset, tip)
        if tip.lsn == lsn_max:
            return tail
        sizes = [one.header.size_bytes for one in self._segments]
        before = sum(sizes[: self._segments.index(segment)])
        reported = offset
        for group in walk(segment.file, segment.header, offset, tip):
            tail = Tail(group.end, group.tip, tail.end, tail.tip)
            if group.tip.lsn == lsn_max:
                break
            if tail.end - reported >= PROGRESS_BYTES:
                reported = tail.end
                self._progress(before + tail.end, sum(sizes))
        return tail


def locate(segments: list[Segment], start: LogPosition) -> Place:
    """Where to begin reading to find everything after ``start``."""
    index = len(segments) - 1
    while segments[index].header.follows.lsn > start.lsn:
        index -= 1
    header = segments[index].header
    if header.sequence == start.sequence and header.epoch == start.epoch:
        return Place(index, start.offset, start.tip)
    return Place(index, fmt.BLOCK_BYTES, header.follows)


def _precedes(older: Segment, newer: Segment) -> bool:
    first, second = older.header, newer.header
    return (
        first.sequence + 1 == second.sequence
        and first.epoch < second.epoch
        and first.follows.lsn <= second.follows.lsn
    )
