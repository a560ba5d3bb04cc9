"""The circuit breaker: what a client does while its server cannot be reached.

closed
    All is well, or the server has not been away for long: calls wait for a connection.
open
    So many attempts to connect failed in a row. Calls that have sent nothing yet fail at once. A
    command that was sent on a connection that was lost since goes on waiting, until its deadline:
    the server alone knows what became of it.
half open
    While it is open one attempt is made every ``pause_s``; the first that comes to something
    closes it.
"""

from __future__ import annotations

import attrs


@attrs.define
class Breaker:
    """Counts the attempts to connect that failed in a row.

    Attributes:
        failures_max: so many open it; 0: it never opens.
        pause_s: seconds between two attempts while it is open.
    """

    failures_max: int = 10
    pause_s: float = 5.0
    failures: int = attrs.field(init=False, default=0)
    _since: float = attrs.field(init=False, default=0.0)
    _next_at: float = attrs.field(init=False, default=0.0)

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return 0 < self.failures_max <= self.failures

    def succeeded(self) -> None:
        """A connection is there."""
        self.failures = 0

    def failed(self, now: float, backoff_s: float) -> float:
        """An attempt came to nothing; returns how long to wait before the next one."""
        if not self.failures:
            self._since = now
        self.failures += 1
        wait_s = self.pause_s if self.is_open else backoff_s
        self._next_at = now + wait_s
        return wait_s

    def sentence(self, now: float) -> str:
        """Why a call is refused."""
        left_s = self._next_at - now
        when = f"The next attempt is made in {left_s:.1f} s" if left_s > 0 else "One is being made"
        return (
            f"The server has not been reached for {now - self._since:.1f} s, in {self.failures} "
            f"attempts. {when}; until one succeeds calls fail at once."
        )
