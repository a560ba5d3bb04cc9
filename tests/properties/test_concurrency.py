"""Properties 1 to 5: what holds while many write and read at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.actors.databases import execute
from tests.cli.conftest import CHECKOUT
from tests.crash.simdisk import Crash, SimDisk
from tests.crash.world import OPTIONS as WORLD_OPTIONS
from tests.crash.world import World, verify_contents
from tests.engine.stores import open_small
from tests.properties.opener import opened
from tests.properties.scenes import (
    BOUND_S,
    HOW,
    Document,
    crashed,
    documents_in,
    examples,
    ids_of,
    reached_every_way,
    store,
    together,
)
from tests.services.conftest import FACES
from treestore.engine.directory import OpenStore
from treestore.engine.transaction import WriteTransaction
from treestore.errors import AlreadyExists, NotFound, Unavailable
from treestore.stores.collections import catalog, writing

SEEDS = st.integers(0, 2**32)

# --- 1 ---------------------------------------------------------------------------------------

WRITES = st.lists(
    st.tuples(st.sampled_from(["insert", "add", "count"]), st.integers(0, 2)),
    min_size=1,
    max_size=6,
)
WRITERS = st.lists(st.tuples(st.sampled_from(range(len(FACES))), WRITES), min_size=2, max_size=6)


async def count(txn: Any, key: bytes) -> None:
    """Read, think, write."""
    value = int(await txn.kv.get(key) or b"0")
    await trio.lowlevel.checkpoint()
    await txn.kv.put(key, b"%d" % (value + 1))


async def write(db: Any, writer: int, steps: list[tuple[str, int]]) -> None:
    """The work of one of many writers."""
    for number, (kind, which) in enumerate(steps):
        if kind == "insert":
            await db.collections.insert("written", {"_id": f"{writer}-{number}", "n": which})
        elif kind == "add":
            await db.collections.update("totals", f"{which}", {"$inc": {"sum": number + 1}})
        else:
            await db.run_transaction(lambda txn, key=b"%d" % which: count(txn, key), attempts=500)


@examples(8, slow=True)
@given(WRITERS, HOW, SEEDS)
async def test_property_01_concurrent_write_safety(
    writers: list[tuple[int, list[tuple[str, int]]]], how: str, seed: int
) -> None:
    """Whatever several writers do at once, embedded and through every client, all that was
    acknowledged is there, once, and nothing else; after a crash, too."""
    every = [(writer, *at) for writer, (_, steps) in enumerate(writers) for at in enumerate(steps)]
    documents = {f"{w}-{n}": which for w, n, (kind, which) in every if kind == "insert"}
    sums: Counter[int] = Counter()
    for _, number, (kind, which) in every:
        sums[which] += (number + 1) * (kind == "add")
    counts = Counter(b"%d" % which for _, _, (kind, which) in every if kind == "count")

    def verify(db: Any) -> None:
        txn = db.engine.read()
        written = documents_in(txn, "written")
        assert {id: document["n"] for id, document in written.items()} == documents
        totals = documents_in(txn, "totals")
        assert {int(id): each["sum"] for id, each in totals.items()} == {
            n: sums[n] for n in (0, 1, 2)
        }
        found = {key[1:]: int(value) for key, value in txn.scan(b"\x01", b"\x02")}
        assert found == counts

    disk = SimDisk(seed)
    with trio.fail_after(BOUND_S):
        async with store(disk) as db:
            await db.collections.create("written", indexes=["n"])
            await db.collections.insert_many(
                "totals", [{"_id": f"{n}", "sum": 0} for n in range(3)]
            )
            async with reached_every_way(db) as faces:
                await together(
                    *(
                        partial(write, faces[face], writer, steps)
                        for writer, (face, steps) in enumerate(writers)
                    )
                )
                verify(db)
                after = crashed(disk, how, Random(seed))
        async with store(after) as db:
            verify(db)


# --- 2 ---------------------------------------------------------------------------------------

BATCHES = st.lists(st.integers(1, 25), min_size=1, max_size=4)


@examples(40)
@given(BATCHES, st.integers(1, 60), SEEDS)
def test_property_02_atomic_writes(batches: list[int], crash_after: int, seed: int) -> None:
    """A write of many documents that a crash cuts off at any step is there whole or not at all,
    the entries of indexes included; and one that is refused leaves nothing."""
    random = Random(seed)
    world = World(SimDisk(seed), seed)
    world.start()
    world.write(lambda txn: catalog.create(txn, "c", indexes=["n", "tags"]))
    last = world.disk.steps + crash_after

    def fail_power(step: int, _op: str, _path: str) -> None:
        if step == last:
            raise Crash

    def insert(batch: list[Any], txn: WriteTransaction) -> None:
        writing.insert_many(txn, "c", batch)

    def refused(txn: WriteTransaction) -> None:
        with pytest.raises(AlreadyExists):
            writing.insert_many(txn, "c", [{"_id": "new"}, {"_id": "0-0"}])

    world.disk.on_step = fail_power
    try:
        for number, size in enumerate(batches):
            batch: list[Any] = [
                {"_id": f"{number}-{n}", "n": n % 3, "tags": [n, "x" * random.randrange(40)]}
                for n in range(size)
            ]
            world.write(partial(insert, batch))
            txn = world.store.engine.begin()
            refused(txn)
            world.store.engine.rollback(txn)
            if random.random() < 0.3:
                world.checkpoint()
    except Crash:
        pass
    recovered = open_small(world.disk.crash(random), WORLD_OPTIONS)
    verify_contents(recovered, world.history.allowed())
    found = Counter(id.partition("-")[0] for id in documents_in(recovered.engine.read(), "c"))
    assert [found[str(n)] in (0, size) for n, size in enumerate(batches)] == [True] * len(batches)


# --- 3 ---------------------------------------------------------------------------------------


class Opener:
    """Another process that can open the directory."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.properties.opener"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )

    def ask(self, command: str) -> str:
        """What it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def open(self, directory: Path) -> str:
        return self.ask(f"open {directory}")

    def close(self) -> None:
        assert self.ask("close") == "closed"

    def end(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.communicate()

    def die(self) -> None:
        """Killed, and started anew."""
        self.end()
        self._start()


class Here:
    """This process."""

    def __init__(self) -> None:
        self.store: OpenStore | None = None

    def open(self, directory: Path) -> str:
        try:
            self.store, count = opened(directory)
        except Unavailable:
            return "refused"
        return f"opened {count}"

    def close(self) -> None:
        assert self.store is not None
        self.store.close()


@pytest.fixture(scope="module")
def processes() -> Iterator[list[Any]]:
    others = [Opener(), Opener()]
    yield [Here(), *others]
    for other in others:
        other.end()


@pytest.mark.slow
@examples(12, slow=True)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["open", "open", "end"])), max_size=12)
)
def test_property_03_lock_exclusivity(processes: list[Any], steps: list[tuple[int, str]]) -> None:
    """Of several processes one has the directory, and whoever else opens it is refused until that
    one closes it or dies; a process is refused what it has already, too."""
    holder: int | None = None
    count = 0
    with TemporaryDirectory() as folder:
        directory = Path(folder) / "data"
        for number, (who, what) in enumerate(steps):
            if what == "open":
                count += holder is None
                assert processes[who].open(directory) == (
                    "refused" if holder is not None else f"opened {count}"
                )
                holder = who if holder is None else holder
            elif who == holder:
                # The process dies, or closes in an orderly way; the one here must not die.
                if who and number % 2:
                    processes[who].die()
                else:
                    processes[who].close()
                holder = None
        if holder is not None:
            processes[holder].close()


@examples(15, slow=True)
@given(st.lists(st.booleans(), min_size=2, max_size=8))
async def test_property_03_lock_exclusivity_of_the_writer(longs: list[bool]) -> None:
    """However many commands wait, short ones and ones that run on a thread, never do two run at a
    time, and each finds what all before it left."""
    inside: list[int] = []
    seen: list[int] = []

    def command(number: int, txn: WriteTransaction) -> None:
        inside.append(number)
        value = int(txn.get(b"n") or b"0")
        time.sleep(0.001)  # Lets go of the interpreter: whoever could, would come in.
        txn.put(b"n", b"%d" % (value + 1))
        seen.append(value)
        assert inside == [number]
        inside.clear()

    with trio.fail_after(BOUND_S):
        async with store(SimDisk()) as db, trio.open_nursery() as nursery:
            for number, long in enumerate(longs):
                run = partial(execute, db, partial(command, number), long=long)
                nursery.start_soon(run)
    assert sorted(seen) == seen == list(range(len(longs)))


# --- 4 ---------------------------------------------------------------------------------------

NAMES = ["a", "a\0", "ab", "ä"]
"""Of collections: names that are easily taken for one another."""
IDS = st.sampled_from(["x", "y", "z", "\0"])
WORK = st.lists(
    st.one_of(
        st.tuples(st.just("put"), IDS, st.integers(0, 3)),
        st.tuples(st.just("delete"), IDS, st.just(0)),
        st.tuples(st.just("delete_many"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("update_many"), st.just(""), st.integers(0, 3)),
        st.tuples(st.sampled_from(["drop", "index", "drop_index"]), st.just(""), st.just(0)),
    ),
    max_size=6,
)


async def work(db: Any, name: str, steps: list[tuple[str, str, int]]) -> dict[str, Document]:
    """Work on one collection; returns what is in it by rights, and looks after every step."""
    c, model = db.collections, dict[str, Document]()
    await c.create(name)
    for kind, id, n in steps:
        if kind == "put":
            await c.replace(name, id, {"n": n, "of": name}, upsert=True)
            model[id] = {"_id": id, "n": n, "of": name}
        elif kind == "delete":
            assert await c.delete(name, id) == (model.pop(id, None) is not None)
        elif kind == "delete_many":
            gone = [id for id, document in model.items() if document["n"] == n]
            assert await c.delete_many(name, {"n": n}) == len(gone)
            model = {id: document for id, document in model.items() if id not in gone}
        elif kind == "update_many":
            await c.update_many(name, {"n": n}, {"$inc": {"n": 1}})
            for document in model.values():
                document["n"] += document["n"] == n
        elif kind == "index":
            await c.create_index(name, "n")
        elif kind == "drop_index":
            await c.drop_index(name, "n")
        else:
            assert await c.drop(name)
            with pytest.raises(NotFound):
                await c.count(name)
            await c.create(name)
            model = {}
        assert list(await c.find(name)) == [model[id] for id in sorted(model)]
        assert await c.count(name, {"n": {"$gte": 2}}) == sum(d["n"] >= 2 for d in model.values())
    return model


@examples(10, slow=True)
@given(st.tuples(*[WORK] * len(NAMES)), st.permutations(range(len(FACES))))
async def test_property_04_collection_isolation(
    works: tuple[list[tuple[str, str, int]], ...], order: list[int]
) -> None:
    """What is done in one collection, by whomever, is never seen in another one: each has what its
    own worker put there, after every step, while the others do all they like."""
    models: dict[str, dict[str, Document]] = {}

    async def one(db: Any, name: str, steps: list[tuple[str, str, int]]) -> None:
        models[name] = await work(db, name, steps)

    with trio.fail_after(BOUND_S):
        async with store(SimDisk()) as db:
            async with reached_every_way(db) as faces:
                workers = zip(NAMES, works, order, strict=True)
                await together(
                    *(partial(one, faces[face], name, its) for name, its, face in workers)
                )
            for name, model in models.items():
                assert documents_in(db.engine.read(), name) == model


# --- 5 ---------------------------------------------------------------------------------------


@examples(6, slow=True)
@given(st.integers(2, 12), st.integers(3, 8))
async def test_property_05_concurrent_reads(size: int, turns: int) -> None:
    """Readers beside a writer, embedded and through every client, each see one committed state,
    whole, and never one older than what was acknowledged before they asked or than they saw
    before; a snapshot goes on showing its own."""
    acknowledged = 0
    reads: Counter[int] = Counter()

    async def write(db: Any) -> None:
        nonlocal acknowledged
        for turn in range(1, turns + 1):
            await db.collections.update_many("c", {}, {"turn": turn})
            acknowledged = turn
            await db.kv.put(b"turn", b"%d" % turn)

    async def read(db: Any, number: int) -> None:
        last = 0
        while last < turns:
            least = max(last, acknowledged)
            filter = None if reads[number] % 2 else {"turn": {"$gte": 0}}
            found = await db.collections.find("c", filter)
            assert ids_of(found) == [f"{n:02}" for n in range(size)]
            (last,) = {document["turn"] for document in found}
            assert last >= least
            reads[number] += 1

    async def read_snapshots(db: Any) -> None:
        while acknowledged < turns:
            least = acknowledged
            async with db.snapshot() as snapshot:
                first = list(await snapshot.collections.find("c"))
                value = await snapshot.kv.get(b"turn")
                await trio.sleep(0.005)
                assert list(await snapshot.collections.find("c")) == first
                assert await snapshot.kv.get(b"turn") == value
            (turn,) = {document["turn"] for document in first}
            assert int(value or b"0") <= turn
            assert turn >= least

    with trio.fail_after(BOUND_S):
        async with store(SimDisk()) as db:
            await db.collections.create("c", indexes=["turn"])
            await db.collections.insert_many(
                "c", [{"_id": f"{n:02}", "turn": 0} for n in range(size)]
            )
            async with reached_every_way(db) as faces:
                readers = [partial(read, face, number) for number, face in enumerate(faces)]
                snapshots = [partial(read_snapshots, face) for face in faces[:2]]
                await together(partial(write, db), *readers, *snapshots)
    assert len(reads) == len(FACES)
