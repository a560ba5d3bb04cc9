"""The write-ahead log: `Log.append` returns once a group of transactions is on the medium.

Threads: `append`, `mark_synced` and `close` belong to one thread at a time. `prepare_next`,
`trim`, `read`, `room_bytes` and `statistics` may be called from any other thread meanwhile.

Failure: the first failed write or sync latches the log; every later `append` raises `LogFailed`
and nothing is ever tried again. What can be refused before a byte of the group is written (the
limit is reached, the disk is full) is refused with `ResourceExhausted`, and changes nothing.
"""

from __future__ import annotations

import contextlib
import os.path
import threading
from collections.abc import Callable, Iterator, Sequence
from random import Random

from treestore.engine.decision import Outcome
from treestore.engine.disk import Disk
from treestore.engine.log import format as fmt
from treestore.engine.log import recovery
from treestore.engine.log.failure import LogFailed
from treestore.engine.log.follower import LogFollower
from treestore.engine.log.group import LogGroup
from treestore.engine.log.header import SegmentHeader
from treestore.engine.log.inspection import Inspection, Progress, locate
from treestore.engine.log.names import SEGMENT_SUFFIX, number_in
from treestore.engine.log.options import RECORD_BYTES_MIN, LogOptions, LogStatistics
from treestore.engine.log.pool import RESERVES, Spare, SparePool, is_no_space, no_space
from treestore.engine.log.position import LogIdentity, LogPosition, Tip
from treestore.engine.log.record import (
    LogRecord,
    Transaction,
    encode_group,
    encode_marker,
    group_bytes,
)
from treestore.engine.log.recovery import Clean, Recovered, TornTail, new_salt
from treestore.engine.log.retention import take_expendable
from treestore.engine.log.segment import Segment, begin, discard, publish, sync
from treestore.engine.log.stretch import Stretch, groups_of, live_size_bytes, stretches
from treestore.engine.log.verify import verify_closed
from treestore.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from treestore.histogram import Histogram

_MARKER_BYTES = fmt.padded(fmt.GROUP_HEADER_BYTES + fmt.ENTRY_BYTES + fmt.SYNCED_PAYLOAD.size)


