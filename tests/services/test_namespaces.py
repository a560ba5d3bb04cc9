"""Namespaces, embedded and through every client."""

from __future__ import annotations

import math
from array import array
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import trio

from treestore.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    TransactionConflict,
)
from treestore.model.namespaces import (
    AttributeSchema,
    FullTextSchema,
    NamespaceDocument,
    NamespaceSchema,
    PatchResult,
    UpsertResult,
    VectorSchema,
)

BOUND_S = 60

SCHEMA: Any = {
    "vector": {"dim": 3, "metric": "cosine"},
    "attributes": {
        "year": {"type": "int"},
        "title": {"type": "string", "full_text": {"language": "english"}},
        "tags": {"type": "array<string>"},
        "at": {"type": "datetime"},
        "hidden": {"type": "string", "filterable": False},
    },
}


def document(id: Any, vector: Any = (1, 0, 0), **attributes: Any) -> dict[str, Any]:
    return {"id": id, "vector": list(vector), "attributes": attributes}


@pytest.fixture
async def n(db: Any) -> Any:
    """The service, with a namespace of five documents."""
    with trio.fail_after(BOUND_S):
        await db.namespaces.create("cases", SCHEMA)
        await db.namespaces.upsert(
            "cases",
            [
                document(1, (1, 0, 0), year=2021, tags=["tax"], title="One"),
                document(2, (0.9, 0.1, 0), year=2022, tags=["tax", "law"]),
                document("three", (0, 1, 0), year=2023, tags=[]),
                document("four", (0, 0, 1), year=2024, hidden="x"),
                {"id": 5, "attributes": {"year": 2021}},
            ],
        )
    return db.namespaces


def float32(*numbers: float) -> tuple[float, ...]:
    return tuple(array("f", numbers))


def ids(found: Any) -> list[Any]:
    return [each.id for each in found]


# --- the namespaces themselves ---------------------------------------------------------------


async def test_namespaces_are_made_listed_and_dropped(db: Any) -> None:
    n = db.namespaces
    with trio.fail_after(BOUND_S):
        made = await n.create("b.1", SCHEMA)
        assert made.name == "b.1"
        assert made.schema.vector == VectorSchema(dim=3, metric="cosine")
        assert list(made.schema.attributes) == ["year", "title", "tags", "at", "hidden"]
        assert made.schema.attributes["title"].full_text == FullTextSchema()
        assert made.schema.attributes["hidden"] == AttributeSchema(type="string", filterable=False)
        with pytest.raises(AlreadyExists) as caught:
            await n.create("b.1", made.schema)
        assert caught.value.details["same"] is True
        with pytest.raises(AlreadyExists) as caught:
            await n.create("b.1", {"attributes": {"year": "int"}})
        assert caught.value.details["same"] is False
        for name in ("a", "b", "B", "c-2_x"):
            await n.create(name, NamespaceSchema())
        page = await n.list(limit=3)
        assert [each.name for each in page] == ["B", "a", "b"]
        page = await n.list(limit=3, cursor=page.next_cursor)
        assert [each.name for each in page] == ["b.1", "c-2_x"]
        assert page.next_cursor is None
        assert [each.name for each in await n.list(prefix="b")] == ["b", "b.1"]
        described = await n.describe("b.1")
        assert described.schema == made.schema
        assert described.statistics.documents == 0
        assert await n.drop("b.1") is True
        assert await n.drop("b.1") is False
        with pytest.raises(NotFound):
            await n.describe("b.1")
        await n.create("b.1", {})
        assert (await n.describe("b.1")).schema == NamespaceSchema()


