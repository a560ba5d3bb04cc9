"""Interleaved interactive transactions against a serial execution.

Whatever is interleaved, the transactions that were committed, each run at its commit point on a
plain dict, give the answers that they gave.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import attrs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.crash.simdisk import SimDisk
from tests.engine.stores import close_checked, contents, open_small, put_now
from tests.stores.fake import FakeWrite
from treestore.engine.optimistic import OptimisticTransaction
from treestore.engine.readset import ReadSet
from treestore.errors import TransactionConflict

KEYS = [b"%02d" % n for n in range(24)]
"""With their values they take several leaves."""

keys = st.sampled_from(KEYS)
bounds = st.one_of(keys, st.none())
counts = st.one_of(st.none(), st.integers(1, 6))

OPERATIONS = st.one_of(
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("put"), keys, st.sampled_from([1, 90, 700])),
    st.tuples(st.just("put_sorted"), st.lists(keys, min_size=1, max_size=12, unique=True)),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("scan"), keys, bounds, st.booleans(), counts),
    st.tuples(st.just("cursor"), st.lists(keys, max_size=4)),
    st.tuples(st.just("delete_range"), keys, bounds),
)

COMMANDS = st.one_of(
    OPERATIONS,
    st.tuples(st.just("change"), st.lists(OPERATIONS, min_size=2, max_size=4)),
)
"""Also those that do several things: their first changes are in no tree yet when the next looks."""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(0, 2), COMMANDS),
        st.tuples(st.just("fail"), st.integers(0, 2), COMMANDS),
        st.tuples(st.just("commit"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("roll back"), st.integers(0, 2)),
        st.tuples(st.just("direct"), OPERATIONS),
        st.tuples(st.just("seal")),
        st.tuples(st.just("publish")),
        st.tuples(st.just("abandon")),
    ),
    max_size=60,
)


def perform(txn: Any, operation: tuple[Any, ...], salt: int) -> Any:
    """Run one operation; what it answers. The same on the engine and on the model."""
    name, *rest = operation
    if name == "change":
        return [perform(txn, part, salt) for part in rest[0]]
    if name == "put":
        return txn.put(rest[0], b"%d:" % salt + b"." * rest[1])
    if name == "put_sorted":
        return txn.put_sorted([(key, b"%d!" % salt) for key in sorted(rest[0])])
    if name == "scan":
        low, high, reverse, count = rest
        return list(islice(txn.scan(low, high, reverse=reverse), count))
    if name == "cursor":
        cursor = txn.cursor(KEYS[0], None)
        found = []
        for target in rest[0]:
            cursor.seek(target)
            entry = next(cursor, None)
            found.append(entry and (entry[0], txn.value(entry[1])))
        return found
    if name == "delete_range":
        low, high = rest
        return txn.delete_range(low, high if high is None else max(low, high))
    return getattr(txn, name)(*rest)


def is_write(operation: tuple[Any, ...]) -> bool:
    return operation[0].startswith(("put", "delete", "change"))


@attrs.define
class Running:
    """An open transaction and what it did."""

    core: OptimisticTransaction
    done: list[tuple[tuple[Any, ...], int, Any]] = attrs.field(factory=list)


def model_of(state: dict[bytes, bytes]) -> Any:
    model = FakeWrite()
    model.data = dict(state)
    model.keys = sorted(state)
    return model


class Interleaving:
    """The engine, the model, and three transactions at most."""

    def __init__(self) -> None:
        self.store = open_small(SimDisk())
        start = [(key, b"start" * 12) for key in KEYS[::2]]
        put_now(self.store, start)
        self.engine = self.store.engine
        self.executed = dict(start)
        self.durable = dict(start)
        self.sealed: tuple[Any, dict[bytes, bytes]] | None = None
        self.running: dict[int, Running] = {}
        self.salt = 0
        self.conflicts = self.commits = 0

    def transaction(self, number: int) -> Running:
        if number not in self.running:
            self.running[number] = Running(self.engine.optimistic("test"))
        return self.running[number]

    def run(self, number: int, operation: tuple[Any, ...], *, keep: bool = True) -> None:
        self.salt += 1
        running = self.transaction(number)
        core = running.core
        if is_write(operation):
            command = core.command(raw=False)
            answer = perform(command, operation, self.salt)
            if not keep:
                return
            core.keep(command)
        else:
            answer = perform(core.query(10_000, raw=False), operation, self.salt)
        running.done.append((operation, self.salt, answer))

    def fail(self, number: int, operation: tuple[Any, ...]) -> None:
        self.run(number, operation, keep=False)

    def commit(self, number: int, ahead: bool) -> None:
        running = self.running.pop(number, None)
        if running is None:
            return
        core = running.core
        quiet = self.engine.durable.number == core.number and not self.engine.executed
        command = None
        try:
            core.settle()
            if not core.writes:
                self._serial(running, self._state_of(core))
                return
            if ahead:
                core.validate_ahead()
            command = self.engine.begin()
            core.apply(command)
            self.engine.commit(command)
        except TransactionConflict:
            if command is not None:
                self.engine.rollback(command)
            assert not (quiet and self.sealed is None)
            self.conflicts += 1
        else:
            self.executed = self._serial(running, self.executed)
            self.commits += 1
        finally:
            core.close()

    def _state_of(self, core: OptimisticTransaction) -> dict[bytes, bytes]:
        """A transaction that only read is in the order where it began."""
        return dict(core.lease.read().scan(b"", None))

    def _serial(self, running: Running, state: dict[bytes, bytes]) -> dict[bytes, bytes]:
        model = model_of(state)
        for operation, salt, answer in running.done:
            assert perform(model, operation, salt) == answer, operation
        found: dict[bytes, bytes] = model.data
        return found

    def roll_back(self, number: int) -> None:
        running = self.running.pop(number, None)
        if running is not None:
            running.core.close()

    def direct(self, operation: tuple[Any, ...]) -> None:
        self.salt += 1
        model = model_of(self.executed)
        txn = self.engine.begin()
        assert perform(txn, operation, self.salt) == perform(model, operation, self.salt)
        self.engine.commit(txn)
        self.executed = model.data

    def seal(self) -> None:
        if self.sealed is None:
            group = self.engine.seal()
            if group is not None:
                self.sealed = group, self.executed

    def publish(self) -> None:
        if self.sealed is not None:
            (group, self.durable), self.sealed = self.sealed, None
            self.engine.publish(group, self.engine.append(group))

    def abandon(self) -> None:
        """What is not durable is given up; the group on its way too."""
        self.engine.abandon()
        self.executed, self.sealed = self.durable, None

    def end(self) -> None:
        for number in list(self.running):
            self.commit(number, ahead=False)
        self.publish()
        self.seal()
        self.publish()
        assert contents(self.store) == self.executed
        assert self.engine.window.count == 0
        close_checked(self.store)


def play(steps: list[tuple[Any, ...]]) -> Interleaving:
    world = Interleaving()
    for name, *rest in steps:
        getattr(world, name.replace(" ", "_"))(*rest)
    world.end()
    return world


@settings(max_examples=10 * settings().max_examples)
@given(STEPS)
def test_every_interleaving_is_a_serial_execution(steps: list[tuple[Any, ...]]) -> None:
    play(steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "check", ["_key_was_written", "_key_was_in_a_removed_range", "_range_was_written"]
)
def test_a_check_that_is_missing_is_noticed(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The property is worth what it finds."""
    monkeypatch.setattr(ReadSet, check, lambda self, writes: False)

    @settings(
        max_examples=3000, phases=[Phase.generate], database=None, derandomize=True, deadline=None
    )
    @given(STEPS)
    def run(steps: list[tuple[Any, ...]]) -> None:
        play(steps)

    with pytest.raises(AssertionError):
        run()
