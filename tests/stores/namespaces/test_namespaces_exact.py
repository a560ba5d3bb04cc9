"""The reference over thousands of documents: more than one go, ties, pages to the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.stores.fake import FakeStore
from treestore.stores.namespaces import catalog, exact, segments, writing
from treestore.stores.namespaces.manifests import SegmentManifest
from treestore.stores.namespaces.search import make_request

COUNT, DIM = 4000, 8


@pytest.fixture(scope="module")
def vectors() -> Any:
    random = np.random.default_rng(5)
    found = random.normal(size=(COUNT, DIM)).astype(np.float32)
    found[COUNT // 2 : COUNT // 2 + 500] = found[:500]  # Ties.
    return found


@pytest.fixture(scope="module", params=["l2", "cosine", "dot"])
def store(request: pytest.FixtureRequest, vectors: Any) -> FakeStore:
    store = FakeStore()
    schema = {"vector": {"dim": DIM, "metric": request.param}, "attributes": {"n": "int"}}
    store.run(catalog.create, "a", schema)
    documents = [
        {"id": (7 * i) % COUNT, "vector": vector, "attributes": {"n": i % 10}}
        for i, vector in enumerate(vectors)
    ]
    store.run(writing.upsert, "a", documents)
    number = catalog.require(store.txn, "a").number
    rows = segments.tail_rows(store.txn, number)
    store.run(segments.seal, number, SegmentManifest(uuid="0" * 32), rows[: COUNT // 3])
    return store


def expected(store: FakeStore, vectors: Any, query: Any, divisor: int) -> list[tuple[float, int]]:
    """Distance and id of those documents whose ``n`` a number divides, in order."""
    schema = catalog.require(store.txn, "a").schema.vector
    assert schema is not None
    rows, wanted = vectors.astype(np.float64), np.asarray(query, np.float32).astype(np.float64)
    if schema.metric == "l2":
        found = ((rows - wanted) ** 2).sum(axis=1)
    elif schema.metric == "dot":
        found = -(rows @ wanted)
    else:
        found = 1 - (rows @ wanted) / np.linalg.norm(rows, axis=1) / np.linalg.norm(wanted)
    return sorted(
        (round(float(distance), 9), (7 * i) % COUNT)
        for i, distance in enumerate(found)
        if (i % 10) % divisor == 0
    )


@pytest.mark.parametrize("divisor", [1, 5])
@pytest.mark.parametrize("top_k", [1, 10, 1500])
def test_pages_are_the_best_in_order(
    store: FakeStore, vectors: Any, divisor: int, top_k: int
) -> None:
    filter: Any = {"n": {"$in": [n for n in range(10) if n % divisor == 0]}}
    query = vectors[3].tolist()
    wanted = expected(store, vectors, query, divisor)
    found: list[tuple[float, Any]] = []
    cursor = None
    for _ in range(4):
        request = make_request("a", vector=query, filter=filter, top_k=top_k, cursor=cursor)
        hits = exact.search(store.txn, request)
        for hit in hits:
            assert hit.distance is not None
            found.append((round(hit.distance, 9), hit.id))
        if len(hits) < top_k:
            break
        cursor = hits[-1].cursor
    assert found == wanted[: len(found)]
    assert len(found) == min(4 * top_k, len(wanted))


def test_a_page_is_the_same_alone(store: FakeStore, vectors: Any) -> None:
    """A distance does not depend on the rows that are looked at along with it."""
    query = vectors[11].tolist()
    hits = exact.search(store.txn, make_request("a", vector=query, top_k=50))
    for hit in hits:
        one = make_request("a", vector=query, filter={"id": hit.id})
        (alone,) = exact.search(store.txn, one)
        assert (alone.distance, alone.score) == (hit.distance, hit.score)
