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
    text = {"type": "string", "full_text": {"tokenizer": "default"}}
    assert elacsym.schema({"attributes": {"a": text}})["attributes"]["a"] == {
        "type": "string",
        "full_text": {"tokenizer": "word"},
    }
    with pytest.raises(InvalidArgument, match="'vector_dim' belongs in that"):
        elacsym.schema({"vector_dim": 3, "schema": {"attributes": {}}})


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
            {"$or": [{"a": {"$gt": 1}}, {"b": {"$lte": 2}}]},
        ),
        (
            {
                "type": "not",
                "conditions": [
                    {"field": "a", "op": "eq", "value": 1},
                    {
                        "type": "and",
                        "conditions": [
                            {"field": "b", "op": "eq", "value": 2},
                            {"field": "c", "op": "eq", "value": 3},
                        ],
                    },
                ],
            },
            {"$not": {"$and": [{"a": {"$eq": 1}}, {"b": {"$eq": 2}}, {"c": {"$eq": 3}}]}},
        ),
        ({"year": {"$gte": 2000}}, {"year": {"$gte": 2000}}),
        ({"field": 5}, {"field": 5}),
    ],
)
def test_filters(given: Any, expected: Any) -> None:
    assert elacsym.mongo(given) == expected


OTHER = {"field": "year", "op": "lt", "value": 0}


def deep(kinds: tuple[str, ...], levels: int, *beside: Any) -> Any:
    """Groups within each other, the outermost being the last of the kinds."""
    found: Any = {"field": "year", "op": "gte", "value": 2021}
    for level in range(levels):
        found = {"type": kinds[level % len(kinds)], "conditions": [found, *beside]}
    return found


def test_levels_that_say_nothing_are_left_out() -> None:
    plain = {"year": {"$gte": 2021}}
    assert elacsym.mongo(deep(("and", "or"), 5000)) == plain
    assert elacsym.mongo(deep(("not",), 5000)) == plain
    assert elacsym.mongo(deep(("not",), 5001)) == {"$not": plain}
    other = {"field": "a", "op": "eq", "value": 1}
    assert elacsym.mongo(deep(("and",), 3, other)) == {"$and": [plain, *[{"a": {"$eq": 1}}] * 3]}


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
        "filter": {"y": {"$gte": 1}},
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
        {"vector": [1], "filter": {"field": "$or", "op": "eq", "value": [{"a": 1}]}},
        {"vector": [1], "metric": "nix"},
    ],
)
def test_bad_queries(body: Any) -> None:
    with pytest.raises(InvalidArgument):
        elacsym.query(body)


def test_results() -> None:
    hits = [{"id": 1, "score": 0.5, "distance": None, "attributes": {"a": 1}, "legs": None}]
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


async def test_filters_as_deep_as_anyone_likes(edge: Edge) -> None:
    await edge.ask("PUT", "/v1/namespaces/n", 201, json=SCHEMA)
    await edge.ask("POST", "/v1/namespaces/n/upsert", 200, json=DOCUMENTS)
    never = {"field": "year", "op": "lt", "value": 0}
    later = {"field": "year", "op": "gt", "value": 2021}
    endless = b'{"filter": ' + b'{"type": "not", "conditions": [' * 5000
    headers = {"Content-Type": "application/json"}
    request: Any = {"content": endless, "headers": headers}
    error = await edge.ask("POST", "/v1/namespaces/n/count", 400, **request)
    assert "deeply" in error["message"]
    cases: list[tuple[Any, list[Any]]] = [
        (deep(("and",), 300), [3, "two"]),
        (deep(("not",), 301), [1]),
        (deep(("and", "or", "not", "not"), 300), [3, "two"]),
        (deep(("or", "and"), 200, later), [3]),  # Each level counts.
        (deep(("or", "and"), 201, never), []),
    ]
    for filter, wanted in cases:
        body = {"vector": [0, 1], "filter": filter, "top_k": 5}
        found = await edge.ask("POST", "/v1/namespaces/n/query", 200, json=body)
        assert {hit["id"] for hit in found["results"]} == set(wanted)
        counted = await edge.ask("POST", "/v1/namespaces/n/count", 200, json={"filter": filter})
        assert counted == {"count": len(wanted)}


