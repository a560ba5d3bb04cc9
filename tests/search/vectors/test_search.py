"""Searches over segments and a tail: exact ones against sorting, others against exact ones."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.search.vectors.examples import METRICS, Floats, clouds, make_segment
from treestore.model.namespaces import Metric
from treestore.search.vectors.distances import Query, squares
from treestore.search.vectors.ivf import Ivf
from treestore.search.vectors.planning import Costs
from treestore.search.vectors.search import Answer, Part, search
from treestore.search.vectors.segment import Segment
from treestore.search.vectors.tail import Tail

ROWS = 12_000
DIM = 32


def by_position(_part: int, positions: object) -> Sequence[int]:
    return np.asarray(positions).tolist()


@pytest.fixture(scope="module", params=METRICS)
def metric(request: pytest.FixtureRequest) -> Metric:
    found: Metric = request.param
    return found


@pytest.fixture(scope="module")
def segment(metric: Metric, tmp_path_factory: pytest.TempPathFactory) -> Segment:
    vectors = clouds(ROWS, DIM, seed=1)
    return make_segment(tmp_path_factory.mktemp("segment"), vectors, metric)


@pytest.fixture
def indexes_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments would be compared exactly otherwise, which is right and tests nothing."""
    monkeypatch.setattr(Costs, "comparing", lambda _self, rows: 10.0 * rows)


def recall(answers: Sequence[Answer], truths: Sequence[Answer]) -> float:
    hits = wanted = 0
    for answer, truth in zip(answers, truths, strict=True):
        found = {(hit.part, hit.position): hit.distance for hit in answer.hits}
        for hit in truth.hits:
            wanted += 1
            if (hit.part, hit.position) in found:
                hits += 1
                # The same float, whichever way the row was found.
                assert found[hit.part, hit.position] == hit.distance
    return hits / wanted


# -- exact searches -----------------------------------------------------------------------------


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    kinds=st.integers(1, 60),
    k=st.integers(1, 50),
    share=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 10_000),
)
def test_an_exact_answer_does_not_depend_on_the_parts(
    tmp_path: Path,
    sizes: list[int],
    kinds: int,
    k: int,
    share: float,
    metric: Metric,
    seed: int,
) -> None:
    """The same rows in a tail, in segments and a tail, and all in one segment (as after a
    compaction): the same rows, the same distances to the last bit, in the same order."""
    random = np.random.default_rng(seed)
    count = sum(sizes)
    vectors = clouds(kinds, 6, seed=seed)[random.integers(0, kinds, count)]
    # What rows are ordered by where they are equally far: not by where they lie.
    keys = [b"%d" % key for key in random.permutation(count).tolist()]
    counting = random.random(count) < share
    query = Query(clouds(1, 6, seed=seed + 1)[0], metric)

    def answer(bounds: Sequence[int]) -> list[tuple[float, bytes]]:
        parts = []
        starts = [0, *bounds]
        for number, (start, end) in enumerate(zip(starts, [*bounds, count], strict=True)):
            source: Segment | None = None
            if number < len(bounds):
                source = make_segment(tmp_path, vectors[start:end], metric, number=number)
            tail = Tail(6)
            tail.append(np.arange(start, end), vectors[start:end])
            parts.append(Part(source or tail.view(), counting[start:end]))
        found = search(
            parts,
            query,
            k,
            exact=True,
            ties=lambda place, at: [keys[starts[place] + i] for i in at.tolist()],
        )
        return [(hit.distance, keys[starts[hit.part] + hit.position]) for hit in found.hits]

    distances = query.exact(vectors, squares(vectors)).tolist()
    wanted = sorted(zip(distances, keys, strict=True))
    wanted = [row for row in wanted if counting[keys.index(row[1])]][:k]
    assert answer([]) == wanted
    assert answer(np.cumsum(sizes[:-1]).tolist()) == wanted
    assert answer([count]) == wanted


def test_many_rows_that_are_equally_far() -> None:
    tail = Tail(3)
    tail.append(np.arange(5000), np.ones((5000, 3), np.float32))
    found = search(
        [Part(tail.view()), Part(tail.view())],
        Query(np.ones(3, np.float32), "l2"),
        7,
        ties=lambda place, at: [-(10_000 * place + i) for i in at.tolist()],
    )
    assert [(hit.part, hit.position) for hit in found.hits] == [(1, 4999 - i) for i in range(7)]