async def test_a_schema_grows_and_nothing_else(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        with pytest.raises(InvalidArgument, match="price"):
            await n.upsert("cases", [document(9, price=1.5)])
        grown = await n.update_schema(
            "cases",
            {"attributes": {"price": "float", "hidden": {"type": "string", "filterable": True}}},
        )
        assert list(grown.schema.attributes)[-1] == "price"
        assert grown.updated_at > grown.created_at
        await n.upsert("cases", [document(9, price=2)])
        assert await n.count("cases", {"price": {"$gte": 1.5}}) == 1
        assert await n.count("cases", {"price": None}) == 5
        assert await n.count("cases", {"hidden": "x"}) == 1
        for wrong in (
            {"attributes": {"year": "float"}},
            {"vector": {"dim": 4}},
            {"vector": {"dim": 3, "metric": "l2"}},
        ):
            with pytest.raises(InvalidArgument):
                await n.update_schema("cases", wrong)
        assert (await n.describe("cases")).schema == grown.schema


# --- writing ---------------------------------------------------------------------------------


async def test_what_is_stored_comes_back(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        (found,) = await n.get("cases", [2], include_vector=True)
        assert found == NamespaceDocument(
            id=2,
            attributes={"year": 2022, "tags": ["tax", "law"]},
            vector=float32(0.9, 0.1, 0),
        )
        assert ids(await n.get("cases", ["four", "none", 1, 1])) == ["four", 1, 1]
        assert (await n.get("cases", [5], include_vector=True))[0].vector is None
        result = await n.upsert("cases", [document(1, year=1), document(7), document(7, year=7)])
        assert result == UpsertResult(stored=2, created=1)
        assert [d.attributes for d in await n.get("cases", [1, 7])] == [{"year": 1}, {"year": 7}]


async def test_values_have_one_form(n: Any) -> None:
    schema = {
        "attributes": {
            "at": "datetime",
            "key": "uuid",
            "price": "float",
            "moments": "array<datetime>",
            "keys": "array<uuid>",
        }
    }
    key = UUID("12345678-1234-5678-1234-56781234ABCD")
    east = timezone(timedelta(hours=2))
    with trio.fail_after(BOUND_S):
        await n.create("values", schema)
        moments = [
            datetime(2024, 7, 1, 12, tzinfo=UTC),
            datetime(2024, 7, 1, 14, tzinfo=east),
            "2024-07-01T12:00:00",
            "2024-07-01T14:00:00+02:00",
            "2024-07-01 12:00:00Z",
            datetime(2024, 7, 1, 12),
        ]
        await n.upsert(
            "values",
            [{"id": i, "attributes": {"at": moment}} for i, moment in enumerate(moments)],
        )
        found = await n.get("values", list(range(len(moments))))
        assert {d.attributes["at"] for d in found} == {"2024-07-01T12:00:00.000000Z"}
        for moment in moments:
            assert await n.count("values", {"at": moment}) == len(moments)
            assert await n.count("values", {"at": {"$lt": moment}}) == 0
        assert await n.count("values", {"at": {"$gt": "2024-07-01"}}) == len(moments)
        assert await n.count("values", {"at": {"$lte": date(2024, 7, 1)}}) == 0
        attributes = {
            "key": key,
            "price": 3,
            "moments": [date(2024, 1, 2), "1999-12-31T23:59:59.5+01:00"],
            "keys": [str(key).upper(), key.hex],
        }
        await n.upsert("values", [{"id": "x", "attributes": attributes}])
        assert (await n.get("values", ["x"]))[0].attributes == {
            "key": str(key),
            "price": 3.0,
            "moments": ["2024-01-02T00:00:00.000000Z", "1999-12-31T22:59:59.500000Z"],
            "keys": [str(key), str(key)],
        }
        assert await n.count("values", {"key": str(key).upper()}) == 1
        assert await n.count("values", {"keys": {"$contains": key.hex}}) == 1
        assert await n.count("values", {"moments": {"$elemMatch": {"$lt": "2000-01-01"}}}) == 1


async def test_vectors_come_in_many_forms(n: Any) -> None:
    numbers = [0.25, -1.5, 3.0]
    forms = [
        numbers,
        tuple(numbers),
        np.array(numbers),
        np.array(numbers, np.float32),
        np.array([0.25, 0, -1.5, 0, 3.0, 0], np.float32)[::2],
        np.array(numbers, ">f4"),
        np.array(numbers, np.float16),
        np.array(numbers, "<f4").tobytes(),
    ]
    with trio.fail_after(BOUND_S):
        await n.upsert("cases", [{"id": i, "vector": v} for i, v in enumerate(forms)])
        found = await n.get("cases", list(range(len(forms))), include_vector=True)
        assert [each.vector for each in found] == [tuple(numbers)] * len(forms)
        for form in forms:
            (hit,) = await n.query("cases", vector=form, top_k=1)
            assert hit.id == 0
            assert hit.distance == pytest.approx(0, abs=1e-12)


async def test_patches_change_attributes_one_by_one(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        result = await n.patch(
            "cases",
            [
                {"id": 1, "attributes": {"year": None}},
                {"id": 1, "attributes": {"tags": ["a"]}},
                {"id": 2, "attributes": {}, "vector": [0, 0, 1]},
                {"id": "three", "vector": None},
                {"id": "none", "attributes": {"year": 1}},
            ],
        )
        assert result == PatchResult(patched=3, missing=("none",))
        one, two, three = await n.get("cases", [1, 2, "three"], include_vector=True)
        assert one.attributes == {"year": None, "tags": ["a"], "title": "One"}
        assert one.vector == (1.0, 0.0, 0.0)
        assert two.vector == (0.0, 0.0, 1.0)
        assert two.attributes["year"] == 2022
        assert three.vector is None
        assert ids(await n.query("cases", vector=[0, 0, 1], top_k=2)) == ["four", 2]
        assert await n.patch_by_filter("cases", {"year": {"$gte": 2022}}, {"title": "late"}) == 3
        assert await n.patch_by_filter("cases", {}, {"title": "all"}, limit=2) == 2
        titles = [each.attributes.get("title") for each in await n.export("cases")]
        assert titles == ["all", "all", "One", "late", None]


async def test_writes_have_conditions(n: Any) -> None:
    newer = {"year": {"$lt": 2022}}
    with trio.fail_after(BOUND_S):
        result = await n.upsert(
            "cases",
            [document(1, year=2030), document(2, year=2030), document(8, year=2030)],
            condition=newer,
        )
        assert result == UpsertResult(stored=2, created=1, skipped=(2,))
        patched = await n.patch(
            "cases",
            [{"id": id, "attributes": {"year": 1999}} for id in (5, 2, "none")],
            condition=newer,
        )
        assert patched == PatchResult(patched=1, missing=("none",), skipped=(2,))
        assert await n.delete("cases", [5, 2, "none"], filter=newer) == 1
        assert ids(await n.get("cases", [5, 2])) == [2]


async def test_documents_are_deleted(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        assert await n.delete("cases", [1, 1, "none"]) == 1
        assert await n.delete("cases", {"tags": "tax"}) == 1  # A filter in place of ids.
        with pytest.raises(InvalidArgument):
            await n.delete("cases", {"tags": "tax"}, filter={})
        assert await n.delete("cases", filter={}, limit=1) == 1
        assert ids(await n.export("cases")) == ["three", 5]
        with pytest.raises(InvalidArgument):
            await n.delete("cases")
        assert await n.delete("cases", filter={}) == 2
        assert await n.count("cases") == 0
        assert (await n.describe("cases")).statistics.tail == 0


async def test_a_call_is_made_whole_or_not_at_all(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        before = (await n.export("cases")).items
        with pytest.raises(InvalidArgument) as caught:
            await n.upsert("cases", [document(1, year=0), document(9), document(10, (1, 0))])
        assert caught.value.details["index"] == 2
        assert caught.value.details["id"] == 10
        with pytest.raises(InvalidArgument) as caught:
            await n.patch(
                "cases",
                [{"id": 1, "attributes": {"year": 0}}, {"id": 2, "attributes": {"year": "x"}}],
            )
        assert caught.value.details["index"] == 1
        assert (await n.export("cases")).items == before
        many = [document(f"d{i}") for i in range(10_001)]
        with pytest.raises(InvalidArgument, match="10000"):
            await n.upsert("cases", many)
        assert (await n.upsert("cases", many[:1200])).created == 1200


# --- queries ---------------------------------------------------------------------------------


async def test_the_nearest_come_first(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        hits = await n.query("cases", vector=[1, 0, 0], top_k=3, include_vector=True)
        assert ids(hits) == [1, 2, "four"]
        assert hits[0].distance == 0
        assert hits[0].score == 1
        assert hits[1].distance == pytest.approx(1 - 0.9 / math.hypot(0.9, 0.1))
        assert hits[1].vector == float32(0.9, 0.1, 0)
        assert hits[2].distance == 1
        assert hits[1].attributes == {"year": 2022, "tags": ["tax", "law"]}
        assert [hit.cursor is None for hit in hits] == [True, True, False]
        rest = await n.query("cases", vector=[1, 0, 0], top_k=3, cursor=hits[-1].cursor)
        assert ids(rest) == ["three"]
        assert rest[0].cursor is None
        assert ids(await n.query("cases", vector=[1, 0, 0], offset=1, top_k=1)) == [2]
        with pytest.raises(InvalidArgument):
            await n.query("cases", vector=[0, 1, 0], cursor=hits[-1].cursor)
        filtered = await n.query("cases", vector=[1, 0, 0], filter={"year": {"$ne": 2021}})
        assert ids(filtered) == [2, "four", "three"]
        (hit,) = await n.query("cases", vector=[1, 0, 0], top_k=1, include_attributes=["year"])
        assert hit.attributes == {"year": 2021}
        (hit,) = await n.query("cases", vector=[1, 0, 0], top_k=1, include_attributes=False)
        assert hit.attributes == {}
        assert await n.query("cases", vector=[1, 0, 0], filter={"year": 1}) == []


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("l2", [("near", 0.0, 1.0), ("far", 4.0, 0.2), ("long", 81.0, 1 / 82)]),
        ("dot", [("long", -10.0, 10.0), ("near", -1.0, 1.0), ("far", 1.0, -1.0)]),
        ("cosine", [("long", 0.0, 1.0), ("near", 0.0, 1.0), ("far", 2.0, -1.0)]),
    ],
)
async def test_metrics(db: Any, metric: str, expected: Any) -> None:
    n = db.namespaces
    with trio.fail_after(BOUND_S):
        await n.create("m", {"vector": {"dim": 2, "metric": metric}})
        await n.upsert(
            "m",
            [
                {"id": "near", "vector": [1, 0]},
                {"id": "far", "vector": [-1, 0]},
                {"id": "long", "vector": [10, 0]},
            ],
        )
        hits = await n.query("m", vector=[1, 0])
        assert [(hit.id, hit.distance, hit.score) for hit in hits] == expected


async def test_without_a_vector_documents_come_in_an_order(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        assert ids(await n.query("cases")) == ["four", "three", 1, 2, 5]
        assert ids(await n.query("cases", order_by="year")) == [1, 5, 2, "three", "four"]
        assert ids(await n.query("cases", order_by=["-year", "id"])) == ["four", "three", 2, 1, 5]
        assert ids(await n.query("cases", order_by={"year": 1}, offset=3)) == ["three", "four"]
        found: list[Any] = []
        cursor = None
        while True:
            hits = await n.query("cases", order_by="-year", top_k=2, cursor=cursor)
            found += ids(hits)
            if len(hits) < 2:
                break
            cursor = hits[-1].cursor
        assert found == ["four", "three", 2, 5, 1]
        assert all(hit.score == 0 and hit.distance is None for hit in hits)
        filtered = await n.query("cases", filter={"tags": {"$contains": "tax"}}, order_by="-id")
        assert ids(filtered) == [2, 1]


async def test_counts_and_groups(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        assert await n.count("cases") == 5
        assert await n.count("cases", {"id": {"$in": [1, "four", "x"]}}) == 2
        groups = await n.aggregate(
            "cases", {"n": {"$count": {}}, "last": {"$max": "id"}}, by="year"
        )
        assert [(group.by["year"], group.values["n"]) for group in groups] == [
            (2021, 2),
            (2022, 1),
            (2023, 1),
            (2024, 1),
        ]
        assert groups[0].values["last"] == 5
        (total,) = await n.aggregate("cases", {"s": {"$sum": "year"}}, filter={"tags": "tax"})
        assert total.values == {"s": 4043}


async def test_all_documents_are_exported(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        cursor, found = None, []
        while True:
            page = await n.export("cases", cursor, limit=2)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
            await n.upsert("cases", [document("aaa")])  # Before where it is.
        assert ids(found) == ["four", "three", 1, 2, 5]
        assert found[2].vector == (1.0, 0.0, 0.0)
        assert all(d.vector is None for d in await n.export("cases", include_vector=False))
        with pytest.raises(InvalidArgument):
            await n.export("cases", "nonsense")


# --- one state -------------------------------------------------------------------------------


async def test_a_snapshot_stays_as_it_is(db: Any, n: Any) -> None:
    with trio.fail_after(BOUND_S):
        async with db.snapshot() as old:
            await n.delete("cases", [1])
            await n.patch("cases", [{"id": 2, "vector": [0, 0, 1], "attributes": {"year": 1}}])
            hits = await old.namespaces.query("cases", vector=[1, 0, 0], top_k=2)
            assert [(hit.id, hit.attributes["year"]) for hit in hits] == [(1, 2021), (2, 2022)]
            assert await old.namespaces.count("cases") == 5
            await n.drop("cases")
            assert await old.namespaces.count("cases", {"year": 2021}) == 2


async def test_a_transaction_sees_its_own_writes_over_all_stores(db: Any, n: Any) -> None:
    with trio.fail_after(BOUND_S):
        async with db.transaction() as txn:
            await txn.namespaces.upsert("cases", [document("new", (0, 0.1, 1), year=3000)])
            await txn.namespaces.delete("cases", ["four"])
            await txn.collections.insert("people", {"_id": "p"})
            await txn.documents.store("policy", "v1", [{"title": "T", "node_id": "t"}])
            assert ids(await txn.namespaces.query("cases", vector=[0, 0, 1], top_k=1)) == ["new"]
            assert await txn.namespaces.count("cases", {"year": 3000}) == 1
            assert ids(await n.query("cases", vector=[0, 0, 1], top_k=1)) == ["four"]
            with pytest.raises(InvalidArgument):
                await txn.namespaces.query("cases", vector=[0, 0, 1], consistency="eventual")
        assert ids(await n.query("cases", vector=[0, 0, 1], top_k=1)) == ["new"]
        assert await db.collections.count("people") == 1
        assert (await db.documents.get("policy")).node_count == 1
        with pytest.raises(RuntimeError):
            async with db.transaction() as txn:
                await txn.namespaces.create("never", {})
                await txn.namespaces.upsert("never", [{"id": 1}])
                raise RuntimeError
        with pytest.raises(NotFound):
            await n.count("never")


async def test_transactions_conflict_where_they_must(db: Any, n: Any) -> None:
    with trio.fail_after(BOUND_S):
        # Two that store different documents do not.
        async with db.transaction() as one:
            await one.namespaces.upsert("cases", [document("one", year=1)])
            async with db.transaction() as other:
                await other.namespaces.upsert("cases", [document("other", year=1)])
            await one.namespaces.patch("cases", [{"id": 1, "attributes": {"year": 1}}])
        assert await n.count("cases", {"year": 1}) == 3
        # One that changes what another one has read does.
        with pytest.raises(TransactionConflict):
            async with db.transaction() as one:
                hits = await one.namespaces.query("cases", vector=[1, 0, 0], top_k=1)
                await n.upsert("cases", [document("between", (0, 0, 1))])
                await one.namespaces.patch(
                    "cases", [{"id": hits[0].id, "attributes": {"title": "best"}}]
                )

        async def count_up(txn: Any) -> None:
            (found,) = await txn.namespaces.get("cases", [5])
            year = found.attributes["year"] + 1
            await txn.namespaces.patch("cases", [{"id": 5, "attributes": {"year": year}}])

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(db.run_transaction, count_up)
        assert (await n.get("cases", [5]))[0].attributes["year"] == 2024


async def test_changes_are_told(db: Any, n: Any) -> None:
    with trio.fail_after(BOUND_S):
        async with db.snapshot() as start:
            position = start.position
        async with db.watch(from_lsn=position, collection="cases") as feed:
            await n.upsert("cases", [document("x"), document(7)])
            await n.delete("cases", ["x"])
            await n.update_schema("cases", {"attributes": {"more": "int"}})
            await n.copy("cases", "copied")
            await n.drop("cases")
            seen = []
            async for change in feed:
                assert (change.service, change.collection) == ("namespaces", "cases")
                seen.append((change.entity, change.kind, change.entity_id))
                if change.kind == "delete" and change.entity == "namespace":
                    break
        assert seen == [
            ("document", "put", "x"),
            ("document", "put", "7"),
            ("document", "delete", "x"),
            ("namespace", "put", None),
            ("namespace", "delete", None),
        ]


async def test_a_copy_is_one_state(n: Any) -> None:
    with trio.fail_after(BOUND_S):
        copied = await n.copy("cases", "copied")
        assert copied.name == "copied"
        assert copied.schema == (await n.describe("cases")).schema
        await n.delete("cases", filter={})
        assert ids(await n.query("copied", vector=[1, 0, 0])) == [1, 2, "four", "three"]
        await n.upsert("copied", [document(1, (0, 0, 1))])
        assert ids(await n.query("copied", vector=[0, 0, 1], top_k=2)) == ["four", 1]
        with pytest.raises(AlreadyExists):
            await n.copy("cases", "copied")
        with pytest.raises(NotFound):
            await n.copy("none", "other")
        assert [each.name for each in await n.list()] == ["cases", "copied"]


async def test_filters_as_deep_as_the_language_allows(db: Any, n: Any) -> None:
    """Whatever reads a filter calls itself level by level, on every face's stack."""
    filter: Any = {"year": 2021}
    for level in range(249):
        filter = {("$or", "$and")[level % 2]: [filter, {"year": 2021}]}
    with trio.fail_after(BOUND_S):
        assert await n.count("cases", filter) == 2
        assert ids(await n.query("cases", vector=[1, 0, 0], filter=filter)) == [1]
        assert ids(await n.query("cases", text="one", filter=filter)) == [1]
        assert (await n.explain("cases", vector=[1, 0, 0], filter=filter)).allowed == 2
        async with db.transaction() as txn:
            assert ids(await txn.namespaces.query("cases", filter=filter)) == [1, 5]
        with pytest.raises(InvalidArgument, match="250 levels"):
            await n.count("cases", {"$not": filter})
        assert await n.delete("cases", filter) == 2
