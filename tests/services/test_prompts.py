"""``prompts`` through every face."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from treestore.errors import AlreadyExists, InvalidArgument, NotFound
from treestore.model.prompts import PromptVersion

SCHEMA = {"name": "pi_search", "parameters": {"type": "object", "required": ["query"]}}


async def test_versions_are_numbered(db: Any) -> None:
    with trio.fail_after(30):
        first = await db.prompts.store(
            "judge",
            "Is {criterion} met?",
            tool_schemas=[SCHEMA],
            variables=["criterion"],
            author="ann",
            metadata={"ticket": 5},
        )
        assert isinstance(first, PromptVersion)
        assert (first.version, first.content, first.author) == (1, "Is {criterion} met?", "ann")
        assert (first.tool_schemas, first.variables) == ([SCHEMA], ("criterion",))
        assert first.metadata == {"ticket": 5}
        assert len(first.content_hash) == 64
        second = await db.prompts.store("judge", "Decide: is {criterion} met?")
        seventh = await db.prompts.store("judge", "Well?", version=7)
        eighth = await db.prompts.store("judge", "Is {criterion} met?")
        assert [one.version for one in (second, seventh, eighth)] == [2, 7, 8]
        assert await db.prompts.get("judge") == eighth
        assert await db.prompts.get("judge", 2) == second
        page = await db.prompts.list_versions("judge", limit=3)
        assert page.items == [first, second, seventh]
        page = await db.prompts.list_versions("judge", limit=3, cursor=page.next_cursor)
        assert (page.items, page.next_cursor) == ([eighth], None)
        newest = await db.prompts.list_versions("judge", newest_first=True, limit=2)
        assert newest.items == [eighth, seventh]


async def test_the_same_again_is_no_new_version(db: Any) -> None:
    with trio.fail_after(30):
        first = await db.prompts.store("p", "text", variables=["a"], deployed_at="2024-01-01")
        assert await db.prompts.store("p", "text", variables=["a"]) == first
        assert await db.prompts.store("p", "text", variables=["a"], version=1) == first
        assert (
            await db.prompts.store("p", "text", variables=["a"], deployed_at="2024-01-01") == first
        )
        with pytest.raises(AlreadyExists, match="do not change"):
            await db.prompts.store("p", "other", version=1)
        later = await db.prompts.store("p", "text", variables=["a"], deployed_at="2024-02-01")
        assert (later.version, later.content_hash) == (2, first.content_hash)
        other = await db.prompts.store("p", "text", variables=["b"])
        assert (other.version, other.content_hash == first.content_hash) == (3, False)


async def test_the_version_in_use_on_a_day(db: Any) -> None:
    with trio.fail_after(30):
        with pytest.raises(NotFound, match="There is no prompt"):
            await db.prompts.get("p")
        soon = datetime.now(UTC) + timedelta(days=30)
        await db.prompts.store("p", "of next month", deployed_at=soon)
        with pytest.raises(NotFound, match="had no version deployed"):
            await db.prompts.get("p")
        await db.prompts.store("p", "of June", deployed_at="2024-06-01")
        await db.prompts.store("p", "of January", deployed_at="2024-01-01T12:00:00Z")
        await db.prompts.store("p", "of June as well", deployed_at="2024-06-01")

        async def content(as_of: Any = None) -> str:
            return (await db.prompts.get("p", as_of=as_of)).content

        assert await content() == "of June as well"
        assert await content("2024-05-31") == "of January"
        assert await content("2024-01-01") == "of January"
        assert await content(soon) == "of next month"
        for when in ("2023-12-31", "2024-01-01T11:59:59Z"):
            with pytest.raises(NotFound, match="had no version deployed by"):
                await content(when)
        with pytest.raises(NotFound, match="has no version 9"):
            await db.prompts.get("p", 9)
        with pytest.raises(InvalidArgument, match="version or as_of"):
            await db.prompts.get("p", 1, as_of="2024-01-01")


async def test_prompts_are_listed(db: Any) -> None:
    with trio.fail_after(30):
        for name in ("b", "a\0", "a", "c", "ab"):
            for number in range(3):
                await db.prompts.store(name, f"{name} {number}")
        everything = await db.prompts.list()
        assert [one.prompt_id for one in everything] == ["a", "a\0", "ab", "b", "c"]
        assert {(one.version_count, one.latest_version) for one in everything} == {(3, 3)}
        page = await db.prompts.list(prefix="a", limit=2)
        assert [one.prompt_id for one in page] == ["a", "a\0"]
        page = await db.prompts.list(prefix="a", limit=2, cursor=page.next_cursor)
        assert ([one.prompt_id for one in page], page.next_cursor) == (["ab"], None)
        with pytest.raises(NotFound):
            await db.prompts.list_versions("nobody")


async def test_usage_and_effectiveness(db: Any) -> None:
    with trio.fail_after(60):
        for text in ("one", "two", "three"):
            await db.prompts.store("p", text)
        good = (await db.metadata.store_tool_result("c", "t", 1)).tool_result_id
        bad = (await db.metadata.store_tool_result("c", "t", 1, success=False)).tool_result_id
        whole = await db.prompts.record_usage(
            "p",
            1,
            "case0",
            outcome="met",
            success=True,
            latency_ms=100,
            tool_result_ids=[good, bad],
            filled_variables={"criterion": "age", "n": [1]},
            response={"status": "met"},
            input_tokens=1000,
            output_tokens=20,
            used_at="2024-01-01",
            metadata={"a": 1},
        )
        assert whole.filled_variables == {"criterion": "age", "n": [1]}
        assert (whole.response, whole.metadata) == ({"status": "met"}, {"a": 1})
        assert (whole.tool_result_ids, whole.tool_results_succeeded) == ((good, bad), 1)
        for number, outcome in enumerate(["success", "failure", "odd", None]):
            await db.prompts.record_usage(
                "p",
                1 + number % 2,
                f"case{number}",
                outcome=outcome,
                latency_ms=200 + number,
                tool_result_ids=[good],
                input_tokens=10,
                used_at=f"2024-01-0{number + 2}",
            )
        one, two, three = await db.prompts.effectiveness("p")
        assert (one.uses, one.outcomes) == (3, {"met": 1, "odd": 1, "success": 1})
        assert (one.judged, one.success_count, one.success_rate) == (2, 2, 1.0)
        assert one.latency_mean_ms == pytest.approx((100 + 200 + 202) / 3)
        assert one.latency_p50_ms == pytest.approx(200, rel=0.01)
        assert (one.input_tokens, one.output_tokens) == (1020, 20)
        assert (one.tool_results, one.tool_results_succeeded) == (4, 3)
        assert one.tool_success_rate == 0.75
        assert (two.uses, two.judged, two.success_rate) == (2, 1, 0.0)
        assert (three.version, three.uses, three.success_rate) == (3, 0, None)

        async def cases(**options: Any) -> list[str]:
            return [use.case_id for use in await db.prompts.get_usage(**options)]

        assert await cases() == ["case0", "case0", "case1", "case2", "case3"]
        assert await cases(case_id="case0", limit=1) == ["case0"]
        assert await cases(prompt_id="p", version=2) == ["case1", "case3"]
        assert await cases(prompt_id="p", newest_first=True, since="2024-01-04") == [
            "case3",
            "case2",
        ]
        assert await cases(outcome="met", case_id="case0") == ["case0"]
        assert (await db.prompts.get_usage(limit=1)).items == [whole]
        assert await db.prompts.delete_case("case0") == 2
        one, *_ = await db.prompts.effectiveness("p")
        assert (one.uses, one.outcomes, one.latency_mean_ms) == (1, {"odd": 1}, 202.0)
        assert await cases(prompt_id="p", version=1) == ["case2"]
        with pytest.raises(NotFound):
            await db.prompts.effectiveness("nobody")


BAD_PROMPTS: list[tuple[dict[str, Any], str]] = [
    ({"prompt_id": ""}, "must not be empty"),
    ({"prompt_id": "x" * 201}, "at most 200"),
    ({"content": ""}, "content must not be empty"),
    ({"content": 5}, "content|str"),
    ({"content": "\ud800"}, "surrogate"),
    ({"version": 0}, "from 1"),
    ({"version": "1"}, "version"),
    ({"version": True}, "version"),
    ({"tool_schemas": {"a": 1}}, "tool_schemas"),
    ({"tool_schemas": [math.nan]}, "no number for"),
    ({"tool_schemas": [b"x"]}, "holds a value of type bytes"),
    ({"variables": "abc"}, "variables"),
    ({"variables": ["a", "a"]}, "names one twice"),
    ({"variables": [""]}, "must not be empty"),
    ({"author": None}, "author"),
    ({"deployed_at": "soon"}, "no date or time"),
    ({"metadata": {"a": {1: 2}}}, "keys are strings"),
]


async def test_a_bad_prompt_is_refused(db: Any) -> None:
    with trio.fail_after(60):
        for change, message in BAD_PROMPTS:
            arguments: dict[str, Any] = {"prompt_id": "p", "content": "text"} | change
            with pytest.raises(InvalidArgument, match=message):
                await db.prompts.store(**arguments)
        assert (await db.prompts.list()).items == []


BAD_USES: list[tuple[dict[str, Any], str]] = [
    ({"prompt_id": "q"}, "There is no prompt 'q'"),
    ({"version": 2}, "has no version 2"),
    ({"version": 0}, "from 1"),
    ({"case_id": ""}, "must not be empty"),
    ({"outcome": ""}, "must not be empty"),
    ({"outcome": "x" * 300}, "at most 200"),
    ({"success": "yes"}, "success"),
    ({"latency_ms": -1}, "from 0"),
    ({"tool_result_ids": ["0" * 20]}, "no tool result 0000"),
    ({"tool_result_ids": ["x"]}, "no id"),
    ({"tool_result_ids": "abc"}, "tool_result_ids"),
    ({"filled_variables": 5}, "filled_variables"),
    ({"response": math.inf}, "no number for"),
    ({"input_tokens": -1}, "from 0"),
    ({"used_at": "never"}, "no date or time"),
]


async def test_a_bad_use_is_refused(db: Any) -> None:
    with trio.fail_after(60):
        await db.prompts.store("p", "text")
        for change, message in BAD_USES:
            arguments: dict[str, Any] = {"prompt_id": "p", "version": 1, "case_id": "c"} | change
            with pytest.raises((InvalidArgument, NotFound), match=message):
                await db.prompts.record_usage(**arguments)
        assert (await db.prompts.get_usage()).items == []
        (only,) = await db.prompts.effectiveness("p")
        assert only.uses == 0
        for options in ({"version": 1}, {"limit": 0}, {"since": "x"}, {"cursor": "x"}):
            with pytest.raises(InvalidArgument):
                await db.prompts.get_usage(**options)
