"""Rows leave the tail and come back; what cannot be is refused; the log tells all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.stores.engine_store import EngineStore
from tests.stores.fake import FakeStore
from tests.stores.namespaces.follower import Follower
from treestore.engine.changes import notes_of
from treestore.stores.namespaces import catalog, exact, segments, writing
from treestore.stores.namespaces.check import check_namespaces
from treestore.stores.namespaces.events import LeftTail, events
from treestore.stores.namespaces.layout import Space, packed_id, packed_row
from treestore.stores.namespaces.manifests import SegmentManifest, manifest_of, manifests
from treestore.stores.namespaces.search import make_request

COUNT = 40


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.run(catalog.create, "a", {"vector": {"dim": 2, "metric": "l2"}})
    store.run(writing.upsert, "a", [{"id": i, "vector": [i, 0]} for i in range(COUNT)])
    return store


def manifest(number: int = 1) -> SegmentManifest:
    return SegmentManifest(uuid=f"{number:032x}", size_bytes=100, checksum=5, info={"lists": 3})


def number_of(store: Any) -> int:
    return catalog.require(store.txn, "a").number


def rows_of(store: Any, ids: Any = range(COUNT)) -> dict[int, int]:
    """Id → row, of the tail."""
    tail = {packed: row for row, packed in segments.tail(store.txn, number_of(store))}
    return {id: tail[packed_id(id)] for id in ids}


def found(store: Any) -> list[Any]:
    request = make_request("a", vector=[-1, 0], top_k=1000)
    return [hit.id for hit in exact.search(store.txn, request)]


def test_a_segment_has_what_it_was_made_of(store: FakeStore) -> None:
    number, rows = number_of(store), rows_of(store)
    sealed = [rows[id] for id in range(0, COUNT, 2)]
    segment = store.run(segments.seal, number, manifest(), sealed)
    assert segment is not None
    assert segments.segment_rows(store.txn, number, segment).tolist() == sealed
    assert segments.tail_rows(store.txn, number).tolist() == [rows[i] for i in range(1, COUNT, 2)]
    ((found_segment, its),) = manifests(store.txn, number)
    assert found_segment == segment
    assert (its.uuid, its.rows, its.size_bytes, its.info) == (
        manifest().uuid,
        len(sealed),
        100,
        {"lists": 3},
    )
    assert its.created_at == store.time()
    store.run(writing.delete, "a", [0, 1, 2])
    assert segments.dead_rows(store.txn, number).tolist() == [rows[0], rows[2]]
    assert segments.live_rows(store.txn, number, segment).tolist() == sealed[2:]
    assert check_namespaces(store.txn) == []
    statistics = catalog.describe(store.txn, "a").statistics
    assert statistics is not None
    assert (statistics.documents, statistics.tail, statistics.dead) == (37, 19, 2)
    assert found(store) == list(range(3, COUNT))


def test_large_segments_are_kept_in_parts(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "PART_ROWS", 7)
    number, rows = number_of(store), rows_of(store)
    one = store.run(segments.seal, number, manifest(1), list(rows.values())[:30])
    two = store.run(segments.seal, number, manifest(2), list(rows.values())[30:])
    assert [segment for segment, _ in manifests(store.txn, number)] == [one, two]
    assert segments.segment_rows(store.txn, number, one).tolist() == list(rows.values())[:30]
    joined = store.run(
        segments.replace_segments, number, [two, one], manifest(3), list(rows.values())
    )
    assert joined > two > one
    assert segments.segment_rows(store.txn, number, joined).tolist() == list(rows.values())
    assert [segment for segment, _ in manifests(store.txn, number)] == [joined]
    assert check_namespaces(store.txn) == []
    prefix = Space(number).segments
    assert len(list(store.txn.scan(prefix, prefix + b"\xff"))) == 1 + 6


def test_what_cannot_be_is_refused(store: FakeStore) -> None:
    number, rows = number_of(store), list(rows_of(store).values())
    one = store.run(segments.seal, number, manifest(1), rows[:10])
    two = store.run(segments.seal, number, manifest(2), rows[10:20])
    store.run(writing.delete, "a", [0, 10])
    before = dict(store.txn.data)
    pairs = [(row, packed_id(id)) for id, row in enumerate(rows)]
    for function, *args in [
        (segments.seal, manifest(3), []),
        (segments.seal, manifest(3), rows[5:25]),  # Some live in another segment.
        (segments.seal, manifest(3), [rows[0], rows[30]]),  # Dead in another segment.
        (segments.seal, manifest(3), [rows[30], rows[30]]),
        (segments.replace_segments, [one, two], manifest(3), rows[1:19]),  # One too few.
        (segments.replace_segments, [one], manifest(3), rows[1:11]),  # One of another segment.
        (segments.replace_segments, [one], None, rows[1:10]),
        (segments.replace_segments, [one], manifest(3), []),
        (segments.forget_segment, one, pairs[1:9]),
        (segments.forget_segment, one, pairs[1:11]),
    ]:
        with pytest.raises(ValueError, match=r"row|segment"):
            store.run(function, number, *args)
        assert store.txn.data == before
    # Dead rows may be kept, and given back: they stay dead, or are left out.
    joined = store.run(segments.replace_segments, number, [one, two], manifest(3), rows[:20])
    assert segments.dead_rows(store.txn, number).tolist() == [rows[0], rows[10]]
    assert store.run(segments.forget_segment, number, joined, pairs[:20]) == 18
    assert segments.dead_rows(store.txn, number).tolist() == []
    assert check_namespaces(store.txn) == []
    assert len(found(store)) == COUNT - 2


def test_what_is_gone_is_left_alone(store: FakeStore) -> None:
    number, rows = number_of(store), list(rows_of(store).values())
    one = store.run(segments.seal, number, manifest(1), rows[:10])
    store.run(catalog.drop, "a")
    before = dict(store.txn.data)
    assert store.run(segments.seal, number, manifest(2), rows[10:]) is None
    assert store.run(segments.replace_segments, number, [one + 1], manifest(2), rows[:10]) is None
    assert store.run(segments.forget_segment, number, one + 1, []) is None
    assert not store.run(segments.update_manifest, number, one + 1, size_bytes=1)
    assert store.txn.data == before


def test_a_file_may_be_made_again(store: FakeStore) -> None:
    number, rows = number_of(store), list(rows_of(store).values())
    one = store.run(segments.seal, number, manifest(1), rows)
    assert store.run(segments.update_manifest, number, one, uuid="f" * 32, checksum=9, info={})
    its = manifest_of(store.txn, number, one)
    assert its is not None
    assert (its.uuid, its.checksum, its.size_bytes, its.rows) == ("f" * 32, 9, 100, COUNT)
    with pytest.raises(ValueError, match="rows"):
        store.run(segments.update_manifest, number, one, rows=1)


@pytest.mark.parametrize("count", [1, 2, 100, 70_000])
def test_rows_are_packed(count: int) -> None:
    random = np.random.default_rng(count)
    rows = np.unique(random.integers(2**56, 2**63 - 1, count))
    rows[-1] = 2**63 - 1
    assert (segments.unpacked_rows(segments.packed_rows(rows)) == rows).all()
    dense = np.arange(2**62, 2**62 + count)
    packed = segments.packed_rows(dense)
    assert (segments.unpacked_rows(packed) == dense).all()
    assert len(packed) < 50 + count // 8
    with pytest.raises(ValueError, match="rows"):
        segments.unpacked_rows(packed[:-1])


def test_the_log_tells_everything() -> None:
    """On the engine: its own notes, ranges and transactions included."""
    store: Any = EngineStore()
    engine = store._engine
    begin = engine.durable.position
    store.run(catalog.create, "a", {"vector": {"dim": 2, "metric": "l2"}})
    store.run(writing.upsert, "a", [{"id": i, "vector": [i, 0]} for i in range(COUNT)])
    number, rows = number_of(store), list(rows_of(store).values())
    store.run(writing.delete, "a", [3])
    one = store.run(segments.seal, number, manifest(1), rows[:20])
    store.run(writing.upsert, "a", [{"id": 1, "vector": [1, 1]}, {"id": 30}])
    two = store.run(segments.seal, number, manifest(2), rows[20:30])
    with store.transaction() as run:
        run(writing.upsert, "a", [{"id": "t", "vector": [0, 0]}, {"id": 35}])
        run(writing.delete, "a", [36, "t"])
        run(writing.upsert, "a", [{"id": "u", "vector": [0, 0]}])
    live = [*segments.live_rows(store.txn, number, one), *rows[20:30]]
    three = store.run(segments.replace_segments, number, [one, two], manifest(3), live)
    pairs = segments.rows_with_ids(store.txn, number, segments.live_rows(store.txn, number, three))
    store.run(segments.forget_segment, number, three, pairs)
    follower = Follower()
    kinds = set()
    for notes, _ in notes_of(engine.log.groups_after(begin, engine.durable.position.lsn)):
        kinds |= {type(event) for what, value in notes for event in events(what, value)}
        follower.take(notes)
    assert LeftTail in kinds
    follower.compare(store.txn, number)
    assert follower.names == {"a": number}
    assert len(follower.known[number].tail) == COUNT - 1
    store.close()


def test_events_of_a_range_of_the_tail() -> None:
    space = Space(7)
    first, last = 2**60, 2**60 + 5
    start, end = space.tail + packed_row(first), space.tail + packed_row(last) + b"\0"
    assert list(events((start, end), None)) == [LeftTail(7, first, last)]
