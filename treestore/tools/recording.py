"""The record of an agent's calls: tool results, a trajectory, contradictions."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import attrs

from treestore.errors import NotFound
from treestore.stores.agents.recording import with_conflicts
from treestore.tools.context import Case


@attrs.frozen(kw_only=True)
class Step:
    """One call of a tool.

    Attributes:
        tool_name: ``unknown`` where there is no such tool.
        arguments: as they were understood, defaults filled in.
        result: what the model was given.
        observation: the result in a sentence.
        nodes: ids of the nodes that were visited.
        latency_ms: how long the tool took, in milliseconds.
        thought: why the model called it, where it said so.
    """

    tool_name: str
    arguments: dict[str, Any]
    result: dict[str, Any]
    observation: str
    nodes: tuple[str, ...] = ()
    latency_ms: float
    thought: str = ""

    @property
    def success(self) -> bool:
        """Whether the tool did what it was to do."""
        return bool(self.result["success"])


class Recorder:
    """Records the calls of one case, each in one transaction, one after the other.

    Calls that are made at once are recorded in the order in which they ended.
    """

    def __init__(self, case: Case, *, stores: bool) -> None:
        self._case = case
        self._stores = stores
        self._lock: Any = _NoLock()
        self._completed = False
        self.trajectory_id: str | None = None
        self.steps: list[Step] = []

    async def record(self, step: Step) -> Step:
        """Record a call.

        Returns:
            The step, with what the store gave it (ids of contradictions) in its result.
        """
        if self._stores:
            if isinstance(self._lock, _NoLock):
                self._lock = _make_lock()
            async with self._lock:
                step = await self._store(step)
        self.steps.append(step)
        return step

    async def _store(self, step: Step) -> Step:
        case = self._case
        decision = step.result["decision"] if _completes(step) else None
        # A copy of the result as it is stored: the store adds what became of the conflicts.
        conflicts = self._conflicts(step)
        recorded = await case.db.agents.record_call(
            case.case_id,
            step.tool_name,
            step.result,
            arguments=step.arguments,
            success=step.success,
            error=step.result.get("error"),
            latency_ms=step.latency_ms,
            policy_id=case.policy_id,
            version_id=await self._version(),
            node_ids=list(step.nodes),
            observation=step.observation,
            thought=step.thought,
            trajectory_id=self.trajectory_id,
            # What is called after the end is no step any more.
            in_trajectory=not self._completed,
            conflicts=conflicts,
            outcome=None if decision is None or self._completed else decision["status"],
            confidence=None if decision is None else decision["confidence"],
        )
        self.trajectory_id = recorded.trajectory_id or self.trajectory_id
        self._completed = self._completed or decision is not None
        if not conflicts:
            return step
        return attrs.evolve(step, result=with_conflicts(step.result, recorded.conflicts))

    async def _version(self) -> str | None:
        try:
            return await self._case.version()
        except NotFound:
            return None

    def _conflicts(self, step: Step) -> list[dict[str, Any]]:
        """The conflicts that a step found, as contradictions to store."""
        if step.tool_name != "contradiction_detector" or not step.success:
            return []
        return [
            {
                "criterion_id": conflict["criterion_id"],
                "description": conflict["reason"],
                "evidence": [self._evidence(piece) for piece in conflict["conflicting_evidence"]],
            }
            for conflict in step.result["conflicts"]
        ]

    def _evidence(self, piece: dict[str, Any]) -> dict[str, Any]:
        node_id = piece.get("node_id")
        return {
            "policy_id": self._case.policy_id if node_id else None,
            "node_id": node_id,
            "version_id": self._case.version_id if node_id else None,
            "snippet": piece.get("snippet") or "",
            "stance": piece["stance"],
        }


def _completes(step: Step) -> bool:
    return step.tool_name == "finish" and step.success


class _NoLock:
    """Before the first call, when no event loop is known."""

    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *exception: object) -> None: ...


def _make_lock() -> Any:
    """A lock of the event loop that runs; without one, asyncio's, which then never waits."""
    if "trio" in sys.modules:
        import trio

        with contextlib.suppress(RuntimeError):
            trio.lowlevel.current_task()
            return trio.Lock()
    return asyncio.Lock()
