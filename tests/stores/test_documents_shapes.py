"""Whatever is stored comes back equal, in its own shape."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores.fake import FakeStore
from treestore.stores.documents import editing, reading, storing, structure
from treestore.stores.documents.check import check_documents
from treestore.stores.documents.source import BLOB_NODES_MAX, Chunked, to_blobs

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
PAGE = st.none() | st.integers(-5, 2000) | st.just(7.0)
STRING = st.none() | st.text(max_size=4)
OWN_KEYS = st.dictionaries(
    st.sampled_from(["line_num", "keywords", "id", "index", "depth", "child_ids", "version_id"])
    | st.text(max_size=2),
    JSON,
    max_size=3,
)
LEAF_KEYS: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {},
    optional={
        "title": STRING,
        "start_index": PAGE,
        "end_index": PAGE,
        "page_index": PAGE | st.just("<physical_index_12>"),
        "page_start": PAGE,
        "page_end": PAGE,
        "summary": STRING,
        "prefix_summary": STRING,
        "text": STRING | st.just("x" * 3000),
        "section_path": STRING,
        "metadata": st.none() | OWN_KEYS,
        "node_id": st.sampled_from([None, ""]),
        "nodes": st.sampled_from([None, []]),
    },
)
LEAVES = st.tuples(OWN_KEYS, LEAF_KEYS).map(lambda pair: {**pair[0], **pair[1]})


@st.composite
def forests(draw):
    """A list of nested nodes."""
    key = draw(st.sampled_from(["nodes", "child_nodes", "children"]))
    nodes = draw(st.lists(LEAVES, max_size=8))
    roots: list[dict[str, Any]] = []
    used: list[dict[str, Any]] = []
    for number, leaf in enumerate(nodes):
        node = dict(leaf)
        if draw(st.booleans()):
            node["node_id"] = f"id{number}"
        parent = draw(st.sampled_from([None, *used]))
        if parent is None:
            roots.append(node)
        else:
            # The best key that is there already is the one that is read.
            name = "nodes" if "nodes" in parent else key
            parent[name] = [*(parent.get(name) or []), node]
        used.append(node)
    return roots


WRAPPED = st.one_of(
    forests(),
    st.tuples(
        st.dictionaries(st.sampled_from(["doc_name", "id", "pages", "line_count"]), JSON),
        st.sampled_from(["structure", "result", "nodes", "children"]),
        forests(),
    ).map(lambda parts: {**parts[0], parts[1]: parts[2], "status": "completed"}),
)


def stored(given: Any) -> FakeStore:
    store = FakeStore()
    store.prepared(storing.store, "p", "v", given)
    return store


def strip_text(value: Any) -> Any:
    """The nodes of ``value`` without their texts."""
    if isinstance(value, list):
        return [strip_text(inside) for inside in value]
    out = {k: v for k, v in value.items() if k != "text"}
    for key in ("nodes", "child_nodes", "children"):
        if out.get(key):
            out[key] = strip_text(out[key])
            break
    return out


@given(WRAPPED)
def test_nested_structures_come_back(given):
    store = stored(given)
    written = structure.get_structure(store.txn, "p", include_text=True)
    assert written == given
    # Equal is not enough for JSON: True == 1 in Python.
    assert msgspec.json.encode(written, order="sorted").replace(b".0", b"") == msgspec.json.encode(
        given, order="sorted"
    ).replace(b".0", b"")
    assert check_documents(store.txn) == []
    arrived = FakeStore()
    arrived.prepared(storing.store, "p", "v", Chunked(to_blobs(given)))
    assert arrived.txn.data == store.txn.data
    if isinstance(given, list):
        assert structure.get_structure(store.txn, "p") == strip_text(given)


@st.composite
def flat_lists(draw):
    """A flat list in any order."""
    count = draw(st.integers(2, 9))
    nodes = []
    for number in range(count):
        parent = draw(st.none() | st.just("") | st.integers(0, number - 1)) if number else None
        node = dict(draw(LEAVES))
        node.pop("nodes", None)
        node["node_id"] = f"n{number}"
        node["parent_id"] = f"n{parent}" if isinstance(parent, int) else parent
        nodes.append(node)
    nodes[-1]["parent_id"] = "n0"
    return draw(st.permutations(nodes))


@given(flat_lists(), st.booleans())
def test_flat_lists_come_back(given, wrapped):
    structured: Any = {"nodes": given, "x": 1} if wrapped else given
    store = stored(structured)
    assert structure.get_structure(store.txn, "p", include_text=True) == structured
    assert check_documents(store.txn) == []
    parents = {n["node_id"]: n["parent_id"] or None for n in given}
    for node in reading.get_subtree(store.txn, "p"):
        assert node.parent_id == parents[node.node_id]
        expected = [n["node_id"] for n in given if n["parent_id"] == node.node_id]
        assert list(node.child_ids) == expected
    arrived = FakeStore()
    arrived.prepared(storing.store, "p", "v", Chunked(to_blobs(structured)))
    assert arrived.txn.data == store.txn.data


@given(flat_lists(), st.integers(0, 100))
def test_an_edited_flat_list_stores_the_same_tree_again(given, number):
    store = stored(given)
    name = given[number % len(given)]["node_id"]
    store.run(editing.move_node, "p", name, parent_id=None, index=0)
    store.run(editing.insert_nodes, "p", [{"title": "new", "parent_id": name, "index": 0}])
    again = stored(structure.get_structure(store.txn, "p", include_text=True))

    def facts(txn):
        return [(n.node_id, n.parent_id, n.title, n.text) for n in reading.get_subtree(txn, "p")]

    assert facts(again.txn) == facts(store.txn)
    assert check_documents(store.txn) == []


@pytest.mark.parametrize(
    "given",
    [
        [],
        {"structure": []},
        {"doc_name": "one root", "structure": {"title": "root", "nodes": [{"title": "x"}]}},
        {"title": "a node itself", "nodes": [{"title": "x"}], "start_index": 1},
        {"doc_id": "pi-1", "status": "completed", "result": [{"title": "x", "page_index": 3}]},
        [{"title": "a", "children": ["names", "of", "things"], "nodes": []}],
        [{"node_id": "a", "parent_id": None}, {"node_id": "b", "parent_id": "a", "children": []}],
        [
            {
                "title": "both",
                "summary": "s",
                "prefix_summary": "p",
                "foo": 1,
                "metadata": {"foo": 2},
            }
        ],
        [{}],
    ],
    ids=repr,
)
def test_shapes(given):
    store = stored(given)
    assert structure.get_structure(store.txn, "p", include_text=True) == given
    assert check_documents(store.txn) == []


def test_fields_are_found_under_every_name():
    for start, end in (("start_index", "end_index"), ("page_start", "page_end")):
        store = stored([{"title": "t", start: 3, end: 5, "text": "x", "prefix_summary": "s"}])
        node = reading.get_node(store.txn, "p", "0000")
        assert (node.page_start, node.page_end, node.summary, node.text) == (3, 5, "s", "x")
    for key, value in (("page_index", 4), ("physical_index", "<physical_index_4>")):
        node = reading.get_node(stored([{key: value}]).txn, "p", "0000")
        assert (node.page_start, node.page_end, node.metadata) == (4, 4, {})
    node = reading.get_node(
        stored([{"line_num": 9, "x": [1], "metadata": {"y": 2}}]).txn, "p", "0000"
    )
    assert node.metadata == {"line_num": 9, "x": [1], "y": 2}
    assert node.page_start is None


def test_ids_are_assigned_in_reading_order_without_clashes():
    store = stored(
        [
            {"title": "a", "nodes": [{"title": "b"}, {"title": "c", "node_id": "0001"}]},
            {"title": "d"},
        ]
    )
    ids = [node.node_id for node in reading.get_subtree(store.txn, "p")]
    assert ids == ["0000", "0004", "0001", "0003"]
    new = store.run(editing.insert_nodes, "p", [{"title": "e"}, {"title": "f"}])
    assert [node.node_id for node in new] == ["0005", "0006"]


def test_edits_show_up_in_the_document_s_own_style():
    given = {
        "doc_name": "x",
        "structure": [
            {"title": "a", "start_index": 1, "end_index": 2, "node_id": "0000", "kind": None},
            {"title": None, "node_id": "0001", "child_nodes": [{"title": "c", "node_id": "0002"}]},
        ],
    }
    store = stored(given)
    store.run(editing.update_node, "p", "0000", summary="s", page_end=None, metadata={"who": 1})
    store.run(editing.update_node, "p", "0001", title="b")
    store.run(
        editing.insert_nodes,
        "p",
        [{"title": "d", "page_start": 4, "page_end": 5, "parent_id": "0000", "note": "n"}],
    )
    store.run(editing.delete_node, "p", "0002")
    assert structure.get_structure(store.txn, "p", include_text=True) == {
        "doc_name": "x",
        "structure": [
            {
                "title": "a",
                "start_index": 1,
                "end_index": None,
                "node_id": "0000",
                "who": 1,
                "summary": "s",
                "child_nodes": [
                    {"title": "d", "start_index": 4, "end_index": 5, "note": "n", "node_id": "0003"}
                ],
            },
            {"title": "b", "node_id": "0001", "child_nodes": []},
        ],
    }


def test_nodes_of_one_batch_may_name_each_other():
    store = stored([{"title": "a", "node_id": "a"}])
    store.run(
        editing.insert_nodes,
        "p",
        [
            {"node_id": "z", "parent_id": "y"},
            {"node_id": "y", "parent_id": "a", "nodes": [{"node_id": "x"}]},
            {"node_id": "w", "parent_id": "y", "index": 0},
            {"node_id": "r", "index": 0},
        ],
    )
    nodes = reading.get_subtree(store.txn, "p")
    assert [(n.node_id, n.section_path) for n in nodes] == [
        ("r", "1"), ("a", "2"), ("y", "2.1"), ("w", "2.1.1"), ("x", "2.1.2"), ("z", "2.1.3"),
    ]  # fmt: skip
    assert check_documents(store.txn) == []


def test_blobs_are_small():
    nodes = [{"title": str(i), "text": "x" * (300_000 if i == 500 else 10)} for i in range(1000)]
    blobs = to_blobs(nodes)
    sizes = [len(msgspec.msgpack.decode(blob)) // 2 for blob in blobs[1:]]
    assert sum(sizes) == 1000
    assert max(sizes) == BLOB_NODES_MAX
    assert sizes.count(1) >= 1
    assert max(map(len, blobs)) < 300_100


def test_a_given_section_path_wins_and_stays():
    store = stored(
        [{"title": "a"}, {"title": "b", "section_path": "§ 5", "nodes": [{"title": "c"}]}]
    )
    store.run(editing.insert_nodes, "p", [{"title": "new", "index": 0}])
    paths = [node.section_path for node in reading.get_subtree(store.txn, "p")]
    assert paths == ["1", "2", "§ 5", "3.1"]
    store.run(editing.update_node, "p", "0001", section_path=None)
    assert reading.get_node(store.txn, "p", "0001").section_path == "3"
    assert check_documents(store.txn) == []
