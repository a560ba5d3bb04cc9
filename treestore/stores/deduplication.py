"""Answers that were given, so that a retried command is applied once.

Kept in the tree itself and written in the transaction that they answer, so that they are exactly
as durable as what the command did::

    02 client(16) session(8) 00                -> msgpack [watermark, time last used, ms]
    02 client(16) session(8) 01 sequence(8)    -> msgpack [request checksum, encoded answer]

A client says with each request below which sequence number it has all its answers (the
watermark); rows below it are removed in passing, some at a time. The session row remembers the
watermark: a request from below it was answered and forgotten, so it gets `OutcomeUnknown` and is
never run again.

A session that was not used for a day is put to rest: its answers go, and its watermark is raised
above all of them, so that a late retry is still not run again. What is left is one small row,
which goes after `RESTING_KEPT`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from crc32c import crc32c

from treestore.errors import InvalidArgument, OutcomeUnknown
from treestore.stores.access import Read, Write

KEYSPACE = b"\x02"
PRUNE_EVERY = 64
"""Rows are removed once this many lie below the watermark: one range removal for all of them."""

CLIENT_SIZE_BYTES = 16

_row: msgspec.msgpack.Decoder[tuple[int, bytes]] = msgspec.msgpack.Decoder(tuple[int, bytes])
_session: msgspec.msgpack.Decoder[tuple[int, int]] = msgspec.msgpack.Decoder(tuple[int, int])
_encode = msgspec.msgpack.Encoder().encode


def request_checksum(method: str, parameters: bytes) -> int:
    """Tells a retry from another request that wrongly carries the same number."""
    value: int = crc32c(parameters, crc32c(method.encode()))
    return value


def session_prefix(client: bytes, session: int) -> bytes:
    """What all keys of a session begin with."""
    return KEYSPACE + client + session.to_bytes(8, "big")


def recall(txn: Read, prefix: bytes, sequence: int, checksum: int) -> bytes | None:
    """The answer that this request had, or None where it was not run yet.

    Raises:
        OutcomeUnknown: it was run, or given up, so long ago that its answer is forgotten.
        InvalidArgument: another request had this number.
    """
    found = txn.get(prefix + b"\x01" + sequence.to_bytes(8, "big"))
    if found is not None:
        stored, answer = _row.decode(found)
        if stored != checksum:
            raise InvalidArgument(
                f"Sequence number {sequence} of this session named another request before; a "
                "client numbers its requests without repeats."
            )
        return answer
    state = txn.get(prefix + b"\x00")
    if state is not None and sequence < _session.decode(state)[0]:
        raise OutcomeUnknown(
            "This request was sent before and its answer is no longer kept; read what it would "
            "have changed before sending it anew."
        )
    return None


def remember(txn: Write, prefix: bytes, sequence: int, checksum: int, answer: bytes) -> None:
    """Note the answer of a request, in the transaction that it belongs to."""
    txn.put(prefix + b"\x01" + sequence.to_bytes(8, "big"), _encode((checksum, answer)))


def prune(txn: Write, prefix: bytes, watermark: int, now: datetime) -> None:
    """Forget the answers below ``watermark``."""
    txn.delete_range(prefix + b"\x01", prefix + b"\x01" + watermark.to_bytes(8, "big"))
    txn.put(prefix + b"\x00", _encode((watermark, int(now.timestamp() * 1000))))


RESTING_KEPT = timedelta(days=90)
"""How long a session at rest is remembered. No client retries for that long."""


def expire(txn: Write, before: datetime, sessions_max: int = 1000) -> int:
    """Put sessions last used before ``before`` to rest; how many (at most ``sessions_max``)."""
    limit = int(before.timestamp() * 1000)
    forget = int((before - RESTING_KEPT).timestamp() * 1000)
    cursor = txn.cursor(KEYSPACE, b"\x03")
    stale: list[tuple[bytes, int, int]] = []
    for key, cell in cursor:
        prefix = key[: 1 + CLIENT_SIZE_BYTES + 8]
        if key[len(prefix) :] == b"\x00":
            watermark, used_ms = _session.decode(txn.value(cell))
            if used_ms < limit:
                stale.append((prefix, watermark, used_ms))
                if len(stale) >= sessions_max:
                    break
        cursor.seek(prefix + b"\x02")
    changed = 0
    for prefix, watermark, used_ms in stale:
        last = next(txn.scan(prefix + b"\x01", prefix + b"\x02", reverse=True), None)
        if last is not None:
            highest = int.from_bytes(last[0][-8:], "big")
            txn.delete_range(prefix + b"\x01", prefix + b"\x02")
            txn.put(prefix + b"\x00", _encode((max(watermark, highest + 1), used_ms)))
        elif used_ms < forget:
            txn.delete(prefix + b"\x00")
        else:
            continue
        changed += 1
    return changed
