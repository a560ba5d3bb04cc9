"""The edge as an application: routes, handlers, errors, and the gate around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from litestar import Litestar, Response
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse

from actors.host import Host
from actors.http.access import Authenticate, Observe, accept_anybody
from actors.http.bodies import Bodies, query_of
from actors.http.collections import Collections
from actors.http.directory import Directory
from actors.http.exchange import AsgiApp
from actors.http.gate import Gate
from actors.http.namespaces import Namespaces
from actors.http.openapi import document
from actors.http.operations import Operations
from actors.http.page import HEADERS, page
from actors.http.paths import Paths
from actors.http.problems import JSON, code_of, problem, told
from actors.http.replies import Reply
from actors.http.requests import AnyRequest
from actors.http.routes import Body, Route, context_of, json_body, options_of
from actors.http.running import Runner
from actors.http.settings import HttpSettings
from actors.http.table import OBJECT, of_collections, of_namespaces, of_operations
from treestore import __version__
from treestore.errors import TreeStoreError
from treestore.loggers import get_logger
from treestore.stores.operation import OPERATIONS, Operation

log = get_logger("treestore.http")


def build_app(
    host: Host,
    *,
    settings: HttpSettings | None = None,
    paths: Paths | None = None,
    authenticate: Authenticate = accept_anybody,
    observe: Observe | None = None,
    operations: Mapping[str, Operation] = OPERATIONS,
    stopping: Callable[[], bool] = lambda: False,
    more: Sequence[Route] = (),
) -> AsgiApp:
    """The ASGI application of the whole edge over ``host``.

    Args:
        paths: fixed paths beside it, as on the metrics port: ``/health``, ``/ready``.
        authenticate: who has a key; by default nobody is asked for one.
        observe: told of each request.
        operations: what there is to be done; looked at for each request, so that what is
            registered later is found.
        stopping: whether the server is; feeds end then.
        more: further routes.
    """
    settings = settings or HttpSettings()
    runner = Runner(
        host=host,
        operations=operations,
        timeout_s=settings.request_timeout_s,
        stopping=stopping,
    )
    bodies = Bodies(settings)
    of_all = Operations(runner, bodies)
    routes = [
        *(_fixed(path, answer) for path, answer in (paths or {}).items()),
        *of_collections(Collections(runner, bodies)),
        *of_namespaces(Namespaces(runner, bodies)),
        *of_operations(of_all),
        *more,
    ]
    routes += _of_schema(routes, operations)
    every = Route(
        method="POST",
        path="/v1/ops/{operation}",
        handler=of_all.call,
        summary="Run an operation",
        tag="operations",
        operation_id="operations_call",
    )
    methods: dict[str, list[str]] = {}
    for route in [*routes, every]:
        methods.setdefault(route.path, []).append(route.method)
    options = [options_of(path, found) for path, found in methods.items()]
    litestar = Litestar(
        [route.for_litestar(operations) for route in [*options, *routes, every]],
        logging_config=None,
        openapi_config=None,
        exception_handlers={Exception: _answer_to},
    )
    app = Directory([*routes, every], operations, litestar)
    return Gate(app, authenticate, observe, settings.origins)


def _answer_to(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Any exception of a handler, or of litestar's own routing, as an answer."""
    context = context_of(request)
    if isinstance(error, HTTPException):
        error = _of_routing(request, error)
    if not isinstance(error, TreeStoreError):
        log.error("request failed unexpectedly", request_id=context.request_id, exc_info=error)
    status, extra, body = told(error, context.request_id)
    context.code = code_of(error)
    headers = {name.decode(): value.decode() for name, value in extra}
    return Response(body, status_code=status, headers=headers, media_type=JSON[1].decode())


def _of_routing(request: AnyRequest, error: HTTPException) -> TreeStoreError:
    """What litestar says of a path or method, in our words."""
    path, status = request.scope["path"], error.status_code
    if status == 404:
        return problem(404, f"There is nothing at {path:.300}; GET /schema shows what there is.")
    if status == 405:
        allowed = (error.headers or {}).get("allow", "")
        text = f"{path:.300} answers {allowed}, not {request.scope['method']:.20}."
        return problem(405, text, ((b"allow", allowed.encode()),))
    return problem(status, f"The request cannot be handled: {error.detail}.")


def _fixed(path: str, answer: Any) -> Route:
    async def handle(request: AnyRequest) -> ASGIResponse:
        found = await answer()
        headers, body = found.parts()
        content_type = next(value for name, value in headers if name == b"content-type")
        kept = [
            (name, value)
            for name, value in headers
            if name not in (b"content-type", b"cache-control")
        ]
        return Reply(found.status, body, tuple(kept), content_type)

    name = path.strip("/").replace("/", "_")
    return Route(
        method="GET",
        path=path,
        handler=handle,
        summary=_FIXED.get(path, path),
        tag="server",
        operation_id=f"server_{name}",
        answers={200: Body(content={"application/json": OBJECT}), 503: json_body(OBJECT)},
    )


_FIXED = {
    "/health": "Whether the store does its work",
    "/ready": "Whether requests should be sent here",
}


def _of_schema(routes: Sequence[Route], operations: Mapping[str, Operation]) -> list[Route]:
    """``/schema``: the OpenAPI document, for programs and for people."""
    made: dict[int, tuple[bytes, bytes]] = {}

    def both() -> tuple[bytes, bytes]:
        # Made once; again only where operations were registered since.
        if len(operations) not in made:
            found = document([*routes, *listed], operations, __version__)
            made.clear()
            made[len(operations)] = (msgspec.json.encode(found), page(found))
        return made[len(operations)]

    async def schema(request: AnyRequest) -> ASGIResponse:  # noqa: ASYNC124 - a handler
        query_of(request, ())
        if "text/html" in request.headers.get("accept", ""):
            return Reply(200, both()[1], HEADERS, b"text/html; charset=utf-8")
        return Reply(200, both()[0], ((b"vary", b"Accept"),))

    async def as_json(request: AnyRequest) -> ASGIResponse:  # noqa: ASYNC124 - a handler
        query_of(request, ())
        return Reply(200, both()[0])

    listed = [
        Route(
            method="GET",
            path=path,
            handler=handler,
            summary="This document" if handler is as_json else "This document, or a page of it",
            tag="server",
            operation_id=name,
            answers={200: Body(content=content)},
        )
        for path, handler, name, content in (
            ("/schema", schema, "schema", {"application/json": OBJECT, "text/html": {}}),
            ("/schema/openapi.json", as_json, "schema_json", {"application/json": OBJECT}),
        )
    ]
    return listed