class Log:
    """A write-ahead log in a directory of its own. Made by `create` or `open`."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        options: LogOptions,
        segments: list[Segment],
        pool: SparePool,
        trimmed: LogPosition,
        *,
        clock_ns: Callable[[], int],
        random: Random,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._options = options
        self._pool = pool
        self._clock_ns = clock_ns
        self._random = random
        self._lock = threading.Lock()  # guards what other threads see: the next four
        self._segments = segments
        self._checkpointed = trimmed
        self._archived = LogPosition(0) if options.archived else None
        self._live_bytes = 0
        self._failed: BaseException | None = None
        self._closed = False
        self._activated_ns = clock_ns()
        self._appended_bytes = self._appended_records = 0
        self._groups = self._rotations = 0
        self._sync_ns_last = 0
        self._sync_durations = Histogram()
        self._live_bytes = live_size_bytes(self._segments, self._trimmed)
        self._content_lsn = segments[-1].tip.lsn
        """The last record that is no marker, or a marker behind it."""

    # -- opening --------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        disk: Disk,
        directory: str,
        identity: LogIdentity,
        options: LogOptions,
        *,
        clock_ns: Callable[[], int],
        random: Random,
        follows: Tip | None = None,
    ) -> Log:
        """Start an empty log; its parent directory must exist. Durable on return.

        Args:
            follows: what its first record goes on from: a restored log does not begin at 1.
            disk: where.
            directory: for the log's files only; created where it is missing.
            identity: whose log it is.
            options: its limits.
            clock_ns: the time of day in nanoseconds; it may jump back.
            random: where salts come from.

        Raises:
            AlreadyExists: there is a log.
            ResourceExhausted: the disk is full.
            OSError: another failure of the disk.
        """
        disk.make_directory(directory)
        disk.sync_directory(os.path.dirname(directory) or ".")
        if any(number_in(name, SEGMENT_SUFFIX) is not None for name in disk.list(directory)):
            raise AlreadyExists(f"There is a log in {directory} already.")
        pool = SparePool(disk, directory, options)
        pool.load()
        spare = pool.take(options.segment_size_bytes_min)
        header = SegmentHeader(identity, 1, 1, spare.size_bytes, new_salt(random), follows or Tip())
        try:
            first = begin(spare, header)
            publish(disk, directory, first)
            pool.fill_reserve()
        except BaseException:
            spare.file.close()
            pool.close()
            raise
        return cls(
            disk, directory, options, [first], pool, first.position, clock_ns=clock_ns,
            random=random,
        )  # fmt: skip

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: str,
        identity: LogIdentity,
        options: LogOptions,
        start: LogPosition,
        *,
        clock_ns: Callable[[], int],
        random: Random,
        reach_lsn: int = 0,
        progress: Progress = lambda done_bytes, total_bytes: None,
    ) -> tuple[Log, Recovered]:
        """Recover a log. On return everything in it is durable and it can be appended to.

        Args:
            disk, directory, options, clock_ns, random: see `create`.
            identity: whose log it must be.
            start: the position in the meta slot: what lies behind it is returned.
            reach_lsn: the log must hold this record, or have held it before ``start``.
            progress: told now and then how many bytes of how many were verified.

        Raises:
            CorruptionError: damage that is no torn tail; ``details`` name file and offset.
                Nothing was changed.
            InvalidArgument: the log is of another format version.
            ResourceExhausted: the disk is too full to start afresh.
            OSError: another failure of the disk.
        """
        found = Inspection(disk, directory, identity, start, reach_lsn, progress).run()
        # Nothing was changed up to here.
        segments, place, tail = found.segments, found.place, found.tail
        pool = SparePool(disk, directory, options)
        try:
            outcome: Clean | TornTail = Clean()
            path = segments[-1].path
            if found.row.outcome is Outcome.CUT:
                saved = recovery.save_remains(disk, directory, segments[-1], tail, found.remains)
                outcome = TornTail(path, tail.end, saved)
            pool.load()
            keep = isinstance(outcome, TornTail) and outcome.saved_as == path
            recovery.start_afresh(disk, directory, pool, segments, place, tail, random, keep=keep)
            for name in found.strays:
                disk.unlink(f"{directory}/{name}")
            with contextlib.suppress(ResourceExhausted):  # reading and deleting work without
                pool.fill_reserve()
            log = cls(
                disk, directory, options, segments, pool, start, clock_ns=clock_ns, random=random
            )
        except OSError as error:
            cls._let_go(pool, segments)
            if is_no_space(error):
                raise no_space(directory, options.segment_size_bytes_min, error) from error
            raise
        except BaseException:
            cls._let_go(pool, segments)
            raise
        last = log.position
        return log, Recovered(outcome, found.row, log.groups_after(start, last.lsn), last)

    # -- writing --------------------------------------------------------------------------------

    @staticmethod
    def _let_go(pool: SparePool, segments: list[Segment]) -> None:
        """Close what a failed `open` had opened."""
        pool.close()
        for segment in segments:
            segment.file.close()

    @property
    def position(self) -> LogPosition:
        """The position after the last group (a marker counts) that is on the medium."""
        with self._lock:
            return self._segments[-1].position

    def append(
        self, transactions: Sequence[Transaction], *, use_reserve: bool = False
    ) -> LogPosition:
        """Write the transactions as one group, sync, and return the position after it.

        Returns once they are on the medium. After a crash either all of them are there or none.

        Args:
            transactions: what the group holds.
            use_reserve: the group frees space: on a full disk it may be written where others are
                refused.

        Raises:
            InvalidArgument: no transaction, or one without payload.
            ResourceExhausted: the log's limit is reached, or the disk is full. Nothing was
                written; after `trim`, or with more room, the same call may succeed.
            LogFailed: the outcome is unknown, here, or already of an earlier group.
        """
        self._check_usable()
        if not transactions or not all(transaction.payloads for transaction in transactions):
            raise InvalidArgument("A group needs transactions, and a transaction needs a payload.")
        size = group_bytes(transactions)
        records = sum([len(transaction.payloads) for transaction in transactions])
        self._check_limit(max(size, records * RECORD_BYTES_MIN))
        segment = self._segment_for(size, use_reserve, keep_reserve=not use_reserve)
        tip, header = segment.tip, segment.header
        began = self._clock_ns()
        pieces, after = encode_group(
            transactions, tip, max(began, tip.time_ns), seed=header.seed, salt=header.salt
        )
        self._write(segment, pieces, after, began)
        segment.marked = False
        self._content_lsn = after.lsn
        return segment.position

    def mark_synced(self) -> None:
        """Write down that the last group is on the medium, where nothing says so yet.

        Without it, damage to that very group could not be told from a torn tail. Call it when
        the log falls idle; `close` does too.

        Raises:
            ResourceExhausted: the disk is full; nothing was written.
            LogFailed: see `append`.
        """
        self._check_usable()
        if self._segments[-1].marked:
            return
        segment = self._segment_for(_MARKER_BYTES)
        if segment.marked:  # its header says so
            return
        tip, header = segment.tip, segment.header
        began = self._clock_ns()
        pieces, after = encode_marker(
            tip, max(began, tip.time_ns), seed=header.seed, salt=header.salt
        )
        self._write(segment, pieces, after, began)
        segment.marked = True

    def _write(self, segment: Segment, pieces: list[bytes], after: Tip, began: int) -> None:
        size = sum(map(len, pieces))
        try:
            padded = segment.write(pieces, size)
            sync(segment, self._sync_durations)
        except OSError as error:
            self._failed = error
            raise LogFailed(error) from error
        except BaseException as error:
            self._failed = error
            raise
        self._sync_ns_last = self._clock_ns() - began
        self._appended_bytes += padded
        self._appended_records += after.lsn - segment.tip.lsn
        self._groups += 1
        with self._lock:
            segment.advance(after, padded)
            self._live_bytes += padded

    def _check_usable(self) -> None:
        if self._failed is not None:
            raise LogFailed(self._failed)
        if self._closed:
            raise Unavailable("The log is closed.")

    def _check_limit(self, size: int) -> None:
        limit = self._options.size_bytes_max
        if size > limit:
            raise ResourceExhausted(
                f"A group of {size} bytes never fits into a log of {limit} bytes. Use smaller "
                "transactions or raise the log's limit.",
                size_bytes=size,
                size_bytes_max=limit,
            )
        if size > self.room_bytes():
            raise ResourceExhausted(
                f"The log has reached its limit of {limit} bytes. Wait for the checkpoint that "
                "makes room and try again.",
                size_bytes=size,
                size_bytes_max=limit,
            )

    # -- segments -------------------------------------------------------------------------------

    @property
    def _trimmed(self) -> LogPosition:
        """What lies before it is needed by nobody."""
        archived = self._archived
        if archived is not None and archived.lsn < self._checkpointed.lsn:
            return archived
        return self._checkpointed

    @property
    def archived(self) -> LogPosition | None:
        """Up to where the log is known to be archived; None where that is not waited for."""
        return self._archived

    def note_archived(self, position: LogPosition) -> None:
        """The archive holds everything up to ``position``: that much is not kept for it.

        What can go now goes at the next `trim`.
        """
        with self._lock:
            self._archived = position
            self._live_bytes = live_size_bytes(self._segments, self._trimmed)

    def stretches(self, after: LogPosition) -> list[Stretch]:
        """What is on the medium behind ``after``, segment by segment. Any thread.

        Reads a segment to its end where that is not known: one from before the log was opened.

        Raises:
            CorruptionError: a segment is not as it was written.
        """
        with self._lock:
            present = [(segment, segment.end, segment.tip) for segment in self._segments]
        return stretches(present, after)

    def _segment_for(
        self, size: int, use_reserve: bool = False, *, keep_reserve: bool = False
    ) -> Segment:
        """The active segment if the group fits into it; else a new one that it fits into.

        Args:
            size: of the group, in bytes.
            use_reserve: whether the group may take the reserve.
            keep_reserve: whether it is refused where the reserve was taken and cannot be made
                again, so that what is left of the active segment is there for others.
        """
        active = self._segments[-1]
        if size <= active.room and (self._pool.has_reserve or not keep_reserve):
            return active
        spare: Spare | None = None
        try:
            if keep_reserve:
                self._pool.fill_reserve()
                if size <= active.room:
                    return active
            now = self._clock_ns()
            self._pool.target_bytes = self._next_size(now - self._activated_ns)
            reserved = RESERVES - (use_reserve or self._may_swap(size))
            spare = self._pool.take(size + fmt.BLOCK_BYTES, reserved=reserved)
            header = SegmentHeader(
                identity=active.header.identity,
                sequence=active.header.sequence + 1,
                epoch=active.header.epoch + 1,
                size_bytes=spare.size_bytes,
                salt=new_salt(self._random),
                follows=active.tip,
            )
            try:
                fresh = begin(spare, header)
            except OSError as error:
                if not is_no_space(error):
                    raise
                discard(self._disk, spare)
                raise no_space(self._directory, spare.size_bytes, error) from error
            publish(self._disk, self._directory, fresh)
        except ResourceExhausted:
            raise
        except BaseException as error:
            self._failed = error
            if spare is not None:
                spare.file.close()
            if isinstance(error, OSError):
                raise LogFailed(error) from error  # noqa: ASYNC104 (no cancellation is an OSError)
            raise
        with self._lock:
            self._segments.append(fresh)
        self._activated_ns = now
        self._rotations += 1
        return fresh

    def _may_swap(self, size: int) -> bool:
        """Whether any group may take the reserve: everything is checkpointed, so that after one
        more checkpoint the segment that is full now becomes the reserve."""
        small = size <= self._pool.reserve_bytes() // (2 * RESERVES)
        return small and self._trimmed.lsn >= self._content_lsn

    @property
    def lacks_reserve(self) -> bool:
        """Whether the reserve was taken; a trim brings it back."""
        return not self._pool.has_reserve

    @property
    def short(self) -> bool:
        """Whether the disk had no room when it was last asked; then a trim keeps nothing that is
        not needed."""
        return self._pool.short

    @short.setter
    def short(self, short: bool) -> None:
        self._pool.short = short

    def _next_size(self, filled_in_ns: int) -> int:
        """The size that segments should have, after one was filled in that time."""
        options, size = self._options, self._pool.target_bytes
        if self._pool.short:
            return options.segment_size_bytes_min
        if filled_in_ns < options.fill_fast_ns:
            return min(size * 2, options.segment_size_bytes_max)
        if filled_in_ns > options.fill_slow_ns:
            return max(fmt.padded(size // 2), options.segment_size_bytes_min)
        return size

    def prepare_next(self) -> bool:
        """Make a segment ready for the next rotation, unless one is; whether it did.

        For a background thread: takes as long as writing a segment takes.

        Raises:
            ResourceExhausted: the disk is full.
            OSError: another failure of the disk; the log itself is not affected.
        """
        if self._closed or self._failed is not None:
            return False
        return self._pool.prepare()

    def trim(self, position: LogPosition) -> None:
        """Give up what lies before ``position``, segment by segment; the last three are kept
        and what `LogOptions.retention_bytes` says (on a full disk only the last), and what is not
        archived, where that is waited for.

        Segments become spares or are removed. Segments that an iterator of `read` still needs
        stay until a later trim.

        Raises:
            LogFailed: renaming or removing failed; the log is latched.
        """
        with self._lock:
            if self._closed or self._failed is not None:
                return
            if position.lsn > self._checkpointed.lsn:
                self._checkpointed = position
            lsn = min(position.lsn, self._trimmed.lsn)
            urgent = self.short or self.lacks_reserve
            retired = take_expendable(self._segments, lsn, self._options, urgent=urgent)
            self._live_bytes = live_size_bytes(self._segments, self._trimmed)
        try:
            self._pool.recycle(
                [(segment.path, segment.file, segment.header.size_bytes) for segment in retired]
            )
        except OSError as error:
            self._failed = error
            raise LogFailed(error) from error

    # -- reading --------------------------------------------------------------------------------

    def read(self, from_lsn: int) -> Iterator[LogRecord]:
        """The records from ``from_lsn`` up to the last one that is durable when reading begins.

        Raises:
            NotFound: ``from_lsn`` was trimmed.
            CorruptionError: a record is not as it was written.
        """
        with self._lock:
            first = self._segments[0].header.follows.lsn + 1
            last = self._segments[-1].tip.lsn
        if from_lsn < first:
            raise NotFound(
                f"The log begins with record {first}; record {from_lsn} was trimmed.",
                first_lsn=first,
            )
        return self._records_from(from_lsn, last)

    def _records_from(self, from_lsn: int, until: int) -> Iterator[LogRecord]:
        for group, _ in self.groups_after(LogPosition(from_lsn - 1), until):
            for record in group.log_records():
                if record.lsn >= from_lsn:
                    yield record

    def groups_after(
        self, start: LogPosition, until: int
    ) -> Iterator[tuple[LogGroup, LogPosition]]:
        """The groups with records after ``start``, up to LSN ``until``, which ends one."""
        with self._lock:
            if start.lsn >= until:
                return
            if start.lsn < self._segments[0].header.follows.lsn:
                raise NotFound(f"Record {start.lsn + 1} was trimmed meanwhile.")
            place = locate(self._segments, start)
            segments = self._segments[place.index :]
            for segment in segments:
                segment.readers += 1
        offset, tip = place.offset, place.tip
        try:
            while segments:
                follows = segments[1].header.follows if len(segments) > 1 else None
                for group in groups_of(segments[0], offset, tip, follows, until):
                    if group.tip.lsn > start.lsn:
                        yield group, segments[0].position_at(group.tip, group.end)
                if follows is None or follows.lsn >= until:
                    return
                offset, tip = fmt.BLOCK_BYTES, follows
                with self._lock:  # from here on a trim may take it
                    segments.pop(0).readers -= 1
        finally:
            with self._lock:
                for segment in segments:
                    segment.readers -= 1

    def follow(self, after: LogPosition) -> LogFollower:
        """Read on behind ``after``, of which the LSN will do, bit by bit; see `LogFollower`."""
        return LogFollower(self._segments, self._lock, after)

    def verify_closed(
        self, start: LogPosition, size_bytes_max: int
    ) -> tuple[LogPosition | None, int]:
        """See `treestore.engine.log.verify.verify_closed`."""
        return verify_closed(self._segments, self._lock, start, size_bytes_max)

    # -- watching and closing -------------------------------------------------------------------

    def room_bytes(self) -> int:
        """How many more bytes `append` accepts before a `trim`."""
        records = self._segments[-1].tip.lsn - self._trimmed.lsn
        live = max(self._live_bytes, records * RECORD_BYTES_MIN)
        return max(0, self._options.size_bytes_max - live)

    def live_size_bytes(self) -> int:
        """Bytes behind the position of the last `trim`."""
        return self._live_bytes

    def statistics(self) -> LogStatistics:
        """A snapshot of the counters."""
        spares = self._pool.sizes()
        with self._lock:
            sizes = [segment.header.size_bytes for segment in self._segments]
            return LogStatistics(
                live_bytes=self._live_bytes,
                disk_bytes=sum(sizes) + sum(spares) + self._pool.reserve_bytes(),
                segments=len(sizes),
                spares=len(spares),
                appended_bytes=self._appended_bytes,
                appended_records=self._appended_records,
                groups=self._groups,
                rotations=self._rotations,
                syncs=self._groups,
                sync_ns_last=self._sync_ns_last,
                sync_durations=self._sync_durations.snapshot(),
                failed=self._failed is not None,
            )

    def close(self) -> None:
        """Write a marker where it helps, and close the files. Closing twice is harmless.

        That the marker cannot be written is no error: everything acknowledged is durable
        without it.
        """
        if self._closed:
            return
        try:
            if self._failed is None:
                with contextlib.suppress(LogFailed, ResourceExhausted):
                    self.mark_synced()
        finally:
            self._closed = True
            self._pool.close()
            with self._lock:
                for segment in self._segments:
                    segment.file.close()
