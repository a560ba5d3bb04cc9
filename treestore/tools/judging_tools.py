"""The tools that weigh what is known, check codes, look outside, and end the work."""

from __future__ import annotations

import inspect
import json
from typing import Any

import attrs

from treestore.errors import TreeStoreError
from treestore.stores.documents.layout import packed_name
from treestore.tools.coding import CheckedCode
from treestore.tools.context import Case, Outcome, ToolFailure, counted, shortened, unicode_of
from treestore.tools.icd10 import check_icd10
from treestore.tools.procedures import check_cpt, check_hcpcs, check_modifier
from treestore.tools.providers import Study
from treestore.tools.weighing import find_conflicts, score_criteria

_CHECKS = {
    "icd10": check_icd10,
    "cpt": check_cpt,
    "hcpcs": check_hcpcs,
    "modifiers": check_modifier,
}

AVAILABLE_MAX = 200
"""Names of facts that are listed where one is not found."""


async def facts_get(case: Case, arguments: dict[str, Any]) -> Outcome:  # noqa: ASYNC124
    """One fact of the case."""
    name = arguments["field_name"]
    fact = case.facts.find(name)
    if fact is None:
        message = f"The case has no fact {name!r}."
        nearest = case.facts.nearest(name)
        if nearest:
            message += f" Did you mean {nearest[0]!r}?"
        available = case.facts.names[:AVAILABLE_MAX]
        raise ToolFailure(message, message=message, available_fields=available)
    return Outcome(
        result={"requested": name, **attrs.asdict(fact, recurse=False)},
        observation=f"{fact.field_name} = {shortened(str(fact.value), 80)}",
    )


async def confidence_score(case: Case, arguments: dict[str, Any]) -> Outcome:  # noqa: ASYNC124
    """One score for several criteria: see `treestore.tools.weighing.score_criteria`."""
    result = score_criteria(arguments["criteria_results"])
    return Outcome(
        result=result,
        observation=f"score {result['score']}; weakest is {result['weakest']}",
    )


async def contradiction_detector(case: Case, arguments: dict[str, Any]) -> Outcome:
    """Criteria whose evidence points both ways; each conflict is stored with the case."""
    for finding in arguments["findings"]:
        packed_name("criterion_id", finding["criterion_id"])
    cited = dict.fromkeys(
        piece["node_id"]
        for finding in arguments["findings"]
        for piece in finding["evidence"]
        if piece.get("node_id")
    )
    if cited:
        # Evidence that nobody can look up is none: an unknown node is an error.
        await case.db.documents.get_nodes(
            case.policy_id, list(cited), version_id=await case.version(), include_text=False
        )
    conflicts = find_conflicts(arguments["findings"])
    names = ", ".join(conflict.criterion_id for conflict in conflicts)
    return Outcome(
        result={
            "conflicts": [
                {
                    "criterion_id": conflict.criterion_id,
                    "reason": conflict.reason,
                    "conflicting_evidence": conflict.evidence,
                }
                for conflict in conflicts
            ],
            "resolved": not conflicts,
        },
        observation=f"{counted(len(conflicts), 'conflict')}{': ' if names else ''}{names}",
        nodes=tuple(cited),
    )


async def pubmed_search(case: Case, arguments: dict[str, Any]) -> Outcome:
    """Studies from the provider, where there is one."""
    if case.literature is None:
        raise ToolFailure(
            "pubmed_search is not configured: no literature provider was given. Go on without it."
        )
    condition, treatment = arguments["condition"], arguments["treatment"]
    limit = arguments["limit"]
    try:
        found = case.literature.search(condition, treatment, limit)
        if inspect.isawaitable(found):
            found = await found
        studies = [_study_of(study) for study in list(found)[:limit]]
    except TreeStoreError:
        raise
    except Exception as error:
        raise ToolFailure(
            f"The literature provider failed ({type(error).__name__}): "
            f"{unicode_of(shortened(str(error), 200))}"
        ) from error
    summary = f"{counted(len(studies), 'study').replace('studys', 'studies')} of {treatment} for "
    return Outcome(
        result={"studies": studies, "summary": summary + f"{condition}."},
        observation=summary + condition,
    )


def _study_of(study: Study | dict[str, Any]) -> dict[str, Any]:
    fields = attrs.asdict(study) if isinstance(study, Study) else dict(study)
    # A provider's own types would fail only where the result is stored.
    text = json.dumps(fields, allow_nan=False, ensure_ascii=False, default=str)
    plain: dict[str, Any] = json.loads(unicode_of(text))
    return plain


async def code_validator(case: Case, arguments: dict[str, Any]) -> Outcome:  # noqa: ASYNC124
    """The formats of codes.

    ``valid`` says that every code given has a valid format. ``normalized`` holds each kind's code
    in its usual writing: a string where a string came, a list for a list (None for what cannot be
    read).
    """
    checked: dict[str, list[CheckedCode]] = {}
    normalized: dict[str, Any] = {}
    for kind, check in _CHECKS.items():
        given = arguments.get(kind)
        if not given:
            continue
        codes = [given] if isinstance(given, str) else given
        checked[kind] = [check(code) for code in codes]
        written = [code.code or None for code in checked[kind]]
        normalized[kind] = written[0] if isinstance(given, str) else written
    if not checked:
        raise ToolFailure("Give at least one of icd10, cpt, hcpcs, modifiers.")
    every = [code for codes in checked.values() for code in codes]
    valid = sum(code.valid for code in every)
    return Outcome(
        result={
            "valid": valid == len(every),
            "normalized": normalized,
            "suggested": list(dict.fromkeys(guess for code in every for guess in code.suggested)),
            "codes": [code.as_result() for code in every],
        },
        observation=f"{valid} of {counted(len(every), 'code')} valid",
    )


async def finish(case: Case, arguments: dict[str, Any]) -> Outcome:  # noqa: ASYNC124
    """The decision; the executor ends the trajectory with it."""
    decision = {name: value for name, value in arguments.items() if value is not None}
    return Outcome(
        result={"status": "completed", "decision": decision},
        observation=f"{decision['status']}, confidence {decision['confidence']}",
    )
