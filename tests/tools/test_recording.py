"""What the executor leaves behind: tool results, a trajectory, contradictions."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest
import trio

import treestore
from actors.database import Database, open_database
from tests.actors.wire_tools import listening
from tests.tools.policy import NEW, OLD, POLICY, store_policy
from treestore.errors import InvalidArgument, TransactionConflict, Unavailable
from treestore.tools import BlockingToolExecutor, ToolExecutor

CASE = "case-7"
FACTS = {"flight_hours": 7}
DECISION = {"status": "met", "rationale": "Above six hours.", "confidence": 0.8}
CONFLICTING = {
    "findings": [
        {
            "criterion_id": "long-flight",
            "evidence": [
                {"node_id": "0003", "snippet": "above six hours", "stance": "supports"},
                {"snippet": "The ticket says five hours.", "stance": "contradicts"},
            ],
        },
        {"criterion_id": "approved", "evidence": [{"node_id": "0002", "stance": "supports"}]},
    ]
}

RUN: list[tuple[str, Any]] = [
    ("pi_search", {"query": "class on long flights", "top_k": 2}),
    ("facts_get", {"field_name": "flight hours"}),
    ("facts_get", {"field_name": "weight"}),
    ("spans_tighten", {"node_id": "0003", "query": "above six hours"}),
    ("policy_xref", {"criterion_id": "0003", "limit": 3}),
    ("temporal_lookup", {"as_of_date": "2023-06-01"}),
    ("no_such_tool", {"x": 1}),
    ("contradiction_detector", CONFLICTING),
    ("confidence_score", {"criteria_results": [{"id": "long-flight", "status": "met"}]}),
    ("finish", DECISION),
]


async def test_a_whole_run_is_recorded(db: Any) -> None:
    with trio.fail_after(60):
        await store_policy(db)
        await db.metadata.store_cross_reference(POLICY, "0003", POLICY, "0005", "cites")
        executor = ToolExecutor(db, case_id=CASE, policy_id=POLICY, facts=FACTS)
        results = [
            await executor.execute(name, arguments, thought=f"I think of {name}.")
            for name, arguments in RUN
        ]
        assert [result["success"] for result in results] == [
            *(True, True, False, True, True, True, False, True, True, True)
        ]
        search, xref = results[0], results[4]
        assert search["nodes"][0]["node_id"] == "0003"
        assert search["nodes"][0]["pages"] == [2]
        assert "above six hours" in search["nodes"][0]["text_preview"]
        assert len(search["nodes"][0]["text_preview"]) <= 200
        assert search["trajectory"] == [node["node_id"] for node in search["nodes"]]
        assert 0 < search["confidence"] <= 1
        first = xref["related_nodes"][0]
        assert (first["node_id"], first["reason"]) == ("0005", "cross_reference")
        assert xref["citations"][0] == {"page": 4, "section": "2", "node_id": "0005"}

        stored = (await db.metadata.get_tool_results(CASE)).items
        assert [item.tool_name for item in stored] == [
            name if name != "no_such_tool" else "unknown" for name, _ in RUN
        ]
        assert [item.result for item in stored] == results
        assert [item.success for item in stored] == [result["success"] for result in results]
        assert [item.error for item in stored] == [result.get("error") for result in results]
        assert stored[0].arguments == RUN[0][1]
        assert all(item.latency_ms >= 0 for item in stored)
        assert {(item.policy_id, item.version_id) for item in stored} == {(POLICY, NEW)}

        (trajectory,) = (await db.metadata.get_trajectories(CASE)).items
        assert trajectory.trajectory_id == executor.trajectory_id
        assert (trajectory.policy_id, trajectory.version_id) == (POLICY, NEW)
        assert (trajectory.outcome, trajectory.confidence) == ("met", 0.8)
        assert trajectory.completed_at is not None
        steps = trajectory.steps
        assert [step.step_number for step in steps] == list(range(1, len(RUN) + 1))
        assert [step.tool_name for step in steps] == [item.tool_name for item in stored]
        assert [step.metadata["tool_result_id"] for step in steps] == [
            item.tool_result_id for item in stored
        ]
        assert steps[0].node_ids == tuple(search["trajectory"])
        assert steps[3].node_ids == ("0003",)
        assert steps[4].node_ids[:2] == ("0003", "0005")
        assert steps[7].node_ids == ("0003", "0002")
        assert steps[0].thought == "I think of pi_search."

        (contradiction,) = (await db.metadata.get_contradictions(CASE)).items
        assert contradiction.criterion_id == "long-flight"
        assert [piece.stance for piece in contradiction.evidence] == ["supports", "contradicts"]
        assert contradiction.evidence[0].node_id == "0003"
        (conflict,) = results[7]["conflicts"]
        assert conflict["contradiction_id"] == contradiction.contradiction_id
        assert results[7]["resolved"] is False

        stats = await db.metadata.trajectory_stats(policy_id=POLICY)
        assert stats.nodes[0].node_id == "0003"
        enriched = await db.queries.get_enriched(POLICY)
        assert list(enriched.contradictions) == [contradiction]


async def test_the_same_conflict_is_stored_once(embedded: Any) -> None:
    with trio.fail_after(30):
        executor = ToolExecutor(embedded, case_id=CASE, policy_id=POLICY)
        first = await executor.execute("contradiction_detector", CONFLICTING)
        again = await executor.execute("contradiction_detector", CONFLICTING)
        assert again == first
        (stored,) = (await embedded.metadata.get_contradictions(CASE)).items
        await embedded.metadata.resolve_contradiction(stored.contradiction_id, "Ticket was old.")
        settled = await executor.execute("contradiction_detector", CONFLICTING)
        assert settled["resolved"] is True
        assert settled["conflicts"][0]["resolution"] == "Ticket was old."
        assert len((await embedded.metadata.get_contradictions(CASE)).items) == 1


@pytest.mark.parametrize(
    "finding",
    [
        {"criterion_id": "c", "evidence": [{"node_id": "9999", "stance": "supports"}]},
        {"criterion_id": "é" * 150, "evidence": []},
        {"criterion_id": "c", "evidence": [{"node_id": "é" * 200, "stance": "neutral"}]},
    ],
)
async def test_evidence_that_nobody_can_look_up_is_none(embedded: Any, finding: Any) -> None:
    executor = ToolExecutor(embedded, case_id=CASE, policy_id=POLICY)
    result = await executor.execute("contradiction_detector", {"findings": [finding]})
    assert result["success"] is False
    assert not (await embedded.metadata.get_contradictions(CASE)).items


async def test_what_is_called_after_the_end_is_no_step(embedded: Any) -> None:
    with trio.fail_after(30):
        executor = ToolExecutor(embedded, case_id=CASE, policy_id=POLICY)
        await executor.execute("finish", DECISION)
        late = await executor.execute("finish", DECISION)
        assert late["success"] is False
        (trajectory,) = (await embedded.metadata.get_trajectories(CASE)).items
        assert trajectory.step_count == 1
        assert len((await embedded.metadata.get_tool_results(CASE)).items) == 2


async def test_calls_at_once_are_all_recorded(embedded: Any) -> None:
    """Of several executors too: their transactions meet in the tools' statistics."""
    with trio.fail_after(60):
        executors = [
            ToolExecutor(embedded, case_id=f"case-{number}", policy_id=POLICY, facts=FACTS)
            for number in range(4)
        ]
        async with trio.open_nursery() as nursery:
            for executor in executors:
                for _ in range(5):
                    nursery.start_soon(
                        executor.execute, "facts_get", {"field_name": "flight_hours"}
                    )
        for number in range(4):
            (trajectory,) = (await embedded.metadata.get_trajectories(f"case-{number}")).items
            assert [step.step_number for step in trajectory.steps] == [1, 2, 3, 4, 5]
        (stats,) = await embedded.metadata.tool_stats(tool_name="facts_get")
        assert stats.count == 20


