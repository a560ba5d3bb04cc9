"""What is stored is what was given, or it is refused: values of JSON through every face.

The encoders of msgpack take sets, dates and more, and turn them into something else. A client must
not: what an embedded store refuses, it refuses before it sends it, with the same words.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import OrderedDict, deque
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import numpy as np
import pytest
import trio

from treestore.errors import InvalidArgument
from treestore.model.metadata import Evidence, TrajectoryStep


class Marked(str):
    """A string that says something else of itself, as those of template engines do."""

    def __str__(self) -> str:
        return "something else"


class Measure(float):
    """A number with a unit, say."""

    def __float__(self) -> float:
        return -1.0


class Count(int):
    """A whole number of a kind of its own."""

    def __int__(self) -> int:
        return -1


class Colour(enum.Enum):
    """Not a string, though its value is one."""

    RED = "red"


class Level(enum.IntEnum):
    """A whole number."""

    HIGH = 3


@dataclasses.dataclass
class Plain:
    """Not a dict."""

    a: int = 1


@attrs.frozen
class Frozen:
    """Not a dict either."""

    a: int = 1


class Row(dict[str, Any]):
    """A dict."""


NOT_JSON = {
    "set": {1},
    "frozenset": frozenset([1]),
    "deque": deque([1]),
    "generator": (item for item in [1]),
    "dict_keys": {"a": 1}.keys(),
    "bytes": b"x",
    "Decimal": Decimal("1.5"),
    "UUID": UUID(int=7),
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "datetime without a zone": datetime(2026, 1, 1),
    "date": date(2026, 1, 1),
    "timedelta": timedelta(days=1),
    "Colour": Colour.RED,
    "Plain": Plain(),
    "Frozen": Frozen(),
    "object": object(),
}

LIKE_JSON: dict[str, tuple[Any, Any]] = {
    "tuple": ((1, (2,)), [1, [2]]),
    "OrderedDict": (OrderedDict(a=1), {"a": 1}),
    "Row": (Row(a=1), {"a": 1}),
    "Marked": (Marked("a < b"), "a < b"),
    "Marked as a name": ({Marked("name"): 1}, {"name": 1}),
    "Measure": (Measure(1.5), 1.5),
    "Measure of -0.0": (Measure(-0.0), -0.0),
    "Count": (Count(7), 7),
    "Level": (Level.HIGH, 3),
    "True": (True, True),
}


def refused(kind: str, where: str) -> Any:
    """The error that says what lies where."""
    words = rf"^{where} holds a value of type {kind.split()[0]}; it is made of strings"
    return pytest.raises(InvalidArgument, match=words)


@pytest.mark.parametrize("kind", NOT_JSON)
async def test_what_is_no_json_is_refused_before_it_is_sent(db: Any, kind: str) -> None:
    value = NOT_JSON[kind]
    with trio.fail_after(30):
        await db.prompts.store("prompt", "text")
        with refused(kind, "result"):
            await db.metadata.store_tool_result("case", "tool", value)
        with refused(kind, "arguments"):
            await db.metadata.store_tool_result("case", "tool", 1, arguments={"deep": [[value]]})
        with refused(kind, "metadata"):
            await db.metadata.store_tool_result("case", "tool", 1, metadata={"a": value})
        with refused(kind, "value"):
            await db.metadata.set("patient", "1", "key", value)
        with refused(kind, r"steps\[1\].observation"):
            await db.metadata.store_trajectory("case", [{}, {"observation": value}])
        with refused(kind, r"steps\[0\].action"):
            await db.metadata.store_trajectory(
                "case", [TrajectoryStep(step_number=1, action=[value])]
            )
        with refused(kind, r"evidence\[0\].metadata"):
            await db.metadata.store_contradiction("case", "c", [Evidence(metadata={"a": value})])
        with refused(kind, "metadata"):
            await db.metadata.store_cross_reference(
                "p", "a", "p", "b", "cites", metadata={"a": value}
            )
        with refused(kind, "response"):
            await db.prompts.record_usage("prompt", 1, "case", response=value)
        with refused(kind, "filled_variables"):
            await db.prompts.record_usage("prompt", 1, "case", filled_variables={"a": value})
        with refused(kind, "tool_schemas"):
            await db.prompts.store("prompt", "text", tool_schemas=[value])
        with refused(kind, r"(steps\[0\]\.)?observation"):
            await db.agents.record_call("case", "tool", 1, observation=value)
        with refused(kind, "metadata"):
            await db.versions.create("p", "1", effective_from="2024-01-01", metadata={"a": value})
        with refused(kind, "metadata"):
            await db.documents.store("p", "1", [{"title": "A"}], metadata={"a": value})
        with pytest.raises(InvalidArgument, match=f"a value of type {kind.split()[0]};"):
            await db.documents.store("p", "1", [{"title": "A", "note": value}])
        assert (await db.metadata.get_tool_results("case")).items == []
        assert (await db.metadata.get_trajectories("case")).items == []
        assert (await db.documents.list()).items == []
        assert [prompt.latest_version for prompt in await db.prompts.list()] == [1]
        assert (await db.prompts.get_usage()).items == []


@pytest.mark.parametrize("kind", NOT_JSON)
async def test_what_is_no_json_is_refused_in_edits(db: Any, kind: str) -> None:
    value = NOT_JSON[kind]
    with trio.fail_after(30):
        await db.documents.store("p", "1", [{"node_id": "a", "title": "A"}])
        with pytest.raises(InvalidArgument, match=f"a value of type {kind.split()[0]};"):
            await db.documents.insert_nodes("p", [{"node_id": "b", "title": "B", "note": value}])
        with refused(kind, "metadata"):
            await db.documents.update_node("p", "a", metadata={"a": value})
        assert [node.node_id for node in await db.documents.get_subtree("p")] == ["a"]


@pytest.mark.parametrize("kind", LIKE_JSON)
async def test_what_is_like_json_is_stored_as_that(db: Any, kind: str) -> None:
    given, stored = LIKE_JSON[kind]
    with trio.fail_after(30):
        result = await db.metadata.store_tool_result("case", "tool", given, arguments=[given])
        assert (result.result, result.arguments) == (stored, [stored])
        assert repr(result.result) == repr(stored)
        await db.metadata.set("patient", "1", "key", {"inside": given})
        assert await db.metadata.get("patient", "1", "key") == {"inside": stored}
        await db.documents.store("p", "1", [{"title": "A", "note": given}])
        (node,) = await db.documents.get_subtree("p")
        assert node.metadata == {"note": stored}
        await db.collections.create("things")
        id = await db.collections.insert("things", {"thing": given})
        assert await db.collections.get("things", id) == {"_id": id, "thing": stored}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), [float("-inf")]])
async def test_numbers_without_a_name_in_json_are_refused(db: Any, number: Any) -> None:
    with trio.fail_after(30):
        with pytest.raises(InvalidArgument, match="which JSON has no number for"):
            await db.documents.store("p", "1", [{"title": "A", "note": number}])
        with pytest.raises(InvalidArgument, match="which JSON has no number for"):
            await db.documents.store("p", "1", [{"title": "A"}], metadata={"a": number})
        with pytest.raises(InvalidArgument, match="which JSON has no number for"):
            await db.versions.create("p", "1", effective_from="2024-01-01", metadata={"a": number})


async def test_a_value_that_holds_itself_is_refused(db: Any) -> None:
    endless: list[Any] = []
    endless += [endless, endless]
    with trio.fail_after(30):
        with pytest.raises(InvalidArgument, match="nested more than 100 levels deep"):
            await db.metadata.store_tool_result("case", "tool", endless)
        with pytest.raises(InvalidArgument, match="nested"):
            await db.documents.store("p", "1", [{"node_id": "a", "title": "A", "x": endless}])


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ('direction is "both", "out" or "in"', ("metadata", "get_cross_references", "p", "a")),
        ("severity is ", ("metadata", "store_contradiction", "c", "k", [{"snippet": "s"}])),
        ("mode is ", ("documents", "search", "word")),
        ("consistency is ", ("documents", "search", "word")),
    ],
)
async def test_a_wrong_word_is_answered_with_the_right_ones(
    db: Any, words: str, call: tuple[str, ...]
) -> None:
    service, method, *arguments = call
    name = words.split()[0]
    with trio.fail_after(30), pytest.raises(InvalidArgument, match=f"^{words}.* not 'upwards'"):
        await getattr(getattr(db, service), method)(*arguments, **{name: "upwards"})


NO_VALUE = ("Decimal", "timedelta", "Colour", "Plain", "Frozen", "object")


@pytest.mark.parametrize("kind", NO_VALUE)
async def test_what_would_become_a_string_is_neither_stored_nor_compared(
    db: Any, kind: str
) -> None:
    value = NOT_JSON[kind]
    of_type = rf"value.* {kind}\b"
    with trio.fail_after(30):
        await db.collections.insert("things", {"_id": "a", "price": "1.5"})
        for document in ({"price": value}, {"deep": [{"price": value}]}):
            with pytest.raises(InvalidArgument, match=of_type):
                await db.collections.insert("things", document)
            with pytest.raises(InvalidArgument, match=of_type):
                await db.collections.update("things", "a", {"$set": document})
        for condition in (value, {"$gt": value}, {"$in": [value]}):
            with pytest.raises(InvalidArgument, match=rf"{kind}\b"):
                await db.collections.find("things", {"price": condition})
            with pytest.raises(InvalidArgument, match=rf"{kind}\b"):
                await db.metadata.find("thing", {"price": condition})
        with pytest.raises(InvalidArgument, match=kind):
            await db.metadata.store_trajectory("case", [{"thought": value}])
        with pytest.raises(InvalidArgument, match=kind):
            await db.documents.search(value)
        with pytest.raises(InvalidArgument, match=kind):
            await db.collections.get("things", value)
        assert await db.collections.count("things") == 1


async def test_numbers_of_numpy_are_numbers(db: Any) -> None:
    """In documents of collections and namespaces, as programs that calculate have them."""
    given = {"whole": np.int64(3), "part": np.float32(0.5), "yes": np.bool_(True)}
    plain = {"whole": 3, "part": 0.5, "yes": True}
    with trio.fail_after(30):
        await db.collections.insert("things", {"_id": "a", **given})
        assert await db.collections.get("things", "a") == {"_id": "a", **plain}
        with pytest.raises(InvalidArgument, match="datetime64"):
            await db.collections.insert("things", {"when": np.datetime64("2026-01-01", "ns")})
        with pytest.raises(InvalidArgument, match="ndarray"):
            await db.collections.insert("things", {"vector": np.zeros(2)})
        attributes = {"whole": {"type": "int"}, "part": {"type": "float"}}
        await db.namespaces.create("space", {"vector": {"dim": 2}, "attributes": attributes})
        numbers = {name: given[name] for name in attributes}
        document = {"id": 1, "vector": np.ones(2), "attributes": numbers}
        await db.namespaces.upsert("space", [document])
        many = [document | {"id": number, "vector": np.full(2, number)} for number in range(1, 4)]
        assert (await db.namespaces.bulk("space", many)).stored == 3
        (found,) = await db.namespaces.get("space", [1])
        assert dict(found.attributes) == {"whole": 3, "part": 0.5}


async def test_a_uuid_is_the_string_that_it_is(db: Any) -> None:
    known = UUID(int=7)
    with trio.fail_after(30):
        await db.collections.insert("things", {"_id": "a", "owner": known})
        assert await db.collections.get("things", "a") == {"_id": "a", "owner": str(known)}
        (found,) = (await db.collections.find("things", {"owner": known})).items
        assert found["_id"] == "a"
        schema = {"attributes": {"owner": {"type": "uuid"}, "size": {"type": "int"}}}
        await db.namespaces.create("space", schema)
        await db.namespaces.upsert("space", [{"id": 1, "attributes": {"owner": known}}])
        (hit,) = await db.namespaces.query("space", filter={"owner": known})
        assert hit.attributes["owner"] == str(known)
        with pytest.raises(InvalidArgument, match="UUID"):
            await db.documents.get(known)