def test_flags_for_another_number_of_rows() -> None:
    tail = Tail(3)
    tail.append(np.arange(4), np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match="4 rows"):
        search(
            [Part(tail.view(), np.ones(5, bool))],
            Query(np.ones(3, np.float32), "l2"),
            1,
            ties=by_position,
        )


def test_a_search_can_be_given_up() -> None:
    tail = Tail(3)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        search(
            [Part(tail.view())],
            Query(np.ones(3, np.float32), "l2"),
            1,
            ties=by_position,
            pause=stop,
        )


# -- searches of an index -----------------------------------------------------------------------


def answers(
    segment: Segment, metric: Metric, queries: Floats, allowed: object, k: int, *, exact: bool
) -> list[Answer]:
    part = Part(segment, allowed)  # type: ignore[arg-type]
    return [search([part], Query(q, metric), k, ties=by_position, exact=exact) for q in queries]


@pytest.mark.usefixtures("indexes_are_cheap")
@pytest.mark.parametrize(("share", "k"), [(1.0, 10), (0.9, 10), (0.4, 10), (0.2, 10), (1.0, 30)])
def test_enough_is_found(segment: Segment, metric: Metric, share: float, k: int) -> None:
    random = np.random.default_rng(5)
    allowed = None if share == 1.0 else random.random(ROWS) < share
    queries = clouds(ROWS + 100, DIM, seed=1)[-100:]
    found = answers(segment, metric, queries, allowed, k, exact=False)
    truth = answers(segment, metric, queries, allowed, k, exact=True)
    ways = {answer.parts[0].way for answer in found}
    # Beyond what was measured, everything that counts is compared.
    assert ways == ({"index"} if share * 10 / k >= 0.3 else {"exact"})
    assert recall(found, truth) >= 0.95
    report = found[0].parts[0]
    if allowed is not None:
        assert report.allowed == np.count_nonzero(allowed)
        assert all(allowed[hit.position] for answer in found for hit in answer.hits)
    if report.way == "index":
        assert report.recall >= 0.95
        assert 0 < report.probes <= report.lists
        assert report.compared <= report.estimated


@pytest.mark.usefixtures("indexes_are_cheap")
def test_a_filter_that_goes_with_the_vectors(segment: Segment, metric: Metric) -> None:
    """Allowed are the rows of some clusters only, and most queries come from others."""
    random = np.random.default_rng(1)
    random.normal(size=(50, DIM))
    allowed = random.integers(0, 50, ROWS) % 5 < 2
    queries = clouds(ROWS + 100, DIM, seed=1)[-100:]
    found = answers(segment, metric, queries, allowed, 10, exact=False)
    truth = answers(segment, metric, queries, allowed, 10, exact=True)
    assert {answer.parts[0].way for answer in found} == {"index"}
    assert recall(found, truth) >= 0.95


@pytest.mark.usefixtures("indexes_are_cheap")
@pytest.mark.parametrize("out", [100, 300])
def test_a_filter_that_leaves_out_what_is_near(segment: Segment, metric: Metric, out: int) -> None:
    """Nearly all rows count, but those around the query do not."""
    found: list[Answer] = []
    truth: list[Answer] = []
    for query in clouds(ROWS + 60, DIM, seed=1)[-60:]:
        distances = Query(query, metric).exact(segment.vectors, segment.squares)
        allowed = np.ones(ROWS, bool)
        allowed[np.argsort(distances)[:out]] = False
        found += answers(segment, metric, query[None, :], allowed, 10, exact=False)
        truth += answers(segment, metric, query[None, :], allowed, 10, exact=True)
    assert "index" in {answer.parts[0].way for answer in found}
    assert recall(found, truth) >= 0.95


@pytest.mark.usefixtures("indexes_are_cheap")
def test_never_fewer_than_there_are(segment: Segment, metric: Metric) -> None:
    """With one list and few candidates to begin with, and allowed rows that are far away."""
    assert segment.index is not None
    calibration = segment.index.calibration
    assert calibration is not None
    optimist = attrs.evolve(
        calibration,
        shares=(1.0, 1e-9),
        probes=(1, segment.index.lists),
        candidates=(20, 40),
        recall=np.ones((2, 2, 2), np.float32),
    )
    index = attrs.evolve(segment.index, calibration=optimist)
    blind = attrs.evolve(segment, index=index)
    query = clouds(1, DIM, seed=3)[0]
    far = np.argsort(Query(query, metric).exact(segment.vectors, segment.squares))[-3000:]
    for count, k in ((3000, 10), (3000, 100), (60, 20), (60, 59), (60, 60), (60, 100)):
        allowed = np.zeros(ROWS, bool)
        allowed[far[-count:]] = True
        (found,) = answers(blind, metric, query[None, :], allowed, k, exact=False)
        assert len(found.hits) == min(k, count)
        assert all(allowed[hit.position] for hit in found.hits)


