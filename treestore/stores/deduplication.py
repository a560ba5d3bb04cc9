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

The tree is the truth. What `Sessions` keeps in memory only saves looking for answers that cannot
be there:

1. A row of a session whose sequence number is at or above its ``floor`` is in ``seen``. The floor
   begins above every row that is there when the session becomes known; from then on each row is
   written by `Sessions.run`, which notes it. So what is above the floor and not seen was never
   answered. What is below, or seen, is looked up.
2. Both may say too much (of a command that was rolled back): that costs a look-up. The floor may
   rise at any time.
3. What is noted of the session's own row may be wrong once a command that was numbered failed, or
   its group did: `Sessions.forget` is called then, before the next command runs. A session that is
   not known is read from the tree. `Sessions.expire` forgets whom it puts to rest.
4. Only one process has the store open, and commands run one after the other, on whatever thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from crc32c import crc32c

from treestore.errors import InvalidArgument, OutcomeUnknown
from treestore.stores.access import Read, Write

KEYSPACE = b"\x02"
PRUNE_EVERY = 64
"""Rows are removed once this many lie below the watermark: one range removal for all of them."""

CLIENT_SIZE_BYTES = 16

TOUCHED_EVERY = timedelta(hours=2)
"""How stale the time of last use in a session's row may be; well below the day after which a
session is put to rest."""

_TOUCHED_EVERY_MS = TOUCHED_EVERY // timedelta(milliseconds=1)

SESSIONS_MAX = 10_000
"""Sessions that are known at a time."""

SEEN_MAX = 4096
"""Sequence numbers that are noted of one: more than a client has in flight between two prunings,
unless it never moves its watermark."""

_row: msgspec.msgpack.Decoder[tuple[int, bytes]] = msgspec.msgpack.Decoder(tuple[int, bytes])
_session: msgspec.msgpack.Decoder[tuple[int, int]] = msgspec.msgpack.Decoder(tuple[int, int])
_encode = msgspec.msgpack.Encoder().encode


class Deduplication(msgspec.Struct, frozen=True, gc=False):
    """Names one request of one client, so that a retry is applied once.

    Attributes:
        session: whose it is: what `session_prefix` gives.
        sequence: the client's number of the request.
        watermark: the client has the answers of all its sequence numbers below it, so they can be
            forgotten.
        checksum: what `request_checksum` gives: tells a retry from another request that wrongly
            carries the same number.
    """

    session: bytes
    sequence: int
    watermark: int
    checksum: int


@cache
def _method_checksum(method: str) -> int:
    value: int = crc32c(method.encode())
    return value


def request_checksum(method: str, parameters: bytes | msgspec.Raw) -> int:
    """The checksum of a request, its parameters as they were sent."""
    value: int = crc32c(parameters, _method_checksum(method))
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


class _Session:
    """What is known of one session."""

    __slots__ = ("floor", "seen", "used_ms", "watermark")

    def __init__(self, floor: int, watermark: int, used_ms: int) -> None:
        self.floor = floor
        self.seen: set[int] = set()
        self.watermark = watermark
        """As its row has it."""
        self.used_ms = used_ms
        """Likewise."""


class Sessions:
    """The sessions that are in use. Runs their requests, each at most once.

    Args:
        clock_ns: wall-clock time in nanoseconds, the one that transactions have.
    """

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._known: dict[bytes, _Session] = {}

    def run(
        self,
        txn: Write,
        request: Deduplication,
        function: Callable[..., Any],
        arguments: Mapping[str, Any],
    ) -> bytes:
        """The encoded answer of a request: the one that it had, or that of running it now.

        Whoever calls this calls `forget` where it fails, or the transaction later on.

        Raises:
            OutcomeUnknown, InvalidArgument: see `recall`.
            Exception: whatever ``function`` raises.
        """
        prefix, sequence = request.session, request.sequence
        session = self._known.get(prefix)
        if session is None:
            session = self._learn(txn, prefix)
        if sequence < session.floor or sequence in session.seen:
            answer = recall(txn, prefix, sequence, request.checksum)
            if answer is not None:
                return answer
        answer = _encode(function(txn, **arguments))
        seen = session.seen
        seen.add(sequence)
        if len(seen) > SEEN_MAX:
            session.floor = max(seen) + 1
            seen.clear()
        txn.put(prefix + b"\x01" + sequence.to_bytes(8, "big"), _encode((request.checksum, answer)))
        now_ms = self._clock_ns() // 1_000_000
        if (
            request.watermark >= session.watermark + PRUNE_EVERY
            or now_ms - session.used_ms > _TOUCHED_EVERY_MS
        ):
            _prune(txn, prefix, session, request.watermark, now_ms)
        return answer

    def _learn(self, txn: Write, prefix: bytes) -> _Session:
        """Read from the tree what is to be known of a session."""
        watermark = used_ms = 0
        state = txn.get(prefix + b"\x00")
        if state is not None:
            watermark, used_ms = _session.decode(state)
        session = _Session(max(watermark, _highest(txn, prefix) + 1), watermark, used_ms)
        if len(self._known) >= SESSIONS_MAX:
            del self._known[next(iter(self._known))]
        self._known[prefix] = session
        return session

    def forget(self, prefix: bytes) -> None:
        """What is known of a session may be wrong: read it anew."""
        self._known.pop(prefix, None)

    def expire(self, txn: Write, before: datetime) -> list[bytes]:
        """Put sessions last used before ``before`` to rest; which."""
        changed = expire(txn, before)
        for prefix in changed:
            self.forget(prefix)
        return changed


def _prune(txn: Write, prefix: bytes, session: _Session, watermark: int, now_ms: int) -> None:
    """Forget the answers below ``watermark``, and write the session's row."""
    # It never falls: below it are answers that were given and forgotten.
    session.watermark = watermark = max(watermark, session.watermark)
    session.used_ms = now_ms
    txn.delete_range(prefix + b"\x01", prefix + b"\x01" + watermark.to_bytes(8, "big"))
    txn.put(prefix + b"\x00", _encode((watermark, now_ms)))
    session.floor = max(session.floor, watermark)
    session.seen = {sequence for sequence in session.seen if sequence >= session.floor}


def _highest(txn: Write, prefix: bytes) -> int:
    """The highest sequence number that has a row; -1 where none has."""
    last = next(txn.scan(prefix + b"\x01", prefix + b"\x02", reverse=True), None)
    return -1 if last is None else int.from_bytes(last[0][-8:], "big")


RESTING_KEPT = timedelta(days=90)
"""How long a session at rest is remembered. No client retries for that long."""


def expire(txn: Write, before: datetime, sessions_max: int = 1000) -> list[bytes]:
    """Put sessions last used before ``before`` to rest; which (at most ``sessions_max``)."""
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
    changed: list[bytes] = []
    for prefix, watermark, used_ms in stale:
        highest = _highest(txn, prefix)
        if highest >= 0:
            txn.delete_range(prefix + b"\x01", prefix + b"\x02")
            txn.put(prefix + b"\x00", _encode((max(watermark, highest + 1), used_ms)))
        elif used_ms < forget:
            txn.delete(prefix + b"\x00")
        else:
            continue
        changed.append(prefix)
    return changed
