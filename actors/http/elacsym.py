"""Elacsym's JSON, turned into the arguments of ``namespaces`` and its results back.

Pure: no requests, no stores. What is not Elacsym's (a filter in MongoDB's form, ``text`` in place
of ``full_text``) passes through as it is, so one path serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from treestore.errors import InvalidArgument
from treestore.stores.namespaces.schema import METRICS

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

_NAMES = {name.replace("_", ""): operator for name, operator in COMPARISONS.items()}

QUERY = frozenset(
    {
        *("vector", "full_text", "text", "filter", "top_k", "metric", "include_vector"),
        *("include_attributes", "fusion", "exact", "consistency"),
        *("include_legs", "order_by", "offset", "cursor"),
    }
)


def schema(body: Any) -> dict[str, Any]:
    """The schema of ``PUT /v1/namespaces/{ns}``: ``{"schema": {…}}`` or the schema itself."""
    given = dict(_object(body, "body"))
    if "schema" in given:
        if len(given) > 1:
            (other, *_) = given.keys() - {"schema"}
            raise InvalidArgument(
                f"The body is a schema, or has one in 'schema'; {other!r:.100} belongs in that."
            )
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
    text = found.get("full_text")
    if isinstance(text, dict) and text.get("tokenizer") == "default":
        found["full_text"] = {**text, "tokenizer": "word"}
    return found


def documents(body: Any, name: str) -> dict[str, Any]:
    """The arguments of an operation that writes documents, without the name of the namespace.

    Args:
        body: ``{"documents": […]}``, perhaps with a ``condition``, or the list itself.
        name: of the parameter that the documents are.
    """
    given = {"documents": body} if isinstance(body, list) else _object(body, "body")
    _only(given, {"documents", "condition"}, "body")
    found = given.get("documents")
    if not isinstance(found, list):
        raise InvalidArgument('The body has a list of documents: {"documents": [{"id": 1, …}]}.')
    arguments: dict[str, Any] = {name: found}
    if given.get("condition") is not None:
        arguments["condition"] = mongo(given["condition"])
    return arguments


def exported(page: dict[str, Any]) -> dict[str, Any]:
    """A page of documents, without what is the store's own in their records."""
    for item in page["items"]:
        item.pop("row", None)
    return page


def query(body: Any) -> dict[str, Any]:
    """The arguments of ``namespaces.query``, without the name."""
    given = dict(_object(body, "body"))
    _only(given, QUERY, "body")
    metric = given.pop("metric", None)  # The schema's counts.
    if metric is not None and metric not in METRICS:
        raise InvalidArgument(
            f"The metric of vectors is one of {', '.join(METRICS)}, not {metric!r:.40}; it is the "
            "schema that says which."
        )
    if "full_text" in given:
        if "text" in given:
            raise InvalidArgument("A query has full_text or text, which are one; not both.")
        text = given.pop("full_text")
        if text is not None:
            given["text"] = _full_text(text)
    if not any(given.get(name) is not None for name in ("vector", "text", "filter", "order_by")):
        raise InvalidArgument(
            "A query has a vector, full_text, or both; or, to be in the order of attributes, "
            "order_by or a filter."
        )
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

    ``{"type": "and"|"or"|"not", "conditions": […]}``, a condition ``{"field", "op", "value"}``,
    each within the other. Anything else is taken to be MongoDB's already. Levels that say nothing
    (a group of one, an ``and`` in an ``and``) are left out, so that only what is really nested
    counts towards the limit of filters.
    """
    if not isinstance(filter, dict) or not ("conditions" in filter or _is_condition(filter)):
        return filter
    # A stack of its own: how deep it is, is for the filter language to say.
    stack = [_Group("and", iter([filter]))]
    while True:
        group = stack[-1]
        given = next(group.waiting, None)
        if given is None:
            made = stack.pop().made()
            if not stack:
                return made
            stack[-1].take(made)
        elif "conditions" in given:
            stack.append(_group(given))
        else:
            group.take(_condition(given))


def _is_condition(value: Mapping[str, Any]) -> bool:
    return value.keys() == {"field", "op", "value"}


@attrs.define
class _Group:
    """An ``and``, ``or`` or ``not`` that is being translated."""

    kind: str
    waiting: Iterator[dict[str, Any]]
    parts: list[dict[str, Any]] = attrs.field(factory=list)

    def take(self, part: dict[str, Any]) -> None:
        """Add a translated condition or group."""
        joined = "$or" if self.kind == "or" else "$and"
        self.parts += part.get(joined, [part])

    def made(self) -> dict[str, Any]:
        """The group in MongoDB's form."""
        parts = self.parts
        if not parts:
            # Of no conditions all hold, and none does.
            return {"$nor": [{}]} if self.kind == "or" else {}
        whole: dict[str, Any] = parts[0]
        if len(parts) > 1:
            whole = {"$or" if self.kind == "or" else "$and": parts}
        if self.kind != "not":
            return whole
        # Not not is nothing.
        if "$not" in whole:
            found: dict[str, Any] = whole["$not"]
            return found
        return {"$not": whole}


def _group(given: dict[str, Any]) -> _Group:
    _only(given, {"type", "conditions"}, "filter")
    kind = str(given.get("type", "and")).lower()
    if kind not in ("and", "or", "not"):
        raise InvalidArgument(f"A filter's type is and, or, or not; not {kind!r:.40}.")
    conditions = given["conditions"]
    if not isinstance(conditions, list):
        raise InvalidArgument("The conditions of a filter are a list.")
    return _Group(kind, (_object(each, "condition") for each in conditions))


def _condition(given: dict[str, Any]) -> dict[str, Any]:
    if not _is_condition(given):
        raise InvalidArgument(
            "A condition has field, op and value, and nothing else; a group of them has type and "
            "conditions."
        )
    field, name = given["field"], given["op"]
    if not isinstance(field, str) or not isinstance(name, str):
        raise InvalidArgument("A condition's field and op are strings.")
    operator = _NAMES.get(name.lower().replace("_", ""))
    if operator is None:
        known = ", ".join(sorted(COMPARISONS))
        raise InvalidArgument(f"There is no op {name!r:.40}; there is: {known}.")
    if field.startswith("$"):
        raise InvalidArgument(f"A condition's field is an attribute's name, not {field!a:.60}.")
    return {field: {operator: given["value"]}}


def results(hits: list[dict[str, Any]], took_ms: float) -> dict[str, Any]:
    """The answer of ``POST …/query``."""
    kept = ("id", "score", "distance", "attributes", "vector", "legs", "cursor")
    shown: Callable[[dict[str, Any]], dict[str, Any]] = lambda hit: {  # noqa: E731
        name: hit[name] for name in kept if hit.get(name) is not None
    }
    return {"results": [shown(hit) for hit in hits], "took_ms": round(took_ms, 3)}


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{what}: a JSON object belongs here, not {value!a:.60}.")
    return value


def _only(given: Mapping[str, Any], known: frozenset[str] | set[str], what: str) -> None:
    unknown = sorted(given.keys() - known)
    if unknown:
        listed = ", ".join(sorted(known))
        raise InvalidArgument(f"The {what} takes no {unknown[0]!r:.100}; it takes: {listed}.")
