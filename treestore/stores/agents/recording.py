"""A call of a tool with all that it leaves behind, in one transaction.

The records are those of ``metadata``, written by its own functions: what is recorded here is found,
counted and deleted there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

import attrs
import msgspec

from treestore.errors import InvalidArgument
from treestore.model.agents import RecordedCall, RecordedConflict
from treestore.model.metadata import (
    Contradiction,
    Evidence,
    ToolResult,
    Trajectory,
    TrajectoryStep,
)
from treestore.stores.access import Write
from treestore.stores.json_values import Json, check_inside, shown
from treestore.stores.metadata.contradictions import get_contradictions, store_contradiction
from treestore.stores.metadata.tool_results import store_tool_result
from treestore.stores.metadata.trajectories import (
    append_step,
    as_maps,
    complete_trajectory,
    store_trajectory,
)
from treestore.stores.operation import Wire

T = TypeVar("T")

CONFLICTS_MAX: Final = 1000

_CONFLICT_FIELDS: Final = frozenset({"criterion_id", "evidence", "description"})


def _check_sent(conflicts: Any, what: str) -> None:
    if isinstance(conflicts, list | tuple):
        for index, conflict in enumerate(conflicts):
            if isinstance(conflict, Mapping):
                pieces = as_maps(conflict.get("evidence"))
                check_inside("metadata")(pieces, f"{what}[{index}].evidence")


Conflicts = Annotated[
    Sequence[Mapping[str, Any]], Wire(type=list[dict[str, Any]], check=_check_sent)
]
"""A list of dicts with a conflict's ``criterion_id``, ``evidence`` and ``description``."""


def record_call(
    txn: Write,
    case_id: str,
    tool_name: str,
    result: Json,
    *,
    arguments: Json = None,
    success: bool = True,
    error: str | None = None,
    latency_ms: float | None = None,
    policy_id: str | None = None,
    version_id: str | None = None,
    node_ids: Sequence[str] = (),
    observation: Json = None,
    thought: str = "",
    trajectory_id: str | None = None,
    in_trajectory: bool = True,
    conflicts: Conflicts = (),
    outcome: str | None = None,
    confidence: float | None = None,
) -> RecordedCall:
    """Record a call of a tool, in one transaction: its result, a step of the trajectory, and
    contradictions. The records are those of ``metadata`` and limited as there.

    Args:
        case_id: the case that the agent works on.
        tool_name: which tool.
        result: what it gave: any JSON value. Its own ``conflicts``, where they are as many objects,
            get the ``contradiction_id`` and ``resolution`` of each, its ``resolved`` is set.
        arguments, success, error, latency_ms: see ``metadata.store_tool_result``.
        policy_id, version_id: what the agent reads.
        node_ids: what the call visited; the first is the tool result's ``node_id``.
        observation, thought: what came of it and why it was called, for the step.
        trajectory_id: the trajectory to add the step to; None begins one.
        in_trajectory: False records no step.
        conflicts: contradictions that the call found, each ``criterion_id``, ``evidence`` and
            ``description``. One that the case has already is not stored again.
        outcome, confidence: complete the trajectory with these.

    Raises:
        NotFound: there is no such trajectory.
        InvalidArgument: a value is no JSON, a parameter is wrong, or the trajectory is complete.
    """
    _checked_nodes(node_ids, in_trajectory)
    settled = _contradictions(txn, case_id, _checked_conflicts(conflicts))
    stored = looked_at(
        ToolResult,
        store_tool_result(
            txn,
            case_id,
            tool_name,
            with_conflicts(result, settled),
            arguments=arguments,
            success=success,
            error=error,
            latency_ms=latency_ms,
            policy_id=policy_id,
            node_id=node_ids[0] if node_ids and policy_id is not None else None,
            version_id=version_id,
        ),
    )
    call = RecordedCall(tool_result_id=stored.tool_result_id, conflicts=tuple(settled))
    if not in_trajectory:
        return call
    step = {"observation": observation, "thought": thought, "node_ids": list(node_ids)}
    trajectory_id, number = _add_step(txn, stored, step, trajectory_id)
    if outcome is not None:
        complete_trajectory(txn, trajectory_id, outcome=outcome, confidence=confidence)
    return attrs.evolve(call, trajectory_id=trajectory_id, step_number=number)


