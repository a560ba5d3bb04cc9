"""Distances and scores, the same for everybody who calculates them.

The arithmetic is that of `treestore.search.vectors.distances`, which indexes use too: a distance
depends on nothing but the two vectors. So whatever finds the candidates, those that are found have
the same distances, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from treestore.model.namespaces import Metric
from treestore.search.vectors.distances import Query, squares

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
    wanted = np.frombuffer(query, "<f4").astype(np.float32, copy=False)
    return Query(wanted, metric).exact(matrix, squares(matrix))


def score_of(metric: Metric, distance: float) -> float:
    """How well a vector fits: ``1 - distance`` under cosine, ``1 / (1 + distance)`` under l2, the
    product itself under dot."""
    if metric == "cosine":
        return 1.0 - distance
    if metric == "l2":
        return 1.0 / (1.0 + distance)
    return -distance + 0.0
