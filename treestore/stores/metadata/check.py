"""Verifies that everything stored as metadata agrees with itself: see docs/metadata.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from treestore.errors import TreeStoreError
from treestore.model.metadata import (
    Contradiction,
    CrossReference,
    EntityMetadata,
    ToolResult,
    Trajectory,
    TrajectoryStep,
)
from treestore.stores.access import Read
from treestore.stores.keys import Keyspace, pack, successor, unpack
from treestore.stores.metadata import (
    contradictions,
    tool_results,
    tool_statistics,
    trajectories,
    trajectory_statistics,
)
from treestore.stores.metadata.reference_walk import key_in, key_out, parts_of
from treestore.stores.metadata.references import packed_node, packed_relation
from treestore.stores.metadata.trajectories import HEAD, STEP
from treestore.stores.records.check import (
    PROBLEMS_MAX,
    check_indexes,
    check_statistics,
    readable,
)
from treestore.stores.records.ids import key_of

_tool_result = msgspec.msgpack.Decoder(ToolResult).decode
_trajectory = msgspec.msgpack.Decoder(Trajectory).decode
_step = msgspec.msgpack.Decoder(TrajectoryStep).decode
_reference = msgspec.msgpack.Decoder(CrossReference).decode
_contradiction = msgspec.msgpack.Decoder(Contradiction).decode
_entity = msgspec.msgpack.Decoder(EntityMetadata).decode


def check_metadata(txn: Read) -> list[str]:
    """What is wrong with the stored metadata, a sentence each; empty when all is well."""
    problems: list[str] = []
    for name, check in (
        ("tool results", _check_tool_results),
        ("trajectories", _check_trajectories),
        ("cross references", _check_references),
        ("contradictions", _check_contradictions),
        ("free metadata", _check_entities),
    ):
        problems += readable(name, lambda check=check: check(txn))  # type: ignore[misc]
    return problems[:PROBLEMS_MAX]


def _check_tool_results(txn: Read) -> Iterator[str]:
    space = Keyspace.TOOL_RESULTS
    rows: dict[bytes, tool_statistics.Row] = {}
    wrong: list[str] = []

    def records() -> Iterator[tuple[bytes, tool_results.Brief]]:
        for key, record in txn.scan(space, successor(space)):
            _tool_result(record)
            brief = tool_results.decode_brief(record)
            if key != space + key_of(brief.tool_result_id, "tool_result_id"):
                wrong.append(f"The tool result at key {key.hex()} has another one's id.")
            row_key = tool_statistics.row_key(
                brief.tool_name, tool_statistics.day_of(brief.tool_result_id)
            )
            row = rows.setdefault(row_key, tool_statistics.Row())
            row.add(brief.success, brief.latency_ms, 1)
            yield key, brief

    def find(id: str) -> tool_results.Brief | None:
        record = _get(txn, space, id)
        return None if record is None else tool_results.decode_brief(record)

    indexes = (
        Keyspace.TOOL_RESULTS_BY_CASE,
        Keyspace.TOOL_RESULTS_BY_TOOL,
        Keyspace.TOOL_RESULTS_BY_NODE,
    )
    yield from check_indexes(txn, "tool result", records(), indexes, find)
    yield from wrong
    yield from check_statistics(
        txn, "tool's statistics", Keyspace.TOOL_STATISTICS, tool_statistics.decode_row, rows
    )


def _get(txn: Read, space: bytes, id: str, suffix: bytes = b"") -> bytes | None:
    try:
        return txn.get(space + key_of(id, "id") + suffix)
    except TreeStoreError:
        return None


class _Trajectories:
    """The check of all trajectories, with what their statistics should be."""

    def __init__(self, txn: Read) -> None:
        self.txn = txn
        self.problems: list[str] = []
        self.rows: dict[bytes, trajectory_statistics.Row] = {}
        self.visits: Counter[bytes] = Counter()

    def records(self) -> Iterator[tuple[bytes, trajectories.Head]]:
        """Every head, each after its steps were looked at."""
        space = Keyspace.TRAJECTORIES
        head: trajectories.Head | None = None
        at = b""
        steps: list[bytes] = []
        for key, record in self.txn.scan(space, successor(space)):
            if head is not None and key.startswith(at + STEP):
                if key != at + STEP + pack(_step(record).step_number):
                    self.problems.append(f"The step at key {key.hex()} has another number.")
                steps.append(record)
                continue
            if head is not None:
                self._close(at, head, steps)
                yield at, head
            head, steps = None, []
            if not key.endswith(HEAD):
                self.problems.append(f"The step at key {key.hex()} belongs to no trajectory.")
                continue
            _trajectory(record + b"\x90")
            head, at = trajectories.decode_head(record), key[: -len(HEAD)]
        if head is not None:
            self._close(at, head, steps)
            yield at, head

    def _close(self, key: bytes, head: trajectories.Head, steps: list[bytes]) -> None:
        if key != Keyspace.TRAJECTORIES + key_of(head.trajectory_id, "trajectory_id"):
            self.problems.append(f"The trajectory at key {key.hex()} has another one's id.")
        if head.step_count != len(steps):
            self.problems.append(
                f"Trajectory {head.trajectory_id} says it has {head.step_count} steps, but has "
                f"{len(steps)}."
            )
        row_key, row = trajectory_statistics.row_of(head)
        self.rows.setdefault(row_key, trajectory_statistics.Row()).add(row)
        self.visits += trajectory_statistics.visits_of(
            head, [list(_step(step).node_ids) for step in steps]
        )


def _check_trajectories(txn: Read) -> Iterator[str]:
    check = _Trajectories(txn)

    def find(id: str) -> trajectories.Head | None:
        record = _get(txn, Keyspace.TRAJECTORIES, id, HEAD)
        return None if record is None else trajectories.decode_head(record)

    yield from check_indexes(
        txn, "trajectory", check.records(), (Keyspace.TRAJECTORIES_BY_CASE,), find
    )
    yield from check.problems
    yield from check_statistics(
        txn,
        "trajectories' statistics",
        Keyspace.TRAJECTORY_STATISTICS,
        trajectory_statistics.decode_row,
        check.rows,
    )
    yield from check_statistics(
        txn,
        "node's visits",
        Keyspace.NODE_VISITS,
        trajectory_statistics.decode_visits,
        check.visits,
    )


def _check_references(txn: Read) -> Iterator[str]:
    out, into = Keyspace.CROSS_REFERENCES_OUT, Keyspace.CROSS_REFERENCES_IN
    for key, record in txn.scan(out, successor(out)):
        reference = _reference(record)
        own = (
            packed_node(reference.source_policy_id, reference.source_node_id)
            + packed_relation(reference.relation)
            + packed_node(reference.target_policy_id, reference.target_node_id)
        )
        if key[1:] != own or len(parts_of(key)) != 5:
            yield f"The reference at key {key.hex()} says that it is another one."
        elif txn.get(key_in(key)) is None:
            yield f"The reference at key {key.hex()} cannot be found from its target."
    for key, _ in txn.scan(into, successor(into)):
        if txn.get(key_out(key)) is None:
            yield f"Key {key.hex()} leads to a reference that is not stored."


def _check_contradictions(txn: Read) -> Iterator[str]:
    space = Keyspace.CONTRADICTIONS
    wrong: list[str] = []

    def records() -> Iterator[tuple[bytes, contradictions.Brief]]:
        for key, record in txn.scan(space, successor(space)):
            contradiction = _contradiction(record)
            if key != space + key_of(contradiction.contradiction_id, "contradiction_id"):
                wrong.append(f"The contradiction at key {key.hex()} has another one's id.")
            if contradiction.resolved is (contradiction.resolution is None):
                wrong.append(f"The contradiction at key {key.hex()} is settled, or not, wrongly.")
            yield key, contradictions.decode_brief(record)

    def find(id: str) -> contradictions.Brief | None:
        record = _get(txn, space, id)
        return None if record is None else contradictions.decode_brief(record)

    indexes = (Keyspace.CONTRADICTIONS_BY_CASE, Keyspace.CONTRADICTIONS_BY_NODE)
    yield from check_indexes(txn, "contradiction", records(), indexes, find)
    yield from wrong


def _check_entities(txn: Read) -> Iterator[str]:
    space = Keyspace.ENTITY_METADATA
    for key, record in txn.scan(space, successor(space)):
        entity: Any = _entity(record)
        if unpack(key[1:]) != (entity.entity_type, entity.entity_id) or not entity.metadata:
            yield f"The metadata at key {key.hex()} is of another entity, or empty."
