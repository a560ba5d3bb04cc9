"""Namespaces: the paths below ``/v1/namespaces``, in Elacsym's JSON."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import attrs
import msgspec
from litestar.response.base import ASGIResponse

from actors.http import elacsym
from actors.http.bodies import Bodies, decode, query_of
from actors.http.replies import NO_CONTENT, reply
from actors.http.requests import AnyRequest
from actors.http.routes import context_of, path_part
from actors.http.running import Runner
from treestore.errors import AlreadyExists, NotFound, TreeStoreError

BULK_COUNT = 500
BULK_SIZE_BYTES = 1024 * 1024

unpack = msgspec.msgpack.decode


@attrs.frozen
class Namespaces:
    """The handlers."""

    runner: Runner
    bodies: Bodies

    async def list_all(self, request: AnyRequest) -> ASGIResponse:
        """``GET /v1/namespaces``."""
        query_of(request, ())
        return await self.runner.reply(context_of(request), "namespaces.list", {})

    async def describe(self, request: AnyRequest) -> ASGIResponse:
        """``GET /v1/namespaces/{ns}``."""
        query_of(request, ())
        name = path_part(request, "ns")
        return await self.runner.reply(context_of(request), "namespaces.describe", {"name": name})

    async def create(self, request: AnyRequest) -> ASGIResponse:
        """``PUT /v1/namespaces/{ns}``: 201, or 200 where it is there already with that schema."""
        query_of(request, ())
        name = path_part(request, "ns")
        schema = elacsym.schema(await self.bodies.json(request))
        context = context_of(request)
        location = f"/v1/namespaces/{quote(name, safe='')}".encode()
        arguments = {"name": name, "schema": schema}
        try:
            await self.runner.call(context, "namespaces.create", arguments)
        except AlreadyExists as error:
            if not error.details.get("same"):
                raise
            return reply({"namespace": name, "created": False})
        return reply({"namespace": name, "created": True}, 201, ((b"location", location),))

    async def drop(self, request: AnyRequest) -> ASGIResponse:
        """``DELETE /v1/namespaces/{ns}``."""
        query_of(request, ())
        name = path_part(request, "ns")
        found = await self.runner.call(context_of(request), "namespaces.drop", {"name": name})
        if unpack(found) is False:
            raise NotFound(f"There is no namespace {name!r:.300}.")
        return NO_CONTENT

    async def upsert(self, request: AnyRequest) -> ASGIResponse:
        """``POST /v1/namespaces/{ns}/upsert``."""
        query_of(request, ())
        documents = elacsym.documents(await self.bodies.json(request))
        arguments = {"name": path_part(request, "ns"), "documents": documents}
        await self.runner.call(context_of(request), "namespaces.upsert", arguments)
        return reply({"count": len(documents)})

    async def query(self, request: AnyRequest) -> ASGIResponse:
        """``POST /v1/namespaces/{ns}/query``."""
        query_of(request, ())
        began = time.perf_counter()
        arguments = elacsym.query(await self.bodies.json(request))
        arguments["name"] = path_part(request, "ns")
        hits = unpack(await self.runner.call(context_of(request), "namespaces.query", arguments))
        return reply(elacsym.results(hits, (time.perf_counter() - began) * 1000))

    async def bulk(self, request: AnyRequest) -> ASGIResponse:
        """``POST /v1/namespaces/{ns}/bulk``: lines of documents, stored as they come."""
        query_of(request, ())
        context, name = context_of(request), path_part(request, "ns")
        waiting: list[Any] = []
        done = number = size_bytes = 0
        try:
            async for line in self.bodies.lines(request):
                number += 1
                waiting.append(decode(line, f"line {number}"))
                size_bytes += len(line)
                if len(waiting) >= BULK_COUNT or size_bytes >= BULK_SIZE_BYTES:
                    done += await self._store(context, name, waiting)
                    waiting, size_bytes = [], 0
            if waiting:
                done += await self._store(context, name, waiting)
        except TreeStoreError as error:
            error.details["upserted"] = done
            raise
        return reply({"count": done})

    async def _store(self, context: Any, name: str, documents: list[Any]) -> int:
        arguments = {"name": name, "documents": documents}
        await self.runner.call(context, "namespaces.upsert", arguments)
        return len(documents)
