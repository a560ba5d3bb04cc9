"""Random changes of collections with indexes, compared with plain dicts after every step."""

from __future__ import annotations

import copy
from functools import cmp_to_key
from itertools import product
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.query import reference
from tests.stores.engine_store import EngineStore
from tests.stores.fake import FakeStore
from treestore.errors import AlreadyExists, InvalidArgument, NotFound
from treestore.stores.collections import building, catalog, reading, writing
from treestore.stores.collections.check import check_collections
from treestore.stores.collections.indexes import Definition, Index
from treestore.stores.collections.layout import unpacked_id
from treestore.stores.collections.scanning import scan

Document = dict[str, Any]

NAME = "things \0 ü"
OTHER = "others"
LONG = "y" * 700
SCALARS = st.sampled_from([None, 0, 1, 1.0, 2**53, 2**53 + 1, -3.5, True, "", "1", "x\0y", "ü"])
VALUES = st.one_of(
    SCALARS,
    st.sampled_from([[], [1], [1, 2], [2, 1], ["x", None, 1.0], {"c": 1}, {"c": [1, 3]}]),
    st.sampled_from([[{"c": 1}, {"c": "x"}], [{"d": 1}], [{"c": 1}, 5], LONG + "1", LONG + "2"]),
)
IDS = st.sampled_from([f"id{n}" for n in range(8)])
FIELDS = st.dictionaries(st.sampled_from(["a", "b", "n.o", "deep"]), VALUES, max_size=3)
DOCUMENTS = st.builds(
    lambda fields, own: {**own, **fields},
    FIELDS,
    st.one_of(IDS.map(lambda id: {"_id": id}), IDS.map(lambda id: {"id": id}), st.just({})),
)
INDEXES: list[list[str]] = [["a"], ["b"], ["a.c"], ["a", "b"], ["a.c", "b"], ["a.c", "a.d"]]
PATCHES = st.one_of(
    FIELDS,
    st.builds(lambda value: {"$set": {"a": value}}, VALUES),
    st.just({"$unset": {"a": 1}}),
    st.builds(lambda value: {"$set": {"b": value}}, VALUES),
)


def canonical(value: Any) -> Any:
    """Equal exactly where values are equal, by another way than `order_key`."""
    kind = reference.kind(value)
    if kind == "list":
        return kind, tuple(map(canonical, value))
    if kind == "object":
        return kind, tuple((name, canonical(value[name])) for name in sorted(value))
    return kind, value


@attrs.define
class ModelIndex:
    """An index: what its documents are grouped by."""

    fields: list[str]
    unique: bool
    sparse: bool
    state: str = "ready"
    after: str = ""
    held: set[str] = attrs.field(factory=set)
    """While it is building: documents that are in it already."""

    @property
    def name(self) -> str:
        return ",".join(self.fields)

    def values(self, document: Document) -> list[list[Any]]:
        """The values of each combination that the document has entries of."""
        choices = []
        missing = True
        for field in self.fields:
            found = reference.spread(list(reference.lead(document, field.split("."))))
            missing = missing and all(value is reference.NOTHING for value in found)
            choices.append([None if v is reference.NOTHING else v for v in found] or [None])
        if missing and self.sparse:
            return []
        return [list(combination) for combination in product(*choices)]

    def keys(self, document: Document) -> set[Any]:
        """What must not be another document's in a unique index."""
        return {tuple(map(canonical, values)) for values in self.values(document)}

    def refuses(self, document: Document) -> bool:
        """Whether two of its paths go through lists that the other does not."""
        if len(self.fields) == 1 or self.fields == ["a.c", "a.d"]:
            return bool(self.fields == ["a.c", "a.d"] and _both_deep(document))
        first = document.get("a")
        if self.fields[0] == "a.c" and not isinstance(first, list):
            first = first.get("c") if isinstance(first, dict) else None
        return isinstance(first, list) and isinstance(document.get("b"), list)


def _both_deep(document: Document) -> bool:
    inner = document.get("a")
    objects = inner if isinstance(inner, list) else [inner]
    return all(
        any(isinstance(o, dict) and isinstance(o.get(name), list) for o in objects)
        for name in ("c", "d")
    )


