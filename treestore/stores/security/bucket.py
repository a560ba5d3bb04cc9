"""Rate limits: a token bucket, kept as one number."""

from __future__ import annotations


class Bucket:
    """Allows ``rate`` requests a second in the long run, ``burst`` at once after a quiet time.

    What is kept is not how many tokens there are but when the bucket will be full again (the
    *generic cell rate algorithm*): that needs no refilling and no rounding, and a bucket that
    nobody uses needs no attention.

    Args:
        rate: requests a second, above 0.
        burst: requests at once, at least 1.
    """

    __slots__ = ("_full_at", "_interval_s", "_room_s")

    def __init__(self, rate: float, burst: float) -> None:
        self._interval_s = 1.0 / rate
        self._room_s = (max(burst, 1.0) - 1.0) / rate
        self._full_at = float("-inf")

    def take(self, now: float) -> float:
        """Take one token.

        Args:
            now: seconds on any clock that never goes back.

        Returns:
            0.0 where there was one, else in how many seconds there will be; nothing was taken then.
        """
        full_at = max(self._full_at, now)
        # A thousandth of a token and a microsecond: sums of intervals are not exact, and a client
        # that waited as long as it was told must find its token.
        wait_s = full_at - now - self._room_s
        if wait_s > self._interval_s * 1e-3 + 1e-6:
            return wait_s
        self._full_at = full_at + self._interval_s
        return 0.0

    def give_back(self) -> None:
        """The request was not done after all."""
        self._full_at -= self._interval_s

    def is_full(self, now: float) -> bool:
        """Whether it is as good as new."""
        return self._full_at <= now
