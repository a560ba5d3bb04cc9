"""Which collections there are, and which indexes they have."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from treestore.errors import AlreadyExists, InvalidArgument, NotFound
from treestore.model.collections import Collection, CollectionIndex
from treestore.model.page import Page
from treestore.stores.access import Read, Write
from treestore.stores.collections.indexes import INDEXES_MAX, Definition, Index, IndexRecord
from treestore.stores.collections.layout import (
    AFTER,
    FIRST_COLLECTION,
    NEXT_ID_KEY,
    build_key,
    collection_key,
    documents_prefix,
    dropped_key,
)
from treestore.stores.json_values import encode, shown
from treestore.stores.keys import Keyspace, successor, unpack_one
from treestore.stores.records.fields import LIMIT_MAX, to_count
from treestore.stores.records.listing import Cursors

if TYPE_CHECKING:
    from treestore.stores.collections.prepared import Prepared

DROPPED_KEPT: Final = timedelta(days=7)
"""How long the name of a dropped collection is kept for feeds that fell behind."""


class CollectionRecord(msgspec.Struct):
    """A collection, as it is stored."""

    id: int
    created_at: datetime
    indexes: list[IndexRecord]


class BuildRecord(msgspec.Struct):
    """How far the build of an index has come.

    Attributes:
        collection: its name.
        after: the packed id of the last document that was looked at; empty before the first.
        documents: how many were.
    """

    collection: str
    after: bytes = b""
    documents: int = 0


class DroppedRecord(msgspec.Struct):
    """A collection that is gone."""

    name: str
    dropped_at: datetime


decode_collection = msgspec.msgpack.Decoder(CollectionRecord).decode
decode_build = msgspec.msgpack.Decoder(BuildRecord).decode
decode_dropped = msgspec.msgpack.Decoder(DroppedRecord).decode
_decode_id = msgspec.msgpack.Decoder(int).decode


class Opened:
    """A collection with its indexes, ready for work. Belongs to its record, and never changes, but
    for what is remembered.

    Attributes:
        id: of the collection.
        indexes: all of them.
        live: those that writers maintain.
        ready: those that queries may use.
        infos: what a planner knows of those.
        documents: what the keys of its documents begin with.
        prepared: what `treestore.stores.collections.prepared` remembers: how to answer queries of
            a shape. (It follows from the record alone; nothing else here changes.)
    """

    __slots__ = ("created_at", "documents", "id", "indexes", "infos", "live", "prepared", "ready")

    def __init__(self, record: CollectionRecord) -> None:
        self.id = record.id
        self.created_at = record.created_at
        self.indexes = tuple(map(Index, record.indexes))
        self.live = tuple(index for index in self.indexes if index.live)
        self.ready = tuple(index for index in self.indexes if index.ready)
        self.infos = tuple(index.info for index in self.ready)
        self.documents = documents_prefix(record.id)
        self.prepared: dict[Any, Prepared] = {}

    def named(self, name: str) -> Index | None:
        """The index of that name."""
        return next((index for index in self.indexes if index.name == name), None)

    def numbered(self, index_id: int) -> Index | None:
        """The index with that id."""
        return next((index for index in self.indexes if index.id == index_id), None)


@lru_cache(maxsize=1024)
def opened(record: bytes) -> Opened:
    """The collection of a record. Every operation begins here, so it is not decoded each time."""
    return Opened(decode_collection(record))


def find(txn: Read, name: str) -> Opened | None:
    """The collection of that name, or None."""
    record = txn.get(collection_key(name))
    return None if record is None else opened(record)


def require(txn: Read, name: str) -> Opened:
    """The collection of that name.

    Raises:
        NotFound: there is none.
    """
    record = txn.get(collection_key(name))
    if record is None:
        raise no_collection(name)
    return opened(record)


def no_collection(name: str) -> NotFound:
    """The error for a collection that does not exist."""
    return NotFound(f"There is no collection {shown(name)}.", collection=name)


def require_index(collection: Opened, name: str, index_name: Any) -> Index:
    """The index of that name.

    Raises:
        NotFound: there is none.
    """
    index = collection.named(index_name) if isinstance(index_name, str) else None
    if index is None:
        raise NotFound(
            f"Collection {shown(name)} has no index {shown(index_name)}.", collection=name
        )
    return index


def save(txn: Write, name: str, collection: Opened, indexes: list[IndexRecord]) -> Opened:
    """Store other indexes of a collection."""
    record = encode(CollectionRecord(collection.id, collection.created_at, indexes))
    txn.put(collection_key(name), record)
    return opened(record)


def changed_record(record: IndexRecord, **fields: Any) -> IndexRecord:
    """An index's record with other values of some fields."""
    return msgspec.structs.replace(record, **fields)


def changed(collection: Opened, index: Index, **fields: Any) -> list[IndexRecord]:
    """The records of a collection's indexes, one of them changed."""
    return [
        changed_record(each.record, **fields) if each is index else each.record
        for each in collection.indexes
    ]


def new_id(txn: Write) -> int:
    """An id of a collection or an index, never given again."""
    record = txn.get(NEXT_ID_KEY)
    id = 1 if record is None else _decode_id(record)
    txn.put(NEXT_ID_KEY, encode(id + 1))
    return id


