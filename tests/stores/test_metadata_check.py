"""The checks of metadata and prompts notice every key that is missing, changed or too many."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.stores.fake import FakeStore
from treestore.stores.keys import Keyspace, pack
from treestore.stores.metadata import (
    contradictions,
    entities,
    references,
    tool_results,
    trajectories,
)
from treestore.stores.metadata.check import check_metadata
from treestore.stores.prompts import usage, versions
from treestore.stores.prompts.check import check_prompts


def filled() -> FakeStore:
    """A store with a little of everything."""
    store = FakeStore()
    for number in range(3):
        result = store.run(
            tool_results.store_tool_result,
            f"case{number % 2}",
            "search",
            {"number": number},
            latency_ms=5.0,
            policy_id="p",
            node_id="n",
        )
        trajectory = store.run(
            trajectories.store_trajectory, "case", [{"node_ids": ["n"]}, {}], confidence=0.5
        )
        store.run(trajectories.append_step, trajectory.trajectory_id, {"node_ids": ["m"]})
        store.run(references.store_cross_reference, "p", f"n{number}", "q", "m", "cites")
        made = store.run(
            contradictions.store_contradiction, "case", "k", [{"policy_id": "p", "node_id": "n"}]
        )
        store.run(contradictions.resolve_contradiction, made.contradiction_id, "so")
        store.run(entities.set_metadata, "t", f"{number}", "k", number)
        store.run(versions.store, "prompt", f"text {number}")
        store.run(
            usage.record_usage,
            "prompt",
            number + 1,
            "case",
            outcome="met",
            tool_result_ids=[result.tool_result_id],
        )
    return store


def problems(store: FakeStore) -> list[str]:
    return check_metadata(store.txn) + check_prompts(store.txn)


STORE = filled()
KEYS = [key for key in STORE.txn.keys if key[:1] != Keyspace.ENTITY_METADATA]
"""What is set freely on an entity is written once; whether it is there nothing else knows."""


def test_all_is_well() -> None:
    assert problems(STORE) == []
    # Every keyspace of these stores is there, so that none is left out below.
    spaces = {key[:1] for key in STORE.txn.keys}
    mine = {
        value
        for name, value in vars(Keyspace).items()
        if isinstance(value, bytes) and b"\x20" <= value <= b"\x3f"
    }
    assert spaces == mine


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.hex()[:24])
def test_a_missing_key_is_noticed(key: bytes) -> None:
    store = filled()
    store.txn.delete(key)
    assert problems(store)


@pytest.mark.parametrize("key", STORE.txn.keys, ids=lambda key: key.hex()[:24])
def test_a_record_of_nonsense_is_noticed(key: bytes) -> None:
    if STORE.txn.get(key) == b"":
        return  # An entry of an index, whose value nobody reads.
    store = filled()
    store.txn.put(key, b"\xc1")
    assert problems(store)


@pytest.mark.parametrize("key", STORE.txn.keys, ids=lambda key: key.hex()[:24])
def test_a_key_too_many_is_noticed(key: bytes) -> None:
    """The same value under a key that differs in its first name, or in its moment."""
    moved = key.replace(b"\x07case", b"\x07other").replace(b"\x07p", b"\x07pp")
    if moved == key:
        moved = key[:1] + pack(datetime(1999, 1, 1, tzinfo=UTC), 0) + key[11:]
    value = STORE.txn.get(key)
    assert value is not None
    store = filled()
    store.txn.put(moved, value)
    assert problems(store)


def test_wrong_counts_are_noticed() -> None:
    for space in (
        Keyspace.TOOL_STATISTICS,
        Keyspace.TRAJECTORY_STATISTICS,
        Keyspace.PROMPT_STATISTICS,
    ):
        store = filled()
        key, record = next(store.txn.scan(space, space + b"\xff"))
        store.txn.put(key, bytes((record[0], record[1] + 1)) + record[2:])
        assert len(problems(store)) == 1