def _checked_nodes(node_ids: Any, in_trajectory: Any) -> None:
    if not isinstance(in_trajectory, bool):
        raise InvalidArgument(f"in_trajectory is True or False, not {shown(in_trajectory)}.")
    if isinstance(node_ids, str) or not isinstance(node_ids, list | tuple):
        raise InvalidArgument("node_ids is a list of node ids.")


def _add_step(
    txn: Write, stored: ToolResult, step: dict[str, Any], trajectory_id: str | None
) -> tuple[str, int]:
    """Add the step of a tool result to a trajectory, or begin one with it; ids of both."""
    step |= {
        "tool_name": stored.tool_name,
        "action": stored.arguments,
        "timestamp": txn.now,
        "metadata": {"tool_result_id": stored.tool_result_id, "success": stored.success},
    }
    if trajectory_id is not None:
        added = append_step(txn, trajectory_id, step)
        return trajectory_id, looked_at(TrajectoryStep, added).step_number
    begun = store_trajectory(
        txn, stored.case_id, [step], policy_id=stored.policy_id, version_id=stored.version_id
    )
    return looked_at(Trajectory, begun).trajectory_id, 1


def looked_at(type_: type[T], answer: T) -> T:
    """A part of another operation's answer, to look inside: on the way to the wire that is still
    msgpack."""
    if isinstance(answer, type_):
        return answer
    raw: Any = answer
    return msgspec.msgpack.decode(raw, type=type_)


# --- conflicts -------------------------------------------------------------------------------


def _checked_conflicts(conflicts: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(conflicts, str) or not isinstance(conflicts, list | tuple):
        raise InvalidArgument(f"conflicts is a list, not {type(conflicts).__name__}.")
    if len(conflicts) > CONFLICTS_MAX:
        raise InvalidArgument(f"There are {len(conflicts)} conflicts; at most {CONFLICTS_MAX}.")
    for index, conflict in enumerate(conflicts):
        if not isinstance(conflict, Mapping) or not conflict.keys() <= _CONFLICT_FIELDS:
            raise InvalidArgument(
                f"conflicts[{index}] is an object of {', '.join(sorted(_CONFLICT_FIELDS))}."
            )
    return conflicts


def _contradictions(
    txn: Write, case_id: str, conflicts: Sequence[Mapping[str, Any]]
) -> list[RecordedConflict]:
    return [
        _contradiction(txn, case_id, conflict, index) for index, conflict in enumerate(conflicts)
    ]


def _contradiction(
    txn: Write, case_id: str, conflict: Mapping[str, Any], index: int
) -> RecordedConflict:
    """The contradiction that a conflict is: the one that is known, else a new one."""
    criterion_id = conflict.get("criterion_id")
    description = conflict.get("description") or ""
    if not isinstance(criterion_id, str):
        raise InvalidArgument(f"conflicts[{index}].criterion_id is a string.")
    evidence = conflict.get("evidence")
    known = _known(txn, case_id, criterion_id, description, evidence)
    if known is None:
        known = looked_at(
            Contradiction,
            store_contradiction(
                txn, case_id, criterion_id, evidence or [], description=description
            ),
        )
    return RecordedConflict(contradiction_id=known.contradiction_id, resolution=known.resolution)


def _known(
    txn: Write, case_id: str, criterion_id: str, description: str, evidence: Any
) -> Contradiction | None:
    """The same contradiction, where the case has it."""
    try:
        pieces = msgspec.convert(evidence, type=tuple[Evidence, ...])
    except msgspec.ValidationError:
        return None  # Storing it says what is wrong.
    cursor: str | None = None
    while True:
        page = get_contradictions(txn, case_id, criterion_id, cursor=cursor)
        for answer in page.items:
            stored = looked_at(Contradiction, answer)
            if stored.description == description and stored.evidence == pieces:
                return stored
        cursor = page.next_cursor
        if cursor is None:
            return None


def with_conflicts(result: Any, settled: Sequence[RecordedConflict]) -> Any:
    """The result, with what became of its conflicts."""
    listed = result.get("conflicts") if isinstance(result, dict) else None
    if not settled or not isinstance(listed, list) or len(listed) != len(settled):
        return result
    marked = [
        {**conflict, **attrs.asdict(its)} if isinstance(conflict, dict) else conflict
        for conflict, its in zip(listed, settled, strict=True)
    ]
    whole = {**result, "conflicts": marked}
    if "resolved" in whole:
        whole["resolved"] = all(its.resolution is not None for its in settled)
    return whole
