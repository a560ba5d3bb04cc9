"""A map of a log that may be damaged: every whole group, and what lies between them.

A *stretch* is a sequence of whole groups that follow each other within one segment. Stretches that
continue one another form a *run*. Where a run ends and another one begins, something is missing,
and the LSNs say how much. What belongs together is decided by the chain alone, so a segment whose
header is damaged still gives its groups.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from crc32c import crc32c

from treestore.engine.disk import Disk
from treestore.engine.log import format as fmt
from treestore.engine.log.header import SegmentHeader
from treestore.engine.log.names import SEGMENT_SUFFIX, number_in
from treestore.engine.log.position import LogIdentity, Tip
from treestore.engine.log.reader import CHUNK_BYTES, find_remains, walk
from treestore.engine.log.record import LogRecord
from treestore.engine.salvage.source import TolerantFile
from treestore.errors import CorruptionError, InvalidArgument

_SALT_OFFSET = fmt.SEGMENT_HEADER.size - 32
"""Of the salt in a segment's header: the tip that follows it has 28 bytes."""


@attrs.frozen
class Stretch:
    """Whole groups behind each other in one segment.

    Attributes:
        segment: where.
        offset, end: where the first one begins and the last one ends, in bytes.
        before, tip: the state of the chain before and after them.
    """

    segment: SegmentView
    offset: int
    end: int
    before: Tip
    tip: Tip

    @property
    def lsns(self) -> tuple[int, int]:
        """The first and the last LSN in it."""
        return self.before.lsn + 1, self.tip.lsn

    def records(self) -> Iterator[LogRecord]:
        """All of its records.

        Raises:
            CorruptionError: the bytes changed since they were mapped.
        """
        segment = self.segment
        assert segment.header is not None
        reached = self.before.lsn
        if reached < self.tip.lsn:
            for group in walk(segment.file, segment.header, self.offset, self.before):
                yield from group.log_records()
                reached = group.tip.lsn
                if reached == self.tip.lsn:
                    return
        if reached != self.tip.lsn:
            raise CorruptionError(
                f"{segment.path} changes while it is read; the disk under it is not to be trusted.",
                file=segment.path,
                offset=self.offset,
            )


@attrs.frozen
class Gap:
    """Something is missing, or cannot be read.

    Attributes:
        path, offset: where the damage begins.
        after: the last LSN before it; None where that is unknown.
        until: the first LSN behind it; None where nothing follows.
        torn: whether it may as well be what a crash leaves behind: a group that was never
            acknowledged.
        why: what is wrong, for people.
    """

    path: str
    offset: int
    after: int | None
    until: int | None
    torn: bool
    why: str


@attrs.define(eq=False)
class SegmentView:
    """A segment file, as it is.

    Attributes:
        path, sequence: its name says.
        file: open for reading.
        header: what it says, or what can be told of it where it is damaged; None where nothing.
        problem: what is wrong with the header or the size; None where nothing is.
        follows: the tip that it continues; None where the header does not say.
        stretches: the groups in it.
        gap: what is wrong at its end.
    """

    path: str
    sequence: int
    file: TolerantFile
    header: SegmentHeader | None = None
    problem: str | None = None
    follows: Tip | None = None
    foreign: bool = False
    stretches: list[Stretch] = attrs.field(factory=list)
    gaps: list[Gap] = attrs.field(factory=list)


@attrs.define
class LogMap:
    """Everything in the log's directory.

    Attributes:
        segments: in order.
        runs: stretches that continue one another, in order.
        gaps: between them: ``gaps[i]`` comes before ``runs[i]``, the last one after all of them.
    """

    segments: list[SegmentView]
    runs: list[list[Stretch]]
    gaps: list[list[Gap]]

    def close(self) -> None:
        """Close the files."""
        for segment in self.segments:
            segment.file.close()

    def run_of(self, lsn: int) -> int | None:
        """Index of the run that what follows ``lsn`` is in; None where it is damaged."""
        for index, run in enumerate(self.runs):
            if run[0].before.lsn <= lsn <= run[-1].tip.lsn:
                return index
        return None


def map_log(disk: Disk, directory: str, identity: LogIdentity | None) -> LogMap:
    """Map a log; the caller closes it.

    Args:
        identity: segments of other databases and timelines are left out; None: of any.
    """
    names = [n for n in disk.list(directory) if number_in(n, SEGMENT_SUFFIX) is not None]
    segments = [_view(disk, f"{directory}/{name}", identity) for name in names]
    segments.sort(key=lambda segment: segment.sequence)
    ours = [segment for segment in segments if not segment.foreign]
    for index, segment in enumerate(ours):
        following = ours[index + 1] if index + 1 < len(ours) else None
        if segment.header is not None:
            _read(segment, segment.header, _limit(segment, following), following is None)
    return LogMap(segments, *_runs(ours))


