"""The OpenAPI document, made from the routes and from the operations' definitions.

Schemas of parameters and results are msgspec's, of the very types that decode and encode them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from actors.http.problems import phrase
from actors.http.routes import Body, Parameter, Route
from treestore.errors import BY_CODE
from treestore.stores.operation import Operation

REF = "#/components/schemas/{name}"

ERROR_SCHEMA = {
    "title": "Error",
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details", "request_id"],
            "additionalProperties": False,
            "properties": {
                "code": {
                    "enum": sorted(BY_CODE),
                    "description": "The kind of error, the same on every edge.",
                },
                "message": {"type": "string", "description": "A sentence for people."},
                "details": {"type": "object", "description": "Facts for programs."},
                "request_id": {"type": "string", "description": "As in X-Request-ID."},
            },
        }
    },
}

_COMMON_ERRORS = (400, 401, 403, 429, 503)

_DESCRIPTION = """\
Collections, namespaces and every other operation of a TreeStore over HTTP.

Every error is JSON of one form, with the stable code that the operation has on every edge. Where
the server has API keys, send one as `X-API-Key`.
"""


class Schemas:
    """Collects types, then makes schemas of all of them together: each named one is made once."""

    def __init__(self) -> None:
        self._types: list[Any] = []
        self._made: list[dict[str, Any]] = []
        self.components: dict[str, Any] = {}

    def add(self, type: Any) -> int:
        """Note a type; returns its number for `of`."""
        self._types.append(type)
        return len(self._types) - 1

    def make(self) -> None:
        """Make the schemas of all types."""
        usable = [_usable(type) for type in self._types]
        made, self.components = msgspec.json.schema_components(usable, ref_template=REF)
        self._made = list(made)

    def of(self, number: int) -> dict[str, Any]:
        """The schema of a type that was added."""
        return self._made[number]


def _usable(type: Any) -> Any:
    """``type``, or Any where JSON Schema cannot tell of it."""
    try:
        msgspec.json.schema_components([type], ref_template=REF)
    except TypeError:
        return Any
    return type


def document(
    routes: Iterable[Route], operations: Mapping[str, Operation], version: str
) -> dict[str, Any]:
    """The whole document."""
    schemas = Schemas()
    there = [
        route for route in routes if route.listed and (not route.needs or route.needs in operations)
    ]
    listed = [*there, *map(route_of, (operations[name] for name in sorted(operations)))]
    numbers: dict[tuple[int, str, str], int] = {}
    for at, route in enumerate(listed):
        for place, body in _bodies(route):
            for media, schema in body.content.items():
                if not isinstance(schema, Mapping):
                    numbers[at, place, media] = schemas.add(schema)
    schemas.make()

    def content(at: int, place: str, body: Body) -> dict[str, Any]:
        found = {}
        for media, schema in body.content.items():
            number = numbers.get((at, place, media))
            found[media] = {"schema": schema if number is None else schemas.of(number)}
        return found

    paths: dict[str, dict[str, Any]] = {}
    for at, route in enumerate(listed):
        told: dict[str, Any] = {
            "tags": [route.tag],
            "summary": route.summary,
            "operationId": route.operation_id,
            "parameters": [*map(_path_parameter, route.names), *map(_parameter, route.query)],
            "responses": _responses(at, route, content),
        }
        if route.text:
            told["description"] = route.text
        if route.body is not None:
            told["requestBody"] = {
                "required": route.body.required,
                "content": content(at, "body", route.body),
            }
            if route.body.text:
                told["requestBody"]["description"] = route.body.text
        if route.tag == "server" and route.path in ("/health", "/ready"):
            told["security"] = []
        paths.setdefault(route.path, {})[route.method.lower()] = told
    return {
        "openapi": "3.1.0",
        "info": {"title": "TreeStore", "version": version, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {**schemas.components, "Error": ERROR_SCHEMA},
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
        "security": [{}, {"key": []}],
    }


def _bodies(route: Route) -> Iterable[tuple[str, Body]]:
    if route.body is not None:
        yield "body", route.body
    for status, body in route.answers.items():
        if body is not None:
            yield str(status), body


def _responses(at: int, route: Route, content: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, body in route.answers.items():
        told: dict[str, Any] = {"description": phrase(status)}
        if body is not None:
            told["description"] = body.text or phrase(status)
            told["content"] = content(at, str(status), body)
        if status == 201:
            told["headers"] = {
                "Location": {"description": "Where it is.", "schema": {"type": "string"}}
            }
        found[str(status)] = told
    error = {"application/json": {"schema": {"$ref": REF.format(name="Error")}}}
    for status in sorted({*route.errors, *_COMMON_ERRORS}):
        told = {"description": phrase(status), "content": error}
        if status == 429:
            told["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
        found.setdefault(str(status), told)
    found["default"] = {"description": "Any other error", "content": error}
    return found


def _path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.text,
    }
    if parameter.json:
        found["content"] = {"application/json": {"schema": parameter.schema}}
    else:
        found["schema"] = parameter.schema
    return found


async def _unused(_request: Any) -> Any:  # noqa: ASYNC124 - a handler
    raise AssertionError("the path of one operation is served by that of all")


def route_of(operation: Operation) -> Route:
    """The path of an operation, for the document."""
    text = inspect.cleandoc(operation.function.__doc__ or "")
    if operation.kind in ("stream", "feed"):
        answer = Body(content={"application/x-ndjson": {}}, text="One item on each line.")
    else:
        answer = Body(content={"application/json": operation.result})
    needed = any(field.required for field in msgspec.structs.fields(operation.parameters))
    return Route(
        method="POST",
        path=f"/v1/ops/{operation.name}",
        handler=_unused,
        summary=text.partition("\n")[0],
        text=f"```text\n{text}\n```",
        tag=f"operations: {operation.name.partition('.')[0]}",
        operation_id=operation.name,
        body=Body(content={"application/json": operation.parameters}, required=needed),
        answers={200: answer},
        errors=(404, 409, 413, 415),
    )
