"""``metadata`` through every face."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import trio

from treestore.errors import InvalidArgument, NotFound
from treestore.model.metadata import CrossReference, Evidence, ToolResult, TrajectoryStep

SURROGATE = "\ud800"
DOCUMENT = [
    {"node_id": "1", "title": "One"},
    {"node_id": "2", "title": "Two"},
    {"node_id": "3", "parent_id": "2", "title": "Three"},
]


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


# --- tool results ----------------------------------------------------------------------------


async def test_a_tool_result_comes_back_whole(db: Any) -> None:
    with trio.fail_after(30):
        given = {"nodes": [{"id": "1", "score": 0.5}], "none": None, "big": 2**63, "ä": "ö"}
        stored = await db.metadata.store_tool_result(
            "case",
            "pi_search",
            given,
            arguments={"query": "tax", "top_k": 3},
            success=False,
            error="half of it",
            latency_ms=12.5,
            policy_id="p",
            node_id="1",
            version_id="v1",
            executed_at="2024-05-01T12:00:00+02:00",
            metadata={"model": "x"},
        )
        assert isinstance(stored, ToolResult)
        assert stored.result == given
        assert stored.arguments == {"query": "tax", "top_k": 3}
        assert (stored.success, stored.error, stored.latency_ms) == (False, "half of it", 12.5)
        assert (stored.policy_id, stored.node_id, stored.version_id) == ("p", "1", "v1")
        assert stored.executed_at == datetime(2024, 5, 1, 10, tzinfo=UTC)
        assert stored.metadata == {"model": "x"}
        assert await db.metadata.get_tool_result(stored.tool_result_id) == stored
        assert (await db.metadata.get_tool_results("case")).items == [stored]


async def test_tool_results_are_listed_by_whatever_is_asked(db: Any) -> None:
    with trio.fail_after(60):
        made = [
            await db.metadata.store_tool_result(
                f"case{number % 2}",
                f"tool{number % 3}",
                number,
                success=number != 5,
                policy_id="p" if number % 4 else None,
                node_id=f"n{number % 4}" if number % 4 > 1 else None,
                executed_at=datetime(2024, 1, 1 + number, 12, tzinfo=UTC),
            )
            for number in range(12)
        ]

        async def numbers(*args: Any, **kwargs: Any) -> list[int]:
            return [one.result for one in await db.metadata.get_tool_results(*args, **kwargs)]

        assert await numbers() == list(range(12))
        assert await numbers(newest_first=True) == list(range(11, -1, -1))
        assert await numbers("case1") == [1, 3, 5, 7, 9, 11]
        assert await numbers("case1", tool_name="tool0") == [3, 9]
        assert await numbers(tool_name="tool2") == [2, 5, 8, 11]
        assert await numbers(policy_id="p") == [1, 2, 3, 5, 6, 7, 9, 10, 11]
        assert await numbers(policy_id="p", node_id="n3") == [3, 7, 11]
        assert await numbers(policy_id="p", tool_name="tool1") == [1, 7, 10]
        assert await numbers("case1", policy_id="p", node_id="n3", tool_name="tool1") == [7]
        assert await numbers(success=False) == [5]
        assert await numbers(since=date(2024, 1, 3), until="2024-01-05") == [2, 3, 4]
        assert await numbers(since=made[3].executed_at, until=made[3].executed_at) == [3]
        assert await numbers("nobody") == []
        page = await db.metadata.get_tool_results(tool_name="tool1", limit=2)
        assert [one.result for one in page] == [1, 4]
        rest = await db.metadata.get_tool_results(
            tool_name="tool1", limit=2, cursor=page.next_cursor
        )
        assert [one.result for one in rest] == [7, 10]
        assert rest.next_cursor is None
        for wrong in ({"tool_name": "tool2"}, {"tool_name": "tool1", "newest_first": True}, {}):
            with pytest.raises(InvalidArgument, match="other parameters"):
                await db.metadata.get_tool_results(cursor=page.next_cursor, **wrong)
        for nonsense in ("", "x", "ä", page.next_cursor[:3], "AAAA", "!" * 20):
            with pytest.raises(InvalidArgument):
                await db.metadata.get_tool_results(tool_name="tool1", cursor=nonsense)


@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_are_stable_while_others_write(db: Any, newest_first: bool) -> None:
    """What was there at the start is given once, whatever comes and goes around it."""
    with trio.fail_after(60):
        moment = datetime(2024, 1, 1, tzinfo=UTC)
        before = [
            (
                await db.metadata.store_tool_result(
                    "c", "t", number, executed_at=moment + timedelta(seconds=number // 2)
                )
            ).tool_result_id
            for number in range(20)
        ]
        seen: list[str] = []
        cursor = None
        while True:
            page = await db.metadata.get_tool_results(
                "c", limit=3, cursor=cursor, newest_first=newest_first
            )
            seen += [one.tool_result_id for one in page]
            for second in (-1, len(seen) // 2, 100):
                await db.metadata.store_tool_result(
                    "c", "t", "new", executed_at=moment + timedelta(seconds=second)
                )
            if (cursor := page.next_cursor) is None or len(seen) > 200:
                break
        assert [id for id in seen if id in before] == sorted(before, reverse=newest_first)
        assert len(set(seen)) == len(seen)


async def test_tool_statistics(db: Any) -> None:
    with trio.fail_after(60):
        assert (await db.metadata.tool_stats()).items == []
        for number in range(100):
            await db.metadata.store_tool_result(
                "c",
                "a" if number % 2 else "b",
                None,
                success=number % 10 != 3,
                latency_ms=float(number) if number % 2 else None,
                executed_at=date(2024, 1, 1 + number // 10),
            )
        first, second = await db.metadata.tool_stats()
        assert (first.tool_name, first.count, first.success_count) == ("a", 50, 40)
        assert first.success_rate == pytest.approx(0.8)
        assert (first.latency_count, first.latency_mean_ms) == (50, 50.0)
        assert first.latency_p50_ms == pytest.approx(49, rel=0.01)
        assert first.latency_p90_ms == pytest.approx(89, rel=0.01)
        assert first.latency_max_ms == pytest.approx(99, rel=0.01)
        assert (first.first_day, first.last_day) == (date(2024, 1, 1), date(2024, 1, 10))
        assert (second.tool_name, second.latency_p50_ms, second.success_rate) == ("b", None, 1.0)
        (some,) = await db.metadata.tool_stats(
            tool_name="a", since="2024-01-02", until="2024-01-03"
        )
        assert (some.count, some.latency_mean_ms) == (10, 20.0)
        page = await db.metadata.tool_stats(limit=1)
        assert [one.tool_name for one in page] == ["a"]
        page = await db.metadata.tool_stats(limit=1, cursor=page.next_cursor)
        assert [one.tool_name for one in page] == ["b"]
        assert page.next_cursor is None
        assert (await db.metadata.tool_stats(tool_name="c")).items == []


BAD_TOOL_RESULTS: list[Any] = [
    ({"case_id": ""}, "case_id must not be empty"),
    ({"case_id": 5}, "case_id|str"),
    ({"case_id": "x" * 201}, "at most 200"),
    ({"tool_name": SURROGATE}, "surrogate"),
    ({"result": float("nan")}, "no number for"),
    ({"result": {"a": [float("inf")]}}, "no number for"),
    ({"result": b"bytes"}, "holds a value of type bytes"),
    ({"result": {1: 2}}, "keys are strings|wrong"),
    ({"result": {"a": {1: 2}}}, "keys are strings"),
    ({"result": 2**64}, "64 bits"),
    ({"result": SURROGATE}, "surrogate"),
    ({"result": deep(102)}, "nested"),
    ({"arguments": b"x"}, "holds a value of type bytes"),
    ({"success": 1}, "success|bool"),
    ({"error": 5}, "error|str"),
    ({"latency_ms": -1}, "from 0"),
    ({"latency_ms": float("nan")}, "from 0"),
    ({"latency_ms": "5"}, "latency_ms|float"),
    ({"node_id": "1"}, "policy_id as well"),
    ({"version_id": "1"}, "policy_id as well"),
    ({"policy_id": "p", "node_id": ""}, "node_id must not be empty"),
    ({"executed_at": "yesterday"}, "no date or time"),
    ({"executed_at": "2024-13-01"}, "no date or time"),
    ({"metadata": {"a": float("nan")}}, "no number for"),
    ({"metadata": 5}, "metadata"),
]


async def test_a_bad_tool_result_is_refused(db: Any) -> None:
    for change, message in BAD_TOOL_RESULTS:
        arguments: dict[str, Any] = {"case_id": "c", "tool_name": "t", "result": 1} | change
        with trio.fail_after(30):
            with pytest.raises(InvalidArgument, match=message):
                await db.metadata.store_tool_result(**arguments)
            assert (await db.metadata.get_tool_results()).items == []
            assert (await db.metadata.tool_stats()).items == []


BAD_LISTINGS: list[Any] = [
    {"limit": 0},
    {"limit": 10_001},
    {"limit": True},
    {"limit": "5"},
    {"since": "x"},
    {"since": "2024-05-02", "until": "2024-05-01"},
    {"node_id": "1"},
    {"case_id": ""},
    {"case_id": b"c"},
    {"success": 1},
    {"newest_first": "yes"},
    {"cursor": 5},
]


async def test_bad_listings_are_refused(db: Any) -> None:
    for arguments in BAD_LISTINGS:
        with trio.fail_after(30), pytest.raises(InvalidArgument):
            await db.metadata.get_tool_results(**arguments)


UNKNOWN_IDS: list[Any] = ["", "x", "0" * 20, "f" * 20, "0" * 19, 5, "Ä" * 20]


async def test_unknown_ids(db: Any) -> None:
    for id in UNKNOWN_IDS:
        with trio.fail_after(30):
            for call in (
                db.metadata.get_tool_result,
                db.metadata.get_trajectory,
                db.metadata.get_contradiction,
                db.metadata.complete_trajectory,
            ):
                with pytest.raises((InvalidArgument, NotFound)):
                    await call(id)
            with pytest.raises((InvalidArgument, NotFound)):
                await db.metadata.resolve_contradiction(id, "it is so")
            with pytest.raises((InvalidArgument, NotFound)):
                await db.metadata.append_step(id, {})


# --- trajectories ----------------------------------------------------------------------------


async def test_a_trajectory_comes_back_whole(db: Any) -> None:
    with trio.fail_after(30):
        steps: list[Any] = [
            {
                "tool_name": "pi_search",
                "action": {"query": "tax"},
                "observation": ["1", {"a": None}],
                "thought": "Where is it?",
                "node_ids": ["1", "2"],
                "timestamp": datetime(2024, 5, 1, 12, tzinfo=UTC),
                "confidence": 0.5,
                "metadata": {"tokens": 5},
            },
            TrajectoryStep(step_number=4, action="finish", node_ids=("2",)),
        ]
        stored = await db.metadata.store_trajectory(
            "case", steps, policy_id="p", confidence=0.75, outcome="met", metadata={"a": 1}
        )
        assert stored.started_at == datetime(2024, 5, 1, 12, tzinfo=UTC)
        assert (stored.policy_id, stored.confidence, stored.outcome) == ("p", 0.75, "met")
        assert (stored.step_count, stored.completed_at, stored.metadata) == (2, None, {"a": 1})
        one, two = stored.steps
        assert one == TrajectoryStep(step_number=1, **{**steps[0], "node_ids": ("1", "2")})
        assert two == steps[1]
        assert await db.metadata.get_trajectory(stored.trajectory_id) == stored
        assert (await db.metadata.get_trajectories("case")).items == [stored]
        (bare,) = await db.metadata.get_trajectories("case", include_steps=False)
        assert (bare.step_count, bare.steps) == (2, ())


async def test_steps_are_added_until_it_is_complete(db: Any) -> None:
    with trio.fail_after(30):
        made = await db.metadata.store_trajectory("case", [], policy_id="p")
        one = await db.metadata.append_step(made.trajectory_id, {"node_ids": ["1"]})
        two = await db.metadata.append_step(made.trajectory_id, {"step_number": 7, "thought": "x"})
        three = await db.metadata.append_step(made.trajectory_id, {"node_ids": ["1", "1", "2"]})
        assert [step.step_number for step in (one, two, three)] == [1, 7, 8]
        with pytest.raises(InvalidArgument, match="the last one has 8"):
            await db.metadata.append_step(made.trajectory_id, {"step_number": 8})
        with pytest.raises(InvalidArgument, match="before started_at"):
            await db.metadata.complete_trajectory(made.trajectory_id, completed_at="2001-01-01")
        done = await db.metadata.complete_trajectory(
            made.trajectory_id, confidence=1, outcome="done"
        )
        assert (done.steps, done.outcome, done.confidence) == ((one, two, three), "done", 1.0)
        assert done.completed_at is not None
        with pytest.raises(InvalidArgument, match="complete"):
            await db.metadata.append_step(made.trajectory_id, {})
        with pytest.raises(InvalidArgument, match="was completed"):
            await db.metadata.complete_trajectory(made.trajectory_id)
        stats = await db.metadata.trajectory_stats(policy_id="p")
        assert (stats.count, stats.completed_count, stats.step_count) == (1, 1, 3)
        assert [(node.node_id, node.visits) for node in stats.nodes] == [("1", 2), ("2", 1)]


async def test_trajectory_statistics(db: Any) -> None:
    with trio.fail_after(30):
        empty = await db.metadata.trajectory_stats()
        assert (empty.count, empty.mean_steps, empty.mean_confidence) == (0, None, None)
        for number in range(6):
            await db.metadata.store_trajectory(
                f"c{number}",
                [{"node_ids": [str(node)]} for node in range(number + 1)],
                policy_id=("p", "q", None)[number % 3],
                started_at=date(2024, 1, 1 + number),
                completed_at=date(2024, 2, 1) if number < 2 else None,
                confidence=number / 10 if number else None,
            )
        stats = await db.metadata.trajectory_stats(top=3)
        assert (stats.count, stats.completed_count, stats.step_count) == (6, 2, 21)
        assert stats.mean_steps == 3.5
        assert (stats.confidence_count, stats.mean_confidence) == (5, pytest.approx(0.3))
        assert [(node.policy_id, node.node_id, node.visits) for node in stats.nodes] == [
            (None, "0", 2),
            (None, "1", 2),
            (None, "2", 2),
        ]
        some = await db.metadata.trajectory_stats(since="2024-01-02", until="2024-01-04")
        assert (some.count, some.step_count) == (3, 9)
        of_p = await db.metadata.trajectory_stats(policy_id="p", until="2024-01-03")
        assert (of_p.count, [node.node_id for node in of_p.nodes]) == (1, ["0"])
        assert (await db.metadata.trajectory_stats(top=0)).nodes == ()


BAD_STEPS: list[Any] = [
    (5, "steps"),
    ("abc", "steps"),
    ([5], "steps"),
    ([{"stepnumber": 1}], "has no field 'stepnumber'"),
    ([{"step_number": 2}, {"step_number": 2}], r"steps\[1\] has number 2"),
    ([{"step_number": -1}], "from 0"),
    ([{"step_number": "1"}], "from 0"),
    ([{"node_ids": "1"}], "list of node ids"),
    ([{"node_ids": [""]}], "must not be empty"),
    ([{"node_ids": [5]}], "is a string"),
    ([{"confidence": 1.5}], "from 0 to 1"),
    ([{}, {"observation": float("nan")}], r"steps\[1\].observation"),
    ([{"action": b"x"}], "holds a value of type bytes"),
    ([{"thought": 5}], "is a string"),
    ([{"timestamp": "soon"}], "no date or time"),
    ([{}] * 10_001, "at most 10000"),
]


async def test_bad_steps_are_refused(db: Any) -> None:
    for steps, message in BAD_STEPS:
        with trio.fail_after(30):
            with pytest.raises(InvalidArgument, match=message):
                await db.metadata.store_trajectory("case", steps)
            assert (await db.metadata.get_trajectories()).items == []


# --- cross references ------------------------------------------------------------------------


async def refer(db: Any, source: str, target: str, relation: str = "cites", **options: Any) -> Any:
    return await db.metadata.store_cross_reference("p", source, "p", target, relation, **options)


async def ends(db: Any, node_id: str, **options: Any) -> list[tuple[int, str, str, str]]:
    return [
        (one.depth, one.source_node_id, one.target_node_id, one.direction)
        for one in await db.metadata.get_cross_references("p", node_id, **options)
    ]


async def test_references_are_walked_both_ways(db: Any) -> None:
    with trio.fail_after(60):
        first = await refer(db, "a", "b", context="see b", metadata={"page": 3})
        assert isinstance(first, CrossReference)
        assert (first.context, first.metadata, first.depth) == ("see b", {"page": 3}, 1)
        await refer(db, "b", "c")
        await refer(db, "c", "a")
        await refer(db, "d", "a", "supports")
        assert await ends(db, "a") == [
            (1, "a", "b", "out"),
            (1, "c", "a", "in"),
            (1, "d", "a", "in"),
        ]
        assert await ends(db, "a", direction="out") == [(1, "a", "b", "out")]
        assert await ends(db, "a", direction="in", relation="supports") == [(1, "d", "a", "in")]
        # The cycle is gone round once, and each reference given once.
        assert await ends(db, "a", direction="out", max_depth=9) == [
            (1, "a", "b", "out"),
            (2, "b", "c", "out"),
            (3, "c", "a", "out"),
        ]
        assert await ends(db, "d", max_depth=3) == [
            (1, "d", "a", "out"),
            (2, "a", "b", "out"),
            (2, "c", "a", "in"),
            (3, "b", "c", "out"),
        ]
        assert await ends(db, "nowhere", max_depth=3) == []
        found: list[Any] = []
        cursor = None
        while True:
            page = await db.metadata.get_cross_references(
                "p", "d", max_depth=3, limit=1, cursor=cursor
            )
            found += page
            if (cursor := page.next_cursor) is None:
                break
        assert found == (await db.metadata.get_cross_references("p", "d", max_depth=3)).items


async def test_a_reference_is_there_once(db: Any) -> None:
    with trio.fail_after(30):
        first = await refer(db, "a", "b")
        assert await refer(db, "a", "b") == first
        again = await refer(db, "a", "b", context="other")
        assert (again.created_at, again.context) == (first.created_at, "other")
        await refer(db, "a", "b", "supports")
        assert len(await db.metadata.get_cross_references("p", "a")) == 2
        gone = await db.metadata.delete_cross_reference("p", "a", "p", "b", "cites")
        assert gone is True
        gone = await db.metadata.delete_cross_reference("p", "a", "p", "b", "cites")
        assert gone is False
        assert [one.relation for one in await db.metadata.get_cross_references("p", "b")] == [
            "supports"
        ]


async def test_many_references_are_stored_at_once(db: Any) -> None:
    with trio.fail_after(60):

        def edge(source: str, target: str, **more: Any) -> dict[str, Any]:
            return {
                "source_policy_id": "p",
                "source_node_id": source,
                "target_policy_id": "q",
                "target_node_id": target,
                "relation": "cites",
                **more,
            }

        count = await db.metadata.store_cross_references(
            [edge(str(i), str(i % 10)) for i in range(300)] + [edge("0", "0", context="last")]
        )
        assert count == 300
        page = await db.metadata.get_cross_references("q", "0", limit=100)
        assert len(page) == 30
        assert {one.context for one in page} == {"", "last"}
        # What was read can be stored again as it is.
        assert await db.metadata.store_cross_references(page.items) == 30
        for wrong, message in (
            ([edge("x", "y"), edge("x", "")], r"references\[1\]: node_id must not be empty"),
            ([edge("x", "y"), {}], "needs source_policy_id"),
            ([edge("x", "y", colour="red")], "has no field 'colour'"),
            ([edge("x", "y", target_policy_id="p", target_node_id="x")], "refer to itself"),
            ([5], "references"),
            ("abc", "references"),
        ):
            with pytest.raises(InvalidArgument, match=message):
                await db.metadata.store_cross_references(wrong)
        assert (await db.metadata.get_cross_references("p", "x")).items == []
        assert await db.metadata.delete_cross_references("p", "0") == 1
        assert await db.metadata.delete_cross_references("q", "1", direction="out") == 0
        assert await db.metadata.delete_cross_references("q", direction="in") == 299
        assert (await db.metadata.get_cross_references("p", "1")).items == []


async def test_nodes_of_stored_policies_have_to_exist(db: Any) -> None:
    with trio.fail_after(30):
        await db.documents.store("known", "v1", DOCUMENT)
        await db.documents.store("known", "v2", [{"node_id": "9"}])
        store = db.metadata.store_cross_reference
        await store("known", "1", "known", "9", "cites")
        await store("known", "1", "elsewhere", "x", "cites")
        with pytest.raises(NotFound, match="node '4' of policy 'known'"):
            await store("known", "1", "known", "4", "cites")
        with pytest.raises(NotFound, match="The source"):
            await store("known", "4", "known", "1", "cites")
        with pytest.raises(NotFound, match="'elsewhere'"):
            await store("known", "1", "elsewhere", "y", "cites", require_nodes=True)
        await store("known", "1", "known", "4", "cites", require_nodes=False)
        assert len(await db.metadata.get_cross_references("known", "1")) == 3


BAD_REFERENCES: list[Any] = [
    {"source_policy_id": ""},
    {"target_node_id": 5},
    {"target_node_id": "a", "target_policy_id": "p"},
    {"relation": ""},
    {"relation": "x" * 61},
    {"relation": SURROGATE},
    {"context": 5},
    {"metadata": {"a": b"x"}},
    {"require_nodes": "yes"},
]


async def test_a_bad_reference_is_refused(db: Any) -> None:
    for change in BAD_REFERENCES:
        arguments: dict[str, Any] = {
            "source_policy_id": "p",
            "source_node_id": "a",
            "target_policy_id": "q",
            "target_node_id": "b",
            "relation": "cites",
        }
        with trio.fail_after(30):
            with pytest.raises(InvalidArgument):
                await db.metadata.store_cross_reference(**arguments | change)
            assert (await db.metadata.get_cross_references("p", "a")).items == []


BAD_WALKS: list[Any] = [
    {"max_depth": 0},
    {"max_depth": 1001},
    {"max_depth": True},
    {"direction": "up"},
    {"relation": ""},
    {"limit": 0},
    {"cursor": "x"},
]


async def test_a_bad_walk_is_refused(db: Any) -> None:
    for options in BAD_WALKS:
        with trio.fail_after(30), pytest.raises(InvalidArgument):
            await db.metadata.get_cross_references("p", "a", **options)


async def test_names_of_every_length_and_letter(db: Any) -> None:
    """Elements are cut out of keys: those with the bytes that keys escape too."""
    with trio.fail_after(30):
        names = ["a\0b", "\1", "ü" * 100, "\0\0"]
        for name in names:
            await db.metadata.store_cross_reference(name, name * 1, "q", "\0\1", name[:20])
        found = await db.metadata.get_cross_references("q", "\0\1", direction="in", max_depth=2)
        assert sorted(one.source_policy_id for one in found) == sorted(names)
        longest = "x" * 200, "y" * 256
        await db.metadata.store_cross_reference(*longest, "z" * 200, "y" * 256, "r" * 60)
        (one,) = await db.metadata.get_cross_references(*longest)
        assert one.target_policy_id == "z" * 200


# --- contradictions --------------------------------------------------------------------------


async def test_a_contradiction_is_settled_and_overturned(db: Any) -> None:
    with trio.fail_after(30):
        made = await db.metadata.store_contradiction(
            "case",
            "criterion",
            [
                Evidence(policy_id="p", node_id="1", snippet="must", stance="supports"),
                {"snippet": "need not", "stance": "opposes", "metadata": {"page": 4}},
            ],
            severity="high",
            description="It must and need not.",
            metadata={"found_by": "detector"},
        )
        assert (made.resolved, made.resolution, made.severity) == (False, None, "high")
        assert made.evidence[1] == Evidence(
            snippet="need not", stance="opposes", metadata={"page": 4}
        )
        settled = await db.metadata.resolve_contradiction(
            made.contradiction_id, "The later one counts.", resolved_by="ann"
        )
        assert (settled.resolved, settled.resolved_by, settled.history) == (True, "ann", ())
        same = await db.metadata.resolve_contradiction(
            made.contradiction_id, "The later one counts.", resolved_by="ann"
        )
        assert same == settled
        other = await db.metadata.resolve_contradiction(made.contradiction_id, "No.")
        assert other.resolution == "No."
        (before,) = other.history
        assert (before.resolution, before.resolved_by) == ("The later one counts.", "ann")
        assert before.resolved_at == settled.resolved_at
        assert await db.metadata.get_contradiction(made.contradiction_id) == other


async def test_contradictions_are_listed(db: Any) -> None:
    with trio.fail_after(30):
        made = []
        for number in range(6):
            one = await db.metadata.store_contradiction(
                f"case{number % 2}",
                f"criterion{number % 3}",
                [
                    {"policy_id": "p", "node_id": f"n{number % 2}"},
                    {"policy_id": "p", "node_id": "n9"},
                    {"policy_id": "q"},
                ],
            )
            made.append(one.contradiction_id)
        await db.metadata.resolve_contradiction(made[2], "so")

        async def numbers(*args: Any, **kwargs: Any) -> list[int]:
            page = await db.metadata.get_contradictions(*args, **kwargs)
            return [made.index(one.contradiction_id) for one in page]

        assert await numbers() == [0, 1, 2, 3, 4, 5]
        assert await numbers("case0") == [0, 2, 4]
        assert await numbers("case0", "criterion2") == [2]
        assert await numbers(criterion_id="criterion2") == [2, 5]
        assert await numbers(resolved=True) == [2]
        assert await numbers("case0", resolved=False) == [0, 4]
        assert await numbers(policy_id="p", node_id="n1") == [1, 3, 5]
        assert await numbers("case0", policy_id="p", node_id="n1") == []
        assert await numbers(policy_id="q", newest_first=True) == [5, 4, 3, 2, 1, 0]
        page = await db.metadata.get_contradictions("case1", limit=2)
        more = await db.metadata.get_contradictions("case1", limit=2, cursor=page.next_cursor)
        assert [one.contradiction_id for one in (*page, *more)] == [made[1], made[3], made[5]]


BAD_CONTRADICTIONS: list[Any] = [
    ({"evidence": []}, "1 to 1000"),
    ({"evidence": "x"}, "evidence"),
    ({"evidence": [{}, 5]}, "evidence"),
    ({"evidence": [{}, {"colour": 1}]}, r"evidence\[1\] has no field 'colour'"),
    ({"evidence": [{"node_id": "1"}]}, r"evidence\[0\]: node_id"),
    ({"evidence": [{"snippet": 5}]}, "is a string"),
    ({"evidence": [{"metadata": {"a": float("nan")}}]}, "no number for"),
    ({"severity": "dire"}, "severity"),
    ({"criterion_id": ""}, "must not be empty"),
    ({"description": SURROGATE}, "surrogate"),
]


async def test_a_bad_contradiction_is_refused(db: Any) -> None:
    for change, message in BAD_CONTRADICTIONS:
        arguments: dict[str, Any] = {"case_id": "c", "criterion_id": "k", "evidence": [{}]} | change
        with trio.fail_after(30):
            with pytest.raises(InvalidArgument, match=message):
                await db.metadata.store_contradiction(**arguments)
            assert (await db.metadata.get_contradictions()).items == []


async def test_a_bad_resolution_is_refused(db: Any) -> None:
    with trio.fail_after(30):
        made = await db.metadata.store_contradiction("c", "k", [{}])
        for wrong in ("", "  ", 5, SURROGATE):
            with pytest.raises(InvalidArgument):
                await db.metadata.resolve_contradiction(made.contradiction_id, wrong)
        assert await db.metadata.get_contradiction(made.contradiction_id) == made


# --- free metadata ---------------------------------------------------------------------------


async def test_free_metadata(db: Any) -> None:
    with trio.fail_after(30):
        assert await db.metadata.get("case", "1") == {}
        assert await db.metadata.get("case", "1", "status") is None
        await db.metadata.set("case", "1", "status", "open")
        await db.metadata.set("case", "1", "tags", ["tax", {"a": None}])
        await db.metadata.set("case", "1", "status", "closed")
        await db.metadata.set("policy", "1", "status", "open")
        assert await db.metadata.get("case", "1") == {
            "status": "closed",
            "tags": ["tax", {"a": None}],
        }
        assert await db.metadata.get("case", "1", "status") == "closed"
        assert await db.metadata.delete("case", "1", "status") is True
        assert await db.metadata.delete("case", "1", "status") is False
        assert await db.metadata.get("case", "1") == {"tags": ["tax", {"a": None}]}
        assert await db.metadata.delete("case", "1") is True
        assert await db.metadata.delete("case", "1") is False
        assert await db.metadata.get("policy", "1") == {"status": "open"}


async def test_entities_are_found_by_filters(db: Any) -> None:
    with trio.fail_after(60):
        for number in range(20):
            id = f"{number:02}"
            await db.metadata.set("case", id, "number", number)
            await db.metadata.set("case", id, "tags", ["even" if number % 2 == 0 else "odd"])
            if number % 5 == 0:
                await db.metadata.set("case", id, "owner", {"name": f"Ann {number}"})
        await db.metadata.set("other", "00", "number", 5)

        async def ids(filter: Any, **options: Any) -> list[str]:
            return [one.entity_id for one in await db.metadata.find("case", filter, **options)]

        assert len(await ids(None)) == 20
        assert await ids({"number": {"$gte": 17}}) == ["17", "18", "19"]
        assert await ids({"tags": "even", "number": {"$lt": 4}}) == ["00", "02"]
        assert await ids({"owner.name": {"$iglob": "ann 1?"}}) == ["10", "15"]
        assert await ids({"owner": {"$exists": True}, "number": {"$nin": [0, 5]}}) == ["10", "15"]
        page = await db.metadata.find("case", {"tags": "odd"}, limit=4)
        (first, *_) = page
        assert (first.entity_type, first.metadata) == ("case", {"number": 1, "tags": ["odd"]})
        more = await db.metadata.find("case", {"tags": "odd"}, limit=9, cursor=page.next_cursor)
        assert [int(one.entity_id) for one in (*page, *more)] == list(range(1, 20, 2))
        with pytest.raises(InvalidArgument, match="other parameters"):
            await db.metadata.find("case", {"tags": "even"}, cursor=page.next_cursor)
        with pytest.raises(InvalidArgument, match=r"number\.\$gtt"):
            await ids({"number": {"$gtt": 1}})


BAD_METADATA: list[Any] = [
    ("", "1", "k", 1),
    ("t", "", "k", 1),
    ("t", "1", "", 1),
    ("t", "1", 5, 1),
    ("t", "1", "k", b"x"),
    ("t", "1", "k", float("-inf")),
    ("t", "1", "k", {"a": {3: 4}}),
    ("t", "1", "k", "x" * (1 << 20)),
    ("t", SURROGATE, "k", 1),
    ("t", "x" * 601, "k", 1),
]


async def test_bad_metadata_is_refused(db: Any) -> None:
    for arguments in BAD_METADATA:
        with trio.fail_after(30):
            with pytest.raises(InvalidArgument):
                await db.metadata.set(*arguments)
            assert (await db.metadata.find("t")).items == []


# --- what goes with what ---------------------------------------------------------------------


async def test_a_case_is_removed_with_its_statistics(db: Any) -> None:
    with trio.fail_after(60):

        async def fill(case: str) -> None:
            for number in range(3):
                await db.metadata.store_tool_result(
                    case, "t", number, latency_ms=5.5, policy_id="p", node_id="n"
                )
                await db.metadata.store_trajectory(
                    case, [{"node_ids": ["n"]}] * number, policy_id="p", confidence=0.3
                )
                await db.metadata.store_contradiction(case, "k", [{"policy_id": "p"}])

        await fill("stays")
        before = (await db.metadata.tool_stats(), await db.metadata.trajectory_stats())
        await fill("goes")
        assert await db.metadata.delete_case("goes") == 9
        assert await db.metadata.delete_case("goes") == 0
        assert (await db.metadata.tool_stats(), await db.metadata.trajectory_stats()) == before
        for list_them in (
            db.metadata.get_tool_results,
            db.metadata.get_trajectories,
            db.metadata.get_contradictions,
        ):
            assert {one.case_id for one in await list_them()} == {"stays"}
            assert (await list_them("goes")).items == []


async def test_what_goes_with_a_policy(db: Any) -> None:
    with trio.fail_after(60):
        await db.documents.store("p", "v1", DOCUMENT)
        await db.documents.store("q", "v1", DOCUMENT)
        await db.metadata.store_cross_reference("p", "1", "q", "1", "cites")
        await db.metadata.store_cross_reference("q", "2", "p", "2", "cites")
        await db.metadata.store_tool_result("c", "t", 1, policy_id="p", node_id="1")
        await db.metadata.set("policy", "p", "owner", "ann")
        await db.metadata.set("policy", "q", "owner", "bob")
        assert await db.documents.delete_policy("p") is True
        assert (await db.metadata.get_cross_references("q", "1")).items == []
        (left,) = await db.metadata.get_cross_references("q", "2")
        assert left.target_policy_id == "p"
        assert len(await db.metadata.get_tool_results(policy_id="p")) == 1
        assert await db.metadata.get("policy", "p") == {}
        assert await db.metadata.get("policy", "q") == {"owner": "bob"}


async def test_a_snapshot_sees_one_state(db: Any) -> None:
    with trio.fail_after(30):
        await db.metadata.set("t", "1", "k", 1)
        async with db.snapshot() as snapshot:
            await db.metadata.set("t", "1", "k", 2)
            await db.metadata.store_tool_result("c", "t", 1)
            assert await snapshot.metadata.get("t", "1", "k") == 1
            assert (await snapshot.metadata.get_tool_results()).items == []
            with pytest.raises(InvalidArgument, match="snapshot"):
                await snapshot.metadata.set("t", "1", "k", 3)
