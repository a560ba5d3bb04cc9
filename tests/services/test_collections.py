"""Collections, embedded and through every client."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from treestore.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    TransactionConflict,
)
from treestore.model.collections import UpdateResult

BOUND_S = 60


async def test_documents_live_in_collections(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        created = await c.create("cases", indexes=["year", ["court", "year"]])
        assert [index.name for index in created.indexes] == ["year", "court,year"]
        assert all(index.state == "ready" for index in created.indexes)
        with pytest.raises(AlreadyExists):
            await c.create("cases")
        id = await c.insert("cases", {"court": "Tartu", "year": 2024})
        assert await c.get("cases", id) == {"_id": id, "court": "Tartu", "year": 2024}
        assert list(await c.get("cases", id)) == ["_id", "court", "year"]
        assert await c.insert("cases", {"id": "own", "n": 1}) == "own"
        assert await c.get("cases", "own") == {"id": "own", "n": 1}
        assert await c.insert("cases", {"_id": "mine", "id": "other"}) == "mine"
        numbered = await c.insert("cases", {"id": 5})
        assert await c.get("cases", numbered) == {"_id": numbered, "id": 5}
        with pytest.raises(AlreadyExists) as caught:
            await c.insert("cases", {"_id": "own"})
        assert caught.value.details["id"] == "own"
        assert await c.delete("cases", "own") is True
        assert await c.delete("cases", "own") is False
        with pytest.raises(NotFound):
            await c.get("cases", "own")
        assert await c.describe("cases") == created
        assert await c.drop("cases") is True
        assert await c.drop("cases") is False
        with pytest.raises(NotFound):
            await c.get("cases", id)


async def test_assigned_ids_order_as_insertions_do(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        ids = [await c.insert("log", {"n": n}) for n in range(5)]
        ids += await c.insert_many("log", [{"n": n} for n in range(5, 50)])
        assert ids == sorted(set(ids))
        assert [(await c.get("log", id))["n"] for id in ids[::7]] == list(range(0, 50, 7))
        # What looks like an assigned id does not stand in the way.
        await c.insert("log", {"_id": ids[-1] + "x"})
        assert await c.insert("log", {}) > ids[-1]


async def test_collections_are_apart(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        for name in ("a", "a\0", "ab", "ü"):
            await c.create(name, indexes=[{"fields": "x", "unique": True}])
            await c.insert(name, {"_id": "one", "x": 1, "of": name})
        await c.delete_many("a", {})
        await c.insert("a", {"_id": "two", "x": 1})
        await c.drop("ab")
        assert (await c.get("a\0", "one"))["of"] == "a\0"
        assert (await c.get("ü", "one"))["of"] == "ü"
        with pytest.raises(NotFound):
            await c.get("ab", "one")
        await c.create("ab")
        with pytest.raises(NotFound):
            await c.get("ab", "one")
        page = await c.list(limit=2)
        assert [each.name for each in page] == ["a", "a\0"]
        page = await c.list(limit=2, cursor=page.next_cursor)
        assert [each.name for each in page] == ["ab", "ü"]
        assert page.next_cursor is None
        assert [each.name for each in await c.list(prefix="a")] == ["a", "a\0", "ab"]
        with pytest.raises(InvalidArgument):
            await c.list(prefix="a", cursor="AAAAAAAAAAAA")


async def test_what_is_stored_comes_back_as_it_was(db: Any) -> None:
    c = db.collections
    document = {
        "_id": "x",
        "": "empty name",
        "dotted.name": {"$deep": [1, 2.5, None, True, {"z": [], "a": {}}]},
        "big": [2**64 - 1, -(2**63), 1e300, -0.0],
        "text": "\0ü𝄞" * 10,
        "long": "x" * 200_000,
    }
    with trio.fail_after(BOUND_S):
        await c.insert("things", document)
        found = await c.get("things", "x")
        assert found == document
        assert list(found) == list(document)
        assert str(found["big"][3]) == "-0.0"


async def test_replace_and_update(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.insert("things", {"_id": "x", "a": {"b": 1, "c": 2}, "n": 1})
        assert await c.update("things", "x", {"a": {"b": None, "d": 3}, "n": 2}) == {
            "_id": "x",
            "a": {"c": 2, "d": 3},
            "n": 2,
        }
        changed = await c.update(
            "things",
            "x",
            {"$set": {"a.e": 5}, "$unset": {"a.c": 1}, "$inc": {"n": 3}, "$push": {"tags": "t"}},
        )
        assert changed == {"_id": "x", "a": {"d": 3, "e": 5}, "n": 5, "tags": ["t"]}
        assert await c.get("things", "x") == changed
        assert (await c.update("things", "x", {"$pull": {"tags": "t"}}))["tags"] == []
        assert await c.replace("things", "x", {"only": 1}) is False
        assert await c.get("things", "x") == {"_id": "x", "only": 1}
        assert await c.replace("new", "y", {"id": "y", "v": 1}, upsert=True) is True
        assert await c.get("new", "y") == {"id": "y", "v": 1}
        for patch in ({"_id": "z"}, {"_id": None}, {"$set": {"_id": "z"}}, {"$unset": {"_id": 1}}):
            with pytest.raises(InvalidArgument):
                await c.update("things", "x", patch)
        with pytest.raises(InvalidArgument):
            await c.update("new", "y", {"id": "z"})
        with pytest.raises(InvalidArgument):
            await c.replace("things", "x", {"_id": "y"})
        for call in (
            c.replace("things", "nobody", {}),
            c.update("things", "nobody", {"a": 1}),
            c.replace("nowhere", "x", {}),
            c.update("nowhere", "x", {"a": 1}),
            c.delete("nowhere", "x"),
            c.describe("nowhere"),
            c.delete_many("nowhere", {}),
            c.update_many("nowhere", {}, {"a": 1}),
            c.drop_index("nowhere", "a"),
            c.create_index("nowhere", "a"),
            c.rebuild_index("things", "a"),
        ):
            with pytest.raises(NotFound):
                await call


async def test_many_at_once(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.create("n", indexes=["n", "even"])
        documents = [{"_id": f"{n:04}", "n": n, "even": n % 2 == 0} for n in range(500)]
        assert await c.insert_many("n", documents) == [each["_id"] for each in documents]
        assert await c.insert_many("n", []) == []
        result = await c.update_many("n", {"even": True, "n": {"$lt": 100}}, {"$inc": {"n": 1000}})
        assert result == UpdateResult(matched=50, modified=50)
        result = await c.update_many("n", {"n": {"$gte": 1000}}, {"even": True})
        assert result == UpdateResult(matched=50, modified=0)
        assert await c.delete_many("n", {"even": False}) == 250
        with pytest.raises(NotFound):
            await c.get("n", "0001")
        assert (await c.get("n", "0002"))["n"] == 1002
        assert await c.delete_many("n", {}) == 250
        with pytest.raises(NotFound):
            await c.get("n", "0002")


async def test_insert_many_stores_all_or_nothing(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.create("n", indexes=[{"fields": "k", "unique": True}])
        await c.insert("n", {"_id": "old", "k": 1})
        for last, error, index in (
            ({"_id": "old"}, AlreadyExists, 2),
            ({"_id": "new"}, AlreadyExists, 2),
            ({"_id": 7}, InvalidArgument, 2),
            ({"$set": {}}, InvalidArgument, 2),
            ({"k": 1}, AlreadyExists, None),
            ({"k": 2}, AlreadyExists, None),
        ):
            with pytest.raises(error) as caught:
                await c.insert_many("n", [{"_id": "new", "k": 2}, {"_id": "b", "k": 3}, last])
            assert caught.value.details.get("index") == index
            for id in ("new", "b"):
                with pytest.raises(NotFound):
                    await c.get("n", id)
        # A collection that an insertion would have made is not there either.
        with pytest.raises(InvalidArgument):
            await c.insert("never", {"_id": ""})
        with pytest.raises(NotFound):
            await c.describe("never")


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "text",
        5,
        {"$set": {"a": 1}},
        {"_id": 5},
        {"_id": None},
        {"_id": ""},
        {"_id": "x" * 501},
        {"id": ""},
        {"a": float("nan")},
        {"a": [1, math.inf]},
        {"a": 2**64},
        {"a": b"bytes"},
        {"a": {5: 6}},
        {"a": "\ud800"},
        {"\ud800": 1},
        {"_id": "\ud800"},
        pytest.param({"a": object()}, id="object"),
        {5: 6},
    ],
    ids=lambda value: ascii(value)[:30],
)
async def test_bad_documents(db: Any, wrong: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.insert("things", {"_id": "x"})
        calls: list[Any] = [
            lambda: c.insert("things", wrong),
            lambda: c.insert_many("things", [{"_id": "first"}, wrong]),
        ]
        if not (isinstance(wrong, dict) and "_id" in wrong) and wrong != {"id": ""}:
            calls.append(lambda: c.replace("things", "x", wrong))
        for call in calls:
            with pytest.raises((InvalidArgument, TypeError)):
                await call()
        with pytest.raises(NotFound):
            await c.get("things", "first")
        assert await c.get("things", "x") == {"_id": "x"}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


async def test_limits_of_documents(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.insert("things", {"_id": "deep", **nested(100)})
        with pytest.raises(InvalidArgument, match="100 levels"):
            await c.insert("things", nested(101))
        size = (16 << 20) - 21
        await c.insert("things", {"_id": "large", "text": "x" * size})
        assert len((await c.get("things", "large"))["text"]) == size
        with pytest.raises(InvalidArgument, match="16777216"):
            await c.insert("things", {"text": "x" * (16 << 20)})
        await c.insert("things", {"_id": "x" * 500})
        assert await c.get("things", "x" * 500)


@pytest.mark.parametrize("name", ["", "x" * 201, "\ud800", 5, None, b"x", ["a"]])
async def test_bad_names(db: Any, name: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        for call in (
            lambda: c.create(name),
            lambda: c.drop(name),
            lambda: c.insert(name, {}),
            lambda: c.get(name, "x"),
            lambda: c.create_index(name, "a"),
        ):
            with pytest.raises(InvalidArgument):
                await call()
        await c.create("c")
        if name != "x" * 201:
            with pytest.raises(InvalidArgument):
                await c.get("c", name)


BAD_FIELDS = [
    "",
    ".",
    "a.",
    "a..b",
    "$a",
    "a.$b",
    "_id",
    "_id.x",
    [],
    ["a", "a"],
    5,
    None,
    "\ud800",
]


@pytest.mark.parametrize("fields", [*BAD_FIELDS, ["a"] * 9, "a." * 600 + "a", [5]])
async def test_bad_fields_of_indexes(db: Any, fields: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        with pytest.raises(InvalidArgument):
            await c.create("c", indexes=[fields])
        with pytest.raises(InvalidArgument):
            await c.create("c", indexes=[{"fields": fields}])
        await c.create("c")
        with pytest.raises(InvalidArgument):
            await c.create_index("c", fields)
        assert (await c.describe("c")).indexes == ()


async def test_bad_indexes(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        for indexes in (
            [{"fields": "a", "unique": 1}],
            [{"fields": "a", "sparse": "yes"}],
            [{"fields": "a", "name": ""}],
            [{"fields": "a", "name": 5}],
            [{"fields": "a", "kind": "hash"}],
            [{"unique": True}],
            ["a", {"fields": ["a"]}],
            "a",
            5,
            [f"f{n}" for n in range(65)],
        ):
            with pytest.raises(InvalidArgument):
                await c.create("c", indexes=indexes)
        with pytest.raises(NotFound):
            await c.describe("c")


async def test_unique_indexes(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.create("u", indexes=[{"fields": "k", "unique": True}])
        await c.create("s", indexes=[{"fields": "k", "unique": True, "sparse": True}])
        await c.insert("u", {"_id": "a", "k": 1})
        await c.insert("u", {"_id": "b", "k": "1"})
        await c.insert("u", {"_id": "c", "k": True})
        await c.insert("u", {"_id": "d", "k": [5, 6, 6]})
        await c.insert("u", {"_id": "none"})
        for k in (1.0, "1", True, 5, [6], [7, "1"], None):
            with pytest.raises(AlreadyExists) as caught:
                await c.insert("u", {"_id": "new", "k": k})
            assert caught.value.details["index_name"] == "k"
            with pytest.raises(NotFound):
                await c.get("u", "new")
        with pytest.raises(AlreadyExists):
            await c.update("u", "b", {"k": 1})
        with pytest.raises(AlreadyExists):
            await c.replace("u", "b", {"k": [8, 5]})
        assert await c.get("u", "b") == {"_id": "b", "k": "1"}
        with pytest.raises(AlreadyExists):
            await c.update_many("u", {}, {"k": 9})
        assert await c.get("u", "a") == {"_id": "a", "k": 1}
        # What one document gives up in a transaction another one may take.
        await c.update("u", "a", {"k": 2})
        await c.update("u", "b", {"k": 1})
        await c.insert("s", {"_id": "a"})
        await c.insert("s", {"_id": "b"})
        await c.insert("s", {"_id": "c", "k": None})
        with pytest.raises(AlreadyExists):
            await c.insert("s", {"_id": "d", "k": None})


async def test_unique_values_that_do_not_fit_a_key(db: Any) -> None:
    c = db.collections
    long = "x" * 5000
    with trio.fail_after(BOUND_S):
        await c.create("u", indexes=[{"fields": ["k", "l"], "unique": True}])
        await c.insert("u", {"_id": "a", "k": long + "a", "l": 1})
        await c.insert("u", {"_id": "b", "k": long + "b", "l": 1})
        await c.insert_many("u", [{"k": long + "c", "l": 1}, {"k": long + "d", "l": 1}])
        with pytest.raises(AlreadyExists):
            await c.insert("u", {"_id": "new", "k": long + "b", "l": 1})
        with pytest.raises(AlreadyExists):
            await c.insert_many("u", [{"k": long + "e", "l": 1}, {"k": long + "e", "l": 1}])
        # The entry stays the same, the value does not.
        with pytest.raises(AlreadyExists):
            await c.update("u", "a", {"k": long + "b"})
        await c.update("u", "a", {"k": long + "z"})
        await c.insert("u", {"_id": "new", "k": long + "a", "l": 1})


async def test_lists_in_indexes(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.create("l", indexes=[["a", "b"], "c"])
        await c.insert("l", {"_id": "x", "a": [1, 2], "b": 1, "c": list(range(500))})
        multikey = {index.name: index.multikey for index in (await c.describe("l")).indexes}
        assert multikey == {"a,b": True, "c": True}
        with pytest.raises(InvalidArgument, match="different lists"):
            await c.insert("l", {"a": [1], "b": []})
        with pytest.raises(InvalidArgument, match="entries"):
            await c.insert("l", {"c": list(range(20_000))})
        await c.insert("l", {"_id": "y", "a": [], "b": 5, "c": []})
        await c.update("l", "x", {"a": 1, "b": [1, 2], "c": None})
        assert await c.delete_many("l", {"b": 2}) == 1


async def test_an_index_is_created_over_what_is_there(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.insert_many("n", [{"_id": f"{n:04}", "n": n, "m": n % 3} for n in range(900)])
        index = await c.create_index("n", "n", unique=True)
        assert (index.name, index.state, index.unique) == ("n", "ready", True)
        assert await c.create_index("n", ["n"], unique=True) == index
        with pytest.raises(AlreadyExists, match="another index"):
            await c.create_index("n", "n")
        named = await c.create_index("n", ["m", "n"], index_name="by m")
        assert (named.name, named.fields) == ("by m", ("m", "n"))
        with pytest.raises(AlreadyExists, match="have the same there"):
            await c.create_index("n", "m", unique=True)
        failed = (await c.describe("n")).indexes[-1]
        assert (failed.state, failed.conflict) == ("failed", True)
        assert "0000" in str(failed.error)
        await c.insert("n", {"_id": "x", "n": -1, "m": 0})
        # What failed is begun anew by asking again.
        await c.update_many("n", {"n": {"$gte": 0}}, {"$unset": {"m": 1}})
        await c.delete_many("n", {"n": {"$gte": 1}})
        assert (await c.create_index("n", "m", unique=True)).state == "ready"
        with pytest.raises(AlreadyExists):
            await c.insert("n", {"n": -2, "m": 0})
        assert (await c.rebuild_index("n", "m")).state == "ready"
        assert await c.drop_index("n", "m") is True
        assert await c.drop_index("n", "m") is False
        await c.insert("n", {"n": -2, "m": 0})


async def test_an_index_that_nobody_waits_for_is_built(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.insert_many("n", [{"n": n} for n in range(2000)])
        begun = await c.create_index("n", "n", wait=False)
        assert begun.state in ("building", "ready")
        await c.create_index("n", ["n", "m"], wait=False)
        with trio.move_on_after(0.01):
            await c.create_index("n", ["n", "m"])
        while any(  # noqa: ASYNC110 - it is told of by nothing else
            index.state != "ready" for index in (await c.describe("n")).indexes
        ):
            await trio.sleep(0.01)
        assert len((await c.describe("n")).indexes) == 2


async def test_collections_inside_transactions(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.create("a", indexes=[{"fields": "k", "unique": True}])
        async with db.transaction() as txn:
            first = await txn.collections.insert("a", {"k": 1})
            second = await txn.collections.insert("a", {"k": 2})
            assert first < second
            with pytest.raises(AlreadyExists):
                await txn.collections.insert("a", {"k": 1})
            await txn.collections.create("b", indexes=["x"])
            await txn.collections.insert_many("b", [{"_id": "one", "x": 1}])
            await txn.collections.update("b", "one", {"$inc": {"x": 1}})
            await txn.kv.put(b"too", b"1")
            with pytest.raises(NotFound):
                await c.get("b", "one")
            with pytest.raises(InvalidArgument):
                await txn.collections.create_index("b", "y")
        assert await c.get("b", "one") == {"_id": "one", "x": 2}
        with pytest.raises(KeyError):
            async with db.transaction() as txn:
                await txn.collections.drop("b")
                raise KeyError
        assert await c.get("b", "one") == {"_id": "one", "x": 2}
        async with db.snapshot() as snapshot:
            await c.delete("b", "one")
            assert await snapshot.collections.get("b", "one") == {"_id": "one", "x": 2}
            with pytest.raises(InvalidArgument):
                await snapshot.collections.insert("b", {})


async def test_transactions_that_insert_do_not_conflict(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.create("a", indexes=["k", {"fields": "u", "unique": True}])
        async with db.transaction() as one, db.transaction() as other:
            await one.collections.insert("a", {"k": 1, "u": 1})
            await other.collections.insert("a", {"k": 1, "u": 2})
        with pytest.raises(TransactionConflict):
            async with db.transaction() as late:
                await late.collections.insert("a", {"k": 1, "u": 3})
                await c.insert("a", {"k": 2, "u": 3})
        with pytest.raises(TransactionConflict):
            # Or else its document would lack an entry.
            async with db.transaction() as late:
                await late.collections.insert("a", {"k": 1, "u": 4})
                await c.create_index("a", "new")


async def test_changes_of_collections_are_watched(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        seen: list[tuple[Any, ...]] = []
        await c.create("a", indexes=["k"])
        await c.insert_many("a", [{"_id": "x", "k": 1}, {"_id": "y"}])
        await c.insert("b", {"_id": "z"})
        await c.delete("a", "x")
        await c.drop("a")
        async with db.watch(0, collection="a") as feed:
            async for change in feed:
                seen.append((change.entity, change.kind, change.entity_id))
                assert (change.service, change.collection) == ("collections", "a")
                if change.entity == "collection" and change.kind == "delete":
                    break
        assert seen == [
            ("collection", "put", None),
            ("document", "put", "x"),
            ("document", "put", "y"),
            ("document", "delete", "x"),
            ("document", "clear", None),
            ("collection", "delete", None),
        ]


async def test_concurrent_writers_lose_nothing(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.create("n", indexes=[{"fields": "k", "unique": True}, "by"])
        await c.insert("n", {"_id": "count", "n": 0, "k": "count"})
        won: list[str] = []

        async def write(writer: int) -> None:
            for n in range(10):
                await c.insert("n", {"k": f"{writer} of {n}", "by": writer})
                await c.update("n", "count", {"$inc": {"n": 1}})
                try:
                    await c.insert("n", {"_id": f"{writer} {n}", "k": f"race {n}"})
                except AlreadyExists:
                    continue
                won.append(f"race {n}")

        async with trio.open_nursery() as nursery:
            for writer in range(8):
                nursery.start_soon(write, writer)
        assert (await c.get("n", "count"))["n"] == 80
        assert sorted(won) == sorted({f"race {n}" for n in range(10)})
        assert await c.delete_many("n", {"by": {"$exists": True}}) == 80


async def test_wrong_calls_are_refused(db: Any) -> None:
    c = db.collections
    with trio.fail_after(BOUND_S):
        await c.insert("n", {"_id": "x", "a": "text"})
        calls: list[Any] = [
            lambda: c.insert_many("n", {"_id": "y"}),
            lambda: c.insert_many("n", 5),
            lambda: c.delete_many("n", None),
            lambda: c.delete_many("n", {"$bad": 1}),
            lambda: c.update_many("n", {}, None),
            lambda: c.update_many("n", [], {}),
            lambda: c.update("n", "x", {"$bad": {"a": 1}}),
            lambda: c.update("n", "x", {"$inc": {"a": 1}}),
            lambda: c.update("n", "x", {"a": float("nan")}),
            lambda: c.update("n", "x", {"a": 1, "$set": {"b": 1}}),
            lambda: c.replace("n", "x", {}, upsert=1),
            lambda: c.list(limit=0),
            lambda: c.list(prefix=5),
            lambda: c.create_index("n", "a", unique="yes"),
            lambda: c.create_index("n", "a", wait=5),
        ]
        for call in calls:
            with pytest.raises((InvalidArgument, TypeError)):
                await call()
        assert await c.drop_index("n", "nothing") is False
        assert await c.get("n", "x") == {"_id": "x", "a": "text"}
        assert (await c.describe("n")).indexes == ()
