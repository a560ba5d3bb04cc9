"""Indexes are built while writers go on, over crashes, and are never half there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest
import trio

from actors.database import Database
from tests.actors.databases import database
from tests.crash.simdisk import Crash, SimDisk
from treestore.engine.transaction import WriteTransaction
from treestore.errors import AlreadyExists, NotFound, ResourceExhausted, TreeStoreError, Unavailable
from treestore.stores.collections import building, catalog
from treestore.stores.collections.check import check_collections
from treestore.stores.collections.layout import unpacked_id
from treestore.stores.collections.scanning import scan

BOUND_S = 60


def small_steps(monkeypatch: pytest.MonkeyPatch, documents: int = 10) -> None:
    """So that a build takes many."""
    step = building.step
    monkeypatch.setattr(building, "step", partial(step, documents_max=documents))


def ids_by_value(db: Database, name: str, index_name: str) -> list[str]:
    """The ids in the order of an index, which must be ready."""
    txn = db.engine.read()
    index = catalog.require(txn, name).named(index_name)
    assert index is not None
    assert index.ready
    return [unpacked_id(packed) for _, packed in scan(txn, index)]


async def test_writers_go_on_while_an_index_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps(monkeypatch)
    random = Random(1)
    with trio.fail_after(BOUND_S):
        async with database(SimDisk()) as db:
            c = db.collections
            values = {f"{n:03}": random.randrange(50) for n in range(300)}
            await c.insert_many("n", [{"_id": id, "v": v} for id, v in values.items()])
            states = set()

            async def write() -> None:
                while "ready" not in states:
                    id = f"{random.randrange(400):03}"
                    if random.random() < 0.3:
                        await c.delete("n", id)
                        values.pop(id, None)
                    else:
                        values[id] = random.randrange(50)
                        await c.replace("n", id, {"v": values[id]}, upsert=True)
                    states.add((await c.describe("n")).indexes[0].state)

            begun = await c.create_index("n", "v", wait=False)
            assert begun.state == "building"
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(write)
                await c.create_index("n", "v")
            assert states == {"building", "ready"}
            assert db.index_builder.steps > 20
            order = sorted(values, key=lambda id: (values[id], id))
            assert ids_by_value(db, "n", "v") == order
            assert check_collections(db.engine.read()) == []


@pytest.mark.parametrize("seed", range(6))
async def test_a_build_goes_on_after_a_crash(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps(monkeypatch)
    disk = SimDisk(seed)
    random = Random(seed)
    documents = [{"_id": f"{n:03}", "v": n % 7, "tags": [n, n + 1]} for n in range(200)]
    with trio.fail_after(BOUND_S):
        async with database(disk) as db:
            await db.collections.insert_many("n", documents)
        crash_at = random.randrange(3, 18)
        with pytest.raises((Crash, TreeStoreError)):  # noqa: PT012 - it may come at any call
            async with database(disk) as db:
                await db.collections.create_index("n", ["v", "tags"], wait=False)
                while db.index_builder.steps < crash_at:
                    await db.collections.insert("n", {"v": 1})
                before = [i.documents_done for i in (await db.collections.describe("n")).indexes]
                disk.crash_before(disk.steps + random.randrange(1, 6))
                while True:
                    await db.collections.insert("n", {"v": 1})
        disk.restart(power_failure=True)
        async with database(disk) as db:
            (index,) = (await db.collections.describe("n")).indexes
            assert index.state == "building"
            assert (index.documents_done or 0) >= (before[0] or 0) > 0
            assert check_collections(db.engine.read()) == []
            assert (await db.collections.create_index("n", ["v", "tags"])).state == "ready"
            assert db.index_builder.steps < 60
            assert check_collections(db.engine.read()) == []
            assert len(set(ids_by_value(db, "n", "v,tags"))) >= 200
