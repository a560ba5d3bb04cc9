"""Trajectories: the steps that an agent took for a case.

Keys (an ``id`` is a moment and a number, see `treestore.stores.records.ids`)::

    TRAJECTORIES id 00            -> head: the Trajectory up to and including the key "steps"
    TRAJECTORIES id 01 number     -> a TrajectoryStep
    TRAJECTORIES_BY_CASE case id  -> nothing; and once more with None for the case

A head, an array header and the steps as they are stored, joined, are a `Trajectory`: a step is
added without reading those before it, and a trajectory is read without decoding one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import attrs
import msgspec

from treestore.errors import InvalidArgument, NotFound
from treestore.model.metadata import Trajectory, TrajectoryStep
from treestore.model.page import Page
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import AFTER, packed_name, packed_node_id
from treestore.stores.json_values import JsonObject, check_inside, encode, shown
from treestore.stores.keys import Keyspace, pack
from treestore.stores.metadata import trajectory_statistics
from treestore.stores.metadata.tool_results import check_node
from treestore.stores.operation import Wire
from treestore.stores.records.fields import (
    to_confidence,
    to_count,
    to_json,
    to_json_object,
    to_name,
    to_name_or_none,
    to_text,
    to_text_or_none,
)
from treestore.stores.records.ids import key_of, new_id
from treestore.stores.records.listing import list_records
from treestore.stores.records.moments import Moment, Period, to_moment

STEPS_MAX: Final = 10_000
"""Steps of a trajectory."""

NODES_MAX: Final = 10_000
"""Nodes of a step."""

HEAD: Final = b"\x00"
STEP: Final = b"\x01"
_STEPS_KEY: Final = b"\xa5steps"
_NONE: Final = pack(None)

_STEP_FIELDS: Final = frozenset(field.name for field in attrs.fields(TrajectoryStep))


def as_map(value: Any) -> Any:
    """A model object as the dict that it travels as; anything else as it is."""
    return attrs.asdict(value, recurse=False) if attrs.has(type(value)) else value


def as_maps(values: Any) -> Any:
    """The same for each of a list."""
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
        return values
    return [as_map(value) for value in values]


_check_step = check_inside("action", "observation", "metadata")

Step = Annotated[
    TrajectoryStep | Mapping[str, Any], Wire(type=dict[str, Any], encode=as_map, check=_check_step)
]
"""A step, or a dict with its fields; what is left out has the defaults of `TrajectoryStep`."""

Steps = Annotated[
    Sequence[TrajectoryStep | Mapping[str, Any]],
    Wire(type=list[dict[str, Any]], encode=as_maps, check=_check_step),
]
"""A list of steps, each likewise."""


class Head(msgspec.Struct):
    """Of a trajectory, what its statistics and its place depend on."""

    trajectory_id: str
    case_id: str
    started_at: datetime
    policy_id: str | None = None
    completed_at: datetime | None = None
    confidence: float | None = None
    step_count: int = 0

    def index_keys(self) -> list[bytes]:
        """Every key of an index that leads to the trajectory."""
        id = key_of(self.trajectory_id, "trajectory_id")
        space = Keyspace.TRAJECTORIES_BY_CASE
        return [space + packed_name("case_id", self.case_id) + id, space + _NONE + id]


_decode_head = msgspec.msgpack.Decoder(Head).decode
_decode_map = msgspec.msgpack.Decoder(dict[str, Any]).decode


def decode_head(record: bytes) -> Head:
    """What is to be known of a stored head."""
    return _decode_head(record + b"\x90")


def _encode_head(fields: dict[str, Any]) -> bytes:
    """The map of a trajectory up to and including the key "steps"."""
    data: bytes = encode(fields)
    assert 0x80 < data[0] < 0x8F
    return bytes((data[0] + 1,)) + data[1:] + _STEPS_KEY


def _change_head(txn: Write, key: bytes, record: bytes, **changes: Any) -> bytes:
    """Write a head with other values of some fields; its new record."""
    before = decode_head(record)
    fields = _decode_map(record + b"\x90")
    del fields["steps"]
    fields.update(changes)
    record = _encode_head(fields)
    txn.put(key + HEAD, record)
    trajectory_statistics.count(txn, before, -1)
    trajectory_statistics.count(txn, decode_head(record), 1)
    return record


# --- steps -----------------------------------------------------------------------------------


@attrs.frozen
class _Step:
    """A step ready to be stored."""

    number: int
    record: bytes
    node_ids: list[str]
    timestamp: datetime | None


def _to_step(value: Any, where: str, default_number: int) -> _Step:
    value = as_map(value)
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{where} is a dict of a step's fields, not {type(value).__name__}.")
    unknown = [name for name in value if name not in _STEP_FIELDS]
    if unknown:
        known = ", ".join(sorted(_STEP_FIELDS))
        raise InvalidArgument(
            f"{where} has no field {shown(unknown[0])}; a step has {known} (put anything else into "
            f"metadata)."
        )
    number = to_count(value.get("step_number", default_number), f"{where}.step_number", 0, 10**9)
    node_ids = value.get("node_ids")
    if node_ids is None:
        node_ids = ()
    if isinstance(node_ids, str) or not isinstance(node_ids, list | tuple):
        raise InvalidArgument(f"{where}.node_ids is a list of node ids.")
    if len(node_ids) > NODES_MAX:
        raise InvalidArgument(f"{where} names {len(node_ids)} nodes; at most {NODES_MAX}.")
    for node_id in node_ids:
        packed_node_id(node_id)
    timestamp = value.get("timestamp")
    if timestamp is not None:
        timestamp = to_moment(timestamp, f"{where}.timestamp")
    fields = {
        "step_number": number,
        "tool_name": to_name_or_none(value.get("tool_name"), f"{where}.tool_name"),
        "action": to_json(value.get("action"), f"{where}.action"),
        "observation": to_json(value.get("observation"), f"{where}.observation"),
        "thought": to_text(value.get("thought") or "", f"{where}.thought"),
        "node_ids": list(node_ids),
        "timestamp": timestamp,
        "confidence": to_confidence(value.get("confidence"), f"{where}.confidence"),
        "metadata": to_json_object(value.get("metadata"), f"{where}.metadata"),
    }
    return _Step(number, encode(fields), list(node_ids), timestamp)


def _to_steps(values: Any) -> list[_Step]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise InvalidArgument(f"steps is a list of steps, not {type(values).__name__}.")
    if len(values) > STEPS_MAX:
        raise InvalidArgument(
            f"There are {len(values)} steps; a trajectory has at most {STEPS_MAX}."
        )
    steps: list[_Step] = []
    last = 0
    for index, value in enumerate(values):
        step = _to_step(value, f"steps[{index}]", last + 1)
        if steps and step.number <= last:
            raise InvalidArgument(
                f"steps[{index}] has number {step.number}, after one with {last}; numbers grow."
            )
        steps.append(step)
        last = step.number
    return steps


# --- operations ------------------------------------------------------------------------------


def store_trajectory(
    txn: Write,
    case_id: str,
    steps: Steps,
    *,
    policy_id: str | None = None,
    version_id: str | None = None,
    started_at: Moment | None = None,
    completed_at: Moment | None = None,
    confidence: float | None = None,
    outcome: str | None = None,
    metadata: JsonObject | None = None,
) -> Trajectory:
    """Record how an agent went about a case; the answer has the new ``trajectory_id``.

    Args:
        case_id: the case.
        steps: what it did, in order: up to 10,000 `TrajectoryStep` or dicts with their fields
            (``tool_name``, ``action``, ``observation``, ``thought``, ``node_ids``, ``timestamp``,
            ``confidence``, ``metadata``). ``step_number`` counts from 1 where it is left out, and
            has to grow. May be empty: see `append_step`.
        policy_id: the policy whose nodes the steps name; it need not be stored.
        version_id: the version of that policy.
        started_at: None: the first step's time, or now.
        completed_at: None: it is still under way.
        confidence: in the outcome, from 0 to 1.
        outcome: what it came to.
        metadata: whatever else there is to know, JSON-like.

    Raises:
        InvalidArgument: a step is wrong, a value is no JSON, or it ends before it starts; the
            message names the step.
    """
    check_node(policy_id, None, version_id)
    ready = _to_steps(steps)
    at = txn.now
    if started_at is not None:
        at = to_moment(started_at, "started_at")
    elif ready and ready[0].timestamp is not None:
        at = ready[0].timestamp
    fields = {
        "trajectory_id": "",
        "case_id": to_name(case_id, "case_id"),
        "policy_id": policy_id,
        "version_id": version_id,
        "started_at": at,
        "completed_at": _completion(completed_at, at),
        "confidence": to_confidence(confidence),
        "outcome": to_text_or_none(outcome, "outcome"),
        "metadata": to_json_object(metadata, "metadata"),
        "step_count": len(ready),
    }
    id = fields["trajectory_id"] = new_id(txn, Keyspace.TRAJECTORIES, at)
    record = _encode_head(fields)
    head = decode_head(record)
    key = Keyspace.TRAJECTORIES + key_of(str(id), "trajectory_id")
    txn.put(key + HEAD, record)
    for step in ready:
        txn.put(key + STEP + pack(step.number), step.record)
    for entry in head.index_keys():
        txn.put(entry, b"")
    trajectory_statistics.count(txn, head, 1)
    trajectory_statistics.count_visits(txn, head, [step.node_ids for step in ready], 1)
    return txn.load(Trajectory, _joined(record, [step.record for step in ready]))


def _completion(value: Any, started_at: datetime) -> datetime | None:
    if value is None:
        return None
    at = to_moment(value, "completed_at", last=True)
    if at < started_at:
        raise InvalidArgument(f"completed_at ({value}) lies before started_at ({started_at}).")
    return at


def append_step(txn: Write, trajectory_id: str, step: Step) -> TrajectoryStep:
    """Add a step to a trajectory that is under way.

    Args:
        trajectory_id: what `store_trajectory` answered.
        step: as there; its number follows the last one, unless it is given.

    Raises:
        NotFound: there is no such trajectory.
        InvalidArgument: the step is wrong, its number does not come after the last one's, or the
            trajectory is complete.
    """
    key, record = _find(txn, trajectory_id)
    head = decode_head(record)
    if head.completed_at is not None:
        raise InvalidArgument(f"Trajectory {trajectory_id!r} is complete; start another one.")
    if head.step_count >= STEPS_MAX:
        raise InvalidArgument(f"Trajectory {trajectory_id!r} has {STEPS_MAX} steps, the most.")
    last = 0
    for _, stored in txn.scan(key + STEP, key + AFTER, reverse=True):
        last = int(_decode_map(stored)["step_number"])
        break
    ready = _to_step(step, "step", last + 1)
    if head.step_count and ready.number <= last:
        raise InvalidArgument(f"The step has number {ready.number}; the last one has {last}.")
    txn.put(key + STEP + pack(ready.number), ready.record)
    _change_head(txn, key, record, step_count=head.step_count + 1)
    trajectory_statistics.count_visits(txn, head, [ready.node_ids], 1)
    return txn.load(TrajectoryStep, ready.record)


def complete_trajectory(
    txn: Write,
    trajectory_id: str,
    *,
    completed_at: Moment | None = None,
    confidence: float | None = None,
    outcome: str | None = None,
) -> Trajectory:
    """Say that a trajectory has ended, and with what.

    Args:
        trajectory_id: what `store_trajectory` answered.
        completed_at: None: now.
        confidence: in the outcome, from 0 to 1; None leaves what was stated before.
        outcome: what it came to; None likewise.

    Raises:
        NotFound: there is no such trajectory.
        InvalidArgument: it is complete already, or would end before it starts.
    """
    key, record = _find(txn, trajectory_id)
    head = decode_head(record)
    if head.completed_at is not None:
        raise InvalidArgument(
            f"Trajectory {trajectory_id!r} was completed at {head.completed_at.isoformat()}."
        )
    changes: dict[str, Any] = {
        "completed_at": max(txn.now, head.started_at)
        if completed_at is None
        else _completion(completed_at, head.started_at)
    }
    if confidence is not None:
        changes["confidence"] = to_confidence(confidence)
    if outcome is not None:
        changes["outcome"] = to_text(outcome, "outcome")
    record = _change_head(txn, key, record, **changes)
    return txn.load(Trajectory, _whole(txn, key, record))


def get_trajectory(txn: Read, trajectory_id: str) -> Trajectory:
    """One trajectory with its steps.

    Raises:
        NotFound: there is none with this id.
    """
    key, record = _find(txn, trajectory_id)
    return txn.load(Trajectory, _whole(txn, key, record))


def get_trajectories(
    txn: Read,
    case_id: str | None = None,
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    newest_first: bool = False,
    include_steps: bool = True,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[Trajectory]:
    """Trajectories by their start, the oldest first, with all of their steps.

    Args:
        case_id: only those of this case.
        since: only those that started then or later; of a day, from its start (UTC).
        until: only those that started then or before; of a day, to its end.
        newest_first: the other way round.
        include_steps: False leaves ``steps`` empty (not ``step_count``).
        limit: at most this many, 1 to 10,000.
        cursor: ``next_cursor`` of the page before; stays good while others write.
    """
    case = _NONE if case_id is None else packed_name("case_id", case_id)

    def load(id: bytes, _: bytes) -> Trajectory:
        key = Keyspace.TRAJECTORIES + id
        record = txn.get(key + HEAD)
        assert record is not None
        return txn.load(Trajectory, _whole(txn, key, record) if include_steps else record + b"\x90")

    return list_records(
        txn,
        index=Keyspace.TRAJECTORIES_BY_CASE + case,
        period=Period.of(since, until),
        scope=("trajectories", case_id),
        limit=limit,
        cursor=cursor,
        newest_first=newest_first,
        load=load,
    )


def delete_trajectories(txn: Write, case_id: str) -> int:
    """Remove a case's trajectories and what they add to the statistics; how many there were."""
    index = Keyspace.TRAJECTORIES_BY_CASE + packed_name("case_id", case_id)
    keys = [
        Keyspace.TRAJECTORIES + key[len(index) :] for key, _ in txn.scan(index, index + b"\xff")
    ]
    for key in keys:
        record = txn.get(key + HEAD)
        assert record is not None
        head = decode_head(record)
        visits = [
            _decode_map(step)["node_ids"] for _, step in txn.scan(key + STEP, key + STEP + AFTER)
        ]
        trajectory_statistics.count(txn, head, -1)
        trajectory_statistics.count_visits(txn, head, visits, -1)
        for entry in head.index_keys():
            txn.delete(entry)
        txn.delete_range(key + HEAD, key + STEP + AFTER)
    return len(keys)


def _find(txn: Read, trajectory_id: str) -> tuple[bytes, bytes]:
    """A trajectory's key, and its head."""
    key = Keyspace.TRAJECTORIES + key_of(trajectory_id, "trajectory_id")
    record = txn.get(key + HEAD)
    if record is None:
        raise NotFound(f"There is no trajectory {trajectory_id!r}.", ids=[trajectory_id])
    return key, record


def _whole(txn: Read, key: bytes, head: bytes) -> bytes:
    return _joined(head, [step for _, step in txn.scan(key + STEP, key + STEP + AFTER)])


def _joined(head: bytes, steps: list[bytes]) -> bytes:
    return b"".join((head, b"\xdd", len(steps).to_bytes(4, "big"), *steps))
