"""Random changes of a namespace whose segments have indexes, compared with numpy and plain Python.

``test_view_model.py`` compares views with the reference that looks at every document, over few
documents of every odd kind. Here are some hundred, enough for indexes, and what should be found is
calculated without anything of the program's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final
from unittest import mock

import attrs
import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.stores.namespaces.live.living import NAME, LivingStore, request
from treestore.engine.snapshot import Snapshot
from treestore.model.namespaces import NamespaceHit
from treestore.search.vectors import building
from treestore.search.vectors.planning import Costs
from treestore.stores.namespaces import catalog, reading, writing
from treestore.stores.namespaces.check import check_namespaces
from treestore.stores.namespaces.live.words import rows_of

DIM: Final = 12
IDS: Final = 1200
INDEXED_ROWS_MIN: Final = 100
HELD_MAX: Final = 2

RECALL_MIN: Final = 0.95
"""Over all approximate searches of a run: what is wanted of an index."""
JUDGED_FROM: Final = 200
"""With so many neighbours that were to be found."""

WORDS: Final = ("tax", "law", "house", "river", "red", "council")
SCHEMA: Final[dict[str, Any]] = {
    "attributes": {
        "year": "int",
        "group": "string",
        "name": {"type": "string", "full_text": {"language": "none"}},
    }
}


@attrs.frozen
class Doc:
    """A document as its user knows it."""

    year: int
    group: str
    name: str
    vector: npt.NDArray[np.float32] | None

    @property
    def attributes(self) -> dict[str, Any]:
        return {"year": self.year, "group": self.group, "name": self.name}


Docs = dict[int, Doc]
Fits = Callable[[int, Doc], bool]

FILTERS: Final[list[tuple[dict[str, Any] | None, Fits]]] = [
    (None, lambda id, doc: True),
    ({"year": {"$gte": 5}}, lambda id, doc: doc.year >= 5),
    ({"group": "g1", "year": {"$ne": 3}}, lambda id, doc: doc.group == "g1" and doc.year != 3),
    ({"$or": [{"year": 0}, {"id": {"$lt": 40}}]}, lambda id, doc: doc.year == 0 or id < 40),
    ({"$not": {"group": {"$in": ["g0", "g2"]}}}, lambda id, doc: doc.group not in ("g0", "g2")),
    ({"year": 77}, lambda id, doc: False),
]
CHOSEN: Final = st.sampled_from(FILTERS)
SEEDS: Final = st.integers(0, 2**32 - 1)
CENTRES: Final = np.random.default_rng(0).normal(size=(8, DIM)) * 2


def some_documents(seed: int, count: int) -> Docs:
    """Around some centres; some without a vector, some with the vector of another."""
    luck = np.random.default_rng(seed)
    found: Docs = {}
    last: npt.NDArray[np.float32] | None = None
    for id in luck.choice(IDS, count, replace=False).tolist():
        chance = luck.random()
        vector = last if chance < 0.05 else some_vector(luck)
        last = vector if vector is not None else last
        words = " ".join(luck.choice(WORDS, luck.integers(4)))
        year, group = int(luck.integers(10)), f"g{luck.integers(4)}"
        found[id] = Doc(year, group, words, None if chance > 0.95 else vector)
    return found


def some_vector(luck: np.random.Generator) -> npt.NDArray[np.float32]:
    """As queries are, too."""
    return (CENTRES[luck.integers(len(CENTRES))] + luck.normal(size=DIM)).astype(np.float32)


def distances(metric: str, query: Any, docs: Docs) -> dict[int, float]:
    """In numpy's double precision, of those that have a vector."""
    ids = [id for id in sorted(docs) if docs[id].vector is not None]
    if not ids:
        return {}
    rows = np.array([docs[id].vector for id in ids], np.float64)
    one = np.asarray(query, np.float64)
    products = (rows * one).sum(axis=1)
    if metric == "l2":
        found = ((rows - one) ** 2).sum(axis=1)
    elif metric == "dot":
        found = -products
    else:
        lengths = np.sqrt((rows**2).sum(axis=1)) * np.sqrt((one**2).sum())
        found = 1 - products / lengths
    return dict(zip(ids, found.tolist(), strict=True))


def as_given(docs: Docs) -> list[dict[str, Any]]:
    return [
        {"id": id, "attributes": doc.attributes, "vector": doc.vector} for id, doc in docs.items()
    ]


@attrs.frozen
class Held:
    """A snapshot, what it holds, and what it answered first."""

    lease: Snapshot
    docs: Docs
    answers: list[tuple[Any, list[NamespaceHit]]]


