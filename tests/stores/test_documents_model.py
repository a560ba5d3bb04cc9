"""Random edits of documents, compared with a brute-force model after every step."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from tests.stores.engine_store import EngineStore
from tests.stores.fake import FakeStore
from tests.stores.forest import Model, ModelNode, compare_gone, compare_reads
from treestore.errors import InvalidArgument, NotFound
from treestore.model.documents import UNSET
from treestore.stores.documents import editing, storing, structure
from treestore.stores.documents.check import check_documents
from treestore.stores.documents.source import Chunked, to_blobs

POLICY = "policy \0 ü"
VERSIONS = ["v1", "v1\0", "v2"]

# Around the length from which a text has a key of its own (1,024 bytes with a header of 3).
TEXTS = st.sampled_from([("", 1), ("short", 1), ("ä", 511), ("b", 1021), ("c", 1022)]).map(
    lambda pair: pair[0] * pair[1]
)
PAGES = st.none() | st.integers(0, 12) | st.sampled_from([100, 10**9, -3])
FIELDS = st.fixed_dictionaries(
    {
        "title": st.sampled_from(["", "Scope", "§ 1. Ülevaade"]),
        "page_start": PAGES,
        "page_end": PAGES,
        "summary": st.sampled_from(["", "a summary"]),
        "text": TEXTS,
        "metadata": st.sampled_from([{}, {"kind": "section"}, {"kind": None, "tags": [1, {}]}]),
        "section": st.sampled_from([None, None, None, "Art. 7"]),
    }
)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.tuples(FIELDS, st.just([])),
    lambda inner: st.tuples(FIELDS, st.lists(inner, max_size=3)),
    max_leaves=8,
)
NUMBER = st.integers(0, 10**6)


class Documents(RuleBasedStateMachine):
    """Three versions of one policy, edited at random."""

    make_store: ClassVar[type[Any]] = FakeStore

    def __init__(self) -> None:
        super().__init__()
        self.store: Any = self.make_store()
        self.models: dict[str, Model] = {}
        self.last_id = 0

    def new_id(self) -> str:
        self.last_id += 1
        return ["n{}", "\0{}", "{}\0", "ü{}", "{:03d}x"][self.last_id % 5].format(self.last_id)

    def grow(self, tree: Any) -> ModelNode:
        fields, inside = tree
        node = ModelNode(self.new_id(), **copy.deepcopy(fields))
        node.children = [self.grow(child) for child in inside]
        return node

    def has_nodes(self, version: str) -> bool:
        return version in self.models and bool(self.models[version].roots)

    def pick(self, version: str, number: int) -> ModelNode:
        nodes = list(self.models[version].walk())
        return nodes[number % len(nodes)]

    versions = Bundle("versions")

    @initialize(target=versions)
    def start(self) -> str:
        self.models["v1"] = Model([])
        self.store.prepared(storing.store, POLICY, "v1", [])
        return "v1"

    @rule(
        target=versions,
        version=st.sampled_from(VERSIONS),
        trees=st.lists(TREES, max_size=4),
        chunked=st.booleans(),
    )
    def put(self, version: str, trees: list[Any], chunked: bool) -> str:
        model = Model([self.grow(tree) for tree in trees])
        for node in model.walk():
            node.children_key = bool(node.children)
        written: Any = model.written()
        document = self.store.prepared(
            storing.store, POLICY, version, Chunked(to_blobs(written)) if chunked else written
        )
        assert document.updated_at == self.store.time()
        self.models[version] = model
        return version

    @rule(version=versions)
    def delete(self, version: str) -> None:
        there = self.models.pop(version, None) is not None
        assert self.store.run(storing.delete, POLICY, version) is there
        compare_gone(self.store.txn, POLICY, version)

    @rule(
        version=versions,
        trees=st.lists(TREES, min_size=1, max_size=3),
        number=NUMBER,
        as_root=st.booleans(),
        where=st.none() | NUMBER,
    )
    def insert(
        self, version: str, trees: list[Any], number: int, as_root: bool, where: int | None
    ) -> None:
        if version not in self.models:
            return
        model = self.models[version]
        parent_id = None if as_root or not model.roots else self.pick(version, number).node_id
        family = model.family(parent_id)
        index = None if where is None else where % (len(family) + 1)
        new = [self.grow(tree) for tree in trees]
        given = Model(new).written()
        for position, node in enumerate(given):
            if parent_id is not None:
                node["parent_id"] = parent_id
            if index is not None:
                node["index"] = index + position
        result = self.store.run(editing.insert_nodes, POLICY, given, version_id=version)
        at = len(family) if index is None else index
        family[at:at] = new
        assert [node.node_id for node in result] == Model(new).ids()

    @rule(version=versions, number=NUMBER, fields=FIELDS, names=st.sets(st.integers(0, 6)))
    def update(self, version: str, number: int, fields: dict[str, Any], names: set[int]) -> None:
        if not self.has_nodes(version):
            return
        node = self.pick(version, number)
        chosen = {name: v for i, (name, v) in enumerate(fields.items()) if i in names}
        for name, value in chosen.items():
            setattr(node, name, copy.deepcopy(value))
        if "section" in chosen:
            chosen["section_path"] = chosen.pop("section")
        result = self.store.run(
            editing.update_node, POLICY, node.node_id, version_id=version, **chosen
        )
        assert result.node_id == node.node_id
        assert result.text == node.text

    @rule(version=versions, number=NUMBER)
    def delete_node(self, version: str, number: int) -> None:
        if not self.has_nodes(version):
            return
        node = self.pick(version, number)
        model = self.models[version]
        parent = model.parent(node.node_id)
        (model.roots if parent is None else parent.children).remove(node)
        removed = self.store.run(editing.delete_node, POLICY, node.node_id, version_id=version)
        assert removed == len(list(node.walk()))

    @rule(
        version=versions, number=NUMBER, to=NUMBER, as_root=st.booleans(), where=st.none() | NUMBER
    )
    def move(self, version: str, number: int, to: int, as_root: bool, where: int | None) -> None:
        if not self.has_nodes(version):
            return
        model = self.models[version]
        node = self.pick(version, number)
        parent_id = None if as_root else self.pick(version, to).node_id
        inside = [n.node_id for n in node.walk()]
        old = model.parent(node.node_id)
        if parent_id in inside:
            with pytest.raises(InvalidArgument, match="below itself"):
                self.store.run(
                    editing.move_node, POLICY, node.node_id, parent_id=parent_id, version_id=version
                )
            return
        (model.roots if old is None else old.children).remove(node)
        family = model.family(parent_id)
        index = None if where is None else where % (len(family) + 1)
        result = self.store.run(
            editing.move_node,
            POLICY,
            node.node_id,
            parent_id=parent_id,
            index=index,
            version_id=version,
        )
        family.insert(len(family) if index is None else index, node)
        assert result.parent_id == parent_id

    @rule(version=versions, count=st.integers(8, 30))
    def crowd(self, version: str, count: int) -> None:
        """Many inserts in one gap, until siblings have to make room."""
        if version not in self.models:
            return
        roots = self.models[version].roots
        for _ in range(count):
            node = ModelNode(self.new_id())
            at = min(1, len(roots))
            given = [{**Model([node]).written()[0], "index": at}]
            self.store.run(editing.insert_nodes, POLICY, given, version_id=version)
            roots.insert(at, node)

    @rule(version=versions)
    def fail(self, version: str) -> None:
        """What is refused changes nothing."""
        if version not in self.models:
            return
        run = self.store.run
        with pytest.raises(InvalidArgument, match="does not exist"):
            run(
                editing.insert_nodes,
                POLICY,
                [{"title": "first"}, {"title": "x", "parent_id": "nobody"}],
                version_id=version,
            )
        with pytest.raises(NotFound):
            run(editing.update_node, POLICY, "nobody", title="x", version_id=version)
        with pytest.raises(InvalidArgument, match="beyond the end"):
            run(editing.insert_nodes, POLICY, [{"index": 999}], version_id=version)
        assert run(editing.delete_node, POLICY, "nobody", version_id=version) == 0

    @invariant()
    def reads_agree(self) -> None:
        txn = self.store.txn
        for version in VERSIONS:
            model = self.models.get(version)
            if model is None:
                compare_gone(txn, POLICY, version)
                continue
            compare_reads(txn, POLICY, version, model.nodes(POLICY, version))
            for include_text in (True, False):
                written = structure.get_structure(
                    txn, POLICY, include_text=include_text, version_id=version
                )
                assert written == model.written(include_text)
        assert check_documents(txn) == []

    def teardown(self) -> None:
        if self.models:
            assert self.store.run(storing.delete_policy, POLICY)
        assert not self.store.run(storing.delete_policy, POLICY)
        assert self.store.is_empty()


class DocumentsInEngine(Documents):
    """The same on the engine itself, with checkpoints in between."""

    make_store = EngineStore

    def teardown(self) -> None:
        super().teardown()
        self.store.close()


STEPS = settings(
    stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestDocuments = Documents.TestCase
TestDocuments.settings = STEPS
TestDocumentsInEngine = DocumentsInEngine.TestCase
TestDocumentsInEngine.settings = settings(STEPS, max_examples=max(10, STEPS.max_examples // 3))


def test_unset_leaves_everything() -> None:
    store = FakeStore()
    store.prepared(storing.store, "p", "v", [{"title": "a", "text": "t", "x": 1}])
    before = structure.get_structure(store.txn, "p", include_text=True)
    store.run(editing.update_node, "p", "0000", title=UNSET)
    assert structure.get_structure(store.txn, "p", include_text=True) == before
