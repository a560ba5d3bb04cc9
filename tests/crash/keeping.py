"""Namespaces on the crash disk: what their users were told, and their keepers called by hand.

What a namespace should hold is written beside it, as plain data, in the same transaction; so every
state that a crash may leave says for itself what searches have to find in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final, cast

import attrs
import msgspec

from actors.namespace_segments import SegmentKeeper
from actors.namespace_views import NamespaceViews
from tests.crash.history import Change
from tests.crash.simdisk import SimDisk
from tests.crash.simpath import SimPath, simulated_files
from tests.crash.world import World
from tests.query import reference
from treestore.engine.directory import OpenStore
from treestore.engine.snapshot import Snapshot
from treestore.stores.namespaces import catalog, copying, dropping, exact, reading, segments
from treestore.stores.namespaces.catalog import Opened
from treestore.stores.namespaces.check import check_namespaces
from treestore.stores.namespaces.layout import AFTER, row_of
from treestore.stores.namespaces.live.files import SUFFIX, SegmentFolder
from treestore.stores.namespaces.live.loading import DamagedSegment
from treestore.stores.namespaces.live.making import Made
from treestore.stores.namespaces.live.pieces import UseTree
from treestore.stores.namespaces.live.views import Views
from treestore.stores.namespaces.manifests import all_names, manifests
from treestore.stores.namespaces.search import Request, make_request
from treestore.stores.namespaces.upkeep import UpkeepOptions, kept
from treestore.stores.namespaces.writing import delete, patch, upsert

EXPECTED: Final = b"~expected"
"""The key of what every namespace of a state should hold."""

FOLDER: Final = "/db/search/namespaces/segments"

UPKEEP: Final = UpkeepOptions(seal_rows=6, seal_rows_max=40)

INDEXED_ROWS_MIN: Final = 20
"""Larger segments have an index."""

DIM: Final = 3
SCHEMA: Final[dict[str, Any]] = {
    "vector": {"dim": DIM, "metric": "l2"},
    "attributes": {
        "n": "int",
        "tags": "array<string>",
        "late": {"type": "int", "filterable": False},
    },
}

FILTERS: Final[tuple[dict[str, Any], ...]] = ({}, {"tags": "odd", "n": {"$ne": 3}})
QUERY: Final = (2.0, 1.0, 0.0)

Doc = tuple[dict[str, Any], list[float] | None]
"""Attributes and vector, in small whole numbers: their distances are the same however added."""

Docs = dict[int | str, Doc]
_decode = msgspec.msgpack.Decoder(dict[str, Docs]).decode


def documents(ids: Iterable[int | str], turn: int = 0) -> list[dict[str, Any]]:
    """Documents that differ with their id and a number."""
    found: list[dict[str, Any]] = []
    for at, id in enumerate(ids):
        seed = (id if isinstance(id, int) else len(id)) + 3 * turn
        attributes = {"n": seed % 7, "tags": ["odd"] * (seed % 2) + [f"t{turn}"], "late": seed % 3}
        vector = None if (at + turn) % 6 == 5 else [float(seed % 11), float(turn), float(at % 3)]
        found.append({"id": id, "attributes": attributes, "vector": vector})
    return found


def by_id(id: int | str) -> Any:
    """The order of ids: strings first."""
    return isinstance(id, int), id


Found = list[tuple[int | str, float | None]]
"""Ids and distances; None where nothing is compared."""


def request_of(txn: Any, name: str, filter: dict[str, Any]) -> Request:
    """By vector where there are vectors, else in the order of ids."""
    vector = None if catalog.require(txn, name).schema.vector is None else QUERY
    return make_request(name, vector=vector, filter=filter, top_k=1000, exact=vector is not None)


def wanted(txn: Any, name: str, docs: Docs, filter: dict[str, Any]) -> Found:
    """What a search finds, in plain Python."""
    if catalog.require(txn, name).schema.vector is not None:
        return nearest(docs, filter)
    return [(id, None) for id in sorted(docs, key=by_id) if fits(id, docs[id], filter)]


def fits(id: int | str, doc: Doc, filter: dict[str, Any]) -> bool:
    """Whether a filter lets a document through."""
    return reference.matches({**doc[0], "id": id}, filter)


def nearest(docs: Docs, filter: dict[str, Any]) -> Found:
    """What an exact search by vector finds."""
    found = [
        (sum((a - b) ** 2 for a, b in zip(QUERY, vector, strict=True)), by_id(id), id)
        for id, (attributes, vector) in docs.items()
        if vector is not None and fits(id, (attributes, vector), filter)
    ]
    return [(id, distance) for distance, _, id in sorted(found)]


# --- the keeper ------------------------------------------------------------------------------


class SimViews(NamespaceViews):
    """Views whose segments' files are on the crash disk."""

    def __init__(self, disk: SimDisk, store: OpenStore) -> None:
        super().__init__(store.engine, "/db", 1 << 30)
        self._disk = disk

    @property
    def segments_path(self) -> Any:
        return SimPath(self._disk, FOLDER)

    @property
    def segments(self) -> SegmentFolder:
        return attrs.evolve(super().segments, indexed_rows_min=INDEXED_ROWS_MIN)

    def views(self) -> Views:
        found = super().views()
        found._told_lost = None  # There is nobody who would read it in the log, ...
        return found

    def _note_damaged(self, number: int, damaged: list[DamagedSegment]) -> None:
        self.damaged[number] = damaged  # ... and this happens thousands of times.


