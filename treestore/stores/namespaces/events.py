"""What the log's notes say of rows: for indexes that follow it.

A note is what ``treestore.engine.changes.notes_of`` gives: a key and its new value, or None where
it was removed; or a pair of keys and None where a range was. `events` says what that means, one
note at a time. What one transaction does comes in any order within it, and is to be taken as one:

* a document that is stored or patched: `Stored` with its row, `Vector` with that row's vector, and
  `InTail`; where it was there before, `Died` with its old row;
* a document that is removed: `Died`;
* a seal: `SegmentPut`, and `LeftTail` of its rows (those that died before stay dead);
* segments that are replaced: `SegmentPut`, `SegmentRemoved`; no row is born, none dies;
* a segment that is forgotten: `SegmentRemoved`, and `InTail` of rows that are known;
* a schema that changes, and a namespace that is made, or appears when its copy is whole:
  `NamespacePut`; the rows of a copy came before it, in many transactions;
* a namespace that is dropped: `NamespaceRemoved`; later, when it is cleaned up, `Cleared`.

The row of a `Died` may be unknown to somebody who began to follow later. A row's number is never
given again, but for one case: where the clock fell back, one that died while it was in the tail.
So `Stored` with a row that is known is a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from treestore.stores.keys import Keyspace, unpack_one
from treestore.stores.namespaces.catalog import decode_namespace
from treestore.stores.namespaces.layout import row_in, row_of
from treestore.stores.namespaces.manifests import SegmentManifest, decode_manifest


@attrs.frozen
class Stored:
    """A document has a new row.

    Attributes:
        number: of the namespace, here and below.
        packed_id: of the document.
        record: see `treestore.stores.namespaces.layout`: `attributes_of`, `decode_document`.
    """

    number: int
    row: int
    packed_id: bytes
    record: bytes


@attrs.frozen
class Vector:
    """The vector of a new row: little-endian float32, empty where there is none."""

    number: int
    row: int
    vector: bytes


@attrs.frozen
class Died:
    """The document gave the row up, wherever that is."""

    number: int
    row: int


@attrs.frozen
class InTail:
    """The row is in the tail now."""

    number: int
    row: int
    packed_id: bytes


@attrs.frozen
class LeftTail:
    """Rows from ``first`` to ``last`` are in the tail no more, for they were sealed or died."""

    number: int
    first: int
    last: int


@attrs.frozen
class SegmentPut:
    """There is a segment, or its manifest changed."""

    number: int
    segment: int
    manifest: SegmentManifest


@attrs.frozen
class SegmentRemoved:
    """There is a segment no more."""

    number: int
    segment: int


@attrs.frozen
class NamespacePut:
    """There is a namespace, or its schema changed. Its record: `catalog.opened`."""

    number: int
    name: str
    record: bytes


@attrs.frozen
class NamespaceRemoved:
    """A namespace is gone (its number is in `NamespacePut`)."""

    name: str


@attrs.frozen
class Cleared:
    """Keys of a namespace that is gone are being removed."""

    number: int


Event = (
    Stored
    | Vector
    | Died
    | InTail
    | LeftTail
    | SegmentPut
    | SegmentRemoved
    | NamespacePut
    | NamespaceRemoved
    | Cleared
)

_DOCUMENTS = Keyspace.NAMESPACE_DOCUMENTS[0]
_VECTORS = Keyspace.NAMESPACE_VECTORS[0]
_TAIL = Keyspace.NAMESPACE_TAIL[0]
_SEGMENTS = Keyspace.NAMESPACE_SEGMENTS[0]
_NAMESPACES = Keyspace.NAMESPACES[0]

KEYSPACES = bytes((_DOCUMENTS, _VECTORS, _TAIL, _SEGMENTS, _NAMESPACES))
"""First bytes of keys that mean something here."""


def events(what: Any, value: bytes | None) -> Iterator[Event]:
    """What a note means; nothing for most.

    Args:
        what: a key, or a pair of keys.
        value: None where it was removed.
    """
    if not isinstance(what, bytes):
        yield from _cleared(what[0], what[1])
        return
    space = what[0] if what else 0
    if space == _NAMESPACES:
        yield from _namespace(what, value)
        return
    if space not in KEYSPACES:
        return
    number, at = unpack_one(what, 1)
    assert isinstance(number, int)
    if space == _DOCUMENTS:
        if value is not None:
            yield Stored(number, row_of(value), what[at:], value)
    elif space == _VECTORS:
        row = row_in(what)
        yield Died(number, row) if value is None else Vector(number, row, value)
    elif space == _TAIL:
        row = row_in(what)
        yield LeftTail(number, row, row) if value is None else InTail(number, row, value)
    else:
        segment, end = unpack_one(what, at)
        assert isinstance(segment, int)
        if end == len(what):  # No part of its rows.
            if value is None:
                yield SegmentRemoved(number, segment)
            else:
                yield SegmentPut(number, segment, decode_manifest(value))


def _namespace(key: bytes, value: bytes | None) -> Iterator[Event]:
    name, _ = unpack_one(key, 1)
    if not isinstance(name, str):
        return  # The next number, or a copy under way.
    if value is None:
        yield NamespaceRemoved(name)
    else:
        yield NamespacePut(decode_namespace(value).number, name, value)


def _cleared(start: bytes, end: bytes | None) -> Iterator[Event]:
    space = start[0] if start else 0
    if space not in KEYSPACES or space == _NAMESPACES:
        return
    number, at = unpack_one(start, 1)
    assert isinstance(number, int)
    if space == _TAIL and end is not None and len(start) == at + 9 and len(end) == at + 10:
        # The end is the last key and a zero byte.
        yield LeftTail(number, row_in(start), row_in(end[:-1]))
    elif space != _SEGMENTS:
        yield Cleared(number)
