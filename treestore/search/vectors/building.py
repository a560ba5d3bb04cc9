"""Building the index of a segment, in steps, and measuring what it finds.

The same vectors and the same seed make the same index, on one kind of processor. Whoever builds
gives a function that is called between the steps: it may wait, report, or end the building by
raising. No step holds the interpreter; they take up to about a second each at a million rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from treestore.model.namespaces import Metric
from treestore.search.vectors.ivf import Ivf, Space, probe
from treestore.search.vectors.library import Doubles, Flags, Floats, Ordinals, faiss
from treestore.search.vectors.planning import MEASURED_K, SHARES, Calibration

INDEXED_ROWS_MIN: Final = 2000
"""With fewer rows, comparing all of them exactly is as fast."""

_ITERATIONS: Final = 6
_SAMPLED_PER_LIST: Final = 40
_LISTS_PER_ROOT: Final = 2.0
_STEP_ROWS: Final = 8192

_QUERIES_MAX: Final = 128
_QUERIES_MIN: Final = 64
_QUERY_ROWS: Final = 16_000_000
"""Queries times rows, roughly what measuring costs."""
_SMALL_ROWS: Final = 30_000
_QUERIES_PER_STEP: Final = 8
_ESTIMATES: Final = 4096
"""The best estimates that are looked at. With very few probes some behind them would count too."""
_MEASURED_ROWS_MIN: Final = 2000
"""Shares that leave fewer rows than this are not measured: they are compared exactly."""
_CANDIDATES: Final = (20, 40, 70, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
_LISTS_PROBED_MIN: Final = 4

Pause = Callable[[], None]


def build_index(
    vectors: Floats, row_squares: Doubles, metric: Metric, *, seed: int, pause: Pause
) -> Ivf:
    """An index of all rows of (n, d).

    Args:
        vectors: finite; with ``cosine`` no zeros. They may be mapped from a file: they are read in
            order, twice.
        row_squares: their squared lengths.
        metric: what distance means.
        seed: of the samples that are drawn.
        pause: called between the steps.
    """
    random = np.random.default_rng(seed)
    space = _space_of(vectors, row_squares, metric, random)
    lists = max(1, min(round(_LISTS_PER_ROOT * len(vectors) ** 0.5), len(vectors) // 8))
    centroids = _train(space, vectors, row_squares, lists, random, pause)
    index = _empty_index(space, centroids)
    assigned = _fill(index, space, centroids, vectors, row_squares, pause)
    order = np.argsort(assigned, kind="stable").astype(np.uint32)
    bounds = np.concatenate([[0], np.cumsum(np.bincount(assigned, minlength=lists))])
    built = Ivf(space, order, bounds.astype(np.int64), None, index)
    return Ivf(
        *(space, order, built.bounds),
        measure(built, vectors, row_squares, random, pause),
        index,
    )


def _space_of(
    vectors: Floats, row_squares: Doubles, metric: Metric, random: np.random.Generator
) -> Space:
    dim = vectors.shape[1]
    zeros = np.zeros(dim, np.float32)
    if metric == "cosine":
        return Space(metric, dim, zeros, 1.0)
    if metric == "dot":
        longest = float(np.sqrt(row_squares.max()))
        return Space(metric, dim, zeros, 1.0 / longest if longest else 1.0)
    # Medians, so that a few outliers do not make all others one point.
    some = vectors[_sample(len(vectors), 4096, random)].astype(np.float64)
    centre = some.mean(axis=0)
    spread = float(np.median(np.sqrt(((some - centre) ** 2).sum(axis=1))))
    return Space(metric, dim, centre.astype(np.float32), 1.0 / spread if spread else 1.0)


def _sample(rows: int, count: int, random: np.random.Generator) -> Ordinals:
    """Ordinals, ascending: about as many as asked for, one from each stretch of the rows. (Drawing
    without replacement from a million holds the interpreter for too long.)"""
    if count >= rows:
        return np.arange(rows, dtype=np.int64)
    stretches = (np.arange(count) + random.random(count)) * (rows / count)
    drawn = np.minimum(stretches.astype(np.int64), rows - 1)
    return drawn[np.diff(drawn, prepend=-1) > 0]


def _train(
    space: Space,
    vectors: Floats,
    row_squares: Doubles,
    lists: int,
    random: np.random.Generator,
    pause: Pause,
) -> Floats:
    """The centroids, shape (lists, d), in the prepared space, not rotated."""
    pieces = []
    chosen = _sample(len(vectors), _SAMPLED_PER_LIST * lists, random)
    for start in range(0, len(chosen), _STEP_ROWS):
        some = chosen[start : start + _STEP_ROWS]
        pieces.append(space.prepare(vectors[some], row_squares[some]))
        pause()
    sample = np.concatenate(pieces)
    dim = sample.shape[1]
    clustering = faiss.Clustering(dim, lists)
    clustering.seed = int(random.integers(1 << 31))
    clustering.niter = 1
    clustering.min_points_per_centroid = 1  # it would write a warning to the terminal
    clustering.max_points_per_centroid = len(sample)
    for _ in range(_ITERATIONS):
        # It goes on from the centroids that it has.
        clustering.train(sample, faiss.IndexFlatL2(dim))
        pause()
    found: Floats = faiss.vector_to_array(clustering.centroids).reshape(lists, dim)
    return found


def _empty_index(space: Space, centroids: Floats) -> Any:
    rotated = space.rotation.apply(centroids)
    lists, dim = rotated.shape
    quantizer = faiss.IndexFlatL2(dim)
    quantizer.add(rotated)
    index = faiss.IndexIVFRaBitQ(quantizer, dim, lists, faiss.METRIC_L2, True, 1)
    quantizer.this.disown()
    index.own_fields = True
    index.is_trained = True
    return index


def _fill(
    index: Any,
    space: Space,
    centroids: Floats,
    vectors: Floats,
    row_squares: Doubles,
    pause: Pause,
) -> NDArray[np.int32]:
    """Add all rows; the list of each."""
    nearest = faiss.IndexFlatL2(centroids.shape[1])
    nearest.add(centroids)
    assigned = np.empty(len(vectors), np.int32)
    for start in range(0, len(vectors), _STEP_ROWS):
        part = slice(start, min(start + _STEP_ROWS, len(vectors)))
        prepared = space.prepare(vectors[part], row_squares[part])
        lists = nearest.assign(prepared, 1)[:, 0]
        pause()
        rotated = space.rotation.apply(prepared)
        ordinals = np.arange(part.start, part.stop, dtype=np.int64)
        lists = np.ascontiguousarray(lists, np.int64)
        index.add_core(
            len(ordinals),
            faiss.swig_ptr(rotated),
            faiss.swig_ptr(ordinals),
            faiss.swig_ptr(lists),
        )
        assigned[part] = lists
        pause()
    return assigned


# -- measuring ----------------------------------------------------------------------------------


def measure(
    index: Ivf,
    vectors: Floats,
    row_squares: Doubles,
    random: np.random.Generator,
    pause: Pause,
) -> Calibration:
    """Search for some of the index's own rows, with fewer and fewer rows allowed (chosen at
    random), and compare with exact answers.

    One search of all lists tells what any number of probes finds: the estimates do not depend on
    it, so what fewer probes find is what of it lies in their lists.
    """
    rows = len(vectors)
    queries_max = int(np.clip(_QUERY_ROWS // rows, _QUERIES_MIN, _QUERIES_MAX))
    chosen = _sample(rows, queries_max if rows > _SMALL_ROWS else _QUERIES_MIN, random)
    shares = tuple(s for s in SHARES if s == 1.0 or s * rows >= _MEASURED_ROWS_MIN)
    luck = random.random(rows, np.float32)
    queries = _queries(index.space, vectors[chosen], row_squares[chosen])
    truth = _truth(index.space, vectors, row_squares, chosen, luck, shares, pause)
    probes = tuple(_growing_probes(index.lists))
    candidates = tuple(c for c in _CANDIDATES if c < rows) or (rows,)
    list_of = np.empty(rows, np.int32)
    list_of[index.order] = np.repeat(np.arange(index.lists, dtype=np.int32), np.diff(index.bounds))
    recall = np.zeros((len(shares), len(probes), len(candidates)), np.float32)
    ranks = _list_ranks(index, queries)
    for level, share in enumerate(shares):
        allowed = None if share == 1.0 else luck < share
        found = _probe_in_steps(index, queries, min(rows, _ESTIMATES), allowed, pause)
        places = np.stack(
            [
                _places(found[q], truth[level][q], ranks[q], list_of, probes)
                for q in range(len(queries))
            ]
        )
        pause()
        known = max(1, np.count_nonzero(truth[level] >= 0))
        for column, count in enumerate(candidates):
            recall[level, :, column] = (places < count).sum(axis=(0, 2)) / known
    return Calibration(shares, probes, candidates, recall, index.lists, rows)


def _growing_probes(lists: int) -> Iterator[int]:
    count = min(_LISTS_PROBED_MIN, lists)
    while count < lists:
        yield count
        count = max(count + 1, round(count * 1.5))
    yield lists


def _queries(space: Space, vectors: Floats, row_squares: Doubles) -> Floats:
    """Rows as queries: shape (n, dimensions of the index)."""
    prepared = space.prepare(vectors, row_squares)
    if space.metric == "dot":
        prepared[:, -1] = 0
        prepared /= np.sqrt((prepared**2).sum(axis=1, keepdims=True)) + np.float32(1e-30)
    return space.rotation.apply(prepared)


def _truth(
    space: Space,
    vectors: Floats,
    row_squares: Doubles,
    chosen: Ordinals,
    luck: Floats,
    shares: tuple[float, ...],
    pause: Pause,
) -> list[Ordinals]:
    """For each share, the `MEASURED_K` nearest of the allowed rows but the query's own; shape
    (queries, k), -1 where there are not as many."""
    queries = space.prepare(vectors[chosen], row_squares[chosen])
    if space.metric == "dot":
        queries[:, -1] = 0
    best = [
        (np.full((len(chosen), 0), np.inf, np.float32), np.full((len(chosen), 0), -1))
        for _ in shares
    ]
    for start in range(0, len(vectors), _STEP_ROWS):
        part = slice(start, min(start + _STEP_ROWS, len(vectors)))
        prepared = space.prepare(vectors[part], row_squares[part])
        far: Floats = faiss.pairwise_distances(queries, prepared)
        ordinals = np.arange(part.start, part.stop)
        own = (chosen >= part.start) & (chosen < part.stop)
        far[np.flatnonzero(own), chosen[own] - part.start] = np.inf
        pause()
        for level, share in enumerate(shares):
            here = np.flatnonzero(luck[part] < share) if share < 1.0 else slice(None)
            best[level] = _keep_best(*best[level], far[:, here], ordinals[here])
        pause()
    return [found for _, found in best]


def _keep_best(
    best: Floats, found: Ordinals, far: Floats, ordinals: Ordinals
) -> tuple[Floats, Ordinals]:
    every = np.concatenate([best, far], axis=1)
    names = np.concatenate([found, np.broadcast_to(ordinals, far.shape)], axis=1)
    if every.shape[1] > MEASURED_K:
        nearest = np.argpartition(every, MEASURED_K - 1, axis=1)[:, :MEASURED_K]
        every = np.take_along_axis(every, nearest, axis=1)
        names = np.take_along_axis(names, nearest, axis=1)
    return every, names


def _list_ranks(index: Ivf, queries: Floats) -> NDArray[np.int32]:
    """For each query, which place each list has by the distance of its centroid."""
    far = faiss.pairwise_distances(queries, index.centroids)
    ranked = np.argsort(far, axis=1)
    ranks = np.empty(ranked.shape, np.int32)
    np.put_along_axis(ranks, ranked, np.arange(index.lists, dtype=np.int32)[None, :], axis=1)
    return ranks


def _probe_in_steps(
    index: Ivf, queries: Floats, count: int, allowed: Flags | None, pause: Pause
) -> Ordinals:
    """The best estimates of all lists, for each query."""
    lists = np.broadcast_to(np.arange(index.lists), (len(queries), index.lists))
    pieces = []
    for start in range(0, len(queries), _QUERIES_PER_STEP):
        part = slice(start, start + _QUERIES_PER_STEP)
        pieces.append(probe(index.index, queries[part], lists[part], count, allowed))
        pause()
    return np.concatenate(pieces)


def _places(
    found: Ordinals,
    truth: Ordinals,
    ranks: NDArray[np.int32],
    list_of: NDArray[np.int32],
    probes: tuple[int, ...],
) -> Ordinals:
    """At which place each of the truth would be found with so many probes; far behind where it
    would not. Shape (probes, truth)."""
    found = found[found >= 0]
    rank = ranks[list_of[found]]
    where = np.argsort(found, kind="stable")
    at = np.minimum(np.searchsorted(found, truth, sorter=where), len(where) - 1)
    spot = where[at]
    hit = found[spot] == truth
    places = np.full((len(probes), len(truth)), np.iinfo(np.int64).max)
    for row, count in enumerate(probes):
        inside = rank < count
        before: Ordinals = np.cumsum(inside) - inside
        reached = hit & inside[spot]
        places[row, reached] = before[spot[reached]]
    return places
