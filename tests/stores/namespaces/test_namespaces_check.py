"""The check of namespaces finds what was tampered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.stores.fake import FakeStore, FakeWrite
from treestore.model.bulk import RejectedLine
from treestore.stores.json_values import encode
from treestore.stores.keys import Keyspace, pack
from treestore.stores.namespaces import catalog, copying, segments, writing
from treestore.stores.namespaces.check import check_namespaces
from treestore.stores.namespaces.imports import keep_rejections
from treestore.stores.namespaces.layout import (
    NEXT_NUMBER_KEY,
    Space,
    dropped_key,
    make_record,
    namespace_key,
    packed_id,
    packed_row,
    row_in,
)
from treestore.stores.namespaces.manifests import SegmentManifest, manifest_key, manifests, part_key

Tamper = Callable[[FakeWrite], object]


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    schema = {"vector": {"dim": 2}, "attributes": {"n": "int"}}
    store.run(catalog.create, "a", schema)
    store.run(
        writing.upsert,
        "a",
        [{"id": i, "vector": [1, i], "attributes": {"n": i}} for i in range(10)],
    )
    number = catalog.require(store.txn, "a").number
    rows = segments.tail_rows(store.txn, number)
    store.run(segments.seal, number, SegmentManifest(uuid="1" * 32), rows[:3])
    store.run(segments.seal, number, SegmentManifest(uuid="2" * 32), rows[3:6])
    store.run(writing.delete, "a", [0])
    store.run(copying.begin, "a", "b")
    assert check_namespaces(store.txn) == []
    return store


def space(txn: FakeWrite) -> Space:
    return catalog.require(txn, "a").space


def first(txn: FakeWrite, prefix: bytes) -> bytes:
    return next(iter(txn.scan(prefix, prefix + b"\xff")))[0]


def lose(what: str) -> Tamper:
    return lambda txn: txn.delete(first(txn, getattr(space(txn), what)))


def a_row(txn: FakeWrite, what: str) -> bytes:
    return packed_row(row_in(first(txn, getattr(space(txn), what))))


def tail_with_another_id(txn: FakeWrite) -> None:
    txn.put(first(txn, space(txn).tail), packed_id("other"))


def tail_of_nobody(txn: FakeWrite) -> None:
    txn.put(space(txn).tail + packed_row(2**60), packed_id(1))


def vector_of_nobody(txn: FakeWrite) -> None:
    txn.put(space(txn).vectors + packed_row(2**60), b"")


def vector_of_another_size(txn: FakeWrite) -> None:
    txn.put(first(txn, space(txn).vectors), b"1234")


def sealed_and_in_the_tail(txn: FakeWrite) -> None:
    txn.put(space(txn).tail + a_row(txn, "vectors"), packed_id(1))


def dead_and_alive(txn: FakeWrite) -> None:
    txn.put(space(txn).dead + a_row(txn, "vectors"), b"")


def dead_in_the_tail(txn: FakeWrite) -> None:
    txn.put(space(txn).dead + a_row(txn, "tail"), b"")


def segment_gone(txn: FakeWrite) -> None:
    segment, _ = manifests(txn, space(txn).number)[1]
    key = manifest_key(space(txn), segment)
    txn.delete_range(key, key + b"\xff")


def rows_of_a_segment(txn: FakeWrite) -> None:
    segment, _ = manifests(txn, space(txn).number)[1]
    rows = segments.segment_rows(txn, space(txn).number, segment)
    txn.put(part_key(space(txn), segment, 0), segments.packed_rows(rows[:-1]))


def row_in_two_segments(txn: FakeWrite) -> None:
    (one, _), (two, _) = manifests(txn, space(txn).number)
    key = part_key(space(txn), one, 0)
    txn.put(part_key(space(txn), two, 0), txn.data[key])


def same_uuid(txn: FakeWrite) -> None:
    segment, _ = manifests(txn, space(txn).number)[1]
    segments.update_manifest(txn, space(txn).number, segment, uuid="1" * 32)


def nonsense_rows(txn: FakeWrite) -> None:
    segment, _ = manifests(txn, space(txn).number)[1]
    txn.put(part_key(space(txn), segment, 0), b"nonsense")


def document_with_another_id(txn: FakeWrite) -> None:
    key = space(txn).documents + packed_id(5)
    txn.put(key, make_record(row_at(txn, key), 6, b"\x80"))


def row_at(txn: FakeWrite, key: bytes) -> int:
    return int.from_bytes(txn.data[key][6:14], "big")


def attribute_of_another_type(txn: FakeWrite) -> None:
    key = space(txn).documents + packed_id(5)
    txn.put(key, make_record(row_at(txn, key), 5, b"\x81\xa1n\xa1x"))


def no_document(txn: FakeWrite) -> None:
    txn.put(space(txn).documents + packed_id(5), b"\x80")


def two_with_one_row(txn: FakeWrite) -> None:
    row = row_at(txn, space(txn).documents + packed_id(5))
    txn.put(space(txn).documents + packed_id("twin"), make_record(row, "twin", b"\x80"))


def rows_of_no_namespace(txn: FakeWrite) -> None:
    txn.put(Space(99).tail + packed_row(2**60), packed_id(1))


def rows_of_an_emptied_one(txn: FakeWrite) -> None:
    record = encode(catalog.DroppedRecord("x", txn.now, emptied=True))
    txn.put(dropped_key(98), record)
    txn.put(Space(98).dead + packed_row(2**60), b"")


def there_and_dropped(txn: FakeWrite) -> None:
    record = encode(catalog.DroppedRecord("a", txn.now))
    txn.put(dropped_key(space(txn).number), record)


def number_never_given(txn: FakeWrite) -> None:
    txn.put(NEXT_NUMBER_KEY, b"\x01")


def two_with_one_number(txn: FakeWrite) -> None:
    txn.put(namespace_key("twin"), txn.data[namespace_key("a")])


def a_copy_that_is_there(txn: FakeWrite) -> None:
    txn.put(Keyspace.NAMESPACES + pack(None, space(txn).number), b"\x80")


def rejected_lines_of_no_import(txn: FakeWrite) -> None:
    keep_rejections(txn, "a", "gone", [RejectedLine(line=1, error="This is no JSON object.")])


TAMPERS: list[Any] = [
    *(pytest.param(lose(what), id=f"lose {what}") for what in ("documents", "vectors", "tail")),
    pytest.param(lose("dead"), id="lose dead"),
    pytest.param(lose("segments"), id="lose segments"),
    tail_with_another_id,
    tail_of_nobody,
    vector_of_nobody,
    vector_of_another_size,
    sealed_and_in_the_tail,
    dead_and_alive,
    dead_in_the_tail,
    segment_gone,
    rows_of_a_segment,
    row_in_two_segments,
    same_uuid,
    nonsense_rows,
    document_with_another_id,
    attribute_of_another_type,
    no_document,
    two_with_one_row,
    rows_of_no_namespace,
    rows_of_an_emptied_one,
    there_and_dropped,
    number_never_given,
    two_with_one_number,
    a_copy_that_is_there,
    rejected_lines_of_no_import,
]


@pytest.mark.parametrize("tamper", TAMPERS)
def test_tampering_is_found(store: FakeStore, tamper: Tamper) -> None:
    tamper(store.txn)
    wrong = check_namespaces(store.txn)
    assert wrong
    assert all(len(sentence) < 500 for sentence in wrong)
