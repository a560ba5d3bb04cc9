"""An agent that decides a case by a policy, without a model: its next step is chosen by rules.

What a model would do (say which tool to call, and with what) is done by the function `agent`, which
yields its calls and is sent their results. All the rest is as with a model: the tools, their
definitions, the record in the store.

The case: may a traveller book premium economy? The example policy said, until June 2025, on
flights of more than 8 hours; since then on flights of more than 6. A flight of 7 hours is decided
one way or the other by the day of the trip.

Usage: ``python -m scripts.agent_example [--date 2025-08-10] [--hours 7] [--data DIR]``
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import trio

import treestore
from treestore.tools import ToolExecutor

POLICY = "travel-policy"
FOLDER = Path(__file__).resolve().parent.parent / "examples" / POLICY
VERSIONS = ("2024-01-01", "2025-07-01")
"""Files, versions and the days that they are in effect from."""

CRITERION = "premium-economy"

Call = tuple[str, str, dict[str, Any]]
"""Why, which tool, with what."""


def agent(trip_day: str) -> Generator[Call, dict[str, Any], None]:
    """The agent's calls; each is answered with the tool's result."""
    version = yield (
        "Which version of the policy counts for this trip, and what is new in it?",
        "temporal_lookup",
        {"policy_id": POLICY, "as_of_date": trip_day},
    )
    hours = yield "How long is the flight?", "facts_get", {"field_name": "flight hours"}
    found = yield (
        "Where does the policy speak of the class of flights?",
        "pi_search",
        {"query": "premium economy class on flights of more hours", "top_k": 3},
    )
    section = found["nodes"][0]
    spans = yield (
        f"Section {section['section_path']} fits best. What exactly does it say?",
        "spans_tighten",
        {"node_id": section["node_id"], "query": "premium economy flights of more than hours"},
    )
    sentence = spans["spans"][0]
    related = yield (
        "Does another section change that, an exception for example?",
        "policy_xref",
        {"criterion_id": section["node_id"], "limit": 4},
    )
    limit = float(re.search(r"more than (\d+) hours", sentence["text"])[1])  # type: ignore[index]
    allowed = hours["value"] > limit
    stance = "supports" if allowed else "contradicts"
    evidence = [
        {"node_id": section["node_id"], "snippet": sentence["text"], "stance": stance},
        {"snippet": f"The flight takes {hours['value']:g} hours.", "stance": stance},
        {"node_id": related["related_nodes"][0]["node_id"], "stance": "neutral"},
    ]
    status = "met" if allowed else "missing"
    conflicts = yield (
        "Does all the evidence point the same way?",
        "contradiction_detector",
        {"findings": [{"criterion_id": CRITERION, "status": status, "evidence": evidence}]},
    )
    sure = hours["confidence"] if conflicts["resolved"] else 0.5
    score = yield (
        "How sure is that?",
        "confidence_score",
        {"criteria_results": [{"id": CRITERION, "status": status, "confidence": sure}]},
    )
    yield (
        "Everything is known.",
        "finish",
        {
            "status": status,
            "rationale": f"{sentence['text']} The flight takes {hours['value']:g} hours "
            f"(version {version['version_id']}).",
            "confidence": abs(score["score"] - 0.5) * 2,
            "policy_section": section["section_path"],
            "policy_pages": section["pages"],
            "evidence_doc_id": hours["doc_id"],
            "evidence_page": hours["page"],
        },
    )


async def run_case(db: Any, case_id: str, trip_day: str, hours: float) -> dict[str, Any]:
    """Decide one case; the decision."""
    facts = {
        "flight_hours": {"value": hours, "confidence": 0.95, "doc_id": "itinerary.pdf", "page": 2}
    }
    executor = ToolExecutor(db, case_id=case_id, policy_id=POLICY, as_of=trip_day, facts=facts)
    steps = agent(trip_day)
    thought, name, arguments = next(steps)
    while True:
        result = await executor.execute(name, arguments, thought=thought)
        if not result["success"]:
            raise RuntimeError(f"{name}: {result['error']}")
        try:
            thought, name, arguments = steps.send(result)
        except StopIteration:
            break
    assert executor.decision is not None
    return executor.decision


async def store_policy(db: Any) -> None:
    """Store both versions of the example policy, and the references that its nodes name."""
    for version_id in VERSIONS:
        structure = json.loads((FOLDER / f"{version_id}.json").read_text("utf-8"))
        await db.documents.store(POLICY, version_id, structure, effective_from=version_id)
    nodes = await db.documents.get_subtree(POLICY, version_id=VERSIONS[-1], include_text=False)
    await db.metadata.store_cross_references(
        [
            {
                "source_policy_id": POLICY,
                "source_node_id": node.node_id,
                "target_policy_id": POLICY,
                "target_node_id": target,
                "relation": "cites",
            }
            for node in nodes
            for target in node.metadata.get("references", ())
        ]
    )


async def show_case(db: Any, case_id: str) -> None:
    """Print what the store has of the case."""
    for trajectory in await db.metadata.get_trajectories(case_id):
        print(f"{trajectory.case_id}, by version {trajectory.version_id} of {trajectory.policy_id}")
        for step in trajectory.steps:
            visited = f"  [{', '.join(step.node_ids)}]" if step.node_ids else ""
            print(f"{step.step_number:3} {step.thought}")
            print(f"    {step.tool_name}: {step.observation}{visited}")
        print(f"    -> {trajectory.outcome}, confidence {trajectory.confidence:.2f}")


async def main(directory: str, trip_day: str, hours: float) -> None:
    """Decide the case on a store in ``directory``, and print how."""
    async with treestore.open(directory) as db:
        await store_policy(db)
        case_id = f"trip-{trip_day}"
        decision = await run_case(db, case_id, trip_day, hours)
        await show_case(db, case_id)
        print(f"Decision: {decision['status']}. {decision['rationale']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A scripted agent on an example policy.")
    parser.add_argument("--date", default="2025-08-10", help="day of the trip")
    parser.add_argument("--hours", type=float, default=7.0, help="length of the flight")
    parser.add_argument("--data", help="data directory (default: a temporary one)")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            trio.run(main, given.data or f"{scratch}/data", given.date, given.hours)
    except treestore.errors.TreeStoreError as error:
        sys.exit(f"agent_example: {error.message}")
    except RuntimeError as error:
        sys.exit(f"agent_example: {error}")
