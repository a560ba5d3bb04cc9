"""A group that was found in a segment, and what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import attrs
from crc32c import crc32c

from treestore.engine.disk import File
from treestore.engine.log import format as fmt
from treestore.engine.log.header import damaged
from treestore.engine.log.position import Tip
from treestore.engine.log.record import LogRecord

PIECE_BYTES = 4 << 20
"""A group is handed on in pieces of about this size; only a record that is larger takes more."""

Table = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Transaction id, payload length and kind of each record of a group."""

_LAST_KINDS = (fmt.KIND_COMMIT, fmt.KIND_SYNCED)


@attrs.frozen(eq=False)
class Piece:
    """Some records of a group, next to each other.

    Attributes:
        lsn: of the first of them.
        ids, lengths, kinds: of each record.
        payloads: the payloads, one behind the other without anything between them.
        last: whether the group ends with them.
    """

    lsn: int
    ids: tuple[int, ...]
    lengths: tuple[int, ...]
    kinds: tuple[int, ...]
    payloads: memoryview
    last: bool

    @property
    def is_marker(self) -> bool:
        """Whether this is no transaction but a marker of the log's own."""
        return self.kinds[0] == fmt.KIND_SYNCED

    @property
    def commits(self) -> int:
        """How many transactions end in it."""
        return self.kinds.count(fmt.KIND_COMMIT)

    def split(self) -> Iterator[bytes]:
        """Each payload."""
        end = 0
        for length in self.lengths:
            start, end = end, end + length
            yield bytes(self.payloads[start:end])


@attrs.frozen(eq=False)
class LogGroup:
    """A whole group, its checksums verified.

    Attributes:
        file, offset: where it is.
        tip: the state of the chain after it.
        lsn: of its first record.
        records: how many it has.
        size: of its table and payloads, in bytes.
        checksum: of its table and payloads.
        body: table and payloads, while they are in memory; None where they are too long for it.
            Only valid until the next group is asked for.
    """

    file: File
    offset: int
    tip: Tip
    lsn: int
    records: int
    size: int
    checksum: int
    body: memoryview | None

    @property
    def end(self) -> int:
        """Offset behind it and its padding."""
        return self.offset + fmt.padded(fmt.GROUP_HEADER_BYTES + self.size)

    @property
    def is_marker(self) -> bool:
        """Whether it is a marker of the log's own."""
        return self.records == 1 and next(self.pieces()).is_marker

    def chunks(self, size: int) -> Iterator[bytes | memoryview]:
        """Table and payloads in chunks of that size."""
        if self.body is not None:
            yield self.body
            return
        start = self.offset + fmt.GROUP_HEADER_BYTES
        for at in range(0, self.size, size):
            yield self.file.read_at(start + at, min(size, self.size - at))

    def table(self) -> Table:
        """What stands before its payloads.

        Raises:
            CorruptionError: it makes no sense.
        """
        count = self.records
        table_size = fmt.ENTRY_BYTES * count
        if table_size > self.size:
            raise damaged(self.file.path, self.offset, "has a group that is shorter than its table")
        table = self._read(0, table_size) if self.body is None else self.body[:table_size]
        fields = fmt.table(count).unpack(table)
        ids, lengths, kinds = fields[:count], fields[count : 2 * count], fields[2 * count :]
        if table_size + sum(lengths) != self.size or kinds[-1] not in _LAST_KINDS:
            raise damaged(self.file.path, self.offset, "has a group whose table makes no sense")
        return ids, lengths, kinds

    def pieces(self, size_bytes: int | None = None, table: Table | None = None) -> Iterator[Piece]:
        """What is in it, in pieces of about that size (`PIECE_BYTES`) where it is long.

        Raises:
            CorruptionError: the bytes changed since they were verified, which shows only at the
                end of a long group; or they never were a group's.
        """
        count, body = self.records, self.body
        table_size = fmt.ENTRY_BYTES * count
        ids, lengths, kinds = table or self.table()
        if body is not None:
            yield Piece(self.lsn, ids, lengths, kinds, body[table_size:], True)
            return
        offset, checksum = table_size, crc32c(self._read(0, table_size))
        for first, last in _cuts(lengths, size_bytes or PIECE_BYTES):
            payloads = self._read(offset, sum(lengths[first:last]))
            offset += len(payloads)
            checksum = crc32c(payloads, checksum)
            final = last == count
            if final and checksum != self.checksum:
                raise damaged(self.file.path, self.offset, "changed while it was being read")
            yield Piece(
                self.lsn + first,
                ids[first:last],
                lengths[first:last],
                kinds[first:last],
                memoryview(payloads),
                final,
            )

    def log_records(self) -> Iterator[LogRecord]:
        """Its records."""
        group, time_ns = self.tip.group, self.tip.time_ns
        for piece in self.pieces():
            lsn = piece.lsn
            for number, kind, payload in zip(piece.ids, piece.kinds, piece.split(), strict=True):
                yield LogRecord(lsn, group, number, time_ns, kind, payload)
                lsn += 1

    def _read(self, offset: int, size: int) -> bytes:
        return self.file.read_at(self.offset + fmt.GROUP_HEADER_BYTES + offset, size)


def _cuts(lengths: tuple[int, ...], size_bytes: int) -> list[tuple[int, int]]:
    """Where to cut records of these lengths into pieces: (first, behind the last) of each."""
    cuts: list[tuple[int, int]] = []
    first = limit = 0
    for index, end in enumerate(accumulate(lengths)):
        if index == first:
            limit = end - lengths[index] + size_bytes
        if end >= limit:
            cuts.append((first, index + 1))
            first = index + 1
    if first < len(lengths):
        cuts.append((first, len(lengths)))
    return cuts
