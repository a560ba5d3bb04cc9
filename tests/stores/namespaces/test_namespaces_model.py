"""Random changes of a namespace, its segments included, compared with a dict after every step."""

from __future__ import annotations

import math
from array import array
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from tests.query import reference
from tests.stores.engine_store import EngineStore
from tests.stores.fake import FakeStore, FakeWrite
from tests.stores.namespaces.follower import Follower
from treestore.errors import AlreadyExists, NotFound
from treestore.model.namespaces import DocumentId
from treestore.stores.keys import Keyspace, pack
from treestore.stores.namespaces import (
    catalog,
    copying,
    dropping,
    exact,
    reading,
    segments,
    writing,
)
from treestore.stores.namespaces.check import check_namespaces
from treestore.stores.namespaces.distances import distances, matrix_of
from treestore.stores.namespaces.manifests import SegmentManifest, manifests
from treestore.stores.namespaces.search import make_request

AT_ONCE = exact.AT_ONCE
NAME, COPY = "things", "things.copy"
ATTRIBUTES: dict[str, Any] = {
    "year": "int",
    "price": "float",
    "name": {"type": "string", "full_text": True},
    "ok": "bool",
    "at": "datetime",
    "tags": "array<string>",
}

ALL_IDS = [0, 1, 2, 300, 2**63 - 1, "a", "b", "1", "ü\0", "z" * 200]
IDS = st.sampled_from(ALL_IDS)
VALUES = {
    "year": st.sampled_from([None, 0, -5, 2000, 2001, 2**62]),
    "price": st.sampled_from([None, 0.5, 2000.0, -1e300]),
    "name": st.sampled_from([None, "", "tax", "taxes", "Tax law", "x" * 3000]),
    "ok": st.sampled_from([None, True, False]),
    "at": st.sampled_from(["2024-01-01T00:00:00.000000Z", "1999-12-31T23:59:59.999999Z"]),
    "tags": st.sampled_from([[], ["a"], ["a", "b"], None]),
}
FIELDS = st.fixed_dictionaries({}, optional=VALUES)
VECTORS = st.sampled_from(
    [None, (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (2.0, 2.0), (-1.0, 0.5), (0.1, 1e9)]
)
QUERIES = st.sampled_from([(1.0, 0.0), (1.0, 1.0), (-0.3, 0.7)])
FILTERS: Any = st.sampled_from(
    [
        {},
        {"year": {"$gte": 2000}},
        {"year": None},
        {"year": 2000.0},
        {"price": {"$lt": 1}, "ok": {"$ne": True}},
        {"$or": [{"tags": "a"}, {"name": {"$glob": "[tT]ax*"}}]},
        {"tags": {"$all": ["a", "b"]}},
        {"$not": {"ok": True}},
        {"id": {"$in": [1, "a", 300]}},
        {"at": {"$gt": "2000-01-01T00:00:00.000000Z"}},
    ]
)
ORDERS: Any = st.sampled_from([None, "year", "-year", "id", "-id", ["ok", "-price"], ["-tags"]])
DOCUMENTS = st.builds(
    lambda id, attributes, vector: {"id": id, "attributes": attributes, "vector": vector},
    IDS,
    FIELDS,
    VECTORS,
)


def kept(vector: Any) -> tuple[float, ...] | None:
    """A vector as it is given back."""
    return None if vector is None else tuple(array("f", vector))


def by_id(id: DocumentId) -> Any:
    return (isinstance(id, int), id)


@attrs.define
class Doc:
    attributes: dict[str, Any]
    vector: tuple[float, ...] | None


def fits(id: DocumentId, doc: Doc, filter: Any) -> bool:
    return reference.matches({**doc.attributes, "id": id}, filter)


class Namespaces(RuleBasedStateMachine):
    """One namespace that is worked on, and another one that must not notice."""

    make_store: ClassVar[type[Any]] = FakeStore

    def __init__(self) -> None:
        super().__init__()
        exact.AT_ONCE = 3  # So that there is more than one go.
        self.store = self.make_store()
        self.docs: dict[DocumentId, Doc] = {}
        self.metric: Any = "l2"
        self.held: list[tuple[Any, dict[DocumentId, Doc]]] = []
        self.uuids = 0
        self.follower = Follower()
        self.store.run(catalog.create, "other", {"attributes": {"n": "int"}})
        self.store.run(writing.upsert, "other", [{"id": 1, "attributes": {"n": 1}}])

    @initialize(
        metric=st.sampled_from(["l2", "cosine", "dot"]),
        vectors=st.lists(VECTORS, min_size=len(ALL_IDS), max_size=len(ALL_IDS)),
        fields=st.lists(FIELDS, min_size=3, max_size=3),
    )
    def begin(self, metric: Any, vectors: list[Any], fields: list[Any]) -> None:
        self.metric = metric
        self.create()
        self.fill(vectors, fields)

    @rule(
        vectors=st.lists(VECTORS, min_size=len(ALL_IDS), max_size=len(ALL_IDS)),
        fields=st.lists(FIELDS, min_size=3, max_size=3),
    )
    def fill(self, vectors: list[Any], fields: list[Any]) -> None:
        """Every id has a document."""
        documents = [
            {"id": id, "vector": vector, "attributes": fields[number % 3]}
            for number, (id, vector) in enumerate(zip(ALL_IDS, vectors, strict=True))
        ]
        self.upsert(documents, None)

    def create(self) -> None:
        schema = {"vector": {"dim": 2, "metric": self.metric}, "attributes": ATTRIBUTES}
        self.store.run(catalog.create, NAME, schema)

    @property
    def number(self) -> int:
        return catalog.require(self.store.txn, NAME).number

    # -- writing --------------------------------------------------------------------------------

    @rule(
        documents=st.lists(DOCUMENTS, min_size=1, max_size=12),
        condition=st.one_of(st.none(), FILTERS),
    )
    def upsert(self, documents: list[Any], condition: Any) -> None:
        result = self.store.run(writing.upsert, NAME, documents, condition=condition)
        before = dict(self.docs)
        stored = set()
        for document in documents:
            id = document["id"]
            if condition is not None and id in before and not fits(id, before[id], condition):
                continue
            stored.add(id)
            self.docs[id] = Doc(document["attributes"], kept(document["vector"]))
        assert result.stored == len(stored)
        assert result.created == len(stored - set(before))
        assert set(result.skipped) == {each["id"] for each in documents} - stored

    @rule(
        patches=st.lists(st.tuples(IDS, FIELDS), max_size=5), vector=VECTORS, with_it=st.booleans()
    )
    def patch(self, patches: list[Any], vector: Any, with_it: bool) -> None:
        given: list[Any] = [{"id": id, "attributes": fields} for id, fields in patches]
        if with_it and given:
            given[0]["vector"] = vector
        condition = {"ok": {"$ne": False}}
        result = self.store.run(writing.patch, NAME, given, condition=condition)
        before = dict(self.docs)
        patched = set()
        for patch in given:
            id = patch["id"]
            if id not in before or not fits(id, before[id], condition):
                continue
            patched.add(id)
            doc = self.docs[id]
            self.docs[id] = Doc(
                {**doc.attributes, **patch["attributes"]},
                kept(patch["vector"]) if "vector" in patch else doc.vector,
            )
        assert result.patched == len(patched)
        assert set(result.missing) == {id for id, _ in patches} - set(before)
        assert set(result.skipped) == {id for id, _ in patches} & set(before) - patched

    @rule(filter=FILTERS, fields=FIELDS, limit=st.sampled_from([None, 1, 2]))
    def patch_by_filter(self, filter: Any, fields: Any, limit: int | None) -> None:
        chosen = self.found(self.docs, filter)[:limit]
        count = self.store.run(writing.patch_by_filter, NAME, filter, fields, limit=limit)
        assert count == len(chosen)
        for id in chosen:
            self.docs[id] = Doc({**self.docs[id].attributes, **fields}, self.docs[id].vector)

    @rule(ids=st.lists(IDS, max_size=4), filter=st.one_of(st.none(), FILTERS))
    def delete(self, ids: list[Any], filter: Any) -> None:
        gone = {id for id in ids if id in self.docs}
        gone = {id for id in gone if filter is None or fits(id, self.docs[id], filter)}
        assert self.store.run(writing.delete, NAME, ids, filter=filter) == len(gone)
        self.docs = {id: doc for id, doc in self.docs.items() if id not in gone}

    @rule(filter=FILTERS, limit=st.sampled_from([None, 1, 3]))
    def delete_by_filter(self, filter: Any, limit: int | None) -> None:
        gone = self.found(self.docs, filter)[:limit]
        count = self.store.run(writing.delete, NAME, filter=filter, limit=limit)
        assert count == len(gone)
        self.docs = {id: doc for id, doc in self.docs.items() if id not in gone}

    @rule(filterable=st.booleans())
    def update_schema(self, filterable: bool) -> None:
        change = {"attributes": {"extra": {"type": "array<int>", "filterable": filterable}}}
        found = self.store.run(catalog.update_schema, NAME, change)
        assert found.schema.attributes["extra"].filterable == filterable
        assert list(found.schema.attributes)[:2] == ["year", "price"]

    # -- segments, begun on one state and finished on a later one -------------------------------

    @rule(between=st.lists(DOCUMENTS, max_size=3), gone=st.lists(IDS, max_size=2), data=st.data())
    def seal(self, between: list[Any], gone: list[Any], data: st.DataObject) -> None:
        number = self.number
        rows = segments.tail_rows(self.store.txn, number).tolist()
        assert rows == [row for row, _ in segments.tail(self.store.txn, number)]
        if rows and data.draw(st.booleans()):
            rows = data.draw(st.lists(st.sampled_from(rows), min_size=1, unique=True))
        if rows:
            self.change(between, gone)
            segment = self.store.run(segments.seal, number, self.manifest(), rows)
            found = segments.segment_rows(self.store.txn, number, segment)
            assert found.tolist() == sorted(rows)

    @rule(between=st.lists(DOCUMENTS, max_size=3), gone=st.lists(IDS, max_size=2), data=st.data())
    def replace(self, between: list[Any], gone: list[Any], data: st.DataObject) -> None:
        txn, number = self.store.txn, self.number
        there = [segment for segment, _ in manifests(txn, number)]
        if there:
            old = data.draw(st.lists(st.sampled_from(there), min_size=1, unique=True))
            live = [row for one in old for row in segments.live_rows(txn, number, one).tolist()]
            self.change(between, gone)
            manifest = self.manifest() if live else None
            segment = self.store.run(segments.replace_segments, number, old, manifest, live)
            left = [segment for segment, _ in manifests(self.store.txn, number)]
            assert set(left) == set(there) - set(old) | ({segment} if live else set())
            assert self.store.run(segments.replace_segments, number, old, None, []) is None

    @rule(between=st.lists(DOCUMENTS, max_size=3), gone=st.lists(IDS, max_size=2), data=st.data())
    def forget(self, between: list[Any], gone: list[Any], data: st.DataObject) -> None:
        txn, number = self.store.txn, self.number
        there = [segment for segment, _ in manifests(txn, number)]
        if there:
            segment = data.draw(st.sampled_from(there))
            live = segments.live_rows(txn, number, segment)
            rows = segments.rows_with_ids(txn, number, live)
            self.change(between, gone)
            back = self.store.run(segments.forget_segment, number, segment, rows)
            assert back <= len(rows)
            assert self.store.run(segments.forget_segment, number, segment, rows) is None

    def change(self, documents: list[Any], gone: list[Any]) -> None:
        """What others do meanwhile."""
        if documents:
            self.upsert(documents, None)
        if gone:
            self.delete(gone, None)

    def manifest(self) -> SegmentManifest:
        self.uuids += 1
        return SegmentManifest(uuid=f"{self.uuids:032x}", size_bytes=9, info={"n": 1})

    # -- the namespace itself -------------------------------------------------------------------

    @rule(chance=st.integers(0, 3))
    def drop(self, chance: int) -> None:
        if chance:
            return
        assert self.store.run(catalog.drop, NAME) is True
        assert self.store.run(catalog.drop, NAME) is False
        with pytest.raises(NotFound):
            self.store.run(writing.upsert, NAME, [{"id": 1}])
        self.docs = {}
        self.create()

    @rule(keys=st.integers(1, 20))
    def remove_what_is_left(self, keys: int) -> None:
        for number in dropping.pending(self.store.txn):
            self.store.run(dropping.step, number, keys_max=keys)

    @rule(whole=st.booleans(), change=DOCUMENTS)
    def copy(self, whole: bool, change: Any) -> None:
        number = self.store.run(copying.begin, NAME, COPY)
        source = catalog.require(self.store.txn, NAME)
        batches = list(copying.batches(self.store.txn, source, number))
        docs = dict(self.docs)
        self.upsert([change], None)
        assert check_namespaces(self.store.txn) == []
        assert catalog.find(self.store.txn, COPY) is None
        for batch in batches[: len(batches) if whole else 1]:
            self.store.run(copying.put, number, batch)
        self.crash()
        if not whole:
            assert copying.under_way(self.store.txn) == [number]
            assert self.store.run(copying.abandon, number)
            assert not self.store.run(copying.abandon, number)
            return
        self.store.run(copying.finish, number, source)
        with pytest.raises(AlreadyExists):
            self.store.run(copying.begin, NAME, COPY)
        assert check_namespaces(self.store.txn) == []
        self.compare(self.store.txn, COPY, docs)
        self.store.run(writing.upsert, COPY, [{"id": "a", "vector": [3, 4]}])
        self.store.run(writing.delete, COPY, filter={})
        assert check_namespaces(self.store.txn) == []
        self.store.run(catalog.drop, COPY)

    @rule()
    def crash(self) -> None:
        crash = getattr(self.store, "crash", None)
        if crash is not None:
            self.held = []
            crash()

    @rule()
    def hold(self) -> None:
        if len(self.held) < 3:
            self.held.append((self.snapshot(), dict(self.docs)))

    def snapshot(self) -> Any:
        frozen = FakeWrite()
        frozen.data, frozen.keys = dict(self.store.txn.data), list(self.store.txn.keys)
        return frozen

    # -- reading --------------------------------------------------------------------------------

    def found(self, docs: dict[DocumentId, Doc], filter: Any) -> list[DocumentId]:
        return [id for id in sorted(docs, key=by_id) if fits(id, docs[id], filter)]

    def compare(self, txn: Any, name: str, docs: dict[DocumentId, Doc]) -> None:
        """Everything that was stored is read."""
        cursor, found = None, []
        while True:
            page = reading.export(txn, name, cursor, limit=3)
            found += page.items
            if (cursor := page.next_cursor) is None:
                break
        assert [each.id for each in found] == sorted(docs, key=by_id)
        for each in found:
            doc = docs[each.id]
            assert list(each.attributes.items()) == list(doc.attributes.items())
            assert each.vector == doc.vector
        asked = sorted(docs, key=by_id, reverse=True)
        got = reading.get(txn, name, ["none", *asked])
        assert [(each.id, each.vector) for each in got] == [(id, None) for id in asked]

    @rule(query=QUERIES, filter=FILTERS, top_k=st.integers(1, 6), offset=st.integers(0, 2))
    def nearest(self, query: Any, filter: Any, top_k: int, offset: int) -> None:
        for txn, docs in [(self.store.txn, self.docs), *self.held]:
            expected: list[Any] = []
            for id in self.found(docs, filter):
                if docs[id].vector is not None:
                    distance = self.distance(query, docs[id].vector)
                    expected.append((distance, by_id(id), id))
            expected.sort()
            wanted = [(id, distance) for distance, _, id in expected][offset:]
            request = make_request(
                NAME, vector=list(query), filter=filter, top_k=top_k, offset=offset
            )
            hits = exact.search(txn, request)
            assert [(hit.id, hit.distance) for hit in hits] == wanted[:top_k]
            while hits and hits[-1].cursor is not None:
                wanted = wanted[top_k:]
                request = make_request(
                    NAME, vector=query, filter=filter, top_k=top_k, cursor=hits[-1].cursor
                )
                hits = exact.search(txn, request)
                assert [(hit.id, hit.distance) for hit in hits] == wanted[:top_k]

    def distance(self, query: Any, vector: Any) -> float:
        """Of one row alone; it must not depend on others."""
        packed = array("f", vector).tobytes()
        matrix = matrix_of([packed], 2)
        (found,) = distances(self.metric, array("f", query).tobytes(), matrix).tolist()
        x, y = array("f", query), vector
        product = sum(a * b for a, b in zip(x, y, strict=True))
        plain = {
            "l2": math.dist(x, y) ** 2,
            "dot": -product,
            "cosine": 1 - product / math.hypot(*x) / math.hypot(*y),
        }[self.metric]
        assert math.isclose(found, plain, rel_tol=1e-9, abs_tol=1e-9)
        return float(found)

    @rule(order=ORDERS, filter=FILTERS, top_k=st.integers(1, 6))
    def in_order(self, order: Any, filter: Any, top_k: int) -> None:
        for txn, docs in [(self.store.txn, self.docs), *self.held]:
            expected = self.found(docs, filter)
            fields = [order] if isinstance(order, str) else order or []
            for field in reversed(fields):
                name = field.lstrip("-")
                descending = field[0] == "-"
                if name == "id":
                    expected.sort(key=by_id, reverse=descending)
                    continue
                if field is fields[-1]:
                    expected.sort(key=by_id, reverse=descending)
                expected.sort(
                    key=lambda id, n=name, d=descending: order_key(  # type: ignore[misc]
                        docs[id].attributes.get(n), d
                    ),
                    reverse=descending,
                )
            assert reading.count(txn, NAME, filter) == len(expected)
            found: list[DocumentId] = []
            cursor = None
            while True:
                request = make_request(
                    NAME, order_by=order, filter=filter, top_k=top_k, cursor=cursor
                )
                hits = exact.search(txn, request)
                found += [hit.id for hit in hits]
                for hit in hits:
                    assert hit.attributes == docs[hit.id].attributes
                if len(hits) < top_k:
                    break
                cursor = hits[-1].cursor
            assert found == expected

    @rule(filter=FILTERS)
    def aggregate(self, filter: Any) -> None:
        docs = [self.docs[id].attributes for id in self.found(self.docs, filter)]
        groups = reading.aggregate(
            self.store.txn,
            NAME,
            {"n": {"$count": {}}, "s": {"$sum": "price"}},
            by="ok",
            filter=filter,
        )
        assert sum(group.values["n"] for group in groups) == len(docs)
        for group in groups:
            prices = [d.get("price") for d in docs if d.get("ok") == group.by["ok"]]
            assert group.values["s"] == math.fsum(price for price in prices if price is not None)

    @invariant()
    def everything_agrees(self) -> None:
        txn = self.store.txn
        if catalog.find(txn, NAME) is None:
            return  # Before it begins.
        assert check_namespaces(txn) == []
        self.compare(txn, NAME, self.docs)
        for held, docs in self.held:
            self.compare(held, NAME, docs)
        statistics = catalog.describe(txn, NAME).statistics
        assert statistics is not None
        assert statistics.documents == len(self.docs)
        live = statistics.tail + statistics.segment_rows - statistics.dead
        assert live == len(self.docs)
        assert reading.count(txn, "other") == 1

    @invariant()
    def whoever_follows_the_log_knows(self) -> None:
        self.follower.follow(self.store.txn)
        if catalog.find(self.store.txn, NAME) is not None:
            self.follower.compare(self.store.txn, self.number)

    def teardown(self) -> None:
        exact.AT_ONCE = AT_ONCE
        self.held = []
        for name in (NAME, "other"):
            if catalog.find(self.store.txn, name) is not None:
                self.store.run(catalog.drop, name)
        while pending := dropping.pending(self.store.txn):
            self.store.run(dropping.step, pending[0])
        assert check_namespaces(self.store.txn) == []
        left = {key[:1] for key, _ in self.store.txn.scan(b"", None)}
        assert left <= {Keyspace.NAMESPACES, Keyspace.NAMESPACES_DROPPED}
        assert len(list(self.store.txn.scan(Keyspace.NAMESPACES, pack(None) + b"\xff"))) <= 1


def order_key(value: Any, descending: bool) -> Any:
    """Of the few values here; of a list the least or greatest, an empty one before everything."""
    if isinstance(value, list):
        if not value:
            return (-1, 0)
        return (2, max(value) if descending else min(value))
    return (0, 0) if value is None else (1, value)


class NamespacesInEngine(Namespaces):
    """The same on the engine itself, with checkpoints, crashes and transactions in between."""

    make_store = EngineStore

    def snapshot(self) -> Any:
        return self.store.hold()

    @rule(
        documents=st.lists(DOCUMENTS, max_size=5),
        ids=st.lists(IDS, max_size=2),
        query=QUERIES,
        other=DOCUMENTS,
    )
    def transaction(self, documents: list[Any], ids: list[Any], query: Any, other: Any) -> None:
        """Calls in a transaction see what it wrote; nobody else does before it is committed."""
        before = dict(self.docs)
        with self.store.transaction() as run:
            run(writing.upsert, NAME, documents)
            run(writing.delete, NAME, ids)
            for document in documents:
                self.docs[document["id"]] = Doc(document["attributes"], kept(document["vector"]))
            self.docs = {id: doc for id, doc in self.docs.items() if id not in ids}
            run(self.compare, NAME, self.docs)
            hits = run(exact.search, make_request(NAME, vector=query, top_k=100))
            found = {hit.id: hit.distance for hit in hits}
            assert set(found) == {id for id, doc in self.docs.items() if doc.vector is not None}
            run(writing.upsert, NAME, [other])
            self.docs[other["id"]] = Doc(other["attributes"], kept(other["vector"]))
            self.compare(self.store.txn, NAME, before)

    def teardown(self) -> None:
        super().teardown()
        self.store.close()


STEPS = settings(
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestNamespaces = Namespaces.TestCase
TestNamespaces.settings = STEPS
TestNamespacesInEngine = NamespacesInEngine.TestCase
TestNamespacesInEngine.settings = settings(STEPS, max_examples=max(10, STEPS.max_examples // 4))
