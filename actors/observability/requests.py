"""Requests of an edge, counted and timed.

What every request pays for is one bucket and two additions, and its session reads the clock no
more often than without. What looks at requests one by one (`Watch`) is asked only for those that
failed or were slow, unless it wants all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from treestore.histogram import SECONDS, Histogram, HistogramSnapshot
from treestore.stores.operation import OPERATIONS

OTHER = "other"
"""The label of what has no name of ours: labels that clients choose could grow without end."""

SESSION_METHODS = frozenset(
    {"session.commit", "session.rollback", "session.open_snapshot", "session.close_snapshot"}
)
HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

ENDLESS_ROUTES = frozenset({"/debug/profile"})
"""They take as long as they are asked to."""

OK = "ok"
CANCELLED = "cancelled"
"""The client took the request back: neither an answer nor an error."""
ABANDONED = "abandoned"
"""The client went away before its answer."""

Failed = tuple[str, str]
"""An error's code and its message."""


@attrs.frozen(kw_only=True)
class SeenRequest:
    """A request that was answered, as logs and spans get it."""

    edge: str
    request_id: str
    operation: str
    """As it was asked for: a client's text, perhaps no operation of ours."""
    duration_s: float
    outcome: str
    """``ok``, or the code of the error."""
    message: str = ""
    """The error's."""
    facts: Mapping[str, Any] = attrs.field(factory=dict)
    """What the edge knows besides: session, route, status."""
    traceparent: str = ""
    """The caller's span, in the form of W3C's header."""
    endless: bool = False
    """It took as long as the client wished."""


class Watch(Protocol):
    """Looks at requests one by one."""

    from_s: float
    """Successful ones that took longer than this."""

    def look(self, seen: SeenRequest) -> None:
        """Called on the event loop; does not raise or wait."""
        ...


class Nobody:
    """Looks at nothing."""

    from_s = float("inf")

    def look(self, seen: SeenRequest) -> None:
        """See `Watch.look`."""


NOBODY = Nobody()


class Timing(Histogram):
    """Requests of one operation: how long they took, and with which codes they failed."""

    __slots__ = ("failures", "quick")

    def __init__(self) -> None:
        super().__init__(SECONDS)
        self.failures: Counter[str] = Counter()
        self.quick = 0
        """Observations that belong to the first bucket, and were put here since that is quicker."""

    def snapshot(self) -> HistogramSnapshot:
        """What it holds now."""
        counts = (self.counts[0] + self.quick, *self.counts[1:])
        return HistogramSnapshot(SECONDS, counts, self.total)


@attrs.frozen
class TimingSnapshot:
    """What a `Timing` holds at a moment; ``durations`` are those of failures too."""

    durations: HistogramSnapshot
    failures: Mapping[str, int]


class Timings:
    """The timings of an edge, by operation; as many as there are operations, and one more."""

    def __init__(self) -> None:
        self._other = Timing()
        self._known: dict[str, Timing] = {}
        self.known = self._known.get

    def find(self, operation: str) -> Timing:
        """The timing of ``operation``; of what has no such name, that of all others."""
        timing = self._known.get(operation)
        if timing is None:
            if operation not in OPERATIONS and operation not in SESSION_METHODS:
                return self._other
            timing = self._known[operation] = Timing()
        return timing

    def snapshot(self) -> dict[str, TimingSnapshot]:
        """All that were used."""
        timings = {**self._known, OTHER: self._other}
        found = {
            name: TimingSnapshot(timing.snapshot(), dict(timing.failures))
            for name, timing in timings.items()
        }
        return {name: timing for name, timing in found.items() if timing.durations.count}


class WireRequests:
    """Requests of the TCP edge."""

    def __init__(self, watch: Watch = NOBODY) -> None:
        self.timings = Timings()
        self.quick_s = min(SECONDS[0], watch.from_s)
        """A request that took no longer, did not fail, and whose method has a timing already, may
        be counted there without `ended`: ``quick`` and ``total`` are all there is to it."""
        self._watch = watch

    def ended(
        self,
        session: int,
        request: int,
        method: str,
        duration_s: float,
        failed: Failed | None,
        *,
        endless: bool = False,
    ) -> None:
        """Count a request.

        Args:
            session, request: their numbers.
            method: as the client named it.
            failed: with what, if it did.
            endless: it took as long as the client wished.
        """
        timing = self.timings.find(method)
        timing.observe(duration_s)
        code, message = failed or (OK, "")
        if failed is not None:
            timing.failures[code] += 1
        elif duration_s <= self._watch.from_s:
            return
        self._watch.look(
            SeenRequest(
                edge="tcp",
                request_id=f"{session}-{request}",
                operation=method,
                duration_s=duration_s,
                outcome=code,
                message=message,
                facts={"session": session},
                endless=endless,
            )
        )


class HttpObservation(Protocol):
    """What the HTTP edge says of a request that it answered."""

    @property
    def request_id(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def route(self) -> str:
        """The path, with names for what varies."""
        ...

    @property
    def operation(self) -> str:
        """That it led to; "" where to none."""
        ...

    @property
    def status(self) -> int: ...
    @property
    def code(self) -> str:
        """Of the error; "" where there was none."""
        ...

    @property
    def principal(self) -> str:
        """Who asked: the id of a key."""
        ...

    @property
    def duration_s(self) -> float: ...
    @property
    def traceparent(self) -> str:
        """W3C's header, as it came; "" where none did."""
        ...


class HttpRequests:
    """Requests of the HTTP edge."""

    def __init__(self, watch: Watch = NOBODY) -> None:
        self.timings = Timings()
        self.statuses: Counter[tuple[str, str]] = Counter()
        """By method and status."""
        self._watch = watch

    def answered(self, seen: HttpObservation) -> None:
        """A request was answered, or cut off (status 0)."""
        timing = self.timings.find(seen.operation)
        timing.observe(seen.duration_s)
        code = seen.code if seen.status else seen.code or ABANDONED
        if code:
            timing.failures[code] += 1
        method = seen.method if seen.method in HTTP_METHODS else OTHER
        status = str(seen.status) if 100 <= seen.status <= 599 else OTHER
        self.statuses[method, status] += 1
        if code or seen.duration_s > self._watch.from_s:
            facts = {"method": method, "route": seen.route, "status": seen.status}
            if seen.principal:
                facts["principal"] = seen.principal
            self._watch.look(
                SeenRequest(
                    edge="http",
                    request_id=seen.request_id,
                    operation=seen.operation or seen.route,
                    duration_s=seen.duration_s,
                    outcome=code or OK,
                    facts=facts,
                    traceparent=seen.traceparent,
                    endless=seen.route in ENDLESS_ROUTES,
                )
            )
