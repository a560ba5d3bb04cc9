"""Encodings of values: their order is that of `order_key`, cut ones never mislead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.query.test_properties import NAMES, VALUES
from treestore.query.ordering import (
    UNCUT,
    bracket_end,
    bracket_start,
    encode,
    encode_all,
    end_of,
    is_cut,
)
from treestore.query.paths import MISSING
from treestore.query.values import NUMBER, bracket, order_key

NEAR = st.sampled_from([2**53, 2**63, 2**64, -(2**53), -(2**63), 0, 10**308, -(10**308)])
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.builds(lambda base, step: base + step, NEAR, st.integers(-2100, 2100)),
    st.builds(lambda base, step: float(base + step), NEAR, st.integers(-2100, 2100)),
)
TEXTS = st.text(st.sampled_from("\0\1\2ab\x7f\x80äü\uffff\U0001f600")) | st.text()
DATES = st.datetimes(
    datetime(1, 1, 2),
    datetime(9999, 12, 30),
    timezones=st.sampled_from([UTC]),
)
ALL: st.SearchStrategy[Any] = st.recursive(
    NUMBERS | TEXTS | DATES | st.sampled_from([None, True, False]) | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=3),
    max_leaves=8,
)


def sign(left: Any, right: Any) -> int:
    return (left > right) - (left < right)


@given(ALL, ALL)
@example([10**308], [10**308 + 1])
def test_the_order_is_that_of_values(left: Any, right: Any) -> None:
    # Ints that no document can hold are told from doubles only.
    assert sign(encode(left), encode(right)) == sign(order_key(left), order_key(right)) or (
        _has_large(left) or _has_large(right)
    )


def _has_large(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_large, value))
    if isinstance(value, dict):
        return any(map(_has_large, value.values()))
    return isinstance(value, int) and abs(value) > 2**64


@given(NUMBERS, NUMBERS)
def test_numbers_are_compared_exactly(left: Any, right: Any) -> None:
    given = sign(order_key(left), order_key(right))
    large = [v for v in (left, right) if isinstance(v, int) and not -(2**63) <= v < 2**64]
    assert sign(encode(left), encode(right)) in ({given, 0} if len(large) == 2 else {given})


@given(ALL, ALL, st.integers(1, 40))
def test_cut_encodings_are_in_order_and_exact_against_one_that_is_not(
    left: Any, right: Any, limit: int
) -> None:
    one, other = encode(left, limit), encode(right, limit)
    assert len(one) <= limit + 1
    assert is_cut(one, limit) is (len(encode(left)) > limit)
    wanted = sign(encode(left), encode(right))
    if is_cut(one, limit) and is_cut(other, limit):
        assert sign(one, other) in (wanted, 0)
    else:
        assert sign(one, other) == wanted


@given(st.lists(ALL, max_size=4), st.binary(max_size=3), st.sampled_from([UNCUT, 12, 40]))
def test_values_one_behind_the_other_can_be_told_apart(
    values: list[Any], rest: bytes, limit: int
) -> None:
    data = encode_all(values, limit) + rest
    at = 0
    for value in values:
        end = end_of(data, at, limit)
        assert data[at:end] == encode(value, limit)
        at = end
    assert data[at:] == rest


@given(ALL, ALL)
def test_none_is_the_beginning_of_another(left: Any, right: Any) -> None:
    one, other = encode(left), encode(right)
    assert one == other or not one.startswith(other)


@given(ALL)
def test_values_lie_in_their_bracket(value: Any) -> None:
    found = bracket(value)
    if not (found == NUMBER and value != value):
        assert bracket_start(found) <= encode(value)
    assert encode(value) < bracket_end(found)


@given(st.binary(max_size=12))
def test_any_bytes_are_gone_over_or_refused(data: bytes) -> None:
    try:
        assert 0 < end_of(data, 0) <= len(data)
    except ValueError:
        pass


def test_what_is_missing_is_null() -> None:
    assert encode(MISSING) == encode(None)


def test_a_date_counts_by_its_moment() -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert encode(noon) < encode(noon + timedelta(microseconds=1))


def test_what_no_document_holds_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        encode(b"x")
