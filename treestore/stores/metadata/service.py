"""The ``metadata`` service."""

from __future__ import annotations

from treestore.stores.metadata import (
    contradictions,
    entities,
    references,
    removal,
    tool_results,
    tool_statistics,
    trajectories,
    trajectory_statistics,
)
from treestore.stores.operation import A, Command, M, Query, Service


class Metadata(Service[M, A]):
    """What is known beside the documents: what tools and agents did, how nodes refer to each
    other, what contradicts what, and whatever else is said about anything."""

    service_name = "metadata"

    store_tool_result = Command(tool_results.store_tool_result)
    get_tool_result = Query(tool_results.get_tool_result)
    get_tool_results = Query(tool_results.get_tool_results)
    tool_stats = Query(tool_statistics.tool_stats)
    store_trajectory = Command(trajectories.store_trajectory)
    append_step = Command(trajectories.append_step)
    complete_trajectory = Command(trajectories.complete_trajectory)
    get_trajectory = Query(trajectories.get_trajectory)
    get_trajectories = Query(trajectories.get_trajectories)
    trajectory_stats = Query(trajectory_statistics.trajectory_stats)
    store_cross_reference = Command(references.store_cross_reference, idempotent=True)
    store_cross_references = Command(references.store_cross_references, idempotent=True, long=True)
    get_cross_references = Query(references.get_cross_references)
    delete_cross_reference = Command(references.delete_cross_reference)
    delete_cross_references = Command(references.delete_cross_references, long=True)
    store_contradiction = Command(contradictions.store_contradiction)
    get_contradiction = Query(contradictions.get_contradiction)
    get_contradictions = Query(contradictions.get_contradictions)
    resolve_contradiction = Command(contradictions.resolve_contradiction)
    delete_case = Command(removal.delete_case, long=True)
    set = Command(entities.set_metadata, idempotent=True)
    get = Query(entities.get_metadata)
    delete = Command(entities.delete_metadata)
    find = Query(entities.find_metadata)
