"""The service's definitions, and each operation's way over the wire."""

from __future__ import annotations

import inspect
from datetime import date, datetime, timedelta, timezone
from typing import Any

import attrs
import msgspec
import pytest

from tests.stores.fake import FakeStore
from treestore.model.documents import Document, Node
from treestore.stores.documents import editing, reading, storing
from treestore.stores.documents.layout import Place
from treestore.stores.documents.service import Documents
from treestore.stores.operation import OPERATIONS, Async, ReadWrite

NAMES = [
    "store", "get", "list", "delete", "delete_policy", "get_node", "get_nodes", "get_children",
    "get_subtree", "get_ancestor_path", "get_nodes_by_page", "get_structure", "insert_nodes",
    "update_node", "delete_node", "move_node",
]  # fmt: skip


FIELDS = tuple(field.name for field in attrs.fields(Node))


class OverTheWire:
    """Calls an operation with what is left of its arguments after a trip as msgpack."""

    def __init__(self) -> None:
        self.store = FakeStore()

    def bind(self, operation):
        def call(*args: Any, **kwargs: Any) -> Any:
            sent = msgspec.msgpack.encode(operation.encode_parameters(args, kwargs))
            received = msgspec.msgpack.decode(sent, type=operation.parameters)
            arguments = operation.arguments(received)
            if operation.kind == "prepared":
                return self.store.prepared(operation.function, **arguments)
            return self.store.run(operation.function, **arguments)

        return call


def test_every_operation_is_defined_and_described():
    for name in NAMES:
        operation = OPERATIONS[f"documents.{name}"]
        doc = inspect.getdoc(operation.function)
        assert doc
        assert doc.splitlines()[0].endswith((".", ":"))


def test_calls_over_the_wire():
    documents: Any = Documents[Async, ReadWrite](OverTheWire())
    zone = timezone(timedelta(hours=-5))
    stored = documents.store(
        "p",
        "v",
        {
            "doc_name": "x",
            "structure": [{"title": "a", "start_index": 1, "nodes": [{"title": "b"}]}],
        },
        metadata={"k": 1},
        effective_from=datetime(2024, 1, 1, 22, tzinfo=zone),
        effective_to=date(2030, 1, 1),
    )
    assert isinstance(stored, Document)
    assert stored.effective_from == date(2024, 1, 2)
    assert stored.updated_at.tzinfo is not None
    assert documents.get("p") == stored
    assert list(documents.list(prefix="p")) == [stored]
    node = documents.get_node("p", "0001")
    assert isinstance(node, Node)
    assert node.parent_id == "0000"
    assert documents.get_nodes("p", ["0001"]) == [node]
    assert documents.get_children("p", "0000") == [node]
    assert len(documents.get_subtree("p")) == 2
    assert len(documents.get_ancestor_path("p", "0001")) == 2
    assert len(documents.get_nodes_by_page("p", 1)) == 1
    assert len(documents.get_nodes_by_page("p", "1-2")) == 1
    assert documents.get_structure("p")["doc_name"] == "x"
    assert documents.insert_nodes("p", [{"title": "c"}])[0].node_id == "0002"
    changed = documents.update_node("p", "0001", title="B", page_start=None)
    assert (changed.title, changed.section_path) == ("B", "1.1")
    assert documents.move_node("p", "0001", parent_id=None, index=0).depth == 0
    assert documents.delete_node("p", "0001") == 1
    assert documents.delete("p", "v")
    assert not documents.delete_policy("p")


def test_records_end_with_the_text():
    # A record without its text is a prefix of the record with it: see layout.py. The one
    # key in front of the fields is the store's own.
    store = FakeStore()
    store.prepared(storing.store, "p", "v", [{"text": "last", "metadata": {"text": "x"}}])
    store.run(editing.insert_nodes, "p", [{"text": "last"}])
    store.run(editing.move_node, "p", "0000", parent_id="0001")
    store.run(editing.update_node, "p", "0000", title="new")
    place = Place("p", "v")
    for _, path in store.txn.scan(place.ids, place.ids + b"\xff"):
        raw = reading.whole(store.txn, place, path)
        assert raw.endswith(b"\xa4text\xa4last")
        assert tuple(msgspec.msgpack.decode(raw)) == ("_", *FIELDS)


def test_nodes_and_documents_are_frozen():
    node = Node(policy_id="p", version_id="v", node_id="n")
    with pytest.raises(AttributeError):
        node.title = "x"  # type: ignore[misc]
