"""The executor on real stores."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.policy import NEW, OLD, POLICY
from treestore.tools import Study, ToolExecutor
from treestore.tools.definitions import SCHEMAS
from treestore.tools.executor import TOOLS

FACTS = {"date_of_birth": {"value": "1970-01-02", "confidence": 0.9, "doc_id": "d1", "page": 3}}


def executor_on(db: Any, **options: Any) -> ToolExecutor:
    options = {"case_id": "case-1", "policy_id": POLICY, "facts": FACTS, **options}
    return ToolExecutor(db, aliases={"dob": "date_of_birth"}, **options)


def test_every_tool_is_defined_and_done() -> None:
    assert list(TOOLS) == list(SCHEMAS)


# --- what models say -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("pi_serch", {}, "Did you mean 'pi_search'"),
        (None, {}, "no tool None"),
        (["pi_search"], {}, "no tool"),
        ("\ud800", {}, "no tool '\\ud800'"),
        ("x" * 10_000, {}, "no tool"),
        ("facts_get", None, "field_name is missing. Usage: facts_get(field_name)."),
        ("facts_get", [], "not a list"),
        ("facts_get", "{", "no JSON"),
        ("facts_get", {"field_name": 3}, "a string"),
        ("facts_get", {"field_name": "x", "more": 1}, "no argument 'more'"),
        ("facts_get", {"field_name": "x" * 300_000}, "too large"),
        ("facts_get", {"field_name": b"x"}, "bytes"),
        ("spans_tighten", {"node_id": "9999", "query": "x"}, "no node '9999'"),
        ("spans_tighten", {"node_id": "x\0", "query": "x"}, "no node"),
        ("spans_tighten", {"node_id": "é" * 200, "query": "x"}, "at most 256"),
        ("temporal_lookup", {"as_of_date": "yesterday"}, "is no date"),
        ("temporal_lookup", {"as_of_date": "1999-01-01"}, "No version"),
        ("temporal_lookup", {"as_of_date": "2024-01-01", "policy_id": "none"}, "no policy"),
        ("code_validator", {}, "at least one of icd10, cpt, hcpcs, modifiers"),
        ("code_validator", {"icd10": []}, "at least one of"),
        ("pubmed_search", {"condition": "a", "treatment": "b"}, "not configured"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_model_that_errs_is_told_so(
    embedded: Any, name: Any, arguments: Any, words: str
) -> None:
    executor = executor_on(embedded)
    with trio.fail_after(30):
        result = await executor.execute(name, arguments)
    assert result["success"] is False
    assert words in result["error"]
    assert json.loads(json.dumps(result)) == result
    (step,) = executor.steps
    assert step.tool_name == (name if isinstance(name, str) and name in TOOLS else "unknown")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.tuples(inner)
    ),
    max_leaves=10,
)


@st.composite
def nearly(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Arguments with the names of a tool, mostly of the right types."""
    arguments: dict[str, Any] = {}
    for argument, schema in SCHEMAS[name]["properties"].items():
        if draw(st.booleans()) or argument in SCHEMAS[name]["required"]:
            arguments[argument] = draw(_fitting(schema) | ANYTHING)
    return arguments


def _fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema takes, roughly."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of(*(_of_kind(kind, schema) for kind in types))


