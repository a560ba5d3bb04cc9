"""How outcomes and evidence are weighed: pure functions, each with its formula."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

STATUS_SCORES = {"met": 0.85, "missing": 0.15, "uncertain": 0.5}
"""What an outcome counts where nothing is said of its confidence."""

SUPPORTING = "supports"
OPPOSING = "contradicts"


# --- confidence ------------------------------------------------------------------------------


def score_criteria(results: list[dict[str, Any]]) -> dict[str, Any]:
    """One score for the outcomes of several criteria.

    A criterion's score is ``0.5 + c * (s - 0.5)`` with ``s`` of `STATUS_SCORES` (met 0.85, missing
    0.15, uncertain 0.5) and ``c`` its confidence, 1 where none is given: less confidence draws the
    score towards 0.5, from where it tells nothing. ``score`` is the mean over the criteria;
    ``weakest`` names the criterion that is furthest from met, the first of equals.

    Returns:
        ``score``, ``per_criterion`` (``id``, ``score``, ``drivers``: sentences that say where the
        score comes from) and ``weakest``.
    """
    scored = []
    for result in results:
        base = STATUS_SCORES[result["status"]]
        drivers = [f"status {result['status']}: {base:.2f}"]
        confidence = result.get("confidence")
        score = base
        if confidence is not None:
            score = 0.5 + confidence * (base - 0.5)
            drivers.append(f"confidence {confidence:.2f} of it: {score:.2f}")
        scored.append({"id": result["id"], "score": round(score, 4), "drivers": drivers})
    mean = sum(item["score"] for item in scored) / len(scored)
    weakest = min(scored, key=lambda item: item["score"])
    return {"score": round(mean, 4), "per_criterion": scored, "weakest": weakest["id"]}


# --- contradictions --------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Conflict:
    """A criterion whose evidence, or whose outcome, points both ways.

    Attributes:
        criterion_id: which.
        reason: why it is one, as a sentence.
        evidence: the pieces that stand against each other, as they were given.
    """

    criterion_id: str
    reason: str
    evidence: list[dict[str, Any]]


def find_conflicts(findings: Iterable[dict[str, Any]]) -> list[Conflict]:
    """Criteria with evidence, or outcomes, that contradict each other, in the findings' order.

    Findings of the same criterion are taken together. Neutral evidence is in no conflict. A
    criterion that came out ``met`` on nothing but opposing evidence, or ``missing`` on nothing but
    supporting evidence, contradicts itself as well.
    """
    evidence: dict[str, list[dict[str, Any]]] = {}
    statuses: dict[str, list[str]] = {}
    for finding in findings:
        name = finding["criterion_id"]
        evidence.setdefault(name, []).extend(finding["evidence"])
        statuses.setdefault(name, [])
        if finding.get("status") is not None:
            statuses[name].append(finding["status"])
    conflicts = []
    for name, pieces in evidence.items():
        for_it = [piece for piece in pieces if piece["stance"] == SUPPORTING]
        against = [piece for piece in pieces if piece["stance"] == OPPOSING]
        reasons = [*_evidence_reasons(for_it, against), *_status_reasons(statuses[name], pieces)]
        if reasons:
            conflicts.append(
                Conflict(
                    criterion_id=name,
                    reason=" ".join(reasons),
                    evidence=[piece for piece in pieces if piece["stance"] != "neutral"],
                )
            )
    return conflicts


def _evidence_reasons(for_it: list[dict[str, Any]], against: list[dict[str, Any]]) -> Iterable[str]:
    if not for_it or not against:
        return
    yield f"Evidence points both ways: {len(for_it)} for it, {len(against)} against it."
    cited = [
        {str(piece["node_id"]) for piece in pieces if piece.get("node_id")}
        for pieces in (for_it, against)
    ]
    for node_id in sorted(set.intersection(*cited)):
        yield f"Node {node_id} is cited for it and against it."


def _status_reasons(statuses: list[str], pieces: list[dict[str, Any]]) -> Iterable[str]:
    seen = set(statuses)
    if {"met", "missing"} <= seen:
        yield "It came out as met and as missing."
        return
    stances = {piece["stance"] for piece in pieces} - {"neutral"}
    if "met" in seen and stances == {OPPOSING}:
        yield "It came out as met, but all evidence is against it."
    if "missing" in seen and stances == {SUPPORTING}:
        yield "It came out as missing, but all evidence is for it."
