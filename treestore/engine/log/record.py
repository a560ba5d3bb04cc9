"""Records: what a group of transactions looks like in bytes, and back."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import msgspec
from crc32c import crc32c

from treestore.engine.log import format as fmt
from treestore.engine.log.position import Tip


class Transaction(msgspec.Struct, frozen=True):
    """What one transaction adds to the log.

    Attributes:
        transaction_id: any number; carried by each of its records.
        payloads: at least one; opaque to the log. The last one goes into the commit record.
    """

    transaction_id: int
    payloads: Sequence[bytes]


@attrs.define(frozen=True, slots=True)
class LogRecord:
    """One record, read from the log and verified.

    Attributes:
        lsn: its number; dense, from 1.
        group: the number of the group it was synced with; dense, from 1.
        transaction_id: see `Transaction`; 0 in markers.
        time_ns: when the group was appended; never falls from one group to the next.
        kind: ``KIND_DATA``, ``KIND_COMMIT`` or ``KIND_SYNCED``.
        flags: ``FLAG_FIRST``, ``FLAG_LAST`` (in the group).
        chain: its own checksum, which the next record repeats.
        payload: the bytes that were appended.
    """

    lsn: int
    group: int
    transaction_id: int
    time_ns: int
    kind: int
    flags: int
    chain: int
    payload: bytes

    @property
    def tip(self) -> Tip:
        """The state of the chain after this record."""
        return Tip(self.lsn, self.group, self.chain, self.time_ns)


def group_bytes(transactions: Sequence[Transaction]) -> int:
    """How many bytes the group of these transactions takes in the log, padding included."""
    size = 0
    for transaction in transactions:
        payloads = transaction.payloads
        size += fmt.RECORD_HEADER_BYTES * len(payloads) + sum(map(len, payloads))
    return fmt.padded(size)


def encode_group(
    transactions: Sequence[Transaction], after: Tip, time_ns: int, *, seed: int, salt: int
) -> tuple[list[bytes], Tip]:
    """The bytes of a group, unpadded and in pieces, and the state of the chain after it.

    Args:
        transactions: at least one, each with at least one payload.
        after: the state of the chain before the group.
        time_ns: stamped on every record.
        seed: the segment's `SegmentHeader.seed`.
        salt: the segment's salt.
    """
    pack, pack_crc, crc = fmt.RECORD_BODY.pack, fmt.CRC.pack, crc32c
    lsn, group, chain = after.lsn, after.group + 1, after.chain
    final = lsn + sum([len(transaction.payloads) for transaction in transactions])
    flags = fmt.FLAG_FIRST
    pieces: list[bytes] = []
    for transaction in transactions:
        transaction_id = transaction.transaction_id
        commit = lsn + len(transaction.payloads)
        for payload in transaction.payloads:
            lsn += 1
            kind = fmt.KIND_COMMIT if lsn == commit else fmt.KIND_DATA
            if lsn == final:
                flags |= fmt.FLAG_LAST
            body = pack(
                len(payload), lsn, group, transaction_id, time_ns, salt, chain, kind, flags, 0
            )
            chain = crc(payload, crc(body, seed))
            pieces += (pack_crc(chain), body, payload)
            flags = 0
    return pieces, Tip(lsn, group, chain, time_ns)


def encode_record(record: LogRecord, chain: int, *, seed: int, salt: int) -> tuple[bytes, int]:
    """The header of one record as it stands in a segment of another seed and salt.

    Args:
        record: what to encode; its own ``chain`` is ignored.
        chain: the checksum of the record before it in that segment.
        seed: that segment's `SegmentHeader.seed`.
        salt: that segment's salt.

    Returns:
        The header, after which the payload follows, and the record's checksum.
    """
    body = fmt.RECORD_BODY.pack(
        len(record.payload),
        record.lsn,
        record.group,
        record.transaction_id,
        record.time_ns,
        salt,
        chain,
        record.kind,
        record.flags,
        0,
    )
    checksum = crc32c(record.payload, crc32c(body, seed))
    return fmt.CRC.pack(checksum) + body, checksum


def encode_marker(after: Tip, time_ns: int, *, seed: int, salt: int) -> tuple[list[bytes], Tip]:
    """The bytes of a group that says that the group before it is on the medium."""
    marker = LogRecord(
        lsn=after.lsn + 1,
        group=after.group + 1,
        transaction_id=0,
        time_ns=time_ns,
        kind=fmt.KIND_SYNCED,
        flags=fmt.FLAGS_ALL,
        chain=0,
        payload=fmt.SYNCED_PAYLOAD.pack(after.group),
    )
    header, chain = encode_record(marker, after.chain, seed=seed, salt=salt)
    return [header, marker.payload], Tip(marker.lsn, marker.group, chain, time_ns)
