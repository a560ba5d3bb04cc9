"""Queries of collections through every face."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import trio

from treestore.errors import InvalidArgument, NotFound
from treestore.model.plans import Explanation, Group

PAGE = Path(__file__).parents[2] / "docs" / "collection-queries.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


PEOPLE = [json.loads(line) for line in blocks("json")[0].splitlines()]


async def people(db: Any, *indexes: Any) -> None:
    await db.collections.create("people", indexes=list(indexes))
    await db.collections.insert_many("people", PEOPLE)


def ids(documents: Any) -> list[str]:
    return [each.get("_id", each.get("id")) for each in documents]


@pytest.mark.parametrize("indexes", [(), ("age", "city", "tags", ["city", "age"], "pets.kind")])
async def test_the_examples_of_the_page(db: Any, indexes: Any) -> None:
    lines = [line for line in blocks("python")[0].splitlines() if line]
    assert len(lines) > 15
    with trio.fail_after(60):
        await people(db, *indexes)
        for line in lines:
            call, wanted = (part.strip() for part in line.rsplit("#", 1))
            tree: Any = ast.parse(call, mode="eval").body
            args = [ast.literal_eval(each) for each in tree.args]
            kwargs = {each.arg: ast.literal_eval(each.value) for each in tree.keywords}
            answer = await getattr(db.collections, tree.func.id)("people", *args, **kwargs)
            if tree.func.id == "find":
                assert ids(answer) == wanted.split(), line
            else:
                assert answer == json.loads(wanted), line


async def test_pages_are_stable_while_others_write(db: Any) -> None:
    with trio.fail_after(60):
        await db.collections.create("c", indexes=["n"])
        await db.collections.insert_many("c", [{"_id": f"{n:03}", "n": n % 7} for n in range(60)])
        wanted = [f"{n:03}" for n in sorted(range(60), key=lambda n: (n % 7, n))]
        found: list[str] = []
        cursor = None
        for step in range(100):
            page = await db.collections.find("c", sort="n", limit=7, cursor=cursor)
            found += ids(page)
            cursor = page.next_cursor
            if cursor is None:
                break
            # Before, behind, and in place of what was given.
            await db.collections.insert("c", {"_id": f"a{step}", "n": -1})
            await db.collections.delete("c", found[-1])
            if step == 3:
                await db.collections.drop_index("c", "n")
        assert found == wanted


async def test_inside_a_transaction_and_on_a_snapshot(db: Any) -> None:
    with trio.fail_after(60):
        await people(db, "city")
        async with db.snapshot() as snapshot, db.transaction() as txn:
            await txn.collections.insert("people", {"_id": "fay", "city": "Oslo"})
            await txn.kv.put(b"k", b"v")
            assert ids(await txn.collections.find("people", {"city": "Oslo"})) == ["bob", "fay"]
            assert await txn.collections.count("people", {"city": "Oslo"}) == 2
            assert [d async for d in txn.collections.scan("people", {"city": "Rome"})] == [
                PEOPLE[4]
            ]
            assert await snapshot.collections.count("people", {"city": "Oslo"}) == 1
        assert await db.collections.count("people", {"city": "Oslo"}) == 2


async def test_fields_choose(db: Any) -> None:
    with trio.fail_after(60):
        await people(db)

        async def chosen(fields: Any, id: str) -> Any:
            (found,) = await db.collections.find("people", {"_id": id}, fields=fields)
            return found

        assert await chosen(["city"], "ann") == {"_id": "ann", "city": "Tartu"}
        assert await chosen({"city": 1, "_id": 0}, "ann") == {"city": "Tartu"}
        assert await chosen(["city"], "cat") == {"id": "cat", "city": "Tartu"}
        assert await chosen(["pets.kind"], "eve") == {"_id": "eve", "pets": [{"kind": "dog"}]}
        assert await chosen(["address.floor"], "ann") == {"_id": "ann", "address": {}}
        assert await chosen(["-tags", "-address", "-age"], "ann") == {"_id": "ann", "city": "Tartu"}
        assert await chosen({"pets.kind": 0, "_id": 0, "tags": False}, "eve") == {
            "city": "Rome",
            "pets": [{}],
        }
        assert await chosen({"_id": 1}, "cat") == {"id": "cat"}


async def test_groups(db: Any) -> None:
    with trio.fail_after(60):
        await people(db)
        wanted = {
            "documents": {"$count": {}},
            "aged": {"$count": "age"},
            "sum": {"$sum": "age"},
            "mean": {"$avg": "age"},
            "least": {"$min": "age"},
            "greatest": {"$max": "age"},
        }
        found = await db.collections.group("people", "city", wanted)
        assert [each.by for each in found] == [{"city": c} for c in ("Oslo", "Rome", "Tartu")]
        assert found[2].values == {
            "documents": 3,
            "aged": 3,
            "sum": 31,
            "mean": 31.0,
            "least": 31,
            "greatest": "31",
        }
        assert found[1].values["mean"] is None
        assert await db.collections.group("people", None, {"n": "count"}, {"age": 31}) == [
            Group(by={}, values={"n": 2})
        ]


async def test_explain_tells_what_was_done(db: Any) -> None:
    with trio.fail_after(60):
        await db.collections.create("c", indexes=["n", ["m", "n"]])
        documents = [{"_id": f"{n:04}", "n": n % 50, "m": n % 3} for n in range(2000)]
        await db.collections.insert_many("c", documents)
        told = await db.collections.explain("c", {"n": 7})
        assert isinstance(told, Explanation)
        assert told.plan.access == "index"
        assert told.plan.indexes == ("n",)
        assert (told.plan.check, told.plan.sort) == (False, False)
        assert (told.rows, told.entries_examined, told.documents_examined) == (40, 40, 40)
        assert 20 <= told.plan.estimated_rows <= 80
        assert {step.access for step in told.rejected} == {"scan"}
        told = await db.collections.explain("c", {"m": 1}, sort="-n", limit=3)
        assert (told.plan.indexes, told.plan.reverse, told.plan.sort) == (("m,n",), True, False)
        assert told.documents_examined < 50
        told = await db.collections.explain("c", {"x": 5})
        assert (told.plan.access, told.rows, told.documents_examined) == ("scan", 0, 2000)


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "says"),
    [
        ("find", ({"a": {"$foo": 1}},), {}, "foo"),
        ("find", (), {"sort": {"a": 2}}, "direction"),
        ("find", (), {"sort": ["a", "a"]}, "twice"),
        ("find", (), {"sort": "a..b"}, "no path"),
        ("find", (), {"sort": [f"f{n}" for n in range(9)]}, "at most 8"),
        ("find", (), {"limit": 0}, "limit"),
        ("find", (), {"limit": 10_001}, "limit"),
        ("find", (), {"offset": -1}, "offset"),
        ("find", (), {"cursor": "nonsense"}, "cursor"),
        ("find", (), {"fields": ["a", "-b"]}, "either|leave"),
        ("find", (), {"fields": {"a": 5}}, "1 to give"),
        ("distinct", ("$a",), {}, "path"),
        ("group", ("a", {"x": {"$median": "y"}}), {}, "median"),
        ("group", ("a", {"x": {"$sum": {}}}), {}, "path"),
        ("explain", (), {"limit": 0}, "limit"),
    ],
)
async def test_what_is_wrong_is_refused(
    db: Any, method: str, args: Any, kwargs: Any, says: str
) -> None:
    with trio.fail_after(60):
        await db.collections.create("c")
        with pytest.raises(InvalidArgument, match=says):
            await getattr(db.collections, method)("c", *args, **kwargs)
        rest = args if method in ("distinct", "group") else ()
        if rest and method == "distinct":
            rest = ("a",)
        elif rest:
            rest = ("a", {})
        with pytest.raises(NotFound):
            await getattr(db.collections, method)("nowhere", *rest)


async def test_a_cursor_belongs_to_its_query(db: Any) -> None:
    with trio.fail_after(60):
        await people(db)
        cursor = (await db.collections.find("people", limit=2)).next_cursor
        assert ids(await db.collections.find("people", cursor=cursor, offset=1)) == [
            "cat",
            "dan",
            "eve",
        ]
        for other in ({"sort": "age"}, {"filter": {"age": 5}}):
            with pytest.raises(InvalidArgument, match="cursor"):
                await db.collections.find("people", cursor=cursor, **other)
