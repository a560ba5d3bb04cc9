"""Elacsym's JSON: its translation."""

from __future__ import annotations

from typing import Any

import pytest

from actors.http import elacsym
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
