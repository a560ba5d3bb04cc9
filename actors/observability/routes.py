"""The server's own pages on its HTTP ports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from litestar.response.base import ASGIResponse

from actors.http.paths import Answer, Paths
from actors.http.replies import Reply
from actors.http.requests import AnyRequest
from actors.http.routes import Body, Route, context_of, json_body
from actors.http.table import OBJECT
from actors.observability.endpoints import Endpoint, Endpoints, Page

SUMMARIES = {
    "/health": "Whether the store does its work",
    "/ready": "Whether requests should be sent here",
    "/metrics": "Metrics, as Prometheus reads them",
    "/debug/tasks": "The tree of tasks",
    "/debug/profile": "A profile of the next seconds",
}

LISTED = frozenset({"/health", "/ready"})
"""What the OpenAPI document tells of: the others answer people and Prometheus, not programs."""


def paths_of(pages: Endpoints) -> Paths:
    """For the metrics port: what anybody may ask for."""

    def answering(endpoint: Endpoint) -> Callable[[], Awaitable[Answer]]:
        async def answer() -> Answer:
            page = await endpoint("")
            return Answer(page.status, page.body, page.headers)

        return answer

    return {path: answering(endpoint) for path, endpoint in pages.open.items()}


def routes_of(pages: Endpoints) -> list[Route]:
    """For the HTTP port: everything. Whether a key is needed, and good, the gate decides."""
    return [_route(pages, path, page) for path, page in {**pages.open, **pages.admin}.items()]


def _route(pages: Endpoints, path: str, endpoint: Endpoint) -> Route:
    async def handle(request: AnyRequest) -> ASGIResponse:
        if path in pages.admin:
            client = request.scope["client"]
            peer = "no socket" if client is None else f"{client[0]}:{client[1]}"
            pages.ensure_admin(context_of(request).principal, peer)
        query = request.scope["query_string"].decode("latin-1")
        return _reply(await endpoint(query))

    return Route(
        method="GET",
        path=path,
        handler=handle,
        summary=SUMMARIES[path],
        tag="server",
        operation_id="server_" + path.strip("/").replace("/", "_"),
        listed=path in LISTED,
        answers={200: Body(content={"application/json": OBJECT}), 503: json_body(OBJECT)},
    )


def _reply(page: Page) -> Reply:
    headers = {name.lower().encode(): value.encode() for name, value in page.headers}
    content_type = headers.pop(b"content-type")
    return Reply(page.status, page.body, tuple(headers.items()), content_type)