async def test_nothing_is_recorded_where_it_is_not_wanted(embedded: Any) -> None:
    executor = ToolExecutor(embedded, case_id=CASE, policy_id=POLICY, record=False)
    result = await executor.execute("contradiction_detector", CONFLICTING)
    assert result["conflicts"]
    assert len(executor.steps) == 1
    assert executor.trajectory_id is None
    assert not (await embedded.metadata.get_tool_results(CASE)).items
    assert not (await embedded.metadata.get_contradictions(CASE)).items


async def test_what_a_model_says_can_always_be_recorded(embedded: Any) -> None:
    with trio.fail_after(30):
        executor = ToolExecutor(embedded, case_id=CASE, policy_id=POLICY)
        said = ["\ud800", "{", {"a": float("nan")}, {1: 2}, b"\xff", "x" * 10**6]
        for arguments in said:
            await executor.execute("\udfff", arguments, thought="\ud800" * 3)
        stored = (await embedded.metadata.get_tool_results(CASE)).items
        assert len(stored) == len(said)
        assert all(len(json.dumps(item.arguments)) < 4000 for item in stored)


async def test_inside_a_transaction_of_the_callers_own(embedded: Any) -> None:
    with trio.fail_after(30):

        class Changed(Exception):
            pass

        with pytest.raises(Changed):
            async with embedded.transaction() as txn:
                executor = ToolExecutor(txn, case_id=CASE, policy_id=POLICY, facts=FACTS)
                found = await executor.execute("facts_get", {"field_name": "flight_hours"})
                assert found["value"] == 7
                raise Changed
        assert not (await embedded.metadata.get_tool_results(CASE)).items


