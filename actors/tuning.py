"""Interpreter settings that a process with an open store should have."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

SWITCH_INTERVAL_S = 0.0001
"""How long a thread may hold the interpreter while another waits. Under Python's 5 ms a round trip
beside one busy thread takes 5.2 ms at the median, under 0.1 ms it takes 0.25 ms (measured); the
log thread waits as long on its way back from a sync."""

GC_THRESHOLDS = (5_000, 5, 5_000)
"""Collect the young generations in small steps (well below a millisecond each), and the oldest one
almost never. The tree's nodes form no cycles, and a full collection visits each of their entries:
with a million keys that is 50 ms of standing still, and under the default thresholds it makes
inserts two to three times slower."""


PAUSE_S_MAX = 5.0
"""Where long jobs follow each other without a gap, the collector still has its turn this often."""

WHOLE_EVERY_S = 6 * 3600.0
"""How often everything is collected, after a long job: 50 ms for a tree of a million keys. So a
server that runs for months does not keep the garbage that was young at the end of some job."""


class _Collector:
    """Whether the garbage collector may run; shared by all stores and threads of the process."""

    def __init__(self) -> None:
        self.may_rest = False
        self._lock = threading.Lock()
        self._jobs = 0
        self._off_since = 0.0
        self._whole_at = time.monotonic()

    def pause(self) -> None:
        with self._lock:
            self._jobs += 1
            if gc.isenabled():
                gc.disable()
                self._off_since = time.monotonic()

    def resume(self) -> None:
        with self._lock:
            self._jobs -= 1
            now = time.monotonic()
            if not self._jobs or now - self._off_since > PAUSE_S_MAX:
                if now - self._whole_at > WHOLE_EVERY_S:
                    # What was out of sight is looked at once, for cycles that others left behind.
                    gc.unfreeze()
                    gc.collect()
                    self._whole_at = time.monotonic()
                gc.freeze()
                gc.enable()


_collector = _Collector()


@contextmanager
def collector_paused() -> Generator[None, None, None]:
    """Keep the garbage collector from running inside the ``with``; for jobs of many objects.

    Storing a document makes a hundred thousand objects that live as long as the job does. The
    collector, which looks at young objects again and again, would stop every thread for 5 to 20 ms
    at a time, and find nothing: they form no cycles. Afterwards what is alive is moved out of its
    sight, for the same reason. Does nothing unless `let_collector_rest` was called.
    """
    if not _collector.may_rest:
        yield
        return
    _collector.pause()
    try:
        yield
    finally:
        _collector.resume()


def let_collector_rest() -> None:
    """Make `collector_paused` work; for a process that is a server and nothing else.

    Cycles that other code leaves behind while a long command runs are never collected then, so a
    program that embeds a store does not get this with `tune`.
    """
    _collector.may_rest = True


def tune() -> None:
    """Set the interpreter up for a process that has a store open.

    ``treestore serve`` does this itself. A program that embeds TreeStore decides about its own
    interpreter; calling this once at its start is recommended. Changes the thread switch interval
    and the garbage collector's thresholds, and moves everything that exists now out of the
    collector's sight (`gc.freeze`).
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    gc.collect()
    gc.freeze()
