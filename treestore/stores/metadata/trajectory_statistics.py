"""What trajectories come to, kept by policy and day.

``TRAJECTORY_STATISTICS policy day`` counts the trajectories that started on a UTC day,
``NODE_VISITS policy day node`` the steps of these that name a node. ``policy`` is None for those
that name no policy. Both are written with each step, so statistics cost as many rows as there are
policies, days and nodes, however many trajectories.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Protocol

import msgspec

from treestore.model.metadata import NodeVisits, TrajectoryStats
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import AFTER, packed_name, packed_node_id
from treestore.stores.json_values import encode
from treestore.stores.keys import Keyspace, pack, successor, unpack, unpack_one
from treestore.stores.records.fields import to_count
from treestore.stores.records.moments import Moment, days_of

NODES_TOP_MAX = 1000
"""Nodes of an answer."""

_CONFIDENCE_UNIT = 1_000_000
"""Confidences are summed up in millionths, so that they can be taken out again exactly."""


class Row(msgspec.Struct, array_like=True):
    """Trajectories, counted."""

    count: int = 0
    completed_count: int = 0
    step_count: int = 0
    confidence_count: int = 0
    confidence_sum: int = 0

    def add(self, other: Row, times: int = 1) -> None:
        """Count what ``other`` has, or take it out."""
        self.count += times * other.count
        self.completed_count += times * other.completed_count
        self.step_count += times * other.step_count
        self.confidence_count += times * other.confidence_count
        self.confidence_sum += times * other.confidence_sum


class Counted(Protocol):
    """What is to be known of a trajectory."""

    policy_id: str | None
    started_at: datetime
    completed_at: datetime | None
    confidence: float | None
    step_count: int


decode_row = msgspec.msgpack.Decoder(Row).decode
decode_visits = msgspec.msgpack.Decoder(int).decode


def _policy(policy_id: str | None) -> bytes:
    return pack(None) if policy_id is None else packed_name("policy_id", policy_id)


def row_of(head: Counted) -> tuple[bytes, Row]:
    """Where a trajectory counts, and as what."""
    key = Keyspace.TRAJECTORY_STATISTICS + _policy(head.policy_id) + pack(head.started_at.date())
    confidence = head.confidence
    return key, Row(
        1,
        int(head.completed_at is not None),
        head.step_count,
        int(confidence is not None),
        0 if confidence is None else round(confidence * _CONFIDENCE_UNIT),
    )


def visits_of(head: Counted, node_ids: list[list[str]]) -> Counter[bytes]:
    """Key of a row → visits in steps with these nodes. A step visits a node once."""
    prefix = Keyspace.NODE_VISITS + _policy(head.policy_id) + pack(head.started_at.date())
    return Counter(
        prefix + packed_node_id(node_id) for step in node_ids for node_id in dict.fromkeys(step)
    )


def count(txn: Write, head: Counted, times: int) -> None:
    """Count a trajectory, or with ``times`` of -1 take it out."""
    key, own = row_of(head)
    record = txn.get(key)
    row = Row() if record is None else decode_row(record)
    row.add(own, times)
    if row.count:
        txn.put(key, encode(row))
    else:
        txn.delete(key)


def count_visits(txn: Write, head: Counted, node_ids: list[list[str]], times: int) -> None:
    """Count the visits of some steps, or take them out."""
    for key, visits in visits_of(head, node_ids).items():
        record = txn.get(key)
        total = (0 if record is None else decode_visits(record)) + visits * times
        if total:
            txn.put(key, encode(total))
        else:
            txn.delete(key)


def trajectory_stats(
    txn: Read,
    *,
    policy_id: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    top: int = 10,
) -> TrajectoryStats:
    """How many trajectories there were, how long and how sure they were, and where they went.

    Kept up to date as steps are stored: the cost is that of a row for each policy and day, and one
    for each node visited on a day.

    Args:
        policy_id: only those of this policy; None: all of them.
        since: only those that started on this day or later (UTC); of a time, its whole day counts.
        until: only those that started on this day or before, likewise.
        top: how many of the nodes visited most to name, 0 to 1,000.
    """
    to_count(top, "top", 0, NODES_TOP_MAX)
    days = days_of(since, until)
    total = Row()
    for _, record in _rows(txn, Keyspace.TRAJECTORY_STATISTICS, policy_id, days):
        total.add(decode_row(record))
    visits: Counter[bytes] = Counter()
    if top:
        for key, record in _rows(txn, Keyspace.NODE_VISITS, policy_id, days):
            txn.spend(1)
            _, at = unpack_one(key, 1)
            # Without the day (four bytes), so that those of all days come together.
            visits[key[1:at] + key[at + 4 :]] += decode_visits(record)
    most = heapq.nsmallest(top, visits.items(), key=lambda item: (-item[1], item[0]))
    return TrajectoryStats(
        count=total.count,
        completed_count=total.completed_count,
        step_count=total.step_count,
        mean_steps=total.step_count / total.count if total.count else None,
        confidence_count=total.confidence_count,
        mean_confidence=(
            total.confidence_sum / total.confidence_count / _CONFIDENCE_UNIT
            if total.confidence_count
            else None
        ),
        nodes=tuple(_visits(key, count) for key, count in most),
    )


def _visits(key: bytes, count: int) -> NodeVisits:
    policy_id, node_id = unpack(key)
    assert policy_id is None or isinstance(policy_id, str)
    return NodeVisits(policy_id=policy_id, node_id=str(node_id), visits=count)


def _rows(
    txn: Read, space: bytes, policy_id: str | None, days: tuple[date, date]
) -> Iterator[tuple[bytes, bytes]]:
    """Rows of a keyspace whose day lies within ``days``; of one policy, or of all."""
    first, last = days
    if policy_id is not None:
        prefix = space + _policy(policy_id)
        yield from txn.scan(prefix + pack(first), prefix + pack(last) + AFTER)
        return
    end = successor(space)
    if (first, last) == (date.min, date.max):
        yield from txn.scan(space, end)
        return
    # A period of every policy: from one policy to the next.
    at: Any = space
    while found := next(txn.cursor(at, end), None):
        _, after = unpack_one(found[0], 1)
        prefix = found[0][:after]
        yield from txn.scan(prefix + pack(first), prefix + pack(last) + AFTER)
        at = prefix + AFTER
