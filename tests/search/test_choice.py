"""The planner: never against sense, and monotone in what is allowed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.search.choice import (
    COSTS,
    INDEX_ALLOWED_MIN,
    Costs,
    SegmentShape,
    choose_text,
    choose_vector,
    widened,
)

SHARES = [0.0, 1e-5, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.9, 1.0]


@st.composite
def shapes(draw: Any) -> SegmentShape:
    rows = draw(st.integers(0, 200_000))
    lists = draw(st.sampled_from([0, 1, 16, 128, 512]))
    return SegmentShape(
        rows=rows,
        allowed=draw(st.floats(0, 1)) * rows,
        lists=lists,
        probes=draw(st.integers(1, max(1, lists))),
    )


DIMS = st.sampled_from([1, 128, 768, 4096])
TOP_K = st.sampled_from([1, 10, 100, 10_000])


@given(st.lists(shapes(), max_size=4), DIMS, TOP_K, st.integers(0, 5000), st.booleans())
def test_a_plan_makes_sense(
    segments: Any, dim: int, top_k: int, tail_rows: int, exact: bool
) -> None:
    plan = choose_vector(
        segments, dim=dim, top_k=top_k, tail_rows=tail_rows, tail_allowed=tail_rows, exact=exact
    )
    assert plan.rows == sum(shape.rows for shape in segments) + tail_rows
    assert 0 <= plan.estimated_rows <= plan.rows
    assert plan.cost_us >= sum(step.cost_us for step in plan.steps)
    assert plan.sentence.endswith("ms).")
    assert len(plan.steps) == len(segments)
    for shape, step in zip(segments, plan.steps, strict=True):
        assert all(step.cost_us <= cost for _, cost in step.others)
        assert step.rows <= shape.rows
        if step.method == "index":
            assert not exact
            assert shape.allowed >= INDEX_ALLOWED_MIN * top_k
            assert 0 < step.probes < shape.lists
            assert step.candidates >= top_k
        else:
            assert step.probes == step.candidates == 0
            assert step.rows + 1 > shape.allowed
    assert (plan.method == "index") is any(step.method == "index" for step in plan.steps)


@given(st.integers(1, 200_000), st.sampled_from([0, 16, 128, 512]), DIMS, TOP_K)
def test_the_index_is_left_once_as_fewer_rows_are_allowed(
    rows: int, lists: int, dim: int, top_k: int
) -> None:
    """The fewer rows, the more probes; and behind the point where the allowed ones alone are
    compared, it stays so."""
    steps = []
    for share in SHARES:
        shape = SegmentShape(rows=rows, allowed=share * rows, lists=lists, probes=4)
        steps.append(choose_vector([shape], dim=dim, top_k=top_k).steps[0])
    places = {"filter": 0, "index": 1, "scan": 1}
    order = [places[step.method] for step in steps]
    assert order == sorted(order)
    probes = [step.probes for step in steps if step.method == "index"]
    assert all(more >= less for more, less in pairwise(probes))
    compared = [step.cost_us for step in steps if step.method == "filter"]
    assert compared == sorted(compared)


def test_what_is_chosen_for_a_large_segment() -> None:
    def method(share: float, **options: Any) -> str:
        shape = SegmentShape(rows=100_000, allowed=share * 100_000, lists=512, probes=32)
        return choose_vector([shape], dim=768, top_k=10, **options).method

    assert method(1.0) == "index"
    assert method(0.5) == "index"
    assert method(0.001) == "filter"
    assert method(0.0) == "filter"
    assert method(1.0, exact=True) == "scan"
    assert method(0.01, exact=True) == "filter"


@pytest.mark.parametrize(
    ("share", "probes"), [(1.0, 8), (0.2, 8), (0.1, 16), (0.05, 32), (0.001, 128), (0.0, 128)]
)
def test_probes_widen(share: float, probes: int) -> None:
    shape = SegmentShape(rows=10_000, allowed=share * 10_000, lists=128, probes=8)
    assert widened(shape) == probes


def test_no_rows_are_no_trouble() -> None:
    plan = choose_vector([], dim=3, top_k=1)
    assert (plan.rows, plan.cost_us, plan.method) == (0, 0, "filter")
    empty = SegmentShape(rows=0, allowed=0.0, lists=16, probes=2)
    assert choose_vector([empty], dim=3, top_k=1).steps[0].rows == 0
    assert choose_text(rows=0, allowed=0, matching=0, top_k=10).fetch == 0


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1), TOP_K)
def test_a_plan_for_words_makes_sense(rows: int, share: float, matching: float, top_k: int) -> None:
    plan = choose_text(rows=rows, allowed=share * rows, matching=matching * rows, top_k=top_k)
    assert all(plan.cost_us <= cost for _, cost in plan.others)
    assert plan.sentence.endswith("ms).")
    if plan.method == "post_filter":
        assert plan.fetch <= matching * rows + 1
        assert plan.fetch >= min(top_k, matching * rows)
    else:
        assert plan.fetch == 0


@given(st.integers(1, 10**6), st.floats(0.0, 1), TOP_K)
def test_words_of_few_allowed_rows_are_scored(rows: int, matching: float, top_k: int) -> None:
    methods = [
        choose_text(rows=rows, allowed=share * rows, matching=matching * rows, top_k=top_k).method
        for share in SHARES
    ]
    places = {"score_allowed": 0, "post_filter": 1}
    assert [places[method] for method in methods] == sorted(places[method] for method in methods)


def test_costs_decide() -> None:
    shape = SegmentShape(rows=10_000, allowed=9000.0, lists=128, probes=8)
    slow = Costs(code=10.0)
    assert choose_vector([shape], dim=768, top_k=10, costs=slow).method != "index"
    assert choose_vector([shape], dim=768, top_k=10, costs=COSTS).method == "index"
