"""One line of log for each request that failed or was slow; at level ``debug``, for each request.

A line holds no parameters and no results, and what comes from a client is cut short. Lines are
bounded in number too: a client that fails a hundred thousand times a second would otherwise have
the server do nothing but write of it. What is left out is counted, and said once a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.observability.requests import CANCELLED, OK, SeenRequest
from treestore.loggers import get_logger

log = get_logger("treestore.request")

LINES_PER_S = 200.0
LINES_BURST = 1000.0
"""So many lines at once, after a quiet time."""

NAME_SIZE_MAX = 100
MESSAGE_SIZE_MAX = 200
"""Characters of an error's message that are logged."""

SERVER_FAULTS = frozenset(
    {"internal", "corruption", "outcome_unknown", "unavailable", "resource_exhausted"}
)
"""Outcomes that somebody should look at; the others are the client's affair."""


class RequestLog:
    """Implements `Watch`.

    Args:
        slow_s: a request that takes this long is told of.
        every: log all of them.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        slow_s: float,
        *,
        every: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slow_s = slow_s
        self._every = every
        self._clock = clock
        self._left = LINES_BURST
        self._at = clock()
        self._suppressed = 0
        self.suppressed = 0
        """Lines that were left out, in total."""
        self.from_s = -1.0 if every else slow_s

    def look(self, seen: SeenRequest) -> None:
        """See `Watch.look`."""
        if seen.outcome == CANCELLED or seen.outcome == OK:
            slow = seen.duration_s > self._slow_s and not seen.endless
            level = "warning" if slow and seen.outcome == OK else "debug"
        else:
            slow = False
            level = "warning" if seen.outcome in SERVER_FAULTS else "info"
        if level == "debug" and not self._every:
            return
        if not self._every and not self._may_write():
            return
        facts = dict(seen.facts)
        if seen.message:
            facts["message"] = seen.message[:MESSAGE_SIZE_MAX]
        if slow:
            facts["slow"] = True
        getattr(log, level)(
            "request",
            request_id=seen.request_id,
            edge=seen.edge,
            operation=seen.operation[:NAME_SIZE_MAX],
            duration_ms=round(seen.duration_s * 1000, 3),
            outcome=seen.outcome,
            **facts,
        )

    def _may_write(self) -> bool:
        now = self._clock()
        self._left = min(LINES_BURST, self._left + (now - self._at) * LINES_PER_S)
        self._at = now
        if self._left < 1.0:
            self._suppressed += 1
            self.suppressed += 1
            return False
        self._left -= 1.0
        if self._suppressed:
            log.warning("lines about requests were left out", count=self._suppressed)
            self._suppressed = 0
        return True
