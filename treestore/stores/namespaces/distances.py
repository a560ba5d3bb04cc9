"""Distances and scores, the same for everybody who calculates them.

A distance is calculated from the stored float32 numbers in double precision, row by row: it does
not depend on which other rows are looked at along with it. So whatever finds the candidates, those
that are found have the same distances, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from treestore.model.namespaces import Metric

Distances = npt.NDArray[np.float64]


def matrix_of(vectors: Sequence[bytes], dim: int) -> npt.NDArray[np.float32]:
    """Stored vectors as the rows of a matrix."""
    return np.frombuffer(b"".join(vectors), "<f4").reshape(-1, dim)


def distances(metric: Metric, query: bytes, matrix: npt.NDArray[np.float32]) -> Distances:
    """The distance of each row from a query.

    Args:
        metric: ``cosine`` (``1 - cos``, from 0 to 2), ``l2`` (the squared Euclidean distance) or
            ``dot`` (the negated product).
        query: a vector as it is stored.
        matrix: float32, a vector in each row.
    """
    rows = matrix.astype(np.float64, order="C")
    wanted = np.frombuffer(query, "<f4").astype(np.float64)
    if metric == "l2":
        rows -= wanted
        rows *= rows
        return rows.sum(axis=1)
    products: Distances = (rows * wanted).sum(axis=1)
    if metric == "dot":
        return -products + 0.0  # No negative zero.
    rows *= rows
    norms = np.sqrt(rows.sum(axis=1)) * np.sqrt((wanted * wanted).sum())
    return np.clip(1.0 - products / norms, 0.0, 2.0)


def score_of(metric: Metric, distance: float) -> float:
    """How well a vector fits: ``1 - distance`` under cosine, ``1 / (1 + distance)`` under l2, the
    product itself under dot."""
    if metric == "cosine":
        return 1.0 - distance
    if metric == "l2":
        return 1.0 / (1.0 + distance)
    return -distance + 0.0
