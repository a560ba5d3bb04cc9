"""Views with indexes: what is approximate, and only that, differs from the reference."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.stores.namespaces.live.living import NAME, LivingStore, request
from treestore.stores.namespaces import catalog, exact, writing
from treestore.stores.namespaces.asking import RecallRequest
from treestore.stores.namespaces.live.pieces import StateTooOld

DIM, ROWS, AT_ONCE = 24, 6000, 500


@pytest.fixture(scope="module")
def vectors() -> Any:
    luck = np.random.default_rng(5)
    centres = luck.normal(size=(60, DIM))
    chosen = centres[luck.integers(60, size=ROWS)]
    return (chosen + luck.normal(size=(ROWS, DIM)) * 0.7).astype(np.float32)


def document(id: int, vectors: Any) -> dict[str, Any]:
    attributes = {"year": id % 100, "group": f"g{id % 7}"}
    return {"id": id, "vector": vectors[id].tobytes(), "attributes": attributes}


@pytest.fixture(scope="module")
def store(vectors: Any) -> Iterator[LivingStore]:
    """Two segments with an index, a tail, and a tenth of the rows gone."""
    store = LivingStore(indexed_rows_min=2000)
    schema = {"vector": {"dim": DIM, "metric": "cosine"}}
    attributes = {"attributes": {"year": "int", "group": "string"}}
    store.run(catalog.create, NAME, {**schema, **attributes})
    for start in range(0, ROWS, AT_ONCE):
        documents = [document(id, vectors) for id in range(start, start + AT_ONCE)]
        store.run(writing.upsert, NAME, documents)
        if start + AT_ONCE in (2500, 5000):
            made = store.seal()
            assert made is not None
            assert made.manifest is not None
            assert made.manifest.info["indexed"]
            store.enter(made)
    gone = list(range(3, ROWS, 10))
    store.run(writing.delete, NAME, gone)
    yield store
    store.close()


FILTERS = [None, {"year": {"$lt": 50}}, {"group": "g3"}, {"year": 7}]


@pytest.mark.parametrize("filter", FILTERS)
def test_recall_is_what_it_should_be(store: LivingStore, vectors: Any, filter: Any) -> None:
    luck = np.random.default_rng(11)
    hits_found = wanted_found = 0
    for _ in range(20):
        vector = vectors[luck.integers(ROWS)] + luck.normal(size=DIM).astype(np.float32) * 0.2
        asked: dict[str, Any] = {"vector": vector, "filter": filter, "top_k": 10}
        wanted = exact.search(store.txn, request(**asked))
        assert store.query(request(**asked, exact=True)) == wanted
        hits = store.query(request(**asked))
        assert len(hits) == 10
        known = {hit.id: hit for hit in wanted}
        for hit in hits:
            if hit.id in known:
                assert hit.distance == known[hit.id].distance
        assert [hit.distance for hit in hits] == sorted(hit.distance or 0 for hit in hits)
        hits_found += len({hit.id for hit in hits} & set(known))
        wanted_found += len(wanted)
    assert hits_found / wanted_found >= 0.95
    assert store.views.counters.queries_from_tree == 0


def test_an_explanation_shows_the_indexes(store: LivingStore, vectors: Any) -> None:
    told = store.views.explain(store.txn, request(vector=vectors[0], top_k=5), store.position)
    assert told.source == "view"
    assert (told.documents, told.allowed, told.hits) == (5400, 5400, 5)
    assert [part.segment is not None for part in told.parts] == [True, True, False]
    for part in told.parts[:2]:
        assert part.costs["exact"] > 0
        assert part.rows == 2500
        assert part.allowed == 2250
        if part.way == "index":
            assert 0 < part.probes <= part.lists
            assert part.compared < part.allowed
    few = store.views.explain(
        store.txn, request(vector=vectors[0], filter={"year": 7}), store.position
    )
    assert {part.way for part in few.parts} == {"exact"}
    assert sum(part.compared for part in few.parts) == few.allowed == 60


def test_recall_measures_itself(store: LivingStore) -> None:
    given = RecallRequest(request=request(top_k=10), sample=30, queries=None)
    found = store.views.measure(store.txn, given, store.position, Random(1))
    assert found.queries == 30
    assert 0.9 <= found.recall <= 1.0
    assert found.worst <= found.recall


def test_a_snapshot_stays_as_it_was_while_segments_are_merged(
    store: LivingStore, vectors: Any
) -> None:
    """Approximate answers too: the old index is kept for it."""
    lease = store.engine.snapshot("test")
    try:
        store.forget_before([lease])
        assert len(store.view().layouts) == 1
        asked = [request(vector=vectors[at], top_k=20) for at in range(0, 200, 20)]
        before = [store.query(one, lease) for one in asked]
        made = store.merge([segment for segment, _ in store.manifests()])
        assert store.enter(made) is not None
        store.run(writing.delete, NAME, list(range(0, 200, 20)))
        after = [store.query(one) for one in asked]
        assert all(hits[0].id != old[0].id for hits, old in zip(after, before, strict=True))
        assert [store.query(one, lease) for one in asked] == before
        view = store.view()
        assert len(view.layouts) == 2
        assert len(view.sealed_parts()) == 1
        store.forget_before([lease])
        assert len(view.layouts) == 2
    finally:
        lease.close()
    store.forget_before([])
    assert len(view.layouts) == 1
    for start in range(0, 200, 20):
        store.run(writing.upsert, NAME, [document(start, vectors)])


def test_readers_need_no_lock(store: LivingStore, vectors: Any) -> None:
    """Searches on other threads, while documents come and go: each is right at its own state."""
    stop = threading.Event()
    wrong: list[Any] = []

    def search() -> None:
        luck = np.random.default_rng(threading.get_ident() % 1000)
        while not stop.is_set():
            asked = request(
                vector=vectors[luck.integers(ROWS)], top_k=5, exact=True, filter={"group": "g1"}
            )
            txn, position = leases[-1]
            try:
                hits = store.views.query(txn, asked, position)
                if hits != exact.search(txn, asked):
                    wrong.append(asked)
            except BaseException as error:
                wrong.append(error)
                raise

    snapshots = [store.engine.snapshot("test")]
    leases = [(snapshots[0].read(), snapshots[0].state.position)]
    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for round in range(30):
            store.run(writing.delete, NAME, [round * 7 + 1])
            store.run(writing.upsert, NAME, [document(round * 7 + 1, vectors)])
            snapshots.append(store.engine.snapshot("test"))
            leases.append((snapshots[-1].read(), snapshots[-1].state.position))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for lease in snapshots:
            lease.close()
    assert wrong == []


def test_segments_are_not_made_of_states_before_the_view(store: LivingStore, vectors: Any) -> None:
    lease = store.engine.snapshot("test")
    store.run(writing.upsert, NAME, [document(2, vectors)])
    store.lose_view()
    store.view()
    before = lease.read(), lease.state.position, store.there
    with pytest.raises(StateTooOld):
        store.maker.seal(*before)
    with pytest.raises(StateTooOld):
        store.maker.merge(*before, [number for number, _ in store.manifests()])
    lease.close()
    assert store.seal() is not None