class Keeper:
    """The segment keeper and the views of one process; each step is called by hand."""

    def __init__(self, disk: SimDisk, store: OpenStore) -> None:
        self.engine = store.engine
        self.views = SimViews(disk, store)
        # Its commands are run by whoever calls it, not by a writer.
        self.keeper = SegmentKeeper(store.engine, cast("Any", None), self.views, UPKEEP)

    def tidy(self) -> int:
        """Remove files that nobody names, as at every start."""
        with simulated_files(), self.keeper._pinned() as lease:
            return self.keeper._orphans(lease)

    def make(self, there: Opened, old: Sequence[int] = ()) -> Made | None:
        """Write the file of a seal, or of a merge."""
        with simulated_files(), self.keeper._pinned() as lease:
            return self.keeper._make(lease, there, list(old))

    def give_up(self, made: Made) -> None:
        """Its manifest was not entered."""
        with simulated_files():
            self.keeper._maker.give_up(made)

    def query(self, name: str, filter: dict[str, Any], lease: Snapshot | None = None) -> Any:
        """By the view, of a snapshot or the newest state."""
        txn = self.engine.read() if lease is None else lease.read()
        request = request_of(txn, name, filter)
        state = self.engine.durable if lease is None else lease.state
        with simulated_files():
            hits = self.views.views().query(txn, request, state.position)
        return [(hit.id, hit.distance) for hit in hits]

    @property
    def from_tree(self) -> int:
        """Queries that no view answered."""
        return self.views.views().counters.queries_from_tree


# --- what a state should be ------------------------------------------------------------------


def verify_namespaces(txn: Any) -> None:
    """Namespaces are sound, and hold what the state says that they should."""
    record = txn.get(EXPECTED)
    if record is None:
        return  # Of another workload, whose keys may be anything.
    problems = check_namespaces(txn)
    assert not problems, problems[:5]
    expected = _decode(record)
    names = [one.name for one in catalog.list_namespaces(txn).items]
    assert names == sorted(expected), names
    for name, docs in expected.items():
        found = reading.export(txn, name, limit=10_000).items
        there = {
            one.id: (one.attributes, None if one.vector is None else list(one.vector))
            for one in found
        }
        assert there == docs, f"{name} has {there}, and should have {docs}"
        assert [one.id for one in found] == sorted(docs, key=by_id), name
        for filter in FILTERS:
            request = request_of(txn, name, filter)
            hits = [(hit.id, hit.distance) for hit in exact.search(txn, request)]
            assert hits == wanted(txn, name, docs, filter), (name, filter)
        statistics = catalog.describe(txn, name).statistics
        assert statistics is not None
        live = statistics.tail + statistics.segment_rows - statistics.dead
        assert statistics.documents == live == len(docs), f"{name}: {statistics}, {len(docs)}"


def verify_files(disk: SimDisk, store: OpenStore, spoiled: set[str]) -> None:
    """What a process finds that opens the store: exactly the files that it wants, and views over
    them that find what there is.

    Args:
        spoiled: names of segments whose files the workload damaged. All others that a manifest
            names must be good: a file is safe before its manifest is entered.
    """
    txn = store.engine.read()
    record = txn.get(EXPECTED)
    if record is None:
        return
    keeper = Keeper(disk, store)
    keeper.tidy()
    names, there = all_names(txn), files(disk)
    assert names - spoiled <= there <= names, f"{sorted(there)} are there, named {sorted(names)}"
    for one in kept(txn):
        verify_view(keeper, txn, one, spoiled)
    views = keeper.views.views()
    damaged = bool(keeper.views.damaged)
    for name, docs in _decode(record).items():
        for filter in FILTERS:
            assert keeper.query(name, filter) == wanted(txn, name, docs, filter), (name, filter)
    assert damaged or not views.counters.queries_from_tree, "a view could not answer"
    assert not views.counters.wrong, "a view contradicted the tree"


