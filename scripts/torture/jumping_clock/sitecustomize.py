"""Gives a process a wall clock that jumps: ``TREESTORE_CHAOS_CLOCK`` names a file with an offset in
seconds, read at every look at the clock. The monotonic clock goes on as it is.

Python imports a module of this name at its start, from the path that `ServerProcess` sets.
(libfaketime, the usual way, lets ``time.sleep`` fail with EINVAL on Python 3.11 and later.)
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_real_time, _real_time_ns = time.time, time.time_ns
_file = os.environ.get("TREESTORE_CHAOS_CLOCK")


def _offset_s() -> int:
    try:
        return int(Path(_file or "").read_text())
    except (OSError, ValueError):
        return 0


if _file:
    time.time = lambda: _real_time() + _offset_s()
    time.time_ns = lambda: _real_time_ns() + _offset_s() * 1_000_000_000
