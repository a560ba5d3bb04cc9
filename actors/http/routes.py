"""Routes: what a path answers, said once for litestar and for the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
from litestar import Request
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from actors.http.access import Context
from actors.http.gate import decoded
from actors.http.problems import problem
from actors.http.replies import Reply
from actors.http.requests import AnyRequest
from treestore.stores.operation import Operation

Handler = Callable[[AnyRequest], Awaitable[ASGIResponse]]

Schema = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Parameter:
    """A parameter of the query string."""

    name: str
    text: str
    schema: Schema
    json: bool = False
    """Whether its value is JSON."""
    required: bool = False


@attrs.frozen(kw_only=True)
class Body:
    """What a request or an answer carries, as OpenAPI says it: a schema for each media type."""

    content: Mapping[str, Any]
    """Values are schemas, or Python types that msgspec makes schemas of."""
    text: str = ""
    required: bool = True


def json_body(schema: Any, text: str = "") -> Body:
    """A body of JSON."""
    return Body(content={"application/json": schema}, text=text)


@attrs.frozen(kw_only=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    """With ``{names}`` for what varies."""
    handler: Handler
    summary: str
    text: str = ""
    tag: str
    operation_id: str
    needs: str = ""
    """The operation it is for: without that the route answers 501, and is not in the document."""
    listed: bool = True
    """Whether it is in the document."""
    query: tuple[Parameter, ...] = ()
    body: Body | None = None
    answers: Mapping[int, Body | None] = attrs.field(factory=lambda: {200: None})
    """What success looks like; None: nothing is carried."""
    errors: tuple[int, ...] = ()
    """Statuses of errors beside those that every path may answer with."""

    @property
    def names(self) -> tuple[str, ...]:
        """What varies in the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    def bound(self, operations: Mapping[str, Operation]) -> Handler:
        """The handler, which notes the route, and answers 501 where there is no such operation."""
        template, handler, needs = self.path, self.handler, self.needs

        async def handle(request: AnyRequest) -> ASGIResponse:
            context: Context = request.scope["state"]["context"]
            context.route = template
            if needs and needs not in operations:
                raise problem(501, f"This server has no {needs} yet.")
            return await handler(request)

        return handle

    def for_litestar(self, operations: Mapping[str, Operation]) -> HTTPRouteHandler:
        """What litestar routes to."""
        bound = self.bound(operations)

        async def handle(request: Request[Any, Any, Any]) -> ASGIResponse:
            return await bound(request)

        path = re.sub(r"{(\w+)}", r"{\1:str}", self.path)
        # The status is the answer's own; litestar wants one that may have a body.
        decorated = HTTPRouteHandler(
            path, http_method=HttpMethod(self.method), name=self.operation_id, status_code=200
        )
        return decorated(handle)


def options_of(path: str, methods: list[str]) -> Route:
    """What OPTIONS of a path answers: which methods it has."""
    allowed = (b"allow", ", ".join(sorted({*methods, "OPTIONS"})).encode())

    async def handle(_request: AnyRequest) -> ASGIResponse:  # noqa: ASYNC124 - a handler
        return Reply(204, b"", (allowed,))

    return Route(
        method="OPTIONS",
        path=path,
        handler=handle,
        summary="Which methods there are",
        tag="server",
        operation_id=f"options_{path}",
    )


def context_of(request: AnyRequest) -> Context:
    """What is known of the request."""
    context: Context = request.scope["state"]["context"]
    return context


def path_part(request: AnyRequest, name: str) -> str:
    """What stands in the path for ``{name}``."""
    return decoded(request.scope["path_params"][name])
