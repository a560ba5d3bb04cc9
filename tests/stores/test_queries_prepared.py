"""A query whose shape was planned before gives what it gives when it is planned anew."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.query import query_reference as reference
from tests.query.test_properties import NAMES, PATHS
from tests.stores.engine_store import EngineStore
from tests.stores.fake import FakeStore
from tests.stores.test_queries_plans import LONG, SCALARS, SETS, filled, same
from treestore.errors import CorruptionError, InvalidArgument
from treestore.query.sorting import parse_sort
from treestore.stores.collections import catalog, prepared, queries, writing
from treestore.stores.collections.layout import entries_prefix
from treestore.stores.collections.prepared import PREPARED_MAX, shape_of

VALUES = st.one_of(
    st.integers(-2, 3),
    st.sampled_from([0.5, 2**53, -(2**53), 2**53 + 1, True, False, "", "a", "ab", "b", *LONG]),
    st.sampled_from([math.nan, math.inf, "\0", "ä", None, [1], {"a": 1}]),
)
OPERATORS = st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$lte", "$eq"])
CONDITIONS = VALUES | st.dictionaries(OPERATORS, VALUES, min_size=1, max_size=3)
QUERIES = st.tuples(
    st.dictionaries(NAMES, CONDITIONS, max_size=3),
    st.none() | st.tuples(st.sampled_from(["", "-"]), NAMES).map("".join),
    st.integers(1, 12),
)
ONE = st.lists(NAMES, min_size=1, max_size=2, unique=True)
INDEXES = st.lists(
    st.tuples(ONE | st.lists(PATHS, min_size=1, max_size=2, unique=True), st.booleans()),
    min_size=1,
    max_size=4,
)


def answer(store: Any, query: tuple[Any, Any, int]) -> Any:
    filter, sort, limit = query
    return queries.find(store.txn, "c", filter, sort=sort, limit=limit)


def anew(store: Any, query: tuple[Any, Any, int]) -> Any:
    """The answer of the planner."""
    catalog.require(store.txn, "c").prepared.clear()
    return answer(store, query)


@given(SETS, INDEXES, st.lists(QUERIES, min_size=1, max_size=6))
@example([{"a": 1}, {"a": 2}, {"a": 3}], [(["a"], False)], [({"a": {"$gte": 1}}, "a", 2)] * 2)
@example(
    [{"a": "x"}, {"a": LONG[2]}],
    [(["a"], False)],
    [({"a": "x"}, None, 1), ({"a": LONG[2]}, None, 1)],
)
def test_what_is_prepared_gives_what_is_planned(
    documents: list[dict[str, Any]],
    indexes: list[tuple[list[str], bool]],
    asked: list[tuple[Any, Any, int]],
) -> None:
    check(FakeStore(), documents, indexes, asked)


@settings(max_examples=30)
@given(SETS, INDEXES, st.lists(QUERIES, min_size=1, max_size=6))
def test_likewise_on_the_engine(
    documents: list[dict[str, Any]],
    indexes: list[tuple[list[str], bool]],
    asked: list[tuple[Any, Any, int]],
) -> None:
    """Which gives many keys at a time."""
    store = EngineStore()
    check(store, documents, indexes, asked)
    store.close()


def check(
    store: Any,
    documents: list[dict[str, Any]],
    indexes: list[tuple[list[str], bool]],
    asked: list[tuple[Any, Any, int]],
) -> None:
    stored = filled(store, documents, indexes)
    wanted = [anew(store, query) for query in asked]
    for _ in range(2):  # What was remembered of one may serve another.
        for query, page in zip(asked, wanted, strict=True):
            assert answer(store, query) == page
            filter, sort, limit = query
            pairs = [(".".join(path), -1 if down else 1) for path, down in parse_sort(sort).fields]
            if not any(value != value for value in _leaves(filter)):
                same(page.items, reference.find(stored, filter, pairs)[:limit])


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    return [value]


TEAMS = [{"_id": f"{number:03}", "team": number % 5, "score": number / 2} for number in range(60)]


@pytest.fixture
def store() -> Any:
    found = EngineStore()
    found.run(catalog.create, "c", indexes=["team", "score", ["team", "score"]])
    found.run(writing.insert_many, "c", TEAMS)
    yield found
    found.close()


SHAPES: list[tuple[Any, Any, Any]] = [
    ({"team": 1}, {"team": 4}, None),
    ({"score": {"$gte": 1, "$lt": 20}}, {"score": {"$gte": 7, "$lt": 9}}, "score"),
    ({"score": {"$gt": 1.0}}, {"score": {"$gt": 7.5}}, "-score"),
    ({"team": 1, "score": {"$lte": 5.0}}, {"team": 2, "score": {"$lte": 25.0}}, "score"),
    ({"score": {"$gte": 5, "$lt": 1}}, {"score": {"$gte": 5, "$lt": 11}}, "score"),
    ({"team": "nobody"}, {"team": "somebody"}, None),
]


@pytest.mark.parametrize(("first", "second", "sort"), SHAPES)
def test_common_shapes_are_planned_once(
    store: EngineStore, first: Any, second: Any, sort: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = anew(store, (second, sort, 7))
    catalog.require(store.txn, "c").prepared.clear()
    answer(store, ({**second}, sort, 7))

    def fail(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("planned again")

    monkeypatch.setattr(queries, "_planned", fail)
    assert answer(store, (second, sort, 7)) == wanted
    answer(store, (first, sort, 7))


def test_pages_go_on_behind_a_prepared_one(store: EngineStore) -> None:
    for _ in range(2):
        found: list[Any] = []
        page = queries.find(store.txn, "c", {"score": {"$gte": 3}}, sort="-score", limit=9)
        found += page.items
        while page.next_cursor is not None:
            page = queries.find(
                store.txn,
                "c",
                {"score": {"$gte": 3}},
                sort="-score",
                limit=9,
                cursor=page.next_cursor,
            )
            found += page.items
        assert found == [each for each in TEAMS[::-1] if cast("int", each["score"]) >= 3]


def test_an_index_that_goes_is_not_remembered(store: EngineStore) -> None:
    for _ in range(2):
        assert len(answer(store, ({"team": 3}, None, 50))) == 12
    for name in ("team", "team,score"):
        store.run(catalog.drop_index, "c", name)
        assert len(answer(store, ({"team": 3}, None, 50))) == 12
    store.run(writing.insert, "c", {"_id": "x", "score": [1, 2]})  # score becomes multikey.
    assert len(answer(store, ({"score": {"$gte": 1, "$lt": 2}}, "score", 50))) == 3
    assert len(answer(store, ({"score": {"$gte": 1, "$lt": 2}}, "score", 50))) == 3


def test_long_pages_are_the_planners(store: EngineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    query = ({"team": 3}, None, 50)
    answer(store, query)
    monkeypatch.setattr(queries, "PAGE_SIZE_BYTES_MAX", 100)
    page = answer(store, query)
    assert page == anew(store, query)
    assert 1 < len(page) < 12
    assert page.next_cursor is not None


def test_an_entry_that_leads_nowhere_is_damage(store: EngineStore) -> None:
    query = ({"team": 3}, None, 50)
    answer(store, query)
    index = catalog.require(store.txn, "c").named("team")
    assert index is not None
    entry = next(key for key, _ in store.txn.scan(entries_prefix(index.id), None))
    key = entry.replace(b"\x07000\0", b"\x07zzz\0")
    store.run(lambda txn: txn.put(key, b""))
    with pytest.raises(CorruptionError):
        answer(store, ({"team": 0}, None, 50))


def test_shapes_are_bounded(store: EngineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "PREPARED_MAX", 2)
    for first, _, sort in SHAPES:
        answer(store, (first, sort, 7))
        assert len(catalog.require(store.txn, "c").prepared) <= 2
    assert PREPARED_MAX > 2


def test_what_has_no_shape() -> None:
    filters: list[Any] = [None, {"a": None}, {"a": {}}, {"a": {"$in": [1]}}, []]
    for filter in (*filters, {"$or": [{"a": 1}]}):
        assert shape_of(filter, None) is None
    assert shape_of({"a": 1}, ["a"]) is None
    assert shape_of({"a": 1}, None) == ((None, "a", int), [1])
    assert shape_of({"a": True}, None) != shape_of({"a": 1}, None)
    assert shape_of({"a": 1}, "a") != shape_of({"a": 1}, None)


@pytest.mark.parametrize("filter", [{"$a": 1}, {"": 1}, {"a": "\ud800"}, {7: 1}])
def test_faults_stay_faults(store: EngineStore, filter: Any) -> None:
    for _ in range(2):
        with pytest.raises(InvalidArgument):
            answer(store, (filter, None, 7))
    answer(store, ({"team": "a"}, None, 7))
    with pytest.raises(InvalidArgument):
        answer(store, ({"team": "\ud800"}, None, 7))


@given(st.lists(SCALARS, max_size=60), st.integers(1, 60))
def test_pages_end_where_they_are_full(values: list[Any], wanted: int) -> None:
    """Whether documents are taken one by one or in batches."""
    found = [(b"", str(value).encode()) for value in values]
    for step in (1, 7, 60):
        batches = [found[at : at + step] for at in range(0, len(found), step)]
        page, more = queries._page(iter(batches), wanted)
        assert (page, more) == (found[:wanted], len(found) > wanted)
