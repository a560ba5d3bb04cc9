"""Waiting for a disk beside an event loop, whichever that is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Do ``work`` on a thread. Cancelled, trio waits for its end, and asyncio does not."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        found: T = await trio.to_thread.run_sync(work)
        return found
    return await asyncio.to_thread(work)
