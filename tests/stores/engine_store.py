"""Operations on an engine over a simulated disk, called as on `tests.stores.fake.FakeStore`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import attrs

from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, close_checked, open_small
from treestore.engine.directory import OpenStore
from treestore.engine.snapshot import Snapshot
from treestore.engine.transaction import ReadTransaction

CHECKPOINT_EVERY = 7
"""Commands between two checkpoints."""


class EngineStore:
    """One engine; each command is durable when it returns."""

    def __init__(self) -> None:
        self._disk = SimDisk()
        self._opened = self._open()
        self._engine = self._opened.engine
        self._commands = 0
        self._held: list[Snapshot] = []
        self._time = self._engine.now()

    def _open(self) -> OpenStore:
        # Keys of documents are long; a page holds some of them.
        return open_small(self._disk, attrs.evolve(SMALL, page_size_bytes=4096))

    def crash(self) -> None:
        """The process dies, and another one recovers the store."""
        self._held = []
        self._disk.restart()
        self._opened = self._open()
        self._engine = self._opened.engine

    @property
    def txn(self) -> ReadTransaction:
        """The durable state."""
        return self._engine.read()

    def hold(self) -> ReadTransaction:
        """The durable state, also when there are others; until the next crash."""
        snapshot = self._engine.snapshot("test")
        self._held.append(snapshot)
        return snapshot.read()

    @contextmanager
    def transaction(self) -> Generator[Callable[..., Any]]:
        """An interactive transaction: call operations with what it gives; committed at the end."""
        core = self._engine.optimistic("test")

        def run(function: Any, *args: Any, **kwargs: Any) -> Any:
            command = core.command(raw=False)
            result = function(command, *args, **kwargs)
            core.keep(command)
            return result

        try:
            yield run
            self.run(core.apply)
        finally:
            core.close()

    def time(self) -> datetime:
        """The time of the last command."""
        return self._time

    def is_empty(self) -> bool:
        """Whether there is no key at all."""
        return not list(self.txn.scan(b"", None))

    def close(self) -> None:
        """Check the engine, then close it."""
        for snapshot in self._held:
            snapshot.close()
        close_checked(self._opened)

    def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """A command; what fails changes nothing."""
        txn = self._engine.begin()
        try:
            result = function(txn, *args, **kwargs)
        except BaseException:
            self._engine.rollback(txn)
            raise
        self._time = txn.now
        self._engine.write_now(txn)
        self._commands += 1
        if self._commands % CHECKPOINT_EVERY == 0:
            self._engine.checkpoint_now()
        return result

    def prepared(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """A command in two stages."""
        return self.run(function(*args, **kwargs))
