"""What a crash may leave: the acknowledged state, or one that was on its way.

Each change is a function over a transaction. It is applied to the engine and, independently, to a
sorted dict, so the states that are compared owe nothing to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.stores.fake import FakeWrite
from treestore.engine.directory import OpenStore
from treestore.errors import TransactionConflict

State = dict[bytes, bytes]
Change = Callable[[Any], object]
"""A function over `treestore.stores.access.Write`."""


class History:
    """States of one store, as its user knows them.

    Attributes:
        acknowledged: what the last call that returned left.
        attempted: the states of the transactions after it, in commit order. A transaction is
            whole or absent, and none is there without those before it.
    """

    def __init__(self, start: State | None = None) -> None:
        self.acknowledged: State = dict(start or {})
        self.attempted: list[State] = []

    def allowed(self) -> list[State]:
        """Every state that recovery may find."""
        return [self.acknowledged, *self.attempted]

    @property
    def newest(self) -> State:
        """The state that the next transaction sees."""
        return self.attempted[-1] if self.attempted else self.acknowledged

    def write(self, store: OpenStore, change: Change) -> None:
        """One durable transaction."""
        txn = store.engine.begin()
        self.attempt(txn, change)
        store.engine.write_now(txn)
        self.acknowledge(1)

    def groups(self, store: OpenStore, groups: Iterable[list[Change]]) -> None:
        """Groups of transactions; each runs before the one before it is appended, as in service."""
        engine = store.engine
        before: Callable[[], None] | None = None
        for changes in groups:
            for change in changes:
                txn = engine.begin()
                self.attempt(txn, change)
                engine.commit(txn)
            if before is not None:
                before()
            before = self._sealed(store, len(changes))
        if before is not None:
            before()

    def _sealed(self, store: OpenStore, count: int) -> Callable[[], None]:
        group = store.engine.seal()
        if group is None:
            return lambda: self.acknowledge(count)

        def finish() -> None:
            store.engine.publish(group, store.engine.append(group))
            self.acknowledge(count)

        return finish

    def attempt(self, txn: Any, change: Change) -> None:
        """Apply a change to an open transaction, and to the model."""
        model = FakeWrite()
        model.data = dict(self.newest)
        model.keys = sorted(model.data)
        model.now = txn.now
        # From here on it may be found: a crash can come within the change, too.
        change(model)
        self.attempted.append(model.data)
        change(txn)

    def acknowledge(self, count: int) -> None:
        """The oldest ``count`` attempts are durable."""
        self.acknowledged = self.attempted[count - 1]
        del self.attempted[:count]


def put(pairs: State) -> Change:
    """A change that sets some keys."""

    def change(txn: Any) -> None:
        for key, value in pairs.items():
            txn.put(key, value)

    return change


def remove(low: bytes, high: bytes) -> Change:
    """A change that removes a range."""
    return lambda txn: txn.delete_range(low, high)


def remove_keys(keys: Iterable[bytes]) -> Change:
    """A change that removes keys one by one."""
    chosen = list(keys)

    def change(txn: Any) -> None:
        for key in chosen:
            txn.delete(key)

    return change


def numbered(numbers: Iterable[int], size: int) -> State:
    """Pairs with short keys; the values have ``size`` bytes."""

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        for n in numbers:
            yield b"k%04d" % n, bytes((n % 256,)) * size

    return dict(pairs())


def interactive(store: OpenStore, changes: Iterable[Change]) -> Change:
    """The commit of an interactive transaction that made these changes, one call after the other.

    The calls are made now, on the newest durable state. On the model the changes are simply made:
    a transaction that was validated must leave what running it at its commit would.
    """
    chosen = list(changes)
    core = store.engine.optimistic("test")
    now = core.command(raw=False).now
    for change in chosen:
        command = core.command(raw=False)
        change(command)
        core.keep(command)

    def commit(txn: Any) -> None:
        if isinstance(txn, FakeWrite):
            txn.now = now  # Its calls have one time, the first one's.
            for change in chosen:
                change(txn)
            return
        try:
            core.apply(txn)
        finally:
            core.close()

    return commit


def conflicting(commit: Change) -> Change:
    """A commit that meets a conflict, and so changes nothing."""

    def attempt(txn: Any) -> None:
        if not isinstance(txn, FakeWrite):
            with pytest.raises(TransactionConflict):
                commit(txn)

    return attempt