def files(disk: SimDisk) -> set[str]:
    """Names of the segments' files that are there, and of anything else in their folder."""
    folder = SimPath(disk, FOLDER)
    return (
        {path.name.removesuffix(SUFFIX) for path in folder.iterdir()} if folder.is_dir() else set()
    )


def start_keeper(disk: SimDisk, store: OpenStore) -> None:
    """What is done to files when a store is opened."""
    if store.engine.read().get(EXPECTED) is not None:
        Keeper(disk, store).tidy()


def verify_view(keeper: Keeper, txn: Any, there: Opened, spoiled: set[str]) -> None:
    """A view can be loaded, and has exactly the rows and ids of the documents."""
    views, position = keeper.views.views(), keeper.engine.durable.position
    try:
        with simulated_files():
            view = views.view(txn, position, there)
    except UseTree:
        for one in keeper.views.damaged[there.number]:
            assert one.manifest.uuid in spoiled, one.why
        return
    prefix = there.space.documents
    rows = {row_of(record): key[len(prefix) :] for key, record in txn.scan(prefix, prefix + AFTER)}
    found = {row: view.id_of(row) for row in view.live_rows().tolist()}
    assert found == rows, f"a search sees {found}, the documents are {rows}"
    parts = {one.uuid for one in view.sealed_parts()}
    assert parts == {manifest.uuid for _, manifest in manifests(txn, there.number)}, parts


# --- what a workload does --------------------------------------------------------------------


class Keeping:
    """A workload's namespaces. Methods that give a `Change` tell the model of it at once, so they
    are called in the order in which the changes are made."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.docs: dict[str, Docs] = {}
        world.quiet = True
        world.start()
        world.quiet = False
        self.keeper = Keeper(world.disk, world.store)

    @property
    def txn(self) -> Any:
        """The durable state."""
        return self.world.store.engine.read()

    def there(self, name: str) -> Opened:
        """A namespace."""
        return catalog.require(self.txn, name)

    def kill(self) -> None:
        """The process dies, the next one tidies up."""
        self.world.kill()
        self.keeper = Keeper(self.world.disk, self.world.store)

    # -- changes --------------------------------------------------------------------------------

    def stated(self, change: Change) -> Change:
        """A change, with what namespaces should hold after it."""
        record = msgspec.msgpack.encode(self.docs)

        def stated(txn: Any) -> None:
            change(txn)
            txn.put(EXPECTED, record)

        return stated

    def write(self, change: Change) -> None:
        """One durable transaction."""
        self.world.write(self.stated(change))

    def create(self, name: str, schema: Any = SCHEMA) -> Change:
        self.docs[name] = {}
        return lambda txn: catalog.create(txn, name, schema)

    def take(self, name: str, given: Iterable[dict[str, Any]]) -> None:
        """Documents that are there from now on."""
        self.docs[name] = dict(self.docs[name])
        for one in given:
            self.docs[name][one["id"]] = one["attributes"], one["vector"]

    def upsert(self, name: str, given: list[dict[str, Any]]) -> Change:
        self.take(name, given)
        return lambda txn: upsert(txn, name, given)

    def patch(self, name: str, ids: Iterable[int | str], attributes: dict[str, Any]) -> Change:
        given: list[Any] = [{"id": id, "attributes": attributes} for id in ids]
        docs = self.docs[name] = dict(self.docs[name])
        for one in given:
            had, vector = docs[one["id"]]
            docs[one["id"]] = {**had, **attributes}, vector
        return lambda txn: patch(txn, name, given)

    def delete(self, name: str, ids: Iterable[int | str]) -> Change:
        gone = list(ids)
        self.docs[name] = {id: doc for id, doc in self.docs[name].items() if id not in gone}
        return lambda txn: delete(txn, name, gone)

    def delete_where(self, name: str, filter: dict[str, Any]) -> Change:
        self.docs[name] = {
            id: doc for id, doc in self.docs[name].items() if not fits(id, doc, filter)
        }
        return lambda txn: delete(txn, name, filter=filter)

    def drop(self, name: str) -> Change:
        del self.docs[name]
        return lambda txn: catalog.drop(txn, name)

    # -- segments -------------------------------------------------------------------------------

    def make(self, there: Opened, old: Sequence[int] = ()) -> Made | None:
        """Write a file; once more where that fails, as the keeper does later."""
        try:
            return self.keeper.make(there, old)
        except OSError:
            return self.keeper.make(there, old)

    def enter(self, made: Made | None) -> int:
        """Enter its manifest."""
        assert made is not None
        found: list[int | None] = []
        self.write(lambda txn: found.append(made.enter(txn)))
        first, second = found  # Of the model, and of the engine.
        assert first is not None
        assert first == second
        return first

    def seal(self, name: str) -> int:
        """All of the tail."""
        return self.enter(self.make(self.there(name)))

    def segments(self, name: str) -> dict[int, str]:
        """Numbers, and names of the files."""
        return {one: its.uuid for one, its in manifests(self.txn, self.there(name).number)}

    def repair(self, there: Opened) -> int:
        """What the keeper does about files that it could not open: their rows go back."""
        damaged = self.keeper.views.damaged.pop(there.number, [])
        for one in damaged:
            segment = one.number
            rows = segments.rows_with_ids(
                self.txn, there.number, segments.segment_rows(self.txn, there.number, segment)
            )
            self.write(
                lambda txn, segment=segment, rows=rows: segments.forget_segment(  # type: ignore[misc]
                    txn, there.number, segment, rows
                )
            )
        return len(damaged)

    def tidy(self) -> None:
        """Remove files that nobody names; once more where that fails."""
        try:
            self.keeper.tidy()
        except OSError:
            self.keeper.tidy()
        if not self.world.store.engine.snapshots():
            assert self.files() <= all_names(self.txn)

    def files(self) -> set[str]:
        """Names of the files that are there."""
        return files(self.world.disk)

    def spoil(self, name: str, how: str) -> None:
        """Damage a file behind everybody's back."""
        self.world.spoiled.add(name)
        disk, path = self.world.disk, f"{FOLDER}/{name}{SUFFIX}"
        size = len(disk.image(path))
        if how == "flip":
            at = self.world.random.randrange(size)
            disk.poke(path, at, bytes((disk.image(path)[at] ^ 0x10,)))
        elif how == "cut":
            file = disk.open(path)
            file.truncate(self.world.random.randrange(size))
            file.sync()
        else:
            disk.unlink(path)

    def compare(self) -> None:
        """Views find what there should be."""
        for name, docs in self.docs.items():
            for filter in FILTERS:
                found = self.keeper.query(name, filter)
                assert found == wanted(self.txn, name, docs, filter), (name, filter)

    # -- what is left ---------------------------------------------------------------------------

    def clear(self, keys_max: int = 5) -> None:
        """What the namespace keeper does: give up copies that nobody waits for, remove what was
        dropped."""
        for number in copying.under_way(self.txn):
            self.write(partial(copying.abandon, number=number))
        for number in dropping.pending(self.txn):
            while number in dropping.pending(self.txn):
                # What a step removes depends on how keys lie in leaves, which the model has not:
                # it is found out first, and then done to both.
                step = partial(dropping.step, number=number, keys_max=keys_max)
                self.write(self.plan(step).repeat)

    def plan(self, change: Change) -> Plan:
        """What a change does to the engine."""
        engine = self.world.store.engine
        plan = Plan(engine.begin())
        change(plan)
        engine.rollback(plan.txn)
        return plan


