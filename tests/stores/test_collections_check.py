"""The check of collections finds what was tampered with; rebuilding mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.stores.fake import FakeStore, FakeWrite
from treestore.stores.collections import building, catalog, writing
from treestore.stores.collections.check import check_collections
from treestore.stores.collections.indexes import Definition
from treestore.stores.collections.layout import packed_id
from treestore.stores.json_values import encode
from treestore.stores.keys import Keyspace, pack

Tamper = Callable[[FakeWrite], object]


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.run(catalog.create, "c", indexes=["n", {"fields": "k", "unique": True}, "tags"])
    store.run(
        writing.insert_many,
        "c",
        [{"_id": f"d{n}", "n": n % 3, "k": n, "tags": [n, n + 1]} for n in range(10)],
    )
    store.run(building.begin, "c", Definition.of(["n", "k"]))
    (index_id,) = building.pending(store.txn)
    store.run(building.step, index_id, documents_max=4)
    assert check_collections(store.txn) == []
    return store


def first(txn: FakeWrite, space: bytes) -> bytes:
    return next(iter(txn.scan(space, space + b"\xff")))[0]


def document_key(txn: FakeWrite, id: str) -> bytes:
    return catalog.require(txn, "c").documents + packed_id(id)


def lose_an_entry(txn: FakeWrite) -> None:
    txn.delete(first(txn, Keyspace.INDEX_ENTRIES))


def add_an_entry(txn: FakeWrite) -> None:
    index = catalog.require(txn, "c").indexes[0]
    txn.put(index.prefix + b"\x10" + packed_id("d1"), b"")


def exchange_an_entry(txn: FakeWrite) -> None:
    lose_an_entry(txn)
    add_an_entry(txn)


def add_nonsense(txn: FakeWrite) -> None:
    txn.put(catalog.require(txn, "c").indexes[0].prefix + b"\x20\x01", b"")


def lose_a_document(txn: FakeWrite) -> None:
    txn.delete(document_key(txn, "d3"))


def change_a_document(txn: FakeWrite) -> None:
    txn.put(document_key(txn, "d3"), encode({"_id": "d3", "n": 77, "k": 3, "tags": [3, 4]}))


def misplace_a_document(txn: FakeWrite) -> None:
    txn.put(document_key(txn, "d3"), encode({"_id": "d4", "n": 0, "k": 3, "tags": [3, 4]}))


def spoil_a_document(txn: FakeWrite) -> None:
    txn.put(document_key(txn, "d3"), b"\xc1")


def unmark_multikey(txn: FakeWrite) -> None:
    collection = catalog.require(txn, "c")
    records = [catalog.changed_record(i.record, multikey=False) for i in collection.indexes]
    catalog.save(txn, "c", collection, records)


def forget_a_build(txn: FakeWrite) -> None:
    txn.delete(first(txn, Keyspace.INDEX_BUILDS))


def claim_to_be_ready(txn: FakeWrite) -> None:
    collection = catalog.require(txn, "c")
    index = collection.indexes[-1]
    catalog.save(txn, "c", collection, catalog.changed(collection, index, state="ready"))


def claim_to_have_failed(txn: FakeWrite) -> None:
    collection = catalog.require(txn, "c")
    index = collection.indexes[0]
    catalog.save(txn, "c", collection, catalog.changed(collection, index, state="failed"))


def break_uniqueness(txn: FakeWrite) -> None:
    collection = catalog.require(txn, "c")
    document = {"_id": "d3", "n": 0, "k": 4, "tags": [3, 4]}
    for index in collection.indexes:
        old = {**document, "k": 3}
        for entry in index.entries(old)[0]:
            txn.delete(index.prefix + entry + packed_id("d3"))
        for entry in index.entries(document)[0]:
            txn.put(index.prefix + entry + packed_id("d3"), b"")
    txn.put(document_key(txn, "d3"), encode(document))


def leave_documents_behind(txn: FakeWrite) -> None:
    txn.put(Keyspace.COLLECTION_DOCUMENTS + pack(99, "x"), encode({"_id": "x"}))


def leave_entries_behind(txn: FakeWrite) -> None:
    txn.put(Keyspace.INDEX_ENTRIES + pack(99) + b"\x10" + packed_id("d3"), b"")


def give_an_id_twice(txn: FakeWrite) -> None:
    record = txn.get(Keyspace.COLLECTIONS + pack("c"))
    assert record is not None
    txn.put(Keyspace.COLLECTIONS + pack("c2"), record)


def _tampers() -> Iterator[Tamper]:
    for name, found in list(globals().items()):
        if getattr(found, "__module__", "") == __name__ and not name.startswith(("_", "test")):
            yield found


TAMPERS = [t for t in _tampers() if t.__name__ not in ("store", "first", "document_key")]


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.__name__)
def test_what_was_tampered_with_is_found(store: FakeStore, tamper: Tamper) -> None:
    tamper(store.txn)
    assert check_collections(store.txn)


@pytest.mark.parametrize(
    "tamper", [lose_an_entry, add_an_entry, exchange_an_entry, add_nonsense, unmark_multikey]
)
def test_rebuilding_mends_an_index(store: FakeStore, tamper: Tamper) -> None:
    tamper(store.txn)
    for name in ("n", "k", "tags"):
        store.run(building.begin_again, "c", name)
    while pending := building.pending(store.txn):
        for index_id in pending:
            store.run(building.step, index_id)
    assert check_collections(store.txn) == []


def test_an_entry_of_a_document_that_is_gone_is_told_of(store: FakeStore) -> None:
    lose_a_document(store.txn)
    with pytest.raises(Exception, match="rebuild_index mends it"):
        store.run(writing.insert, "c", {"k": 3})


def test_nothing_is_left_of_what_was_dropped(store: FakeStore) -> None:
    problems: list[Any] = []
    store.run(catalog.drop_index, "c", "n,k")
    problems += check_collections(store.txn)
    store.run(catalog.drop, "c")
    problems += check_collections(store.txn)
    assert problems == []
    assert {key[:1] for key in store.txn.keys} == {
        Keyspace.COLLECTIONS,
        Keyspace.COLLECTIONS_DROPPED,
    }
