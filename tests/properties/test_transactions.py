"""Properties 16 to 19: interactive transactions, embedded and through every client."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import permutations
from random import Random
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from actors.database import Database
from tests.actors.databases import database
from tests.crash.simdisk import SimDisk
from tests.properties.scenes import (
    BOUND_S,
    HOW,
    OPTIONS,
    crashed,
    documents_in,
    examples,
    reached_every_way,
    store,
    together,
)
from tests.services.conftest import FACES
from treestore.engine.transaction import ReadTransaction
from treestore.errors import (
    DeadlineExceeded,
    OutcomeUnknown,
    ResourceExhausted,
    TransactionConflict,
)
from treestore.stores.documents import reading
from treestore.stores.keys import Keyspace

SEEDS = st.integers(0, 2**32)
FACE = st.sampled_from(range(len(FACES)))
TREE = [{"node_id": "1", "title": "One", "nodes": [{"node_id": "2", "title": "Two"}]}]

# --- 16 --------------------------------------------------------------------------------------


async def commit(db: Any, number: int, size: int) -> None:
    """A transaction that writes to several services, a bit at a time."""

    async def write(txn: Any) -> None:
        await txn.documents.store(f"p{number}", "v", TREE)
        for n in range(size):
            await txn.kv.put(b"%d-%d" % (number, n), b"x" * n * 50)
            await txn.collections.insert("c", {"_id": f"{number}-{n}", "n": number})

    await db.run_transaction(write, attempts=500)


def parts(txn: ReadTransaction, number: int) -> tuple[int, int, int]:
    """How many of its pairs, documents and trees are there."""
    start = Keyspace.KV + b"%d-" % number
    return (
        len(list(txn.scan(start, start + b"\xff"))),
        sum(document["n"] == number for document in documents_in(txn, "c").values()),
        sum(d.policy_id == f"p{number}" for d in reading.list_documents(txn)),
    )


@examples(8, slow=True)
@given(
    st.lists(st.tuples(FACE, st.integers(1, 4)), min_size=1, max_size=5),
    st.integers(1, 25),
    HOW,
    SEEDS,
)
async def test_property_16_commit_atomicity(
    transactions: list[tuple[int, int]], crash_after: int, how: str, seed: int
) -> None:
    """All that a transaction wrote, to whichever services, is seen at once and not before its
    commit; and a crash at any step leaves all of it or nothing, and all of it once the commit
    returned."""
    disk, random = SimDisk(seed), Random(seed)
    committed: set[int] = set()
    left: list[tuple[SimDisk, set[int]]] = []

    def whole(txn: ReadTransaction) -> set[int]:
        """Which transactions are there; none is there in part."""
        found = set()
        for number, (_, size) in enumerate(transactions):
            seen = parts(txn, number)
            assert seen in ((0, 0, 0), (size, size, 1))
            if seen[0]:
                found.add(number)
        return found

    def fail_power(step: int, _op: str, _path: str) -> None:
        if step >= last and not left:
            left.append((crashed(disk, how, random), set(committed)))

    async def look(db: Database) -> None:
        while len(committed) < len(transactions):
            least = set(committed)
            assert whole(db.engine.read()) >= least
            await trio.sleep(0.001)

    async def one(db: Any, number: int, size: int) -> None:
        await commit(db, number, size)
        committed.add(number)

    with trio.fail_after(BOUND_S):
        async with store(disk) as db:
            await db.collections.create("c", indexes=["n"])
            async with reached_every_way(db) as faces:
                last = disk.steps + crash_after
                disk.on_step = fail_power
                work = [
                    partial(one, faces[face], number, size)
                    for number, (face, size) in enumerate(transactions)
                ]
                await together(partial(look, db), *work)
            assert whole(db.engine.read()) == committed
        after, acknowledged = left[0] if left else (disk, committed)
        async with store(after) as db:
            assert whole(db.engine.read()) >= acknowledged


# --- 17 --------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[Any], Any]] = {
    "put": lambda txn: txn.kv.put(b"new", b"1"),
    "overwrite": lambda txn: txn.kv.put(b"old", b"2"),
    "delete": lambda txn: txn.kv.delete(b"old"),
    "batch": lambda txn: txn.kv.batch(puts=[(b"k%d" % n, b"x" * 400) for n in range(30)]),
    "insert": lambda txn: txn.collections.insert("c", {"n": 5}),
    "update": lambda txn: txn.collections.update_many("c", {}, {"$inc": {"n": 1}}),
    "clear": lambda txn: txn.collections.delete_many("c", {}),
    "create": lambda txn: txn.collections.insert("made", {"n": 1}),
    "drop": lambda txn: txn.collections.drop("c"),
    "drop index": lambda txn: txn.collections.drop_index("c", "n"),
    "store": lambda txn: txn.documents.store("p", "w", TREE),
    "edit": lambda txn: txn.documents.update_node("p", "2", version_id="v", title="Changed"),
    "remove": lambda txn: txn.documents.delete_policy("p"),
    "version": lambda txn: txn.versions.create("q", "1", effective_from="2024-01-01"),
    "metadata": lambda txn: txn.metadata.set("case", "1", "key", {"a": 1}),
    "prompt": lambda txn: txn.prompts.store("prompt", "Say it."),
}


def everything(db: Database) -> dict[bytes, bytes]:
    """Whatever is stored but for the answers that clients may ask for again."""
    txn = db.engine.read()
    pairs = txn.scan(b"", None)
    return {key: value for key, value in pairs if key[:1] != Keyspace.DEDUPLICATION}


async def fill(db: Database) -> None:
    """Something of everything."""
    await db.kv.put(b"old", b"1")
    await db.collections.create("c", indexes=["n"])
    await db.collections.insert_many("c", [{"n": n} for n in range(5)])
    await db.documents.store("p", "v", TREE)


class Own(Exception):
    """What a body raises."""


@examples(15, slow=True)
@given(
    FACE,
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5),
    st.sampled_from(["raise", "cancel", "late"]),
)
async def test_property_17_rollback_completeness(face: int, steps: list[str], end: str) -> None:
    """A transaction that is left by an exception or a cancellation, or that was open for too long,
    leaves every key of the store as it was, whatever it had written to whichever service."""
    with trio.fail_after(BOUND_S):
        async with store(SimDisk()) as db:
            await fill(db)
            async with reached_every_way(db) as faces:
                before = everything(db)
                expected = {"raise": Own, "cancel": Own, "late": DeadlineExceeded}[end]
                expecting = nullcontext() if end == "cancel" else pytest.raises(expected)
                with trio.CancelScope() as scope, expecting:
                    timeout = 0.05 if end == "late" else 30.0
                    async with faces[face].transaction(timeout=timeout) as txn:
                        for step in steps:
                            if step == "edit" and "remove" in steps:
                                continue
                            if step in ("update", "clear", "drop index") and "drop" in steps:
                                continue
                            await STEPS[step](txn)
                        if end == "raise":
                            raise Own
                        if end == "cancel":
                            scope.cancel()
                        await trio.sleep(0.15)
                    # What was cancelled goes on no further than here.
                assert scope.cancelled_caught == (end == "cancel")
                assert everything(db) == before
            assert everything(db) == before


# --- 18 --------------------------------------------------------------------------------------

KEYS = (b"a", b"b", b"c")
CALLS = st.one_of(
    st.tuples(st.sampled_from(["read", "write", "delete"]), st.sampled_from(KEYS)),
    st.just(("scan", b"")),
)
PROGRAMS = st.lists(st.lists(CALLS, min_size=1, max_size=4), min_size=2, max_size=3)


@attrs.define(eq=False)
class Running:
    """A transaction that goes on one step at a time: it begins, makes each call, commits."""

    number: int
    program: list[tuple[str, bytes]]
    answers: list[Any] = attrs.field(factory=list)
    began_at: int = 0
    ended_at: int = 0
    committed: bool = True
    go: Any = attrs.field(factory=lambda: trio.open_memory_channel[int](0))
    done: Any = attrs.field(factory=lambda: trio.open_memory_channel[None](0))

    async def run(self, db: Any) -> None:
        """In a task of its own."""
        turn = self.go[1]
        self.began_at = await turn.receive()
        try:
            async with db.transaction() as txn:
                for at, call in enumerate(self.program):
                    await self.done[0].send(None)
                    await turn.receive()
                    self.answers.append(await self.call(txn, at, *call))
                await self.done[0].send(None)
                await turn.receive()
        except TransactionConflict:
            self.committed = False
        await self.done[0].send(None)

    async def call(self, txn: Any, at: int, kind: str, key: bytes) -> Any:
        if kind == "read":
            return await txn.kv.get(key)
        if kind == "scan":
            return [item async for item in txn.kv.scan()]
        if kind == "delete":
            return await txn.kv.delete(key)
        await txn.kv.put(key, b"%d-%d" % (self.number, at))
        return None

    def replayed(self, state: dict[bytes, bytes]) -> bool:
        """Make the calls on a plain dict; whether the answers are the same."""
        for at, ((kind, key), answer) in enumerate(zip(self.program, self.answers, strict=True)):
            if kind == "read":
                expected: Any = state.get(key)
            elif kind == "scan":
                expected = sorted(state.items())
            elif kind == "delete":
                expected = state.pop(key, None) is not None
            else:
                state[key] = b"%d-%d" % (self.number, at)
                expected = None
            if answer != expected:
                return False
        return True


def is_serial(
    order: tuple[Running, ...], start: dict[bytes, bytes], end: dict[bytes, bytes]
) -> bool:
    """Whether running them in this order, one after the other, gives all that was seen."""
    if any(
        later.ended_at < earlier.began_at
        for at, earlier in enumerate(order)
        for later in order[at:]
    ):
        return False
    state = dict(start)
    for running in order:
        mine = dict(state)
        if not running.replayed(mine):
            return False
        state = mine if running.committed else state
    return state == end


@examples(60, slow=True)
@given(PROGRAMS, st.randoms(use_true_random=False), st.permutations(range(len(FACES))))
async def test_property_18_isolation(
    programs: list[list[tuple[str, bytes]]], random: Random, order: list[int]
) -> None:
    """However the calls of several transactions are interleaved, what they saw and what they left
    is what they would have seen and left one after the other, in an order that keeps to real time;
    of those that were refused nothing is left, and what they saw was of one state, too."""
    running = [Running(number, program) for number, program in enumerate(programs)]
    turns = [each for each in running for _ in range(len(each.program) + 2)]
    random.shuffle(turns)
    start = {b"a": b"1", b"b": b"2"}
    with trio.fail_after(BOUND_S):
        async with store(SimDisk()) as db:
            await db.kv.batch(puts=list(start.items()))
            async with reached_every_way(db) as faces, trio.open_nursery() as nursery:
                for each, face in zip(running, order, strict=False):
                    nursery.start_soon(each.run, faces[face])
                for at, each in enumerate(turns):
                    await each.go[0].send(at)
                    await each.done[1].receive()
                    each.ended_at = at
            end = {item[0]: item[1] async for item in db.kv.scan()}
    assert any(is_serial(chosen, start, end) for chosen in permutations(running)), (running, end)


# --- 19 --------------------------------------------------------------------------------------


@examples(12, slow=True)
@given(
    FACE,
    st.sampled_from(["conflict", "full disk", "log fails"]),
    st.lists(
        st.sampled_from(["put", "insert", "store", "metadata", "prompt"]), min_size=1, max_size=4
    ),
    SEEDS,
)
async def test_property_19_failed_commit_rollback(
    face: int, failure: str, steps: list[str], seed: int
) -> None:
    """A commit that fails, for a conflict, a full disk or a log that cannot be written, changes
    nothing that anybody can read; and where its outcome was unknown, it is whole or absent after
    the next start."""
    disk, random = SimDisk(seed), Random(seed)
    with trio.fail_after(BOUND_S):
        async with database(disk, OPTIONS) as db:
            await fill(db)
            async with reached_every_way(db) as faces:
                await faces[face].kv.put(b"mine", b"1")
                before = everything(db)
                expected = {
                    "conflict": TransactionConflict,
                    "full disk": ResourceExhausted,
                    "log fails": OutcomeUnknown,
                }[failure]
                with pytest.raises(expected):
                    async with faces[face].transaction() as txn:
                        await txn.kv.get(b"old")
                        for step in steps:
                            await STEPS[step](txn)
                        await txn.kv.put(b"large", b"x" * 400_000)
                        if failure == "conflict":
                            await db.kv.put(b"old", b"other")
                            before = everything(db)
                        elif failure == "full disk":
                            disk.capacity_bytes = disk.used_bytes()
                        else:
                            disk.fail_next(random.choice(["write", "sync"]), errno.EIO, "/log/")
                assert everything(db) == before
                assert await faces[face].kv.get(b"large") is None
                if failure != "log fails":
                    # The store is as good as before.
                    disk.capacity_bytes = None
                    await faces[face].kv.put(b"after", b"1")
                    assert everything(db) == {**before, Keyspace.KV + b"after": b"1"}
                    return
        async with store(disk.killed()) as db:
            found = everything(db)
            assert found == before or found[Keyspace.KV + b"large"] == b"x" * 400_000
