"""Removing what belongs to something that goes."""

from __future__ import annotations

from treestore.stores.access import Write
from treestore.stores.metadata import contradictions, entities, tool_results, trajectories
from treestore.stores.metadata.references import delete_cross_references


def delete_case(txn: Write, case_id: str) -> int:
    """Remove a case's tool results, trajectories and contradictions; how many there were.

    Statistics are as if they had never been. What was set as free metadata stays, and so do uses
    of prompts: see ``metadata.delete`` and ``prompts.delete_case``.
    """
    return (
        tool_results.delete_tool_results(txn, case_id)
        + trajectories.delete_trajectories(txn, case_id)
        + contradictions.delete_contradictions(txn, case_id)
    )


def forget_policy(txn: Write, policy_id: str) -> None:
    """Remove what belongs to a policy whose documents are deleted: the references that its nodes
    make, and its own free metadata. What others say of it stays: references to its nodes, tool
    results, trajectories, contradictions."""
    delete_cross_references(txn, policy_id, direction="out")
    entities.delete_metadata(txn, entities.POLICY, policy_id)
