"""Workloads over namespaces, for `tests.crash.workloads`."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.crash.keeping import FILTERS, SCHEMA, Keeping, documents, nearest
from tests.crash.world import World
from treestore.stores.namespaces import catalog, copying, dropping, importing
from treestore.stores.namespaces.imports import imports_into
from treestore.stores.namespaces.upkeep import staged


def namespace_writes(world: World) -> None:
    """Documents come, change and go, in groups and with other keys; a namespace is dropped."""
    keep = Keeping(world)
    count = world.random.randrange(8, 14)
    keep.write(keep.create("a"))
    keep.write(keep.upsert("a", documents([*range(count), "x", "ü\0"])))
    keep.write(keep.create("b", {"attributes": {"n": "int", "tags": "array<string>"}}))
    world.checkpoint()
    world.groups(
        [
            keep.stated(keep.upsert("a", documents([1, 2, 99], turn=1))),
            keep.stated(keep.patch("a", [3, "x"], {"n": None, "late": 5})),
        ],
        [keep.stated(keep.delete("a", [4, 5])), keep.stated(keep.delete_where("a", FILTERS[1]))],
    )
    both = (keep.upsert("a", documents([7, "y"], turn=2)), keep.delete("a", [0]))
    keep.write(partial(_several, both))
    world.checkpoint()
    keep.write(keep.drop("b"))
    keep.write(keep.drop("a"))
    keep.clear(keys_max=count)


def _several(changes: Any, txn: Any) -> None:
    for change in changes:
        change(txn)
    txn.put(b"~beside", b"1")


def namespace_seals(world: World) -> None:
    """A seal while its rows die; one whose file nobody names; a file that is lost, before its
    manifest is entered or later."""
    keep = Keeping(world)
    early = world.random.random() < 0.5
    how = world.random.choice(["flip", "cut", "remove"])
    keep.write(keep.create("a"))
    keep.write(keep.upsert("a", documents(range(world.random.randrange(8, 14)))))
    made = keep.make(keep.there("a"))
    keep.write(keep.delete("a", [1, 2]))
    keep.write(keep.upsert("a", documents([3, 50], turn=1)))
    if early:
        assert made is not None
        assert made.manifest is not None
        keep.spoil(made.manifest.uuid, how)
    keep.enter(made)
    keep.compare()  # Whoever made it has it open.
    world.checkpoint()
    assert keep.make(keep.there("a")) is not None
    keep.kill()
    keep.tidy()
    (name,) = keep.segments("a").values()
    if not early:
        keep.spoil(name, how)
    keep.write(keep.upsert("a", documents([4], turn=2)))
    keep.kill()
    keep.compare()  # From the tree.
    assert keep.repair(keep.there("a")) == 1
    keep.tidy()
    keep.seal("a")
    keep.compare()


def namespace_merges(world: World) -> None:
    """Segments are joined while rows die, under a snapshot that still wants the old ones."""
    keep = Keeping(world)
    keep.write(keep.create("a"))
    for turn in range(2):
        keep.write(keep.upsert("a", documents(range(turn * 9, turn * 9 + 12), turn=turn)))
        keep.seal("a")
    keep.write(keep.delete("a", [0, 20]))
    lease = world.store.engine.snapshot("test")
    before, old = nearest(keep.docs["a"], {}), keep.segments("a")
    made = keep.make(keep.there("a"), list(old))
    world.groups(
        [keep.stated(keep.delete("a", [2, 12]))],
        [keep.stated(keep.upsert("a", documents([3, "new"], turn=3)))],
    )
    keep.enter(made)
    keep.tidy()
    assert keep.files() >= set(old.values())
    assert keep.keeper.query("a", {}, lease) == before
    # A view that has to be loaded for the snapshot needs the old files.
    keep.keeper.views.views().forget(keep.there("a").number)
    assert keep.keeper.query("a", {}, lease) == before
    assert not keep.keeper.from_tree
    lease.close()
    world.checkpoint()
    keep.spoil(next(iter(old.values())), "cut")  # Nobody wants it any more.
    keep.tidy()
    keep.write(keep.delete_where("a", {}))
    keep.enter(keep.make(keep.there("a"), list(keep.segments("a"))))
    keep.tidy()
    assert not keep.files()
    keep.compare()


def namespace_schema(world: World) -> None:
    """The schema grows over documents and segments that were there before."""
    keep = Keeping(world)
    attributes = {**SCHEMA["attributes"]}
    keep.write(keep.create("a", {"attributes": attributes}))
    first = [{**one, "vector": None} for one in documents(range(7))]
    keep.write(keep.upsert("a", first))
    keep.seal("a")
    grown = {"vector": SCHEMA["vector"], "attributes": {"new": "int"}}
    keep.write(lambda txn: catalog.update_schema(txn, "a", grown))
    keep.write(keep.upsert("a", documents([1, 30], turn=1)))
    keep.write(keep.patch("a", [2, 30], {"new": 4}))
    shown = {"attributes": {"late": {"type": "int", "filterable": True}}}
    keep.write(lambda txn: catalog.update_schema(txn, "a", shown))
    keep.seal("a")
    world.checkpoint()
    # The first segment has no column of it, until it is written again.
    keep.enter(keep.make(keep.there("a"), list(keep.segments("a"))))
    filter = {"late": {"$gte": 1}, "new": None}
    before = keep.keeper.from_tree
    assert keep.keeper.query("a", filter) == nearest(keep.docs["a"], filter)
    assert keep.keeper.from_tree == before
    keep.tidy()


def namespace_imports(world: World) -> None:
    """Imports: stored apart and shown at once, added to what is there, given up, as they come."""
    keep = Keeping(world)
    keep.write(keep.create("a"))
    apart = partial(importing.bulk_begin, name="a", mode="all_or_nothing")
    count = world.random.randrange(6, 9)
    given = documents(range(2 * count))
    keep.write(partial(apart, import_id="first"))
    keep.write(_batch("first", 1, given[:count]))
    ((_, record),) = imports_into(keep.txn, "a")
    assert record.staging is not None
    keep.enter(keep.make(staged(keep.there("a"), record.staging)))
    keep.write(_batch("first", 1, given[:count]))  # Sent twice.
    keep.kill()
    keep.write(_batch("first", count + 1, given[count:]))
    keep.compare()  # Nothing of it is seen.
    keep.take("a", given)
    keep.write(lambda txn: importing.bulk_end(txn, "a", "first"))
    keep.compare()
    world.checkpoint()
    more = documents([1, 3, "x"], turn=1)
    keep.write(partial(apart, import_id="second"))
    keep.write(_batch("second", 1, more))
    keep.take("a", more)
    keep.write(lambda txn: importing.bulk_end(txn, "a", "second"))
    keep.write(partial(apart, import_id="third"))
    keep.write(_batch("third", 1, documents([2, "y"], turn=2)))
    keep.write(lambda txn: importing.bulk_abort(txn, "a", "third"))
    keep.write(partial(importing.bulk_begin, name="a", import_id="fourth"))
    some = documents([4, "z"], turn=3)
    keep.take("a", some)
    keep.write(_batch("fourth", 1, [*some, {"id": 5, "vector": [1.0]}]))
    keep.clear()
    keep.compare()


def _batch(import_id: str, first: int, given: list[Any]) -> Any:
    return importing.bulk_write("a", first=first, documents=given, import_id=import_id)


def namespace_copies(world: World) -> None:
    """A copy beside writes, one that is given up; the original goes, the files are shared."""
    keep = Keeping(world)
    keep.write(keep.create("a"))
    keep.write(keep.upsert("a", documents(range(world.random.randrange(8, 12)))))
    keep.seal("a")
    keep.write(keep.upsert("a", documents([2, "tail"], turn=1)))
    (file,) = keep.segments("a").values()
    _copy(keep, "b")
    keep.write(lambda txn: copying.begin(txn, "a", "c"))
    (number,) = copying.under_way(keep.txn)
    (pairs,) = copying.batches(keep.txn, keep.there("a"), number)
    keep.write(lambda txn: copying.put(txn, number, pairs[:9]))
    keep.kill()
    keep.clear(keys_max=6)
    keep.write(keep.drop("a"))
    while dropping.pending(keep.txn):
        keep.clear(keys_max=12)
    keep.tidy()
    assert file in keep.files()  # The copy has it too.
    keep.compare()
    keep.write(keep.delete("b", [0, 1]))
    keep.enter(keep.make(keep.there("b"), list(keep.segments("b"))))
    keep.tidy()
    assert file not in keep.files()
    keep.compare()


def _copy(keep: Keeping, name: str) -> None:
    """As the namespace keeper does it."""
    keep.write(lambda txn: copying.begin(txn, "a", name))
    (number,) = copying.under_way(keep.txn)
    source, docs = keep.there("a"), keep.docs["a"]
    (pairs,) = copying.batches(keep.txn, source, number)
    half = len(pairs) // 2
    keep.write(lambda txn: copying.put(txn, number, pairs[:half]))
    keep.write(keep.delete("a", [3]))
    keep.write(lambda txn: copying.put(txn, number, pairs[half:]))
    keep.docs[name] = docs
    keep.write(lambda txn: copying.finish(txn, number, source))


NAMESPACE_WORKLOADS = (
    namespace_writes,
    namespace_seals,
    namespace_merges,
    namespace_schema,
    namespace_imports,
    namespace_copies,
)
