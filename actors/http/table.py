"""The table of routes: every path of the edge, with what it takes and gives.

Paths of operations in general (``/v1/ops/…``) are one route here; the OpenAPI document has one
for each operation.
"""

from __future__ import annotations

from typing import Any

from actors.http.collections import Collections
from actors.http.namespaces import Namespaces
from actors.http.operations import Operations
from actors.http.routes import Body, Parameter, Route, json_body

OBJECT: dict[str, Any] = {"type": "object"}
BOOLEAN: dict[str, Any] = {"type": "boolean"}
STRINGS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
ANY: dict[str, Any] = {}
LINES: dict[str, Any] = {"type": "string"}

DOCUMENT = {"type": "object", "description": "A document: any JSON object."}
PAGE = {
    "type": "object",
    "required": ["items", "next_cursor"],
    "properties": {
        "items": {"type": "array", "items": OBJECT},
        "next_cursor": {"type": ["string", "null"]},
    },
}
COUNT = {"type": "integer", "minimum": 0}
LIMIT = Parameter(name="limit", text="At most so many.", schema={"type": "integer", "minimum": 1})
CURSOR = Parameter(
    name="cursor", text="`next_cursor` of the page before.", schema={"type": "string"}
)
FILTER = Parameter(name="filter", text="Which: a filter, as JSON.", schema=OBJECT, json=True)
FOUND = Body(
    content={"application/json": PAGE, "application/x-ndjson": LINES},
    text="A page; with `Accept: application/x-ndjson` all of them, one on each line.",
)


def _named(name: str) -> Body:
    return json_body({"type": "object", "required": [name], "properties": {name: ANY}})


PREFIX = Parameter(name="prefix", text="Names that begin so.", schema={"type": "string"})
AT = "/collections/{name}"
DOCUMENTS = AT + "/documents"
ONE = DOCUMENTS + "/{id}"
INDEXES = AT + "/indexes"
QUERY = {
    "type": "object",
    "properties": {
        "filter": OBJECT,
        "sort": ANY,
        "fields": ANY,
        "limit": {"type": "integer", "minimum": 1},
        "offset": COUNT,
        "cursor": {"type": ["string", "null"]},
    },
}
NEW_COLLECTION = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string", "minLength": 1}, "indexes": {"type": "array"}},
    "additionalProperties": False,
}
NEW_INDEX = {
    "type": "object",
    "required": ["fields"],
    "properties": {
        "fields": {"anyOf": [{"type": "string"}, STRINGS]},
        "unique": BOOLEAN,
        "sparse": BOOLEAN,
        "name": {"type": ["string", "null"]},
    },
}
_OTHERS = {
    "query_body": "find",
    "indexes": "describe",
    "bulk": "bulk_write",
    "list_all": "list",
}
"""Handlers that are for an operation of another name."""

WRITE_ERRORS = (404, 409, 413, 415)


def _of_collections(method: str, path: str, handler: Any, summary: str, **more: Any) -> Route:
    name = handler.__name__
    return Route(
        method=method,
        path=path,
        handler=handler,
        summary=summary,
        operation_id=f"collections_{name}",
        tag="collections",
        needs=f"collections.{_OTHERS.get(name, name)}",
        **more,
    )


def of_collections(handlers: Collections) -> list[Route]:
    """The paths below ``/collections``."""
    return [
        *_collections(handlers),
        *_queries(handlers),
        *_documents_of(handlers),
        *_indexes(handlers),
    ]


def _collections(handlers: Collections) -> list[Route]:
    route = _of_collections
    return [
        route(
            *("GET", "/collections", handlers.list, "List collections"),
            query=(PREFIX, LIMIT, CURSOR),
            answers={200: json_body(PAGE)},
        ),
        route(
            *("POST", "/collections", handlers.create, "Create a collection"),
            body=json_body(NEW_COLLECTION),
            answers={201: json_body(OBJECT)},
            errors=WRITE_ERRORS,
        ),
        route(
            "GET",
            AT,
            handlers.describe,
            "Describe a collection",
            answers={200: json_body(ANY)},
            errors=(404,),
        ),
        route("DELETE", AT, handlers.drop, "Drop a collection", answers={204: None}, errors=(404,)),
    ]


def _queries(handlers: Collections) -> list[Route]:
    route = _of_collections
    return [
        route(
            *("GET", DOCUMENTS, handlers.find, "Find documents"),
            query=(
                FILTER,
                Parameter(name="sort", text="By which fields, as JSON.", schema=ANY, json=True),
                Parameter(name="fields", text="What to give, as JSON.", schema=ANY, json=True),
                LIMIT,
                Parameter(name="offset", text="Leave out so many.", schema=COUNT),
                CURSOR,
            ),
            answers={200: FOUND},
            errors=(404,),
        ),
        route(
            *("POST", DOCUMENTS, handlers.insert, "Insert a document, or many"),
            text="A list is stored whole or not at all; lines are stored some at a time.",
            body=Body(
                content={
                    "application/json": {"anyOf": [DOCUMENT, {"type": "array", "items": DOCUMENT}]},
                    "application/x-ndjson": LINES,
                }
            ),
            answers={201: json_body(OBJECT, "`id`; `ids` of a list; `inserted` of lines.")},
            errors=WRITE_ERRORS,
        ),
        route(
            *("DELETE", DOCUMENTS, handlers.delete_many, "Delete documents by a filter"),
            query=(
                Parameter(name="filter", text=FILTER.text, schema=OBJECT, json=True, required=True),
            ),
            answers={200: _named("deleted")},
            errors=(404,),
        ),
        route(
            *("POST", AT + "/query", handlers.query_body, "Find documents, by a body"),
            body=json_body(QUERY),
            answers={200: FOUND},
            errors=(404, 413, 415),
        ),
        route(
            *("POST", AT + "/explain", handlers.explain, "How a query would be answered"),
            body=json_body(QUERY),
            answers={200: json_body(ANY)},
            errors=(404, 413, 415),
        ),
        route(
            *("GET", AT + "/count", handlers.count, "Count documents"),
            query=(FILTER,),
            answers={200: _named("count")},
            errors=(404,),
        ),
    ]


