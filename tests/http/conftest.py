"""The HTTP edge over a real database, on a real socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx  # noqa: ASYNC127 - litestar brings it along
import pytest
import trio

from actors.database import Database, open_database
from actors.http import HttpPort, HttpSettings, serve_http
from actors.http.app import build_app
from tests.http.fakes import fake_operations
from treestore.stores.operation import OPERATIONS, Operation

SETTINGS = HttpSettings(
    body_size_bytes_max=200_000,
    memory_size_bytes_max=1_000_000,
    head_timeout_s=2,
    body_timeout_s=0.5,
    grace_s=1,
)


def operations() -> Mapping[str, Operation]:
    """The real ones, where there are collections; else with such as stand in for them."""
    return OPERATIONS if "collections.find" in OPERATIONS else fake_operations()


def checked(answer: httpx.Response, status: int) -> Any:
    """An answer's JSON (or text); its status is as it should be, and errors are of the one form."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    if not answer.content:
        return None
    if answer.headers["content-type"] != "application/json":
        return answer.text
    value = answer.json()
    if status >= 400:
        error = value["error"]
        assert error.keys() == {"code", "message", "details", "request_id"}
        assert error["request_id"] == answer.headers["x-request-id"]
        assert "Traceback" not in answer.text
        return error
    return value


@attrs.define
class Edge:
    """A running edge."""

    http: httpx.AsyncClient
    port: HttpPort
    database: Database
    operations: Mapping[str, Operation]
    stopping: trio.Event

    async def ask(self, method: str, path: str, status: int, **request: Any) -> Any:
        """One request; see `checked`."""
        return checked(await self.http.request(method, path, **request), status)

    async def connect(self) -> trio.SocketStream:
        """A bare connection."""
        return await trio.open_tcp_stream("127.0.0.1", self.port.port)

    async def say(self, request: bytes) -> bytes:
        """What comes back for these bytes, until the connection ends."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            with trio.fail_after(10):
                return b"".join([bytes(part) async for part in stream])


@asynccontextmanager
async def edge_over(
    directory: Path, settings: HttpSettings = SETTINGS, **options: Any
) -> AsyncGenerator[Edge]:
    """An edge over a database of its own."""
    known = options.pop("operations", None) or operations()
    patience_s = options.pop("patience_s", 60)
    stopping = trio.Event()
    with trio.fail_after(patience_s):
        async with open_database(directory) as database, trio.open_nursery() as nursery:
            app = build_app(
                database,
                settings=settings,
                operations=known,
                stopping=stopping.is_set,
                **options,
            )
            port = await nursery.start(partial(serve_http, app, settings=settings))
            url = f"http://127.0.0.1:{port.port}"
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                yield Edge(client, port, database, known, stopping)
            port.stop()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncGenerator[Edge]:
    async with edge_over(tmp_path / "data") as found:
        yield found