async def test_orders_pages_and_legs_over_http(edge: Edge) -> None:
    attributes: Any = SCHEMA["attributes"]
    schema = {**SCHEMA, "attributes": {**attributes, "text": _TEXT}}
    await edge.ask("PUT", "/v1/namespaces/n", 201, json=schema)
    await edge.ask("POST", "/v1/namespaces/n/upsert", 200, json=DOCUMENTS)
    patches = [{"id": 1, "attributes": {"text": "a tax"}}, {"id": 9, "attributes": {}}]
    found = await edge.ask("POST", "/v1/namespaces/n/patch", 200, json={"documents": patches})
    assert (found["patched"], found["missing"]) == (1, [9])

    path = "/v1/namespaces/n/query"
    body: Any = {"order_by": "-year", "top_k": 2}
    found = await edge.ask("POST", path, 200, json=body)
    assert [hit["id"] for hit in found["results"]] == [3, "two"]
    body["cursor"] = found["results"][-1]["cursor"]
    found = await edge.ask("POST", path, 200, json=body)
    assert [hit["id"] for hit in found["results"]] == [1]
    found = await edge.ask("POST", path, 200, json={"vector": [1, 0], "offset": 1})
    assert [hit["id"] for hit in found["results"]] == ["two", 3]
    body = {"vector": [1, 0], "text": "taxes", "include_legs": True, "top_k": 1}
    (hit,) = (await edge.ask("POST", path, 200, json=body))["results"]
    assert hit["id"] == 1
    assert hit["legs"]["vector"]["rank"] == hit["legs"]["text"]["rank"] == 1

    body = {"documents": [{"id": 1}, {"id": 7}], "condition": {"year": {"$gt": 2020}}}
    found = await edge.ask("POST", "/v1/namespaces/n/upsert", 200, json=body)
    assert found == {"count": 1, "skipped": [1]}

    page = await edge.ask("GET", "/v1/namespaces/n/documents?limit=2&include_vector=false", 200)
    assert [set(each) for each in page["items"]] == [{"id", "attributes"}] * 2
    after = f"/v1/namespaces/n/documents?cursor={page['next_cursor']}"
    page = await edge.ask("GET", after, 200)
    assert [each["id"] for each in page["items"]] == [3, 7]
    assert page["items"][0]["vector"] == [0, 1]


async def test_namespaces_are_listed_in_pages(edge: Edge) -> None:
    for name in ("a1", "a2", "a3", "b1"):
        await edge.ask("PUT", f"/v1/namespaces/{name}", 201, json={"attributes": {}})
    page = await edge.ask("GET", "/v1/namespaces?prefix=a&limit=2", 200)
    assert [each["name"] for each in page["items"]] == ["a1", "a2"]
    after = f"/v1/namespaces?prefix=a&limit=2&cursor={page['next_cursor']}"
    page = await edge.ask("GET", after, 200)
    assert [each["name"] for each in page["items"]] == ["a3"]
    assert page["next_cursor"] is None
    await edge.ask("GET", "/v1/namespaces?limit=0", 400)


_TEXT = {"type": "string", "full_text": {"language": "english"}}


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
        ("/v1/namespaces/n/query", {"vector": [1, 0], "fusion": "nix"}),
        ("/v1/namespaces/n/query", {"vector": [1, 0], "metric": "nix"}),
        ("/v1/namespaces/n/query", {"vector": [1, 0], "cursor": "nix"}),
        ("/v1/namespaces/n/query", {"vector": [1, 0], "filter": {"year": {"$gt": 10**400}}}),
        ("/v1/namespaces/n/query", {"vector": [1, 0], "filter": deep(("or", "and"), 260, OTHER)}),
        ("/v1/namespaces/n/upsert", {"documents": [{"id": 10**30}]}),
        ("/v1/namespaces/n/upsert", {"documents": [{"id": 1}], "condition": {"x": 1}}),
        ("/v1/namespaces/%2E%2E", SCHEMA),
    ],
)
async def test_bad_input_over_http(edge: Edge, path: str, body: Any) -> None:
    await edge.ask("PUT", "/v1/namespaces/n", 201, json=SCHEMA)
    method = "POST" if path.count("/") > 3 else "PUT"
    error = await edge.ask(method, path, 400, json=body)
    assert error["code"] == "invalid_argument"
    found = await edge.ask("GET", "/v1/namespaces/n", 200)
    assert found["statistics"]["documents"] == 0
