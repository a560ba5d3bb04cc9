"""Verifies collections: documents and the entries of their indexes against each other, both ways.

Memory does not grow with the documents: each index is counted, and gone through only where the
counts differ.
"""

from __future__ import annotations

from collections.abc import Iterator

from treestore.errors import TreeStoreError
from treestore.stores.access import Read
from treestore.stores.collections.catalog import Opened, decode_build, decode_dropped, opened
from treestore.stores.collections.indexes import Index
from treestore.stores.collections.layout import (
    AFTER,
    FIRST_COLLECTION,
    NEXT_ID_KEY,
    Document,
    build_key,
    decode_document,
    given_id,
    unpacked_id,
)
from treestore.stores.documents.layout import decode_any
from treestore.stores.json_values import shown
from treestore.stores.keys import Keyspace, successor, unpack, unpack_one
from treestore.stores.records.check import readable


def check_collections(txn: Read) -> list[str]:
    """What is wrong with collections and their indexes; empty where nothing is."""
    return readable("collections", lambda: _check(txn))


def _check(txn: Read) -> Iterator[str]:
    collections: dict[int, str] = {}
    indexes: dict[int, str] = {}
    next_id = decode_any(txn.get(NEXT_ID_KEY) or b"\x01")
    for key, record in txn.scan(FIRST_COLLECTION, FIRST_COLLECTION + AFTER):
        name = str(unpack(key[1:])[0])
        collection = opened(record)
        where = f"collection {shown(name)}"
        ids = [collection.id, *(index.id for index in collection.indexes)]
        for id in ids:
            if id in collections or id in indexes or id >= next_id or ids.count(id) > 1:
                yield f"Id {id} of {where} is also another's, or was never given."
        collections[collection.id] = name
        indexes.update((index.id, name) for index in collection.indexes)
        yield from _check_documents(txn, where, collection)
        for index in collection.indexes:
            yield from _check_build(txn, name, collection, index)
    yield from _check_spaces(txn, collections, indexes)


def _check_documents(txn: Read, where: str, collection: Opened) -> Iterator[str]:
    """The documents, that each has its entries, and that there are no others."""
    prefix = collection.documents
    expected = dict.fromkeys(collection.indexes, 0)
    reached = {index: _built_up_to(txn, index) for index in collection.live}
    for key, record in txn.scan(prefix, prefix + AFTER):
        packed = key[len(prefix) :]
        document = decode_document(record)
        if given_id(document) != unpacked_id(packed):
            yield f"The document of {where} at key {key.hex()} has another one's id."
        for index, until in reached.items():
            entries, multikey = _entries(index, document)
            missing = [entry for entry in entries if txn.get(index.prefix + entry + packed) is None]
            expected[index] += len(entries) - len(missing)
            complete = until is None or packed <= until
            if multikey and not index.multikey and (complete or (entries and not missing)):
                yield f"Index {shown(index.name)} of {where} is not marked multikey, and should be."
            if missing and complete:
                yield (
                    f"Index {shown(index.name)} of {where} lacks the entry of document "
                    f"{shown(unpacked_id(packed))}."
                )
    for index, count in expected.items():
        found = sum(len(keys) for keys, _ in txn.batches(index.prefix, index.prefix + AFTER))
        if found != count:
            yield from _check_entries(txn, where, collection, index)
        if index.unique and index.live:
            yield from _check_unique(txn, where, collection, index)


def _entries(index: Index, document: Document) -> tuple[list[bytes], bool]:
    """The entries of a document; none where it cannot be in the index, whose build will fail."""
    try:
        return index.entries(document)
    except TreeStoreError:
        if index.ready:
            raise ValueError(f"a document that index {index.name!r:.60} cannot hold") from None
        return [], False


def _built_up_to(txn: Read, index: Index) -> bytes | None:
    """The packed id up to which an index must be complete; None: all of it."""
    if index.ready:
        return None
    row = txn.get(build_key(index.id))
    return b"" if row is None else decode_build(row).after


def _check_entries(txn: Read, where: str, collection: Opened, index: Index) -> Iterator[str]:
    """Each entry leads to a document that has it."""
    prefix = index.prefix
    for key, _ in txn.scan(prefix, prefix + AFTER):
        try:
            entry, packed = index.split(key)
        except ValueError:
            yield f"Key {key.hex()} is no entry of index {shown(index.name)} of {where}."
            continue
        record = txn.get(collection.documents + packed) if index.live else None
        if record is None or entry not in _entries(index, decode_document(record))[0]:
            yield f"Key {key.hex()} leads to no document of {where}."


def _check_unique(txn: Read, where: str, collection: Opened, index: Index) -> Iterator[str]:
    """Entries that are equal lie side by side; where they were cut the documents decide."""
    last = b""
    group: list[bytes] = []
    for keys, _ in txn.batches(index.prefix, index.prefix + AFTER):
        for key in keys:
            try:
                entry, packed = index.split(key)
            except ValueError:
                continue
            if entry != last:
                last, group = entry, []
            group.append(packed)
            if len(group) > 1 and not _are_apart(txn, collection, index, group):
                yield (
                    f"Index {shown(index.name)} of {where} is unique, and documents "
                    f"{shown(unpacked_id(group[0]))} and {shown(unpacked_id(packed))} have the "
                    "same there."
                )


def _are_apart(txn: Read, collection: Opened, index: Index, group: list[bytes]) -> bool:
    """Whether the last document of a group has no value of another one."""
    records = [txn.get(collection.documents + packed) for packed in group]
    values = [index.values(decode_document(record)) for record in records if record is not None]
    return all(values[-1].isdisjoint(other) for other in values[:-1])


def _check_build(txn: Read, name: str, collection: Opened, index: Index) -> Iterator[str]:
    row = txn.get(build_key(index.id))
    what = f"Index {shown(index.name)} of collection {shown(name)}"
    if index.record.state == "building":
        if row is None:
            yield f"{what} is being built, and nothing says how far."
        elif decode_build(row).collection != name:
            yield f"{what} is being built for another collection."
    elif row is not None:
        yield f"{what} is not being built, and something says how far."


def _check_spaces(txn: Read, collections: dict[int, str], indexes: dict[int, str]) -> Iterator[str]:
    """Everything belongs to a collection or an index that there is."""
    for space, known, what in (
        (Keyspace.COLLECTION_DOCUMENTS, collections, "documents of a collection"),
        (Keyspace.INDEX_ENTRIES, indexes, "entries of an index"),
        (Keyspace.INDEX_BUILDS, indexes, "a build of an index"),
    ):
        start = space
        while entry := txn.first(start, successor(space)):
            id, end = unpack_one(entry[0], 1)
            if id not in known:
                yield f"There are {what} with id {id!r}, which there is not."
            start = entry[0][:end] + AFTER
    for key, record in txn.scan(
        Keyspace.COLLECTIONS_DROPPED, successor(Keyspace.COLLECTIONS_DROPPED)
    ):
        decode_dropped(record)
        if unpack(key[1:])[0] in collections:
            yield f"The collection of key {key.hex()} is there, and yet dropped."
