"""Elacsym's JSON: its translation, and the paths over a real store."""

from __future__ import annotations

from typing import Any

import pytest

from actors.http import elacsym
from tests.http.conftest import Edge
from treestore.errors import InvalidArgument


def test_schemas() -> None:
    given = {
        "schema": {
            "vector_dim": 3,
            "vector_metric": "l2",
            "attributes": {
                "title": {"type": "string", "full_text": {"language": "english"}},
                "year": {"type": "integer", "indexed": True},
                "tags": {"type": "array<string>"},
                "flags": {"type": "array_boolean"},
                "open": "boolean",
            },
        }
    }
    found = elacsym.schema(given)
    assert found == {
        "vector": {"dim": 3, "metric": "l2"},
        "attributes": {
            "title": {"type": "string", "full_text": {"language": "english"}},
            "year": {"type": "int", "filterable": True},
            "tags": {"type": "array<string>"},
            "flags": {"type": "array<bool>"},
            "open": {"type": "bool"},
        },
    }
    assert elacsym.schema(found) == found  # Ours passes through.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"field": "a", "op": "eq", "value": 1}, {"a": {"$eq": 1}}),
        ({"field": "a", "op": "ContainsAny", "value": [1]}, {"a": {"$containsAny": [1]}}),
        ({"field": "a", "op": "not_in", "value": [1]}, {"a": {"$nin": [1]}}),
        ({"type": "and", "conditions": []}, {}),
        ({"type": "or", "conditions": []}, {"$nor": [{}]}),
        (
            {
                "type": "or",
                "conditions": [
                    {"field": "a", "op": "gt", "value": 1},
                    {"type": "and", "conditions": [{"field": "b", "op": "lte", "value": 2}]},
                ],
            },
            {"$or": [{"a": {"$gt": 1}}, {"$and": [{"b": {"$lte": 2}}]}]},
        ),
        ({"year": {"$gte": 2000}}, {"year": {"$gte": 2000}}),
        ({"field": 5}, {"field": 5}),
    ],
)
def test_filters(given: Any, expected: Any) -> None:
    assert elacsym.mongo(given) == expected


def test_deep_filters_end() -> None:
    deep: Any = {"field": "a", "op": "eq", "value": 1}
    for _ in range(200):
        deep = {"type": "and", "conditions": [deep]}
    with pytest.raises(InvalidArgument, match="levels"):
        elacsym.mongo(deep)


def test_queries() -> None:
    assert elacsym.query(
        {
            "vector": [1, 2],
            "full_text": {"field": "title", "query": "tax", "weight": 0.5},
            "filter": {"type": "and", "conditions": [{"field": "y", "op": "ge", "value": 1}]},
        }
        | {"filter": {"type": "and", "conditions": [{"field": "y", "op": "gte", "value": 1}]}}
    ) == {
        "vector": [1, 2],
        "text": {"fields": ["title"], "query": "tax", "weights": {"title": 0.5}},
        "filter": {"$and": [{"y": {"$gte": 1}}]},
    }
    several = {"fields": ["a", "b"], "query": "x", "weights": {"a": 2}}
    assert elacsym.query({"full_text": several, "top_k": 5}) == {"text": several, "top_k": 5}


@pytest.mark.parametrize(
    "body",
    [
        5,
        [],
        {},
        {"top_k": 3},
        {"vector": [1], "nix": 1},
        {"full_text": {"query": "x"}},
        {"full_text": {"field": "a", "fields": ["b"], "query": "x"}},
        {"full_text": {"field": "a", "query": 5}},
        {"full_text": {"field": 5, "query": "x"}},
        {"full_text": 5},
        {"full_text": "x", "text": "x"},
        {"vector": [1], "filter": {"conditions": 5}},
        {"vector": [1], "filter": {"type": "xor", "conditions": []}},
        {"vector": [1], "filter": {"field": "a", "op": "nix", "value": 1}},
        {"vector": [1], "filter": {"field": 5, "op": "eq", "value": 1}},
        {"vector": [1], "filter": {"type": "and", "conditions": [5]}},
        {"vector": [1], "filter": {"type": "and", "conditions": [{"a": 1}]}},
    ],
)
def test_bad_queries(body: Any) -> None:
    with pytest.raises(InvalidArgument):
        elacsym.query(body)


