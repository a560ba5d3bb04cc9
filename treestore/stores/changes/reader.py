"""Reading the log as changes, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from treestore.engine.engine import Engine
from treestore.engine.log import LogPosition
from treestore.engine.log.follower import Entry, LogFollower
from treestore.errors import CorruptionError, FeedExpired, InvalidArgument, NotFound
from treestore.model.changes import Change
from treestore.stores.changes.decoding import Decoder, Fields
from treestore.stores.changes.position import FeedPosition
from treestore.stores.changes.services import Selection, readers_by_keyspace

SLICE_SIZE_BYTES = 256 << 10
"""Log that is read and decoded at a time: a record of a long transaction is about as long."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode = msgspec.msgpack.Decoder().decode


class ChangeReader:
    """The changes behind a position. Synchronous; one thread at a time.

    What it holds: one change (so that the last one of a transaction can be marked), and what the
    decoders remember of the transaction at hand.
    """

    def __init__(
        self,
        follower: LogFollower,
        start: FeedPosition,
        decoders: dict[str, Decoder],
        until_lsn: int,
    ) -> None:
        """Begin behind ``start``.

        Args:
            follower: at ``start.read_after_lsn``.
            start: of this history.
            decoders: service → what reads its keys.
            until_lsn: where the log ends, for errors.
        """
        self._follower = follower
        self._prefix = start.prefix
        self._start = start
        self._last_lsn = until_lsn
        self._services = list(decoders.items())
        self._readers = readers_by_keyspace(decoders)
        self._has_endings = False
        """Whether a decoder was shown something that it may tell of at the transaction's end."""
        self._held: tuple[Fields, int] | None = None
        """The newest change of the transaction at hand, and how many notes were done with it."""
        self._notes_done = 0
        self._passed_lsn = start.lsn if start.notes is None else start.lsn - 1
        """Everything up to this record was decoded, to the end of a transaction."""
        self._time_ns = -1
        self._time = _EPOCH

    @property
    def lsn(self) -> int:
        """Everything up to here was read."""
        return self._follower.lsn

    def backlog_bytes(self) -> int:
        """See `LogFollower.backlog_bytes`."""
        return self._follower.backlog_bytes()

    @property
    def position(self) -> str:
        """Behind the last transaction that was wholly read."""
        start = self._start
        if start.notes is not None and self._passed_lsn < start.lsn:
            return str(start)
        return f"{self._prefix}{self._passed_lsn}"

    def ensure_kept(self) -> None:
        """Raise `FeedExpired` where the log no longer has what would be read next."""
        if self._follower.is_trimmed:
            raise expired(self.position, self._follower.first_lsn, self._last_lsn)

    def read(self, until_lsn: int, size_bytes_max: int = SLICE_SIZE_BYTES) -> list[Change]:
        """Changes of the next records; perhaps none.

        Args:
            until_lsn: the last record that may be shown: it ends a group.
            size_bytes_max: how much log to read at least, if there is as much.

        Raises:
            FeedExpired: the log was trimmed beyond it.
            CorruptionError: a record is not as it was written.
        """
        self._last_lsn = max(self._last_lsn, until_lsn)
        changes: list[Change] = []
        try:
            entries = self._follower.read(until_lsn, size_bytes_max)
        except NotFound as error:
            first_lsn = error.details["first_lsn"]
            raise expired(self.position, first_lsn, until_lsn) from None
        for entry in entries:
            if entry.commit_lsn > self._passed_lsn:
                try:
                    self._take(entry, changes)
                except (ValueError, TypeError, IndexError, RecursionError) as error:
                    raise CorruptionError(
                        f"Record {entry.lsn} of the log is not what a transaction wrote ({error})."
                    ) from error
        # Groups end transactions, and behind the last one may be a marker of the log's own.
        self._passed_lsn = max(self._passed_lsn, self._follower.lsn)
        return changes

    def _take(self, entry: Entry, changes: list[Change]) -> None:
        """Decode one record."""
        notes = _decode(entry.payload)
        skipped = self._skipped(entry)
        readers = self._readers
        done = self._notes_done
        iterator = iter(notes)
        for what, value in zip(iterator, iterator, strict=True):
            done += 1
            if what.__class__ is bytes:
                found = readers.get(what[0])
                if found is None:
                    continue
                service, decoder, remembers = found
                if remembers:
                    self._has_endings = True
                fields = decoder.note(what, value)
                if fields is not None and done > skipped:
                    fields["service"] = service
                    self._hold(fields, done, entry, changes)
            else:
                done = self._clear(what, done, skipped, entry, changes)
        self._notes_done = done
        if entry.lsn == entry.commit_lsn:
            self._finish(entry, skipped, changes)

    def _skipped(self, entry: Entry) -> int:
        """Notes of the transaction that were shown before."""
        start = self._start
        return start.notes if start.notes is not None and entry.commit_lsn == start.lsn else 0

    def _clear(
        self, what: Any, done: int, skipped: int, entry: Entry, changes: list[Change]
    ) -> int:
        """A range of keys went; how many notes are done now: it counts once for each service."""
        start, end = what
        for service, decoder in self._services:
            if touches(decoder, start, end):
                self._has_endings = self._has_endings or decoder.remembers
                fields = decoder.cleared(start, end)
                if fields is not None and done > skipped:
                    fields["service"] = service
                    self._hold(fields, done, entry, changes)
                done += 1
        return done

    def _finish(self, entry: Entry, skipped: int, changes: list[Change]) -> None:
        """The transaction ends with this record."""
        done = self._notes_done
        if self._has_endings:
            self._has_endings = False
            for fields in self._endings():
                done += 1
                if done > skipped:
                    self._hold(fields, done, entry, changes)
        held, self._held = self._held, None
        self._notes_done = 0
        self._passed_lsn = entry.lsn
        if held is not None:
            changes.append(self._change(held[0], entry, f"{self._prefix}{entry.lsn}", last=True))

    def _endings(self) -> Iterator[Fields]:
        for service, decoder in self._services:
            if not decoder.remembers:
                continue
            for fields in decoder.finish():
                fields["service"] = service
                yield fields

    def _hold(self, fields: Fields, done: int, entry: Entry, changes: list[Change]) -> None:
        """Hold a change back until it is known whether it is the transaction's last."""
        held, self._held = self._held, (fields, done)
        if held is not None:
            position = f"{self._prefix}{entry.commit_lsn}+{held[1]}"
            changes.append(self._change(held[0], entry, position, last=False))

    def _change(self, fields: Fields, entry: Entry, position: str, *, last: bool) -> Change:
        if entry.time_ns != self._time_ns:
            self._time_ns = entry.time_ns
            self._time = _EPOCH + timedelta(microseconds=entry.time_ns // 1000)
        return Change(
            lsn=entry.commit_lsn,
            commit=entry.number,
            time=self._time,
            position=position,
            last=last,
            **fields,
        )


def begin(engine: Engine, from_lsn: int | str | None, selection: Selection) -> ChangeReader:
    """Begin a feed; see `treestore.stores.changes.service.watch`."""
    last_lsn = engine.durable.position.lsn
    start = FeedPosition.at(engine.identity, last_lsn)
    if from_lsn is not None:
        start = FeedPosition.parse(from_lsn, engine.identity)
    after = engine.durable.position
    if start.read_after_lsn != after.lsn:
        after = LogPosition(start.read_after_lsn)  # It has to be looked for in its segment.
    follower = engine.log.follow(after)
    here = FeedPosition.at(engine.identity, last_lsn)
    if start.prefix != here.prefix or (start.lsn > last_lsn and isinstance(from_lsn, str)):
        raise FeedExpired(
            f"Position {from_lsn} is of another history than this database has: it was restored, "
            f"or is another one. Read anew from a snapshot, then watch from its position.",
            position=str(from_lsn),
            first_lsn=follower.first_lsn - 1,
            last_lsn=last_lsn,
        )
    if start.lsn > last_lsn:
        raise InvalidArgument(
            f"from_lsn {from_lsn} lies in the future: the last committed transaction has LSN "
            f"{last_lsn}. Leave it out to watch from now on."
        )
    reader = ChangeReader(follower, start, selection.decoders(engine.read()), last_lsn)
    reader.ensure_kept()
    return reader


def touches(decoder: Decoder, start: bytes, end: bytes | None) -> bool:
    """Whether a range of keys has some in the decoder's keyspaces."""
    return any(
        start[0] <= keyspace and (end is None or end > bytes((keyspace,)))
        for keyspace in decoder.keyspaces
    )


def expired(position: str, first_lsn: int, last_lsn: int) -> FeedExpired:
    """The error for a position that the log was trimmed beyond."""
    return FeedExpired(
        f"The log no longer has the changes behind {position}; it begins behind record "
        f"{first_lsn - 1}. Read anew from a snapshot, then watch from its position; to keep more "
        "of the log, raise watch_retention_mb.",
        position=position,
        first_lsn=first_lsn - 1,
        last_lsn=last_lsn,
    )
