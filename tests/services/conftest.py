"""One test suite of the services, run against every face of a database.

A test that takes ``db`` awaits its services, and runs once for each way of reaching them. At its
end the store is checked.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import treestore
from actors.database import Database, open_database
from tests.actors.wire_tools import listening

FACES = ("embedded", "trio")


@asynccontextmanager
async def embedded(database: Database) -> AsyncGenerator[Any]:
    """The database itself."""
    yield database


@asynccontextmanager
async def over_trio(database: Database) -> AsyncGenerator[Any]:
    """A trio client of a listener on a real socket."""
    async with (
        listening(database) as listener,
        treestore.connect(f"127.0.0.1:{listener.port}") as client,
    ):
        yield client


OPENERS = {"embedded": embedded, "trio": over_trio}


@pytest.fixture(params=FACES)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Any]:
    """A database of its own, reached the way that the parameter says."""
    async with open_database(tmp_path / "data") as database:
        async with OPENERS[request.param](database) as face:
            yield face
        assert (await database.admin.check()).ok
