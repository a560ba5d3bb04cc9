"""Indexing beside others: who makes an index stands back for those who wait for the interpreter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

BUSY_SHARE: Final = 0.3
"""Of the time since the last pause, what the thread waited for the interpreter or a processor, from
which on others are taken to want it."""

WAIT_SHARE: Final = 1.0
"""Of that time, how long it stands back then. Without, half of the interpreter would be its: those
who read beside it would have the other half."""

WORK_S_MAX: Final = 0.02
"""What took longer was no work from one pause to the next: the thread had nothing to do."""

PAUSES_MAX: Final = 100


class StandBack:
    """To be called about once a millisecond of work. One thread at a time.

    Where nobody waits it is only the pause: an index is made as quickly as it can be.

    Args:
        pause: lets others have a turn; takes a fraction of a millisecond.
    """

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause
        self._thread = 0
        self._began = self._worked = 0.0

    def __call__(self) -> None:
        """Let others have a turn, or several."""
        now, worked, thread = time.perf_counter(), time.thread_time(), threading.get_ident()
        took = now - self._began
        waited = took - (worked - self._worked)
        self._pause()
        if thread == self._thread and BUSY_SHARE * took < waited and took < WORK_S_MAX:
            until = now + WAIT_SHARE * took
            for _ in range(PAUSES_MAX):
                if time.perf_counter() >= until:
                    break
                self._pause()
        self._thread = thread
        self._began, self._worked = time.perf_counter(), time.thread_time()
