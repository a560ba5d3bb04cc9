"""Copying a namespace: all that it holds in one state, under another name.

1. `begin` gives the copy a number and notes that it is under way. Nothing knows it by name yet.
2. A snapshot is pinned, and `batches` reads from it; `put` writes each batch, a command of its own.
   Keys differ in the namespace's number only: rows keep their numbers, segments their manifests.
3. Files of segments are the same for both; who makes files may link those of the copy now
   (`NamespaceCopies.link`). One that has none is made again, like any that is lost.
4. `finish` enters the name: the copy is there, whole, or was never there.

Where the process ends before that, or whoever copies gives up, `abandon` makes of what there is a
namespace that was dropped; so does the keeper when the store is opened again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec

from treestore.errors import AlreadyExists, Unavailable
from treestore.model.namespaces import Namespace
from treestore.stores.access import Read, Write
from treestore.stores.json_values import encode, shown
from treestore.stores.keys import unpack_one
from treestore.stores.namespaces import catalog
from treestore.stores.namespaces.catalog import DroppedRecord, Opened
from treestore.stores.namespaces.layout import (
    AFTER,
    COPIES,
    Space,
    check_name,
    check_new_name,
    copy_key,
    dropped_key,
    namespace_key,
)

BATCH_KEYS: Final = 1000
BATCH_SIZE_BYTES: Final = 1 << 20
"""A batch ends when it has so many keys or bytes."""

Pairs = list[tuple[bytes, bytes]]


class CopyRecord(msgspec.Struct):
    """A copy under way: the name that it will have."""

    name: str
    begun_at: datetime


decode_copy = msgspec.msgpack.Decoder(CopyRecord).decode


class CopyHost(Protocol):
    """The running database, as far as copies need it."""

    async def namespaces_copy(self, source: str, name: str) -> Namespace: ...


async def copy(host: CopyHost, source: str, name: str) -> Namespace:
    """Copy a namespace as it is now under another name; returns when the copy is there.

    It takes place in the server, beside everything else. Until it is whole nobody sees it; what
    was begun is removed where it is given up, or the process ends.

    Args:
        source: name of the namespace.
        name: of the copy.

    Raises:
        NotFound: there is no namespace ``source``.
        AlreadyExists: there is one of the copy's name, or came to be meanwhile.
    """
    check_name(source)
    check_new_name(name)
    return await host.namespaces_copy(source, name)


# --- what runs in transactions ---------------------------------------------------------------


def begin(txn: Write, source: str, name: str) -> int:
    """Begin a copy; returns its number."""
    catalog.require(txn, source)
    _check_free(txn, name)
    number = catalog.new_number(txn)
    txn.put(copy_key(number), encode(CopyRecord(name, txn.now)))
    return number


def _check_free(txn: Read, name: str) -> None:
    if txn.get(namespace_key(name)) is not None:
        raise AlreadyExists(f"There is a namespace {shown(name)} already.", namespace=name)


def batches(txn: Read, source: Opened, number: int) -> Iterator[Pairs]:
    """Everything that a namespace holds, with the keys of the copy, in ascending order."""
    pairs: Pairs = []
    size_bytes = 0
    for old, new in zip(source.space.all, Space(number).all, strict=True):
        for key, value in txn.scan(old, old + AFTER):
            pairs.append((new + key[len(old) :], value))
            size_bytes += len(key) + len(value)
            if len(pairs) >= BATCH_KEYS or size_bytes >= BATCH_SIZE_BYTES:
                yield pairs
                pairs, size_bytes = [], 0
    if pairs:
        yield pairs


def put(txn: Write, number: int, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """Write a batch.

    Raises:
        Unavailable: the copy was given up.
    """
    _require(txn, number)
    txn.put_sorted(pairs)


def _require(txn: Read, number: int) -> CopyRecord:
    record = txn.get(copy_key(number))
    if record is None:
        raise Unavailable("The copy was given up; begin it again.")
    return decode_copy(record)


def finish(txn: Write, number: int, source: Opened) -> Namespace:
    """The copy is whole: give it its name.

    Args:
        source: the namespace as it was copied.

    Raises:
        AlreadyExists: there is one of that name by now.
        Unavailable: the copy was given up.
    """
    name = _require(txn, number).name
    _check_free(txn, name)
    txn.delete(copy_key(number))
    return catalog.found(txn, name, number, source.schema).described(name)


def abandon(txn: Write, number: int) -> bool:
    """Give a copy up; returns whether it was under way."""
    place = copy_key(number)
    record = txn.get(place)
    if record is None:
        return False
    txn.delete(place)
    txn.put(dropped_key(number), encode(DroppedRecord(decode_copy(record).name, txn.now)))
    return True


def under_way(txn: Read) -> list[int]:
    """Numbers of the copies that are under way."""
    # Not the key that they begin with itself: that is the next number.
    return [
        int(str(unpack_one(key, len(COPIES))[0]))
        for key, _ in txn.scan(COPIES + b"\0", COPIES + AFTER)
    ]
