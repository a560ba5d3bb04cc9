"""Collections: the paths below ``/collections``.

Each handler turns its request into the arguments of one operation of ``collections`` and the
result into an answer; what is right and what is wrong the operation says.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import attrs
import msgspec
import trio
from litestar.response.base import ASGIResponse

from actors.http.access import Context
from actors.http.bodies import (
    Bodies,
    decode,
    flag_parameter,
    is_lines,
    json_parameters,
    number_parameters,
    query_of,
    wants_lines,
)
from actors.http.replies import NO_CONTENT, LinesReply, Reply, reply
from actors.http.requests import AnyRequest
from actors.http.routes import context_of, path_part
from actors.http.running import Runner, encode
from treestore.errors import InvalidArgument, NotFound, TreeStoreError

FIND = ("filter", "sort", "fields", "limit", "offset", "cursor")

INSERT_COUNT = 1000
"""Documents of a long insertion that are stored together."""
INSERT_SIZE_BYTES = 1024 * 1024
"""... or fewer, where they are this long."""

PAGE_ITEMS = 500
"""Documents of a long answer that are read together."""

STREAM = "collections.scan"
"""The stream of `find`'s results, where there is one."""

unpack = msgspec.msgpack.decode


@attrs.frozen
class Collections:
    """The handlers."""

    runner: Runner
    bodies: Bodies

    # -- collections ------------------------------------------------------------------------

    async def list(self, request: AnyRequest) -> ASGIResponse:
        """``GET /collections``."""
        query = query_of(request, ("prefix", "limit", "cursor"))
        arguments: dict[str, Any] = {**query, **number_parameters(query, ("limit",))}
        return await self.runner.reply(context_of(request), "collections.list", arguments)

    async def create(self, request: AnyRequest) -> ASGIResponse:
        """``POST /collections``."""
        query_of(request, ())
        arguments = _object(await self.bodies.json(request))
        found = await self.runner.call(context_of(request), "collections.create", arguments)
        location = f"/collections/{quote(arguments['name'], safe='')}"
        value = unpack(found)
        if not isinstance(value, dict):
            value = {"name": arguments["name"]}
        return reply(value, 201, ((b"location", location.encode()),))

    async def describe(self, request: AnyRequest) -> ASGIResponse:
        """``GET /collections/{name}``."""
        query_of(request, ())
        return await self._of(request, "collections.describe")

    async def drop(self, request: AnyRequest) -> ASGIResponse:
        """``DELETE /collections/{name}``."""
        query_of(request, ())
        name = path_part(request, "name")
        found = await self.runner.call(context_of(request), "collections.drop", {"name": name})
        if unpack(found) is False:
            raise NotFound(f"There is no collection {name!r:.300}.")
        return NO_CONTENT

    # -- documents --------------------------------------------------------------------------

    async def find(self, request: AnyRequest) -> ASGIResponse:
        """``GET /collections/{name}/documents``."""
        query = query_of(request, FIND)
        arguments: dict[str, Any] = {
            **json_parameters(query, ("filter", "sort", "fields")),
            **number_parameters(query, ("limit", "offset")),
        }
        if "cursor" in query:
            arguments["cursor"] = query["cursor"]
        return await self._find(request, arguments)

    async def query_body(self, request: AnyRequest) -> ASGIResponse:
        """``POST /collections/{name}/query``: `find`, for filters too long for an address."""
        query_of(request, ())
        arguments = _object(await self.bodies.json(request))
        return await self._find(request, arguments)

    async def count(self, request: AnyRequest) -> ASGIResponse:
        """``GET /collections/{name}/count``."""
        arguments = json_parameters(query_of(request, ("filter",)), ("filter",))
        arguments["name"] = path_part(request, "name")
        found = await self.runner.call(context_of(request), "collections.count", arguments)
        return reply({"count": unpack(found)})

    async def explain(self, request: AnyRequest) -> ASGIResponse:
        """``POST /collections/{name}/explain``."""
        query_of(request, ())
        arguments = _object(await self.bodies.json(request))
        arguments["name"] = path_part(request, "name")
        return await self.runner.reply(context_of(request), "collections.explain", arguments)

    async def insert(self, request: AnyRequest) -> ASGIResponse:
        """``POST /collections/{name}/documents``: one document, a list, or lines of them."""
        query_of(request, ())
        context, name = context_of(request), path_part(request, "name")
        if is_lines(request):
            return await self._insert_lines(request, context, name)
        body = await self.bodies.json(request)
        base = f"/collections/{quote(name, safe='')}/documents"
        if isinstance(body, list):
            arguments: dict[str, Any] = {"name": name, "documents": body}
            ids = unpack(await self.runner.call(context, "collections.insert_many", arguments))
            return reply({"ids": ids}, 201, ((b"location", base.encode()),))
        arguments = {"name": name, "document": _object(body)}
        id = unpack(await self.runner.call(context, "collections.insert", arguments))
        location = f"{base}/{quote(id, safe='')}"
        return reply({"id": id}, 201, ((b"location", location.encode()),))

    async def get(self, request: AnyRequest) -> ASGIResponse:
        """``GET /collections/{name}/documents/{id}``."""
        if request.scope["query_string"]:
            query_of(request, ())
        params = request.scope["path_params"]
        name, id = params["name"], params["id"]
        if "%" in name or "%" in id:
            name, id = path_part(request, "name"), path_part(request, "id")
        found = await self.runner.call(
            context_of(request), "collections.get", {"name": name, "id": id}
        )
        value = unpack(found)
        if value is None:
            raise _no_document(name, id)
        return Reply(200, encode(value))

    async def replace(self, request: AnyRequest) -> ASGIResponse:
        """``PUT /collections/{name}/documents/{id}``; 201 where ``upsert`` made it."""
        query = query_of(request, ("upsert",))
        name, id = path_part(request, "name"), path_part(request, "id")
        arguments: dict[str, Any] = {
            "name": name,
            "id": id,
            "upsert": flag_parameter(query, "upsert"),
            "document": _object(await self.bodies.json(request)),
        }
        found = await self.runner.call(context_of(request), "collections.replace", arguments)
        if not (arguments["upsert"] and unpack(found) is True):
            return NO_CONTENT
        location = f"/collections/{quote(name, safe='')}/documents/{quote(id, safe='')}"
        return reply({"id": id}, 201, ((b"location", location.encode()),))

    async def update(self, request: AnyRequest) -> ASGIResponse:
        """``PATCH /collections/{name}/documents/{id}``."""
        query_of(request, ())
        arguments: dict[str, Any] = {
            "name": path_part(request, "name"),
            "id": path_part(request, "id"),
            "patch": _object(await self.bodies.json(request)),
        }
        return await self.runner.reply(context_of(request), "collections.update", arguments)

    async def delete(self, request: AnyRequest) -> ASGIResponse:
        """``DELETE /collections/{name}/documents/{id}``."""
        query_of(request, ())
        name, id = path_part(request, "name"), path_part(request, "id")
        found = await self.runner.call(
            context_of(request), "collections.delete", {"name": name, "id": id}
        )
        if unpack(found) is False:
            raise _no_document(name, id)
        return NO_CONTENT

    async def delete_many(self, request: AnyRequest) -> ASGIResponse:
        """``DELETE /collections/{name}/documents?filter=…``."""
        query = query_of(request, ("filter",))
        if "filter" not in query:
            raise InvalidArgument(
                "Say which documents to delete: ?filter={…} (all of them: ?filter={})."
            )
        arguments = json_parameters(query, ("filter",))
        arguments["name"] = path_part(request, "name")
        found = await self.runner.call(context_of(request), "collections.delete_many", arguments)
        return reply({"deleted": unpack(found)})

    # -- indexes ----------------------------------------------------------------------------

    async def indexes(self, request: AnyRequest) -> ASGIResponse:
        """``GET /collections/{name}/indexes``."""
        query_of(request, ())
        name = path_part(request, "name")
        found = await self.runner.call(context_of(request), "collections.describe", {"name": name})
        return reply({"items": unpack(found)["indexes"]})

    async def create_index(self, request: AnyRequest) -> ASGIResponse:
        """``POST /collections/{name}/indexes``."""
        query_of(request, ())
        arguments = _object(await self.bodies.json(request))
        if "name" in arguments:
            arguments["index_name"] = arguments.pop("name")
        name = arguments["name"] = path_part(request, "name")
        found = await self.runner.call(context_of(request), "collections.create_index", arguments)
        value = unpack(found)
        index = value["name"] if isinstance(value, dict) else value
        location = f"/collections/{quote(name, safe='')}/indexes/{quote(str(index), safe='')}"
        return reply(value, 201, ((b"location", location.encode()),))

    async def drop_index(self, request: AnyRequest) -> ASGIResponse:
        """``DELETE /collections/{name}/indexes/{index}``."""
        query_of(request, ())
        name, index = path_part(request, "name"), path_part(request, "index")
        found = await self.runner.call(
            context_of(request), "collections.drop_index", {"name": name, "index_name": index}
        )
        if unpack(found) is False:
            raise NotFound(f"Collection {name!r:.300} has no index {index!r:.300}.")
        return NO_CONTENT

    # -- what they have in common -----------------------------------------------------------

    async def _of(self, request: AnyRequest, operation: str) -> Reply:
        name = path_part(request, "name")
        return await self.runner.reply(context_of(request), operation, {"name": name})

    async def _find(self, request: AnyRequest, arguments: dict[str, Any]) -> ASGIResponse:
        context = context_of(request)
        arguments["name"] = path_part(request, "name")
        if not wants_lines(request):
            return await self.runner.reply(context, "collections.find", arguments)
        # A stream begins at the beginning; a part of the answer is read in pages.
        if STREAM in self.runner.operations and not arguments.keys() & {"offset", "cursor"}:
            return self.runner.lines(context, STREAM, arguments)
        return LinesReply(_Pages(self.runner, context, arguments).open)

    async def _insert_lines(self, request: AnyRequest, context: Context, name: str) -> Reply:
        """Insert lines of documents, some at a time: each such part whole or not at all."""
        done = 0
        waiting: list[Any] = []
        size_bytes = number = 0

        async def store() -> int:
            arguments = {"name": name, "documents": waiting}
            await self.runner.call(context, "collections.insert_many", arguments)
            return len(waiting)

        try:
            async for line in self.bodies.lines(request):
                number += 1
                waiting.append(_object(decode(line, f"line {number}"), f"line {number}"))
                size_bytes += len(line)
                if len(waiting) >= INSERT_COUNT or size_bytes >= INSERT_SIZE_BYTES:
                    done += await store()
                    waiting, size_bytes = [], 0
            if waiting:
                done += await store()
        except TreeStoreError as error:
            error.details["inserted"] = done
            raise
        location = f"/collections/{quote(name, safe='')}/documents"
        return reply({"inserted": done}, 201, ((b"location", location.encode()),))