def found(txn: Write, name: str, definitions: list[Definition]) -> Opened:
    """Make a collection that does not exist."""
    id = new_id(txn)
    indexes = [each.record(new_id(txn), "ready") for each in definitions]
    record = encode(CollectionRecord(id, txn.now, indexes))
    txn.put(collection_key(name), record)
    return opened(record)


def find_or_make(txn: Write, name: str) -> Opened:
    """The collection of that name; made where there is none."""
    return find(txn, name) or found(txn, name, [])


# --- operations ------------------------------------------------------------------------------


def create(
    txn: Write, name: str, *, indexes: Sequence[str | list[str] | dict[str, Any]] = ()
) -> Collection:
    """Make a collection. (Inserting into one that does not exist makes it, too.)

    Args:
        name: 1 to 200 bytes of UTF-8.
        indexes: each is a dotted path, a list of such paths (a compound index), or a dict with
            ``fields`` and ``unique``, ``sparse``, ``name``.

    Raises:
        AlreadyExists: there is one of that name.
        InvalidArgument: the name or an index is none.
    """
    key = collection_key(name)
    if not isinstance(indexes, list | tuple):
        raise InvalidArgument(f"indexes is a list, not {shown(indexes)}.")
    definitions = list(map(Definition.parse, indexes))
    if len({each.name for each in definitions}) < len(definitions):
        raise InvalidArgument("Two of the indexes have one name.")
    if len(definitions) > INDEXES_MAX:
        raise InvalidArgument(f"A collection has at most {INDEXES_MAX} indexes.")
    if txn.get(key) is not None:
        raise AlreadyExists(f"There is a collection {shown(name)} already.", collection=name)
    return _described(txn, name, found(txn, name, definitions))


def drop(txn: Write, name: str) -> bool:
    """Remove a collection with its documents and indexes; returns whether there was one."""
    collection = find(txn, name)
    if collection is None:
        return False
    for index in collection.indexes:
        remove_entries(txn, index)
    txn.delete_range(collection.documents, collection.documents + AFTER)
    txn.delete(collection_key(name))
    _forget_dropped(txn)
    txn.put(dropped_key(collection.id), encode(DroppedRecord(name, txn.now)))
    return True


def _forget_dropped(txn: Write) -> None:
    """Feeds do not reach back as far."""
    space = Keyspace.COLLECTIONS_DROPPED
    before = txn.now - DROPPED_KEPT
    old = [
        key
        for key, record in txn.scan(space, successor(space))
        if decode_dropped(record).dropped_at < before
    ]
    for key in old:
        txn.delete(key)


def remove_entries(txn: Write, index: Index) -> None:
    """Remove what an index holds, and its build where there is one."""
    txn.delete_range(index.prefix, index.prefix + AFTER)
    txn.delete(build_key(index.id))


def list_collections(
    txn: Read, *, prefix: str = "", limit: int = 100, cursor: str | None = None
) -> Page[Collection]:
    """Collections, by name.

    Args:
        prefix: only those whose name begins with it.
        limit: at most this many, 1 to 10,000.
        cursor: ``next_cursor`` of the page before; stays good while others write.
    """
    to_count(limit, "limit", 1, LIMIT_MAX)
    start = FIRST_COLLECTION
    if prefix != "":
        start = collection_key(prefix)[:-1]
    end = start + AFTER
    cursors = Cursors(("collections", prefix))
    if cursor is not None:
        start = max(start, FIRST_COLLECTION + cursors.position(cursor) + b"\0")
    items: list[Collection] = []
    last = b""
    for key, record in txn.scan(start, end):
        if len(items) == limit:
            return Page(items, cursors.after(last))
        last = key[len(FIRST_COLLECTION) :]
        items.append(_described(txn, str(unpack_one(key, 1)[0]), opened(record)))
    return Page(items, None)


def describe(txn: Read, name: str) -> Collection:
    """A collection with its indexes, and how far those have come that are being built.

    Raises:
        NotFound: there is no such collection.
    """
    return _described(txn, name, require(txn, name))


def _described(txn: Read, name: str, collection: Opened) -> Collection:
    return Collection(
        name=name,
        created_at=collection.created_at,
        indexes=tuple(described_index(txn, index) for index in collection.indexes),
    )


def described_index(txn: Read, index: Index) -> CollectionIndex:
    """An index as users see it."""
    record = index.record
    done: int | None = None
    if record.state == "building":
        build = txn.get(build_key(index.id))
        done = None if build is None else decode_build(build).documents
    return CollectionIndex(
        name=record.name,
        fields=index.fields,
        unique=record.unique,
        sparse=record.sparse,
        multikey=record.multikey,
        state=record.state,
        error=record.error,
        conflict=record.conflict,
        documents_done=done,
    )


def drop_index(txn: Write, name: str, index_name: str) -> bool:
    """Remove an index, or stop building it; returns whether there was one.

    Raises:
        NotFound: there is no such collection.
    """
    collection = require(txn, name)
    index = collection.named(index_name) if isinstance(index_name, str) else None
    if index is None:
        return False
    remove_entries(txn, index)
    save(txn, name, collection, [each.record for each in collection.indexes if each is not index])
    return True
