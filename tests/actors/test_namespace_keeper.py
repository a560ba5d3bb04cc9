"""Dropped namespaces are removed and copies made beside everything, over crashes too."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import pytest
import trio

from actors.database import Database
from tests.actors.databases import database
from tests.crash.simdisk import SimDisk
from treestore.errors import AlreadyExists, NotFound, ResourceExhausted
from treestore.stores.keys import Keyspace
from treestore.stores.namespaces import copying, dropping
from treestore.stores.namespaces.check import check_namespaces
from treestore.stores.namespaces.layout import ROW_SPACES

BOUND_S = 60
COUNT = 200


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that everything takes many."""
    monkeypatch.setattr(dropping, "step", partial(dropping.step, keys_max=20))
    monkeypatch.setattr(copying, "BATCH_KEYS", 20)


async def fill(db: Database, name: str) -> None:
    await db.namespaces.create(name, {"vector": {"dim": 2}, "attributes": {"n": "int"}})
    await db.namespaces.upsert(
        name, [{"id": i, "vector": [1, i], "attributes": {"n": i}} for i in range(COUNT)]
    )


def keys_left(db: Database) -> int:
    txn = db.engine.read()
    return sum(len(list(txn.scan(bytes((space,)), bytes((space + 1,))))) for space in ROW_SPACES)


async def emptied(db: Database) -> None:
    while dropping.pending(db.engine.read()) or copying.under_way(db.engine.read()):  # noqa: ASYNC110
        await trio.sleep(0.01)


async def test_what_was_dropped_is_removed_while_others_write() -> None:
    with trio.fail_after(BOUND_S):
        async with database(SimDisk()) as db:
            await fill(db, "a")
            await fill(db, "b")
            assert await db.namespaces.drop("a")
            await db.namespaces.create("a", {})
            await db.namespaces.upsert("a", [{"id": "new"}])
            await db.namespaces.upsert("b", [{"id": "new"}])
            await emptied(db)
            assert db.namespace_keeper.steps > 10
            assert [each.id for each in await db.namespaces.export("a")] == ["new"]
            assert await db.namespaces.count("b") == COUNT + 1
            assert keys_left(db) == 3 * (COUNT + 2)
            assert (await db.admin.check()).ok


@pytest.mark.parametrize("seed", range(4))
async def test_removing_goes_on_after_a_crash(seed: int) -> None:
    disk, random = SimDisk(seed), Random(seed)
    left: list[SimDisk] = []

    def fail_power(step: int, _op: str, _path: str) -> None:
        if step == crash_at:
            left.append(disk.crash(random))

    with trio.fail_after(BOUND_S):
        async with database(disk) as db:
            await fill(db, "a")
            await db.namespaces.drop("a")
            while db.namespace_keeper.steps < 2 + seed:  # noqa: ASYNC110
                await trio.sleep(0.001)
            crash_at = disk.steps + random.randrange(1, 9)
            disk.on_step = fail_power
            while not left:
                await db.kv.put(b"k", b"v")
        async with database(left[0]) as db:
            with pytest.raises(NotFound):
                await db.namespaces.count("a")
            assert check_namespaces(db.engine.read()) == []
            await emptied(db)
            assert keys_left(db) == 0
            assert (await db.admin.check()).ok


@pytest.mark.parametrize("seed", range(4))
async def test_a_copy_is_whole_or_never_was(seed: int) -> None:
    """The power fails while a namespace is copied."""
    disk, random = SimDisk(seed), Random(seed)
    left: list[SimDisk] = []

    def fail_power(step: int, _op: str, _path: str) -> None:
        if step == crash_at and not left:
            left.append(disk.crash(random))

    with trio.fail_after(BOUND_S):
        async with database(disk) as db:
            await fill(db, "a")
            crash_at = disk.steps + random.randrange(4, 120)
            disk.on_step = fail_power
            await db.namespaces.copy("a", "b")
            while not left:
                await db.kv.put(b"k", b"v")
        async with database(left[0]) as db:
            assert check_namespaces(db.engine.read()) == []
            await emptied(db)
            names = [each.name for each in await db.namespaces.list()]
            assert keys_left(db) == 3 * COUNT * len(names)
            for name in names:
                assert await db.namespaces.count(name) == COUNT
            if names == ["a"]:
                await db.namespaces.copy("a", "b")
            assert await db.namespaces.count("b") == COUNT
            assert (await db.admin.check()).ok


async def test_a_copy_that_is_given_up_leaves_nothing() -> None:
    with trio.fail_after(BOUND_S):
        async with database(SimDisk()) as db:
            await fill(db, "a")
            with trio.move_on_after(0.02):
                await db.namespaces.copy("a", "b")
            await emptied(db)
            names = [each.name for each in await db.namespaces.list()]
            assert keys_left(db) == 3 * COUNT * len(names)
            await db.namespaces.drop("b")
            assert (await db.namespaces.copy("a", "b")).name == "b"
            assert await db.namespaces.count("b") == COUNT


async def test_a_copy_whose_name_was_taken_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    put = copying.put
    begun = trio.Event()

    def slow_put(*args: Any) -> None:
        trio.from_thread.run_sync(begun.set)
        put(*args)

    monkeypatch.setattr(copying, "put", slow_put)
    with trio.fail_after(BOUND_S):
        async with database(SimDisk()) as db:
            await fill(db, "a")

            async def take() -> None:
                await begun.wait()
                await db.namespaces.create("b", {})

            async with trio.open_nursery() as nursery:
                nursery.start_soon(take)
                with pytest.raises(AlreadyExists):
                    await db.namespaces.copy("a", "b")
            await emptied(db)
            assert keys_left(db) == 3 * COUNT
            assert await db.namespaces.count("b") == 0


async def test_a_step_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    step = dropping.step
    failures = [ResourceExhausted("full")]

    def failing(*args: Any, **kwargs: Any) -> bool:
        if failures:
            raise failures.pop()
        return step(*args, **kwargs)

    monkeypatch.setattr(dropping, "step", failing)
    async with database(SimDisk()) as db:
        await fill(db, "a")
        await db.namespaces.drop("a")
        await emptied(db)
        assert not failures
        assert db.namespace_keeper.last_error is None
        space = Keyspace.NAMESPACES_DROPPED
        assert len(list(db.engine.read().scan(space, space + b"\xff"))) == 1
