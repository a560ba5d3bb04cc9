"""Numbers of rows are never the same, whatever the clock does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from tests.stores.engine_store import EngineStore
from tests.stores.fake import FakeStore
from treestore.errors import ResourceExhausted, TransactionConflict
from treestore.stores.namespaces import catalog, reading, segments, writing
from treestore.stores.namespaces.check import check_namespaces
from treestore.stores.namespaces.layout import Space
from treestore.stores.namespaces.manifests import SegmentManifest
from treestore.stores.namespaces.rows import first_of, new_rows


class Stopped(FakeStore):
    """Its clock is moved by hand."""

    def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self.txn, *args, **kwargs)


@pytest.fixture(params=["vectors", "none"])
def store(request: pytest.FixtureRequest) -> Stopped:
    store = Stopped()
    schema = {"vector": {"dim": 1, "metric": "l2"}} if request.param == "vectors" else {}
    store.run(catalog.create, "a", schema)
    return store


def put(store: Any, *ids: Any) -> None:
    store.run(writing.upsert, "a", [{"id": id} for id in ids])


def tail(store: Any) -> list[int]:
    return segments.tail_rows(store.txn, catalog.require(store.txn, "a").number).tolist()


def test_later_rows_are_larger(store: Stopped) -> None:
    put(store, *range(5000))
    store.txn.now += timedelta(microseconds=2)
    put(store, "later")
    rows = tail(store)
    assert rows == sorted(set(rows))
    assert len(rows) == 5001
    assert rows[0] == first_of(datetime(2024, 5, 1, 12, tzinfo=UTC))
    store.txn.now += timedelta(seconds=1)
    put(store, "much later")
    assert tail(store)[-1] == first_of(store.txn.now)


def test_a_clock_that_stands_still(store: Stopped) -> None:
    for id in range(50):
        put(store, id, id + 1)
    assert len(set(tail(store))) == 51
    assert check_namespaces(store.txn) == []


def test_a_clock_that_falls_back(store: Stopped) -> None:
    number = catalog.require(store.txn, "a").number
    now = store.txn.now
    for step in range(10):
        store.txn.now = now + timedelta(microseconds=step)
        put(store, step)
    sealed = tail(store)
    store.run(segments.seal, number, SegmentManifest(uuid="0" * 32), sealed)
    put(store, 3, 4)  # Their old rows are dead.
    store.txn.now = now - timedelta(microseconds=3)
    for step in range(20):
        store.txn.now += timedelta(microseconds=1)
        put(store, f"again {step}")
    rows = tail(store)
    assert len(rows) == 22
    assert not set(rows) & set(sealed)
    assert check_namespaces(store.txn) == []


def test_clocks_beyond_reason(store: Stopped) -> None:
    store.txn.now = datetime(1970, 1, 1, tzinfo=UTC)
    put(store, 1, 2)
    assert all(2**56 <= row < 2**63 for row in tail(store))
    store.txn.now = datetime(2090, 1, 1, tzinfo=UTC)
    put(store, 3)
    assert reading.count(store.txn, "a") == 3
    store.txn.now = datetime(2100, 1, 1, tzinfo=UTC)
    with pytest.raises(ResourceExhausted):
        put(store, 4)


def test_many_calls_of_one_moment_cost_no_more_and_more(store: Stopped) -> None:
    space = Space(catalog.require(store.txn, "a").number)
    looks = 0
    scan = store.txn.scan

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal looks
        looks += 1
        return scan(*args, **kwargs)

    for id in range(200):
        put(store, id)
    store.txn.scan = counted  # type: ignore[method-assign]
    assert new_rows(store.txn, space, 10) == tail(store)[-1] + 1
    assert looks < 10


def test_transactions_of_one_moment_have_different_rows_or_conflict() -> None:
    store: Any = EngineStore()
    store.run(catalog.create, "a", {})
    engine = store._engine
    environment, moment = engine.environment, engine.environment.clock_ns()
    engine.environment = attrs.evolve(environment, clock_ns=lambda: moment)
    with pytest.raises(TransactionConflict), store.transaction() as one:
        one(writing.upsert, "a", [{"id": 1}])
        put(store, 2)
    engine.environment = environment
    with store.transaction() as one:
        one(writing.upsert, "a", [{"id": 1}])
        put(store, 3)
    assert len(set(tail(store))) == 3
    assert check_namespaces(store.txn) == []
    store.close()
