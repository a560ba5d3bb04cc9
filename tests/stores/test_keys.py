"""Keys sort as their tuples do, and come back as they were."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.stores import keys
from treestore.stores.keys import Keyspace, pack, successor, unpack, unpack_one

MOMENTS = st.datetimes(timezones=st.just(UTC))
# Few letters, so that values share prefixes and NULs meet ends.
TEXTS = st.text(alphabet="\0\x01aé\uffff\U0010ffff", max_size=5) | st.text(max_size=10)
DATA = st.binary(max_size=6) | st.lists(st.sampled_from([0, 1, 255])).map(bytes)
INTS = st.integers(-(2**64) + 1, 2**64 - 1) | st.integers(-300, 300)
KINDS: list[st.SearchStrategy] = [st.none(), DATA, TEXTS, INTS, st.dates(), MOMENTS]
ELEMENTS = st.one_of(KINDS)


def rank(element) -> Any:
    """The documented order between types, then within one."""
    if element is None:
        return (0, 0)
    if isinstance(element, bytes):
        return (1, element)
    if isinstance(element, str):
        return (2, element.encode())
    if isinstance(element, int):
        return (3, element)
    return (5, element) if isinstance(element, datetime) else (4, element)


@given(st.lists(ELEMENTS, max_size=5))
def test_unpack_inverts_pack(elements):
    assert unpack(pack(*elements)) == tuple(elements)


@given(st.lists(ELEMENTS, max_size=4), st.lists(ELEMENTS, max_size=4))
def test_order_is_preserved(a, b):
    in_order = [rank(x) for x in a] < [rank(x) for x in b]
    assert (pack(*a) < pack(*b)) == in_order


@pytest.mark.parametrize("kind", KINDS, ids=["none", "bytes", "str", "int", "date", "datetime"])
def test_order_is_preserved_within_a_type(kind):
    @given(kind, kind)
    def check(a, b):
        assert (pack(a) < pack(b)) == (rank(a) < rank(b))

    check()


@given(TEXTS, TEXTS, st.binary(max_size=3))
def test_a_string_is_no_prefix_of_another(a, b, rest):
    if a != b:
        assert not (pack(a) + rest).startswith(pack(b))
    element, at = unpack_one(pack(a) + rest, 0)
    assert (element, at) == (a, len(pack(a)))


@pytest.mark.parametrize("element", [True, 1.5, object(), datetime(2024, 1, 1)])
def test_other_types_are_refused(element):
    with pytest.raises(TypeError):
        pack(element)


@pytest.mark.parametrize("number", [2**64, -(2**64)])
def test_larger_numbers_are_refused(number):
    with pytest.raises(OverflowError):
        pack(number)


@pytest.mark.parametrize("data", [b"\x07abc", b"\xff", b"\x12\x01", b"\x20\x01", b"\x06a"])
def test_other_bytes_are_refused(data):
    with pytest.raises(ValueError):
        unpack(data)


def test_extremes():
    for element in (date.min, date.max, datetime.max.replace(tzinfo=UTC), 2**64 - 1, 1 - 2**64):
        assert unpack(pack(element)) == (element,)


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_successor(prefix, rest):
    after = successor(prefix)
    if after is not None:
        assert prefix + rest < after
        assert not after.startswith(prefix)
    else:
        assert set(prefix) <= {255}


def test_keyspaces_are_distinct_single_bytes():
    values = [v for k, v in vars(Keyspace).items() if k.isupper()]
    assert len(set(values)) == len(values)
    assert all(len(v) == 1 and 0 < v[0] < 0xFF for v in values)
    assert keys.KEY_SIZE_BYTES_MAX == 1020
