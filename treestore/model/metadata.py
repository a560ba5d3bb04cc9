"""What ``metadata`` keeps beside the documents, as every face of TreeStore returns it.

The classes are also the record format: a stored record is the msgpack map of the fields by name,
in the order declared here. A field may be added with a default; none may be renamed.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

import attrs

from treestore.model.attrs_struct import attrs_struct

Direction = Literal["both", "out", "in"]
"""Which references of a node: those that it makes ("out"), those made to it ("in")."""

Severity = Literal["low", "medium", "high", "critical"]
"""How bad a contradiction is."""


@attrs.frozen(kw_only=True)
class ToolResult:
    """One run of a tool.

    Attributes:
        tool_result_id: given by the store; orders as the runs did.
        case_id: the case that it was run for.
        tool_name: which tool.
        result: what it gave: any JSON value.
        arguments: what it was given: any JSON value, mostly an object.
        success: whether it did what it was to do.
        error: why not.
        latency_ms: how long it took, in milliseconds.
        policy_id: the policy that it was about.
        node_id: the node of that policy.
        version_id: the version of that policy.
        executed_at: when it was run (UTC).
        metadata: whatever else there is to know.
    """

    tool_result_id: str
    case_id: str
    tool_name: str
    result: Any = None
    arguments: Any = None
    success: bool = True
    error: str | None = None
    latency_ms: float | None = None
    policy_id: str | None = None
    node_id: str | None = None
    version_id: str | None = None
    executed_at: datetime
    metadata: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class ToolStats:
    """What the runs of one tool came to.

    Attributes:
        tool_name: which tool.
        count: how often it was run.
        success_count: how often with success.
        success_rate: of all runs, from 0 to 1.
        latency_count: how many runs had a latency; what follows is of these, in milliseconds, and
            None without any.
        latency_mean_ms: exact to the microsecond.
        latency_p50_ms: the median; like all percentiles within 1 % of the exact one.
        latency_p90_ms: 90 of 100 runs took no longer.
        latency_p99_ms: 99 of 100 runs took no longer.
        latency_max_ms: the longest, likewise within 1 %.
        first_day: day of the first run counted (UTC).
        last_day: day of the last one.
    """

    tool_name: str
    count: int
    success_count: int
    success_rate: float
    latency_count: int = 0
    latency_mean_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    latency_max_ms: float | None = None
    first_day: date
    last_day: date


@attrs.frozen(kw_only=True)
class TrajectoryStep:
    """One step on the way to an answer.

    Attributes:
        step_number: grows from step to step; 1 for the first, unless given otherwise.
        tool_name: the tool that was used.
        action: what was done: any JSON value.
        observation: what came of it: any JSON value.
        thought: why.
        node_ids: the nodes that were looked at, of the trajectory's policy.
        timestamp: when.
        confidence: from 0 to 1.
        metadata: whatever else there is to know.
    """

    step_number: int
    tool_name: str | None = None
    action: Any = None
    observation: Any = None
    thought: str = ""
    node_ids: tuple[str, ...] = ()
    timestamp: datetime | None = None
    confidence: float | None = None
    metadata: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Trajectory:
    """The way that an agent went for one case.

    Attributes:
        trajectory_id: given by the store; orders as the starts did.
        case_id: the case.
        policy_id: the policy whose nodes it visits.
        version_id: the version of that policy.
        started_at: when (UTC): as given, else the first step's time, else when it was stored.
        completed_at: None while it is under way.
        confidence: in its outcome, from 0 to 1.
        outcome: what it came to.
        metadata: whatever else there is to know.
        step_count: how many steps it has.
        steps: in order.
    """

    trajectory_id: str
    case_id: str
    policy_id: str | None = None
    version_id: str | None = None
    started_at: datetime
    completed_at: datetime | None = None
    confidence: float | None = None
    outcome: str | None = None
    metadata: dict[str, Any] = attrs.field(factory=dict)
    step_count: int = 0
    # Last on purpose: steps are records of their own, joined to this one as they are read.
    steps: tuple[TrajectoryStep, ...] = ()


@attrs.frozen(kw_only=True)
class NodeVisits:
    """How often a node was visited.

    Attributes:
        policy_id: None for trajectories that named no policy.
        node_id: the node.
        visits: steps that name it.
    """

    policy_id: str | None
    node_id: str
    visits: int


@attrs.frozen(kw_only=True)
class TrajectoryStats:
    """What a number of trajectories came to.

    Attributes:
        count: how many.
        completed_count: how many of them are complete.
        step_count: of all of them together.
        mean_steps: None of nothing.
        confidence_count: how many state their confidence.
        mean_confidence: of these; None without any.
        nodes: those visited most, most visits first; equal ones by policy_id, then node_id.
    """

    count: int = 0
    completed_count: int = 0
    step_count: int = 0
    mean_steps: float | None = None
    confidence_count: int = 0
    mean_confidence: float | None = None
    nodes: tuple[NodeVisits, ...] = ()


@attrs_struct
@attrs.frozen(kw_only=True)
class CrossReference:
    """A node's reference to another one.

    Attributes:
        source_policy_id: policy of the node that refers.
        source_node_id: the node that refers.
        target_policy_id: policy of the node that is referred to.
        target_node_id: the node that is referred to.
        relation: such as "cites", "supports", "contradicts".
        context: the words around it, or whatever tells how it is meant.
        metadata: whatever else there is to know.
        created_at: when it was first stored (UTC).
        updated_at: when it was last changed (UTC).
        depth: how many references lie between the node asked about and the far end of this one:
            1 for its own.
        direction: "out" where the walk came from its source, "in" where from its target.
    """

    source_policy_id: str
    source_node_id: str
    target_policy_id: str
    target_node_id: str
    relation: str
    context: str = ""
    metadata: dict[str, Any] = attrs.field(factory=dict)
    created_at: datetime
    updated_at: datetime
    depth: int = 1
    direction: Literal["out", "in"] = "out"


@attrs_struct
@attrs.frozen(kw_only=True)
class Evidence:
    """One side of a contradiction.

    Attributes:
        policy_id: where it was found.
        node_id: the node of that policy.
        version_id: the version of that policy.
        snippet: the words.
        stance: what they speak for, such as "supports" or "opposes".
        metadata: whatever else there is to know.
    """

    policy_id: str | None = None
    node_id: str | None = None
    version_id: str | None = None
    snippet: str = ""
    stance: str = ""
    metadata: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Resolution:
    """How a contradiction was settled.

    Attributes:
        resolution: in words.
        resolved_by: who settled it; "" where nobody was named.
        resolved_at: when (UTC).
    """

    resolution: str
    resolved_by: str = ""
    resolved_at: datetime


@attrs_struct
@attrs.frozen(kw_only=True)
class Contradiction:
    """Pieces of evidence of one criterion that cannot all be true.

    Attributes:
        contradiction_id: given by the store; orders as they were stored.
        case_id: the case.
        criterion_id: the criterion that they are evidence of.
        evidence: the pieces.
        severity: "low", "medium", "high" or "critical".
        description: in words.
        metadata: whatever else there is to know.
        created_at: when it was stored (UTC).
        resolved: whether it is settled.
        resolution: how; None while it is not.
        resolved_by: who settled it.
        resolved_at: when.
        history: earlier resolutions, the oldest first.
    """

    contradiction_id: str
    case_id: str
    criterion_id: str
    evidence: tuple[Evidence, ...] = ()
    severity: Severity = "medium"
    description: str = ""
    metadata: dict[str, Any] = attrs.field(factory=dict)
    created_at: datetime
    resolved: bool = False
    resolution: str | None = None
    resolved_by: str | None = None
    resolved_at: datetime | None = None
    history: tuple[Resolution, ...] = ()


@attrs.frozen(kw_only=True)
class EntityMetadata:
    """Everything that was set on one entity.

    Attributes:
        entity_type: such as "policy", "node", "case": any name.
        entity_id: unique within its type.
        metadata: key → JSON value.
        updated_at: when a key was last set or deleted (UTC).
    """

    entity_type: str
    entity_id: str
    metadata: dict[str, Any]
    updated_at: datetime
