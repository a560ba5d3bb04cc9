"""Random changes of a namespace with a view; every query is answered as the reference does."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.stores.namespaces.live.living import NAME, LivingStore, request
from treestore.engine.snapshot import Snapshot
from treestore.model.namespaces import NamespaceHit
from treestore.stores.namespaces import catalog, exact, reading, writing
from treestore.stores.namespaces.layout import packed_id
from treestore.stores.namespaces.live.pieces import UseTree
from treestore.stores.namespaces.search import Request

ATTRIBUTES: dict[str, Any] = {
    "year": "int",
    "price": "float",
    "name": {"type": "string", "full_text": True},
    "parts": {"type": "array<string>", "full_text": {"stemming": False}},
    "ok": "bool",
    "at": "datetime",
    "tags": "array<string>",
    "secret": {"type": "int", "filterable": False},
}

IDS = st.sampled_from([0, 1, 2, 3, 4, 5, 300, 2**63 - 1, "a", "b", "1", "ü\0", "z" * 200])
WORDS = st.lists(
    st.sampled_from(["tax", "taxes", "law", "house", "the", "red", "river"]), max_size=4
).map(" ".join)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "year": st.sampled_from([None, 0, -5, 2000, 2001, 2**62]),
        "price": st.sampled_from([None, 0.5, 2000.0, -1e300]),
        "name": st.one_of(st.none(), WORDS),
        "parts": st.lists(WORDS, max_size=2),
        "ok": st.sampled_from([None, True, False]),
        "at": st.sampled_from(["2024-01-01T00:00:00.000000Z", "1999-12-31T23:59:59.999999Z"]),
        "tags": st.sampled_from([[], ["a"], ["a", "b"], None]),
        "secret": st.sampled_from([1, 2, None]),
    },
)
NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 0.1, 1e9])
VECTORS = st.one_of(
    st.none(), st.tuples(NUMBERS, NUMBERS, NUMBERS).filter(lambda vector: any(vector))
)
QUERIES = st.sampled_from([(1.0, 0.0, 0.0), (1.0, 1.0, 0.1), (-0.3, 0.7, 2.0)])
FILTERS: Any = st.sampled_from(
    [
        None,
        {},
        {"year": {"$gte": 2000}},
        {"year": None},
        {"price": {"$lt": 1}, "ok": {"$ne": True}},
        {"$or": [{"tags": "a"}, {"name": {"$glob": "tax*"}}]},
        {"tags": {"$all": ["a", "b"]}},
        {"$not": {"ok": True}},
        {"id": {"$in": [1, "a", 300, "z" * 200]}},
        {"id": {"$gt": 3}},
        {"at": {"$gt": "2000-01-01T00:00:00.000000Z"}},
        {"year": 77},
    ]
)
ORDERS: Any = st.sampled_from(
    [None, "year", "-year", "id", "-id", ["ok", "-price"], ["-tags"], ["ok", "id"], ["at", "-id"]]
)
TEXTS: Any = st.sampled_from(
    ["tax", "tax house", '"red river"', "ta*", "+law -red", {"query": "taxes", "fields": ["parts"]}]
)
FUSIONS: Any = st.sampled_from([None, "rrf", {"method": "rrf", "k": 1, "weights": {"text": 3}}])
DOCUMENTS = st.builds(
    lambda id, attributes, vector: {"id": id, "attributes": attributes, "vector": vector},
    IDS,
    FIELDS,
    VECTORS,
)
PAGES = st.sampled_from([{"top_k": 3}, {"top_k": 50}, {"top_k": 2, "offset": 3}, {"top_k": 1}])


@st.composite
def requests(draw: Any) -> dict[str, Any]:
    """What is asked: by vector, in an order, by words, or by both."""
    kind = draw(st.sampled_from(["vector", "order", "text", "both"]))
    asked: dict[str, Any] = {"filter": draw(FILTERS), **draw(PAGES)}
    if kind in ("vector", "both"):
        asked |= {"vector": draw(QUERIES), "exact": True}
    if kind == "order":
        asked["order_by"] = draw(ORDERS)
    if kind in ("text", "both"):
        asked["text"] = draw(TEXTS)
    if kind == "both":
        asked |= {"fusion": draw(FUSIONS), "include_legs": True}
    asked["include_vector"] = draw(st.booleans())
    return asked


class Views(RuleBasedStateMachine):
    """One namespace, its view, and snapshots that are held."""

    def __init__(self) -> None:
        super().__init__()
        self.store = LivingStore()
        self.held: list[tuple[Snapshot, list[tuple[Request, list[NamespaceHit]]]]] = []
        self.waiting: list[Any] = []

    @initialize(metric=st.sampled_from(["l2", "cosine", "dot"]))
    def begin(self, metric: Any) -> None:
        schema = {"vector": {"dim": 3, "metric": metric}, "attributes": ATTRIBUTES}
        self.store.run(catalog.create, NAME, schema)
        self.store.open_texts()

    # -- writing --------------------------------------------------------------------------------

    @rule(documents=st.lists(DOCUMENTS, min_size=1, max_size=12))
    def upsert(self, documents: list[Any]) -> None:
        self.store.run(writing.upsert, NAME, documents)

    @rule(id=IDS, fields=FIELDS)
    def patch(self, id: Any, fields: Any) -> None:
        self.store.run(writing.patch, NAME, [{"id": id, "attributes": fields}])

    @rule(ids=st.lists(IDS, max_size=4))
    def delete(self, ids: list[Any]) -> None:
        self.store.run(writing.delete, NAME, ids)

    @rule(filter=FILTERS)
    def delete_by_filter(self, filter: Any) -> None:
        if self.fits({"filter": filter}):
            self.store.run(writing.delete, NAME, filter=filter or {"year": 2001})

    @rule(change=st.sampled_from(["new", "secret", "hide", "show"]))
    def update_schema(self, change: str) -> None:
        changes: dict[str, dict[str, Any]] = {
            "new": {"extra": "array<int>"},
            "secret": {"secret": {"type": "int", "filterable": True}},
            "hide": {"at": {"type": "datetime", "filterable": False}},
            "show": {"at": {"type": "datetime", "filterable": True}},
        }
        self.store.run(catalog.update_schema, NAME, {"attributes": changes[change]})

    @rule(
        before=st.lists(DOCUMENTS, max_size=4),
        gone=st.lists(IDS, max_size=3),
        asked=st.lists(requests(), min_size=1, max_size=3),
        commit=st.booleans(),
    )
    def transaction(
        self, before: list[Any], gone: list[Any], asked: list[Any], commit: bool
    ) -> None:
        """Its queries see what it wrote."""
        core = self.store.engine.optimistic("test")
        try:
            for function, given in ((writing.upsert, before), (writing.delete, gone)):
                command = core.command(raw=False)
                function(command, NAME, given)
                core.keep(command)
            txn = core.long_query(raw=False)
            written = [packed_id(one["id"]) for one in before] + [packed_id(one) for one in gone]
            for one in asked:
                if self.fits(one):
                    found = self.store.views.query(
                        txn,
                        request(**one),
                        core.lease.state.position,
                        base=core.lease.read(),
                        written=written,
                    )
                    self.same(found, self.store.reference(request(**one), txn))
            if commit:
                self.store.run(core.apply)
        finally:
            core.close()

    # -- what the keeper does -------------------------------------------------------------------

    @rule(rows_max=st.sampled_from([None, None, 1, 5]))
    def make_seal(self, rows_max: int | None) -> None:
        if not self.waiting and not self.store.damaged:
            made = self.unless_damaged(lambda: self.store.seal(rows_max))
            if made is not None:
                self.waiting.append(made)

    @rule(data=st.data())
    def make_merge(self, data: st.DataObject) -> None:
        there = [segment for segment, _ in self.store.manifests()]
        if there and not self.waiting and not self.store.damaged:
            old = data.draw(st.lists(st.sampled_from(there), min_size=1, unique=True))
            made = self.unless_damaged(lambda: self.store.merge(old))
            if made is not None:
                self.waiting.append(made)

    def unless_damaged(self, make: Any) -> Any:
        try:
            return make()
        except UseTree:
            return None

    @precondition(lambda self: self.waiting)
    @rule(unprepared=st.booleans())
    def enter(self, unprepared: bool) -> None:
        """A manifest is entered; its file may not be open, as after a restart."""
        made = self.waiting.pop()
        view = self.store.known_view()
        if unprepared and made.manifest is not None and view is not None:
            view.unprepare(made.manifest.uuid)
        self.store.enter(made)

    @rule()
    def forget_incomplete(self) -> None:
        self.store.views.forget_incomplete()
        view = self.store.known_view()
        assert view is None or not view.missing()

    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """A file is lost, or not what it was; nobody notices before it is opened again."""
        files = sorted((self.store.folder / "segments").glob("*.segment"))
        if files:
            path = data.draw(st.sampled_from(files))
            if data.draw(st.booleans()):
                path.unlink()
            else:
                whole = bytearray(path.read_bytes())
                whole[data.draw(st.integers(0, len(whole) - 1))] ^= 0x40
                path.unlink()  # Whoever has it open goes on with what was there.
                path.write_bytes(whole)

    @rule()
    def repair(self) -> None:
        self.store.repair()

    @rule()
    def lose_view(self) -> None:
        self.store.lose_view()

    @rule(limit=st.sampled_from([None, 1, 4]))
    def index_some(self, limit: int | None) -> None:
        try:
            self.store.index_some(limit, [lease for lease, _ in self.held])
        except UseTree:
            # An attribute that becomes filterable loses the view too; the next to ask loads it,
            # unless a file is damaged.
            if not self.store.damaged:
                self.store.view()

    @rule()
    def forget_before(self) -> None:
        self.store.forget_before([lease for lease, _ in self.held])

    @rule()
    def crash(self) -> None:
        for lease, _ in self.held:
            lease.close()
        self.held, self.waiting = [], []
        self.store.crash()
        self.store.repair()
        try:
            self.store.open_texts()
        except Exception:
            self.store.repair()
            self.store.open_texts()

    # -- reading --------------------------------------------------------------------------------

    @rule(asked=requests())
    def query(self, asked: Any) -> None:
        if self.fits(asked):
            store, one = self.store, request(**asked)
            hits = store.query(one)
            self.same(hits, store.reference(one))
            at_once = store.views.query_at_once(store.txn, one, store.position)
            if at_once is not None:
                assert "text" in asked
                assert at_once == hits
            if hits and hits[-1].cursor is not None and "offset" not in asked:
                more = request(**asked, cursor=hits[-1].cursor)
                if asked.get("fusion") is None or asked["top_k"] > 1:
                    self.same(self.store.query(more), self.store.reference(more))

    @rule(filter=FILTERS, by=st.sampled_from([None, "ok", ["year", "tags"], "id"]))
    def count_and_group(self, filter: Any, by: Any) -> None:
        if self.fits({"filter": filter}):
            aggregates = {"n": {"$count": {}}, "sum": {"$sum": "price"}, "last": {"$max": "year"}}
            store = self.store
            txn, position = store.txn, store.position
            assert store.views.count(txn, NAME, filter, position) == reading.count(
                txn, NAME, filter
            )
            found = store.views.aggregate(
                txn, NAME, aggregates, by=by, filter=filter, position=position
            )
            assert found == reading.aggregate(txn, NAME, aggregates, by=by, filter=filter)

    @rule(asked=requests())
    def explain(self, asked: Any) -> None:
        if self.fits(asked):
            store = self.store
            told = store.views.explain(store.txn, request(**asked), store.position)
            assert told.hits == len(store.reference(request(**asked)))
            if told.source == "view":
                assert told.documents == reading.count(store.txn, NAME)
                assert told.allowed == reading.count(store.txn, NAME, asked["filter"])

    @rule(asked=st.lists(requests(), min_size=1, max_size=3))
    def hold(self, asked: list[Any]) -> None:
        """A snapshot answers the same as long as it is open, whatever is made of the segments."""
        if len(self.held) < 3:
            lease = self.store.engine.snapshot("test")
            answers = []
            for one in asked:
                if "text" not in one and self.fits(one):
                    near = request(**{**one, "exact": False})
                    answers.append((near, self.store.query(near, lease)))
            self.held.append((lease, answers))

    @precondition(lambda self: not self.waiting and not self.store.damaged)
    @rule(gone=st.lists(IDS, min_size=1, max_size=6), asked=requests())
    def compact_behind_a_snapshot(self, gone: list[Any], asked: Any) -> None:
        """What a snapshot still sees is in no segment any more."""
        with suppress(UseTree):
            self.store.view()
            lease = self.store.engine.snapshot("test")
            try:
                self.store.run(writing.delete, NAME, gone)
                for make in (
                    self.store.seal,
                    lambda: self.store.merge([number for number, _ in self.store.manifests()]),
                ):
                    made = make() if make == self.store.seal or self.store.manifests() else None
                    if made is not None:
                        self.store.enter(made)
                self.store.forget_before([lease, *(one for one, _ in self.held)])
                if self.fits(asked):
                    wanted = self.store.reference(request(**asked), lease.read())
                    self.same(self.store.query(request(**asked), lease), wanted)
                    wanted = self.store.reference(request(**asked))
                    self.same(self.store.query(request(**asked)), wanted)
            finally:
                lease.close()

    @precondition(lambda self: self.held)
    @rule(asked=requests(), data=st.data())
    def query_held(self, asked: Any, data: st.DataObject) -> None:
        lease, answers = data.draw(st.sampled_from(self.held))
        txn = lease.read()
        if self.fits(asked, txn):
            self.same(
                self.store.query(request(**asked), lease),
                self.store.reference(request(**asked), txn),
            )
        for again, before in answers:
            hits = self.store.query(again, lease)
            assert [hit.distance for hit in hits] == [hit.distance for hit in before]
            assert hits == before

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.held) - 1))
        self.held.pop(at)[0].close()

    def fits(self, asked: Any, txn: Any = None) -> bool:
        """Whether the schema lets it be asked."""
        schema = catalog.require(self.store.txn if txn is None else txn, NAME).schema
        names = "at" in str(asked.get("filter")) or "at" in str(asked.get("order_by"))
        return schema.attributes["at"].filterable or not names

    def same(self, found: list[NamespaceHit], wanted: list[NamespaceHit]) -> None:
        assert [hit.id for hit in found] == [hit.id for hit in wanted]
        for hit, other in zip(found, wanted, strict=True):
            assert (hit.distance, hit.attributes, hit.vector) == (
                *(other.distance, other.attributes, other.vector),
            )
            # Of words: sums of 32-bit floats, in whatever order the index adds.
            assert hit.score == pytest.approx(other.score, rel=1e-5)

    def teardown(self) -> None:
        for lease, _ in self.held:
            lease.close()
        self.store.close()


TestViews = Views.TestCase
TestViews.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_the_reference_is_not_what_answers() -> None:
    """Views answer all of this; where they did not, nothing above would mean much."""
    store = LivingStore()
    try:
        schema = {"vector": {"dim": 3, "metric": "l2"}, "attributes": ATTRIBUTES}
        store.run(catalog.create, NAME, schema)
        store.open_texts()
        for start in range(0, 60, 20):
            store.run(
                writing.upsert,
                NAME,
                [
                    {"id": id, "vector": [id, 1, 0], "attributes": {"year": id, "name": "tax law"}}
                    for id in range(start, start + 20)
                ],
            )
            made = store.seal()
            assert made is not None
            store.enter(made)
        for asked in (
            request(vector=[30, 1, 0], top_k=5, exact=True),
            request(vector=[30, 1, 0], top_k=5),
            request(order_by="-year", filter={"year": {"$lt": 50}}),
            request(text="law", top_k=4),
            request(text="law", vector=[1, 1, 1], top_k=4),
        ):
            assert [hit.id for hit in store.query(asked)] == [
                hit.id for hit in store.reference(asked)
            ]
        assert store.views.counters.queries == 5
        assert store.views.counters.queries_from_tree == 0
        assert exact.search(store.txn, request(vector=[1, 1, 1], top_k=60))[0].id == 1
    finally:
        store.close()
