"""Verifies namespaces: documents, rows and segments against each other, both ways.

Memory grows with the rows of one namespace's segments, eight bytes each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from treestore.errors import InvalidArgument
from treestore.stores.access import Read
from treestore.stores.documents.layout import decode_any
from treestore.stores.json_values import shown
from treestore.stores.keys import Keyspace, successor, unpack, unpack_one
from treestore.stores.namespaces.catalog import Opened, decode_dropped, opened
from treestore.stores.namespaces.copying import under_way
from treestore.stores.namespaces.imports import import_key, rejecting_imports, stagings
from treestore.stores.namespaces.layout import (
    AFTER,
    FIRST_NAMESPACE,
    NEXT_NUMBER_KEY,
    ROW_SPACES,
    decode_document,
    is_well_formed,
    packed_row,
    row_of,
    unpacked_id,
)
from treestore.stores.namespaces.manifests import manifests
from treestore.stores.namespaces.segments import Rows, dead_rows, segment_rows
from treestore.stores.namespaces.vectors import checked
from treestore.stores.records.check import readable


def check_namespaces(txn: Read) -> list[str]:
    """What is wrong with namespaces; empty where nothing is."""
    return readable("namespaces", lambda: _check(txn))


def _check(txn: Read) -> Iterator[str]:
    names: dict[int, str] = {}
    next_number = decode_any(txn.get(NEXT_NUMBER_KEY) or b"\x01")
    for key, record in txn.scan(FIRST_NAMESPACE, FIRST_NAMESPACE + AFTER):
        name = str(unpack(key[1:])[0])
        there = opened(record)
        if there.number in names or there.number >= next_number:
            yield f"The number of namespace {shown(name)} is another's, or was never given."
        names[there.number] = name
        yield from _check_namespace(txn, f"namespace {shown(name)}", there)
    yield from _check_spaces(txn, names)


# --- one namespace ---------------------------------------------------------------------------


def _check_namespace(txn: Read, where: str, there: Opened) -> Iterator[str]:
    segments = _Segments(txn, there.number)
    yield from segments.check(where)
    documents = in_tail = 0
    prefix = there.space.documents
    for key, record in txn.scan(prefix, prefix + AFTER):
        packed = key[len(prefix) :]
        documents += 1
        if not is_well_formed(record):
            yield f"The document of {where} at key {key.hex()} is none."
            continue
        for wrong in _check_document(txn, there, packed, record):
            yield f"Document {shown(unpacked_id(packed))} of {where} {wrong}."
        row = row_of(record)
        tailed = txn.get(there.space.tail + packed_row(row))
        in_tail += tailed is not None
        if tailed is not None and tailed != packed:
            yield f"Row {row} of {where} is in the tail with another document's id."
        if (tailed is not None) + segments.holds(row) != 1:
            yield f"Row {row} of {where} is not in exactly one of the tail and one segment."
        if segments.is_dead(row):
            yield f"Row {row} of {where} has a document, and is dead."
    # Each document has what it needs; so where there are as many of all, there is nothing else.
    found = _count(txn, there.space.tail)
    if found != in_tail:
        yield f"The tail of {where} has {found} rows, of which documents have {in_tail}."
    found = _count(txn, there.space.vectors)
    if found != documents:
        yield f"{where.capitalize()} has {documents} documents and {found} keys of vectors."
    live = segments.live
    if live != documents - in_tail:
        yield f"The segments of {where} have {live} live rows, documents {documents - in_tail}."


def _check_document(txn: Read, there: Opened, packed: bytes, record: bytes) -> Iterator[str]:
    """What is wrong with one, its row's place aside."""
    document = decode_document(record)
    if document.id != unpacked_id(packed) or document.row != row_of(record):
        yield "has another one's id or row"
    try:
        if there.attributes.check(document.attributes) != document.attributes:
            yield "has an attribute in another form than the one that is kept"
    except InvalidArgument as error:
        yield f"does not fit the schema: {error.message}"
    vector = txn.get(there.space.vectors + packed_row(document.row))
    if vector is None:
        yield "has no key of its vector"
    elif vector:
        schema = there.schema.vector
        if schema is None:
            yield "has a vector, and the schema has none"
            return
        try:
            checked(vector, schema)
        except InvalidArgument as error:
            yield f"has a vector that does not fit: {error.message}"


def _count(txn: Read, prefix: bytes) -> int:
    return sum(map(len, txn.key_batches(prefix, prefix + AFTER)))


class _Segments:
    """The rows of a namespace's segments."""

    def __init__(self, txn: Read, number: int) -> None:
        self._txn = txn
        self._number = number
        self._manifests = manifests(txn, number)
        parts = [segment_rows(txn, number, segment) for segment, _ in self._manifests]
        self._parts = parts
        rows = np.concatenate(parts) if parts else np.empty(0, np.int64)
        self._rows: Rows = np.sort(rows)
        self._dead = dead_rows(txn, number)

    @property
    def live(self) -> int:
        """How many rows are not dead."""
        return len(self._rows) - len(self._dead)

    def holds(self, row: int) -> int:
        """How many segments have a row."""
        rows: Any = self._rows
        return int(np.searchsorted(rows, row, "right") - np.searchsorted(rows, row))

    def is_dead(self, row: int) -> bool:
        """Whether a row is one of the dead."""
        at = int(np.searchsorted(self._dead, row))
        return at < len(self._dead) and int(self._dead[at]) == row

    def check(self, where: str) -> Iterator[str]:
        """What is wrong with manifests and dead rows."""
        uuids: set[str] = set()
        for (segment, manifest), rows in zip(self._manifests, self._parts, strict=True):
            if manifest.rows != len(rows):
                yield (
                    f"Segment {segment} of {where} has {len(rows)} rows, and its manifest says "
                    f"{manifest.rows}."
                )
            if len(rows) and (np.diff(rows) <= 0).any():
                yield f"The rows of segment {segment} of {where} do not ascend."
            if manifest.uuid in uuids:
                yield f"Segment {segment} of {where} has the uuid of another one."
            uuids.add(manifest.uuid)
        for row in self._rows[:-1][np.diff(self._rows) == 0].tolist():
            yield f"Row {row} of {where} is in two segments."
        for row in self._dead[~np.isin(self._dead, self._rows)].tolist():
            yield f"Row {row} of {where} is dead, and in no segment."


# --- everything belongs to a namespace -------------------------------------------------------


def _check_spaces(txn: Read, names: dict[int, str]) -> Iterator[str]:
    known = set(names)
    copies = under_way(txn)
    for number in copies:
        if number in known:
            yield f"The copy with number {number} is under way, and there already."
    known.update(copies)
    known.update(stagings(txn))
    space = Keyspace.NAMESPACES_DROPPED
    for key, record in txn.scan(space, successor(space)):
        (gone,) = unpack(key[1:])
        if gone in known:
            yield f"The namespace with number {gone} is there, and yet dropped."
        if not decode_dropped(record).emptied:
            assert isinstance(gone, int)
            known.add(gone)
    for first in ROW_SPACES:
        start = bytes((first,))
        while entry := txn.first(start, bytes((first + 1,))):
            found, end = unpack_one(entry[0], 1)
            if found not in known:
                yield f"There are rows of a namespace with number {found!r}, which there is not."
            start = entry[0][:end] + AFTER
    for name, import_id in rejecting_imports(txn):
        if txn.get(import_key(name, import_id)) is None:
            yield (
                f"There are rejected lines of import {shown(import_id)} into namespace "
                f"{shown(name)}, which there is not."
            )
