"""Records and groups: what a group of transactions looks like in bytes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import msgspec
from crc32c import crc32c

from treestore.engine.log import format as fmt
from treestore.engine.log.position import Tip

_JOIN_BYTES_MAX = 1 << 20
"""Up to here a group's payloads are joined: one checksum call and one buffer instead of many."""


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
        payload: the bytes that were appended.
    """

    lsn: int
    group: int
    transaction_id: int
    time_ns: int
    kind: int
    payload: bytes


def group_bytes(transactions: Sequence[Transaction]) -> int:
    """How many bytes the group of these transactions takes in the log, padding included."""
    size = fmt.GROUP_HEADER_BYTES
    for transaction in transactions:
        payloads = transaction.payloads
        size += fmt.ENTRY_BYTES * len(payloads) + sum(map(len, payloads))
    return fmt.padded(size)


def encode_header(
    after: Tip, records: int, time_ns: int, size: int, checksum: int, *, seed: int, salt: int
) -> tuple[bytes, Tip]:
    """The header of a group, and the state of the chain after the group.

    Args:
        after: the state of the chain before the group.
        records: how many there are in it.
        time_ns: when it was appended.
        size: of its table and payloads, in bytes.
        checksum: of its table and payloads.
        seed: the segment's `SegmentHeader.seed`.
        salt: the segment's salt.
    """
    group = after.group + 1
    body = fmt.GROUP_BODY.pack(
        salt,
        group,
        after.lsn + 1,
        time_ns,
        after.chain,
        records,
        size,
        checksum,
        fmt.GROUP_RESERVED,
    )
    chain = crc32c(body, seed)
    return fmt.CRC.pack(chain) + body, Tip(after.lsn + records, group, chain, time_ns)


def encode_group(
    transactions: Sequence[Transaction], after: Tip, time_ns: int, *, seed: int, salt: int
) -> tuple[list[bytes], Tip]:
    """The bytes of a group, unpadded and in pieces, and the state of the chain after it.

    Args:
        transactions: at least one, each with at least one payload.
        after: the state of the chain before the group.
        time_ns: when it is appended.
        seed: the segment's `SegmentHeader.seed`.
        salt: the segment's salt.
    """
    ids: list[int] = []
    kinds = bytearray()
    payloads: list[bytes] = []
    for transaction in transactions:
        its = transaction.payloads
        if len(its) == 1:
            ids.append(transaction.transaction_id)
        else:
            ids += [transaction.transaction_id] * len(its)
            kinds += bytes((fmt.KIND_DATA,)) * (len(its) - 1)
        kinds.append(fmt.KIND_COMMIT)
        payloads += its
    return _encode(ids, kinds, payloads, after, time_ns, seed, salt)


def encode_marker(after: Tip, time_ns: int, *, seed: int, salt: int) -> tuple[list[bytes], Tip]:
    """The bytes of a group that says that the group before it is on the medium."""
    payload = fmt.SYNCED_PAYLOAD.pack(after.group)
    return _encode([0], bytes((fmt.KIND_SYNCED,)), [payload], after, time_ns, seed, salt)


def _encode(
    ids: list[int],
    kinds: bytes | bytearray,
    payloads: list[bytes],
    after: Tip,
    time_ns: int,
    seed: int,
    salt: int,
) -> tuple[list[bytes], Tip]:
    lengths = list(map(len, payloads))
    table = fmt.table(len(ids)).pack(*ids, *lengths, *kinds)
    size = len(table) + sum(lengths)
    pieces = [table, *payloads]
    if size <= _JOIN_BYTES_MAX:
        pieces = [b"".join(pieces)]
    checksum = 0
    for piece in pieces:
        checksum = crc32c(piece, checksum)
    head, tip = encode_header(after, len(ids), time_ns, size, checksum, seed=seed, salt=salt)
    return [head, *pieces], tip
