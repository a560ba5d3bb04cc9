"""The ``kv`` service: keys and values as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import lt
from typing import Any

from treestore.errors import InvalidArgument
from treestore.stores.access import Read, Write
from treestore.stores.operation import A, Command, M, Query, Service, Stream

KEYSPACE = b"\x01"
"""First byte of every key of this service in the tree."""

BATCH_STEP = 4096
"""Pairs of a batch that are put in order and stored together: sorting more of them in one call
would stop the other threads for longer than two milliseconds."""

KEY_SIZE_BYTES_MAX = 1000
"""Longest key a caller may use; the engine's own limit leaves room for the keyspace."""


def _bytes(what: str, value: Any) -> bytes:
    """``value`` as bytes; anything like bytes will do, as it does over the wire."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise InvalidArgument(f"{what} is bytes, not {type(value).__name__}; encode it first.")


def _key(key: bytes) -> bytes:
    key = _bytes("A key", key)
    if not key:
        raise InvalidArgument("A key must not be empty.")
    if len(key) > KEY_SIZE_BYTES_MAX:
        raise InvalidArgument(
            f"The key has {len(key)} bytes; a key has at most {KEY_SIZE_BYTES_MAX}."
        )
    return KEYSPACE + key


def _value(value: bytes) -> bytes:
    return _bytes("A value", value)


def _bound(name: str, key: bytes | None) -> bytes | None:
    if key is None:
        return None
    return KEYSPACE + _bytes(name, key)


def successor(prefix: bytes) -> bytes | None:
    """The first key after every key that starts with ``prefix``; None where there is none."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def get(txn: Read, key: bytes) -> bytes | None:
    """The value of ``key``, or None where it is absent."""
    if key.__class__ is bytes and 0 < len(key) <= KEY_SIZE_BYTES_MAX:
        return txn.get(KEYSPACE + key)
    return txn.get(_key(key))


def put(txn: Write, key: bytes, value: bytes) -> None:
    """Set ``key`` to ``value``. Durable when it returns.

    Args:
        key: 1 to 1,000 bytes.
        value: up to 100 MB.
    """
    txn.put(_key(key), _value(value))


def delete(txn: Write, key: bytes) -> bool:
    """Remove ``key``; returns whether it was there."""
    return txn.delete(_key(key))


def scan(
    txn: Read,
    *,
    start: bytes | None = None,
    end: bytes | None = None,
    prefix: bytes | None = None,
    reverse: bool = False,
    limit: int | None = None,
) -> Iterator[list[tuple[bytes, bytes]]]:
    """Every ``(key, value)`` of one snapshot in key order.

    Args:
        start: first key, inclusive (default: the first there is).
        end: where to stop, exclusive (default: after the last).
        prefix: only keys that begin with it; combines with ``start`` and ``end``.
        reverse: from the last key to the first.
        limit: at most this many items.

    Raises:
        SnapshotExpired: the scan took so long, or kept so much from being used again, that its
            snapshot was evicted. To go on on a new one, scan again with ``start=error.cursor``
            (``end=error.cursor`` where ``reverse``) and ``limit`` less what was delivered; with the
            same arguments where ``error.cursor`` is None. Nothing is left out or given twice,
            but what comes is of the newer snapshot.
    """
    low = _bound("start", start) or KEYSPACE
    high = _bound("end", end) or successor(KEYSPACE)
    if prefix is not None:
        first = _bound("prefix", prefix) or KEYSPACE
        after = successor(first)
        low = max(low, first)
        high = after if high is None or (after is not None and after < high) else high
    if not isinstance(reverse, bool):
        raise InvalidArgument(f"reverse is True or False, not {reverse!r:.40}.")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise InvalidArgument(f"limit is a number of items, 0 or more, not {limit!r}.")
    return _batches(txn, low, high, reverse, limit)


def _batches(
    txn: Read, low: bytes, high: bytes | None, reverse: bool, limit: int | None
) -> Iterator[list[tuple[bytes, bytes]]]:
    left = limit
    if left == 0:
        return
    for keys, values in txn.batches(low, high, reverse=reverse):
        batch = [(key[1:], value) for key, value in zip(keys, values, strict=True)]
        if left is not None:
            if left <= len(batch):
                yield batch[:left]
                return
            left -= len(batch)
        yield batch


def _scan_cursor(item: tuple[bytes, bytes], *, reverse: bool = False, **_: Any) -> bytes:
    """Where a scan goes on after ``item``: the next key there can be, or, backwards, before it."""
    return item[0] if reverse else item[0] + b"\0"


def batch(
    txn: Write, puts: Sequence[tuple[bytes, bytes]] = (), deletes: Sequence[bytes] = ()
) -> None:
    """Set and remove many keys at once: all of it or, on any error, nothing.

    Deletes are applied after the puts; a key named twice takes its last put.
    """
    try:
        pairs = iter(puts)
        keys = [_key(key) for key in deletes]
        while step := list(islice(pairs, BATCH_STEP)):
            txn.put_sorted(_in_order(step))
    except (TypeError, ValueError):
        raise InvalidArgument(
            "puts is a list of (key, value) pairs, and deletes a list of keys."
        ) from None
    for key in keys:
        txn.delete(key)


def _in_order(puts: Sequence[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """Checked pairs for the tree, ascending; of a key named twice the last."""
    keys = [key for key, _ in puts]
    values = [value for _, value in puts]
    plain = set(map(type, keys)) == {bytes}
    if plain and b"" not in keys and max(map(len, keys)) <= KEY_SIZE_BYTES_MAX:
        keys = [KEYSPACE + key for key in keys]
    else:
        keys = [_key(key) for key in keys]
    if set(map(type, values)) != {bytes}:
        values = [_value(value) for value in values]
    if all(map(lt, keys, islice(keys, 1, None))):
        return zip(keys, values, strict=True)
    return sorted(dict(zip(keys, values, strict=True)).items())


class KV(Service[M, A]):
    """Plain keys and values."""

    service_name = "kv"

    get = Query(get)
    put = Command(put, idempotent=True)
    delete = Command(delete)
    scan = Stream(scan, cursor=_scan_cursor)
    batch = Command(batch, idempotent=True)
