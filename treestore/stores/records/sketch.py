"""How long things took, in little space: a histogram with buckets of growing width.

Each bucket is 2 % wider than the one before, and a percentile is answered by the middle of its
bucket, so it is **within 1 %** of the exact one (nearest rank), whatever the distribution. What is
counted are whole microseconds, so sum and mean are exact to the microsecond, and something counted
can be taken out again without a trace.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

GROWTH: Final = 1.02
_LOG_GROWTH: Final = math.log(GROWTH)
_ZERO: Final = -1
"""The bucket of what took less than half a microsecond."""


class Sketch(msgspec.Struct, array_like=True):
    """Latencies, counted."""

    count: int = 0
    sum_us: int = 0
    buckets: dict[int, int] = msgspec.field(default_factory=dict)
    """Number of a bucket → how many fell into it; buckets without any are left out."""

    def add(self, latency_ms: float, times: int = 1) -> None:
        """Count a latency; take it out again with ``times`` of -1."""
        us = round(latency_ms * 1000)
        self.count += times
        self.sum_us += us * times
        bucket = math.ceil(math.log(us) / _LOG_GROWTH) if us else _ZERO
        left = self.buckets.get(bucket, 0) + times
        if left:
            self.buckets[bucket] = left
        else:
            del self.buckets[bucket]

    def merge(self, other: Sketch) -> None:
        """Count everything that ``other`` has."""
        self.count += other.count
        self.sum_us += other.sum_us
        buckets = self.buckets
        for bucket, count in other.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count

    @property
    def mean_ms(self) -> float | None:
        """The mean; None of nothing."""
        return self.sum_us / self.count / 1000 if self.count else None

    def percentiles_ms(self, *fractions: float) -> list[float | None]:
        """For each of the ascending ``fractions``, the latency that this part of all does not
        exceed; None of nothing."""
        if not self.count:
            return [None for _ in fractions]
        found: list[float | None] = []
        below = 0
        buckets = iter(sorted(self.buckets.items()))
        bucket = _ZERO
        for fraction in fractions:
            rank = max(1, math.ceil(fraction * self.count))
            while below < rank:
                bucket, count = next(buckets)
                below += count
            found.append(_middle_ms(bucket))
        return found


def _middle_ms(bucket: int) -> float:
    return 0.0 if bucket == _ZERO else 2 * GROWTH**bucket / (1 + GROWTH) / 1000
