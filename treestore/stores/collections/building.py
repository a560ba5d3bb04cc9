"""Building an index over documents that are there already, step by step.

`begin` and `begin_again` make an index that is building; from that transaction on every writer
maintains it. `step` is called again and again, each time in a transaction of its own, until the
index is ready or has failed; a progress row says where the next step begins, so it does not matter
who calls it, nor whether the process was a different one in between.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from treestore.errors import AlreadyExists, InvalidArgument, NotFound, TreeStoreError
from treestore.model.collections import CollectionIndex
from treestore.stores.access import Read, Write
from treestore.stores.collections import catalog
from treestore.stores.collections.catalog import BuildRecord, Opened, decode_build
from treestore.stores.collections.indexes import INDEXES_MAX, Definition, Index, IndexRecord
from treestore.stores.collections.layout import AFTER, Document, build_key, decode_document
from treestore.stores.collections.upkeep import Upkeep
from treestore.stores.json_values import encode, shown
from treestore.stores.keys import Keyspace, successor, unpack_one
from treestore.stores.records.fields import to_flag

STEP_DOCUMENTS: Final = 200
"""Documents of one step: a few milliseconds of work."""

STEP_SIZE_BYTES: Final = 256 << 10
"""A step ends when it has decoded so much."""

Progress = Literal["going on", "ended"]


class IndexHost(Protocol):
    """The running database, as far as builds need it."""

    async def collections_begin_index(
        self, name: str, definition: Definition, *, wait: bool
    ) -> CollectionIndex: ...
    async def collections_rebuild_index(
        self, name: str, index_name: str, *, wait: bool
    ) -> CollectionIndex: ...


async def create_index(
    host: IndexHost,
    name: str,
    fields: str | list[str],
    *,
    unique: bool = False,
    sparse: bool = False,
    index_name: str | None = None,
    wait: bool = True,
) -> CollectionIndex:
    """Make an index; returns when it is ready.

    It is built in the background while everything goes on, and also when nobody waits for it any
    more; a build that was interrupted goes on when the store is opened again. On an index that
    exists and is the same, it returns that one; one whose build failed is built anew.

    Args:
        name: the collection.
        fields: a dotted path, or up to 8 of them for a compound index.
        unique: refuse documents that have equal values there.
        sparse: leave out documents that have none of the fields.
        index_name: by default the paths, joined by commas.
        wait: False returns at once; `describe` tells how far it has come.

    Raises:
        NotFound: there is no such collection, or it or the index was dropped meanwhile.
        AlreadyExists: there is another index of that name; or the index is unique, and two
            documents have equal values.
        InvalidArgument: the index is none, or a document cannot be in it.
    """
    definition = Definition.of(fields, unique, sparse, index_name)
    return await host.collections_begin_index(name, definition, wait=to_flag(wait, "wait"))


async def rebuild_index(
    host: IndexHost, name: str, index_name: str, *, wait: bool = True
) -> CollectionIndex:
    """Build an index anew, from nothing; returns when it is ready. Meanwhile queries go without.

    Args:
        wait: False returns at once.

    Raises:
        NotFound: there is no such collection or index, or it was dropped meanwhile.
        AlreadyExists: the index is unique, and two documents have equal values.
        InvalidArgument: a document cannot be in it.
    """
    return await host.collections_rebuild_index(name, index_name, wait=to_flag(wait, "wait"))


# --- what runs in transactions -----------------------------------------------------------------


def begin(txn: Write, name: str, definition: Definition) -> int:
    """Begin to build an index; returns its id. See `create_index`."""
    collection = catalog.require(txn, name)
    index = collection.named(definition.name)
    if index is None:
        if len(collection.indexes) >= INDEXES_MAX:
            raise InvalidArgument(
                f"Collection {shown(name)} has {INDEXES_MAX} indexes, the most; drop one."
            )
        record = definition.record(catalog.new_id(txn), "building")
        _start(txn, name, collection, [each.record for each in collection.indexes], record)
        return record.id
    if not definition.describes(index.record):
        raise AlreadyExists(
            f"Collection {shown(name)} has another index {shown(index.name)}, over "
            f"{', '.join(index.fields)}; drop it, or give this one another index_name.",
            collection=name,
            index_name=index.name,
        )
    return index.id if index.live else begin_again(txn, name, index.name)


def begin_again(txn: Write, name: str, index_name: str) -> int:
    """Begin to build an index that exists anew; returns its new id."""
    collection = catalog.require(txn, name)
    index = catalog.require_index(collection, name, index_name)
    catalog.remove_entries(txn, index)
    record = catalog.changed_record(
        index.record,
        id=catalog.new_id(txn),
        multikey=False,
        state="building",
        error=None,
        conflict=False,
    )
    others = [each.record for each in collection.indexes if each is not index]
    _start(txn, name, collection, others, record)
    return record.id


def _start(
    txn: Write, name: str, collection: Opened, others: list[IndexRecord], record: IndexRecord
) -> None:
    if txn.first(collection.documents, collection.documents + AFTER) is None:
        record = catalog.changed_record(record, state="ready")
    else:
        txn.put(build_key(record.id), encode(BuildRecord(name)))
    catalog.save(txn, name, collection, [*others, record])


def pending(txn: Read) -> list[int]:
    """The ids of the indexes that are being built."""
    space = Keyspace.INDEX_BUILDS
    found = [unpack_one(key, 1)[0] for key, _ in txn.scan(space, successor(space))]
    return [id for id in found if isinstance(id, int)]


def step(
    txn: Write,
    index_id: int,
    *,
    documents_max: int = STEP_DOCUMENTS,
    size_bytes_max: int = STEP_SIZE_BYTES,
) -> Progress:
    """Add the entries of the next documents."""
    place = build_key(index_id)
    row = txn.get(place)
    if row is None:
        return "ended"
    build = decode_build(row)
    collection = catalog.find(txn, build.collection)
    index = None if collection is None else collection.numbered(index_id)
    if collection is None or index is None or index.record.state != "building":
        txn.delete(place)
        return "ended"
    documents = _next_documents(txn, collection, build.after, documents_max, size_bytes_max)
    if not documents:
        # Others may have been marked multikey by writers: that is in the record.
        ready = catalog.changed(collection, index, state="ready")
        catalog.save(txn, build.collection, collection, ready)
        txn.delete(place)
        return "ended"
    try:
        upkeep = Upkeep(txn, build.collection, collection, only=index)
        for packed, document in documents:
            upkeep.add(packed, document)
        upkeep.check()
    except (AlreadyExists, InvalidArgument) as error:
        _fail(txn, build.collection, collection, index, error)
        return "ended"
    upkeep.apply()
    done = BuildRecord(build.collection, documents[-1][0], build.documents + len(documents))
    txn.put(place, encode(done))
    return "going on"


def _next_documents(
    txn: Read, collection: Opened, after: bytes, documents_max: int, size_bytes_max: int
) -> list[tuple[bytes, Document]]:
    """The documents behind an id, at least one where there is one, each with its packed id."""
    prefix = collection.documents
    found: list[tuple[bytes, Document]] = []
    start = prefix + after + b"\0" if after else prefix
    for key, record in txn.scan(start, prefix + AFTER):
        found.append((key[len(prefix) :], decode_document(record)))
        size_bytes_max -= len(record)
        if len(found) == documents_max or size_bytes_max <= 0:
            break
    return found


def _fail(txn: Write, name: str, collection: Opened, index: Index, error: TreeStoreError) -> None:
    catalog.remove_entries(txn, index)
    failed = catalog.changed(
        collection,
        index,
        state="failed",
        error=error.message,
        conflict=isinstance(error, AlreadyExists),
    )
    catalog.save(txn, name, collection, failed)


def described(txn: Read, name: str, index_id: int) -> CollectionIndex:
    """An index, by its id.

    Raises:
        NotFound: it is gone.
    """
    index = catalog.require(txn, name).numbered(index_id)
    if index is None:
        raise NotFound(
            f"The index was dropped, or built anew, before it was ready; collection {shown(name)} "
            "does not have it any more.",
            collection=name,
        )
    return catalog.described_index(txn, index)


def outcome(txn: Read, name: str, index_id: int) -> CollectionIndex | None:
    """The index once its build has ended; None before.

    Raises:
        NotFound: it is gone.
        AlreadyExists: two documents have equal values in it; it failed.
        InvalidArgument: a document cannot be in it; it failed.
    """
    index = described(txn, name, index_id)
    if index.state == "failed":
        kind = AlreadyExists if index.conflict else InvalidArgument
        raise kind(
            f"Index {shown(index.name)} was not built: {index.error}",
            collection=name,
            index_name=index.name,
        )
    return index if index.state == "ready" else None
