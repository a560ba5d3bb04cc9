"""The index of one segment: which rows may be among the nearest.

The vectors are divided into lists, each around a centroid (k-means). A search reads the lists whose
centroids are nearest to the query (probes), estimates the distance of each row in them from one bit
for each dimension (RaBitQ), and hands on those with the smallest estimates (candidates), whose
exact distances the caller computes. How many probes and candidates it takes follows from what was
measured when the index was built (`treestore.search.vectors.planning`).

Everything inside is the squared Euclidean distance in a space that is prepared for it:

* ``cosine``: vectors of length 1; their squared distance is twice the cosine distance.
* ``l2``: moved so that their mean is zero, and scaled so that float32 is enough for any input.
* ``dot``: scaled so that the longest has length 1, with one number more that makes all of them that
  long; the query has zero there. Then the nearest are those with the largest products.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from treestore.model.namespaces import Metric
from treestore.search.vectors import library
from treestore.search.vectors.distances import Query
from treestore.search.vectors.library import Doubles, Flags, Floats, Ordinals, faiss
from treestore.search.vectors.planning import FEW, Calibration, Costs, Effort
from treestore.search.vectors.rotation import Rotation, rotation_of

QUERY_BITS: Final = 4
"""Bits for each number of a query inside RaBitQ; 0 would be float32, which is slower."""

_LEAST_SQUARE: Final = float(np.finfo(np.float64).tiny)
"""Of a length that is divided by."""

_LIMIT: Final = np.float32(1e9)
"""Prepared numbers stay below this, so that no squared distance overflows."""


@attrs.frozen(eq=False)
class Space:
    """How vectors are prepared.

    Attributes:
        metric: of the vectors.
        dim: numbers in a vector as it is given.
        centre: taken from each vector; float32, shape (dim,), zeros but for ``l2``.
        scale: what each vector is then multiplied by; for ``cosine`` each has its own.
    """

    metric: Metric
    dim: int
    centre: Floats
    scale: float

    @property
    def rotation(self) -> Rotation:
        """What is applied to prepared vectors."""
        return rotation_of(self.dim + (self.metric == "dot"))

    def prepare(self, vectors: Floats, row_squares: Doubles) -> Floats:
        """Copies of rows, shape (n, dim), as the index sees them before they are rotated."""
        if self.metric == "cosine":
            lengths = np.sqrt(np.maximum(row_squares, _LEAST_SQUARE))
            # Divided in float64: the reciprocal of a tiny length is too large for float32.
            return (vectors / lengths[:, None]).astype(np.float32)
        if self.metric == "l2":
            with np.errstate(over="ignore"):
                moved = (vectors - self.centre) * np.float32(self.scale)
            return np.clip(moved, -_LIMIT, _LIMIT, out=moved)
        prepared = np.empty((len(vectors), self.dim + 1), np.float32)
        np.multiply(vectors, np.float32(self.scale), out=prepared[:, :-1])
        np.sqrt(np.maximum(1.0 - row_squares * self.scale**2, 0.0), out=prepared[:, -1])
        return prepared

    def prepare_query(self, query: Query) -> Floats:
        """The query likewise, rotated: shape (1, dimensions of the index)."""
        if self.metric == "l2":
            return self.rotation.apply(self.prepare(query.vector[None, :], np.zeros(1)))
        # The same for all segments.
        rotation = self.rotation
        known = query.rotated.get(rotation)
        if known is None:
            unit = np.zeros((1, rotation.dim_in), np.float32)
            unit[0, : self.dim] = query.vector / np.sqrt(max(query.square, _LEAST_SQUARE))
            query.rotated[rotation] = known = rotation.apply(unit)
        return known


@attrs.frozen(eq=False)
class Candidates:
    """What a search of an index found.

    Attributes:
        ordinals: of rows that may be among the nearest, ascending.
        by_estimate: the same, that with the smallest estimate first.
        probes: lists that were read.
        estimated: rows whose distance was estimated.
    """

    ordinals: Ordinals
    by_estimate: Ordinals
    probes: int
    estimated: int


@attrs.frozen(eq=False)
class Ranked:
    """The lists of an index as one query sees them.

    Attributes:
        prepared: the query; shape (1, dimensions of the index).
        far: squared distances of the centroids.
        every: how many rows each list has.
        sizes: how many of them count, at least about.
    """

    prepared: Floats
    far: Floats
    every: NDArray[np.int64]
    sizes: Doubles

    def share_around(self, lists: int) -> float:
        """The share of rows that count in the nearest lists.

        With a filter that has to do with the vectors it can be far from the share of all rows: the
        nearest of those that count are then as far away as with a stricter filter that has not.
        """
        chosen = self.nearest(lists)
        total = int(self.every[chosen].sum())
        return float(self.sizes[chosen].sum()) / total if total else 1.0

    def nearest(self, lists: int) -> Ordinals:
        """The nearest lists, in no order."""
        return self._nearest(self.far, lists)

    def choose(self, probes: int, least: int) -> tuple[Ordinals, int]:
        """The nearest lists with rows that count, and about how many such rows they have.

        Args:
            probes: how many lists, if they have enough rows.
            least: how many rows are enough.
        """
        far = np.where(self.sizes > 0, self.far, np.inf)
        probes_max = int(np.count_nonzero(self.sizes))
        probes = min(max(probes, 1), probes_max)
        while True:
            chosen = self._nearest(far, probes)
            total = round(float(self.sizes[chosen].sum()))
            if total >= least or probes == probes_max:
                return chosen, total
            probes = min(2 * probes, probes_max)

    @staticmethod
    def _nearest(far: Floats, lists: int) -> Ordinals:
        if lists >= len(far):
            return np.arange(len(far))
        return np.argpartition(far, lists)[:lists].astype(np.int64)


@attrs.frozen(eq=False)
class Ivf:
    """An index that does not change. Any number of threads may search it.

    Attributes:
        space: how vectors are prepared.
        lists: how many lists there are.
        rows: how many rows there are.
        order: the ordinals of the rows, list by list; uint32, shape (rows,).
        bounds: where in ``order`` each list begins, and the end; int64, shape (lists + 1,).
        calibration: what was measured; None only while it is being measured.
        index: faiss's.
    """

    space: Space
    order: NDArray[np.uint32]
    bounds: NDArray[np.int64]
    calibration: Calibration | None
    index: Any = attrs.field(repr=False)
    _owner: object = attrs.field(repr=False, default=None)
    """What the index points into."""

    @property
    def lists(self) -> int:
        """How many lists there are."""
        return len(self.bounds) - 1

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.order)

    @property
    def costs(self) -> Costs:
        """What searching this index takes."""
        bits = self.space.rotation.dim_out
        return Costs(dim=self.space.dim, bits=bits, rows=self.rows, lists=self.lists)

    def share_nearby(self, ranked: Ranked, allowed: Flags, lists: int, rows: int) -> float:
        """The share of rows that count among those that seem nearest, whether they count or not.

        `Ranked.share_around` counts whole lists. One in which most rows count can hold just those
        near ones that do not: the query's own cluster, say, that the filter leaves out.
        """
        chosen = ranked.nearest(lists)
        found = probe(self.index, ranked.prepared, chosen[None, :], min(rows, self.rows), None)[0]
        found = found[found >= 0]
        return float(np.count_nonzero(allowed[found])) / len(found) if len(found) else 1.0

    def rank(
        self, query: Query, allowed: Flags | None, count: int, *, counted: bool = False
    ) -> Ranked:
        """How far the lists are from a query, and how many rows that count are in them.

        Args:
            query: what to be near to.
            allowed: a flag for each row, whether it counts; None: all do.
            count: how many of them are set.
            counted: whether these rows are counted list by list also where they are not few.
        """
        prepared = self.space.prepare_query(query)
        far = library.squared_distances(prepared[0], self.centroids)
        every = np.diff(self.bounds)
        if allowed is not None and (counted or count < FEW * self.rows):
            return Ranked(prepared, far, every, self.count(allowed).astype(np.float64))
        return Ranked(prepared, far, every, every * (count / self.rows))

    def search(
        self,
        ranked: Ranked,
        effort: Effort,
        *,
        allowed: Flags | None = None,
        least: int = 1,
    ) -> Candidates:
        """The rows with the smallest estimated distances.

        Args:
            ranked: what `rank` returned for the query and these flags.
            effort: how many lists to read, and how many candidates to return. Where few rows are
                allowed, lists without any do not count.
            allowed: a flag for each row, whether it counts; None: all do.
            least: more lists are read where the first ones have fewer allowed rows than this.
        """
        chosen, estimated = ranked.choose(effort.probes, least)
        wanted = min(effort.candidates, self.rows)
        found = probe(self.index, ranked.prepared, chosen[None, :], wanted, allowed)[0]
        found = found[found >= 0]
        return Candidates(np.sort(found), found, len(chosen), estimated)

    def count(self, allowed: Flags) -> NDArray[np.int64]:
        """How many allowed rows each list has."""
        before = np.zeros(self.rows + 1, np.int64)
        np.cumsum(allowed[self.order], out=before[1:])
        return np.diff(before[self.bounds])

    @cached_property
    def centroids(self) -> Floats:
        """Rotated; shape (lists, dimensions of the index). They live as long as the index."""
        quantizer = faiss.downcast_index(self.index.quantizer)
        size = self.lists * self.index.d
        flat: Floats = faiss.rev_swig_ptr(quantizer.get_xb(), size)
        return flat.reshape(self.lists, self.index.d)


def probe(
    index: Any, prepared: Floats, lists: Ordinals, count: int, allowed: Flags | None
) -> Ordinals:
    """The ``count`` rows with the smallest estimates in the given lists, for each query.

    Args:
        index: faiss's.
        prepared: queries, shape (n, d).
        lists: for each query, shape (n, probes).
        count: how many.
        allowed: which rows count; None: all.

    Returns:
        Ordinals, shape (n, count); -1 where there were not as many.
    """
    queries, probes = lists.shape
    parameters = faiss.IVFRaBitQSearchParameters()
    parameters.nprobe = probes
    parameters.qb = QUERY_BITS
    bits = None if allowed is None else np.packbits(allowed, bitorder="little")
    selector = None
    if bits is not None:
        selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        parameters.sel = selector
    estimates = np.empty((queries, count), np.float32)
    found = np.empty((queries, count), np.int64)
    unused = np.zeros((queries, probes), np.float32)
    lists = np.ascontiguousarray(lists, np.int64)
    index.search_preassigned_c(
        queries,
        faiss.swig_ptr(prepared),
        count,
        faiss.swig_ptr(lists),
        faiss.swig_ptr(unused),
        faiss.swig_ptr(estimates),
        faiss.swig_ptr(found),
        False,
        parameters,
    )
    del selector, bits  # the library read them until here
    return found
