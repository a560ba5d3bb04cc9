"""Calls counted and timed, by operation and second."""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import attrs

from treestore.errors import (
    DeadlineExceeded,
    OutcomeUnknown,
    RateLimited,
    TransactionConflict,
    TreeStoreError,
)

T = TypeVar("T")

LIMITS = (RateLimited, TransactionConflict)
"""Errors that tell a user of a limit that is there on purpose; they are counted apart."""


@attrs.define
class Calls:
    """What became of the calls of one operation.

    Attributes:
        limited: refused by a limit that is there on purpose, by code.
        errors: failed otherwise, by code; timeouts are among them.
        timeouts: no answer in time.
        latencies_s: of all of them, in the order in which they ended.
    """

    limited: Counter[str] = attrs.Factory(Counter)
    errors: Counter[str] = attrs.Factory(Counter)
    timeouts: int = 0
    latencies_s: array[float] = attrs.Factory(lambda: array("d"))

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self.latencies_s)

    @property
    def ok(self) -> int:
        """How many were answered as they should be."""
        return self.count - self.limited.total() - self.errors.total()


@attrs.define
class Second:
    """What ended within one second.

    Attributes:
        latency_s_max: the longest call that ended in it.
    """

    calls: int = 0
    errors: int = 0
    latency_s_max: float = 0.0


@attrs.define
class Statistics:
    """All calls of a run.

    Attributes:
        timeout_s: how long a call may take.
        elapsed_s: how long the users worked, once they are done.
        conflicts: attempts of transactions that came too late and were made again.
        seconds: of the run, one after the other.
        messages: an example of each code's message.
    """

    timeout_s: float = math.inf
    elapsed_s: float = 0.0
    conflicts: int = 0
    operations: dict[str, Calls] = attrs.Factory(dict)
    seconds: list[Second] = attrs.Factory(list)
    messages: dict[str, str] = attrs.Factory(dict)
    _began: float = attrs.Factory(time.perf_counter)

    def begin(self) -> None:
        """The first second begins now; what was counted so far is forgotten."""
        self.operations.clear()
        self.seconds.clear()
        self._began = time.perf_counter()

    def end(self) -> None:
        """The users are done."""
        self.elapsed_s = time.perf_counter() - self._began

    async def call(
        self,
        name: str,
        work: Awaitable[T],
        *,
        wanted: type[TreeStoreError] | tuple[type[TreeStoreError], ...] = (),
    ) -> T:
        """Await a call, counted and timed; what it raises is raised.

        Args:
            name: of the operation.
            work: the call.
            wanted: errors that are right answers.
        """
        began = time.perf_counter()
        try:
            result = await work
        except wanted:
            self.count(name, began, None)
            raise
        except TreeStoreError as error:
            self.count(name, began, error)
            raise
        self.count(name, began, None)
        return result

    def count(self, name: str, began: float, error: TreeStoreError | None) -> None:
        """A call ended.

        Args:
            name: of the operation.
            began: `time.perf_counter` when it was made.
            error: what it failed with.
        """
        now = time.perf_counter()
        calls = self.operations.get(name)
        if calls is None:
            calls = self.operations[name] = Calls()
        calls.latencies_s.append(now - began)
        number = int(now - self._began)
        while len(self.seconds) <= number:
            self.seconds.append(Second())
        second = self.seconds[number]
        second.calls += 1
        second.latency_s_max = max(second.latency_s_max, now - began)
        if error is None:
            return
        self.messages.setdefault(error.code, error.message)
        if isinstance(error, LIMITS):
            calls.limited[error.code] += 1
            return
        second.errors += 1
        calls.errors[error.code] += 1
        late = isinstance(error, OutcomeUnknown) and now - began >= self.timeout_s
        if late or isinstance(error, DeadlineExceeded):
            calls.timeouts += 1

    def total(self) -> Calls:
        """All operations together."""
        everything = Calls()
        for calls in self.operations.values():
            everything.limited.update(calls.limited)
            everything.errors.update(calls.errors)
            everything.timeouts += calls.timeouts
            everything.latencies_s.extend(calls.latencies_s)
        return everything


PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


def percentiles_ms(latencies_s: Sequence[float]) -> dict[str, float]:
    """Name → the latency that so large a share of calls did not exceed (nearest rank); 0.0 where
    there were none."""
    ordered = sorted(latencies_s)
    ranks = {name: max(0, math.ceil(share * len(ordered)) - 1) for name, share in _SHARES}
    return {
        name: round(ordered[rank] * 1000, 3) if ordered else 0.0 for name, rank in ranks.items()
    }


_SHARES = tuple(PERCENTILES.items())
