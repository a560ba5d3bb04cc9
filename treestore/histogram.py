"""Histograms that cost next to nothing to add to.

They are read when somebody asks for metrics (`actors.observability`), not before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import attrs

SECONDS = (
    *(25e-6, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 10.0),
)
"""Upper bounds for durations: a cached read takes 10 µs, a sync 0.1 to 10 ms."""

SIZES_BYTES = tuple(4.0**exponent for exponent in range(4, 15))
"""Upper bounds for sizes: 256 bytes to 256 MiB."""

COUNTS = tuple(float(1 << exponent) for exponent in range(12))
"""Upper bounds for numbers of things done together: 1 to 2,048."""


@attrs.frozen
class HistogramSnapshot:
    """What a histogram holds at a moment.

    Attributes:
        bounds: upper bounds, included, ascending; the last bucket has none.
        counts: observations in each bucket, one more than bounds.
        total: sum of what was observed.
    """

    bounds: Sequence[float]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)


class Histogram:
    """Counts observations by size. Added to by one thread; read by any."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def snapshot(self) -> HistogramSnapshot:
        """What it holds now."""
        return HistogramSnapshot(self.bounds, tuple(self.counts), self.total)
