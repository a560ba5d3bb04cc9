"""A case's facts; scores and conflicts."""

from __future__ import annotations

from typing import Any

import pytest

from treestore.errors import InvalidArgument
from treestore.tools.facts import CaseFacts, Fact
from treestore.tools.weighing import find_conflicts, score_criteria


@pytest.mark.parametrize(
    "bundle",
    [
        {"date_of_birth": {"value": "1970-01-02", "page": 3}, "bmi": 31.5},
        [{"field_name": "date_of_birth", "value": "1970-01-02", "page": 3},
         {"field_name": "bmi", "value": 31.5, "source": "unknown to a fact"}],
        [Fact(field_name="date_of_birth", value="1970-01-02", page=3),
         Fact(field_name="bmi", value=31.5)],
    ],
)  # fmt: skip
def test_a_bundle_has_many_forms(bundle: Any) -> None:
    facts = CaseFacts(bundle, {"dob": "date_of_birth"})
    assert facts.names == ["date_of_birth", "bmi"]
    for name in ("date_of_birth", "Date of Birth", "dateOfBirth", "DOB", "d.o.b"):
        found = facts.find(name)
        assert found is not None
        assert (found.value, found.page, found.confidence) == ("1970-01-02", 3, None)
    assert facts.find("weight") is None
    assert facts.find("") is None
    assert facts.nearest("date_of_brith") == ["date_of_birth"]
    assert facts.nearest("zzz") == []


@pytest.mark.parametrize(
    ("bundle", "aliases"),
    [
        ([{"field_name": "a"}], {}),
        ([{"value": 1}], {}),
        ([{"field_name": "", "value": 1}], {}),
        (["a"], {}),
        ({"a": float("nan")}, {}),
        ({"a": {1, 2}}, {}),
        ({"a": "\ud800"}, {}),
        ({1: 2}, {}),
        ({"a": 1}, {"b": "c"}),
    ],
)
def test_a_bundle_that_is_none_is_refused(bundle: Any, aliases: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        CaseFacts(bundle, aliases)


def test_scores_follow_the_formula() -> None:
    result = score_criteria(
        [
            {"id": "a", "status": "met"},
            {"id": "b", "status": "missing"},
            {"id": "c", "status": "uncertain", "confidence": 0.1},
            {"id": "d", "status": "met", "confidence": 0.4},
            {"id": "e", "status": "missing", "confidence": 0},
        ]
    )
    scores = {item["id"]: item["score"] for item in result["per_criterion"]}
    assert scores == {"a": 0.85, "b": 0.15, "c": 0.5, "d": 0.64, "e": 0.5}
    assert result["score"] == pytest.approx(sum(scores.values()) / 5)
    assert result["weakest"] == "b"
    assert result["per_criterion"][3]["drivers"] == [
        "status met: 0.85",
        "confidence 0.40 of it: 0.64",
    ]


FOR = {"node_id": "0001", "stance": "supports"}
AGAINST = {"node_id": "0002", "snippet": "not covered", "stance": "contradicts"}
NEUTRAL = {"snippet": "see above", "stance": "neutral"}


def test_evidence_that_points_both_ways_is_a_conflict() -> None:
    conflicts = find_conflicts(
        [
            {"criterion_id": "c1", "evidence": [FOR, NEUTRAL]},
            {"criterion_id": "c2", "evidence": [FOR]},
            # The same criterion once more: findings are taken together.
            {"criterion_id": "c1", "evidence": [AGAINST]},
        ]
    )
    assert [conflict.criterion_id for conflict in conflicts] == ["c1"]
    assert conflicts[0].evidence == [FOR, AGAINST]
    assert "1 for it, 1 against it" in conflicts[0].reason


def test_the_same_passage_for_and_against_is_named() -> None:
    both = [FOR, {**AGAINST, "node_id": "0001"}]
    (conflict,) = find_conflicts([{"criterion_id": "c", "evidence": both}])
    assert "Node 0001 is cited for it and against it." in conflict.reason


@pytest.mark.parametrize(
    ("statuses", "evidence", "reason"),
    [
        (["met", "missing"], [], "as met and as missing"),
        (["met"], [AGAINST], "all evidence is against it"),
        (["missing"], [FOR, NEUTRAL], "all evidence is for it"),
        (["met"], [FOR], None),
        (["missing"], [AGAINST], None),
        (["uncertain"], [FOR, NEUTRAL], None),
        (["met"], [NEUTRAL], None),
    ],
)
def test_outcomes_against_their_evidence(
    statuses: list[str], evidence: list[Any], reason: str | None
) -> None:
    findings = [{"criterion_id": "c", "status": s, "evidence": evidence} for s in statuses]
    conflicts = find_conflicts(findings)
    assert bool(conflicts) is (reason is not None)
    if reason is not None:
        assert reason in conflicts[0].reason
