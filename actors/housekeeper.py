"""The housekeeper: small work that keeps the others from waiting.

* the next log segment is made ready before the current one is full;
* once the log has been idle, a marker says durably up to where it was synced, so that damage to
  its very end can be told from a torn tail;
* answers kept for clients that are long gone are forgotten.
"""

from __future__ import annotations

from datetime import timedelta

import trio

from actors.mail import Call
from actors.threads import WORKER_THREADS, JobThread, Threads
from actors.writer import Writer
from treestore.engine.engine import Engine
from treestore.errors import ResourceExhausted, TreeStoreError
from treestore.stores.deduplication import Sessions

TICK_S = 0.25
IDLE_TICKS = 4
"""Ticks without a commit after which the log counts as idle."""

SESSION_KEPT = timedelta(hours=24)
"""A client that was silent for longer must not retry what it sent before."""

EXPIRE_EVERY_S = 600.0


class Housekeeper:
    """Runs until cancelled; the supervisor starts it again when it crashes."""

    def __init__(
        self,
        engine: Engine,
        log_thread: JobThread,
        writer: Writer,
        sessions: Sessions,
        threads: Threads = WORKER_THREADS,
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._log_thread = log_thread
        self._writer = writer
        self._threads = threads

    async def run(self) -> None:
        """The actor's task."""
        marked = self._engine.durable.number
        seen, quiet = marked, 0
        next_expiry = trio.current_time() + EXPIRE_EVERY_S
        while True:
            await trio.sleep(TICK_S)
            engine = self._engine
            if engine.failed is not None or engine.closed:
                continue
            number = engine.durable.number
            if number != seen:
                seen, quiet = number, 0
                await self._prepare_segment()
            elif number != marked:
                quiet += 1
                if quiet >= IDLE_TICKS:
                    marked = number
                    await self._mark()
            if trio.current_time() > next_expiry:
                next_expiry = trio.current_time() + EXPIRE_EVERY_S
                await self._expire()

    async def _prepare_segment(self) -> None:
        try:
            with trio.CancelScope(shield=True):
                await self._threads.run(self._engine.log.prepare_next)
        except (OSError, ResourceExhausted):
            # The writer meets the same at its next rotation, and says so to somebody.
            return

    async def _mark(self) -> None:
        def landed(_result: object, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, ResourceExhausted):
                self._engine.fail(error)

        self._log_thread.submit(self._engine.log.mark_synced, landed)
        await trio.lowlevel.checkpoint()

    async def _expire(self) -> None:
        before = self._engine.now() - SESSION_KEPT
        try:
            await self._writer.execute(Call(self._sessions.expire, (before,), long=True))
        except TreeStoreError:
            return
