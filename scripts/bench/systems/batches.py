"""What the embedded stores have in common."""

from __future__ import annotations

import gc

from scripts.bench.data import Row, random_keys, value_of

INSERTS = 100
"""Random inserts in one transaction."""

BULK_ROWS = 10_000
"""Rows in one transaction of a bulk load."""

INSERTS_PER_SECOND_MAX = 500_000


def batches(seed: int, seconds: float) -> list[list[Row]]:
    """Random rows in groups of `INSERTS`: more than can be inserted in ``seconds``."""
    keys = random_keys(int(INSERTS_PER_SECOND_MAX * seconds) // INSERTS * INSERTS, seed)
    rows = [(key, value_of(at)) for at, key in enumerate(keys)]
    groups = [rows[at : at + INSERTS] for at in range(0, len(rows), INSERTS)]
    # Nobody should pay for the collector's walks over these.
    gc.freeze()
    return groups