def _documents_of(handlers: Collections) -> list[Route]:
    route = _of_collections
    return [
        route(
            *("GET", ONE, handlers.get, "Get a document"),
            answers={200: json_body(DOCUMENT)},
            errors=(404,),
        ),
        route(
            *("PUT", ONE, handlers.replace, "Replace a document"),
            text="404 where there is none, unless `upsert` is true.",
            query=(
                Parameter(name="upsert", text="Store it also where there is none.", schema=BOOLEAN),
            ),
            body=json_body(DOCUMENT),
            answers={201: json_body(OBJECT), 204: None},
            errors=WRITE_ERRORS,
        ),
        route(
            *("PATCH", ONE, handlers.update, "Change a document"),
            text="A merge patch, or update operators such as `$set` and `$inc`.",
            body=json_body(OBJECT),
            answers={200: json_body(DOCUMENT)},
            errors=WRITE_ERRORS,
        ),
        route(
            *("DELETE", ONE, handlers.delete, "Delete a document"),
            answers={204: None},
            errors=(404,),
        ),
    ]


def _indexes(handlers: Collections) -> list[Route]:
    route = _of_collections
    return [
        route(
            *("GET", INDEXES, handlers.indexes, "List indexes"),
            answers={200: _named("items")},
            errors=(404,),
        ),
        route(
            *("POST", INDEXES, handlers.create_index, "Create an index"),
            body=json_body(NEW_INDEX),
            answers={201: json_body(ANY)},
            errors=WRITE_ERRORS,
        ),
        route(
            *("DELETE", INDEXES + "/{index}", handlers.drop_index, "Drop an index"),
            answers={204: None},
            errors=(404,),
        ),
    ]


def of_namespaces(handlers: Namespaces) -> list[Route]:
    """The paths below ``/v1/namespaces``."""
    at = "/v1/namespaces/{ns}"

    def route(method: str, path: str, handler: Any, summary: str, **more: Any) -> Route:
        name = handler.__name__
        more.setdefault("answers", {200: json_body(OBJECT)})
        return Route(
            method=method,
            path=path,
            handler=handler,
            summary=summary,
            operation_id=f"namespaces_{name}",
            tag="namespaces",
            needs=f"namespaces.{_OTHERS.get(name, name)}",
            errors=(404, 409, 413, 415, 501),
            **more,
        )

    given = json_body(OBJECT)
    return [
        route(*("POST", at + "/bulk", handlers.bulk, "Store lines of documents"), **_BULK),
        route(
            *("GET", "/v1/namespaces", handlers.list_all, "List namespaces"),
            query=(PREFIX, LIMIT, CURSOR),
            answers={200: json_body(PAGE)},
        ),
        route("GET", at, handlers.describe, "Describe a namespace"),
        route(
            *("PUT", at, handlers.create, "Create a namespace"),
            body=given,
            answers={200: json_body(OBJECT), 201: json_body(OBJECT)},
        ),
        route("DELETE", at, handlers.drop, "Drop a namespace", answers={204: None}),
        route(
            *("POST", at + "/upsert", handlers.upsert, "Store documents"),
            body=json_body({"anyOf": [_documents(), {"type": "array", "items": OBJECT}]}),
        ),
        route("POST", at + "/query", handlers.query, "Search", body=given),
        route(
            *("POST", at + "/patch", handlers.patch, "Change documents"),
            body=json_body({"anyOf": [_documents(), {"type": "array", "items": OBJECT}]}),
        ),
        route(
            *("POST", at + "/delete", handlers.delete, "Delete documents by ids or a filter"),
            body=given,
            answers={200: _named("deleted")},
        ),
        route(
            *("POST", at + "/count", handlers.count, "Count documents"),
            body=given,
            answers={200: _named("count")},
        ),
        route(
            *("GET", at + "/documents", handlers.export, "Export documents, in pages"),
            query=(
                LIMIT,
                CURSOR,
                Parameter(
                    name="include_vector",
                    text="Whether they come with their vectors: true, unless it says false.",
                    schema=BOOLEAN,
                ),
            ),
            answers={200: json_body(PAGE)},
        ),
    ]


_BULK: dict[str, Any] = {
    "text": "Lines that cannot be stored are rejected and told; the others are stored. 400 where "
    "nothing was. An import with an `import_id` can be sent again from its beginning after it was "
    "cut off: what is stored already is passed over.",
    "query": (
        Parameter(
            name="mode",
            text="`all_or_nothing` shows nothing before its end, or where a line is wrong.",
            schema={"enum": ["best_effort", "all_or_nothing"]},
        ),
        Parameter(name="import_id", text="Makes it resumable.", schema={"type": "string"}),
    ),
    "body": Body(content={"application/x-ndjson": LINES}),
}


def _documents() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["documents"],
        "properties": {"documents": {"type": "array", "items": OBJECT}},
    }


def of_operations(handlers: Operations) -> list[Route]:
    """The paths of operations in general."""
    return [
        Route(
            method="GET",
            path="/v1/ops",
            handler=handlers.list,
            summary="List operations",
            tag="operations",
            operation_id="operations_list",
            answers={200: _named("items")},
        ),
    ]
