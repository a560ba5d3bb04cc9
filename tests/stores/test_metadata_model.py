"""Random use of metadata and prompts, compared with brute force, and checked after every step."""

from __future__ import annotations

import math
from collections import Counter, deque
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.stores.engine_store import EngineStore
from tests.stores.fake import FakeStore
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
from treestore.stores.metadata.check import check_metadata
from treestore.stores.prompts import usage, versions
from treestore.stores.prompts.check import check_prompts

CASES = st.sampled_from(["case", "case\0", "other"])
TOOLS = st.sampled_from(["search", "search\1", "facts"])
POLICIES = st.sampled_from([None, "p", "p\0"])
NODES = st.sampled_from(["a", "b", "c\0", "\1d"])
RELATIONS = st.sampled_from(["cites", "cites\0"])
DAYS = st.integers(0, 3)
LATENCIES = st.none() | st.sampled_from([0.0, 0.0004, 0.001, 1.0, 1.005, 7.25, 1e6, 1e12])
CONFIDENCES = st.none() | st.sampled_from([0.0, 0.1, 1 / 3, 1.0])
MOMENTS = st.tuples(DAYS, st.integers(0, 2)).map(
    lambda pair: datetime(2024, 1, 1 + pair[0], 23, 59, 59, 999_998 + pair[1] // 2, UTC)
)
STEPS = st.lists(st.lists(NODES, max_size=3), max_size=3)
EDGES = st.tuples(NODES, st.sampled_from(["p", "p", "p\0"]), NODES, RELATIONS)
EDGE_FIELDS = (
    "source_policy_id",
    "source_node_id",
    "target_policy_id",
    "target_node_id",
    "relation",
)
LIMITS = st.sampled_from([1, 2, 3, 10_000])


def day(number: int) -> date:
    return date(2024, 1, 1 + number)


def nearest_rank(values: list[float], fraction: float) -> float:
    return sorted(values)[max(1, math.ceil(fraction * len(values))) - 1]


class Metadata(RuleBasedStateMachine):
    """All stores of metadata at once, beside lists of what went in."""

    make_store: ClassVar[type[Any]] = FakeStore

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make_store()
        self.results: dict[str, Any] = {}
        self.trajectories: dict[str, Any] = {}
        self.contradictions: dict[str, Any] = {}
        self.references: dict[tuple[str, str, str, str, str], Any] = {}
        self.entities: dict[tuple[str, str], dict[str, Any]] = {}
        self.prompts: list[Any] = []
        self.uses: dict[str, Any] = {}

    def all_of(self, query: Any, limit: int, *args: Any, **kwargs: Any) -> list[Any]:
        """Every page of a listing, joined."""
        items: list[Any] = []
        cursor = None
        for _ in range(1000):
            page = query(self.store.txn, *args, limit=limit, cursor=cursor, **kwargs)
            items += page.items
            if (cursor := page.next_cursor) is None:
                return items
        raise AssertionError("a listing has no end")

    # -- what is done ---------------------------------------------------------------------------

    @rule(
        case=CASES,
        tool=TOOLS,
        policy=POLICIES,
        node=NODES,
        at=MOMENTS,
        success=st.booleans(),
        latency=LATENCIES,
        with_node=st.booleans(),
        count=st.integers(1, 4),
    )
    def store_result(
        self,
        case: str,
        tool: str,
        policy: Any,
        node: str,
        at: Any,
        success: bool,
        latency: Any,
        with_node: bool,
        count: int,
    ) -> None:
        for number in range(count):
            self.store_one_result(
                case, tool, policy, node if with_node else None, at, success, latency, number
            )

    def store_one_result(
        self,
        case: str,
        tool: str,
        policy: Any,
        node: Any,
        at: Any,
        success: bool,
        latency: Any,
        number: int,
    ) -> None:
        stored = self.store.run(
            tool_results.store_tool_result,
            case,
            tool,
            {"number": number},
            success=success,
            latency_ms=latency,
            policy_id=policy,
            node_id=None if policy is None else node,
            executed_at=at + timedelta(hours=number),
        )
        assert stored.tool_result_id not in self.results
        self.results[stored.tool_result_id] = stored

    @rule(case=CASES, policy=POLICIES, at=MOMENTS, steps=STEPS, confidence=CONFIDENCES)
    def store_trajectory(
        self, case: str, policy: Any, at: Any, steps: list[list[str]], confidence: Any
    ) -> None:
        stored = self.store.run(
            trajectories.store_trajectory,
            case,
            [{"node_ids": nodes} for nodes in steps],
            policy_id=policy,
            started_at=at,
            confidence=confidence,
        )
        assert stored.trajectory_id not in self.trajectories
        self.trajectories[stored.trajectory_id] = stored

    @precondition(lambda self: self.trajectories)
    @rule(data=st.data(), nodes=st.lists(NODES, max_size=3), confidence=CONFIDENCES)
    def go_on(self, data: Any, nodes: list[str], confidence: Any) -> None:
        id = data.draw(st.sampled_from(sorted(self.trajectories)))
        if self.trajectories[id].completed_at is not None:
            return
        self.store.run(trajectories.append_step, id, {"node_ids": nodes})
        if confidence is not None:
            self.store.run(trajectories.complete_trajectory, id, confidence=confidence)
        self.trajectories[id] = trajectories.get_trajectory(self.store.txn, id)
        assert self.trajectories[id].steps[-1].node_ids == tuple(nodes)

    @rule(
        case=CASES,
        criterion=NODES,
        places=st.lists(st.tuples(POLICIES, NODES), min_size=1, max_size=3),
        resolve=st.booleans(),
    )
    def store_contradiction(
        self, case: str, criterion: str, places: list[Any], resolve: bool
    ) -> None:
        evidence = [{"policy_id": p, "node_id": n} if p is not None else {} for p, n in places]
        stored = self.store.run(contradictions.store_contradiction, case, criterion, evidence)
        if resolve:
            stored = self.store.run(
                contradictions.resolve_contradiction, stored.contradiction_id, "so"
            )
        self.contradictions[stored.contradiction_id] = stored

    @rule(edges=st.lists(EDGES, min_size=1, max_size=6), context=st.sampled_from(["", "x"]))
    def refer(self, edges: list[Any], context: str) -> None:
        for source, policy, to, relation in edges:
            key = ("p", source, policy, to, relation)
            if key[:2] != key[2:4]:
                self.store.run(references.store_cross_reference, *key, context=context)
                self.references[key] = context

    @rule(edges=st.lists(EDGES, max_size=6), context=st.sampled_from(["", "x"]))
    def refer_at_once(self, edges: list[Any], context: str) -> None:
        keys = {
            ("p", source, policy, to, relation): context
            for source, policy, to, relation in edges
            if ("p", source) != (policy, to)
        }
        given = [dict(zip(EDGE_FIELDS, key, strict=True)) | {"context": context} for key in keys]
        assert self.store.run(references.store_cross_references, given) == len(keys)
        self.references |= keys

    @rule(source=NODES, to=NODES, relation=RELATIONS)
    def stop_referring(self, source: str, to: str, relation: str) -> None:
        key = ("p", source, "p\0", to, relation)
        gone = self.store.run(references.delete_cross_reference, *key)
        assert gone is (self.references.pop(key, None) is not None)

    @rule(node=NODES, direction=st.sampled_from(["both", "out", "in"]))
    def forget_references(self, node: str, direction: Any) -> None:
        doomed = [
            key
            for key in self.references
            if (direction != "in" and key[:2] == ("p", node))
            or (direction != "out" and key[2:4] == ("p", node))
        ]
        removed = self.store.run(references.delete_cross_references, "p", node, direction=direction)
        assert removed == len(doomed)
        for key in doomed:
            del self.references[key]

    @rule(id=NODES, key=NODES, value=st.sampled_from([1, "x", None, {"a": [1]}]))
    def set_metadata(self, id: str, key: str, value: Any) -> None:
        self.store.run(entities.set_metadata, "t", id, key, value)
        self.entities.setdefault(("t", id), {})[key] = value

    @rule(id=NODES, key=st.none() | NODES)
    def delete_metadata(self, id: str, key: Any) -> None:
        before = self.entities.get(("t", id), {})
        expected = bool(before) if key is None else key in before
        assert self.store.run(entities.delete_metadata, "t", id, key) is expected
        if key is None:
            before.clear()
        else:
            before.pop(key, None)
        if not before:
            self.entities.pop(("t", id), None)

    @rule(content=st.sampled_from(["x", "y"]), at=st.none() | MOMENTS)
    def store_prompt(self, content: str, at: Any) -> None:
        stored = self.store.run(versions.store, "prompt", content, deployed_at=at)
        if stored not in self.prompts:
            assert stored.version == len(self.prompts) + 1
            self.prompts.append(stored)
        else:
            assert stored == self.prompts[-1]

    @precondition(lambda self: self.prompts)
    @rule(
        data=st.data(),
        case=CASES,
        outcome=st.sampled_from([None, "success", "odd"]),
        latency=LATENCIES,
        at=MOMENTS,
    )
    def use_prompt(self, data: Any, case: str, outcome: Any, latency: Any, at: Any) -> None:
        version = data.draw(st.integers(1, len(self.prompts)))
        ids = data.draw(
            st.lists(st.sampled_from(sorted(self.results)), max_size=2)
            if self.results
            else st.just([])
        )
        stored = self.store.run(
            usage.record_usage,
            "prompt",
            version,
            case,
            outcome=outcome,
            latency_ms=latency,
            tool_result_ids=ids,
            used_at=at,
        )
        assert stored.tool_results_succeeded == sum(self.results[id].success for id in ids)
        self.uses[stored.usage_id] = stored

    @rule(case=CASES)
    def forget_case(self, case: str) -> None:
        kinds = (self.results, self.trajectories, self.contradictions)
        doomed = [(kind, id) for kind in kinds for id in kind if kind[id].case_id == case]
        assert self.store.run(removal.delete_case, case) == len(doomed)
        uses = [id for id in self.uses if self.uses[id].case_id == case]
        assert self.store.run(usage.delete_case, case) == len(uses)
        for kind, id in (*doomed, *((self.uses, id) for id in uses)):
            del kind[id]

    # -- what is read ---------------------------------------------------------------------------

    @rule(
        case=st.none() | CASES,
        tool=st.none() | TOOLS,
        policy=POLICIES,
        node=st.none() | NODES,
        first=st.none() | DAYS,
        last=st.none() | DAYS,
        limit=LIMITS,
        newest_first=st.booleans(),
        success=st.none() | st.booleans(),
    )
    def list_results(
        self,
        case: Any,
        tool: Any,
        policy: Any,
        node: Any,
        first: Any,
        last: Any,
        limit: int,
        newest_first: bool,
        success: Any,
    ) -> None:
        if policy is None:
            node = None
        if first is not None and last is not None and last < first:
            first, last = last, first
        found = self.all_of(
            tool_results.get_tool_results,
            limit,
            case,
            tool_name=tool,
            policy_id=policy,
            node_id=node,
            success=success,
            since=None if first is None else day(first),
            until=None if last is None else day(last),
            newest_first=newest_first,
        )
        assert found == [
            one
            for id, one in sorted(self.results.items(), reverse=newest_first)
            if case in (None, one.case_id)
            and tool in (None, one.tool_name)
            and policy in (None, one.policy_id)
            and node in (None, one.node_id)
            and success in (None, one.success)
            and (first is None or one.executed_at.date() >= day(first))
            and (last is None or one.executed_at.date() <= day(last))
        ]
        for before, after in pairwise(found):
            assert (before.executed_at <= after.executed_at) or newest_first

    @rule(limit=LIMITS, newest_first=st.booleans())
    def page_through(self, limit: int, newest_first: bool) -> None:
        """Everything there is, so that there are many pages."""
        for query, kept in (
            (tool_results.get_tool_results, self.results),
            (contradictions.get_contradictions, self.contradictions),
            (usage.get_usage, self.uses),
        ):
            items = self.all_of(query, limit, newest_first=newest_first)
            assert items == [one for _, one in sorted(kept.items(), reverse=newest_first)]

    @rule(first=DAYS, last=DAYS, limit=LIMITS)
    def tool_stats(self, first: int, last: int, limit: int) -> None:
        first, last = min(first, last), max(first, last)
        found = self.all_of(tool_statistics.tool_stats, limit, since=day(first), until=day(last))
        wanted = [
            one
            for one in self.results.values()
            if day(first) <= one.executed_at.date() <= day(last)
        ]
        assert [one.tool_name for one in found] == sorted({one.tool_name for one in wanted})
        for stats in found:
            runs = [one for one in wanted if one.tool_name == stats.tool_name]
            latencies = [one.latency_ms for one in runs if one.latency_ms is not None]
            assert stats.count == len(runs)
            assert stats.success_count == sum(one.success for one in runs)
            assert stats.latency_count == len(latencies)
            assert stats.first_day == min(one.executed_at.date() for one in runs)
            assert stats.last_day == max(one.executed_at.date() for one in runs)
            if latencies:
                self.close(stats, latencies)

    def close(self, stats: Any, latencies: list[float]) -> None:
        """Percentiles are within one percent, or half a microsecond."""
        assert stats.latency_mean_ms == pytest.approx(sum(latencies) / len(latencies), abs=0.0005)
        for name, fraction in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            exact = nearest_rank(latencies, fraction)
            found = getattr(stats, f"latency_{name}_ms")
            assert found == pytest.approx(exact, rel=0.01, abs=0.0005)

    @rule(case=st.none() | CASES, limit=LIMITS, newest_first=st.booleans())
    def list_trajectories(self, case: Any, limit: int, newest_first: bool) -> None:
        assert self.all_of(
            trajectories.get_trajectories, limit, case, newest_first=newest_first
        ) == [
            one
            for _, one in sorted(self.trajectories.items(), reverse=newest_first)
            if case in (None, one.case_id)
        ]

    @rule(policy=POLICIES, first=DAYS, last=DAYS, always=st.booleans())
    def trajectory_stats(self, policy: Any, first: int, last: int, always: bool) -> None:
        first, last = min(first, last), max(first, last)
        period = {} if always else {"since": day(first), "until": day(last)}
        stats = trajectory_statistics.trajectory_stats(
            self.store.txn, policy_id=policy, **period, top=3
        )
        wanted = [
            one
            for one in self.trajectories.values()
            if policy in (None, one.policy_id)
            and (always or day(first) <= one.started_at.date() <= day(last))
        ]
        visits = Counter(
            (one.policy_id, node)
            for one in wanted
            for step in one.steps
            for node in set(step.node_ids)
        )
        assert stats.count == len(wanted)
        assert stats.completed_count == sum(one.completed_at is not None for one in wanted)
        assert stats.step_count == sum(len(one.steps) for one in wanted)
        sure = [one.confidence for one in wanted if one.confidence is not None]
        assert stats.confidence_count == len(sure)
        if sure:
            assert stats.mean_confidence == pytest.approx(sum(sure) / len(sure), abs=1e-6)
        top = sorted(visits.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1]))
        assert [((one.policy_id, one.node_id), one.visits) for one in stats.nodes] == top[:3]

    @rule(
        case=st.none() | CASES,
        criterion=st.none() | NODES,
        policy=POLICIES,
        node=st.none() | NODES,
        resolved=st.none() | st.booleans(),
        limit=LIMITS,
    )
    def list_contradictions(
        self, case: Any, criterion: Any, policy: Any, node: Any, resolved: Any, limit: int
    ) -> None:
        if policy is None:
            node = None
        assert self.all_of(
            contradictions.get_contradictions,
            limit,
            case,
            criterion,
            policy_id=policy,
            node_id=node,
            resolved=resolved,
        ) == [
            one
            for _, one in sorted(self.contradictions.items())
            if case in (None, one.case_id)
            and criterion in (None, one.criterion_id)
            and resolved in (None, one.resolved)
            and (
                policy is None
                or any(
                    piece.policy_id == policy and node in (None, piece.node_id)
                    for piece in one.evidence
                )
            )
        ]

    @rule(
        node=NODES,
        policy=st.sampled_from(["p", "p\0"]),
        depth=st.integers(1, 5),
        limit=LIMITS,
        direction=st.sampled_from(["both", "out", "in"]),
        relation=st.none() | RELATIONS,
    )
    def walk(
        self, node: str, policy: str, depth: int, limit: int, direction: Any, relation: Any
    ) -> None:
        found = self.all_of(
            references.get_cross_references,
            limit,
            policy,
            node,
            max_depth=depth,
            direction=direction,
            relation=relation,
        )
        expected = brute_walk(self.references, (policy, node), depth, direction, relation)
        keys = [
            (
                one.source_policy_id,
                one.source_node_id,
                one.target_policy_id,
                one.target_node_id,
                one.relation,
            )
            for one in found
        ]
        assert dict(zip(keys, [one.depth for one in found], strict=True)) == expected
        assert len(keys) == len(set(keys))
        assert [one.depth for one in found] == sorted(one.depth for one in found)
        assert [one.context for one in found] == [self.references[key] for key in keys]

    @rule(limit=LIMITS, value=st.sampled_from([1, "x", {"a": [1]}]), key=NODES)
    def find_entities(self, limit: int, value: Any, key: str) -> None:
        found = self.all_of(entities.find_metadata, limit, "t", {key: value})
        assert {(one.entity_type, one.entity_id): one.metadata for one in found} == {
            name: values for name, values in self.entities.items() if values.get(key) == value
        }

    @rule(at=MOMENTS)
    def prompt_in_use(self, at: Any) -> None:
        deployed = [one for one in self.prompts if one.deployed_at <= at]
        if deployed:
            best = max(deployed, key=lambda one: (one.deployed_at, one.version))
            assert versions.get(self.store.txn, "prompt", as_of=at) == best

    @precondition(lambda self: self.prompts)
    @rule(limit=LIMITS)
    def prompts_and_uses(self, limit: int) -> None:
        assert self.all_of(versions.list_versions, limit, "prompt") == self.prompts
        assert self.all_of(usage.get_usage, limit) == [one for _, one in sorted(self.uses.items())]
        for stats in usage.effectiveness(self.store.txn, "prompt"):
            uses = [one for one in self.uses.values() if one.version == stats.version]
            assert self.all_of(
                usage.get_usage, limit, prompt_id="prompt", version=stats.version
            ) == sorted(uses, key=lambda one: one.usage_id)
            assert stats.uses == len(uses)
            assert stats.outcomes == dict(Counter(one.outcome for one in uses if one.outcome))
            assert stats.tool_results == sum(len(one.tool_result_ids) for one in uses)
            latencies = [one.latency_ms for one in uses if one.latency_ms is not None]
            if latencies:
                self.close(stats, latencies)

    @invariant()
    def everything_agrees(self) -> None:
        assert check_metadata(self.store.txn) == []
        assert check_prompts(self.store.txn) == []

    def teardown(self) -> None:
        for case in ("case", "case\0", "other"):
            self.store.run(removal.delete_case, case)
            self.store.run(usage.delete_case, case)
        self.store.run(references.delete_cross_references, "p")
        for _, id in list(self.entities):
            self.store.run(entities.delete_metadata, "t", id)
        if not self.prompts:
            assert self.store.is_empty()
        assert check_metadata(self.store.txn) == check_prompts(self.store.txn) == []
        if isinstance(self.store, EngineStore):
            self.store.close()


