"""What a namespace that is gone has left behind, removed in small steps.

`step` is called again and again, each time in a transaction of its own, until nothing is left. It
looks for itself what there is, so it does not matter who calls it, nor whether the process was a
different one in between.
"""

from __future__ import annotations

from typing import Final

from treestore.stores.access import Read, Write
from treestore.stores.json_values import encode
from treestore.stores.keys import Keyspace, successor, unpack_one
from treestore.stores.namespaces.catalog import DROPPED_KEPT, DroppedRecord, decode_dropped
from treestore.stores.namespaces.layout import AFTER, Space, dropped_key

STEP_KEYS: Final = 5000
"""Keys that a step removes, about: some milliseconds of work."""


def pending(txn: Read) -> list[int]:
    """Numbers of the namespaces that are gone and have left something behind."""
    space = Keyspace.NAMESPACES_DROPPED
    return [
        int(str(unpack_one(key, 1)[0]))
        for key, record in txn.scan(space, successor(space))
        if not decode_dropped(record).emptied
    ]


def step(txn: Write, number: int, *, keys_max: int = STEP_KEYS) -> bool:
    """Remove some of what is left; returns whether there is more."""
    place = dropped_key(number)
    record = txn.get(place)
    if record is None:
        return False
    dropped = decode_dropped(record)
    if dropped.emptied:
        return False
    left = keys_max
    for prefix in Space(number).all:
        while left > 0 and (end := _behind(txn, prefix, left)) is not None:
            left -= txn.delete_range(prefix, end)
        if left <= 0:
            return True
    txn.put(place, encode(DroppedRecord(dropped.name, dropped.dropped_at, emptied=True)))
    _forget(txn)
    return False


def _behind(txn: Read, prefix: bytes, count: int) -> bytes | None:
    """Behind the first ``count`` keys, or a leaf more; None where there is none."""
    last = None
    for keys in txn.key_batches(prefix, prefix + AFTER):
        last = keys[-1]
        count -= len(keys)
        if count <= 0:
            break
    return None if last is None else last + b"\0"


def _forget(txn: Write) -> None:
    """Forget the names that no feed asks for any more."""
    space = Keyspace.NAMESPACES_DROPPED
    before = txn.now - DROPPED_KEPT
    old = [
        key
        for key, record in txn.scan(space, successor(space))
        if (dropped := decode_dropped(record)).emptied and dropped.dropped_at < before
    ]
    for key in old:
        txn.delete(key)
