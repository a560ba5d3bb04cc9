"""Properties 6 to 9: secondary indexes say what the documents say, always."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from random import Random
from typing import Any
from unittest import mock

import pytest
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from actors.database import Database
from tests.actors.databases import execute
from tests.crash.simdisk import SimDisk
from tests.properties.scenes import (
    BOUND_S,
    Document,
    assert_index_exact,
    crashed,
    documents_in,
    examples,
    ids_of,
    reached_every_way,
    store,
    together,
)
from tests.query import query_reference
from tests.stores.test_collections_model import ModelIndex
from treestore.engine.transaction import ReadTransaction, WriteTransaction
from treestore.stores.collections import building, catalog, queries
from treestore.stores.collections.check import check_collections
from treestore.stores.collections.layout import AFTER

SEEDS = st.integers(0, 2**32)
SCALARS = st.sampled_from([None, 0, 1, 1.0, 2, -3.5, True, "", "1", "x\0y", "ü"])
"""Short ones: entries of an index hold them whole."""
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "a": SCALARS | st.lists(SCALARS, max_size=3) | st.fixed_dictionaries({"c": SCALARS}),
        "b": SCALARS,
    },
)
DOCUMENTS = st.lists(DOCUMENT, max_size=25)
FIELDS = st.sampled_from([["a"], ["b"], ["a.c"], ["a", "b"], ["b", "a.c"]])
INDEXES = st.lists(
    st.builds(ModelIndex, FIELDS, st.just(False), st.booleans()),
    min_size=1,
    max_size=3,
    unique_by=lambda index: index.name,
)
CHANGES = st.lists(st.tuples(st.integers(0, 30), st.none() | DOCUMENT), max_size=8)
"""Which document becomes what; None: it is deleted."""


def numbered(documents: list[Document]) -> list[Document]:
    return [{"_id": f"{n:02}", **document} for n, document in enumerate(documents)]


async def change(db: Any, changes: list[tuple[int, Document | None]]) -> None:
    """The work of one writer."""
    for number, document in changes:
        if document is None:
            await db.collections.delete("c", f"{number:02}")
        else:
            await db.collections.replace("c", f"{number:02}", document, upsert=True)


async def create(db: Any, index: ModelIndex, **options: Any) -> None:
    await db.collections.create_index("c", index.fields, sparse=index.sparse, **options)


def small_steps(after: Callable[[], None] = lambda: None) -> AbstractContextManager[Any]:
    """Builds take many steps; ``after`` is called after each."""
    step = partial(building.step, documents_max=2)

    def stepped(*args: Any, **kwargs: Any) -> Any:
        progress = step(*args, **kwargs)
        after()
        return progress

    return mock.patch.object(building, "step", stepped)


def states(db: Database) -> dict[str, str]:
    return {i.name: i.state for i in catalog.describe(db.engine.read(), "c").indexes}


async def answers(db: Any, documents: dict[str, Document], value: Any) -> None:
    """Queries that an index could serve give what a look at everything gives."""
    every = list(documents.values())
    for filter in ({"a": value}, {"b": {"$gte": value}}, {"b": value, "a": {"$ne": value}}):
        found = ids_of(await db.collections.find("c", filter))
        assert found == ids_of(query_reference.find(every, filter, []))


@examples(15, slow=True)
@given(DOCUMENTS, INDEXES, st.lists(CHANGES, max_size=3), SCALARS)
async def test_property_06_secondary_index_creation(
    documents: list[Document],
    indexes: list[ModelIndex],
    changes: list[list[tuple[int, Document | None]]],
    value: Any,
) -> None:
    """An index that is made over documents that are there, while others write, is used only when
    it is ready, and then has exactly the entries that the documents call for."""
    with trio.fail_after(BOUND_S):
        async with store(SimDisk()) as db:
            await db.collections.create("c")
            await db.collections.insert_many("c", numbered(documents))

            def look() -> None:
                """In the middle of builds: no query uses what is not ready."""
                plan = queries.explain(db.engine.read(), "c", {"a": value, "b": value}).plan
                assert all(states(db)[name] == "ready" for name in plan.indexes)

            with small_steps(look):
                async with reached_every_way(db) as faces:
                    makers = [
                        partial(create, faces[n % 4], index) for n, index in enumerate(indexes)
                    ]
                    writers = [partial(change, faces[n], each) for n, each in enumerate(changes)]
                    await together(*makers, *writers)
                    txn = db.engine.read()
                    for index in indexes:
                        assert_index_exact(txn, "c", index)
                    for face in faces:
                        await answers(face, documents_in(txn, "c"), value)


@examples(12, slow=True)
@given(DOCUMENTS, INDEXES, st.lists(CHANGES, min_size=1, max_size=4), SCALARS)
async def test_property_07_index_storage_consistency(
    documents: list[Document],
    indexes: list[ModelIndex],
    changes: list[list[tuple[int, Document | None]]],
    value: Any,
) -> None:
    """In every state that was ever committed, while many write, indexes and documents agree: no
    entry without its document, no document without its entries."""
    looks = 0
    done = False

    def compare(txn: ReadTransaction) -> None:
        nonlocal looks
        for index in indexes:
            assert_index_exact(txn, "c", index)
        looks += 1

    async def look(db: Database) -> None:
        last = -1
        while not done:
            if db.engine.durable.number != last:
                last = db.engine.durable.number
                compare(db.engine.read())
            await trio.lowlevel.checkpoint()

    async def write(faces: list[Any]) -> None:
        nonlocal done
        many = [{"_id": f"m{n}", **each} for n, each in enumerate(documents)]
        await together(
            *(partial(change, faces[n % 4], each) for n, each in enumerate(changes)),
            partial(faces[0].collections.insert_many, "c", many),
            partial(faces[1].collections.update_many, "c", {"b": value}, {"$set": {"a": value}}),
            partial(faces[2].collections.delete_many, "c", {"a": value}),
        )
        done = True

    with trio.fail_after(BOUND_S):
        async with store(SimDisk()) as db:
            wanted: list[Any] = [{"fields": i.fields, "sparse": i.sparse} for i in indexes]
            await db.collections.create("c", indexes=wanted)
            await db.collections.insert_many("c", numbered(documents))
            async with reached_every_way(db) as faces:
                await together(partial(look, db), partial(write, faces))
                compare(db.engine.read())
                await answers(faces[1], documents_in(db.engine.read(), "c"), value)
    assert looks > 1


@examples(15, slow=True)
@given(
    DOCUMENTS,
    INDEXES,
    CHANGES,
    st.integers(0, 12),
    st.sampled_from(["close", "kill", "power"]),
    SEEDS,
)
async def test_property_08_index_persistence(
    documents: list[Document],
    indexes: list[ModelIndex],
    changes: list[tuple[int, Document | None]],
    crash_after: int,
    how: str,
    seed: int,
) -> None:
    """Indexes outlive the process, however it ends: what was ready is ready and exact, without
    being built again, and what was being built is gone on with, to its end."""
    disk, random = SimDisk(seed), Random(seed)
    left: list[tuple[SimDisk, dict[str, str]]] = []
    steps = 0

    def go_down(_step: int, _op: str, _path: str) -> None:
        if not left:
            left.append((crashed(disk, how, random), states(db)))

    def count() -> None:
        nonlocal steps
        steps += 1
        if steps == crash_after and how != "close":
            disk.on_step = go_down

    with trio.fail_after(BOUND_S), small_steps(count):
        async with store(disk) as db:
            first, *rest = indexes
            await db.collections.create("c")
            await create(db, first)
            await db.collections.insert_many("c", numbered(documents))
            await change(db, changes)
            for index in rest:
                await create(db, index)
            if not left and how != "close":
                left.append((crashed(disk, how, random), states(db)))
            left.append((disk, states(db)))
        after, before = left[0]
        async with store(after) as db:
            found = states(db)
            assert before.keys() <= found.keys()
            assert all(found[name] == "ready" for name, was in before.items() if was == "ready")
            if set(found.values()) == {"ready"}:
                assert db.index_builder.steps == 0
            for index in indexes:
                if index.name in found:
                    await create(db, index)
                    assert_index_exact(db.engine.read(), "c", index)


@examples(15, slow=True)
@given(DOCUMENTS, INDEXES, CHANGES, SEEDS)
async def test_property_09_index_rebuild(
    documents: list[Document],
    indexes: list[ModelIndex],
    changes: list[tuple[int, Document | None]],
    seed: int,
) -> None:
    """Whatever became of an index's entries, the check tells, and rebuilding it, while others
    write, makes it exact again."""
    random = Random(seed)

    def damage(txn: WriteTransaction) -> int:
        """Take some entries away and put others in."""
        done = 0
        for index in catalog.require(txn, "c").indexes:
            keys = [key for key, _ in txn.scan(index.prefix, index.prefix + AFTER)]
            for key in random.sample(keys, min(len(keys), random.randrange(4))):
                txn.delete(key)
                if random.random() < 0.5:
                    txn.put(key + b"\0", b"")
                done += 1
        return done

    with trio.fail_after(BOUND_S):
        async with store(SimDisk(seed)) as db:
            wanted: list[Any] = [{"fields": i.fields, "sparse": i.sparse} for i in indexes]
            await db.collections.create("c", indexes=wanted)
            await db.collections.insert_many("c", numbered(documents))
            damaged = await execute(db, damage)
            assert bool(check_collections(db.engine.read())) == bool(damaged)
            if damaged:
                with pytest.raises((AssertionError, ValueError)):
                    for index in indexes:
                        assert_index_exact(db.engine.read(), "c", index)
            with small_steps():
                async with reached_every_way(db) as faces:
                    rebuilding = [
                        partial(faces[n].collections.rebuild_index, "c", index.name)
                        for n, index in enumerate(indexes)
                    ]
                    await together(*rebuilding, partial(change, faces[3], changes))
            for index in indexes:
                assert_index_exact(db.engine.read(), "c", index)
