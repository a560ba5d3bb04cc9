"""Properties 10 to 15: what queries give, against a slow second implementation."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.http.conftest import edge_over
from tests.properties.scenes import BOUND_S, Document, examples, reached_every_way
from tests.query import query_reference, reference
from tests.query.test_properties import NAMES, PATHS
from tests.stores.engine_store import EngineStore
from tests.stores.test_queries_plans import (
    INDEXES,
    SCALARS,
    SETS,
    SIMPLE,
    SORTS,
    VALUES,
    filled,
)
from treestore.stores.collections import queries, writing

id_of = query_reference.id_of


class Filled:
    """A collection on an engine, and another one of the same documents without indexes."""

    def __init__(self, documents: list[Document], indexes: list[tuple[list[str], bool]]) -> None:
        self.store = EngineStore()
        self.documents = filled(self.store, documents, indexes)

    def __enter__(self) -> Filled:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.store.close()

    def found(self, filter: Document, **options: Any) -> list[Document]:
        """What `find` gives; `count` and `scan` agree with it."""
        txn: Any = self.store.txn
        page = queries.find(txn, "c", filter, **options)
        if not options:
            assert queries.count(txn, "c", filter) == len(page.items)
            scanned = [d for batch in queries.scan(txn, "c", filter) for d in batch]
            assert sorted(map(id_of, scanned)) == sorted(map(id_of, page))
        return list(page)

    def ids(self, filter: Document) -> set[str]:
        found = [id_of(document) for document in self.found(filter)]
        assert len(found) == len(set(found))
        return set(found)


def values_at(document: Document, path: str) -> list[Any]:
    """All that a path leads to, elements of lists included."""
    return reference.spread(list(reference.lead(document, path.split("."))))


Asked = tuple[list[Document], list[tuple[list[str], bool]], str, Any]


@st.composite
def asked(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Asked:
    """Documents, indexes, a path, and a value that is often there."""
    documents = draw(SETS | st.lists(st.dictionaries(NAMES, SCALARS), min_size=4, max_size=12))
    path = draw(NAMES | PATHS)
    there = [v for d in documents for v in values_at(d, path) if v is not reference.NOTHING]
    value = draw(st.sampled_from(there) | values if there else values)
    indexes = draw(INDEXES) + draw(st.lists(st.tuples(st.just([path]), st.booleans()), max_size=1))
    return documents, indexes, path, value


@examples(50)
@given(asked(VALUES))
def test_property_10_equality(question: Asked) -> None:
    """An equality gives exactly the documents that have an equal value there (missing is null, an
    element counts, 1 equals 1.0 and neither "1" nor true), with indexes and without."""
    documents, indexes, path, value = question
    with Filled(documents, indexes) as c:
        wanted = {
            id_of(d)
            for d in c.documents
            if any(reference.equal(each, value) for each in values_at(d, path))
        }
        assert c.ids({path: {"$eq": value}}) == wanted
        if not isinstance(value, dict):
            assert c.ids({path: value}) == wanted
        assert c.ids({path: {"$ne": value}}) == {id_of(d) for d in c.documents} - wanted
        assert c.ids({path: {"$in": [value, value]}}) == wanted


@examples(50)
@given(asked(SCALARS))
def test_property_11_comparison(question: Asked) -> None:
    """Each comparison gives exactly the documents with a value of the operand's kind on the asked
    side of it, exactly compared; and what is at most and at least equal makes up "up to"."""
    documents, indexes, path, value = question
    with Filled(documents, indexes) as c:
        found = {}
        for operator in ("$gt", "$gte", "$lt", "$lte"):
            found[operator] = c.ids({path: {operator: value}})
            assert found[operator] == {
                id_of(d)
                for d in c.documents
                if any(reference.ranged(operator, each, value) for each in values_at(d, path))
            }
        equal = c.ids({path: {"$eq": value}})
        assert found["$gte"] == found["$gt"] | equal
        assert found["$lte"] == found["$lt"] | equal


COMPARISONS = st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"])


@st.composite
def asked_twice(draw: st.DrawFn) -> tuple[list[Document], list[Any], Document, Document]:
    """Documents, indexes, and two filters, often on the same path."""
    documents, indexes, path, value = draw(asked(SCALARS))
    one = draw(COMPARISONS.map(lambda operator: {path: {operator: value}}) | SIMPLE)
    again = st.tuples(COMPARISONS, SCALARS).map(lambda pair: {path: dict([pair])})
    return documents, indexes, one, draw(again | SIMPLE)


@examples(60)
@given(asked_twice())
def test_property_12_and_composition(
    question: tuple[list[Document], list[Any], Document, Document],
) -> None:
    """Two filters together give what each of them gives, and nothing else; in whichever order they
    are written, and in one object or two."""
    documents, indexes, one, other = question
    with Filled(documents, indexes) as c:
        both = c.ids(one) & c.ids(other)
        assert c.ids({"$and": [one, other]}) == both
        assert c.ids({"$and": [other, one]}) == both
        assert c.ids({**one, "$and": [other]}) == both
        if not one.keys() & other.keys():
            assert c.ids({**one, **other}) == both


@examples(40)
@given(
    SETS,
    INDEXES,
    SORTS,
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.lists(st.integers(0, 12), max_size=4, unique=True),
)
def test_property_13_pagination(
    documents: list[Document],
    indexes: list[tuple[list[str], bool]],
    sort: list[tuple[str, int]],
    limits: list[int],
    changed: list[int],
) -> None:
    """Pages put together are the whole answer, each document once and in order, whatever the sizes
    of the pages; also while other documents are changed, added and removed between them."""
    with Filled(documents, indexes) as c:
        store, limit = c.store, 1
        moved = {id_of(c.documents[n]) for n in changed if n < len(c.documents)}
        whole = [id_of(d) for d in query_reference.find(c.documents, {}, sort)]
        assert [id_of(d) for d in c.found({}, sort=sort)] == whole
        for disturbed in (False, True):
            found: list[str] = []
            cursor, pages = None, 0
            while pages == 0 or cursor is not None:
                txn: Any = store.txn
                limit = limits[pages % len(limits)]
                page = queries.find(txn, "c", {}, sort=sort, limit=limit, cursor=cursor)
                assert len(page.items) <= limit
                found += [id_of(d) for d in page]
                cursor, pages = page.next_cursor, pages + 1
                assert len(page.items) == limit or cursor is None
                # Always one more document ahead of pages of one would never come to an end.
                if disturbed and pages <= 20:
                    store.run(writing.insert, "c", {"_id": f"new{pages}", "0": pages})
                    for id in sorted(moved)[pages - 1 : pages]:
                        store.run(writing.delete, "c", id)
                assert pages < 100
            stable = [id for id in found if id not in moved and not id.startswith("new")]
            assert stable == [id for id in whole if id not in moved]
            assert len(found) == len(set(found))
            assert disturbed or found == whole


LISTED = st.lists(
    st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=3), min_size=1),
    min_size=2,
    max_size=12,
)
"""Of a list the least element counts, or the greatest."""
BY_NAMES = st.lists(
    st.tuples(NAMES, st.sampled_from([-1, 1])), min_size=1, max_size=2, unique_by=lambda p: p[0]
)


@examples(60)
@given(SETS | LISTED, INDEXES, st.just({}) | SIMPLE, BY_NAMES | SORTS)
def test_property_14_sort_order(
    documents: list[Document],
    indexes: list[tuple[list[str], bool]],
    filter: Document,
    sort: list[tuple[str, int]],
) -> None:
    """Documents come in the order that was asked for, field after field, each in its direction, one
    order over all kinds of values; what is equal comes by id. No plan changes it, nor a limit."""
    with Filled(documents, indexes) as c:
        found = c.found(filter, sort=sort)
        assert found == query_reference.find(c.documents, filter, sort)
        for path, direction in sort[:1]:
            keys = [query_reference.sort_key(d, path, direction) for d in found if path != "_id"]
            for one, other in pairwise(keys):
                assert query_reference.compare_keys(one, other) * direction <= 0
        assert c.found(filter, sort=sort, limit=3) == found[:3]
        assert c.found(filter, sort=sort, offset=2) == found[2:]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def exactly(value: Any) -> str:
    """Of equal texts where values are the same to the last bit, order and type."""
    return json.dumps(value)


@examples(4, slow=True)
@given(st.lists(st.fixed_dictionaries({"v": JSON, "w": JSON}), min_size=1, max_size=4))
async def test_property_15_query_round_trip(documents: list[Document]) -> None:
    """A document comes back from every query exactly as it was stored, and a query means the same
    embedded, through every client and over HTTP, whichever of them stored the document."""
    stored = [{"_id": f"{n}", **document} for n, document in enumerate(documents)]
    with TemporaryDirectory() as folder, trio.fail_after(BOUND_S):
        async with edge_over(Path(folder) / "data") as edge:
            at = "/collections/c/documents"
            async with reached_every_way(edge.database) as faces:
                await edge.database.collections.create("c", indexes=["v"])
                for n, document in enumerate(stored):
                    if n % 5 == 4:
                        await edge.ask("POST", at, 201, json=document)
                    else:
                        await faces[n % 5].collections.insert("c", document)

                async def ask(filter: Document) -> None:
                    wanted = [exactly(d) for d in stored if query_reference.matches(d, filter)]
                    for face in faces:
                        found = await face.collections.find("c", filter)
                        assert [exactly(d) for d in found] == wanted
                        scanned = face.collections.scan("c", filter, sort="_id")
                        assert [exactly(d) async for d in scanned] == wanted
                    params = {"filter": json.dumps(filter)}
                    page = await edge.ask("GET", at, 200, params=params)
                    assert [exactly(d) for d in page["items"]] == wanted
                    body = {"filter": filter}
                    page = await edge.ask("POST", "/collections/c/query", 200, json=body)
                    assert [exactly(d) for d in page["items"]] == wanted

                await ask({})
                for document in stored:
                    await ask({"v": {"$eq": document["v"]}})
                    await ask({"w": {"$gte": document["w"]}, "_id": document["_id"]})
                    for face in faces:
                        got = await face.collections.get("c", document["_id"])
                        assert exactly(got) == exactly(document)
