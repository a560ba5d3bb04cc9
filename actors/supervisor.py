"""Supervision: a background actor that crashes is reported and started again, with back-off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from treestore.loggers import get_logger

log = get_logger("treestore.supervisor")

BACK_OFF_S_MIN = 0.05
BACK_OFF_S_MAX = 10.0
STEADY_S = 60.0
"""An actor that ran this long has recovered: its back-off starts anew."""


@attrs.define
class ActorStatus:
    """How one supervised actor is doing."""

    name: str
    running: bool = False
    restarts: int = 0
    last_error: str | None = None


class Supervisor:
    """Starts actors in one nursery and keeps them running.

    Error handling:
        An `Exception` that leaves an actor's ``run`` is logged with its traceback and the actor is
        started again after 50 ms, doubling to 10 s. Anything else (cancellation, system exit)
        passes. An actor that returns is not started again.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.actors: dict[str, ActorStatus] = {}

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Supervise ``run`` under ``name``."""
        status = self.actors[name] = ActorStatus(name)
        self._nursery.start_soon(self._keep_running, status, run, name=f"actor {name}")

    async def _keep_running(self, status: ActorStatus, run: Callable[[], Awaitable[None]]) -> None:
        back_off = BACK_OFF_S_MIN
        while True:
            began = trio.current_time()
            status.running = True
            try:
                await run()
            except Exception as error:
                status.last_error = f"{type(error).__name__}: {error}"
                log.exception("an actor crashed and is restarted", actor=status.name)
            else:
                return
            finally:
                status.running = False
            if trio.current_time() - began > STEADY_S:
                back_off = BACK_OFF_S_MIN
            await trio.sleep(back_off)
            back_off = min(2 * back_off, BACK_OFF_S_MAX)
            status.restarts += 1
