"""The index builder: builds indexes over documents that are there already, beside everything else.

Each step is a short command in the writer's mailbox, so readers never wait for it and writers only
for a step. What there is to be built, and how far it has come, is in the store: an actor that
crashed, or a process that died, goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

import trio

from actors.mail import Call
from actors.writer import Writer
from treestore.engine.engine import Engine
from treestore.errors import TreeStoreError, Unavailable
from treestore.loggers import get_logger
from treestore.model.collections import CollectionIndex
from treestore.stores.collections import building
from treestore.stores.collections.indexes import Definition

if TYPE_CHECKING:
    from actors.database import Database

log = get_logger("treestore.index_builder")

RETRY_S = 1.0
"""Until a step is tried again that failed for want of room, say."""

PAUSE_S = 0.001
"""Between two steps: whatever waits for the writer comes first."""


class IndexBuilder:
    """Builds the indexes of one engine.

    Attributes:
        steps: done since the store was opened.
        last_error: why the last step failed; None where it did not.
    """

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer
        self._asked = trio.Event()
        self._stepped = trio.Event()
        self._ended = False
        self.steps = 0
        self.last_error: str | None = None

    def ask(self) -> None:
        """There may be something to build."""
        self._asked.set()

    async def run(self) -> None:
        """The actor's task."""
        self._ended = False
        try:
            while True:
                self._asked = trio.Event()
                pending = building.pending(self._engine.read())
                if not pending:
                    await self._asked.wait()
                for index_id in pending:
                    await self._build(index_id)
        finally:
            self._ended = True
            self._tell()

    async def _build(self, index_id: int) -> None:
        """Build one index to its end."""
        progress: building.Progress = "going on"
        while progress != "ended":
            try:
                progress = await self._writer.execute(Call(building.step, (index_id,), long=True))
            except TreeStoreError as error:
                self.last_error = str(error)
                log.warning("a step of building an index failed", error=str(error))
                await trio.sleep(RETRY_S)
                continue
            self.last_error = None
            self.steps += 1
            self._tell()
            await trio.sleep(PAUSE_S)

    def _tell(self) -> None:
        stepped, self._stepped = self._stepped, trio.Event()
        stepped.set()

    async def wait(self, name: str, index_id: int) -> CollectionIndex:
        """Return the index once it is ready.

        Cancelled, the build goes on.

        Raises:
            NotFound: it was dropped.
            AlreadyExists, InvalidArgument: it failed.
            Unavailable: the store was closed meanwhile; the build goes on when it is opened.
        """
        while True:
            index = building.outcome(self._engine.read(), name, index_id)
            if index is not None:
                await trio.lowlevel.checkpoint()
                return index
            if self._ended:
                raise Unavailable(
                    "The store was closed before the index was ready; the build goes on when it is "
                    "opened again."
                )
            await self._stepped.wait()


class IndexPart:
    """Implements `treestore.stores.collections.building.IndexHost` for `Database`."""

    index_builder: IndexBuilder

    @property
    def _db(self) -> Database:
        return cast("Database", self)

    async def collections_begin_index(
        self, name: str, definition: Definition, *, wait: bool
    ) -> CollectionIndex:
        """See ``collections.create_index``."""
        begin = partial(building.begin, name=name, definition=definition)
        return await self._begin(begin, name, wait)

    async def collections_rebuild_index(
        self, name: str, index_name: str, *, wait: bool
    ) -> CollectionIndex:
        """See ``collections.rebuild_index``."""
        return await self._begin(
            partial(building.begin_again, name=name, index_name=index_name), name, wait
        )

    async def _begin(self, command: Callable[..., int], name: str, wait: bool) -> CollectionIndex:
        db = self._db
        db.ensure_open()
        index_id: int = await db.writer.execute(Call(command, long=True))
        self.index_builder.ask()
        if wait:
            return await self.index_builder.wait(name, index_id)
        return building.described(db.engine.read(), name, index_id)
