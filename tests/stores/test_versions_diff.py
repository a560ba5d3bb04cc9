"""Differences of random documents: they match the nodes, and applied to one they make the other."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.versions_check import check_diff, family_lists
from tests.stores.fake import FakeStore
from treestore.stores.documents import reading, storing
from treestore.stores.versions.diff import diff

FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "title": st.sampled_from(["", "Scope", "§ 1"]),
        "text": st.sampled_from(["short", "ä" * 700, "b" * 1500]),
        "summary": st.just("a summary"),
        "start_index": st.integers(1, 3),
        "kind": st.sampled_from([1, True, None, {"a": [1]}]),
        "section_path": st.sampled_from(["Art. 1", "Art. 2"]),
    },
)


@st.composite
def forests(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A flat list of nodes with ids of a small range, so that two of them share most."""
    order = draw(st.permutations([f"n{number}" for number in range(9)]))
    chosen = order[: draw(st.integers(0, 9))]
    nodes: list[dict[str, Any]] = []
    for at, node_id in enumerate(chosen):
        parent = draw(st.none() | st.integers(0, at - 1)) if at else None
        parent_id = None if parent is None else chosen[parent]
        nodes.append({"node_id": node_id, "parent_id": parent_id, **draw(FIELDS)})
    return nodes


@settings(deadline=None)
@given(forests(), forests())
def test_applied_to_one_it_makes_the_other(old: Any, new: Any) -> None:
    store = FakeStore()
    store.prepared(storing.store, "p", "a", old)
    store.prepared(storing.store, "p", "b", new)
    before = reading.get_subtree(store.txn, "p", version_id="a")
    after = reading.get_subtree(store.txn, "p", version_id="b")
    changes = diff(store.txn, "p", "a", "b")
    given_section = {n["node_id"]: n.get("section_path") for n in old}
    same_section = {
        n["node_id"] for n in new if given_section.get(n["node_id"]) == n.get("section_path")
    }
    sections = {
        change.node_id
        for change in changes
        for field in change.fields
        if field.name == "section_path"
    }
    assert sections == {n["node_id"] for n in new if n["node_id"] in given_section} - same_section
    plain = [c for c in changes if [field.name for field in c.fields] != ["section_path"]]
    check_diff(before, after, plain, "random trees", ignoring="section_path")
    order = [n.node_id for n in after]
    places = [order.index(c.node_id) for c in changes if c.kind != "removed"]
    assert places == sorted(places)
    moved = {c.node_id for c in changes if c.kind == "moved"}
    fewest(family_lists(before), family_lists(after), moved)


def fewest(old: dict[Any, list[str]], new: dict[Any, list[str]], moved: set[str]) -> None:
    """Of the children that stayed in a family, no fewer moves explain the new order."""
    for parent, children in new.items():
        stayed = [child for child in children if child in old.get(parent, [])]
        before = [child for child in old.get(parent, []) if child in stayed]
        longest = next(
            size
            for size in range(len(stayed), -1, -1)
            if set(combinations(stayed, size)) & set(combinations(before, size))
        )
        assert len(moved & set(stayed)) == len(stayed) - longest
