"""What views answer, through every client: explained, measured, counted, and as the tree has it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from treestore.errors import InvalidArgument, NotFound

BOUND_S = 60.0

SCHEMA = {
    "vector": {"dim": 4, "metric": "cosine"},
    "attributes": {"year": "int", "kind": "string", "secret": {"type": "int", "filterable": False}},
}


@pytest.fixture
async def n(db: Any) -> Any:
    luck = random.Random(7)
    await db.namespaces.create("cases", SCHEMA)
    for start in (0, 100, 200):
        documents = [
            {
                "id": id,
                "vector": [luck.gauss(0, 1) for _ in range(4)],
                "attributes": {"year": 2000 + id % 10, "kind": "ab"[id % 2]},
            }
            for id in range(start, start + 100)
        ]
        await db.namespaces.upsert("cases", documents)
    await db.namespaces.delete("cases", list(range(0, 300, 10)))
    return db.namespaces


async def test_a_query_is_explained(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        told = await n.explain("cases", vector=[1, 0, 0, 0], filter={"kind": "a"}, top_k=5)
        assert (told.source, told.documents, told.allowed, told.hits) == ("view", 270, 120, 5)
        assert 60 <= told.estimated <= 180
        (part,) = told.parts
        assert (part.segment, part.way, part.allowed) == (None, "exact", 120)
        assert "120 of 270" in told.plan
        assert set(told.times) == {"view", "filter", "search"}
        told = await n.explain("cases", order_by="-year", filter={"year": 2003})
        assert (told.allowed, told.hits, told.parts, told.words) == (30, 10, (), None)
        for wrong in ({"vector": [1]}, {"filter": {"secret": 1}}, {"top_k": 0}, {"order_by": "x"}):
            with pytest.raises(InvalidArgument):
                await n.explain("cases", **wrong)
        with pytest.raises(NotFound):
            await n.explain("others", vector=[1, 0, 0, 0])


async def test_recall_is_measured(db: Any, n: Any) -> None:
    with trio.fail_after(BOUND_S):
        found = await n.recall("cases", top_k=5, sample=20)
        assert (found.recall, found.worst, found.queries, found.top_k) == (1.0, 1.0, 20, 5)
        found = await n.recall("cases", queries=[[1, 0, 0, 0], [0, 1, 0, 0]], filter={"year": 2001})
        assert (found.recall, found.queries) == (1.0, 2)
        mistakes: list[dict[str, Any]] = [{"sample": 0}, {"top_k": 0}]
        for wrong in (*mistakes, {"queries": []}, {"queries": [[1]]}):
            with pytest.raises(InvalidArgument):
                await n.recall("cases", **wrong)
        await db.namespaces.create("plain", {"attributes": {"year": "int"}})
        with pytest.raises(InvalidArgument, match="no vectors"):
            await n.recall("plain")


async def test_snapshots_and_transactions_have_their_own_answers(db: Any, n: Any) -> None:
    with trio.fail_after(BOUND_S):
        asked = {"vector": [1, 0, 0, 0], "top_k": 3}
        before = await n.query("cases", **asked)
        async with db.snapshot() as snapshot:
            await n.upsert("cases", [{"id": "new", "vector": [1, 0, 0, 0]}])
            assert [hit.id for hit in await snapshot.namespaces.query("cases", **asked)] == [
                hit.id for hit in before
            ]
            assert await snapshot.namespaces.count("cases", {"kind": None}) == 0
        assert (await n.query("cases", **asked))[0].id == "new"
        async with db.transaction() as txn:
            await txn.namespaces.delete("cases", ["new"])
            await txn.namespaces.upsert(
                "cases", [{"id": "mine", "vector": [1, 0, 0, 0], "attributes": {"kind": "c"}}]
            )
            hits = await txn.namespaces.query("cases", **asked)
            assert hits[0].id == "mine"
            assert "new" not in [hit.id for hit in hits]
            assert await txn.namespaces.count("cases", {"kind": "c"}) == 1
            told = await txn.namespaces.explain("cases", **asked)
            assert told.hits == 3
        (group,) = await n.aggregate("cases", {"n": {"$count": {}}}, filter={"kind": "c"})
        assert group.values == {"n": 1}


async def test_groups_come_from_columns(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        groups = await n.aggregate(
            "cases",
            {"n": {"$count": {}}, "first": {"$min": "id"}},
            by="kind",
            filter={"year": {"$gte": 2005}},
        )
        assert [(group.by, group.values) for group in groups] == [
            ({"kind": "a"}, {"n": 60, "first": 6}),
            ({"kind": "b"}, {"n": 90, "first": 5}),
        ]
        assert await n.count("cases") == 270
        assert await n.count("cases", {"year": {"$in": [2001, 2002]}}) == 60
        with pytest.raises(InvalidArgument):
            await n.count("cases", {"secret": 1})


async def test_eventual_queries_give_what_is_there(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        asked = {"vector": [1, 0, 0, 0], "top_k": 3}
        first = await n.query("cases", **asked)
        await n.delete("cases", [first[0].id])
        hits = await n.query("cases", **asked, consistency="eventual")
        assert first[0].id not in [hit.id for hit in hits]
        assert len(hits) == 3