def _limit(segment: SegmentView, following: SegmentView | None) -> int | None:
    """The LSN behind which a segment's content does not count: its successor has it again."""
    if following is None or following.sequence != segment.sequence + 1:
        return None
    return None if following.follows is None else following.follows.lsn


# -- segments -------------------------------------------------------------------------------------


def _view(disk: Disk, path: str, identity: LogIdentity | None) -> SegmentView:
    file = TolerantFile(disk.open(path, read_only=True))
    sequence = number_in(path.rpartition("/")[2], SEGMENT_SUFFIX)
    assert sequence is not None
    view = SegmentView(path, sequence, file)
    block = file.read_at(0, fmt.BLOCK_BYTES)
    try:
        view.header = header = SegmentHeader.decode(block, path)
    except InvalidArgument as error:
        view.problem = error.message
        return view
    except CorruptionError as error:
        view.problem = error.message
        view.header = _guess_header(file, block, sequence, identity)
        if view.header is not None:
            first = _next_group(file, view.header, fmt.BLOCK_BYTES)
            if first is not None and first[0] == fmt.BLOCK_BYTES:
                view.follows = first[1]
        return view
    if identity is not None and header.identity != identity:
        view.foreign = True
        view.problem = f"{path} belongs to another database or timeline."
        return view
    view.follows = header.follows
    if header.sequence != sequence:
        view.problem = f"{path} says that it is segment {header.sequence}: it was renamed."
    size = file.size()
    if size < header.size_bytes:
        view.problem = f"{path} was cut: it has {size} bytes and should have {header.size_bytes}."
        view.header = attrs.evolve(header, size_bytes=size)
    return view


def _guess_header(
    file: TolerantFile, block: bytes, sequence: int, identity: LogIdentity | None
) -> SegmentHeader | None:
    """Seed and salt, which is all that reading takes, from a header that is damaged.

    The seed is the header's checksum, so it is there twice: as it was written, and as it can be
    calculated. The salt is in the header and in every group. Whatever fits a group is right.
    """
    if len(block) < fmt.BLOCK_BYTES:
        return None
    stored: int = fmt.CRC.unpack_from(block, fmt.SEGMENT_HEADER_CRC_OFFSET)[0]
    seeds = (stored, crc32c(block[: fmt.SEGMENT_HEADER_CRC_OFFSET]))
    salts = [fmt.CRC.unpack_from(block, _SALT_OFFSET)[0]]
    for offset in range(fmt.BLOCK_BYTES, min(file.size(), CHUNK_BYTES), fmt.BLOCK_BYTES):
        head = file.read_at(offset, fmt.GROUP_HEADER_BYTES)
        if len(head) == fmt.GROUP_HEADER_BYTES:
            salts.append(fmt.CRC.unpack_from(head, fmt.GROUP_SALT_OFFSET)[0])
    for salt in dict.fromkeys(salts):
        for seed in seeds if salt else ():
            header = SegmentHeader(
                identity or LogIdentity(bytes(16)), sequence, 0, file.size(), salt, Tip(), seed
            )
            if _next_group(file, header, fmt.BLOCK_BYTES) is not None:
                return header
    return None


def _read(view: SegmentView, header: SegmentHeader, limit: int | None, last: bool) -> None:
    """Find the stretches of a segment, and what lies between them."""
    offset, tip = fmt.BLOCK_BYTES, view.follows
    if tip is None:
        # The header is damaged, and so is the first group: the next one says what it follows.
        found = _next_group(view.file, header, offset)
        assert found is not None
        why = f"{view.problem} Its first groups are damaged as well."
        view.gaps.append(Gap(view.path, offset, None, found[1].lsn + 1, False, why))
        offset, tip = found
    while True:
        stretch = _stretch(view, header, offset, tip, limit)
        view.stretches.append(stretch)
        offset, tip = stretch.end, stretch.tip
        if limit is not None and tip.lsn >= limit:
            return
        found = _next_group(view.file, header, offset)
        if found is None or (limit is not None and found[1].lsn >= limit):
            break
        why = f"{view.path} is damaged from byte {offset} to byte {found[0]}."
        view.gaps.append(Gap(view.path, offset, tip.lsn, found[1].lsn + 1, False, why))
        offset, tip = found
    if last:
        _end(view, header, offset, tip)


