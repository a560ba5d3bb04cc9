"""The exact k nearest, in tails: against sorting everything."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.vectors.examples import METRICS, clouds
from treestore.model.namespaces import Metric
from treestore.search.vectors import nearest as nearest_module
from treestore.search.vectors import tail as tail_module
from treestore.search.vectors.distances import Query, squares
from treestore.search.vectors.nearest import nearest
from treestore.search.vectors.tail import Tail


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks and steps with few rows."""
    monkeypatch.setattr(nearest_module, "_STEP_ROWS", 16)
    monkeypatch.setattr(nearest_module, "_EXACT_ROWS", 8)
    monkeypatch.setattr(tail_module, "_FIRST_ROWS", 4)
    monkeypatch.setattr(tail_module, "_BLOCK_BYTES_MAX", 400)


@given(
    count=st.integers(1, 90),
    k=st.integers(1, 30),
    metric=st.sampled_from(METRICS),
    kinds=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 1000),
    by_ordinals=st.booleans(),
)
def test_the_nearest_and_all_that_are_as_near(
    count: int, k: int, metric: Metric, kinds: int, share: float, seed: int, by_ordinals: bool
) -> None:
    random = np.random.default_rng(seed)
    # Few different vectors, so that many are equally far.
    vectors = clouds(kinds, 5, seed=seed)[random.integers(0, kinds, count)]
    tail = Tail(5)
    for start in range(0, count, 7):
        tail.append(np.arange(start, min(start + 7, count)), vectors[start : start + 7])
    allowed = None if share == 1.0 else random.random(count) < share
    candidates = np.flatnonzero(random.random(count) < 0.5) if by_ordinals else None
    query = Query(clouds(1, 5, seed=seed + 1)[0], metric)

    found = nearest(tail.view(), query, k, allowed=allowed, candidates=candidates)

    distances = query.exact(vectors, squares(vectors))
    counting = np.ones(count, bool) if allowed is None else allowed.copy()
    if candidates is not None:
        counting &= np.isin(np.arange(count), candidates)
    rows = sorted((distances[i], i) for i in np.flatnonzero(counting).tolist())
    wanted = [row for row in rows if row[0] <= rows[min(k, len(rows)) - 1][0]]
    assert list(zip(found.distances.tolist(), found.ordinals.tolist(), strict=True)) == wanted


def test_what_overflows_is_compared_exactly() -> None:
    # In float32 all of these are infinitely far from each other.
    vectors = np.array([[3e38, 0], [3e38, 1e38], [-3e38, 0], [1, 1]], np.float32)
    tail = Tail(2)
    tail.append(np.arange(4), vectors)
    query = Query(np.array([3e38, 2e38], np.float32), "l2")
    assert nearest(tail.view(), query, 3).ordinals.tolist() == [1, 0, 3]
    query = Query(np.array([3e38, 2e38], np.float32), "dot")
    assert nearest(tail.view(), query, 2).ordinals.tolist() == [1, 0]


def test_a_zero_has_no_direction() -> None:
    vectors = np.array([[0, 0], [1, 0], [-1, 0], [0, 0], [0, 1]], np.float32)
    tail = Tail(2)
    tail.append(np.arange(5), vectors)
    found = nearest(tail.view(), Query(np.array([1, 0], np.float32), "cosine"), 5)
    assert found.ordinals.tolist() == [1, 0, 3, 4, 2]
    assert found.distances.tolist() == [0, 1, 1, 1, 2]
    found = nearest(tail.view(), Query(np.zeros(2, np.float32), "cosine"), 2)
    assert found.distances.tolist() == [1] * 5


def test_a_view_does_not_see_what_is_appended_later() -> None:
    vectors = clouds(100, 5, seed=1)
    tail = Tail(5)
    assert tail.append(np.arange(30), vectors[:30]) == 0
    view = tail.view()
    assert tail.append(np.arange(30, 100), vectors[30:]) == 30
    assert len(view) == 30
    assert (view.vectors() == vectors[:30]).all()
    assert view.rows.tolist() == list(range(30))
    assert (view.vector(29) == vectors[29]).all()
    with pytest.raises(IndexError):
        view.vector(30)
    assert (tail.view().vectors() == vectors).all()
    assert tail.memory_bytes >= vectors.nbytes


def test_a_view_cannot_be_written_to() -> None:
    tail = Tail(2)
    tail.append(np.arange(1), np.ones((1, 2), np.float32))
    with pytest.raises(ValueError):
        tail.view().vector(0)[0] = 5


def test_vectors_of_another_length_are_refused() -> None:
    tail = Tail(3)
    with pytest.raises(ValueError):
        tail.append(np.arange(2), np.ones((2, 4), np.float32))
    with pytest.raises(ValueError):
        tail.append(np.arange(1), np.ones((2, 3), np.float32))
    assert len(tail) == 0


def test_what_is_left_of_a_tail() -> None:
    vectors = clouds(50, 5, seed=1)
    tail = Tail(5)
    tail.append(np.arange(100, 150), vectors)
    view = tail.view()
    keep = np.arange(50) % 3 == 0
    left = tail.kept(keep)
    assert left.view().rows.tolist() == [100 + i for i in range(0, 50, 3)]
    assert (left.view().vectors() == vectors[::3]).all()
    assert (view.vectors() == vectors).all()
    with pytest.raises(ValueError):
        tail.kept(keep[:-1])


def test_readers_beside_a_writer() -> None:
    vectors = clouds(4000, 5, seed=1)
    query = Query(vectors[0], "l2")
    tail = Tail(5)
    tail.append(np.arange(1), vectors[:1])
    failures: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            view = tail.view()
            found = nearest(view, query, 1)
            if found.ordinals.tolist() != [0] or found.distances.tolist() != [0.0]:
                failures.append(f"{found}")
            if not (view.vectors() == vectors[: len(view)]).all():
                failures.append(f"a view of {len(view)} rows")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(1, 4000, 9):
        tail.append(np.arange(start, min(start + 9, 4000)), vectors[start : start + 9])
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert len(tail) == 4000