class Numpy(RuleBasedStateMachine):
    """One namespace. Comparing rows seems dear, and few of them worth a measurement, so that the
    indexes are asked though they are small."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = ExitStack()
        dear = mock.patch.object(Costs, "comparing", lambda self, rows: 100.0 * rows)
        self.patches.enter_context(dear)
        self.patches.enter_context(mock.patch.object(building, "_MEASURED_ROWS_MIN", 20))
        self.store = LivingStore(indexed_rows_min=INDEXED_ROWS_MIN)
        self.docs: Docs = {}
        self.held: list[Held] = []
        self.metric = "l2"
        self.found = self.wanted = 0

    @initialize(metric=st.sampled_from(["l2", "cosine", "dot"]), seed=SEEDS)
    def begin(self, metric: str, seed: int) -> None:
        self.metric = metric
        schema = {**SCHEMA, "vector": {"dim": DIM, "metric": metric}}
        self.store.run(catalog.create, NAME, schema)
        self.store.open_texts()
        self.upsert(seed, 400)
        self.seal(seed, False)

    # -- writing --------------------------------------------------------------------------------

    @rule(seed=SEEDS, count=st.sampled_from([1, 20, 400]))
    def upsert(self, seed: int, count: int) -> None:
        given = some_documents(seed, count)
        self.store.run(writing.upsert, NAME, as_given(given))
        self.docs = self.docs | given

    @rule(seed=SEEDS, year=st.integers(0, 9), moved=st.booleans())
    def patch(self, seed: int, year: int, moved: bool) -> None:
        luck = np.random.default_rng(seed)
        patches: list[Any] = []
        docs = dict(self.docs)
        for id in luck.choice(IDS, 8, replace=False).tolist():
            patches.append({"id": id, "attributes": {"year": year}})
            vector = some_vector(luck)
            if moved:
                patches[-1]["vector"] = vector
            if id in docs:
                its = docs[id]
                docs[id] = Doc(year, its.group, its.name, vector if moved else its.vector)
        result = self.store.run(writing.patch, NAME, patches)
        assert result.patched == len([one for one in patches if one["id"] in docs])
        self.docs = docs

    @rule(seed=SEEDS, count=st.sampled_from([1, 60]), words_too=st.booleans())
    def delete(self, seed: int, count: int, words_too: bool = False) -> None:
        ids = np.random.default_rng(seed).choice(IDS, count, replace=False).tolist()
        gone = {id for id in ids if id in self.docs}
        assert self.store.run(writing.delete, NAME, ids) == len(gone)
        self.docs = {id: doc for id, doc in self.docs.items() if id not in gone}
        if words_too:
            self.index_words(None)

    @rule(chosen=CHOSEN, limit=st.sampled_from([None, 10]))
    def delete_by_filter(self, chosen: Any, limit: int | None) -> None:
        filter, fits = chosen
        if filter is None:
            return  # Everything at once would leave little to look at.
        gone = [id for id in sorted(self.docs) if fits(id, self.docs[id])][:limit]
        assert self.store.run(writing.delete, NAME, filter=filter, limit=limit) == len(gone)
        self.docs = {id: doc for id, doc in self.docs.items() if id not in gone}

    # -- segments -------------------------------------------------------------------------------

    @rule(seed=SEEDS, meanwhile=st.booleans())
    def seal(self, seed: int, meanwhile: bool) -> None:
        made = self.store.seal()
        self.change(seed, meanwhile)
        if made is not None:
            assert self.store.enter(made) is not None
        self.tidy()

    @rule(seed=SEEDS, meanwhile=st.booleans(), everything=st.booleans())
    def merge(self, seed: int, meanwhile: bool, everything: bool) -> None:
        there = [segment for segment, _ in self.store.manifests()]
        if there:
            made = self.store.merge(there if everything else there[:2])
            self.change(seed, meanwhile)
            assert self.store.enter(made) is not None
            self.tidy()

    def change(self, seed: int, meanwhile: bool) -> None:
        """What others do while a file is written."""
        if meanwhile:
            self.upsert(seed, 20)
            self.delete(seed + 1, 30)

    @rule(limit=st.sampled_from([None, 40]))
    def index_words(self, limit: int | None) -> None:
        self.store.index_some(limit, [one.lease for one in self.held])
        assert self.store.texts is not None
        index = self.store.texts.serving.view
        assert index is not None
        if limit is None and not self.held:
            # Nothing is left of rows that nobody can see.
            assert sorted(rows_of(index)) == self.store.view().live_rows().tolist()

    def tidy(self) -> None:
        """What no snapshot needs any more is let go of, as the keeper does after each thing."""
        self.store.forget_before([one.lease for one in self.held])

    @rule()
    def crash(self) -> None:
        for one in self.held:
            one.lease.close()
        self.held = []
        self.store.crash()
        self.store.open_texts()

    # -- snapshots ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.held) < HELD_MAX)
    @rule(seed=SEEDS)
    def hold(self, seed: int) -> None:
        luck = np.random.default_rng(seed)
        lease = self.store.engine.snapshot("test")
        answers = []
        for filter, _ in FILTERS[:3]:
            asked = request(vector=some_vector(luck), filter=filter, top_k=10)
            answers.append((asked, self.store.query(asked, lease)))
        self.held.append(Held(lease, self.docs, answers))

    @precondition(lambda self: self.held)
    @rule(last=st.booleans())
    def release(self, last: bool) -> None:
        self.held.pop(-1 if last else 0).lease.close()

    @invariant()
    def a_snapshot_answers_as_before(self) -> None:
        """Approximate answers too, whatever became of the segments."""
        for one in self.held:
            for asked, before in one.answers:
                assert self.store.query(asked, one.lease) == before
            self.look_for([WORDS[0]], FILTERS[0], one.docs, one.lease)

    # -- reading --------------------------------------------------------------------------------

    @rule(seed=SEEDS, chosen=CHOSEN, top_k=st.sampled_from([1, 10, 25]))
    def nearest(self, seed: int, chosen: Any, top_k: int) -> None:
        luck = np.random.default_rng(seed)
        for _ in range(4):
            query = some_vector(luck)
            self.look(query, chosen, top_k, self.docs, None)
            for one in self.held:
                self.look(query, chosen, top_k, one.docs, one.lease)

    def look(self, query: Any, chosen: Any, top_k: int, docs: Docs, lease: Any) -> None:
        filter, fits = chosen
        there = distances(self.metric, query, {i: doc for i, doc in docs.items() if fits(i, doc)})
        order = sorted(there, key=lambda id: (there[id], id))
        asked: dict[str, Any] = {"vector": query, "filter": filter}
        exact = self.store.query(request(**asked, top_k=IDS, exact=True), lease)
        assert [hit.id for hit in exact] == order
        for hit in exact:
            assert hit.distance is not None
            assert np.isclose(hit.distance, there[hit.id], rtol=1e-12, atol=1e-12)  # type: ignore[index]
            assert hit.attributes == docs[hit.id].attributes  # type: ignore[index]
        hits = self.store.query(request(**asked, top_k=top_k), lease)
        known = {hit.id: hit.distance for hit in exact}
        assert [hit.distance for hit in hits] == [known[hit.id] for hit in hits]
        places: dict[Any, int] = {id: place for place, id in enumerate(order)}
        assert len({hit.id for hit in hits}) == len(hits) == min(top_k, len(order))
        assert [hit.id for hit in hits] == sorted((hit.id for hit in hits), key=places.__getitem__)
        self.found += len({hit.id for hit in hits} & set(order[:top_k]))
        self.wanted += min(top_k, len(order))

    @rule(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=2), chosen=CHOSEN)
    def with_words(self, words: list[str], chosen: Any) -> None:
        for docs, lease in [(self.docs, None), *((one.docs, one.lease) for one in self.held)]:
            self.look_for(words, chosen, docs, lease)

    def look_for(self, words: list[str], chosen: Any, docs: Docs, lease: Any) -> None:
        """Whoever has one of the words is found, and nobody else."""
        filter, fits = chosen
        hits = self.store.query(request(text=" ".join(words), filter=filter, top_k=IDS), lease)
        assert {hit.id for hit in hits} == {
            id
            for id, doc in docs.items()
            if fits(id, doc) and not set(words).isdisjoint(doc.name.split())
        }
        assert all(hit.score > 0 for hit in hits)

    @rule(chosen=CHOSEN)
    def count(self, chosen: Any) -> None:
        filter, fits = chosen
        store = self.store
        wanted = sum(fits(id, doc) for id, doc in self.docs.items())
        assert store.views.count(store.txn, NAME, filter, store.position) == wanted
        assert reading.count(store.txn, NAME, filter) == wanted

    @invariant()
    def the_tree_is_sound(self) -> None:
        if catalog.find(self.store.txn, NAME) is not None:
            assert check_namespaces(self.store.txn) == []
            # Nothing is damaged, so it is always a view that answers, also for snapshots.
            assert self.store.views.counters.wrong == 0
            assert self.store.views.counters.queries_from_tree == 0

    def teardown(self) -> None:
        try:
            assert self.found >= RECALL_MIN * self.wanted or self.wanted < JUDGED_FROM
        finally:
            self.patches.close()
            for one in self.held:
                one.lease.close()
            self.store.close()


TestNumpy = Numpy.TestCase
TestNumpy.settings = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_indexes_are_asked() -> None:
    """Else the machine above would say nothing of them."""
    machine: Any = Numpy()
    try:
        machine.begin("l2", 1)
        machine.upsert(2, 400)
        machine.seal(3, True)
        query = some_vector(np.random.default_rng(4))
        told = machine.store.views.explain(
            machine.store.txn, request(vector=query, top_k=10), machine.store.position
        )
        assert [part.way for part in told.parts] == ["index", "index", "exact"]
        assert all(part.compared < part.rows for part in told.parts[:2])
        for seed in range(20):
            machine.nearest(seed, FILTERS[seed % 2], 10)
        assert machine.wanted > JUDGED_FROM  # Then `teardown` judges.
    finally:
        machine.teardown()
