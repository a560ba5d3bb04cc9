"""Sealed columns: bytes that come back, bytes that are damaged, and what they remember."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.columns.columns_cases import TYPES, documents, growing, grown, sealed
from treestore.query import compile
from treestore.search.columns.bitmaps import bitmap
from treestore.search.columns.blobs import ColumnsDamaged, pack, unpack
from treestore.search.columns.sealed import SECTION, AttributeLeftOut, SealedColumns
from treestore.search.columns.sealing import seal

ROWS: list[dict[str, Any]] = [
    {
        "id": f"{row:03}",
        "a": f"text {row % 7}",
        "b": row * 3,
        "c": row / 7,
        "d": "2024-05-01",
        "x": ["p", "q"][: row % 3],
    }
    for row in range(300)
]


@given(documents())
def test_what_is_sealed_twice_is_the_same(rows: Any) -> None:
    once = seal([(grown(rows), None)], TYPES)
    again = SealedColumns(once)
    again.check()
    assert seal([(again, None)], TYPES) == once
    assert seal([(grown(rows), np.arange(len(rows)))], TYPES) == once


def test_columns_are_read_where_they_lie_and_when_they_are_needed() -> None:
    sections = seal([(grown(ROWS), None)], TYPES)
    data = bytearray(b"".join(sections.values()))
    at = 0
    views: dict[str, Any] = {}
    for name, section in sections.items():
        views[name] = memoryview(data)[at : at + len(section)]
        at += len(section)
    views[f"{SECTION}.1"] = b"never looked at"
    columns = SealedColumns(views)
    assert int(bitmap(compile({"a": "text 3"}).expression, columns).sum()) == 43
    codes: Any = columns.column("a")
    assert np.shares_memory(codes.codes, np.frombuffer(data, np.uint8))
    assert not codes.codes.flags.writeable
    with pytest.raises(ColumnsDamaged):
        columns.check()


def test_an_attribute_that_was_left_out_is_told_from_one_that_is_new() -> None:
    columns = SealedColumns(seal([(grown(ROWS), None)], {"a": "string"}, left_out=["b"]))
    assert not bitmap(compile({"new": {"$exists": True}}).expression, columns).any()
    assert columns.estimate(compile({"new": None}).expression).rows == len(ROWS)
    with pytest.raises(AttributeLeftOut):
        bitmap(compile({"b": 3}).expression, columns)
    later = seal([(columns, None), (grown(ROWS[:5]), None)], {"a": "string", "x": "array<string>"})
    found = bitmap(compile({"x": "p"}).expression, SealedColumns(later))
    assert np.flatnonzero(found).tolist() == [301, 302, 304]


def test_what_was_asked_is_remembered_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treestore.search.columns.sealed.CACHE_SIZE_BYTES_MAX", 3 * len(ROWS))
    columns = SealedColumns(seal([(grown(ROWS), None)], TYPES))
    for number in [0, 1, 2, 0, 3, 0, 1]:
        bitmap(compile({"a": {"$regex": f"{number}$"}}).expression, columns)
    assert (columns.hits, columns.misses) == (2, 5)
    shared = bitmap(compile({"a": {"$regex": "0$"}}).expression, columns)
    assert not shared.flags.writeable


SECTIONS = seal([(grown(ROWS), None)], TYPES)
ASKED: list[dict[str, Any]] = [
    {"a": {"$regex": "3"}},
    {"b": 6},
    {"c": {"$gt": 5}},
    {"d": {"$lt": "3"}},
    {"x": "q"},
]


@given(st.integers(0, 2**32), st.data())
def test_damaged_bytes_are_refused_or_harmless(seed: int, data: Any) -> None:
    """Checksums find what was damaged. Where there are none, nothing but `ColumnsDamaged` comes of
    it, or answers of the right shape."""
    numbers = random.Random(seed)
    sections = {name: bytearray(section) for name, section in SECTIONS.items()}
    section = sections[data.draw(st.sampled_from(sorted(sections)))]
    for _ in range(numbers.randrange(1, 4)):
        # Headers are short, so half of the damage is done to them.
        at = numbers.randrange(min(len(section), numbers.choice([400, len(section)])))
        section[at] = numbers.randrange(256)
    if numbers.random() < 0.2:
        del section[numbers.randrange(len(section)) :]
    try:
        columns = SealedColumns(sections)
        for source in ASKED:
            expression = compile(source).expression
            assert len(bitmap(expression, columns)) == columns.count
            columns.estimate(expression)
    except ColumnsDamaged:
        return


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({SECTION: None}, "no columns"),
        ({f"{SECTION}.2": None}, "'c' is missing"),
        ({SECTION: b"\xc1"}, "list of columns"),
        ({f"{SECTION}.2": b""}, "cut off"),
        ({f"{SECTION}.2": b"XXXX" + SECTIONS[f"{SECTION}.2"][4:]}, "another version"),
        ({f"{SECTION}.2": SECTIONS[f"{SECTION}.2"][:100]}, "cut off"),
        ({f"{SECTION}.0": seal([(grown(ROWS[:5]), None)], TYPES)[f"{SECTION}.0"]}, "not 300"),
        ({f"{SECTION}.4": seal([(grown(ROWS[:5]), None)], TYPES)[f"{SECTION}.4"]}, "not 300"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, bytes | None], says: str) -> None:
    sections = {**SECTIONS, **change}
    given = {name: section for name, section in sections.items() if section is not None}
    with pytest.raises(ColumnsDamaged, match=says):
        SealedColumns(given).check()


def test_another_version_is_refused() -> None:
    contents = msgspec.msgpack.decode(SECTIONS[SECTION])
    contents["version"] = 99
    with pytest.raises(ColumnsDamaged, match="version 99"):
        SealedColumns({**SECTIONS, SECTION: msgspec.msgpack.encode(contents)})


@given(
    st.lists(st.lists(st.integers(0, 255), max_size=70).map(bytes), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2),
)
def test_arrays_come_back_aligned(arrays: list[bytes], fields: dict[str, int]) -> None:
    named = {f"{at}": np.frombuffer(data, np.uint8) for at, data in enumerate(arrays)}
    found_fields, found = unpack(pack(fields, named))
    assert found_fields == fields
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in named.items()
    }


@pytest.mark.parametrize(
    "document",
    [
        {"b": b"bytes"},
        {"b": {"an": "object"}},
        {"b": [1]},
        {"b": 2**64},
        {"b": -(2**63) - 1},
        {"x": "text"},
        {"x": [["nested"]]},
    ],
)
def test_what_no_column_holds_is_refused_and_nothing_is_added(document: Any) -> None:
    columns = growing(ROWS[:2])
    with pytest.raises(ValueError, match="column"):
        columns.append({"a": "new", **document})
    assert columns.count == 2
    columns.append({"b": 1})
    prefix = columns.prefix()
    assert bitmap(compile({"a": {"$exists": True}}).expression, prefix).tolist() == [
        True,
        True,
        False,
    ]
    with pytest.raises(ValueError, match="only 3 rows"):
        columns.prefix(4)
    with pytest.raises(ValueError, match="already"):
        columns.add_attribute("a", "string")


def test_an_attribute_that_is_added_is_missing_before() -> None:
    columns = growing(ROWS[:100])
    before = columns.prefix()
    columns.add_attribute("new", "array<int>")
    columns.append({"new": [5]})
    expression = compile({"new": {"$exists": True}}).expression
    assert np.flatnonzero(bitmap(expression, columns.prefix())).tolist() == [100]
    assert not bitmap(expression, before).any()


def test_sealed_is_what_the_cases_say() -> None:
    assert sealed(ROWS).count == 300
