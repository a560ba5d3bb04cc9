"""Vectors for tests, and plain computations that know nothing of the code under test."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treestore.model.namespaces import Metric
from treestore.search.vectors.segment import Segment, SegmentContent, write_segment

METRICS: tuple[Metric, ...] = ("cosine", "l2", "dot")
DATABASE = uuid.UUID(int=7)
SEGMENT = uuid.UUID(int=8)

Floats = NDArray[np.float32]


def clouds(rows: int, dim: int, *, seed: int, clusters: int = 50) -> Floats:
    """Clusters that overlap: the distances within one and between two are about the same."""
    random = np.random.default_rng(seed)
    width = math.sqrt(2 * math.sqrt(8 * dim) / (2 * dim))
    centres = random.normal(size=(clusters, dim)) * width
    found = centres[random.integers(0, clusters, rows)] + random.normal(size=(rows, dim))
    return found.astype(np.float32)


def true_distance(metric: Metric, a: Sequence[float], b: Sequence[float]) -> float:
    """As good as float64 can say it."""
    if metric == "l2":
        return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    product = math.fsum(x * y for x, y in zip(a, b, strict=True))
    if metric == "dot":
        return -product
    lengths = math.fsum(x * x for x in a), math.fsum(y * y for y in b)
    return 1 - product / math.sqrt(lengths[0]) / math.sqrt(lengths[1])


def exact_distances(metric: Metric, query: Floats, vectors: Floats) -> NDArray[np.float64]:
    """Of a query from all rows, with the sums that numpy makes."""
    q, v = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        found: NDArray[np.float64] = ((v - q) ** 2).sum(axis=1)
        return found
    product = v @ q
    if metric == "dot":
        return -product
    lengths = np.sqrt((v**2).sum(axis=1) * (q**2).sum())
    return np.asarray(1 - product / lengths)


def make_segment(
    folder: Path,
    vectors: Floats,
    metric: Metric,
    *,
    rows: NDArray[np.int64] | None = None,
    number: int = 8,
    indexed_rows_min: int = 2000,
) -> Segment:
    """Write and open a segment whose ids are its rows' numbers."""
    numbers = np.arange(len(vectors), dtype=np.int64) if rows is None else rows
    path = folder / f"{number}.segment"
    content = SegmentContent(
        rows=numbers,
        ids=[b"%d" % row for row in numbers.tolist()],
        dim=vectors.shape[1],
        metric=metric,
        vectors=[vectors],
    )
    name = uuid.UUID(int=number)
    written = write_segment(
        path,
        content,
        database=DATABASE,
        segment=name,
        seed=1,
        indexed_rows_min=indexed_rows_min,
    )
    return Segment.open(path, database=DATABASE, segment=name, checksum=written.checksum)
