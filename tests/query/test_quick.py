"""The short ways of reading filters and entries give what the long ones give."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.query.test_properties import DOCUMENTS, NAMES, VALUES
from treestore.errors import InvalidArgument
from treestore.query.entries import entries_of
from treestore.query.expression import And, Equal, Expression, Range
from treestore.query.filter import compile
from treestore.query.ordering import IndexInfo, encode, end_of, tails
from treestore.query.parse import Parser
from treestore.query.paths import MISSING, compiled
from treestore.query.quick import CONDITIONS_MAX, read_quickly

# --- filters ---------------------------------------------------------------------------------

FIELDS = st.sampled_from(
    ["a", "a.b", "a.0", "_id", "", "a.", ".a", "a..b", "$a", "a.$b", "ä", "\ud800", "x" * 1001, 7]
)
OPERANDS = st.one_of(
    VALUES,
    st.sampled_from([math.nan, 2**70, True, "ä", "\ud800", b"x", (), None, {"$gt": 1}, {"b": 1}]),
)
COMPARISONS = st.dictionaries(
    st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne", "$in", "$not", "$x", "b", 7]),
    OPERANDS,
    max_size=3,
)


def parsed(filter: Any) -> Expression | None:
    """What the parser alone makes of it; None where it refuses it."""
    try:
        return Parser().filter(filter, "", 1)
    except InvalidArgument:
        return None


def shown(expression: Any) -> str:
    """With the types of values, which count as equal where they are numbers."""
    return repr(expression)


@given(st.dictionaries(FIELDS, st.one_of(OPERANDS, COMPARISONS), max_size=4))
@example({"a": 1, "b": {"$gte": 1, "$lt": "x"}, "c.d": True})
@example({})
@example({"a": {}})
def test_what_is_read_quickly_is_what_the_parser_reads(filter: Any) -> None:
    quickly = read_quickly(filter)
    if quickly is not None:
        assert shown(quickly) == shown(parsed(filter))


def test_what_is_common_is_read_quickly() -> None:
    assert read_quickly({"a": 1}) == Equal(("a",), 1)
    assert read_quickly({"a.b": {"$gte": 1.5, "$lt": 2}}) == And(
        (Range(("a", "b"), "$gte", 1.5), Range(("a", "b"), "$lt", 2))
    )
    assert read_quickly({"a": "ä", "b": False}) == And((Equal(("a",), "ä"), Equal(("b",), False)))
    for other in (None, {"a": None}, {"a": [1]}, {"$or": [{"a": 1}]}, {"a": {"$in": [1]}}):
        assert read_quickly(other) is None
    assert read_quickly({f"a{number}": 1 for number in range(CONDITIONS_MAX + 1)}) is None


@pytest.mark.parametrize("filter", [{"a": "\ud800"}, {"": 1}, {"a": {"$gte": b"x"}}, {"$a": 1}])
def test_faults_are_told_by_the_parser(filter: Any) -> None:
    assert read_quickly(filter) is None
    with pytest.raises(InvalidArgument):
        compile(filter)


# --- entries ---------------------------------------------------------------------------------


@given(DOCUMENTS, NAMES, st.booleans())
def test_the_entries_of_a_field_at_the_top(document: Any, name: str, sparse: bool) -> None:
    info = IndexInfo(id=1, name="i", fields=((name,),), sparse=sparse)
    found, multikey = entries_of(info)(document)
    values: list[Any] = []
    for value in compiled((name,))(document):
        values.append(value)
        if isinstance(value, list):
            values += value
    if sparse and values == [MISSING]:
        assert (found, multikey) == ([], False)
        return
    assert set(found) == {encode(value, info.value_size_bytes_max) for value in values}
    assert len(found) == len(set(found))
    assert multikey is isinstance(document.get(name), list)


LIMITS = st.sampled_from([6, 9, 12, 480])
FEW_VALUES = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**53, -(2**53), 2**53 + 1, 2.5, math.nan, math.inf, None, True, False]),
    st.text(st.sampled_from("ab\0\1ä"), max_size=12),
    st.lists(st.integers(0, 1), max_size=2),
)
ALIKE = st.one_of(
    st.lists(FEW_VALUES, min_size=1, max_size=8),
    st.lists(st.integers(), min_size=1, max_size=8),
    st.lists(st.text(st.sampled_from("ab\0\1ä"), max_size=12), min_size=1, max_size=8),
)
IDS = st.text(st.sampled_from("ab\1"), min_size=1, max_size=3).map(
    lambda id: b"\x07" + id.encode().replace(b"\1", b"\1\2") + b"\0"
)


@given(ALIKE, IDS, LIMITS, st.booleans())
def test_what_is_behind_values_is_found_for_all_at_once(
    values: list[Any], id: bytes, limit: int, reverse: bool
) -> None:
    prefix = b"\x05\x11"
    keys = sorted((prefix + encode(value, limit) + id for value in values), reverse=reverse)
    found = tails(keys, len(prefix), limit)
    if found is not None:
        assert found == [key[end_of(key, len(prefix), limit) :] for key in keys] == [id] * len(keys)
        assert all(end_of(key, len(prefix), limit) - len(prefix) <= limit for key in keys)


def test_what_is_common_is_found_at_once() -> None:
    for values in ([1, 2.5, -7], ["", "a", "b\0"]):
        keys = sorted(encode(value, 480) + b"\x07x\0" for value in values)
        assert tails(keys, 0, 480) == [b"\x07x\0"] * 3
    mixed = [encode(1) + b"\x07x\0", encode("a") + b"\x07x\0"]
    assert tails(mixed, 0, 480) is None
