"""Indexes are built while writers go on, over crashes, and are never half there."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from actors.database import Database
from tests.actors.databases import database
from tests.crash.simdisk import SimDisk
from treestore.engine.transaction import WriteTransaction
from treestore.errors import AlreadyExists, NotFound, ResourceExhausted, Unavailable
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
    """The power fails in the middle of the build, while others write."""
    small_steps(monkeypatch)
    disk, random = SimDisk(seed), Random(seed)
    left: list[SimDisk] = []

    def fail_power(step: int, _op: str, _path: str) -> None:
        if step == crash_at:
            left.append(disk.crash(random))

    with trio.fail_after(BOUND_S):
        async with database(disk) as db:
            c = db.collections
            await c.insert_many(
                "n", [{"_id": f"{n:03}", "v": n % 7, "tags": [n, n + 1]} for n in range(200)]
            )
            await c.create_index("n", ["v", "tags"], wait=False)
            while db.index_builder.steps < 2 + seed:
                await c.insert("n", {"v": 1})
            crash_at = disk.steps + random.randrange(1, 9)
            disk.on_step = fail_power
            acknowledged: list[str] = []
            while not left:
                acknowledged = [*acknowledged, await c.insert("n", {"v": 1})]
            acknowledged.pop()  # It may have come after the crash.
        async with database(left[0]) as db:
            c = db.collections
            (index,) = (await c.describe("n")).indexes
            assert index.state == "building"
            assert 10 <= (index.documents_done or 0) < 200
            assert check_collections(db.engine.read()) == []
            assert (await c.create_index("n", ["v", "tags"])).state == "ready"
            assert check_collections(db.engine.read()) == []
            indexed = set(ids_by_value(db, "n", "v,tags"))
            assert indexed >= {f"{n:03}" for n in range(200)} | set(acknowledged)


async def test_a_build_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps(monkeypatch)
    with trio.fail_after(BOUND_S):
        async with database(SimDisk()) as db:
            c = db.collections
            await c.insert_many("n", [{"_id": f"{n:03}", "v": n % 90} for n in range(100)])
            with pytest.raises(AlreadyExists, match=r"'000' and '090'|'090' and '000'"):
                await c.create_index("n", "v", unique=True)
            (index,) = (await c.describe("n")).indexes
            assert (index.state, index.conflict) == ("failed", True)
            opened = catalog.require(db.engine.read(), "n")
            assert list(scan(db.engine.read(), opened.indexes[0])) == []
            assert opened.ready == ()
            assert check_collections(db.engine.read()) == []
            await c.insert("n", {"v": 0})
            assert (await db.admin.check()).ok


async def test_what_is_dropped_is_not_built_on(monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps(monkeypatch, documents=1)
    with trio.fail_after(BOUND_S):
        async with database(SimDisk()) as db:
            c = db.collections

            async def wait_for(name: str, outcomes: list[str]) -> None:
                try:
                    await c.create_index(name, "v")
                except NotFound as error:
                    outcomes.append(error.message)

            for drop in (lambda: c.drop("n"), lambda: c.drop_index("n", "v")):
                await c.insert_many("n", [{"v": n} for n in range(100)])
                outcomes: list[str] = []
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait_for, "n", outcomes)
                    steps = db.index_builder.steps
                    while db.index_builder.steps < steps + 5:  # noqa: ASYNC110
                        await trio.sleep(0.001)
                    assert await drop()
                assert len(outcomes) == 1
            assert building.pending(db.engine.read()) == []
            assert check_collections(db.engine.read()) == []


async def test_a_step_that_finds_no_room_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    step, failures = building.step, iter([True, True, False])

    def full(txn: WriteTransaction, index_id: int) -> Any:
        if next(failures, False):
            raise ResourceExhausted("There is no room.")
        return step(txn, index_id)

    monkeypatch.setattr(building, "step", full)
    async with database(SimDisk()) as db:
        await db.collections.insert_many("n", [{"v": n} for n in range(10)])
        begun = trio.current_time()
        assert (await db.collections.create_index("n", "v")).state == "ready"
        assert trio.current_time() - begun >= 2
        assert db.index_builder.last_error is None


async def test_whoever_waits_is_told_when_the_store_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps(monkeypatch, documents=1)
    disk = SimDisk()
    errors: list[Exception] = []
    with trio.fail_after(BOUND_S):
        async with trio.open_nursery() as nursery, database(disk) as db:
            await db.collections.insert_many("n", [{"v": n} for n in range(500)])

            async def wait(db: Database = db) -> None:
                try:
                    await db.collections.create_index("n", "v")
                except Unavailable as error:
                    errors.append(error)

            nursery.start_soon(wait)
            while db.index_builder.steps < 5:  # noqa: ASYNC110
                await trio.sleep(0.001)
        assert len(errors) == 1
        async with database(disk) as db:
            assert (await db.collections.create_index("n", "v")).state == "ready"
