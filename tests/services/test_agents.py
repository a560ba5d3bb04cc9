"""``agents`` through every face."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from treestore.errors import InvalidArgument, NotFound

CASE = "case-1"
EVIDENCE = [
    {"policy_id": "p", "node_id": "n", "snippet": "yes", "stance": "supports"},
    {"snippet": "no", "stance": "contradicts"},
]
CONFLICT = {"criterion_id": "c", "evidence": EVIDENCE, "description": "Both ways."}


async def test_a_call_is_one_record_of_each_kind(db: Any) -> None:
    with trio.fail_after(30):
        record = db.agents.record_call
        first = await record(
            CASE,
            "search",
            {"conflicts": [{"criterion_id": "c"}], "resolved": False, "n": 1},
            arguments={"query": "x"},
            latency_ms=1.5,
            policy_id="p",
            version_id="v",
            node_ids=["n", "m"],
            observation="one",
            thought="why not",
            conflicts=[CONFLICT],
        )
        assert (first.step_number, len(first.conflicts)) == (1, 1)
        second = await record(
            CASE,
            "end",
            None,
            success=False,
            error="broken",
            trajectory_id=first.trajectory_id,
            outcome="met",
            confidence=0.5,
        )
        assert (second.trajectory_id, second.step_number) == (first.trajectory_id, 2)
        alone = await record(CASE, "late", 3, in_trajectory=False)
        assert (alone.trajectory_id, alone.step_number, alone.conflicts) == (None, None, ())

        results = (await db.metadata.get_tool_results(CASE)).items
        assert [item.tool_result_id for item in results] == [
            call.tool_result_id for call in (first, second, alone)
        ]
        assert results[0].node_id == "n"
        assert results[0].result["conflicts"] == [
            {
                "criterion_id": "c",
                "contradiction_id": first.conflicts[0].contradiction_id,
                "resolution": None,
            }
        ]
        assert (results[1].success, results[1].error) == (False, "broken")
        (trajectory,) = (await db.metadata.get_trajectories(CASE)).items
        assert trajectory.trajectory_id == first.trajectory_id
        assert (trajectory.outcome, trajectory.confidence) == ("met", 0.5)
        assert [step.node_ids for step in trajectory.steps] == [("n", "m"), ()]
        assert [step.metadata["tool_result_id"] for step in trajectory.steps] == [
            first.tool_result_id,
            second.tool_result_id,
        ]


async def test_a_known_conflict_is_not_stored_again(db: Any) -> None:
    with trio.fail_after(30):
        record = db.agents.record_call
        # As they are kept, and as they may be given, are the same.
        (first,) = (await record(CASE, "t", {}, conflicts=[CONFLICT])).conflicts
        (again,) = (await record(CASE, "t", {}, conflicts=[CONFLICT])).conflicts
        assert again == first
        await db.metadata.resolve_contradiction(first.contradiction_id, "It is no.")
        result = {"conflicts": [{}], "resolved": False}
        (settled,) = (await record(CASE, "t", result, conflicts=[CONFLICT])).conflicts
        assert settled.contradiction_id == first.contradiction_id
        assert settled.resolution == "It is no."
        last = (await db.metadata.get_tool_results(CASE)).items[-1]
        assert last.result["resolved"] is True
        other = {**CONFLICT, "description": "Otherwise."}
        (new,) = (await record(CASE, "t", {}, conflicts=[other])).conflicts
        assert new.contradiction_id != first.contradiction_id
        assert len((await db.metadata.get_contradictions(CASE)).items) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"case_id": ""}, InvalidArgument),
        ({"tool_name": ""}, InvalidArgument),
        ({"result": float("nan")}, InvalidArgument),
        ({"node_ids": "n"}, InvalidArgument),
        ({"node_ids": [""], "policy_id": "p"}, InvalidArgument),
        ({"version_id": "v"}, InvalidArgument),
        ({"trajectory_id": "nonsense"}, InvalidArgument),
        ({"trajectory_id": "0" * 20}, NotFound),
        ({"conflicts": [{"criterion_id": "c", "evidence": []}]}, InvalidArgument),
        ({"conflicts": [{"criterion_id": "c", "evidence": [{"what": 1}]}]}, InvalidArgument),
        ({"conflicts": [{"criterion_id": "c", "evidence": 3}]}, InvalidArgument),
        ({"conflicts": [{"evidence": EVIDENCE}]}, InvalidArgument),
        ({"conflicts": [{**CONFLICT, "more": 1}]}, InvalidArgument),
        ({"conflicts": [CONFLICT, {**CONFLICT, "criterion_id": ""}]}, InvalidArgument),
        ({"outcome": "met", "confidence": 2}, InvalidArgument),
        ({"in_trajectory": "no"}, InvalidArgument),
    ],
    ids=repr,
)
async def test_of_a_wrong_call_nothing_is_recorded(
    db: Any, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with trio.fail_after(30):
        call = {"case_id": CASE, "tool_name": "t", "result": {}, **arguments}
        with pytest.raises(error):
            await db.agents.record_call(**call)
        assert not (await db.metadata.get_tool_results()).items
        assert not (await db.metadata.get_trajectories()).items
        assert not (await db.metadata.get_contradictions()).items


async def test_in_a_transaction_of_the_callers_own(db: Any) -> None:
    with trio.fail_after(30):
        async with db.transaction() as txn:
            call = await txn.agents.record_call(CASE, "t", {}, conflicts=[CONFLICT])
            again = await txn.agents.record_call(
                CASE, "t", {}, conflicts=[CONFLICT], trajectory_id=call.trajectory_id
            )
            assert again.conflicts == call.conflicts
            assert not (await db.metadata.get_tool_results(CASE)).items
        assert len((await db.metadata.get_tool_results(CASE)).items) == 2
