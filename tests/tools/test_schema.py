"""Arguments against schemas: fitting ones pass, and whatever else there is gets a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.tools import schema
from treestore.tools.definitions import SCHEMAS, TOOL_DEFINITIONS, tool_definitions
from treestore.tools.schema import Unusable, find_problems, parse_arguments, with_defaults

CYCLE: dict[str, Any] = {}
CYCLE["again"] = CYCLE


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_every_definition_is_one_that_is_checked() -> None:
    for tool in TOOL_DEFINITIONS:
        schema.check_schema(tool["input_schema"])
        assert tool["input_schema"]["additionalProperties"] is False
        assert tool["description"].endswith(".")
    assert list(SCHEMAS) == [
        *("pi_search", "facts_get", "spans_tighten", "policy_xref", "temporal_lookup"),
        *("confidence_score", "contradiction_detector", "pubmed_search", "code_validator"),
        "finish",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "object", "oneOf": []},
        {"type": "text"},
        {"type": "object", "properties": {"a": {"pattern": "x"}}},
        {"type": "object", "properties": {}, "required": ["a"]},
    ],
)
def test_a_definition_that_says_more_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not checked|no such type|no property"):
        schema.check_schema(wrong)


def test_definitions_come_in_both_shapes_and_belong_to_the_caller() -> None:
    anthropic, openai = tool_definitions(), tool_definitions("openai")
    assert json.loads(json.dumps(anthropic)) == anthropic
    for one, other in zip(anthropic, openai, strict=True):
        assert other["type"] == "function"
        assert other["function"]["parameters"] == one["input_schema"]
        assert set(one) == {"name", "description", "input_schema"}
    anthropic[0]["input_schema"]["properties"].clear()
    assert SCHEMAS["pi_search"]["properties"]
    with pytest.raises(ValueError, match="style"):
        tool_definitions("other")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "result"),
    [
        (None, {}),
        ("", {}),
        ("null", {}),
        ('{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        (nested(14), nested(14)),
    ],
)
def test_arguments_come_as_a_dict_or_as_json(given: Any, result: dict[str, Any]) -> None:
    assert parse_arguments(given) == result


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "not a list"),
        (3, "not an int"),
        (b"{}", "not a bytes"),
        ("[1]", "not a list"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("9" * 5000, "no JSON"),
        ('{"a": NaN}', "nan"),
        ({"a": float("inf")}, "inf"),
        ({"a": 2**63}, "64 bits"),
        ({"a": {1, 2}}, "a set"),
        ({"a": b"x"}, "bytes"),
        ({1: "x"}, "names are strings"),
        ({"a": "\ud800"}, "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        ({"a": "x" * 300_000}, "too large"),
        ({"a": [0] * 300_000}, "too large"),
        ("x" * 300_000, "at most"),
        (nested(17), "deeper"),
        (CYCLE, "deeper"),
    ],
)
def test_what_is_no_json_object_is_unusable(given: Any, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        parse_arguments(given)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("pi_search", {}, "query is missing"),
        ("pi_search", {"query": None}, "query is missing"),
        ("pi_search", {"query": 3}, "query is a string, not a whole number 3"),
        ("pi_search", {"query": ""}, "at least 1 characters"),
        ("pi_search", {"query": "x", "top_k": True}, "a whole number, not true or false"),
        ("pi_search", {"query": "x", "top_k": 2.5}, "a whole number"),
        ("pi_search", {"query": "x", "top_k": 0}, "top_k is at least 1, not 0"),
        ("pi_search", {"query": "x", "topk": 3}, "Did you mean 'top_k'"),
        ("facts_get", {"field_name": ["dob"]}, "a string, not a list"),
        ("confidence_score", {"criteria_results": []}, "at least 1 items"),
        (
            "confidence_score",
            {"criteria_results": [{"id": "a", "status": "meet"}]},
            "criteria_results[0].status is one of 'met', 'missing', 'uncertain', not 'meet'. "
            "Did you mean 'met'",
        ),
        (
            "confidence_score",
            {"criteria_results": [{"id": "a", "status": "met", "certainty": 1}]},
            "no argument 'certainty' of criteria_results[0]",
        ),
        ("code_validator", {"icd10": 10}, "a string or a list"),
        ("code_validator", {"icd10": [10]}, "icd10[0] is a string"),
        ("finish", {"status": "met", "rationale": "r", "confidence": 1.5}, "at most 1"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(
    tool: str, arguments: dict[str, Any], words: str
) -> None:
    assert words in " ".join(find_problems(SCHEMAS[tool], parse_arguments(arguments)))


def test_what_fits_has_no_problems() -> None:
    fitting: list[tuple[str, dict[str, Any]]] = [
        ("pi_search", {"query": "x", "top_k": 3.0}),
        ("pi_search", {"query": "x", "top_k": None}),
        ("code_validator", {}),
        ("code_validator", {"icd10": "I10", "cpt": ["99213"]}),
        ("finish", {"status": "met", "rationale": "r", "confidence": 1, "policy_pages": [1]}),
    ]
    for tool, arguments in fitting:
        assert find_problems(SCHEMAS[tool], arguments) == []
    assert with_defaults(SCHEMAS["pi_search"], {"query": "x", "top_k": None})["top_k"] == 3


def test_the_number_of_problems_is_bounded() -> None:
    wrong = {"criteria_results": [{"id": 1, "status": 2} for _ in range(150)]}
    assert len(find_problems(SCHEMAS["confidence_score"], wrong)) == schema.PROBLEMS_MAX


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.sampled_from(sorted(SCHEMAS)), JSON)
def test_whatever_comes_is_answered(tool: str, given: Any) -> None:
    try:
        arguments = parse_arguments(given)
    except Unusable:
        return
    assert json.loads(json.dumps(arguments)) == arguments
    assert all(problem.strip() for problem in find_problems(SCHEMAS[tool], arguments))