@attrs.define
class _Pages:
    """The documents that a query finds, as lines: pages read one after the other, of one
    snapshot."""

    runner: Runner
    context: Context
    arguments: dict[str, Any]

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[AsyncIterator[bytes]]:
        with self.runner.snapshot("http lines") as snapshot:
            yield _PageLines(self, snapshot)


class _PageLines(AsyncIterator[bytes]):
    def __init__(self, pages: _Pages, snapshot: Any) -> None:
        self._pages = pages
        self._snapshot = snapshot
        self._arguments = dict(pages.arguments)
        self._left = self._arguments.get("limit")
        self._ended = False
        if self._left is not None and (
            isinstance(self._left, bool) or self._left.__class__ is not int
        ):
            raise InvalidArgument(f"limit is a number of documents, not {self._left!r:.40}.")

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        await trio.lowlevel.checkpoint()
        left = self._left
        self._arguments["limit"] = PAGE_ITEMS if left is None else min(left, PAGE_ITEMS)
        found = await self._pages.runner.call(
            self._pages.context, "collections.find", self._arguments, snapshot=self._snapshot
        )
        page = unpack(found)
        items, cursor = page["items"], page["next_cursor"]
        if left is not None:
            self._left = left - len(items)
        self._ended = cursor is None or self._left == 0
        self._arguments["cursor"] = cursor
        self._arguments.pop("offset", None)
        if not items:
            raise StopAsyncIteration
        return b"".join([encode(item) + b"\n" for item in items])


def _object(value: Any, what: str = "body") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"The {what} is a JSON object, not {_kind(value)}.")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", list: "an array"}
    return names.get(type(value), "a number")


def _no_document(name: str, id: str) -> NotFound:
    return NotFound(f"Collection {name!r:.300} has no document {id!r:.300}.")