@pytest.mark.usefixtures("indexes_are_cheap")
def test_an_index_that_lost_rows(segment: Segment, metric: Metric) -> None:
    """It cannot happen; if it did, the answer would be slow, not short."""
    assert segment.index is not None

    @attrs.frozen(eq=False)
    class Forgetful(Ivf):
        def search(self, *args: object, **options: object):
            found = super().search(*args, **options)  # type: ignore[arg-type]
            return attrs.evolve(found, ordinals=found.ordinals[:3])

    fields = attrs.asdict(segment.index, recurse=False)
    index = Forgetful(**{name.lstrip("_"): value for name, value in fields.items()})
    broken = attrs.evolve(segment, index=index)
    queries = clouds(3, DIM, seed=3)
    found = answers(broken, metric, queries, None, 10, exact=False)
    assert [a.hits for a in found] == [
        a.hits for a in answers(segment, metric, queries, None, 10, exact=True)
    ]
    assert {a.parts[0].way for a in found} == {"exact"}


def test_few_rows_are_compared(segment: Segment, metric: Metric) -> None:
    allowed = np.arange(ROWS) % 100 == 0
    (found,) = answers(segment, metric, clouds(1, DIM, seed=3), allowed, 10, exact=False)
    report = found.parts[0]
    assert (report.way, report.compared, report.allowed) == ("exact", 120, 120)
    (nothing,) = answers(
        segment, metric, clouds(1, DIM, seed=3), np.zeros(ROWS, bool), 10, exact=False
    )
    assert (nothing.hits, nothing.parts[0].way) == ((), "none")


@pytest.mark.usefixtures("indexes_are_cheap")
def test_many_threads_find_what_one_finds(segment: Segment, metric: Metric) -> None:
    queries = clouds(64, DIM, seed=9)
    allowed = np.arange(ROWS) % 3 != 0
    alone = answers(segment, metric, queries, allowed, 10, exact=False)
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(
                lambda q: answers(segment, metric, q[None, :], allowed, 10, exact=False)[0],
                list(queries) * 4,
            )
        )
    assert together == alone * 4


# -- hard inputs --------------------------------------------------------------------------------

HARD = {
    "far from the origin": lambda v: v + np.float32(1000),
    "huge": lambda v: v * np.float32(1e30),
    "tiny": lambda v: v * np.float32(1e-25),
    "with outliers": lambda v: np.where(np.arange(len(v))[:, None] % 500 == 0, v * 1e18, v),
    "all the same": lambda v: np.ones_like(v),
    "mostly the same": lambda v: np.where(np.arange(len(v))[:, None] % 10 == 0, v, v[:1]),
    "in one direction": lambda v: np.abs(v[:, :1]) * np.arange(1, v.shape[1] + 1),
    "whole numbers": np.round,
    "with zeros": lambda v: np.where(np.arange(len(v))[:, None] % 3000 % 7 == 1, 0, v),
}


@pytest.mark.slow
@pytest.mark.usefixtures("indexes_are_cheap")
@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("change", HARD.values(), ids=HARD)
def test_hard_inputs(tmp_path: Path, kind: Metric, change: object) -> None:
    vectors = np.asarray(change(clouds(3020, 16, seed=1)), np.float32)  # type: ignore[operator]
    data, queries = vectors[:3000], vectors[3000:]
    hard = make_segment(tmp_path, data, kind)
    assert hard.index is not None
    found = answers(hard, kind, queries, None, 10, exact=False)
    truth = answers(hard, kind, queries, None, 10, exact=True)
    # Where many are equally far, which of them is found is a matter of chance: the distances
    # tell.
    good = 0
    for answer, best in zip(found, truth, strict=True):
        assert len(answer.hits) == 10
        last = best.hits[-1].distance
        good += sum(hit.distance <= last for hit in answer.hits)
    assert good >= 0.93 * 10 * len(queries)
