"""The parts of queries that know of no store: bounds, sorting, projections, groups."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.query.test_properties import CONDITIONS, DOCUMENTS, PATHS, VALUES
from treestore.errors import ResourceExhausted
from treestore.query import compile, sorting
from treestore.query.aggregation import Groups, Sum, parse_grouping
from treestore.query.bounds import intersected, intervals_of, literal_prefix
from treestore.query.entries import entries_of
from treestore.query.ordering import IndexInfo, encode
from treestore.query.partial import decoder_of, names_in
from treestore.query.patterns import regex
from treestore.query.planner import Task, conditions_of, plan
from treestore.query.projection import parse_fields
from treestore.query.sorting import Order, Sorter, parse_sort
from treestore.stores.json_values import encode as as_msgpack


@given(DOCUMENTS, PATHS, CONDITIONS | VALUES, st.sampled_from([10, 480]))
def test_what_satisfies_a_condition_has_an_entry_in_its_intervals(
    document: Any, path: str, condition: Any, limit: int
) -> None:
    fields = tuple(path.split("."))
    compiled = compile({path: condition})
    intervals = intervals_of(compiled.expression, fields, limit)
    if intervals is None:
        return
    index = IndexInfo(id=1, name="i", fields=(fields,) * (480 // limit))
    assert index.value_size_bytes_max == limit
    entries, multikey = entries_of(IndexInfo(id=1, name="i", fields=(fields,)))(document)
    if limit == 480:
        inside = any(low <= entry < high for low, high in intervals.parts for entry in entries)
        holds = compiled.matches(document)
        assert inside or not holds
        assert holds or not (inside and intervals.exact and not multikey)
    lows = [low for low, _ in intervals.parts]
    assert lows == sorted(lows)
    assert all(low < high for low, high in intervals.parts)
    assert intersected(intervals, intervals) == intervals


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        *(("abc", ""), ("^abc", "abc"), ("^ab?", "a"), ("^ab*c", "a"), ("^ab+", "ab")),
        *(
            ("^ab{2}", "a"),
            ("^a|b", ""),
            ("^(?i)ab", ""),
            ("^a.c", "a"),
            ("^", ""),
            ("^a\\.b", "a"),
        ),
    ],
)
def test_the_beginning_of_a_pattern(pattern: str, prefix: str) -> None:
    assert literal_prefix(pattern) == prefix


@given(
    st.lists(st.sampled_from(["^", "a", "b", ".", "*", "+", "?", "|", "(a)", "\\", "[ab]"])).map(
        "".join
    ),
    st.text("ab", max_size=6),
)
def test_what_matches_has_the_beginning(pattern: str, text: str) -> None:
    try:
        matches = regex(pattern)
    except ValueError:
        return
    assert not matches(text) or text.startswith(literal_prefix(pattern))


def test_sorting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "SORT_SIZE_BYTES_MAX", 100_000)
    everything = Sorter(None)
    with pytest.raises(ResourceExhausted, match="index"):
        for number in range(2000):
            everything.add(b"%06d" % number, b"x")
    first = Sorter(5)
    for number in range(20_000, 0, -1):
        first.add(b"%06d" % number, b"x")
    assert [position for position, _ in first.sorted()][:5] == [b"%06d" % n for n in range(1, 6)]
    assert first.bound is not None


@given(st.lists(st.binary(min_size=1, max_size=2)), st.none() | st.integers(1, 5))
def test_a_sorter_sorts(positions: list[bytes], count: int | None) -> None:
    sorter = Sorter(count)
    for position in positions:
        sorter.add(position, b"id")
    wanted = sorted(set(positions))
    assert [position for position, _ in sorter.sorted()][:count] == wanted[:count]


@pytest.mark.parametrize(
    "sort",
    [
        ["-a", "b"],
        [("a", -1), ("b", 1)],
        {"a": -1, "b": 1},
        [{"a": -1}, "+b"],
        ["-a", ["b", "asc"]],
    ],
)
def test_ways_to_write_a_sort(sort: Any) -> None:
    assert parse_sort(sort) == Order(((("a",), True), (("b",), False)), False)


def test_what_follows_the_id_makes_no_difference() -> None:
    assert parse_sort(["a", "-_id", "b"]) == Order(((("a",), False),), True)
    assert parse_sort(None) == parse_sort("_id") == Order()


@given(st.lists(st.integers(-(2**70), 2**70) | st.floats(-1e300, 1e300), max_size=8), st.randoms())
def test_sums_are_exact_in_any_order(numbers: list[Any], random: Any) -> None:
    def total() -> Any:
        kept = Sum()
        for number in numbers:
            kept.add(number)
        return kept.result

    first = total()
    random.shuffle(numbers)
    assert total() == first
    exact = sum(map(Fraction, numbers), Fraction(0))
    assert first == (float(exact) if any(isinstance(n, float) for n in numbers) else exact)


@pytest.mark.parametrize(
    ("numbers", "total"),
    [
        ([1e308, 1e308], math.inf),
        ([-1e308, -1e308], -math.inf),
        ([1e308, 1e308, -1e308], 1e308),
        ([9e299] * 3, 2.7e300),
        ([9e299, 9e299, 9e299, -2.7e300], float(3 * Fraction(9e299) - Fraction(2.7e300))),
        ([10**400, 0.5], math.inf),
        ([10**400, 0.5, -(10**400)], 0.5),
        ([math.inf, 1.0, 1e308], math.inf),
        ([math.inf, -math.inf], math.nan),
    ],
)
def test_sums_beyond_the_floats(numbers: list[Any], total: float) -> None:
    kept = Sum()
    for number in numbers:
        kept.add(number)
    assert kept.result == total or (math.isnan(kept.result) and math.isnan(total))


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treestore.query.aggregation.GROUPS_MAX", 3)
    groups = Groups(parse_grouping("a", {}))
    for number in (1, 1.0, 2, None):
        groups.add({"a": number})
    groups.add({})
    with pytest.raises(ResourceExhausted):
        groups.add({"a": 3})
    assert [each.by for each in groups.results()] == [{"a": None}, {"a": 1}, {"a": 2}]


DOCUMENT = {"_id": "x", "a": 1, "b": {"c": 2, "d": [{"e": 3, "f": 4}, 5, [{"e": 6}]]}, "g": [1]}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (["a"], {"_id": "x", "a": 1}),
        (["b.c", "b"], {"_id": "x", "b": DOCUMENT["b"]}),
        (["b", "b.c"], {"_id": "x", "b": DOCUMENT["b"]}),
        (["b.d.e"], {"_id": "x", "b": {"d": [{"e": 3}, [{"e": 6}]]}}),
        (["a.z", "g.z", "nowhere"], {"_id": "x", "g": []}),
        ({"b.d.e": 0, "g": 0, "_id": 0}, {"a": 1, "b": {"c": 2, "d": [{"f": 4}, 5, [{}]]}}),
        ({"_id": 0}, {k: v for k, v in DOCUMENT.items() if k != "_id"}),
        ([], {"_id": "x"}),
    ],
)
def test_projections(fields: Any, wanted: Any) -> None:
    projection = parse_fields(fields)
    assert projection is not None
    assert projection.apply(json.loads(json.dumps(DOCUMENT))) == wanted


@given(DOCUMENTS, PATHS, CONDITIONS | VALUES)
def test_a_filter_sees_all_it_needs_of_a_part(document: Any, path: str, condition: Any) -> None:
    compiled = compile({path: condition})
    decode = decoder_of(names_in(compiled.expression))
    part = decode(as_msgpack(document))
    assert compiled.matches(part) is compiled.matches(document)


def test_the_cheapest_plan_is_taken() -> None:
    few = IndexInfo(id=1, name="few", fields=(("a",),))
    many = IndexInfo(id=2, name="many", fields=(("b",),))
    sizes: dict[int | None, int] = {None: 100_000, 1: 100, 2: 50_000}
    expression = compile({"a": 1, "b": 2, "c": 3}).expression
    task = Task(conditions=conditions_of(expression), order=Order(), count=100)

    def estimate(index: IndexInfo | int | None, _low: bytes, _high: bytes | None) -> int:
        return sizes[index.id if isinstance(index, IndexInfo) else None]

    chosen, others = plan(task, [many, few], estimate)
    assert chosen.access.index is few
    assert {other.access.kind for other in others} == {"scan", "index", "intersection"}
    sizes[1] = sizes[2] = 20_000
    chosen, _ = plan(task, [many, few], estimate)
    assert chosen.access.kind == "intersection"
    sizes[1] = sizes[2] = 99_000
    chosen, _ = plan(task, [many, few], estimate)
    assert chosen.access.kind == "scan"


def test_encodings_of_a_prefix_hold_what_begins_with_it() -> None:
    intervals = intervals_of(compile({"a": {"$glob": "ab*"}}).expression, ("a",), 480)
    assert intervals is not None
    ((low, high),) = intervals.parts
    for text, inside in (("ab", True), ("abz", True), ("ab\U0010ffff", True), ("ac", False)):
        assert (low <= encode(text) < high) is inside
