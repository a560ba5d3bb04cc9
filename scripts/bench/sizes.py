"""How much a run measures."""

from __future__ import annotations

import msgspec


class Sizes(msgspec.Struct, frozen=True):
    """Sizes of one run; the defaults are the full run's."""

    keys: int = 1_000_000
    """Rows of the embedded stores' table, and of a bulk load."""
    repetitions: int = 7
    """Measured repetitions of each system, interleaved."""
    seconds: float = 1.5
    """Length of one repetition."""
    warm_up_seconds: float = 0.5
    """Length of the first repetition of each system, which does not count."""
    scans: int = 5
    """Repetitions of a full scan and of a bulk load, which take as long as they take."""
    documents: int = 1_000_000
    """Documents of the collection whose queries use indexes."""
    scanned_documents: int = 100_000
    """Documents of the one whose queries use none."""
    document_nodes: int = 50_000
    subtree_nodes: int = 600
    """About how many nodes the measured subtree has down to depth 3."""
    versions: int = 12_000
    """Versions of the policy that the rows of as_of look at."""
    law_nodes: int | None = None
    """Nodes of the D.C. Code to take, from its beginning; None: all of it."""
    law_repetitions: int = 3
    loop_seconds: float = 20.0
    """How long the mixed load of the event loop's row runs."""
    recovery_log_mib: int = 512
    """Limit of the log that is full when its process dies."""


QUICK = Sizes(
    keys=100_000,
    repetitions=3,
    seconds=0.35,
    warm_up_seconds=0.15,
    scans=2,
    documents=100_000,
    scanned_documents=50_000,
    document_nodes=10_000,
    versions=2_000,
    law_nodes=20_000,
    law_repetitions=1,
    loop_seconds=5.0,
    recovery_log_mib=32,
)
"""A run that ends in two minutes. Its numbers are rougher, and its data fit into more caches."""
