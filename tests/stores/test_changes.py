"""A feed of changes against what really changed: random commands, checkpoints, crashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, open_small
from treestore.errors import FeedExpired, InvalidArgument, NotFound
from treestore.model.changes import Change
from treestore.stores import kv
from treestore.stores.changes.decoding import Entities, shown_id
from treestore.stores.changes.reader import ChangeReader, begin
from treestore.stores.changes.services import Selection
from treestore.stores.documents import editing, reading, storing
from treestore.stores.keys import Keyspace, pack

OPTIONS = attrs.evolve(
    SMALL,
    page_size_bytes=4096,
    log_segment_size_bytes_min=1 << 14,
    log_segment_size_bytes_max=1 << 16,
)
POLICIES = ("p", "q")
Nodes = dict[str, Any]
Documents = dict[tuple[str, str], Nodes]


class World:
    """A store, and what is in it after each of its transactions."""

    def __init__(self, seed: int, retention_bytes: int = 1 << 30) -> None:
        self.random = Random(seed)
        self.disk = SimDisk(seed)
        self.options = attrs.evolve(OPTIONS, log_retention_bytes=retention_bytes)
        self.store = open_small(self.disk, self.options)
        self.values: dict[int, dict[bytes, bytes]] = {0: {}}
        """LSN → all of kv."""
        self.documents: dict[int, Documents] = {0: {}}
        """LSN → all nodes of all documents."""

    @property
    def lsn(self) -> int:
        return self.store.engine.durable.position.lsn

    def run(self, *commands: Callable[[Any], Any]) -> None:
        """Commands as one transaction; those that fail do nothing at all."""
        engine = self.store.engine
        txn = engine.begin()
        try:
            for command in commands:
                command(txn)
        except (InvalidArgument, NotFound):
            engine.rollback(txn)
            return
        engine.write_now(txn)
        self.note()

    def note(self) -> None:
        txn = self.store.engine.read()
        self.values[self.lsn] = dict(item for batch in kv.scan(txn) for item in batch)
        documents: Documents = {}
        for policy in POLICIES:
            for version in ("1", "2"):
                try:
                    nodes = reading.get_subtree(txn, policy, version_id=version)
                except NotFound:
                    continue
                documents[policy, version] = {node.node_id: node for node in nodes}
        self.documents[self.lsn] = documents

    def at(self, lsn: int) -> tuple[dict[bytes, bytes], Documents]:
        """What there was at a place in the log; markers change nothing."""
        lsn = max(found for found in self.values if found <= lsn)
        return self.values[lsn], self.documents[lsn]

    def commands(self) -> Iterator[Callable[[Any], Any]]:
        """Some random ones."""
        random = self.random
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            yield random.choice((self._put, self._put, self._delete, self._batch, *self._edits()))()

    def _key(self) -> bytes:
        return b"%d" % self.random.randrange(6)

    def _put(self) -> Callable[[Any], Any]:
        key, value = self._key(), self.random.randbytes(self.random.choice((0, 3, 900, 9000)))
        return lambda txn: kv.put(txn, key, value)

    def _delete(self) -> Callable[[Any], Any]:
        key = self._key()
        return lambda txn: kv.delete(txn, key)

    def _batch(self) -> Callable[[Any], Any]:
        puts = [(self._key(), b"x" * n) for n in range(4)]
        deletes = [self._key()]
        return lambda txn: kv.batch(txn, puts, deletes)

    def _edits(self) -> tuple[Callable[[], Callable[[Any], Any]], ...]:
        random = self.random
        policy, version = random.choice(POLICIES), random.choice("12")
        node, other = (f"{random.randrange(6):04}" for _ in range(2))

        def store() -> Callable[[Any], Any]:
            tree = [
                {"title": str(n), "text": "t" * random.choice((0, 2000)), "nodes": [{"title": "x"}]}
                for n in range(random.randrange(3))
            ]
            return storing.store(policy, version, tree)

        def insert() -> Callable[[Any], Any]:
            nodes: list[dict[str, Any]] = [{"title": "new"}]
            if random.random() < 0.5:
                nodes[0]["parent_id"] = node
            if random.random() < 0.5:
                nodes[0]["index"] = 0
            return lambda txn: editing.insert_nodes(txn, policy, nodes, version_id=version)

        def update() -> Callable[[Any], Any]:
            text = "u" * random.choice((1, 2000))
            return lambda txn: editing.update_node(txn, policy, node, version_id=version, text=text)

        def remove() -> Callable[[Any], Any]:
            return lambda txn: editing.delete_node(txn, policy, node, version_id=version)

        def move() -> Callable[[Any], Any]:
            return lambda txn: editing.move_node(
                txn, policy, node, parent_id=other, version_id=version
            )

        def drop() -> Callable[[Any], Any]:
            return lambda txn: storing.delete(txn, policy, version)

        def drop_policy() -> Callable[[Any], Any]:
            return lambda txn: storing.delete_policy(txn, policy)

        return store, insert, update, remove, move, drop, drop_policy

    def crash(self) -> None:
        """The power fails; all that was written was durable."""
        self.disk = self.disk.crash(self.random)
        self.store = open_small(self.disk, self.options)

    def reopen(self) -> None:
        self.store.close()
        self.store = open_small(self.disk, self.options)

    def feed(self, position: int | str | None, **selection: Any) -> ChangeReader:
        return begin(self.store.engine, position, Selection(**selection))

    def step(self) -> None:
        """One random thing."""
        chance = self.random.random()
        if chance < 0.85:
            self.run(*self.commands())
        elif chance < 0.93:
            self.store.engine.checkpoint_now()
        elif chance < 0.96:
            self.crash()
        else:
            self.reopen()


def fold(world: World, changes: list[Change], lsn: int) -> None:
    """Changes behind ``lsn`` turn that state into each later one, by what they say alone."""
    values = dict(world.values[lsn])
    documents = {place: dict(nodes) for place, nodes in world.documents[lsn].items()}
    for change in changes:
        after = world.documents[change.lsn]
        place = (change.policy_id or "", change.version_id or "")
        if change.service == "kv":
            assert change.key is not None
            if change.kind == "put":
                assert change.value is not None
                values[change.key] = change.value
            else:
                values.pop(change.key, None)
        elif change.kind == "deleted":
            documents.pop(place, None)
        elif change.kind == "stored":
            documents[place] = dict(after.get(place, {}))
        elif change.kind == "put":
            node = after.get(place, {}).get(change.node_id or "")
            if node is not None:  # else the same transaction deletes it further on
                documents.setdefault(place, {})[node.node_id] = node
        elif change.kind == "delete":
            documents.get(place, {}).pop(change.node_id or "", None)
        if change.last:
            assert values == world.values[change.lsn], change
            assert documents == after, change
    assert (values, documents) == world.at(world.lsn)


def drained(feed: ChangeReader, until: int, size: int = 1) -> list[Change]:
    changes: list[Change] = []
    while feed.lsn < until:
        changes += feed.read(until, size)
    return changes


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_changes_lead_from_any_state_to_the_newest(seed: int) -> None:
    world = World(seed)
    for _ in range(50):
        world.step()
    everything = drained(world.feed(0, values=True), world.lsn)
    fold(world, everything, 0)
    lsns = [change.lsn for change in everything]
    assert lsns == sorted(lsns)
    lasts = [change.lsn for change in everything if change.last]
    assert lasts == sorted(set(lsns))
    for lsn in world.random.sample(sorted(world.values), 5):
        fold(world, drained(world.feed(lsn, values=True), world.lsn, 5000), lsn)
    world.store.close()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_feed_resumed_anywhere_misses_and_repeats_nothing(seed: int) -> None:
    world = World(seed)
    selection: dict[str, Any] = world.random.choice(
        ({}, {"service": "documents"}, {"policy_id": "p"}, {"prefix": b"1"}, {"service": "kv"})
    )
    taken: list[Change] = []
    position: int | str = 0
    for _ in range(25):
        for _ in range(3):
            world.step()
        feed = world.feed(position, **selection)
        for _ in range(world.random.randrange(4)):
            if feed.lsn >= world.lsn:
                break
            fresh = feed.read(world.lsn, 1)
            cut = world.random.randrange(len(fresh) + 1) if fresh else 0
            taken += fresh[:cut]
            if cut < len(fresh):
                # The consumer goes away in the middle of what came.
                if cut:
                    position = fresh[cut - 1].position
                break
            if not fresh or fresh[-1].last:
                position = feed.position
            else:
                position = fresh[-1].position
    taken += drained(world.feed(position, **selection), world.lsn)
    assert taken == drained(world.feed(0, **selection), world.lsn)
    world.store.close()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_filters_give_what_everything_holds(seed: int) -> None:
    world = World(seed)
    for _ in range(40):
        world.step()
    everything = drained(world.feed(0), world.lsn)

    def those(**selection: Any) -> list[Change]:
        found = drained(world.feed(0, **selection), world.lsn)
        return [attrs.evolve(change, last=False, position="") for change in found]

    def plain(keep: Callable[[Change], bool]) -> list[Change]:
        return [attrs.evolve(c, last=False, position="") for c in everything if keep(c)]

    assert those(service="documents") == plain(lambda c: c.service == "documents")
    assert those(policy_id="q") == plain(lambda c: c.policy_id == "q")
    assert those(prefix=b"2") == plain(lambda c: c.key is not None and c.key.startswith(b"2"))
    world.store.close()


def test_a_stored_document_is_one_change() -> None:
    world = World(1)
    tree = [{"title": "t", "text": "x" * 3000, "nodes": [{"title": "u"}] * 40}] * 20
    for _ in range(2):
        world.run(storing.store("p", "1", tree))
    world.run(storing.store("p", "2", tree))
    world.run(lambda txn: storing.delete_policy(txn, "p"))
    changes = drained(world.feed(0, service="documents"), world.lsn)
    told = [(c.entity, c.kind, c.version_id) for c in changes]
    assert told == [
        *(("document", "stored", "1"), ("document", "stored", "1"), ("document", "stored", "2")),
        *(("document", "deleted", "1"), ("document", "deleted", "2")),
    ]
    assert [c.last for c in changes] == [True, True, True, False, True]
    world.store.close()


def test_an_empty_document_that_is_replaced_is_stored() -> None:
    world = World(1)
    world.run(storing.store("p", "1", []))
    world.run(storing.store("p", "1", [{"title": "t"}] * 3))
    feed = world.feed(0, service="documents")
    assert [c.kind for c in drained(feed, world.lsn)] == ["stored", "stored"]
    world.store.close()


def test_a_move_deletes_nothing() -> None:
    world = World(1)
    world.run(storing.store("p", "1", [{"title": "a", "nodes": [{"title": "b"}]}, {"title": "c"}]))
    start = world.lsn
    world.run(lambda txn: editing.move_node(txn, "p", "0001", parent_id="0002"))
    changes = drained(world.feed(start), world.lsn)
    assert {c.kind for c in changes} == {"put", "edited"}
    assert "0001" in {c.node_id for c in changes}
    world.store.close()


def test_what_was_trimmed_is_told_with_where_one_may_begin() -> None:
    world = World(1, retention_bytes=0)
    feed = world.feed(None)
    for number in range(200):
        world.run(partial(kv.put, key=b"%d" % number, value=bytes(900)))
        if number % 20 == 0:
            world.store.engine.checkpoint_now()
    world.store.engine.checkpoint_now()
    attempts: list[Callable[[], object]] = [
        lambda: world.feed(0),
        lambda: feed.read(world.lsn),
    ]
    for attempt in attempts:
        with pytest.raises(FeedExpired, match="from a snapshot") as raised:
            attempt()
        details = raised.value.details
        assert details["last_lsn"] == world.lsn
        first = details["first_lsn"]
        rest = drained(world.feed(first), world.lsn)
        assert [c.lsn for c in rest] == [lsn for lsn in world.values if lsn > first]
        with pytest.raises(FeedExpired):
            world.feed(first - 1)
    world.store.close()


@pytest.mark.parametrize("given", [-1, 1.5, "", "x", "12", True, 1 << 70, b"1", "0-0-0+1", []])
def test_positions_that_are_none_are_refused(given: Any) -> None:
    world = World(1)
    with pytest.raises(InvalidArgument, match="from_lsn"):
        world.feed(given)
    world.store.close()


def test_positions_of_elsewhere_are_refused() -> None:
    world = World(1)
    world.run(lambda txn: kv.put(txn, b"a", b"1"))
    database, timeline, lsn = world.feed(None).position.split("-")
    for foreign in (f"{'0' * 8}-{timeline}-{lsn}", f"{database}-9-{lsn}", f"{database}-1-99"):
        with pytest.raises(FeedExpired, match="another history"):
            world.feed(foreign)
    with pytest.raises(InvalidArgument, match="in the future"):
        world.feed(99)
    world.store.close()


@pytest.mark.parametrize(
    "selection",
    [
        {"service": "nothing"},
        {"service": 5},
        {"policy_id": ""},
        {"policy_id": 5},
        {"collection": "\ud800"},
        {"prefix": "text"},
        {"values": 1},
        {"service": "kv", "policy_id": "p"},
        {"policy_id": "p", "prefix": b"p"},
    ],
)
def test_filters_that_make_no_sense_are_refused(selection: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Selection(**selection)


def test_ranges_of_keys_are_told_once_and_cut_to_what_was_asked() -> None:
    world = World(1)
    world.run(lambda txn: kv.batch(txn, [(b"a1", b""), (b"b1", b""), (b"b2", b""), (b"c", b"")]))
    start = world.lsn
    engine = world.store.engine
    txn = engine.begin()
    txn.delete_range(Keyspace.KV + b"a", Keyspace.KV + b"b2")
    engine.write_now(txn)
    world.note()
    for selection, expected in (
        ({}, [(b"a", b"b2")]),
        ({"prefix": b"b"}, [(b"b", b"b2")]),
        ({"prefix": b"c"}, []),
        ({"prefix": b"a1"}, [(b"a1", b"b2")]),
        ({"service": "documents"}, []),
    ):
        changes = drained(world.feed(start, **selection), world.lsn)
        assert [(c.key, c.end_key) for c in changes] == expected, selection
        assert {c.kind for c in changes} <= {"clear"}
    world.store.close()


def test_keys_of_other_stores_become_ids() -> None:
    entities = Entities({b"\x16": ("version", ("policy_id", "version_id")), b"\x20": ("case", ())})
    assert entities.note(b"\x16" + pack("p", "v"), b"") == {
        "entity": "version",
        "kind": "put",
        "policy_id": "p",
        "version_id": "v",
    }
    assert entities.note(b"\x20" + pack("c", 5, b"\x01"), None) == {
        "entity": "case",
        "kind": "delete",
        "entity_id": '["c",5,"01"]',
    }
    assert shown_id(["one"]) == "one"
    # Whatever its store makes of it, a key that is no tuple is still told of.
    assert entities.note(b"\x20\xee", b"") == {
        "entity": "case",
        "kind": "put",
        "entity_id": "ee",
    }
    assert (
        Entities({b"\x16": ("version", ("policy_id",))}, policy_id="q").note(
            b"\x16" + pack("p"), b""
        )
        is None
    )


def test_a_position_moves_on_past_what_the_log_writes_for_itself() -> None:
    """After a crash the log ends with a marker: a snapshot's position lies behind that."""
    world = World(1)
    world.run(lambda txn: kv.put(txn, b"a", b"1"))
    world.reopen()
    feed = world.feed(0)
    drained(feed, world.lsn)
    assert feed.position == world.feed(None).position
    world.store.close()
