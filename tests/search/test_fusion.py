"""Fusion of legs: against the formulas, whatever the order of legs, and options that are none."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.errors import InvalidArgument
from treestore.search.fusion import Fusion, Leg, fuse, parse_fusion


@st.composite
def legs(draw: Any) -> list[tuple[int, float]]:
    rows = draw(st.lists(st.integers(0, 12), unique=True, max_size=8))
    scores = draw(
        st.lists(
            st.sampled_from([0.0, 1.0, 1.5, -3.0]) | st.floats(-1e6, 1e6),
            min_size=len(rows),
            max_size=len(rows),
        )
    )
    return list(zip(rows, sorted(scores, reverse=True), strict=True))


WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 3.0])


def by_the_formula(found: dict[str, Any], fusion: Fusion) -> dict[int, Fraction]:
    """Exactly; a second implementation."""
    sums: dict[int, Fraction] = {}
    for name, candidates in found.items():
        scores = [Fraction(score) for _, score in candidates]
        for at, (row, _) in enumerate(candidates):
            if fusion.method == "rrf":
                share = Fraction(1, at + 1 + Fraction(fusion.rank_constant))
            elif scores[0] == scores[-1]:
                share = Fraction(1)
            else:
                share = (scores[at] - scores[-1]) / (scores[0] - scores[-1])
            sums[row] = sums.get(row, Fraction(0)) + Fraction(fusion.weights[name]) * share
    return sums


@given(legs(), legs(), st.sampled_from(["rrf", "weighted"]), WEIGHTS, WEIGHTS, st.integers(0, 9))
def test_sums_are_those_of_the_formula(
    vector: Any, text: Any, method: Any, one: float, other: float, top_k: int
) -> None:
    fusion = Fusion(method=method, weights={"vector": one, "text": other})
    found = {"vector": vector, "text": text}
    wanted = by_the_formula(found, fusion)
    answer = fuse(found, fusion, 100, key=lambda row: -row)
    assert {each.row for each in answer} == set(wanted)
    for each in answer:
        assert math.isclose(each.score, wanted[each.row], rel_tol=1e-12, abs_tol=1e-12)
        assert each.legs == {
            name: Leg(rank=rank, score=score)
            for name, candidates in found.items()
            for rank, (row, score) in enumerate(candidates, 1)
            if row == each.row
        }
    assert answer == sorted(answer, key=lambda each: (-each.score, -each.row))
    assert fuse(found, fusion, top_k, key=lambda row: -row) == answer[:top_k]
    turned = {"text": text, "vector": vector}
    assert fuse(turned, fusion, 100, key=lambda row: -row) == answer


def test_rows_that_swap_places_tie_and_the_key_decides() -> None:
    found = {"vector": [("b", 9.0), ("a", 8.0)], "text": [("a", 3.0), ("b", 2.0)]}
    answer = fuse(found, Fusion(), 10, key=str)
    assert [each.row for each in answer] == ["a", "b"]
    assert answer[0].score == answer[1].score == 1 / 61 + 1 / 62
    assert [
        each.row for each in fuse(found, parse_fusion({"weights": {"text": 2}}), 1, key=str)
    ] == ["a"]


def test_a_missing_leg_gives_nothing() -> None:
    found = {"vector": [("a", 0.9), ("b", 0.4)], "text": [("c", 7.0)]}
    answer = fuse(found, parse_fusion("weighted"), 10, key=str)
    assert [(each.row, each.score) for each in answer] == [("a", 1.0), ("c", 1.0), ("b", 0.0)]
    assert set(answer[1].legs) == {"text"}
    assert fuse({"vector": [], "text": []}, Fusion(), 10, key=str) == []


def test_the_largest_scores_do_not_overflow() -> None:
    found = {"vector": [("a", 1.7e308), ("b", 0.0), ("c", -1.7e308)]}
    answer = fuse(found, parse_fusion("weighted"), 10, key=str)
    assert [each.score for each in answer] == [1.0, 0.5, 0.0]


def test_defaults() -> None:
    fusion = parse_fusion(None)
    assert fusion == parse_fusion({}) == parse_fusion("rrf") == Fusion()
    assert (fusion.rank_constant, fusion.weights) == (60, {"vector": 1.0, "text": 1.0})
    assert [fusion.depth_for(top_k) for top_k in (1, 10, 100)] == [100, 100, 500]
    shallow = parse_fusion({"depth": 20})
    assert [shallow.depth_for(top_k) for top_k in (1, 50)] == [20, 50]
    assert parse_fusion({"method": "weighted", "weights": {"text": 0.25}}).weights == {
        "vector": 1.0,
        "text": 0.25,
    }


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (5, "object"),
        ([], "object"),
        ({"methd": "rrf"}, "no option 'methd'"),
        ({1: 2}, "no option"),
        ("max", "'rrf' or 'weighted'"),
        ({"method": None}, "'rrf' or 'weighted'"),
        ({"method": ["rrf"]}, "'rrf' or 'weighted'"),
        ({"k": -1}, "from 0"),
        ({"k": "60"}, "from 0"),
        ({"k": True}, "from 0"),
        ({"k": math.nan}, "from 0"),
        ({"k": math.inf}, "from 0"),
        ({"method": "weighted", "k": 60}, "leave it out"),
        ({"weights": 2}, "object"),
        ({"weights": {"title": 1}}, "no leg 'title'"),
        ({"weights": {5: 1}}, "no leg"),
        ({"weights": {"text": -1}}, "from 0"),
        ({"weights": {"text": math.nan}}, "from 0"),
        ({"weights": {"text": "1"}}, "from 0"),
        ({"weights": {"text": 10**400}}, "from 0"),
        ({"weights": {"text": 0, "vector": 0}}, "above 0"),
        ({"depth": 0}, "whole number"),
        ({"depth": 1.5}, "whole number"),
        ({"depth": True}, "whole number"),
        ({"depth": 10**9}, "whole number"),
        ({"\ud800": 1}, "no option"),
    ],
)
def test_other_options_are_refused(source: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        parse_fusion(source)
