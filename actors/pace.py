"""Short searches on the event loop: together they hold it for about a millisecond."""

from __future__ import annotations

import time
from typing import Final

import trio

PACE_S: Final = 0.001
"""Of searches on the event loop, between two checkpoints."""


class Pace:
    """Of one database; shared by all who search on its event loop."""

    def __init__(self) -> None:
        self._until = 0.0

    async def __call__(self) -> None:
        """Once a millisecond of searches let the other tasks run."""
        now = time.perf_counter()
        if now >= self._until:
            await trio.lowlevel.checkpoint()
            self._until = time.perf_counter() + PACE_S
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