class Collections(RuleBasedStateMachine):
    """One collection that is worked on, and another one that must not notice."""

    make_store: ClassVar[type[Any]] = FakeStore

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make_store()
        self.documents: dict[str, Document] | None = None
        self.indexes: dict[str, ModelIndex] = {}
        self.store.run(catalog.create, OTHER, indexes=["a"])
        self.store.run(writing.insert, OTHER, {"_id": "id1", "a": 1})

    # -- what is expected -----------------------------------------------------------------------

    def live(self) -> list[ModelIndex]:
        return [index for index in self.indexes.values() if index.state != "failed"]

    def wrong_with(self, after: dict[str, Document], changed: set[str]) -> set[type]:
        """The errors that may come where some documents become others."""
        wrong: set[type] = set()
        for index in self.live():
            if any(index.refuses(after[id]) for id in changed if id in after):
                wrong.add(InvalidArgument)
            if index.unique:
                held = (set(after) if index.state == "ready" else index.held) | changed
                seen: set[Any] = set()
                for id in held & set(after):
                    keys = index.keys(after[id])
                    if keys & seen:
                        wrong.add(AlreadyExists)
                    seen |= keys
        return wrong

    def attempt(self, expected: set[type], function: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a command that must fail with one of these errors, or succeed where there is none."""
        if expected:
            with pytest.raises(tuple(expected)):
                self.store.run(function, *copy.deepcopy(args), **kwargs)
            return None
        return self.store.run(function, *copy.deepcopy(args), **kwargs)

    def commit(self, after: dict[str, Document], changed: set[str]) -> None:
        self.documents = after
        for index in self.live():
            if index.state == "building":
                index.held = (index.held | changed) & set(after)

    # -- writing --------------------------------------------------------------------------------

    @rule(document=DOCUMENTS)
    def insert(self, document: Document) -> None:
        self.insert_some([document], many=False)

    @rule(documents=st.lists(DOCUMENTS, max_size=6))
    def insert_many(self, documents: list[Document]) -> None:
        self.insert_some(documents, many=True)

    def insert_some(self, documents: list[Document], *, many: bool) -> None:
        before = dict(self.documents or {})
        expected: set[type] = set()
        after = dict(before)
        for number, document in enumerate(documents):
            id = str(document.get("_id", document.get("id", f"assigned{number}")))
            if id in after:
                expected.add(AlreadyExists)
            after.setdefault(id, document)
        expected |= self.wrong_with(after, set(after) - set(before))
        function: Any = writing.insert_many if many else writing.insert
        result = self.attempt(expected, function, NAME, documents if many else documents[0])
        if expected:
            return
        ids = result if many else [result]
        assert len(ids) == len(documents)
        after = dict(before)
        for id, document in zip(ids, documents, strict=True):
            given = document.get("_id", document.get("id"))
            assert given is None or given == id
            after[id] = document if given else {"_id": id, **document}
        assert len(after) == len(before) + len(ids)
        self.commit(after, set(ids))

    @rule(id=IDS, document=DOCUMENTS, upsert=st.booleans())
    def replace(self, id: str, document: Document, upsert: bool) -> None:
        before = dict(self.documents or {})
        expected: set[type] = set()
        own = document.get("_id", document.get("id"))
        if own not in (None, id):
            expected.add(InvalidArgument)
        if not upsert and id not in before:
            expected.add(NotFound)
        new = document if own else {"_id": id, **document}
        after = {**before, id: new}
        expected |= self.wrong_with(after, {id})
        result = self.attempt(expected, writing.replace, NAME, id, document, upsert=upsert)
        if not expected:
            assert result == (id not in before)
            self.commit(after, {id})

    @rule(id=IDS, patch=PATCHES)
    def update(self, id: str, patch: Document) -> None:
        before = self.documents or {}
        if id not in before:
            self.attempt({NotFound}, writing.update, NAME, id, patch)
            return
        after = {**before, id: patched(before[id], patch)}
        changed = {id} if after[id] != before[id] else set()
        # A float in place of an equal int is another document with the same entries.
        expected = self.wrong_with(after, changed)
        result = self.attempt(expected, writing.update, NAME, id, patch)
        if not expected:
            assert result == after[id]
            self.commit(after, changed)

    @precondition(lambda self: self.documents is not None)
    @rule(value=SCALARS, patch=PATCHES)
    def update_many(self, value: Any, patch: Document) -> None:
        before = dict(self.documents or {})
        matched = {id for id, each in before.items() if reference.matches(each, {"a": value})}
        after = {id: patched(d, patch) if id in matched else d for id, d in before.items()}
        changed = {id for id in matched if repr(after[id]) != repr(before[id])}
        expected = self.wrong_with(after, changed)
        result = self.attempt(expected, writing.update_many, NAME, {"a": value}, patch)
        if not expected:
            assert (result.matched, result.modified) == (len(matched), len(changed))
            self.commit(after, changed)

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        if self.documents is None:
            self.attempt({NotFound}, writing.delete, NAME, id)
            return
        assert self.store.run(writing.delete, NAME, id) == (id in self.documents)
        self.commit({key: d for key, d in self.documents.items() if key != id}, set())

    @precondition(lambda self: self.documents is not None)
    @rule(filter=st.one_of(SCALARS.map(lambda value: {"a": value}), st.just({})))
    def delete_many(self, filter: Document) -> None:
        before = self.documents or {}
        kept = {id: d for id, d in before.items() if not reference.matches(d, filter)}
        assert self.store.run(writing.delete_many, NAME, filter) == len(before) - len(kept)
        self.commit(kept, set())

    @rule()
    def drop(self) -> None:
        assert self.store.run(catalog.drop, NAME) == (self.documents is not None)
        self.documents, self.indexes = None, {}

    # -- indexes --------------------------------------------------------------------------------

    @precondition(lambda self: self.documents is not None)
    @rule(fields=st.sampled_from(INDEXES), unique=st.booleans(), sparse=st.booleans())
    def create_index(self, fields: list[str], unique: bool, sparse: bool) -> None:
        definition = Definition.of(fields, unique, sparse)
        old = self.indexes.get(definition.name)
        if old is not None and (old.unique, old.sparse) != (unique, sparse):
            self.attempt({AlreadyExists}, building.begin, NAME, definition)
            return
        self.store.run(building.begin, NAME, definition)
        if old is None or old.state == "failed":
            self.started(ModelIndex(fields, unique, sparse))

    def started(self, index: ModelIndex) -> None:
        index.state = "building" if self.documents else "ready"
        self.indexes[index.name] = index

    @precondition(lambda self: self.indexes)
    @rule(data=st.data())
    def rebuild_index(self, data: st.DataObject) -> None:
        old = self.indexes[data.draw(st.sampled_from(sorted(self.indexes)))]
        self.store.run(building.begin_again, NAME, old.name)
        self.started(ModelIndex(old.fields, old.unique, old.sparse))

    @precondition(lambda self: self.indexes)
    @rule(data=st.data())
    def drop_index(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.indexes)))
        assert self.store.run(catalog.drop_index, NAME, name)
        assert not self.store.run(catalog.drop_index, NAME, name)
        del self.indexes[name]

    @precondition(lambda self: any(i.state == "building" for i in self.indexes.values()))
    @rule(count=st.integers(1, 4), data=st.data())
    def build(self, count: int, data: st.DataObject) -> None:
        names = sorted(n for n, index in self.indexes.items() if index.state == "building")
        index = self.indexes[data.draw(st.sampled_from(names))]
        opened = catalog.require(self.store.txn, NAME)
        stored = opened.named(index.name)
        assert stored is not None
        progress = self.store.run(building.step, stored.id, documents_max=count)
        documents = self.documents or {}
        ids = sorted(id for id in documents if id > index.after)[:count]
        if not ids:
            index.state = "ready"
        elif self.fails(index, ids):
            index.state = "failed"
        else:
            index.after = ids[-1]
            index.held |= set(ids)
        assert progress == ("going on" if index.state == "building" else "ended")

    def fails(self, index: ModelIndex, ids: list[str]) -> bool:
        documents = self.documents or {}
        if any(index.refuses(documents[id]) for id in ids):
            return True
        if not index.unique:
            return False
        held = [index.keys(documents[id]) for id in index.held | set(ids)]
        return sum(map(len, held)) > len(set().union(*held))

    @rule()
    def crash(self) -> None:
        crash = getattr(self.store, "crash", None)
        if crash is not None:
            crash()

    # -- reading --------------------------------------------------------------------------------

    @invariant()
    def documents_agree(self) -> None:
        txn = self.store.txn
        assert reading.get(txn, OTHER, "id1") == {"_id": "id1", "a": 1}
        if self.documents is None:
            assert catalog.find(txn, NAME) is None
            return
        prefix = catalog.require(txn, NAME).documents
        stored = {
            unpacked_id(key[len(prefix) :]): record
            for key, record in txn.scan(prefix, prefix + b"\xff")
        }
        assert set(stored) == set(self.documents)
        for id, document in self.documents.items():
            assert repr(reading.get(txn, NAME, id)) == repr(document)

    @invariant()
    def indexes_agree(self) -> None:
        txn = self.store.txn
        assert check_collections(txn) == []
        if self.documents is None:
            return
        described = {index.name: index for index in catalog.describe(txn, NAME).indexes}
        assert set(described) == set(self.indexes)
        opened = catalog.require(txn, NAME)
        for name, index in self.indexes.items():
            assert described[name].state == index.state
            stored = opened.named(name)
            assert stored is not None
            assert stored.ready == (index.state == "ready")
            held = {"ready": set(self.documents), "building": index.held, "failed": set[str]()}
            expected = grouped(index, {id: self.documents[id] for id in held[index.state]})
            groups = entries_by_value(txn, stored)
            found = [ids for _, ids in groups]
            if all(len(entry) < 100 for entry, _ in groups):
                assert found == expected
            assert list(scan(txn, stored)) == list(scan(txn, stored, reverse=True))[::-1]

    def teardown(self) -> None:
        self.store.run(catalog.drop, NAME)
        self.store.run(catalog.drop, OTHER)
        assert check_collections(self.store.txn) == []
        left = {key[:1] for key, _ in self.store.txn.scan(b"", None)}
        assert left <= {b"\x40", b"\x44"}  # the next id, and names of what was dropped


def patched(document: Document, patch: Document) -> Document:
    """What the few patches of this test make of a document."""
    if "$unset" in patch:
        return {name: value for name, value in document.items() if name != "a"}
    if "$set" in patch:
        return {**document, **copy.deepcopy(patch["$set"])}
    return merged(document, patch)


def merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(value) if isinstance(value, dict) else {}
    for name, inner in patch.items():
        if inner is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), inner)
    return result


def entries_by_value(txn: Any, index: Index) -> list[tuple[bytes, set[str]]]:
    """The entries of an index in order: each value, and the ids of the documents that have it."""
    groups: list[tuple[bytes, set[str]]] = []
    for entry, packed in scan(txn, index):
        if not groups or groups[-1][0] != entry:
            groups.append((entry, set()))
        groups[-1][1].add(unpacked_id(packed))
    return groups


def grouped(index: ModelIndex, documents: dict[str, Document]) -> list[set[str]]:
    """The documents by their values, in the values' order."""
    groups: dict[Any, tuple[list[Any], set[str]]] = {}
    for id, document in documents.items():
        for values in index.values(document):
            groups.setdefault(tuple(map(canonical, values)), (values, set()))[1].add(id)

    def by_values(one: Any, other: Any) -> int:
        return reference.compare(one[0], other[0])

    order: Any = cmp_to_key(by_values)
    return [ids for _, ids in sorted(groups.values(), key=order)]


class CollectionsInEngine(Collections):
    """The same on the engine itself, with checkpoints and crashes in between."""

    make_store = EngineStore

    def teardown(self) -> None:
        super().teardown()
        self.store.close()


STEPS = settings(
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestCollections = Collections.TestCase
TestCollections.settings = STEPS
TestCollectionsInEngine = CollectionsInEngine.TestCase
TestCollectionsInEngine.settings = settings(STEPS, max_examples=max(10, STEPS.max_examples // 3))
