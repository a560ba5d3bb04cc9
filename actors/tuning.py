"""Interpreter settings that a process with an open store should have."""

from __future__ import annotations

import gc
import sys

SWITCH_INTERVAL_S = 0.0001
"""How long a thread may hold the interpreter while another waits. Under Python's 5 ms a round trip
beside one busy thread takes 5.2 ms at the median, under 0.1 ms it takes 0.25 ms (measured); the
log thread waits as long on its way back from a sync."""

GC_THRESHOLDS = (5_000, 5, 5_000)
"""Collect the young generations in small steps (well below a millisecond each), and the oldest one
almost never. The tree's nodes form no cycles, and a full collection visits each of their entries:
with a million keys that is 50 ms of standing still, and under the default thresholds it makes
inserts two to three times slower."""


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