async def test_searching_inside_a_transaction_of_the_callers_own(db: Any) -> None:
    """The tools see what the transaction wrote, and what they looked at is validated."""
    with trio.fail_after(30):
        await store_policy(db)
        zebras = [{"node_id": "zebra", "title": "Zebra crossings", "text": "Zebras cross here."}]
        for late in (False, True):
            with pytest.raises(TransactionConflict) if late else nullcontext():
                async with db.transaction() as txn:
                    await txn.documents.insert_nodes(POLICY, zebras, version_id=NEW)
                    executor = ToolExecutor(txn, case_id=CASE, policy_id=POLICY, version_id=NEW)
                    found = await executor.execute("pi_search", {"query": "zebra"})
                    assert found["trajectory"] == ["zebra"]
                    near = await executor.execute("policy_xref", {"criterion_id": "zebra"})
                    assert near["success"]
                    if late:
                        await db.documents.update_node(
                            POLICY, "0002", version_id=NEW, text="A zebra approves."
                        )
                    else:
                        await txn.documents.delete_node(POLICY, "zebra", version_id=NEW)
        assert len((await db.metadata.get_tool_results(CASE)).items) == 2


async def test_an_unknown_policy_is_told_of_and_recorded(embedded: Any) -> None:
    with trio.fail_after(30):
        executor = ToolExecutor(embedded, case_id=CASE, policy_id="none")
        result = await executor.execute("pi_search", {"query": "x"})
        assert (result["success"], result["code"]) == (False, "not_found")
        (stored,) = (await embedded.metadata.get_tool_results(CASE)).items
        assert (stored.policy_id, stored.version_id) == ("none", None)


async def test_the_stores_own_failures_are_raised(tmp_path: Any) -> None:
    with trio.fail_after(30):
        async with open_database(tmp_path / "data") as database:
            await store_policy(database)
            executor = ToolExecutor(database, case_id=CASE, policy_id=POLICY)
            with pytest.raises(InvalidArgument, match="case_id"):
                await ToolExecutor(database, case_id="", policy_id=POLICY).execute("finish")
        with pytest.raises(Unavailable):
            await executor.execute("pi_search", {"query": "x"})
        assert executor.steps == []


async def test_a_blocking_executor_does_the_same(embedded: Database) -> None:
    def run(address: str) -> None:
        with treestore.connect_sync(address) as db:
            executor = BlockingToolExecutor(
                db, case_id=CASE, policy_id=POLICY, facts=FACTS, as_of="2022-01-01"
            )
            for name, arguments in RUN:
                executor.execute(name, arguments)
            assert executor.decision == DECISION
            assert executor.version_id == OLD
            assert len(executor.steps) == len(RUN)
            assert executor.definitions()[0]["name"] == "pi_search"
            (trajectory,) = db.metadata.get_trajectories(CASE).items
            assert trajectory.trajectory_id == executor.trajectory_id
            assert trajectory.step_count == len(RUN)

    with trio.fail_after(60):
        async with listening(embedded) as listener:
            await trio.to_thread.run_sync(run, f"127.0.0.1:{listener.port}")


def test_a_provider_that_waits_does_not_fit_a_blocking_executor() -> None:
    class Pause:
        def __await__(self) -> Any:
            yield

    class Waiting:
        async def search(self, condition: str, treatment: str, limit: int) -> list[Any]:
            await Pause()
            return []

    executor = BlockingToolExecutor(
        object(), case_id=CASE, policy_id=POLICY, literature=Waiting(), record=False
    )
    with pytest.raises(RuntimeError, match="plain functions"):
        executor.execute("pubmed_search", {"condition": "a", "treatment": "b"})
