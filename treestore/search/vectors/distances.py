"""Distances that are the same wherever two vectors meet.

A query must answer the same before and after its rows move from the tail into a segment, and from
one segment into another. So the distance of two vectors may depend on nothing but the two: not on
how many rows are compared at a time, where they lie in memory, how they are aligned, or which
processor does it. Sums of products as libraries compute them do depend on all that, in the last
bits: they add in an order that suits the shape and the machine.

`Query.exact` adds in one order that is written here: both vectors become float64, the terms are
multiplied, and then the upper half of the terms is added to the lower half until one is left. Each
step is an addition of arrays, element by element, for which IEEE 754 leaves no choice. (A product
of two float32 is exact in float64, so the result is also about as good as float64 can be.)

That takes about 2 ns for each number, so it is done for the few rows that may be among the
nearest. `Query.between` finds these: it is fast, in float32, in any order, and says for each row
between what two numbers its distance is. Rows whose lower one is more than the k-th smallest of the
upper ones cannot be among the k nearest; all others are compared exactly.

Both sides of the bound hold for every input: the usual bound of a sum of d float32 products in any
order is ``d * 2^-24 / (1 - d * 2^-24)`` times the product of the two lengths; twice that is used.
Where float32 overflows, nothing is known, and the row is compared exactly.
"""

from __future__ import annotations

from typing import Final

import attrs
import numpy as np

from treestore.model.namespaces import Metric
from treestore.search.vectors import library
from treestore.search.vectors.library import Doubles, Floats, Ordinals
from treestore.search.vectors.rotation import Rotation

_BLOCK_NUMBERS: Final = 1 << 16
"""Numbers that are summed at a time: half a MiB of float64, which stays in the core's cache."""

_TINY: Final = 2.0**-126
"""Below this a float32 product may be rounded to zero."""


def squares(vectors: Floats) -> Doubles:
    """The squared length of each row of (n, d), as `Query` needs them; kept with the vectors."""
    found = np.empty(len(vectors), np.float64)
    step = _rows_per_block(vectors.shape[1])
    for start in range(0, len(vectors), step):
        terms = vectors[start : start + step].T.astype(np.float64, order="C")
        np.multiply(terms, terms, out=terms)
        found[start : start + step] = _sum_columns(terms)
    return found


def _rows_per_block(width: int) -> int:
    return max(1, _BLOCK_NUMBERS // width)


def _sum_columns(terms: Doubles) -> Doubles:
    """The sum of each column of (d, n), in the one order; ``terms`` is used up.

    The order depends on d alone: the last half (rounded down) of the rows is added to the first.
    """
    left = len(terms)
    while left > 1:
        half = left // 2
        np.add(terms[:half], terms[left - half : left], out=terms[:half])
        left -= half
    result: Doubles = terms[0]
    return result


@attrs.frozen(eq=False)
class Query:
    """One vector that others are compared with.

    Attributes:
        vector: float32, shape (d,), finite. (With ``cosine``, zeros are 1 from everything.)
        metric: what distance means; see `treestore.model.namespaces.VectorSchema`.
    """

    vector: Floats
    metric: Metric
    _doubles: Doubles = attrs.field(init=False, repr=False)
    square: float = attrs.field(init=False, repr=False)
    rotated: dict[Rotation, Floats] = attrs.field(factory=dict, init=False, repr=False)
    """Its direction as indexes see it, once one of them asked; by any thread."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_doubles", self.vector.astype(np.float64)[:, None])
        object.__setattr__(self, "square", float(squares(self.vector[None, :])[0]))

    @property
    def dim(self) -> int:
        """Numbers in the vector."""
        return len(self.vector)

    def exact(self, vectors: Floats, row_squares: Doubles) -> Doubles:
        """The distances from each row of (n, d), the same for the same row wherever it is.

        Args:
            vectors: the rows.
            row_squares: `squares` of them.
        """
        found = np.empty(len(vectors), np.float64)
        step = _rows_per_block(self.dim)
        for start in range(0, len(vectors), step):
            terms = vectors[start : start + step].T.astype(np.float64, order="C")
            if self.metric == "l2":
                np.subtract(terms, self._doubles, out=terms)
                np.multiply(terms, terms, out=terms)
            else:
                np.multiply(terms, self._doubles, out=terms)
            found[start : start + step] = _sum_columns(terms)
        if self.metric == "l2":
            return found
        if self.metric == "dot":
            # Not `-found`: a product of zero is a distance of 0, not of -0.
            return np.subtract(0.0, found)
        lengths = np.sqrt(row_squares * self.square)
        # A zero has no direction: 1 from everything, itself included.
        cosines = np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)
        np.subtract(1.0, cosines, out=found)
        return np.clip(found, 0.0, 2.0, out=found)

    def between(
        self, vectors: Floats, row_squares: Doubles, ordinals: Ordinals | None = None
    ) -> tuple[Doubles, Doubles]:
        """Of some rows, what their exact distances are not less than, and not more than.

        Args:
            vectors: all rows.
            row_squares: `squares` of all of them.
            ordinals: which rows to compare; None: all.
        """
        off = 2.0 * (self.dim + 8) * 2.0**-24
        lost = self.dim * _TINY
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            bound: Doubles | float
            if self.metric == "l2":
                found = self._rough_l2(vectors, ordinals)
                bound = found * off + lost
            else:
                lengths = np.sqrt(row_squares if ordinals is None else row_squares[ordinals])
                length = np.sqrt(self.square)
                found = self._rough_product(vectors, ordinals)
                if self.metric == "dot":
                    bound = lengths * (length * off) + lost
                    np.subtract(0.0, found, out=found)
                else:
                    # One bound for all, that of the shortest row, unless that one is extreme.
                    shortest = lengths.min() if len(lengths) else 1.0
                    bound = float(off + lost / (shortest * length) + 1e-15)
                    if not bound < 2 * off:
                        bound = off + lost / (lengths * length) + 1e-15
                    found /= lengths
                    found *= -1.0 / length
                    found += 1.0
            least, most = found - bound, found + bound
        known = np.isfinite(most)
        if not known.all():
            # In the middle of nowhere: neither left out nor a reason to leave others out.
            least[~known] = -np.inf
            most[~known] = np.inf
        return least, most

    def _rough_l2(self, vectors: Floats, ordinals: Ordinals | None) -> Doubles:
        if ordinals is None:
            return library.squared_distances(self.vector, vectors).astype(np.float64)
        return library.squared_distances_of(self.vector, vectors, ordinals).astype(np.float64)

    def _rough_product(self, vectors: Floats, ordinals: Ordinals | None) -> Doubles:
        if ordinals is None:
            return library.inner_products(self.vector, vectors).astype(np.float64)
        return library.inner_products_of(self.vector, vectors, ordinals).astype(np.float64)