class Plan:
    """A transaction that notes what is written.

    Attributes:
        txn: the one that is really open.
        calls: names of methods, and what they were given.
    """

    def __init__(self, txn: Any) -> None:
        self.txn = txn
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.txn, name)
        if name not in ("put", "put_sorted", "delete", "delete_range"):
            return method

        def noted(*args: Any) -> Any:
            self.calls.append((name, *args))
            return method(*args)

        return noted

    def repeat(self, txn: Any, *, start: int = 0, end: int | None = None) -> None:
        """The same again, or a part of it."""
        for name, *args in self.calls[start:end]:
            getattr(txn, name)(*args)


def go_on(world: World) -> None:
    """A store that was recovered works: its files are made again, everything is joined into one
    segment, nothing is left of what is gone."""
    if world.store.engine.read().get(EXPECTED) is None:
        return
    keeping = Keeping.__new__(Keeping)
    keeping.world = world
    keeping.keeper = Keeper(world.disk, world.store)
    keeping.docs = _decode(keeping.txn.get(EXPECTED))
    keeping.tidy()
    keeping.clear(keys_max=1000)
    for name in keeping.docs:
        there = keeping.there(name)
        keeping.keeper.query(name, {})
        keeping.repair(there)
        given = documents(["after", 1], turn=9)
        if there.schema.vector is None:
            given = [{**one, "vector": None, "attributes": {"n": 1}} for one in given]
        keeping.write(keeping.upsert(name, given))
        keeping.seal(name)
        keeping.enter(keeping.make(there, list(keeping.segments(name))))
        assert len(keeping.segments(name)) == 1
        with_it = keeping.keeper.from_tree
        found = wanted(keeping.txn, name, keeping.docs[name], {})
        assert keeping.keeper.query(name, {}) == found
        assert keeping.keeper.from_tree == with_it
    keeping.tidy()
    assert keeping.files() <= all_names(keeping.txn)
    verify_namespaces(keeping.txn)
