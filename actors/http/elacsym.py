"""Elacsym's JSON, turned into the arguments of ``namespaces`` and its results back.

Pure: no requests, no stores. What is not Elacsym's (a filter in MongoDB's form, ``text`` in place
of ``full_text``) passes through as it is, so one path serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from treestore.errors import InvalidArgument

COMPARISONS: Mapping[str, str] = {
    "eq": "$eq",
    "ne": "$ne",
    "not_eq": "$ne",
    "gt": "$gt",
    "gte": "$gte",
    "lt": "$lt",
    "lte": "$lte",
    "in": "$in",
    "not_in": "$nin",
    "contains": "$contains",
    "contains_any": "$containsAny",
    "containsany": "$containsAny",
    "glob": "$glob",
    "iglob": "$iglob",
    "regex": "$regex",
}
"""``op`` of a condition; upper and lower case are one, and so are ``NotIn`` and ``not_in``."""

TYPES: Mapping[str, str] = {
    "integer": "int",
    "boolean": "bool",
    "number": "float",
    "text": "string",
}
"""Types of attributes that go by another name."""

DEPTH_MAX = 100
"""Levels of a filter."""

_NAMES = {name.replace("_", ""): operator for name, operator in COMPARISONS.items()}

QUERY = frozenset(
    {
        *("vector", "full_text", "text", "filter", "top_k", "metric", "include_vector"),
        *("include_attributes", "fusion", "exact", "consistency"),
    }
)


def schema(body: Any) -> dict[str, Any]:
    """The schema of ``PUT /v1/namespaces/{ns}``: ``{"schema": {…}}`` or the schema itself."""
    given = dict(_object(body, "body"))
    if "schema" in given:
        _only(given, {"schema"}, "body")
        given = dict(_object(given["schema"], "schema"))
    dimension = given.pop("vector_dim", None)
    metric = given.pop("vector_metric", None)
    if dimension is not None or metric is not None:
        if "vector" in given:
            raise InvalidArgument("A schema has vector, or vector_dim and vector_metric; not both.")
        given["vector"] = {"dim": dimension, "metric": metric or "cosine"}
    attributes = _object(given.get("attributes", {}), "attributes")
    given["attributes"] = {name: _attribute(name, value) for name, value in attributes.items()}
    return given


def _attribute(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = {"type": value}
    found = dict(_object(value, f"attribute {name!r:.100}"))
    kind = found.get("type")
    if isinstance(kind, str):
        plain = kind.lower()
        if plain.startswith("array<") and plain.endswith(">"):
            inner = plain[6:-1]
            found["type"] = f"array<{TYPES.get(inner, inner)}>"
        elif plain.startswith("array_"):
            inner = plain[6:]
            found["type"] = f"array<{TYPES.get(inner, inner)}>"
        else:
            found["type"] = TYPES.get(plain, kind)
    if "indexed" in found:
        found["filterable"] = found.pop("indexed")
    return found


def documents(body: Any) -> list[Any]:
    """The documents of ``POST …/upsert``: ``{"documents": […]}`` or the list itself."""
    if isinstance(body, list):
        return body
    given = _object(body, "body")
    _only(given, {"documents"}, "body")
    found = given.get("documents")
    if not isinstance(found, list):
        raise InvalidArgument("The body's documents are a list.")
    return found


def query(body: Any) -> dict[str, Any]:
    """The arguments of ``namespaces.query``, without the name."""
    given = dict(_object(body, "body"))
    _only(given, QUERY, "body")
    given.pop("metric", None)  # The schema's counts.
    if "full_text" in given:
        if "text" in given:
            raise InvalidArgument("A query has full_text or text, which are one; not both.")
        text = given.pop("full_text")
        if text is not None:
            given["text"] = _full_text(text)
    if given.get("vector") is None and given.get("text") is None:
        raise InvalidArgument("A query has a vector, full_text, or both.")
    if given.get("filter") is not None:
        given["filter"] = mongo(given["filter"])
    return {name: value for name, value in given.items() if value is not None}


def filtered(body: Any, known: frozenset[str]) -> dict[str, Any]:
    """The arguments of an operation that takes a filter among others."""
    given = dict(_object(body, "body"))
    _only(given, known, "body")
    if given.get("filter") is not None:
        given["filter"] = mongo(given["filter"])
    return given


def deletion(body: Any) -> dict[str, Any]:
    """The arguments of ``namespaces.delete``, without the name."""
    return filtered(body, frozenset({"ids", "filter", "limit"}))


def _full_text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    given = _object(value, "full_text")
    _only(given, {"field", "fields", "query", "weight", "weights"}, "full_text")
    if ("field" in given) == ("fields" in given):
        raise InvalidArgument("full_text has a field or fields.")
    if not isinstance(given.get("query"), str):
        raise InvalidArgument("full_text has a query, which is a string.")
    fields = [given["field"]] if "field" in given else given["fields"]
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        raise InvalidArgument("The fields of full_text are strings.")
    found = {"fields": fields, "query": given["query"]}
    weights = given.get("weights")
    if weights is None and given.get("weight") is not None:
        weights = dict.fromkeys(fields, given["weight"])
    if weights is not None:
        found["weights"] = _object(weights, "weights")
    return found


def mongo(filter: Any) -> Any:
    """Elacsym's filter in MongoDB's form.

    ``{"type": "and"|"or", "conditions": […]}``, a condition ``{"field", "op", "value"}``, each
    within the other as deep as `DEPTH_MAX`. Anything else is taken to be MongoDB's already.
    """
    if not isinstance(filter, dict) or not ("conditions" in filter or _is_condition(filter)):
        return filter
    return _translated(filter, 1)


def _is_condition(value: Mapping[str, Any]) -> bool:
    return value.keys() == {"field", "op", "value"}


def _translated(value: Any, depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        raise InvalidArgument(f"A filter has at most {DEPTH_MAX} levels.")
    given = _object(value, "condition")
    if "conditions" in given:
        _only(given, {"type", "conditions"}, "filter")
        kind = str(given.get("type", "and")).lower()
        if kind not in ("and", "or", "not"):
            raise InvalidArgument(f"A filter's type is and, or, or not; not {kind!r:.40}.")
        conditions = given["conditions"]
        if not isinstance(conditions, list):
            raise InvalidArgument("The conditions of a filter are a list.")
        parts = [_translated(each, depth + 1) for each in conditions]
        if kind == "not":
            return {"$nor": [{"$and": parts}]} if parts else {}
        if not parts:
            # Of no conditions all hold, and none does.
            return {} if kind == "and" else {"$nor": [{}]}
        return {f"${kind}": parts}
    if not _is_condition(given):
        raise InvalidArgument("A condition has field, op and value, and nothing else.")
    field, name = given["field"], given["op"]
    if not isinstance(field, str) or not isinstance(name, str):
        raise InvalidArgument("A condition's field and op are strings.")
    operator = _NAMES.get(name.lower().replace("_", ""))
    if operator is None:
        known = ", ".join(sorted(COMPARISONS))
        raise InvalidArgument(f"There is no op {name!r:.40}; there is: {known}.")
    return {field: {operator: given["value"]}}


def results(hits: list[dict[str, Any]], took_ms: float) -> dict[str, Any]:
    """The answer of ``POST …/query``."""
    kept = ("id", "score", "distance", "attributes", "vector")
    shown: Callable[[dict[str, Any]], dict[str, Any]] = lambda hit: {  # noqa: E731
        name: hit[name] for name in kept if hit.get(name) is not None
    }
    return {"results": [shown(hit) for hit in hits], "took_ms": round(took_ms, 3)}


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"The {what} is a JSON object.")
    return value


def _only(given: Mapping[str, Any], known: frozenset[str] | set[str], what: str) -> None:
    unknown = sorted(given.keys() - known)
    if unknown:
        listed = ", ".join(sorted(known))
        raise InvalidArgument(f"The {what} has no {unknown[0]!r:.100}; it has: {listed}.")
