"""What namespaces refuse, embedded and through every client: nothing is half written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import trio

from treestore.errors import InvalidArgument, NotFound

BOUND_S = 60

NAMES: list[Any] = ["", "a b", "ü", "a/b", "a" * 129, "\ud800", "a\0", "a\n", 5, None]

SCHEMAS: list[Any] = [
    None,
    5,
    {"nonsense": 1},
    {"vector": {}},
    {"vector": {"dim": 0}},
    {"vector": {"dim": 16_385}},
    {"vector": {"dim": True}},
    {"vector": {"dim": "3"}},
    {"vector": {"dim": 3, "metric": "manhattan"}},
    {"vector": {"dim": 3, "size": 3}},
    {"vector": [3]},
    {"attributes": ["a"]},
    {"attributes": {"a": "integer"}},
    {"attributes": {"a": {"type": "array<array<int>>"}}},
    {"attributes": {"a": {}}},
    {"attributes": {"a": {"type": "int", "full_text": True}}},
    {"attributes": {"a": {"type": "string", "full_text": {"language": "klingon"}}}},
    {"attributes": {"a": {"type": "string", "full_text": {"ngram_min": 4}}}},
    {"attributes": {"a": {"type": "string", "full_text": {"tokenizer": "x"}}}},
    {"attributes": {"a": {"type": "string", "full_text": {"token_length_max": 0}}}},
    {"attributes": {"a": {"type": "string", "full_text": {"stemming": 1}}}},
    {"attributes": {"a": {"type": "int", "filterable": "yes"}}},
    {"attributes": {"a": {"type": "int", "index": True}}},
    {"attributes": {"": "int"}},
    {"attributes": {"a.b": "int"}},
    {"attributes": {"$a": "int"}},
    {"attributes": {"id": "int"}},
    {"attributes": {"vector": "int"}},
    {"attributes": {"\ud800": "int"}},
    {"attributes": {"a" * 129: "int"}},
    {"attributes": {f"a{i}": "int" for i in range(1001)}},
]

DOCUMENTS: list[Any] = [
    5,
    {"id": 10**30},
    {"id": 10**5000},
    {"id": "x" * 100_000},
    None,
    [],
    {},
    {"attributes": {}},
    {"id": None},
    {"id": True},
    {"id": -1},
    {"id": 2**63},
    {"id": 1.5},
    {"id": ""},
    {"id": "x" * 201},
    {"id": "\ud800"},
    {"id": [1]},
    {"id": 1, "year": 5},
    {"id": 1, "attributes": []},
    {"id": 1, "attributes": {"unknown": 1}},
    {"id": 1, "attributes": {"year": "1999"}},
    {"id": 1, "attributes": {"year": 1.0}},
    {"id": 1, "attributes": {"year": True}},
    {"id": 1, "attributes": {"year": 2**63}},
    {"id": 1, "attributes": {"year": [1]}},
    {"id": 1, "attributes": {"price": math.nan}},
    {"id": 1, "attributes": {"price": math.inf}},
    {"id": 1, "attributes": {"price": "1"}},
    {"id": 1, "attributes": {"name": 5}},
    {"id": 1, "attributes": {"name": "\ud800"}},
    {"id": 1, "attributes": {"name": b"bytes"}},
    {"id": 1, "attributes": {"ok": 1}},
    {"id": 1, "attributes": {"at": "yesterday"}},
    {"id": 1, "attributes": {"at": 5}},
    {"id": 1, "attributes": {"at": "0001-01-01T00:00:00+12:00"}},
    {"id": 1, "attributes": {"key": "123"}},
    {"id": 1, "attributes": {"tags": "a"}},
    {"id": 1, "attributes": {"tags": [1]}},
    {"id": 1, "attributes": {"tags": [None]}},
    {"id": 1, "attributes": {"tags": ["a"] * 10_001}},
    {"id": 1, "vector": [1]},
    {"id": 1, "vector": [1, 2, 3]},
    {"id": 1, "vector": []},
    {"id": 1, "vector": 5},
    {"id": 1, "vector": "12"},
    {"id": 1, "vector": ["1", "2"]},
    {"id": 1, "vector": [None, 1]},
    {"id": 1, "vector": [True, False]},
    {"id": 1, "vector": [1, math.nan]},
    {"id": 1, "vector": [1, -math.inf]},
    {"id": 1, "vector": [1, 1e39]},
    {"id": 1, "vector": [1, 1e19]},
    {"id": 1, "vector": [1, 10**18 * 9]},
    {"id": 1, "vector": [0, 0]},
    {"id": 1, "vector": [1e-30, 1e-30]},
    {"id": 1, "vector": [[1, 2]]},
    {"id": 1, "vector": b"12345"},
    {"id": 1, "vector": b"1234"},
    {"id": 1, "vector": np.zeros(2)},
    {"id": 1, "vector": np.ones((1, 2))},
]

FILTERS: list[Any] = [
    5,
    [],
    {"unknown": 1},
    {"hidden": "x"},
    {"year": "1999"},
    {"year": {"$gt": "1999"}},
    {"year": {"$in": [1, "2"]}},
    {"year": {"$gt": math.nan}},
    {"year": {"$bad": 1}},
    {"year": {"$regex": "x"}},
    {"year": {"$contains": 1}},
    {"year": {"$size": 1}},
    {"year": {"$elemMatch": {"$gt": 1}}},
    {"year.month": 1},
    {"ok": 1},
    {"name": 5},
    {"name": [1]},
    {"name": {"$regex": "("}},
    {"at": "yesterday"},
    {"key": "123"},
    {"tags": 5},
    {"tags": {"$contains": 5}},
    {"tags": {"$elemMatch": {"x": 1}}},
    {"id": 1.5},
    {"id": True},
    {"$or": []},
    {"$and": [{"unknown": 1}]},
    {"_id": 1},
]

QUERIES: list[dict[str, Any]] = [
    {"vector": [1]},
    {"vector": [1, math.nan]},
    {"vector": [0, 0]},
    {"vector": []},
    {"vector": "no"},
    {"vector": b"123"},
    {"vector": [1, 0], "top_k": 0},
    {"vector": [1, 0], "top_k": -1},
    {"vector": [1, 0], "top_k": 1_000_000},
    {"vector": [1, 0], "top_k": True},
    {"vector": [1, 0], "top_k": "ten"},
    {"vector": [1, 0], "offset": -1},
    {"vector": [1, 0], "offset": 10**9},
    {"vector": [1, 0], "order_by": "year"},
    {"vector": [1, 0], "include_attributes": ["unknown"]},
    {"vector": [1, 0], "include_attributes": [5]},
    {"vector": [1, 0], "include_vector": 1},
    {"vector": [1, 0], "exact": "yes"},
    {"vector": [1, 0], "consistency": "weak"},
    {"vector": [1, 0], "cursor": "nonsense"},
    {"vector": [1, 0], "cursor": 5},
    {"vector": [1, 0], "fusion": 5},
    {"vector": [1, 0], "fusion": "nix"},
    {"vector": [1, 0], "filter": {"year": {"$gt": 10**400}}},
    {"vector": [1, 0], "filter": {"price": {"$in": [1, -(10**5000)]}}},
    {"vector": [1, 0], "fusion": {"depth": 0}},
    {"order_by": "year", "fusion": {"weights": {"image": 1}}},
    {"order_by": "unknown"},
    {"order_by": "hidden"},
    {"order_by": 5},
    {"order_by": ["year", "year"]},
    {"order_by": {"year": 2}},
    {"text": ""},
    {"text": "..."},
    {"text": "\ud800"},
    {"text": "x" * 10_001},
    {"text": {"query": 5}},
    {"text": {"fields": ["name"]}},
    {"text": {"query": "x", "fields": []}},
    {"text": {"query": "x", "fields": ["year"]}},
    {"text": {"query": "x", "fields": ["unknown"]}},
    {"text": {"query": "x", "weights": {"name": -1}}},
    {"text": {"query": "x", "weights": {"name": math.nan}}},
    {"text": {"query": "x", "weights": {"year": 1}}},
    {"text": {"query": "x", "size": 1}},
    {"text": 5},
]


@pytest.fixture
async def n(db: Any) -> Any:
    with trio.fail_after(BOUND_S):
        await db.namespaces.create(
            "c",
            {
                "vector": {"dim": 2, "metric": "cosine"},
                "attributes": {
                    "year": "int",
                    "price": "float",
                    "name": {"type": "string", "full_text": True},
                    "ok": "bool",
                    "at": "datetime",
                    "key": "uuid",
                    "tags": "array<string>",
                    "hidden": {"type": "string", "filterable": False},
                },
            },
        )
        await db.namespaces.upsert("c", [{"id": 1, "vector": [1, 0], "attributes": {"year": 1}}])
        await db.namespaces.create("plain", {"attributes": {"year": "int"}})
    return db.namespaces


async def refused(call: Any, *args: Any, **kwargs: Any) -> str:
    """The sentence of the refusal. A client may refuse what cannot even be sent."""
    with pytest.raises((InvalidArgument, TypeError, UnicodeEncodeError)) as caught:
        await call(*args, **kwargs)
    return str(caught.value)


async def test_names_and_schemas(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        for name in NAMES:
            await refused(n.create, name, {})
            await refused(n.upsert, name, [])
        for name in (".", ".."):  # Of an address, clients would make another one.
            await refused(n.create, name, {})
            await refused(n.copy, "plain", name)
        for schema in SCHEMAS:
            await refused(n.create, "new", schema)
            await refused(n.update_schema, "plain", schema) if schema else None
        assert [each.name for each in await n.list()] == ["c", "plain"]


async def test_documents(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        for document in DOCUMENTS:
            told = await refused(n.upsert, "c", [{"id": 7}, document])
            assert len(told) < 1500
            if isinstance(document, dict) and "id" in document and document != {"id": 1}:
                patch = await refused(n.patch, "c", [document])
                assert patch
        nothing: list[Any] = [5, None, {}, "ab"]
        for documents in nothing:
            await refused(n.upsert, "c", documents)
        await refused(n.upsert, "plain", [{"id": 1, "vector": [1, 0]}])
        (only,) = (await n.export("c")).items
        assert (only.id, only.attributes) == (1, {"year": 1})


async def test_what_is_wrong_is_named(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        for document, words in [
            ({"id": "x", "attributes": {"colour": 1}}, ["documents[1]", "'x'", "'colour'"]),
            ({"id": "x", "attributes": {"year": "1999"}}, ["'year'", "64 bits", "'1999'"]),
            ({"id": "x", "vector": [1, 2, 3]}, ["'x'", "3 numbers", "have 2"]),
            ({"id": "x", "vector": [0, 0]}, ["zero", "cosine"]),
            ({"id": "x", "vector": [1, math.nan]}, ["NaN"]),
            ({"id": "x", "year": 5}, ["'year'", "attributes"]),
        ]:
            told = await refused(n.upsert, "c", [{"id": 7}, document])
            for word in words:
                assert word in told


async def test_filters(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        for filter in FILTERS:
            await refused(n.count, "c", filter)
            await refused(n.query, "c", filter=filter)
            await refused(n.delete, "c", filter=filter)
            await refused(n.patch_by_filter, "c", filter, {"year": 2})
            await refused(n.upsert, "c", [{"id": 1}], condition=filter)
            await refused(n.aggregate, "c", {"n": {"$count": {}}}, filter=filter)
        assert await n.count("c") == 1
        for by, aggregates in (
            ("unknown", {}),
            ("hidden", {}),
            (5, {}),
            (None, {"x": {"$sum": "unknown"}}),
            (None, {"x": {"$bad": "year"}}),
            (None, 5),
        ):
            await refused(n.aggregate, "c", aggregates, by=by)


async def test_queries(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        for query in QUERIES:
            await refused(n.query, "c", **query)
        await refused(n.query, "plain", vector=[1, 0])
        await refused(n.query, "plain", text="words")
        await refused(n.get, "c", 5)
        await refused(n.get, "c", [1.5])
        await refused(n.delete, "c", [1.5])
        await refused(n.delete, "c", [1], limit=1)
        await refused(n.delete, "c", filter={}, limit=0)
        await refused(n.export, "c", limit=0)
        for call in (n.describe, n.count, n.export, n.query):
            with pytest.raises(NotFound):
                await call("none")