def brute_walk(
    edges: Any, start: tuple[str, str], max_depth: int, direction: str, relation: str | None
) -> dict[Any, int]:
    """Edge → smallest depth, by shortest distances to every node."""
    wanted = [edge for edge in edges if relation in (None, edge[4])]
    distance = {start: 0}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for edge in wanted:
            for near, far, way in ((edge[:2], edge[2:4], "out"), (edge[2:4], edge[:2], "in")):
                if near == node and direction in ("both", way) and far not in distance:
                    distance[far] = distance[node] + 1
                    queue.append(far)
    depths: dict[Any, int] = {}
    for edge in wanted:
        ends = []
        if direction != "in":
            ends.append(edge[:2])
        if direction != "out":
            ends.append(edge[2:4])
        near = [distance[end] + 1 for end in ends if end in distance]
        if near and min(near) <= max_depth:
            depths[edge] = min(near)
    return depths


class MetadataOnEngine(Metadata):
    make_store: ClassVar[type[Any]] = EngineStore


TestMetadata = Metadata.TestCase
TestMetadata.settings = settings(stateful_step_count=40)

TestMetadataOnEngine = pytest.mark.slow(MetadataOnEngine.TestCase)
TestMetadataOnEngine.settings = settings(stateful_step_count=30)


def test_ids_of_one_moment_are_numbered() -> None:
    store = FakeStore()
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    ids = [
        store.run(
            tool_results.store_tool_result, "c", "t", number, executed_at=moment
        ).tool_result_id
        for number in range(300)
    ]
    assert ids == sorted(set(ids))
    earlier = store.run(
        tool_results.store_tool_result, "c", "t", 0, executed_at=moment - timedelta(microseconds=1)
    )
    assert earlier.tool_result_id < ids[0]
