"""Values of the simulated clients, as they are stored."""

from __future__ import annotations

from random import Random

from scripts.simulation.history import Value


def encoded(value: int, random: Random) -> bytes:
    """A value as it is stored: now and then too long for a page, or for the event loop."""
    size = random.choice((0, 0, 0, 20, 20, 200, 700, 5000))
    if random.random() < 0.01:
        size = 40_000
    return b"%d:" % value + b"." * size


def decoded(data: bytes | None) -> Value:
    """What `encoded` was given."""
    return None if data is None else int(data.partition(b":")[0])
