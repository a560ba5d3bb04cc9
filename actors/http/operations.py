"""Every operation, by its name: ``POST /v1/ops/{service}.{method}``.

The body is a JSON object of the operation's parameters, the answer its result. What an operation
takes and gives is its definition's alone; there is nothing here about any one of them.
"""

from __future__ import annotations

import attrs
from litestar.response.base import ASGIResponse

from actors.http.bodies import Bodies, media_type, query_of, wants_lines, wrong
from actors.http.problems import problem
from actors.http.replies import reply
from actors.http.requests import AnyRequest
from actors.http.routes import context_of, path_part
from actors.http.running import Runner
from treestore.errors import InvalidArgument, NotFound
from treestore.stores.operation import Operation

STREAMED = ("stream", "feed")


@attrs.frozen
class Operations:
    """The handlers."""

    runner: Runner
    bodies: Bodies

    async def list(self, request: AnyRequest) -> ASGIResponse:
        """``GET /v1/ops``."""
        query_of(request, ())
        found = sorted(self.runner.operations.items())
        return reply({"items": [{"name": name, "kind": each.kind} for name, each in found]})

    async def call(self, request: AnyRequest) -> ASGIResponse:
        """``POST /v1/ops/{operation}``."""
        query_of(request, ())
        operation = self._find(path_part(request, "operation"))
        context = context_of(request)
        arguments = {}
        if media_type(request) or request.headers.get("content-length", "0") != "0":
            arguments = await self.bodies.json(request)
        if not isinstance(arguments, dict):
            raise InvalidArgument("The body is a JSON object: the operation's parameters by name.")
        if operation.kind in STREAMED:
            if not wants_lines(request) and "*/*" not in request.headers.get("accept", "*/*"):
                text = f"{operation.name} gives lines of JSON: Accept: application/x-ndjson."
                raise problem(406, text)
            return self.runner.lines(context, operation.name, arguments)
        try:
            return await self.runner.reply(context, operation.name, arguments)
        except (OverflowError, RecursionError) as error:
            raise wrong(f"request for {operation.name}", error) from None

    def _find(self, name: str) -> Operation:
        operation = self.runner.operations.get(name)
        if operation is None:
            raise NotFound(f"There is no operation {name!r:.100}; GET /v1/ops lists them.")
        return operation