def _of_kind(kind: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if kind == "string":
        return st.sampled_from(["0001", "0003", POLICY, "2024-05-01", "class"]) | st.text()
    if kind == "integer":
        return st.integers(-1, 30)
    if kind == "number":
        return st.floats(0, 1)
    if kind == "array":
        return st.lists(_fitting(schema["items"]), max_size=4)
    members = {name: _fitting(member) for name, member in schema["properties"].items()}
    required = {name: members.pop(name) for name in schema["required"]}
    return st.fixed_dictionaries(required, optional=members)


CALLS = st.lists(
    st.tuples(st.sampled_from(sorted(TOOLS)), st.none()).flatmap(
        lambda call: st.tuples(st.just(call[0]), nearly(call[0]) | ANYTHING)
    )
    | st.tuples(ANYTHING, ANYTHING),
    min_size=1,
    max_size=5,
)


@pytest.mark.slow
async def test_whatever_a_model_says_is_answered(embedded: Any) -> None:
    """Random calls, most of them nearly right: never an exception, always JSON."""

    async def run(calls: list[tuple[Any, Any]]) -> None:
        executor = executor_on(embedded)
        for name, arguments in calls:
            result = await executor.execute(name, arguments)
            assert result["success"] in (True, False)
            assert ("error" in result) is not result["success"]
            text = json.dumps(result, allow_nan=False, ensure_ascii=False)
            assert json.loads(text.encode()) == result
        assert len(executor.steps) == len(calls)

    @given(CALLS)
    def check(calls: list[tuple[Any, Any]]) -> None:
        trio.from_thread.run(run, calls)

    with trio.fail_after(300):
        await trio.to_thread.run_sync(check)


# --- the tools -------------------------------------------------------------------------------


async def test_facts_are_found_under_their_other_names(embedded: Any) -> None:
    executor = executor_on(embedded)
    found = await executor.execute("facts_get", {"field_name": "DOB"})
    assert found == {
        "success": True,
        "requested": "DOB",
        "field_name": "date_of_birth",
        "value": "1970-01-02",
        "confidence": 0.9,
        "doc_id": "d1",
        "page": 3,
        "bbox": None,
    }
    missed = await executor.execute("facts_get", '{"field_name": "date of brith"}')
    assert missed["success"] is False
    assert missed["available_fields"] == ["date_of_birth"]
    assert missed["message"] == missed["error"]
    assert "Did you mean 'date_of_birth'" in missed["error"]


async def test_spans_are_found_with_offsets_and_pages(embedded: Any) -> None:
    executor = executor_on(embedded)
    result = await executor.execute(
        "spans_tighten", {"node_id": "0003", "query": "class above six hours", "top_k": 1}
    )
    (span,) = result["spans"]
    node = await embedded.documents.get_node(POLICY, "0003")
    assert node.text[span["start"] : span["end"]] == span["text"]
    assert "above six hours" in span["text"]
    assert (span["page"], span["page_exact"]) == (2, True)
    assert result["version_id"] == NEW

    result = await executor.execute("spans_tighten", {"node_id": "0004", "query": "receipt"})
    assert {span["page_exact"] for span in result["spans"]} == {False}
    assert {span["page"] for span in result["spans"]} <= {2, 3}

    result = await executor.execute("spans_tighten", {"node_id": "0001", "query": "receipt"})
    assert result["success"] is False
    assert result["child_ids"] == ["0002", "0003", "0004"]


async def test_a_day_gives_its_version_and_what_it_changed(embedded: Any) -> None:
    executor = executor_on(embedded)
    now = await executor.execute("temporal_lookup", {"as_of_date": "2024-06-01"})
    assert (now["version_id"], now["compared_with"]) == (NEW, OLD)
    assert (now["effective_start"], now["effective_end"]) == ("2024-01-01", None)
    assert [(diff["node_id"], diff["change"]) for diff in now["diffs"]] == [
        ("0003", "changed"),
        ("0006", "added"),
    ]
    assert now["diffs"][0]["fields"] == ["text"]
    assert "all flights" in now["diffs"][0]["text_before"]
    assert now["diffs_total"] == 2

    then = await executor.execute(
        "temporal_lookup", {"as_of_date": "2023-12-31", "policy_id": POLICY}
    )
    # The first version has none before it: it is compared with today's.
    assert (then["version_id"], then["compared_with"]) == (OLD, NEW)
    assert [diff["change"] for diff in then["diffs"]] == ["changed", "removed"]

    today = await executor.execute(
        "temporal_lookup", {"as_of_date": "2024-06-01", "compare_with": "today"}
    )
    assert today["diffs"] == []
    assert "today" in today["note"]


async def test_a_version_without_a_document_is_still_found(embedded: Any) -> None:
    await embedded.versions.create(POLICY, "2026", effective_from="2024-07-01")
    executor = executor_on(embedded)
    found = await executor.execute("temporal_lookup", {"as_of_date": "2024-07-01"})
    assert (found["version_id"], found["diffs"]) == ("2026", [])
    assert "No document" in found["note"]


async def test_scores_and_codes(embedded: Any) -> None:
    executor = executor_on(embedded)
    score = await executor.execute(
        "confidence_score", {"criteria_results": [{"id": "a", "status": "met"}]}
    )
    assert (score["score"], score["per_criterion"][0]["id"]) == (0.85, "a")

    codes = await executor.execute(
        "code_validator", {"icd10": "s72001a", "cpt": ["99213-25", "9921"], "hcpcs": "J1100"}
    )
    assert codes["valid"] is False
    assert codes["normalized"] == {
        "icd10": "S72.001A",
        "cpt": ["99213", None],
        "hcpcs": "J1100",
    }
    assert [code["valid"] for code in codes["codes"]] == [True, True, False, True]
    good = await executor.execute("code_validator", {"icd10": "I10"})
    assert (good["valid"], good["suggested"]) == (True, [])


class Studies:
    """A provider that knows one study."""

    async def search(self, condition: str, treatment: str, limit: int) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if condition == "fail":
            raise OSError("no network")
        return [Study(title=f"{treatment} in {condition}", id="1", year=2020), {"title": "b"}][
            :limit
        ]


async def test_literature_comes_from_the_provider(embedded: Any) -> None:
    executor = executor_on(embedded, literature=Studies())
    with trio.fail_after(30):
        found = await executor.execute("pubmed_search", {"condition": "c", "treatment": "t"})
        assert [study["title"] for study in found["studies"]] == ["t in c", "b"]
        assert "2 studies of t for c" in found["summary"]
        failed = await executor.execute("pubmed_search", {"condition": "fail", "treatment": "t"})
        assert failed["success"] is False
        assert "OSError" in failed["error"]
        assert "no network" in failed["error"]


async def test_after_finish_nothing_is_done(embedded: Any) -> None:
    executor = executor_on(embedded)
    decision = {"status": "met", "rationale": "Section 2 says so.", "confidence": 0.9}
    assert executor.decision is None
    wrong = await executor.execute("finish", {**decision, "status": "maybe"})
    assert wrong["success"] is False
    assert executor.decision is None
    done = await executor.execute("finish", {**decision, "evidence_page": None})
    assert done == {"success": True, "status": "completed", "decision": decision}
    assert executor.decision == decision
    late = await executor.execute("facts_get", {"field_name": "dob"})
    assert late["success"] is False
    assert "finished" in late["error"]


async def test_the_version_stays_the_same(embedded: Any) -> None:
    with trio.fail_after(30):
        executor = executor_on(embedded)
        assert executor.version_id is None
        call = ("spans_tighten", {"node_id": "0003", "query": "class"})
        assert (await executor.execute(*call))["version_id"] == NEW
        await embedded.documents.store(POLICY, "2025", [], effective_from="2025-01-01")
        assert (await executor.execute(*call))["version_id"] == NEW
        old = executor_on(embedded, as_of="2022-02-02")
        assert (await old.execute(*call))["version_id"] == OLD
        named = executor_on(embedded, version_id=OLD)
        assert (await named.execute(*call))["version_id"] == OLD
