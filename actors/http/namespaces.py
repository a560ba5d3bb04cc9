"""Namespaces: the paths below ``/v1/namespaces``, in Elacsym's JSON."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import attrs
import msgspec
from litestar.response.base import ASGIResponse

from actors.http import elacsym
from actors.http.access import Context
from actors.http.bodies import Bodies, flag_parameter, number_parameters, query_of
from actors.http.replies import NO_CONTENT, reply
from actors.http.requests import AnyRequest
from actors.http.routes import context_of, path_part
from actors.http.running import Runner
from treestore.bulk.importing import Import
from treestore.bulk.sources import Source
from treestore.errors import AlreadyExists, InvalidArgument, NotFound
from treestore.model.bulk import BulkMode, BulkProgress, BulkReport

MODES: Mapping[str, BulkMode] = {
    "best_effort": "best_effort",
    "all_or_nothing": "all_or_nothing",
}

unpack = msgspec.msgpack.decode
_progress = msgspec.msgpack.Decoder(BulkProgress).decode


@attrs.frozen
class Namespaces:
    """The handlers."""

    runner: Runner
    bodies: Bodies

    async def list_all(self, request: AnyRequest) -> ASGIResponse:
        """``GET /v1/namespaces``."""
        query = query_of(request, ("prefix", "limit", "cursor"))
        arguments = {**query, **number_parameters(query, ("limit",))}
        return await self.runner.reply(context_of(request), "namespaces.list", arguments)

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
        arguments = elacsym.documents(await self.bodies.json(request), "documents")
        arguments["name"] = path_part(request, "ns")
        found = unpack(await self.runner.call(context_of(request), "namespaces.upsert", arguments))
        answer = {"count": len(arguments["documents"])}
        if "condition" in arguments:
            answer |= {"count": found["stored"], "skipped": found["skipped"]}
        return reply(answer)

    async def query(self, request: AnyRequest) -> ASGIResponse:
        """``POST /v1/namespaces/{ns}/query``."""
        query_of(request, ())
        began = time.perf_counter()
        arguments = elacsym.query(await self.bodies.json(request))
        arguments["name"] = path_part(request, "ns")
        hits = unpack(await self.runner.call(context_of(request), "namespaces.query", arguments))
        return reply(elacsym.results(hits, (time.perf_counter() - began) * 1000))

    async def patch(self, request: AnyRequest) -> ASGIResponse:
        """``POST /v1/namespaces/{ns}/patch``."""
        query_of(request, ())
        arguments = elacsym.documents(await self.bodies.json(request), "patches")
        arguments["name"] = path_part(request, "ns")
        return await self.runner.reply(context_of(request), "namespaces.patch", arguments)

    async def delete(self, request: AnyRequest) -> ASGIResponse:
        """``POST /v1/namespaces/{ns}/delete``, by ``ids`` or by a ``filter``."""
        query_of(request, ())
        arguments = elacsym.deletion(await self.bodies.json(request))
        arguments["name"] = path_part(request, "ns")
        found = await self.runner.call(context_of(request), "namespaces.delete", arguments)
        return reply({"deleted": unpack(found)})

    async def count(self, request: AnyRequest) -> ASGIResponse:
        """``POST /v1/namespaces/{ns}/count``."""
        query_of(request, ())
        arguments = elacsym.filtered(await self.bodies.json(request), frozenset({"filter"}))
        arguments["name"] = path_part(request, "ns")
        found = await self.runner.call(context_of(request), "namespaces.count", arguments)
        return reply({"count": unpack(found)})

    async def export(self, request: AnyRequest) -> ASGIResponse:
        """``GET /v1/namespaces/{ns}/documents``: all of them, a page at a time."""
        query = query_of(request, ("limit", "cursor", "include_vector"))
        arguments: dict[str, Any] = {**query, **number_parameters(query, ("limit",))}
        if "include_vector" in query:
            arguments["include_vector"] = flag_parameter(query, "include_vector")
        arguments["name"] = path_part(request, "ns")
        page = unpack(await self.runner.call(context_of(request), "namespaces.export", arguments))
        return reply(elacsym.exported(page))

    async def bulk(self, request: AnyRequest) -> ASGIResponse:
        """``POST /v1/namespaces/{ns}/bulk``: lines of documents, stored as they come."""
        query = query_of(request, ("mode", "import_id"))
        context, name = context_of(request), path_part(request, "ns")
        mode = MODES.get(query.get("mode", "best_effort"))
        if mode is None:
            given = query["mode"]
            raise InvalidArgument(f"mode is one of {', '.join(MODES)}, not {given!r:.60}.")
        source = Source(None)
        source.pieces = self.bodies.parts(request, lambda: source.pending_bytes)
        work = Import(_Steps(self.runner, context), name, source, None)
        return reply(_reported(await work.run(mode, query.get("import_id"))))


def _reported(report: BulkReport) -> dict[str, Any]:
    """The answer of a bulk import.

    Raises:
        InvalidArgument: nothing was stored, for what was rejected.
    """
    errors = [{"line": one.line, "id": one.id, "error": one.error} for one in report.rejections]
    if report.rejected and not (report.applied and report.stored):
        raise InvalidArgument(
            f"Nothing was stored: {report.rejected} of {report.lines} lines were rejected. Line "
            f"{errors[0]['line']}: {errors[0]['error']}"
            if errors
            else f"Nothing was stored: {report.rejected} lines were rejected.",
            rejected=report.rejected,
            errors=errors,
        )
    return {
        "count": report.stored,
        "lines": report.lines,
        "rejected": report.rejected,
        "errors": errors,
        "resumed_at": report.resumed_at,
        "took_ms": round(report.seconds * 1000, 3),
    }


@attrs.frozen
class _Steps:
    """The operations that an import is made of, as its HTTP caller may call them."""

    runner: Runner
    context: Context

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(namespace: str, *args: str, **arguments: Any) -> Any:
            arguments |= {"name": namespace, **dict(zip(("import_id",), args, strict=False))}
            found = await self.runner.call(self.context, f"namespaces.{name}", arguments)
            return unpack(found) if name == "bulk_abort" else _progress(found)

        return call
