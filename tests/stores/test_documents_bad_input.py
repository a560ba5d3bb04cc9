"""What cannot be stored or asked is refused in one clear sentence."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest

from tests.stores.fake import FakeStore
from treestore.errors import InvalidArgument, NotFound
from treestore.stores.documents import editing, reading, storing
from treestore.stores.documents.check import check_documents
from treestore.stores.documents.markdown import parse_markdown
from treestore.stores.documents.pages import PAGE_MAX
from treestore.stores.documents.source import Chunked, to_blobs


def deep(levels: int) -> dict[str, Any]:
    node: dict[str, Any] = {"title": "leaf"}
    for _ in range(levels - 1):
        node = {"title": "t", "nodes": [node]}
    return node


def deep_value(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


ENDLESS: dict[str, Any] = {"title": "snake"}
ENDLESS["nodes"] = [ENDLESS]

BAD_STRUCTURES: dict[str, tuple[Any, str]] = {
    "number": (5, "a number"),
    "string": ("[]", "a string"),
    "null": (None, "null"),
    "empty dict": ({}, "no nodes"),
    "dict without nodes": ({"doc_name": "x"}, "no nodes"),
    "nodes is a number": ({"structure": 7}, "a number"),
    "node is a string": (["x"], "is a string"),
    "node is null": ([{"title": "a"}, None], "Node number 2"),
    "nested node is a list": ([{"nodes": [[]]}], "is a list"),
    "children is a string": ([{"title": "T", "nodes": "abc"}], "'T'"),
    "children twice": ([{"nodes": [{}], "children": [{}]}], "both"),
    "title is a number": ([{"title": 5, "node_id": "n5"}], "'n5'"),
    "text is a list": ([{"text": ["a"]}], '"text"'),
    "summary is an object": ([{"summary": {}}], '"summary"'),
    "section_path is a number": ([{"section_path": 1.2}], "section_path"),
    "page is a string": ([{"start_index": "12"}], "start_index"),
    "page is a boolean": ([{"start_index": True}], "start_index"),
    "page is a fraction": ([{"end_index": 1.5}], "end_index"),
    "page is huge": ([{"start_index": PAGE_MAX + 1}], "start_index"),
    "page is infinite": ([{"start_index": float("inf")}], "start_index"),
    "node_id is a number": ([{"node_id": 1}], "node_id"),
    "node_id is too long": ([{"node_id": "x" * 257}], "257"),
    "ids twice": ([{"node_id": "a"}, {"node_id": "b", "nodes": [{"node_id": "a"}]}], "'a'"),
    "metadata is a list": ([{"metadata": []}], "metadata"),
    "metadata with bytes": ([{"x": {"y": b"1"}}], "bytes"),
    "metadata with a date": ([{"x": date(2024, 1, 1)}], "date"),
    "metadata with other keys": ([{"x": {1: 2}}], "keys are strings"),
    "node with other keys": ([{1: 2}], "keys are strings"),
    "metadata too deep": ([{"x": deep_value(150)}], "nested"),
    "a huge number": ([{"x": 2**64}], "64 bits"),
    "half a surrogate in a title": ([{"title": "\ud800"}], "surrogate"),
    "half a surrogate in an id": ([{"node_id": "\ud800"}], "surrogate"),
    "half a surrogate in metadata": ([{"x": ["\udfff"]}], "surrogate"),
    "half a surrogate in a key": ([{"\ud800": 1}], "surrogate"),
    "half a surrogate in the document": ({"doc_name": "\ud800", "structure": []}, "surrogate"),
    "a set in the document": ({"x": {1}, "structure": []}, "set"),
    "too deep": ([deep(201)], "200 levels"),
    "far too deep": ([deep(50_000)], "200 levels"),
    "endless": ([ENDLESS], "200 levels"),
    "unknown parent": ([{"node_id": "a", "parent_id": "zz"}], "'zz'"),
    "its own parent": ([{"node_id": "r"}, {"node_id": "a", "parent_id": "a"}], "'a'"),
    "a circle": (
        [{"node_id": "a", "parent_id": "c"}, {"node_id": "c", "parent_id": "a"}],
        "own ancestor",
    ),
    "parent_id is a number": ([{"node_id": "a"}, {"node_id": "b", "parent_id": 1}], "parent_id"),
    "flat and nested": (
        [{"node_id": "a"}, {"node_id": "b", "parent_id": "a", "nodes": [{"title": "c"}]}],
        "parent_id",
    ),
}


@pytest.mark.parametrize("name", BAD_STRUCTURES)
def test_bad_structures(name):
    given, sentence = BAD_STRUCTURES[name]
    store = FakeStore()
    with pytest.raises(InvalidArgument) as caught:
        store.prepared(storing.store, "p", "v", given)
    assert sentence in caught.value.message
    assert caught.value.message.endswith(".")
    assert len(caught.value.message) < 300
    caught.value.message.encode()  # so that it can be sent
    assert store.txn.data == {}


@pytest.mark.parametrize("name", BAD_STRUCTURES)
def test_bad_structures_on_their_way_over_the_wire(name):
    given, _ = BAD_STRUCTURES[name]
    with pytest.raises(InvalidArgument):
        storing.store("p", "v", Chunked(to_blobs(given)))


def blob(*items: Any) -> bytes:
    return msgspec.msgpack.encode(list(items))


HEADING = msgspec.msgpack.encode({"wrapper": "list"})


@pytest.mark.parametrize(
    "blobs",
    [
        [],
        [b""],
        [b"\xc1"],
        [blob(1)],
        [msgspec.msgpack.encode({"wrapper": "box"})],
        [msgspec.msgpack.encode({"wrapper": "document", "key": "structure"})],
        [HEADING, b"\xc1"],
        [HEADING, blob(0)],
        [HEADING, blob(1, {})],
        [HEADING, blob(0, {}, 2, {})],
        [HEADING, blob(True, {})],
        [HEADING, blob("0", {})],
        [HEADING, blob(-1, {})],
        [HEADING, blob(0, {"nodes": [{}]})],
        [HEADING, blob(0, 5)],
        [HEADING, b"\x91" * 5000 + b"\xc0"],
        [HEADING, blob(0, {"text": b"bytes"})],
        [HEADING, *(blob(i, {}) for i in range(201))],
    ],
    ids=repr,
)
def test_bad_blobs(blobs):
    with pytest.raises(InvalidArgument):
        storing.store("p", "v", Chunked(blobs))


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"policy_id": ""}, "policy_id"),
        ({"policy_id": 5}, "policy_id"),
        ({"version_id": "v" * 201}, "201"),
        ({"version_id": "\ud800"}, "surrogate"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": {"x": {1, 2}}}, "set"),
        ({"metadata": {1: 2}}, "keys"),
        ({"metadata": {"x": float}}, "type"),
        ({"effective_from": "soon"}, "soon"),
        ({"effective_from": "2024-13-01"}, "2024-13-01"),
        ({"effective_to": 20240101}, "effective_to"),
        ({"effective_from": "2024-02-02", "effective_to": "2024-02-01"}, "before"),
        ({"language": ""}, "language"),
        ({"pageindex_doc_id": 5}, "pageindex_doc_id"),
    ],
    ids=str,
)
def test_bad_arguments_of_store(kwargs, sentence):
    arguments: dict[str, Any] = {"policy_id": "p", "version_id": "v", "structure": [], **kwargs}
    with pytest.raises(InvalidArgument, match=sentence):
        storing.store(**arguments)


@pytest.mark.parametrize(
    "pages",
    ["", ",", "a", "1-", "-1", "1--2", "3-1", "1,,2", "1.5", "٣", "1-2-3", "9" * 30, "1," * 2000,
     -1, 2**70, True, None, 1.0, b"1"],
)  # fmt: skip
def test_bad_pages(pages):
    store = FakeStore()
    store.prepared(storing.store, "p", "v", [])
    with pytest.raises(InvalidArgument):
        reading.get_nodes_by_page(store.txn, "p", pages)


def test_bad_reads():
    store = FakeStore()
    store.prepared(storing.store, "p", "v", [{"node_id": "a"}])
    txn: Any = store.txn
    nothing: Any = None
    other: Any = b"p"
    with pytest.raises(NotFound) as caught:
        reading.get_nodes(txn, "p", ["a", "b", "c"])
    assert caught.value.details["ids"] == ["b", "c"]
    for bad in (lambda: reading.get_nodes(txn, "p", "a"),
                lambda: reading.get_subtree(txn, "p", "a", max_depth=-1),
                lambda: reading.get_node(txn, "p", ""),
                lambda: reading.get_node(txn, "p", nothing),
                lambda: reading.list_documents(txn, limit=0),
                lambda: reading.list_documents(txn, prefix=other),
                lambda: reading.list_documents(txn, prefix="\ud800"),
                lambda: reading.list_documents(txn, cursor="?"),
                lambda: reading.list_documents(txn, cursor=""),
                lambda: reading.list_documents(txn, cursor="ÄÖ")):  # fmt: skip
        with pytest.raises(InvalidArgument):
            bad()


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        ("x", "list"),
        ([5], "a number"),
        ([{"index": -1}], "index"),
        ([{"index": "0"}], "index"),
        ([{"index": 2}], "beyond the end"),
        ([{"node_id": "a"}], "'a'"),
        ([{"node_id": "n"}, {"node_id": "n"}], "'n'"),
        ([{"parent_id": "zz"}], "'zz'"),
        ([{"parent_id": 5}], "parent_id"),
        ([{"node_id": "x", "parent_id": "y"}, {"node_id": "y", "parent_id": "x"}], "ancestor"),
        ([{"node_id": "x"}, {"node_id": "y", "parent_id": "x", "index": 1}], "index 1"),
        ([{"title": 5}], "title"),
        ([deep(201)], "200 levels"),
        ([{"parent_id": "a", **deep(200)}], "200 levels"),
        ([{"title": "\ud800"}], "surrogate"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_bad_inserts(nodes, sentence):
    store = FakeStore()
    store.prepared(storing.store, "p", "v", [{"node_id": "a"}])
    before = dict(store.txn.data)
    with pytest.raises(InvalidArgument) as caught:
        store.run(editing.insert_nodes, "p", nodes)
    assert sentence in caught.value.message
    assert store.txn.data == before


def test_bad_updates_and_moves():
    store = FakeStore()
    store.prepared(storing.store, "p", "v", [{"node_id": "a", "nodes": [{"node_id": "b"}]}])
    run = store.run
    cases: list[Any] = [{"title": None}, {"text": 5}, {"page_start": "1"}, {"metadata": 1},
             {"title": "\ud800"}, {"metadata": {"x": b""}}, {"section_path": 7}]  # fmt: skip
    for fields in cases:
        with pytest.raises(InvalidArgument):
            run(editing.update_node, "p", "a", **fields)
    for name, goal, index in (("a", "a", None), ("a", "b", None), ("b", None, 2), ("b", None, -1)):
        with pytest.raises(InvalidArgument):
            run(editing.move_node, "p", name, parent_id=goal, index=index)
    for name, goal in (("zz", None), ("b", "zz")):
        with pytest.raises(NotFound):
            run(editing.move_node, "p", name, parent_id=goal)
    store.prepared(storing.store, "p", "v2", [])
    for edit in (lambda: run(editing.update_node, "p", "a", title="x"),
                 lambda: run(editing.insert_nodes, "p", [{}]),
                 lambda: run(editing.delete_node, "p", "a"),
                 lambda: run(editing.move_node, "p", "a", parent_id=None)):  # fmt: skip
        with pytest.raises(InvalidArgument, match="2 versions"):
            edit()
    assert check_documents(store.txn) == []


def test_the_deepest_and_longest_names_fit():
    store = FakeStore()
    name = "\0" * 100
    tree = deep(200)
    node = tree
    level = 0
    while True:
        node["node_id"] = f"{level:03d}" + "\1" * 126
        level += 1
        if "nodes" not in node:
            break
        node = node["nodes"][0]
    node["start_index"] = 5
    store.prepared(storing.store, name, name, [tree])
    assert len(reading.get_ancestor_path(store.txn, name, f"199{chr(1) * 126}")) == 200
    assert [n.depth for n in reading.get_nodes_by_page(store.txn, name, 5)] == [199]
    with pytest.raises(InvalidArgument, match="202"):
        storing.store("\0" * 101, "v", [])


def test_errors_are_ours():
    # Random junk gives an InvalidArgument or is stored; nothing else ever comes out.
    junk: list[Any] = [0, 1.5, "x", None, True, [], {}, [[]], [{}], {"nodes": None}, b"x", object()]
    for outer in junk:
        for key in ("structure", "nodes", "title", "text", "node_id", "parent_id", "metadata"):
            for given in ({key: outer}, [{key: outer}], {"structure": [{key: outer}]}):
                store = FakeStore()
                try:
                    store.prepared(storing.store, "p", "v", given)
                except InvalidArgument:
                    assert store.txn.data == {}
                assert check_documents(store.txn) == []


def test_days():
    store = FakeStore()
    for given in ("2024-07-01", date(2024, 7, 1), datetime(2024, 7, 1, 23, 59),
                  datetime(2024, 7, 1, 1, tzinfo=UTC), "2024-07-01T23:00:00Z"):  # fmt: skip
        document = store.prepared(storing.store, "p", "v", [], effective_from=given)
        assert document.effective_from == date(2024, 7, 1)
    moved = store.prepared(storing.store, "p", "v", [], effective_from="2024-07-01T23:00:00-05:00")
    assert moved.effective_from == date(2024, 7, 2)


def test_markdown_is_a_string():
    with pytest.raises(InvalidArgument):
        parse_markdown(b"# x")  # type: ignore[arg-type]
