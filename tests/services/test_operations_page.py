"""docs/planned-operations.md: its examples run over TCP; what others got wrong is right."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import treestore
from actors.database import open_database
from tests.actors.wire_tools import listening
from treestore.errors import NotFound
from treestore.stores.operation import OPERATIONS

PAGE = (Path(__file__).resolve().parents[2] / "docs/planned-operations.md").read_text("utf-8")

PLANNED = """
StoreDocument GetDocument DeleteDocument GetNode GetChildren GetSubtree GetAncestorPath
SearchByKeyword GetNodesByPage GetVersion GetVersionAsOf ListVersions StoreToolResult GetToolResults
StoreTrajectory GetTrajectories StoreCrossReference GetCrossReferences StoreContradiction
StorePrompt GetPrompt RecordPromptUsage SetMetadata GetMetadata BatchInsertNodes Health Stats
""".split()  # noqa: SIM905


@pytest.fixture
async def client(tmp_path: Path) -> AsyncGenerator[Any]:
    """A client over TCP, on a store that is checked in the end."""
    async with open_database(tmp_path / "data") as database:
        async with (
            listening(database) as listener,
            treestore.connect(f"127.0.0.1:{listener.port}") as remote,
        ):
            yield remote
        assert (await database.admin.check()).ok


def rows() -> dict[str, list[str]]:
    """Planned name → the operations that the page says it is."""
    found: dict[str, list[str]] = {}
    for names, cell in re.findall(r"^\| (\w[\w, ]*) \| (.*) \|$", PAGE, re.MULTILINE):
        for name in names.split(", "):
            found[name] = re.findall(r"`(\w+\.\w+)`", cell)
    return {name: operations for name, operations in found.items() if operations}


def test_every_planned_operation_is_one_that_there_is() -> None:
    assert sorted(rows()) == sorted(PLANNED)
    for operations in rows().values():
        for name in operations:
            assert name in OPERATIONS, name


def test_every_planned_operation_has_an_example() -> None:
    code = "\n".join(examples())
    for name, operations in rows().items():
        assert any(f"db.{operation}(" in code for operation in operations), name


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


async def test_the_examples_run_over_tcp(client: Any) -> None:
    source = "async def run(db):\n" + textwrap.indent("\n".join(examples()), "    ")
    namespace: dict[str, Any] = {}
    exec(compile(ast.parse(source), "planned-operations.md", "exec"), namespace)
    with trio.fail_after(60):
        await namespace["run"](client)


# --- what other stores got wrong -------------------------------------------------------------

FOREST = [
    {"node_id": "b", "title": "Second by id, first by place", "text": "alpha"},
    {"node_id": "a", "title": "Root too", "nodes": [{"node_id": "z", "title": "Z"},
                                                    {"node_id": "y", "title": "Y"}]},
]  # fmt: skip


async def test_as_of_goes_by_effective_days_and_versions_come_over_the_wire(client: Any) -> None:
    with trio.fail_after(30):
        await client.versions.create("p", "old", effective_from="1990-01-01")
        await client.versions.create("p", "new", effective_from="2000-01-01", supersedes="old")
        # Both were recorded today: by their creation neither was there in 1995.
        assert (await client.versions.as_of("p", "1995-05-05")).version_id == "old"
        assert (await client.versions.as_of("p", "1999-12-31")).version_id == "old"
        assert (await client.versions.as_of("p", "2000-01-01")).version_id == "new"
        with pytest.raises(NotFound, match="nearest after"):
            await client.versions.as_of("p", "1989-12-31")


async def test_versions_do_not_overwrite_each_other(client: Any) -> None:
    with trio.fail_after(30):
        await client.documents.store("p", "1", FOREST)
        await client.documents.store("p", "2", [{"node_id": "a", "title": "New"}])
        assert (await client.documents.get_node("p", "a", version_id="1")).title == "Root too"
        # Of the old tree nothing is left in the new one.
        assert len(await client.documents.get_subtree("p", version_id="2")) == 1
        await client.documents.store("p", "1", FOREST[:1])
        with pytest.raises(NotFound):
            await client.documents.get_node("p", "z", version_id="1")


async def test_a_forest_keeps_all_of_its_trees_and_facts(client: Any) -> None:
    with trio.fail_after(30):
        await client.documents.store(
            "p", "1", FOREST, metadata={"k": "v" * 500}, pageindex_doc_id="pi-1"
        )
        document = await client.documents.get("p")
        assert (document.version_id, document.root_ids) == ("1", ("b", "a"))
        assert (document.metadata, document.pageindex_doc_id) == ({"k": "v" * 500}, "pi-1")
        assert len(await client.documents.get_subtree("p")) == 4


async def test_deleting_pages_child_ids_and_texts_are_done(client: Any) -> None:
    with trio.fail_after(30):
        await client.documents.store("p", "1", [{"node_id": "a", "start_index": 3, "end_index": 3}])
        assert len(await client.documents.get_nodes_by_page("p", 3)) == 1
        assert await client.documents.delete("p", "1") is True
        with pytest.raises(NotFound):
            await client.documents.get("p")
        await client.documents.store("p", "1", FOREST)
        assert (await client.documents.get_node("p", "a")).child_ids == ("z", "y")
        for include_text, text in ((True, "alpha"), (False, "")):
            nodes = await client.documents.get_subtree("p", include_text=include_text)
            assert nodes[0].text == text


async def test_children_come_by_place_and_hits_by_score(client: Any) -> None:
    with trio.fail_after(30):
        await client.documents.store("p", "1", FOREST)
        assert [node.node_id for node in await client.documents.get_children("p", "a")] == [
            "z",
            "y",
        ]
        texts = ["filler " * 50 + "needle", "needle", "needle needle", "hay"]
        nodes = [{"node_id": str(n), "title": "T", "text": text} for n, text in enumerate(texts)]
        await client.documents.store("q", "1", nodes)
        hits = await client.documents.search("needle", policy_id="q", top_k=2)
        # The best two of three, not the first two by key.
        assert {hit.node.node_id for hit in hits} == {"1", "2"}
        assert hits[0].score >= hits[1].score > 0


async def test_records_of_agents_keep_all_of_their_fields(client: Any) -> None:
    metadata = client.metadata
    with trio.fail_after(30):
        # Parts that hold what others used to join keys with.
        await metadata.store_tool_result("c|1", "tool|a", {"x": "|"}, policy_id="p|q")
        await metadata.store_tool_result("c", "1|tool", 1, policy_id="r")
        assert [item.result for item in await metadata.get_tool_results("c|1")] == [{"x": "|"}]
        assert [item.tool_name for item in await metadata.get_tool_results("c")] == ["1|tool"]
        assert len(await metadata.get_tool_results(tool_name="tool|a")) == 1
        step = {
            "tool_name": "t",
            "thought": "why",
            "action": {"a": 1},
            "observation": "o",
            "node_ids": ["n"],
            "timestamp": datetime(2024, 1, 1, tzinfo=UTC),
        }
        await metadata.store_trajectory("c", [step, {"tool_name": "u"}])
        (trajectory,) = await metadata.get_trajectories("c")
        assert len(trajectory.steps) == 2
        first = attrs.asdict(trajectory.steps[0])
        assert {name: first[name] for name in step} == {**step, "node_ids": ("n",)}
        await metadata.store_cross_reference("p", "1", "p", "2", "cites", context="the words")
        await metadata.store_cross_reference("p", "3", "q", "4", "cites")
        (reference,) = await metadata.get_cross_references("p", "1")
        assert (reference.context, reference.target_node_id) == ("the words", "2")
        prompt = await client.prompts.store(
            "id", "content", variables=["v"], tool_schemas=[{"name": "t"}], author="ann"
        )
        assert await client.prompts.get("id") == prompt
        assert (prompt.content, prompt.variables, prompt.author) == ("content", ("v",), "ann")


async def test_large_texts_many_tags_and_exact_times(client: Any) -> None:
    with trio.fail_after(60):
        text = "a long text " * 100_000
        await client.documents.store("p", "1", [{"node_id": "a", "text": text}])
        assert (await client.documents.get_node("p", "a")).text == text
        tags = [f"{'t' * 100}-{number}" for number in range(100)]
        version = await client.versions.create(
            "q", "1", effective_from="2024-01-01", tags=tags, description="d" * 10_000
        )
        assert (set(version.tags), len(version.description)) == (set(tags), 10_000)
        times = [
            (await client.versions.create("q", str(n), effective_from="2024-01-01")).recorded_at
            for n in range(2, 12)
        ]
        assert sorted(set(times)) == times


async def test_many_callers_at_once(client: Any) -> None:
    with trio.fail_after(60):

        async def work(number: int) -> None:
            for step in range(5):
                await client.documents.store(f"p{number}", str(step), FOREST)
                assert len(await client.documents.get_subtree(f"p{number}")) == 4

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(work, number)
        stats = await client.admin.stats()
        # What is stored, not how often somebody asked.
        assert (stats.policies, stats.documents, stats.nodes) == (8, 40, 160)


async def test_a_transaction_is_durable_as_a_whole(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with (
            open_database(tmp_path / "data") as database,
            database.transaction() as txn,
        ):
            await txn.documents.store("p", "1", FOREST)
            await txn.versions.create("p", "2", effective_from="2024-01-01")
        async with open_database(tmp_path / "data") as database:
            assert (await database.documents.get("p", "1")).node_count == 4
            assert (await database.versions.get("p", "2")).version_id == "2"
