"""What the properties share: how many examples they take, stores, and ways to reach them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import attrs
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from actors.database import Database
from tests.actors.databases import database
from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL
from tests.services.conftest import FACES, reached
from tests.stores.test_collections_model import ModelIndex, entries_by_value, grouped
from treestore.engine.transaction import ReadTransaction
from treestore.stores.collections import catalog, reading
from treestore.stores.collections.layout import unpacked_id

BOUND_S = 100
"""No example of an async property takes longer."""

OPTIONS = attrs.evolve(SMALL, page_size_bytes=4096)
"""Of stores on a simulated disk: small, so that trees are deep, but with room for keys."""

Document = dict[str, Any]


def examples(count: int, *, slow: bool = False) -> settings:
    """So many examples, where the profile is the default one; others take more in proportion.

    Args:
        slow: each takes a while, or depends on who comes first: one that fails is shown as it was
            found, for looking for a simpler one would take minutes.
    """
    share = settings().max_examples / settings.get_profile("default").max_examples
    return settings(
        max_examples=max(1, round(count * share)),
        deadline=None,
        phases=[phase for phase in Phase if not slow or phase != Phase.shrink],
        # A fixture that starts a server, or knows a folder, serves all examples of a test.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@asynccontextmanager
async def store(disk: SimDisk) -> AsyncGenerator[Database]:
    """The store on a simulated disk; made where there is none, and checked in the end."""
    async with database(disk, OPTIONS) as db:
        yield db
        report = await db.admin.check()
        assert report.ok, report.errors


@asynccontextmanager
async def reached_every_way(db: Database) -> AsyncGenerator[list[Any]]:
    """The store embedded, and its clients over sockets: on trio, on asyncio, and blocking."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(reached(face, db)) for face in FACES]


async def together(*tasks: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run all of them at the same time, to their ends."""
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)


def crashed(disk: SimDisk, how: str, random: Random) -> SimDisk:
    """What the next process finds after this one was killed, or after the power failed."""
    return disk.killed() if how == "kill" else disk.crash(random)


HOW = st.sampled_from(["kill", "power"])
"""Ways to go down; see `crashed`."""


def documents_in(txn: ReadTransaction, name: str) -> dict[str, Document]:
    """What is stored in a collection, by id, read without any query."""
    prefix = catalog.require(txn, name).documents
    ids = [unpacked_id(key[len(prefix) :]) for key, _ in txn.scan(prefix, prefix + b"\xff")]
    return {id: reading.get(txn, name, id) for id in ids}


def assert_index_exact(txn: ReadTransaction, name: str, model: ModelIndex) -> None:
    """The index is ready, and has the entries that its documents call for, in their order."""
    index = catalog.require(txn, name).named(model.name)
    assert index is not None
    assert index.ready
    found = [ids for _, ids in entries_by_value(txn, index)]
    assert found == grouped(model, documents_in(txn, name))


def ids_of(documents: Iterable[Document]) -> list[str]:
    """The ids of documents that all have their id under ``_id``."""
    return [document["_id"] for document in documents]
