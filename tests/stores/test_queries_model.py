"""Reads across the stores against a look at everything, on random forests and references."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.stores.fake import FakeStore
from treestore.model.documents import Node
from treestore.stores.documents import editing, reading, storing
from treestore.stores.documents.layout import Place, packed_node_id
from treestore.stores.metadata import references
from treestore.stores.queries import batch, enriched, related

POLICY, VERSION, OTHER = "p", "v", "q"
PARENTS = st.lists(st.none() | st.integers(0, 30), min_size=1, max_size=25)
EDGES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from(["cites", "names"])),
    max_size=30,
)


def forest(parents: list[int | None]) -> list[dict[str, Any]]:
    """Flat nodes: each under an earlier one, or a root."""
    return [
        {
            "node_id": f"n{at}",
            "parent_id": None if parent is None or not at else f"n{parent % at}",
            "title": f"Title {at}",
            "text": "long text " * (200 if at % 3 == 0 else 1),
        }
        for at, parent in enumerate(parents)
    ]


def stored_forest(parents: list[int | None], moves: list[int]) -> FakeStore:
    """A store with the forest, some nodes moved in front so that ordinals are no longer even."""
    store = FakeStore()
    store.prepared(storing.store, POLICY, VERSION, forest(parents))
    store.prepared(storing.store, OTHER, VERSION, forest([None, 0]))
    for node in moves:
        node_id = f"n{node % len(parents)}"
        parent_id = store.run(reading.get_node, POLICY, node_id).parent_id
        store.run(editing.move_node, POLICY, node_id, parent_id=parent_id, index=0)
    return store


def nearest_first(node: Node, family: list[Node]) -> list[str]:
    at = family.index(node)
    after, before = family[at + 1 :], family[:at][::-1]
    found = []
    for number in range(max(len(after), len(before))):
        found += [
            other.node_id for other in (*after[number : number + 1], *before[number : number + 1])
        ]
    return found


@given(PARENTS, st.lists(st.integers(0, 24), max_size=5))
def test_neighbours_in_the_tree(parents: list[int | None], moves: list[int]) -> None:
    store = stored_forest(parents, moves)
    txn, place = store.txn, Place(POLICY, VERSION)
    nodes = reading.get_subtree(txn, POLICY)
    for position, node in enumerate(nodes):
        path = reading.path_of(txn, place, node.node_id)
        family = [other for other in nodes if other.parent_id == node.parent_id]
        assert ids(txn, related.siblings(txn, place, path)) == nearest_first(node, family)
        below = [other for other in nodes if path_starts(txn, place, other, path)]
        around = [] if node.parent_id is None else [("parent", node.parent_id)]
        around += [("child", child) for child in node.child_ids]
        after = position + len(below)
        around += [("next", other.node_id) for other in nodes[after : after + 1]]
        around += [("previous", nodes[position - 1].node_id)] if position else []
        context = list(related.context(txn, place, path))
        assert list(zip((c.detail for c in context), ids(txn, context), strict=True)) == around


def ids(txn: Any, candidates: Any) -> list[str]:
    found = list(candidates)
    nodes = related.load_related(txn, found, include_text=False)
    assert [item.reason for item in nodes] == [candidate.reason for candidate in found]
    return [item.node.node_id for item in nodes]


def path_starts(txn: Any, place: Place, node: Node, path: bytes) -> bool:
    return reading.path_of(txn, place, node.node_id).startswith(path)


@example([None, None], [(0, 1, "names"), (2, 1, "cites")])
@given(PARENTS, EDGES)
def test_references_and_whole_documents(
    parents: list[int | None], edges: list[tuple[int, int, str]]
) -> None:
    store = stored_forest(parents, [])
    for source, target, relation in edges:
        if source != target:
            # Beyond 30 the other policy's; some nodes do not exist.
            ends = [
                (POLICY, f"n{n}") if n <= 30 else (OTHER, f"n{n - 31}") for n in (source, target)
            ]
            store.run(
                references.store_cross_reference, *ends[0], *ends[1], relation, require_nodes=False
            )
    txn, place = store.txn, Place(POLICY, VERSION)
    whole = enriched.get_enriched(txn, POLICY)
    nodes = reading.get_subtree(txn, POLICY)
    assert whole.nodes == nodes
    expected = {}
    for node in nodes:
        listed = references.get_cross_references(txn, POLICY, node.node_id).items
        if listed:
            expected[node.node_id] = {repr(item) for item in listed}
    got = {name: {repr(item) for item in refs} for name, refs in whole.cross_references.items()}
    assert list(got) == list(expected)
    assert got == expected
    for node in nodes:
        alone = enriched.get_enriched(txn, POLICY, node_ids=[node.node_id])
        assert alone.nodes == [node]
        assert alone.cross_references == {
            name: refs for name, refs in whole.cross_references.items() if name == node.node_id
        }
        compare_related(txn, place, node, whole.cross_references.get(node.node_id, ()))


def compare_related(txn: Any, place: Place, node: Node, refs: Any) -> None:
    """Cross references lead to the far ends that are stored, each once."""
    candidates = related.cross_references(txn, place, packed_node_id(node.node_id))
    path = reading.path_of(txn, place, node.node_id)
    chosen = related.chosen(candidates, {place.nodes + path}, 100)
    found = [
        (item.node.policy_id, item.node.node_id)
        for item in related.load_related(txn, chosen, include_text=False)
    ]
    made = [ref for ref in refs if ref.direction == "out"]
    far = {(ref.target_policy_id, ref.target_node_id): None for ref in made}
    for ref in sorted(
        (ref for ref in refs if ref.direction == "in"),
        key=lambda ref: (ref.relation, ref.source_policy_id, ref.source_node_id),
    ):
        far.setdefault((ref.source_policy_id, ref.source_node_id))
    there = {(POLICY, other.node_id) for other in reading.get_subtree(txn, POLICY)}
    there |= {(OTHER, "n0"), (OTHER, "n1")}
    assert found == [end for end in far if end in there]


@given(PARENTS, st.lists(st.integers(0, 24), max_size=10))
def test_many_nodes_are_those_got_one_by_one(parents: list[int | None], asked: list[int]) -> None:
    store = stored_forest(parents, [])
    wanted = [(POLICY, None if n % 2 else VERSION, f"n{n % len(parents)}") for n in asked]
    wanted.append((OTHER, None, "n1"))
    assert batch.get_many(store.txn, wanted) == [
        reading.get_node(store.txn, policy_id, node_id, version_id=version_id)
        for policy_id, version_id, node_id in wanted
    ]


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"see_also": ["n2", "n1"]}, ["n2", "n1"]),
        ({"see_also": "n1", "references": [{"node_id": "n2"}]}, ["n1", "n2"]),
        ({"see_also": [None, 3, {}, [], "", "x" * 1000, "\ud800", "nowhere"]}, []),
        ({"see_also": {"node_id": "n1"}}, ["n1"]),
        ({}, []),
    ],
)
def test_see_also_takes_what_it_finds(metadata: dict[str, Any], found: list[str]) -> None:
    store = stored_forest([None, 0, 0], [])
    place = Place(POLICY, VERSION)
    assert ids(store.txn, related.see_also(store.txn, place, metadata)) == found