def _end(view: SegmentView, header: SegmentHeader, offset: int, tip: Tip) -> None:
    """What stands behind the last whole group of the log."""
    if offset >= header.size_bytes:
        return
    remains = find_remains(view.file, header, offset, tip.group)
    if remains.nothing:
        return
    if remains.later is not None:
        why = (
            f"{view.path} is damaged behind byte {offset}; parts of a later group at byte "
            f"{remains.later} prove that a group that was acknowledged stood there."
        )
    else:
        why = (
            f"{view.path} ends with a torn group at byte {offset}: most likely one that was never "
            "acknowledged, cut off by a crash; it may also be the last group, damaged."
        )
    view.gaps.append(Gap(view.path, offset, tip.lsn, None, remains.later is None, why))


def _stretch(
    view: SegmentView, header: SegmentHeader, offset: int, tip: Tip, limit: int | None
) -> Stretch:
    """As many whole groups as follow ``tip`` at ``offset``; perhaps none."""
    before, start, end = tip, offset, offset
    if limit is None or tip.lsn < limit:
        for group in walk(view.file, header, offset, tip):
            tip, end = group.tip, group.end
            if limit is not None and tip.lsn >= limit:
                break
    return Stretch(view, start, end, before, tip)


def _next_group(file: TolerantFile, header: SegmentHeader, offset: int) -> tuple[int, Tip] | None:
    """The first whole group at or behind ``offset``: where, and the tip that it follows."""
    salt = fmt.CRC.pack(header.salt)
    chunk_start, chunk = offset, b""
    while offset + fmt.GROUP_HEADER_BYTES <= header.size_bytes:
        at = offset - chunk_start
        if at + fmt.GROUP_HEADER_BYTES > len(chunk):
            chunk_start, at = offset, 0
            chunk = file.read_at(offset, min(CHUNK_BYTES, header.size_bytes - offset))
            if len(chunk) < fmt.GROUP_HEADER_BYTES:
                return None
        place = at + fmt.GROUP_SALT_OFFSET
        if chunk[place : place + len(salt)] == salt:
            tip = _tip_before(chunk[at : at + fmt.GROUP_HEADER_BYTES])
            if tip is not None and _has_group(file, header, offset, tip):
                return offset, tip
        offset += fmt.BLOCK_BYTES
    return None


def _tip_before(head: bytes) -> Tip | None:
    """The tip that a group follows, as its header says."""
    _, group, lsn, time_ns, chain, *_ = fmt.GROUP_BODY.unpack_from(head, fmt.CRC.size)
    return Tip(lsn - 1, group - 1, chain, time_ns) if lsn > 0 and group > 0 else None


def _has_group(file: TolerantFile, header: SegmentHeader, offset: int, tip: Tip) -> bool:
    return any(True for _ in walk(file, header, offset, tip))


# -- runs -----------------------------------------------------------------------------------------


def _runs(segments: list[SegmentView]) -> tuple[list[list[Stretch]], list[list[Gap]]]:
    runs: list[list[Stretch]] = []
    gaps: list[list[Gap]] = [[]]
    before: SegmentView | None = None
    for segment in segments:
        if before is not None and segment.sequence != before.sequence + 1:
            why = f"The segments between {before.path} and {segment.path} are missing."
            gaps[-1].append(Gap(segment.path, 0, None, None, False, why))
        before = segment
        if segment.header is None:
            why = segment.problem or f"{segment.path} cannot be read."
            gaps[-1].append(Gap(segment.path, 0, None, None, False, why))
            continue
        inner = list(segment.gaps)
        for stretch in segment.stretches:
            while inner and inner[0].offset < stretch.offset:
                gaps[-1].append(inner.pop(0))
            if runs and not gaps[-1] and _continues(runs[-1][-1].tip, stretch.before):
                runs[-1].append(stretch)
                continue
            if runs and not gaps[-1]:
                gaps[-1].append(_missing(runs[-1][-1], stretch))
            runs.append([stretch])
            gaps.append([])
        gaps[-1] += inner
    return _known_ends(runs, gaps)


def _continues(tip: Tip, before: Tip) -> bool:
    return (tip.lsn, tip.group, tip.chain) == (before.lsn, before.group, before.chain)


def _missing(last: Stretch, stretch: Stretch) -> Gap:
    path = last.segment.path
    why = (
        f"{path} is damaged behind record {last.tip.lsn}; {stretch.segment.path} goes on with "
        f"record {stretch.before.lsn + 1}, so what stood there was acknowledged."
    )
    return Gap(path, last.end, last.tip.lsn, stretch.before.lsn + 1, False, why)


def _known_ends(
    runs: list[list[Stretch]], gaps: list[list[Gap]]
) -> tuple[list[list[Stretch]], list[list[Gap]]]:
    """Fill in which LSNs are around each gap, from the runs around it."""
    for index, group in enumerate(gaps):
        after = runs[index - 1][-1].tip.lsn if index else None
        until = runs[index][0].before.lsn + 1 if index < len(runs) else None
        gaps[index] = [attrs.evolve(gap, after=after, until=until) for gap in group]
    return runs, gaps
