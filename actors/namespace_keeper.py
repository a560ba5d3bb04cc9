"""The namespace keeper: removes what dropped namespaces have left, and copies namespaces.

Each step is a command in the writer's mailbox, so readers never wait for it and writers only for a
step. What is to be removed is in the store: an actor that crashed, or a process that died, goes on
where it was. A copy belongs to whoever waits for it; one that nobody waits for any more, because
the process died, is removed too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio

from actors.mail import Call
from actors.writer import Writer
from treestore.engine.engine import Engine
from treestore.engine.snapshot import Snapshot
from treestore.errors import TreeStoreError
from treestore.loggers import get_logger
from treestore.model.namespaces import Namespace
from treestore.stores.namespaces import catalog, copying, dropping

if TYPE_CHECKING:
    from actors.database import Database

log = get_logger("treestore.namespace_keeper")

RETRY_S = 1.0
"""Until a step is tried again that failed for want of room, say."""

PAUSE_S = 0.001
"""Between two steps: whatever waits for the writer comes first."""

LOOK_S = 1.0
"""It looks so often whether something was dropped: a look is a look-up or two."""


class NamespaceKeeper:
    """Of one engine.

    Attributes:
        copying: numbers of the copies that somebody here waits for.
        steps: of removing, since the store was opened.
        last_error: why the last step failed; None where it did not.
    """

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer
        self._asked = trio.Event()
        self.copying: set[int] = set()
        self.steps = 0
        self.last_error: str | None = None

    def ask(self) -> None:
        """There may be something to remove."""
        self._asked.set()

    async def run(self) -> None:
        """The actor's task."""
        while True:
            self._asked = trio.Event()
            for number in copying.under_way(self._engine.read()):
                if number not in self.copying:
                    await self._do(copying.abandon, number)
            pending = dropping.pending(self._engine.read())
            for number in pending:
                while await self._do(dropping.step, number):
                    self.steps += 1
                    await trio.sleep(PAUSE_S)
            if not pending:
                with trio.move_on_after(LOOK_S):
                    await self._asked.wait()

    async def _do(self, command: Any, number: int) -> bool:
        """Run a step; True where it is to be run again."""
        try:
            again = await self._writer.execute(Call(command, (number,), long=True))
        except TreeStoreError as error:
            self.last_error = str(error)
            log.warning("a step of removing a namespace failed", error=str(error))
            await trio.sleep(RETRY_S)
            return True
        self.last_error = None
        return bool(again)


class NamespacePart:
    """Implements `treestore.stores.namespaces.copying.CopyHost` for `Database`."""

    namespace_keeper: NamespaceKeeper

    @property
    def _db(self) -> Database:
        return cast("Database", self)

    async def namespaces_copy(self, source: str, name: str) -> Namespace:
        """See ``namespaces.copy``."""
        db, keeper = self._db, self.namespace_keeper
        db.ensure_open()
        # The number is known only when it is there: the keeper must not see it before.
        begun: list[int] = []

        def begin(txn: Any) -> int:
            number = copying.begin(txn, source, name)
            begun.append(number)
            keeper.copying.add(number)
            return number

        lease: Snapshot | None = None
        try:
            number = await db.writer.execute(Call(begin))
            lease = db.engine.snapshot("namespaces.copy", evictable=False)
            return await self._copy(lease, source, number)
        finally:
            # Whatever is not finished by now, whether or not its command is applied in the end,
            # the keeper gives up.
            keeper.copying.difference_update(begun)
            if lease is not None:
                lease.close()
            keeper.ask()

    async def _copy(self, lease: Snapshot, source: str, number: int) -> Namespace:
        db = self._db
        txn = lease.read()
        there = catalog.require(txn, source)
        pairs = copying.batches(txn, there, number)
        read = partial(next, pairs, None)
        while True:
            lease.begin_read()
            try:
                batch = await db.threads.run(read, limiter=db.read_limiter)
            finally:
                lease.end_read()
            if batch is None:
                break
            await db.writer.execute(Call(copying.put, (number, batch), long=True))
            await trio.sleep(PAUSE_S)
        found: Namespace = await db.writer.execute(Call(copying.finish, (number, there)))
        return found
