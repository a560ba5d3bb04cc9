"""Small workloads for the crash disk. Each is a function over a `World`.

The seed varies sizes and numbers a little, so that a further round meets other images; what a
workload is about stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tests.crash.history import (
    Change,
    conflicting,
    interactive,
    numbered,
    put,
    remove,
    remove_keys,
)
from tests.crash.namespaces import NAMESPACE_WORKLOADS
from tests.crash.world import World
from tests.engine.compacting import compact, steps_of
from treestore.stores.collections import building, catalog, writing
from treestore.stores.collections.indexes import Definition
from treestore.stores.documents import editing, storing

Workload = Callable[[World], None]


def creation(world: World) -> None:
    """Opening a new store, closing it, opening it again."""
    world.start()
    world.reopen()
    world.write(put({b"first": b"1"}))


def puts(world: World) -> None:
    """Small values in single transactions and in pipelined groups, over several pages."""
    world.start()
    size = world.random.randrange(10, 80)
    world.write(put(numbered(range(30), size)))
    world.groups(
        [put(numbered([n], size + 1)) for n in range(20, 26)],
        [put(numbered([n, n + 50], size + 2)) for n in range(6)],
        [put({b"turn": b"1"})],
    )
    world.checkpoint()
    world.groups(*([put(numbered([turn * 3], 30))] for turn in range(5)))


def deletes(world: World) -> None:
    """Single keys and ranges, until pages merge and the tree is empty; then it grows again."""
    world.start()
    count = world.random.randrange(60, 100)
    world.write(put(numbered(range(count), 50)))
    world.checkpoint()
    world.write(remove_keys([b"k%04d" % n for n in range(0, count, 3)]))
    low = world.random.randrange(count // 2)
    world.write(remove(b"k%04d" % low, b"k%04d" % (low + count // 3)))
    world.checkpoint()
    world.groups([remove_keys([b"k%04d" % n]) for n in range(1, count, 7)], [remove(b"", b"\xff")])
    world.checkpoint()
    world.write(put(numbered(range(5), 20)))


def overflow_values(world: World) -> None:
    """Values of several pages, replaced and removed, their pages used again."""
    world.start()
    size = world.random.randrange(3000, 9000)
    world.write(put(numbered(range(3), size)))
    world.checkpoint()
    world.write(put(numbered([1], size * 2)))
    world.write(remove(b"k0000", b"k0001"))
    world.checkpoint()
    world.groups([put(numbered([5], size)), put(numbered([5], 10))], [put(numbered([6], size))])
    world.checkpoint()
    world.write(put(numbered([7, 8], 1200)))
    world.checkpoint()


def checkpoints(world: World) -> None:
    """Checkpoints beside open snapshots, without changes between them, and while a group waits."""
    world.start()
    engine = world.store.engine
    world.write(put(numbered(range(40), 60)))
    snapshot = engine.snapshot("test")
    expected = dict(snapshot.read().scan(b"", None))
    for turn in range(3):
        world.write(put(numbered(range(turn * 10, turn * 10 + 12), 40 + turn)))
        world.checkpoint()
    assert dict(snapshot.read().scan(b"", None)) == expected
    world.write(put(numbered(range(12), 90)))
    snapshot.close()
    checkpoint = engine.begin_checkpoint()
    assert checkpoint is not None
    checkpoint.run()
    world.write(put(numbered(range(50, 55), 70)))
    position = engine.finish_checkpoint()
    if position is not None:
        engine.log.trim(position)
    world.checkpoint()
    world.checkpoint()


def log_rotation(world: World) -> None:
    """More log than a segment holds, prepared segments, trimming and reuse of old ones."""
    world.start()
    for turn in range(7):
        size = world.random.randrange(6_000, 9_000)
        world.write(put(numbered(range(turn, turn + 2), size)))
        if turn % 2:
            world.store.engine.log.prepare_next()
        if turn in (2, 5):
            world.checkpoint()


def rollback(world: World) -> None:
    """Commands that are rolled back, between commands of the same group that are not."""
    world.start()
    engine = world.store.engine
    world.write(put(numbered(range(30), 50)))
    for turn in range(3):
        txn = engine.begin()
        put(numbered(range(turn, 40, 3), 2000))(txn)
        remove(b"k0005", b"k0020")(txn)
        engine.rollback(txn)
        world.groups([put(numbered([turn, 60 + turn], 33))])
        if turn == 1:
            world.checkpoint()


def reopening(world: World) -> None:
    """Closing in an orderly way and not, and recovering each time."""
    world.start()
    world.write(put(numbered(range(20), 30)))
    world.checkpoint()
    world.write(put(numbered(range(10, 30), 31)))
    world.kill()
    world.write(put(numbered(range(30, 33), world.random.randrange(5, 500))))
    world.reopen()
    world.write(remove(b"k0010", b"k0020"))
    world.kill()
    world.kill()
    world.write(put({b"last": b"1"}))
    world.store.close()


def recovery(world: World) -> None:
    """Recovery of a log that was never trimmed, again and again."""
    world.start()
    for turn in range(world.random.randrange(3, 7)):
        world.groups([put(numbered([turn, turn + n], 700)) for n in range(4)])
    for _ in range(3):
        world.kill()
    world.write(put({b"after": b"1"}))
    world.kill()


def _tree(prefix: str, width: int, depth: int, text: str) -> list[dict[str, Any]]:
    return [
        {
            "node_id": f"{prefix}{n}",
            "title": f"Section {prefix}{n}",
            "start_index": n + 1,
            "end_index": n + 3,
            "text": text * (n + 1),
            "nodes": _tree(f"{prefix}{n}.", width, depth - 1, text) if depth else [],
        }
        for n in range(width)
    ]


def documents(world: World) -> None:
    """A document is stored, edited, replaced and removed."""
    world.start()
    width = world.random.randrange(2, 4)
    first: Change = storing.store("policy", "v1", _tree("a", width, 2, "words of the law "))
    world.write(first)
    nodes = [{"node_id": "new", "title": "New", "parent_id": "a1"}, {"title": "Assigned"}]
    world.write(lambda txn: editing.insert_nodes(txn, "policy", nodes))
    world.checkpoint()
    world.groups(
        [
            lambda txn: editing.update_node(txn, "policy", "a0", text="changed " * 300),
            lambda txn: editing.move_node(txn, "policy", "a1", parent_id="a0"),
        ],
        [lambda txn: editing.delete_node(txn, "policy", "a0.1")],
    )
    world.write(storing.store("policy", "v2", _tree("b", 3, 1, "other words ")))
    world.write(storing.store("policy", "v1", _tree("c", width, 1, "replaced ")))
    world.checkpoint()
    world.write(lambda txn: storing.delete(txn, "policy", "v2"))
    world.write(lambda txn: storing.delete_policy(txn, "policy"))


def collections(world: World) -> None:
    """Documents with indexes; one index is built beside writers, a unique one that fails."""
    world.start()
    size = world.random.randrange(20, 90)
    world.write(
        lambda txn: catalog.create(txn, "c", indexes=["n", {"fields": "k", "unique": True}])
    )
    world.write(lambda txn: writing.insert_many(txn, "c", _things(range(12), size)))
    world.checkpoint()
    world.write(lambda txn: building.begin(txn, "c", Definition.of(["n", "tags"])))
    late = Definition.of("late", unique=True, sparse=True)
    world.write(lambda txn: building.begin(txn, "c", late))
    for turn in range(6):
        world.groups(
            [partial(_build, documents=3), partial(_replace_one, number=turn)],
            [partial(_insert_one, number=20 + turn, size=size), partial(_delete_one, number=turn)],
        )
        if turn % 3 == 1:
            world.checkpoint()
    world.write(lambda txn: writing.update_many(txn, "c", {"n": 1}, {"$push": {"tags": "new"}}))
    world.write(lambda txn: writing.delete_many(txn, "c", {"n": {"$gte": 3}}))
    world.checkpoint()
    world.write(lambda txn: catalog.drop_index(txn, "c", "n"))
    world.write(lambda txn: catalog.drop(txn, "c"))


def _things(numbers: Iterable[int], size: int) -> list[dict[str, Any]]:
    some = {10: {"late": 1}, 11: {"late": 1}}
    return [
        {"_id": f"{n:02}", "n": n % 5, "k": n, "tags": ["t" * size, n], **some.get(n, {})}
        for n in numbers
    ]


def _replace_one(txn: Any, *, number: int) -> None:
    writing.replace(txn, "c", f"{number:02}", {"n": 1, "k": -number - 1})


def _insert_one(txn: Any, *, number: int, size: int) -> None:
    writing.insert_many(txn, "c", _things([number], size))


def _delete_one(txn: Any, *, number: int) -> None:
    writing.delete(txn, "c", f"{number + 6:02}")


def _build(txn: Any, *, documents: int) -> None:
    """A step of each build."""
    for index_id in building.pending(txn):
        building.step(txn, index_id, documents_max=documents)


def compaction(world: World) -> None:
    """Most is deleted, the file is shortened between commits; a snapshot is in the way first."""
    world.start()
    engine = world.store.engine
    count = world.random.randrange(80, 110)
    world.write(put(numbered(range(count), 150)))
    world.checkpoint()
    world.write(put(numbered(range(200, 204), 3000)))
    world.checkpoint()
    snapshot = engine.snapshot("test")
    expected = dict(snapshot.read().scan(b"", None))
    world.write(remove_keys([b"k%04d" % n for n in range(count) if n % 9]))
    before = engine.pages.file.size()
    for number, _ in enumerate(steps_of(engine)):
        if number % 4 == 1:
            world.write(put(numbered([300 + number % 3], 40)))
    assert dict(snapshot.read().scan(b"", None)) == expected
    snapshot.close()
    world.write(remove(b"k0200", b"k0201"))
    compact(engine)
    assert engine.pages.file.size() < before
    world.write(put(numbered(range(20), 100)))
    world.checkpoint()


def transactions(world: World) -> None:
    """Interactive transactions: some calls each, committed among other commands, or in conflict."""
    world.start()
    engine = world.store.engine
    size = world.random.randrange(20, 60)
    world.write(put(numbered(range(30), size)))
    world.write(storing.store("policy", "v1", _tree("a", 2, 1, "words ")))
    for turn in range(4):
        edit = partial(_add_a_node, title=f"Turn {turn}")
        several: list[Change] = [put(numbered(range(turn * 5, turn * 5 + 8), size + turn)), edit]
        commits = interactive(world.store, [*several, _move_the_first])
        blind = interactive(world.store, [put(numbered([turn, 100 + turn], 900))])
        late = interactive(world.store, [_move_the_first, put({b"never": b"1"})])
        world.groups([commits, blind], [conflicting(late), put(numbered([turn], 5))])
        if turn % 2:
            world.checkpoint()
    assert engine.window.transactions == 0


def _move_the_first(txn: Any) -> None:
    """Move the first of the numbered keys behind the last, by what a scan finds."""
    key, value = next(txn.scan(b"k", b"l"))
    last, _ = next(txn.scan(b"k", b"l", reverse=True))
    txn.delete(key)
    txn.put(b"k%04d" % (int(last[1:]) + 1), value)


def _add_a_node(txn: Any, *, title: str) -> None:
    editing.insert_nodes(txn, "policy", [{"title": title, "text": "new " * 50}])


def mixed(world: World) -> None:
    """Anything, as the seed has it."""
    world.start()
    random = world.random
    pinned: list[Any] = []
    for _ in range(40):
        dice = random.random()
        if dice < 0.5:
            world.groups(*(_group(world) for _ in range(random.randrange(1, 4))))
        elif dice < 0.62:
            world.checkpoint()
        elif dice < 0.70:
            world.store.engine.log.prepare_next()
        elif dice < 0.78 and len(pinned) < 3:
            pinned.append(world.store.engine.snapshot("test"))
        elif dice < 0.86 and pinned:
            pinned.pop(random.randrange(len(pinned))).close()
        elif dice < 0.92:
            pinned.clear()
            world.kill()
        elif dice < 0.95:
            while pinned:
                pinned.pop().close()
            world.reopen()
        else:
            world.write(storing.store("p", "v", _tree("n", random.randrange(1, 4), 1, "text ")))


def _group(world: World) -> list[Change]:
    return [_change(world) for _ in range(world.random.randrange(1, 5))]


def _change(world: World) -> Change:
    random = world.random
    low = random.randrange(200)
    dice = random.random()
    if dice < 0.5:
        size = random.choice([0, 5, 60, 400, 1500, 5000])
        return put(numbered({random.randrange(200) for _ in range(random.randrange(1, 9))}, size))
    if dice < 0.65:
        return put(numbered(range(low, low + random.randrange(40)), random.randrange(60)))
    if dice < 0.85:
        return remove_keys([b"k%04d" % random.randrange(200) for _ in range(6)])
    return partial(_remove_some, b"k%04d" % low, b"k%04d" % (low + random.randrange(60)))


def _remove_some(low: bytes, high: bytes, txn: Any) -> None:
    txn.delete_range(low, high)


WORKLOADS: dict[str, Workload] = {
    workload.__name__: workload
    for workload in (
        creation,
        puts,
        deletes,
        overflow_values,
        checkpoints,
        log_rotation,
        rollback,
        reopening,
        recovery,
        documents,
        collections,
        compaction,
        transactions,
        *NAMESPACE_WORKLOADS,
        mixed,
    )
}
