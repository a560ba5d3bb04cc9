"""A node is a struct that passes for a frozen attrs class."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import msgspec
import pytest

from treestore.model.documents import Node

FIELDS = [
    "policy_id",
    "version_id",
    "node_id",
    "parent_id",
    "title",
    "page_start",
    "page_end",
    "summary",
    "section_path",
    "depth",
    "child_ids",
    "metadata",
    "text",
]


def make_node(**fields: Any) -> Node:
    given = {"policy_id": "p", "version_id": "v", "node_id": "n", **fields}
    return Node(**given)


def test_what_attrs_says_of_the_class() -> None:
    assert attrs.has(Node)
    fields = attrs.fields_dict(attrs.resolve_types(Node))
    assert list(fields) == FIELDS
    assert fields["depth"].type is int
    assert fields["node_id"].default is attrs.NOTHING
    assert fields["child_ids"].default == ()
    assert isinstance(fields["metadata"].default, type(attrs.Factory(dict)))
    assert all(field.kw_only and field.init for field in fields.values())


def test_what_attrs_does_with_an_object() -> None:
    node = make_node(title="one", child_ids=("a", "b"), metadata={"x": 1})
    assert attrs.asdict(node) == {
        **{name: getattr(node, name) for name in FIELDS},
        "title": "one",
    }
    assert attrs.astuple(node)[:3] == ("p", "v", "n")
    other = attrs.evolve(node, title="two")
    assert (other.title, other.child_ids, node.title) == ("two", ("a", "b"), "one")
    assert other != node
    assert attrs.evolve(other, title="one") == node


def test_it_behaves_as_a_frozen_attrs_class() -> None:
    node = make_node(metadata={"x": [1]})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        node.title = "other"  # type: ignore[misc]  # pyright: ignore
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del node.title  # pyright: ignore
    with pytest.raises(TypeError):
        Node("p", "v", "n")  # type: ignore[call-arg]  # pyright: ignore
    for same in (pickle.loads(pickle.dumps(node)), copy.copy(node), copy.deepcopy(node)):
        assert same == node
        assert same is not node
    assert repr(node).startswith("Node(policy_id='p', version_id='v', node_id='n', parent_id=None")
    match node:
        case Node(node_id=found):
            assert found == "n"


def test_objects_do_not_share_their_metadata() -> None:
    one, two = make_node(), make_node()
    one.metadata["x"] = 1
    assert two.metadata == {}


def test_msgpack_both_ways_in_the_declared_order() -> None:
    node = make_node(text="t", child_ids=("a",), metadata={"x": None})
    record = msgspec.msgpack.encode(node)
    assert list(msgspec.msgpack.decode(record)) == FIELDS
    assert msgspec.msgpack.decode(record, type=Node) == node
