"""The whole engine against a sorted dict: one vocabulary of operations, crashes included."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.crash.simdisk import SimDisk
from tests.engine.compacting import steps_of
from tests.engine.stores import assert_clean, close_checked, contents, open_small
from treestore.engine import tree
from treestore.engine.compaction import MoveStep
from treestore.engine.log import LogFailed
from treestore.engine.moving import Move, in_tail
from treestore.engine.node import Large
from treestore.engine.snapshot import Snapshot
from treestore.engine.transaction import WriteTransaction
from treestore.errors import ResourceExhausted, SnapshotExpired

KEYS = st.one_of(
    st.integers(0, 400).map(lambda n: b"%04d" % n),
    st.binary(min_size=1, max_size=40),
    st.sampled_from([b"k" * n for n in (1, 60, 123, 124)]),
)
VALUES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([0, 1, 255, 256, 257, 990, 1024, 5000, 40000]).flatmap(
        lambda n: st.integers(0, 255).map(lambda b: bytes((b,)) * n)
    ),
)
MUTATION = st.one_of(
    st.tuples(st.just("put"), KEYS, VALUES),
    st.tuples(st.just("put"), KEYS, VALUES),
    st.tuples(st.just("delete"), KEYS, st.none()),
    st.tuples(st.just("delete_range"), KEYS, KEYS),
    st.tuples(st.just("sorted"), st.dictionaries(KEYS, VALUES, max_size=40), st.none()),
)


class EngineMachine(RuleBasedStateMachine):
    """Commits, rollbacks, groups, checkpoints, snapshots, closing, crashing."""

    snapshots = Bundle("snapshots")

    @initialize(seed=st.integers(0, 2**32))
    def create(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = SimDisk(seed)
        self.store = open_small(self.disk, seed=seed)
        self.model: dict[bytes, bytes] = {}
        self.open_snapshots: list[tuple[Snapshot, dict[bytes, bytes]]] = []

    def _apply(
        self, mutations: list[tuple], model: dict[bytes, bytes], txn: WriteTransaction
    ) -> None:
        for what, one, other in mutations:
            if what == "put":
                txn.put(one, other)
                model[one] = other
            elif what == "delete":
                assert txn.delete(one) == (one in model)
                model.pop(one, None)
            elif what == "sorted":
                txn.put_sorted(iter(sorted(one.items())))
                model.update(one)
            else:
                low, high = min(one, other), max(one, other)
                gone = [key for key in model if low <= key < high]
                assert txn.delete_range(low, high) == len(gone)
                for key in gone:
                    del model[key]
            probe = one if isinstance(one, bytes) else b"0001"
            assert txn.get(probe) == model.get(probe)

    @rule(mutations=st.lists(MUTATION, max_size=8))
    def commit(self, mutations: list[tuple]) -> None:
        engine = self.store.engine
        txn = engine.begin()
        self._apply(mutations, self.model, txn)
        engine.write_now(txn)

    @rule(
        commands=st.lists(
            st.tuples(st.lists(MUTATION, max_size=3), st.booleans(), st.booleans()),
            min_size=2,
            max_size=6,
        )
    )
    def commit_as_one_group(self, commands: list[tuple[list[tuple], bool, bool]]) -> None:
        """Short and long commands, committed and rolled back in turn."""
        engine = self.store.engine
        before = dict(self.model)
        for mutations, long, keep in commands:
            txn = engine.begin(long=long)
            model = dict(self.model)
            self._apply(mutations, model, txn)
            if keep:
                engine.commit(txn)
                self.model = model
            else:
                engine.rollback(txn)
        # Not visible before it is durable.
        assert contents(self.store) == before
        group = engine.seal()
        if group is not None:
            engine.publish(group, engine.append(group))

    @rule(mutations=st.lists(MUTATION, max_size=8), long=st.booleans())
    def roll_back(self, mutations: list[tuple], long: bool) -> None:
        engine = self.store.engine
        txn = engine.begin(long=long)
        self._apply(mutations, dict(self.model), txn)
        engine.rollback(txn)

    @rule()
    def checkpoint(self) -> None:
        self.store.engine.checkpoint_now()

    @rule(mutations=st.lists(st.lists(MUTATION, max_size=4), max_size=4))
    def checkpoint_while_writing(self, mutations: list[list[tuple]]) -> None:
        """Commits between the moments at which a checkpoint begins, runs and ends."""
        engine = self.store.engine
        if mutations:
            # Executed before the checkpoint picks its state, published after.
            txn = engine.begin()
            self._apply(mutations[0], self.model, txn)
            engine.commit(txn)
        checkpoint = engine.begin_checkpoint()
        group = engine.seal()
        if group is not None:
            engine.publish(group, engine.append(group))
        if checkpoint is None:
            return
        for index, one in enumerate(mutations[1:]):
            if index == 1:
                checkpoint.run()
            txn = engine.begin()
            self._apply(one, self.model, txn)
            engine.write_now(txn)
        if checkpoint.meta is None:
            checkpoint.run()
        position = engine.finish_checkpoint()
        assert position is not None
        engine.log.trim(position)

    @rule(
        moves=st.lists(
            st.tuples(KEYS, st.integers(0, 9), st.floats(0, 1), st.lists(MUTATION, max_size=2)),
            min_size=1,
            max_size=6,
        ),
        crash=st.booleans(),
    )
    def move_pages(self, moves: list[tuple], crash: bool) -> None:
        """Moves of anything, as few leaves as will do, among commands of the same group."""
        engine = self.store.engine
        for key, leaves, part, mutations in moves:
            cutoff = int(part * engine.free_space.page_count)
            txn = engine.begin(moves=True)
            step = MoveStep(engine, [Move(key, leaves=leaves), *self._values(cutoff)], cutoff)
            step.run(txn)
            engine.commit(txn)
            txn = engine.begin()
            self._apply(mutations, self.model, txn)
            engine.commit(txn)
        group = engine.seal()
        assert group is not None
        engine.publish(group, engine.append(group))
        assert_clean(self.store)
        if crash:
            self.crash_and_recover()

    def _values(self, cutoff: int) -> list[Move]:
        """Moves of a few large values beyond the cutoff."""
        engine = self.store.engine
        found: list[Move] = []
        for node, first, last in tree.leaves(engine.durable.root, b"", None, engine.pages.load):
            for key, cell in zip(node.keys[first:last], node.values[first:last], strict=True):
                if isinstance(cell, Large) and cell.page and in_tail(cell, cutoff):
                    found.append(Move(key, value=cell, data=engine.pages.read_large(cell)))
        return found[:3]

    @rule(mutations=st.lists(st.lists(MUTATION, max_size=4), max_size=8))
    def compact_while_writing(self, mutations: list[list[tuple]]) -> None:
        """Commits, and now and then a checkpoint, between the steps of a compaction."""
        engine = self.store.engine
        waiting = list(mutations)
        for number, _ in enumerate(steps_of(engine)):
            if waiting:
                txn = engine.begin()
                self._apply(waiting.pop(), self.model, txn)
                engine.write_now(txn)
                if number % 3 == 0:
                    engine.checkpoint_now()
            assert contents(self.store) == self.model
        size = engine.pages.file.size() // engine.pages.shape.page_size
        assert size >= max(meta.page_count for meta in engine.slots)
        assert size == engine.file_pages
        assert_clean(self.store)

    @rule(pair=consumes(snapshots))
    def evict_snapshot(self, pair: tuple[Snapshot, dict[bytes, bytes]]) -> None:
        """A read in flight goes on over what it leased; the next one is refused."""
        snapshot, model = pair
        if pair not in self.open_snapshots:
            return
        snapshot.begin_read()
        reading = snapshot.read().scan(b"", None)
        snapshot.evict("evicted by a test")
        self.store.engine.checkpoint_now(settle=True)
        assert dict(reading) == model
        snapshot.end_read()
        assert snapshot not in self.store.engine.snapshots()
        with pytest.raises(SnapshotExpired, match="evicted by a test"):
            snapshot.read()
        self.open_snapshots.remove(pair)

    @rule(target=snapshots)
    def open_snapshot(self) -> tuple[Snapshot, dict[bytes, bytes]]:
        pair = (self.store.engine.snapshot("test"), dict(self.model))
        self.open_snapshots.append(pair)
        return pair

    @rule(pair=consumes(snapshots))
    def read_and_close_snapshot(self, pair: tuple[Snapshot, dict[bytes, bytes]]) -> None:
        snapshot, model = pair
        if pair not in self.open_snapshots:
            return  # its store was closed
        assert dict(snapshot.read().scan(b"", None)) == model
        snapshot.close()
        self.open_snapshots.remove(pair)

    @rule()
    def prepare_log_segment(self) -> None:
        self.store.engine.log.prepare_next()

    @rule()
    def close_and_reopen(self) -> None:
        close_checked(self.store)
        self.open_snapshots.clear()
        self.store = open_small(self.disk)

    @rule()
    def crash_and_recover(self) -> None:
        self.open_snapshots.clear()
        self.disk = self.disk.crash(self.random)
        self.store = open_small(self.disk)

    @rule(mutations=st.lists(MUTATION, min_size=1, max_size=4))
    def crash_with_an_unacknowledged_group(self, mutations: list[tuple]) -> None:
        """The group was written, but its sync never returned: whole or absent afterwards."""
        engine = self.store.engine
        after = dict(self.model)
        txn = engine.begin()
        self._apply(mutations, after, txn)
        engine.commit(txn)
        group = engine.seal()
        if group is None:
            return
        self.disk.fail_next("sync", 5, "log")
        with pytest.raises(LogFailed):
            engine.append(group)
        self.open_snapshots.clear()
        self.disk = self.disk.crash(self.random)
        self.store = open_small(self.disk)
        found = contents(self.store)
        assert found in (self.model, after)
        self.model = found

    @precondition(lambda self: len(self.model) > 0)
    @rule(data=st.data())
    def ranges(self, data: st.DataObject) -> None:
        low, high = sorted((data.draw(KEYS), data.draw(KEYS)))
        expected = [(k, self.model[k]) for k in sorted(self.model) if low <= k < high]
        read = self.store.engine.read()
        assert list(read.scan(low, high)) == expected
        assert list(read.scan(low, high, reverse=True)) == expected[::-1]

    @invariant()
    def matches_the_model(self) -> None:
        assert contents(self.store) == self.model
        assert self.store.engine.durable.count == len(self.model)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            for snapshot, model in self.open_snapshots:
                assert dict(snapshot.read().scan(b"", None)) == model
            assert_clean(self.store)
            self.store.close()


EngineMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
test_engine_matches_a_sorted_dict = EngineMachine.TestCase


def test_transaction_too_large_is_refused_and_rolled_back() -> None:
    store = open_small(SimDisk())
    engine = store.engine
    txn = engine.begin()
    with pytest.raises(ResourceExhausted, match="more than"):
        for n in range(100):
            txn.put(b"%d" % n, b"v" * 100_000)
    engine.rollback(txn)
    assert contents(store) == {}
    close_checked(store)
