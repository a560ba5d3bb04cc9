"""Distances: good, bounded, and the same wherever two vectors meet."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.search.vectors.examples import METRICS, Floats, clouds, true_distance
from treestore.model.namespaces import Metric
from treestore.search.vectors.distances import Query, squares
from treestore.search.vectors.nearest import nearest
from treestore.search.vectors.tail import Tail

MODERATE = st.floats(-1000, 1000, width=32).filter(lambda x: x == 0 or abs(x) > 1e-15)
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw: st.DrawFn, numbers: st.SearchStrategy[float] = MODERATE) -> Floats:
    """Some rows of one width; the first one is the query."""
    shape = draw(st.tuples(st.integers(2, 12), st.integers(1, 40)))
    found: Floats = draw(hnp.arrays(np.float32, shape, elements=numbers))
    assume(bool((np.abs(found).max(axis=1) > 0).all()))
    return found


@given(tables(), st.sampled_from(METRICS), st.data())
def test_a_distance_depends_on_the_two_vectors_alone(
    table: Floats, metric: Metric, data: st.DataObject
) -> None:
    query, rows = Query(table[0], metric), table[1:]
    together = query.exact(rows, squares(rows))
    for number, row in enumerate(rows):
        alone = np.ascontiguousarray(row[None, :])
        assert query.exact(alone, squares(alone))[0] == together[number]
        # The other way round.
        there = Query(row, metric).exact(table[:1], squares(table[:1]))
        assert there[0] == together[number]
    # In another order, among others, and at another place in memory.
    order = data.draw(st.permutations(range(len(rows))))
    moved = np.empty((len(rows) + 3, rows.shape[1] + 1), np.float32)[3:, 1:]
    moved[:] = rows[order]
    assert (query.exact(moved, squares(moved)) == together[order]).all()
    many = np.tile(rows, (1 + 5000 // len(rows), 1))
    every = query.exact(many, squares(many)).reshape(-1, len(rows))
    assert (every == together).all()


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 128, 768, 769, 4096])
@pytest.mark.parametrize("metric", METRICS)
def test_batches_of_every_size_agree(metric: Metric, dim: int) -> None:
    vectors = clouds(300, dim, seed=dim)
    query = Query(clouds(1, dim, seed=dim + 1)[0], metric)
    row_squares = squares(vectors)
    together = query.exact(vectors, row_squares)
    for size in (1, 2, 3, 17, 64, 255):
        for start in range(0, 300 - size, 40):
            part = slice(start, start + size)
            assert (squares(vectors[part].copy()) == row_squares[part]).all()
            found = query.exact(vectors[part].copy(), row_squares[part])
            assert (found == together[part]).all()


@given(tables(), st.sampled_from(METRICS))
def test_distances_are_right(table: Floats, metric: Metric) -> None:
    found = Query(table[0], metric).exact(table[1:], squares(table[1:]))
    for row, distance in zip(table[1:].tolist(), found.tolist(), strict=True):
        terms = [abs(x * y) + x * x + y * y for x, y in zip(table[0].tolist(), row, strict=True)]
        slack = 1e-13 * (1 if metric == "cosine" else math.fsum(terms))
        truth = true_distance(metric, table[0].tolist(), row)
        assert distance == pytest.approx(truth, abs=slack)


@given(tables(), st.sampled_from(("cosine", "l2")))
def test_nothing_is_nearer_than_itself(table: Floats, metric: Metric) -> None:
    found = Query(table[0], metric).exact(table, squares(table))
    assert found[0] == 0
    assert (found >= 0).all()
    if metric == "cosine":
        assert (found <= 2).all()


@given(tables(), st.sampled_from(METRICS))
def test_a_distance_is_never_minus_zero(table: Floats, metric: Metric) -> None:
    # It would be equal to zero, yet other bytes in an answer.
    found = Query(table[0], metric).exact(table, squares(table))
    assert not (np.signbit(found) & (found == 0)).any()


@settings(max_examples=300)
@given(tables(ANY), st.sampled_from(METRICS), st.booleans())
def test_distances_are_between_their_bounds(table: Floats, metric: Metric, some: bool) -> None:
    query, rows = Query(table[0], metric), table[1:]
    chosen = np.arange(0, len(rows), 2) if some else None
    least, most = query.between(rows, squares(rows), chosen)
    exact = query.exact(rows, squares(rows))
    exact = exact if chosen is None else exact[chosen]
    assert (least <= exact).all()
    assert (exact <= most).all()


@pytest.mark.parametrize("metric", METRICS)
def test_bounds_exclude_nearly_everything(metric: Metric) -> None:
    tail = Tail(256)
    tail.append(np.arange(5000), clouds(5000, 256, seed=1))
    found = nearest(tail.view(), Query(clouds(1, 256, seed=2)[0], metric), 10)
    assert found.compared == 5000
    assert 10 <= found.compared_exactly <= 20
