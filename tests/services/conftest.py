"""One test suite of the services, run against every face of a database.

A test that takes ``db`` awaits its services, and runs once for each way of reaching them. At its
end the store is checked.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import treestore
from actors.database import Database, open_database
from tests.actors.wire_tools import listening
from tests.services.faces import asyncio_client, blocking_client

FACES = ("embedded", "trio", "asyncio", "blocking")

CLIENTS: dict[str, Callable[[str], AbstractAsyncContextManager[Any]]] = {
    "trio": treestore.connect,
    "asyncio": asyncio_client,
    "blocking": blocking_client,
}


@asynccontextmanager
async def reached(face: str, database: Database) -> AsyncGenerator[Any]:
    """The database itself, or a client of a listener on a real socket."""
    if face == "embedded":
        yield database
        return
    async with (
        listening(database) as listener,
        CLIENTS[face](f"127.0.0.1:{listener.port}") as client,
    ):
        yield client


@pytest.fixture(params=FACES)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Any]:
    """A database of its own, reached the way that the parameter says."""
    async with open_database(tmp_path / "data") as database:
        async with reached(request.param, database) as face:
            yield face
        assert (await database.admin.check()).ok
