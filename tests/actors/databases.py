"""Databases on a simulated disk, and callers of them that a test can hold up."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from actors.database import Database, open_database
from actors.mail import Call, WriterLimits
from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, environment
from treestore.engine.group import Group
from treestore.engine.log import LogPosition
from treestore.engine.options import EngineOptions
from treestore.engine.transaction import WriteTransaction

SMALL_LOG = attrs.evolve(
    SMALL,
    cache_size_bytes=50_000,
    headroom_pages=256,
    log_size_bytes_max=1 << 20,
    log_segment_size_bytes_max=1 << 18,
    transaction_size_bytes_max=1 << 18,
    checkpoint_log_size_bytes=1 << 30,
)
"""A log that is full soon, and nothing else that asks for a checkpoint."""


@asynccontextmanager
async def database(
    disk: SimDisk, options: EngineOptions = SMALL, limits: WriterLimits | None = None
) -> AsyncGenerator[Database]:
    """A database on a simulated disk."""
    async with open_database(
        "/db", options=options, limits=limits, environment=environment(disk)
    ) as db:
        yield db


class Gate:
    """Holds what is appended to a database's log until it is opened."""

    def __init__(self, db: Database) -> None:
        self.error: Exception | None = None
        """What the next append fails with, if anything."""
        self._entered, self._released = threading.Event(), threading.Event()
        self._append = db.engine.append
        db.engine.append = self._held  # type: ignore[method-assign]

    def _held(self, group: Group) -> LogPosition:
        self._entered.set()
        assert self._released.wait(10)
        error, self.error = self.error, None
        if error is not None:
            raise error
        return self._append(group)

    async def reached(self) -> None:
        """Return once a group stands before it."""
        assert await trio.to_thread.run_sync(self._entered.wait, 5)

    def open(self) -> None:
        """Let through what waits and what comes."""
        self._released.set()


async def execute(
    db: Database, run: Callable[[WriteTransaction], Any], *, long: bool = False
) -> object:
    """Run one command and wait for its answer."""
    answer: object = await db.writer.execute(Call(run, long=long))
    return answer


class Callers:
    """Tasks that make one call each; ``results`` has what came of it, be it an exception."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.results: dict[str, object] = {}
        self._nursery = nursery

    def start(self, name: str, call: Callable[..., Awaitable[object]], *args: object) -> None:
        """Make a call in a task of its own."""
        self._nursery.start_soon(self._call, name, call, *args)

    async def _call(self, name: str, call: Callable[..., Awaitable[object]], *args: object) -> None:
        try:
            self.results[name] = await call(*args)
        except Exception as error:
            self.results[name] = error
