"""Manifests: which segments a namespace has. `segments` changes them.

A segment has a key for its manifest and, behind that, keys for the rows that it was made of, in
parts. So what belongs to a segment is known without its file, which can be lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from treestore.stores.access import Read
from treestore.stores.keys import Keyspace, pack, successor, unpack, unpack_one
from treestore.stores.namespaces.layout import AFTER, Space, dropped_key


class SegmentManifest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the tree says of a segment.

    Attributes:
        uuid: 32 hexadecimal digits: names the file, and no other file ever.
        rows: that it was made of, those that died since included. Set when it is stored.
        size_bytes: of the file.
        checksum: of the file.
        created_at: when it was sealed (UTC). Set when it is stored, unless it is there.
        info: whatever who makes and reads the file wants to know of it.
    """

    uuid: str
    rows: int = 0
    size_bytes: int = 0
    checksum: int = 0
    created_at: datetime | None = None
    info: dict[str, Any] = {}


decode_manifest = msgspec.msgpack.Decoder(SegmentManifest).decode


def manifest_key(space: Space, segment: int) -> bytes:
    """Key of a segment's manifest."""
    return space.segments + pack(segment)


def part_key(space: Space, segment: int, part: int) -> bytes:
    """Key of a part of a segment's rows."""
    return space.segments + pack(segment, part)


def manifests(txn: Read, number: int) -> list[tuple[int, SegmentManifest]]:
    """Every segment of a namespace: its number and its manifest, the oldest first."""
    space = Space(number)
    found: list[tuple[int, SegmentManifest]] = []
    for key, record in _manifest_records(txn, space):
        (segment,) = unpack(key[len(space.segments) :])
        assert isinstance(segment, int)
        found.append((segment, decode_manifest(record)))
    return found


def _manifest_records(txn: Read, space: Space) -> Iterator[tuple[bytes, bytes]]:
    """Those of the manifests, the parts skipped."""
    start, end = space.segments, space.segments + AFTER
    while entry := txn.first(start, end):
        yield entry
        start = entry[0] + AFTER


def manifest_of(txn: Read, number: int, segment: int) -> SegmentManifest | None:
    """The manifest of a segment; None where there is none."""
    record = txn.get(manifest_key(Space(number), segment))
    return None if record is None else decode_manifest(record)


def all_names(txn: Read) -> set[str]:
    """The uuids in all manifests of all namespaces, copies and imports under way included; not of
    those that were dropped."""
    space = Keyspace.NAMESPACE_SEGMENTS
    start, end = space, successor(space)
    found: set[str] = set()
    while entry := txn.first(start, end):
        number, behind = unpack_one(entry[0], 1)
        if txn.get(dropped_key(int(str(number)))) is None:
            found.add(decode_manifest(entry[1]).uuid)
            start = entry[0] + AFTER
        else:
            start = entry[0][:behind] + AFTER
    return found
