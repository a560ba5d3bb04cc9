"""Whatever plan is chosen, a query gives what a slow reference gives."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.query import query_reference as reference
from tests.query.test_properties import FILTERS, NAMES, PATHS
from tests.stores.engine_store import EngineStore
from tests.stores.fake import FakeStore
from treestore.errors import InvalidArgument
from treestore.query import compile
from treestore.query.planner import Task, conditions_of, plan
from treestore.query.sorting import parse_sort
from treestore.stores.collections import catalog, queries, writing
from treestore.stores.collections.executing import Execution
from treestore.stores.collections.layout import decode_document, entries_prefix

# Some strings are cut in indexes, some in the order of documents too.
LONG = ["x" * 470 + "a", "x" * 470 + "b", "x" * 600 + "a", "x" * 240, "x" * 250 + "b"]
SCALARS = st.sampled_from(
    [None, True, False, 0, 1, 2, -1, 1.0, 0.5, 2**53, 2**53 + 1, "", "a", "ab", "b", *LONG]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
# Mostly plain fields, so that indexes that are not multikey are met.
DOCUMENTS = st.dictionaries(NAMES, SCALARS, max_size=3) | st.dictionaries(NAMES, VALUES, max_size=3)
SETS = st.lists(st.dictionaries(NAMES, SCALARS, max_size=3), max_size=12) | st.lists(
    DOCUMENTS, max_size=12
)
FIELDS = st.lists(PATHS, min_size=1, max_size=3, unique=True)
INDEXES = st.lists(st.tuples(FIELDS, st.booleans()), max_size=4)
SORTS = st.lists(
    st.tuples(PATHS | st.just("_id"), st.sampled_from([1, -1])),
    max_size=3,
    unique_by=lambda p: p[0],
)
SIMPLE = st.dictionaries(
    NAMES,
    SCALARS
    | st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"]), SCALARS).map(
        lambda pair: dict([pair])
    )
    | st.lists(SCALARS, max_size=3).map(lambda values: {"$in": values})
    | st.sampled_from(["a*", "x*", "[ab]*"]).map(lambda pattern: {"$glob": pattern})
    | st.sampled_from(["^a", "^x+a?", "^ab*", "b"]).map(lambda pattern: {"$regex": pattern}),
    min_size=1,
    max_size=3,
)
IDS = st.sampled_from(["0", "1", "3", "5", "55", "7", "z", 5, None])
BY_ID = st.one_of(
    IDS,
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$ne"]), IDS).map(
        lambda pair: dict([pair])
    ),
    st.lists(IDS, max_size=4).map(lambda ids: {"$in": ids}),
).map(lambda condition: {"_id": condition})
ANY_FILTER = st.one_of(
    SIMPLE,
    FILTERS,
    st.tuples(SIMPLE, BY_ID).map(lambda pair: pair[0] | pair[1]),
    BY_ID,
    st.lists(SIMPLE, min_size=1, max_size=2).map(lambda parts: {"$or": parts}),
)


def filled(
    store: Any, documents: list[dict[str, Any]], indexes: list[tuple[list[str], bool]]
) -> list[dict[str, Any]]:
    """A collection of these documents, some of which were others at first."""
    wanted = {tuple(fields): sparse for fields, sparse in indexes}
    store.run(
        catalog.create,
        "c",
        indexes=[
            {"fields": list(fields), "sparse": sparse}
            for fields, sparse in wanted.items()
            if fields[0] != "_id"
        ],
    )
    stored: list[dict[str, Any]] = []
    for number, document in enumerate(documents):
        # Ids in another order than the documents; some under the other name.
        id = str(number * 5 % 13)
        named = {"id": id, **document} if number % 3 == 0 else {**document, "_id": id}
        stored.append(named)
    for document in stored:
        try:
            store.run(writing.insert, "c", document)
        except InvalidArgument:  # Two fields of an index go through different lists.
            document.clear()
    return [document for document in stored if document]


def same(found: list[Any], wanted: list[Any]) -> None:
    assert [reference.id_of(each) for each in found] == [reference.id_of(each) for each in wanted]
    assert found == wanted


def check_every_plan(
    documents: list[dict[str, Any]],
    indexes: list[tuple[list[str], bool]],
    filter: dict[str, Any],
    sort: list[tuple[str, int]],
    limit: int,
) -> set[str]:
    """What each plan gives is what the reference gives; says which kinds of plans there were."""
    kinds: set[str] = set()
    store = FakeStore()
    stored = filled(store, documents, indexes)
    wanted = reference.find(stored, filter, sort)
    txn = store.txn
    collection = catalog.require(txn, "c")
    compiled, order = compile(filter), parse_sort(sort)

    def estimate(index: Any, low: bytes, high: bytes) -> int:
        prefix = collection.documents if index is None else entries_prefix(index.id)
        return txn.estimate(prefix + low, prefix + high)

    for any_order in (False, True):
        for count in (None, limit):
            task = Task(
                conditions=conditions_of(compiled.expression),
                order=None if any_order else order,
                count=count,
                counted_only=any_order,
            )
            infos = [index.info for index in collection.ready]
            best, others = plan(task, infos, estimate, thoroughly=True)
            assert plan(task, infos, estimate)[0].access.kind == best.access.kind
            for chosen in (best, *others):
                kinds.add(chosen.access.kind)
                if chosen.access.kind == "index" and chosen.ordered and sort and not any_order:
                    kinds.add("index in order")
                run = Execution(txn, collection, compiled, chosen, task.order, count=count)
                found = [each for batch in run.found() for each in batch]
                decoded = [decode_document(record) for _, record in found]
                if any_order:
                    same(reference.ordered(decoded, []), reference.ordered(wanted, []))
                    counting = Execution(txn, collection, compiled, chosen, None)
                    assert sum(counting.counted()) == len(wanted)
                    continue
                same(decoded[:count], wanted[:count])
                if count is not None:
                    continue
                # From behind each of them the same follow.
                for number, each in enumerate(found):
                    position = run.position(each)
                    order.check_position(position)
                    rest = Execution(
                        txn, collection, compiled, chosen, order, after=position, count=limit
                    )
                    behind = [decode_document(r) for batch in rest.found() for _, r in batch]
                    same(behind[:limit], wanted[number + 1 : number + 1 + limit])
    return kinds


@settings(max_examples=300, deadline=None)
@given(SETS, INDEXES, ANY_FILTER, SORTS, st.integers(1, 5))
def test_every_plan_gives_what_the_reference_gives(
    documents: list[dict[str, Any]],
    indexes: list[tuple[list[str], bool]],
    filter: dict[str, Any],
    sort: list[tuple[str, int]],
    limit: int,
) -> None:
    check_every_plan(documents, indexes, filter, sort, limit)


TWO = st.sampled_from(["a", "b"])
CONDITION = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3).map(lambda values: {"$in": values}),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), SCALARS).map(
        lambda pair: dict([pair])
    ),
)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.dictionaries(TWO, SCALARS | st.sampled_from(LONG), max_size=2), max_size=13),
    st.dictionaries(TWO, CONDITION, max_size=2),
    st.lists(TWO, min_size=1, max_size=2, unique=True),
    st.sampled_from([1, -1]),
    st.booleans(),
    st.integers(1, 5),
)
def test_indexes_that_give_the_order(
    documents: list[dict[str, Any]],
    filter: dict[str, Any],
    sort: list[str],
    direction: int,
    with_id: bool,
    limit: int,
) -> None:
    pairs = [(path, direction) for path in sort]
    if with_id:
        pairs.append(("_id", direction))
    indexes = [([path], False) for path in "ab"] + [(["a", "b"], False), (["b", "a"], True)]
    check_every_plan(documents, indexes, filter, pairs, limit)


def test_all_kinds_of_plans_are_met() -> None:
    documents: list[dict[str, Any]] = [{"a": n % 3, "b": n % 4} for n in range(13)]
    indexes = [(["a"], False), (["b"], False), (["a", "b"], False)]
    kinds = check_every_plan(documents, indexes, {"a": 1, "b": {"$gt": 0}}, [("b", -1)], 3)
    assert kinds == {"scan", "index", "index in order", "intersection"}
    assert "ids" in check_every_plan(documents, indexes, {"_id": {"$gt": "3"}}, [("b", 1)], 3)


@settings(max_examples=100, deadline=None)
@given(SETS, INDEXES, ANY_FILTER, SORTS, st.integers(0, 4), st.integers(1, 5))
def test_operations_give_what_the_reference_gives(
    documents: list[dict[str, Any]],
    indexes: list[tuple[list[str], bool]],
    filter: dict[str, Any],
    sort: list[tuple[str, int]],
    offset: int,
    limit: int,
) -> None:
    store = EngineStore()
    try:
        stored = filled(store, documents, indexes)
        wanted = reference.find(stored, filter, sort)
        txn: Any = store.txn
        page = queries.find(txn, "c", filter, sort=sort, limit=limit, offset=offset)
        found = list(page)
        while page.next_cursor is not None:
            page = queries.find(
                txn, "c", filter, sort=sort, limit=limit, offset=offset, cursor=page.next_cursor
            )
            found += page
        same(found, wanted[offset:])
        scanned = [d for batch in queries.scan(txn, "c", filter, sort=sort) for d in batch]
        same(scanned, wanted)
        some = [d for batch in queries.scan(txn, "c", filter, limit=limit) for d in batch]
        assert len(some) == min(limit, len(wanted))
        assert queries.count(txn, "c", filter) == len(wanted)
        explained = queries.explain(txn, "c", filter, sort=sort, limit=limit, offset=offset)
        assert explained.rows == len(wanted[offset : offset + limit])
    finally:
        store.close()
