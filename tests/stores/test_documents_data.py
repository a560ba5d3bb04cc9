"""Real documents: every file comes back equal, and reads agree with brute force."""

from __future__ import annotations

import gzip
import itertools
import json
import os

import pytest

from tests.stores.fake import FakeStore
from tests.stores.forest import compare_node, compare_reads, touches
from treestore.stores.documents import editing, reading, storing, structure
from treestore.stores.documents.check import check_documents
from treestore.stores.documents.source import Chunked, to_blobs

PAGEINDEX_FILES = [
    "2023-annual-report_structure.json",
    "earthmover_structure.json",
    "four-lectures_structure.json",
    "markdown-shape_structure.json",
    "old-shape_2023-annual-report_structure.json",
    "q1-fy25-earnings_structure.json",
    "reg-bi-interpretive_structure.json",
]

DC_NODES = int(os.environ.get("TREESTORE_TEST_DC_NODES") or 20_000)
"""How much of the D.C. Code to store; all of it is 173,481 nodes."""


def flat(nodes, parent=None, depth=0):
    """The nodes of a PageIndex structure by recursion, which is not how the store does it."""
    for node in nodes:
        inside = node.get("nodes") or node.get("child_nodes") or []
        yield depth, parent, node, inside
        yield from flat(inside, node, depth + 1)


@pytest.mark.parametrize("name", PAGEINDEX_FILES)
def test_pageindex_files(data_directory, name):
    given = json.loads((data_directory / "pageindex" / name).read_text())
    store = FakeStore()
    document = store.prepared(storing.store, "p", "v", given)
    txn = store.txn
    assert structure.get_structure(txn, "p", include_text=True) == given
    roots = given if isinstance(given, list) else given["structure"]
    expected = list(flat(roots))
    assert document.node_count == len(expected)
    nodes = reading.get_subtree(txn, "p")
    for node, (depth, _, source, inside) in zip(nodes, expected, strict=True):
        assert node.title == source["title"]
        assert node.depth == depth
        assert (node.page_start, node.page_end) == (
            source.get("start_index"),
            source.get("end_index"),
        )
        assert node.text == source.get("text", "")
        assert node.summary == source.get("summary", "")
        assert len(node.child_ids) == len(inside)
        if "node_id" in source:
            assert node.node_id == source["node_id"]
    compare_reads(txn, "p", "v", nodes)
    last = max((n.page_end for n in nodes if n.page_end), default=1)
    for page in range(last + 2):
        found = reading.get_nodes_by_page(txn, "p", page)
        assert found == [n for n in nodes if touches(n, page, page)]
    arrived = FakeStore()
    arrived.prepared(storing.store, "p", "v", Chunked(to_blobs(given)))
    assert arrived.txn.data == txn.data
    assert check_documents(txn) == []


@pytest.fixture(scope="module")
def dc_code(data_directory):
    """The D.C. Code, stored as a flat list, and its nodes in document order."""
    with gzip.open(data_directory / "dc-code" / "nodes.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, DC_NODES)]
    given = [
        {
            "node_id": str(row["seq"]),
            "parent_id": None if row["parent"] is None else str(row["parent"]),
            "title": row["title"],
            "start_index": row["start"],
            "end_index": row["end"],
            "text": row["text"],
            "path": row["path"],
        }
        for row in rows
    ]
    store = FakeStore()
    store.prepared(storing.store, "dc", "2024", given)
    return store, given, rows


def test_dc_code_reads(dc_code):
    store, given, rows = dc_code
    nodes = reading.get_subtree(store.txn, "dc")
    assert [n.node_id for n in nodes] == [g["node_id"] for g in given]
    for node, row, source in zip(nodes, rows, given, strict=True):
        assert (node.depth, node.parent_id) == (row["depth"], source["parent_id"])
        assert (node.text, node.metadata) == (row["text"], {"path": row["path"]})
    position = {node.node_id: i for i, node in enumerate(nodes)}
    for node in nodes[1:2000:7] + nodes[2000::501]:
        compare_node(store.txn, "dc", "2024", nodes, position, node)
    for first, last in ((1, 1), (77, 77), (500, 520), (1544, 1544), (10**8, 10**9)):
        found = reading.get_nodes_by_page(store.txn, "dc", f"{first}-{last}")
        assert found == [n for n in nodes if touches(n, first, last)]


def test_dc_code_comes_back(dc_code):
    store, given, _ = dc_code
    assert structure.get_structure(store.txn, "dc", include_text=True) == given
    assert check_documents(store.txn) == []


def test_dc_code_edits(dc_code):
    store, _, _ = dc_code
    kept = (dict(store.txn.data), list(store.txn.keys))
    store.run(editing.insert_nodes, "dc", [{"title": "first", "parent_id": "1", "index": 0}])
    store.run(editing.move_node, "dc", "3", parent_id=None, index=0)
    store.run(editing.delete_node, "dc", "200")
    assert reading.get_node(store.txn, "dc", "3").section_path == "1"
    assert reading.get_node(store.txn, "dc", "2").section_path == "2.2"
    assert check_documents(store.txn) == []
    store.txn.data, store.txn.keys = kept