def test_results() -> None:
    hits = [{"id": 1, "score": 0.5, "distance": None, "attributes": {"a": 1}, "legs": {}}]
    assert elacsym.results(hits, 1.23456) == {
        "results": [{"id": 1, "score": 0.5, "attributes": {"a": 1}}],
        "took_ms": 1.235,
    }


SCHEMA = {
    "vector_dim": 2,
    "vector_metric": "cosine",
    "attributes": {"year": "integer", "tags": "array<string>", "at": "datetime"},
}
DOCUMENTS = [
    {"id": 1, "vector": [1, 0], "attributes": {"year": 2020, "tags": ["a"]}},
    {"id": "two", "vector": [1, 1], "attributes": {"year": 2021, "at": "2024-01-01"}},
    {"id": 3, "vector": [0, 1], "attributes": {"year": 2022, "tags": ["a", "b"]}},
]


async def test_namespaces_over_http(edge: Edge) -> None:
    assert await edge.ask("PUT", "/v1/namespaces/n", 201, json=SCHEMA) == {
        "namespace": "n",
        "created": True,
    }
    again = await edge.ask("PUT", "/v1/namespaces/n", 200, json={"schema": SCHEMA})
    assert again["created"] is False
    await edge.ask("PUT", "/v1/namespaces/n", 409, json={"attributes": {}})
    body: Any = {"documents": DOCUMENTS}
    assert await edge.ask("POST", "/v1/namespaces/n/upsert", 200, json=body) == {"count": 3}
    path = "/v1/namespaces/n/query"
    found = await edge.ask("POST", path, 200, json={"vector": [1, 0.1], "top_k": 2})
    assert [hit["id"] for hit in found["results"]] == [1, "two"]
    assert found["results"][0]["attributes"] == {"year": 2020, "tags": ["a"]}
    assert found["results"][1]["attributes"]["at"] == "2024-01-01T00:00:00.000000Z"
    condition = {"field": "tags", "op": "Contains", "value": "a"}
    filter = {"type": "and", "conditions": [condition, {"field": "year", "op": "gt", "value": 1}]}
    body = {"vector": [1, 0], "filter": filter, "include_vector": True}
    found = await edge.ask("POST", path, 200, json=body)
    assert [(hit["id"], hit["vector"]) for hit in found["results"]] == [(1, [1, 0]), (3, [0, 1])]
    listed = await edge.ask("GET", "/v1/namespaces", 200)
    assert [each["name"] for each in listed["items"]] == ["n"]
    described = await edge.ask("GET", "/v1/namespaces/n", 200)
    assert described["statistics"]["documents"] == 3
    await edge.ask("DELETE", "/v1/namespaces/n", 204)
    await edge.ask("DELETE", "/v1/namespaces/n", 404)
    await edge.ask("POST", path, 404, json={"vector": [1, 0]})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/namespaces/bad%20name", SCHEMA),
        ("/v1/namespaces/m", {"attributes": {"a": "nix"}}),
        ("/v1/namespaces/m", {"vector_dim": 0}),
        ("/v1/namespaces/n/upsert", {"documents": [{"id": 1, "vector": [1]}]}),
        ("/v1/namespaces/n/upsert", {"documents": [{"id": 1, "attributes": {"x": 1}}]}),
        ("/v1/namespaces/n/upsert", {"documents": [{"id": 1.5}]}),
        ("/v1/namespaces/n/query", {"vector": [0, 0]}),
        ("/v1/namespaces/n/query", {"vector": [1, 0], "top_k": 0}),
        ("/v1/namespaces/n/query", {"vector": [1, 0], "filter": {"x": 1}}),
        ("/v1/namespaces/n/query", {"vector": "no"}),
    ],
)
async def test_bad_input_over_http(edge: Edge, path: str, body: Any) -> None:
    await edge.ask("PUT", "/v1/namespaces/n", 201, json=SCHEMA)
    method = "POST" if path.count("/") > 3 else "PUT"
    error = await edge.ask(method, path, 400, json=body)
    assert error["code"] == "invalid_argument"
    found = await edge.ask("GET", "/v1/namespaces/n", 200)
    assert found["statistics"]["documents"] == 0
