"""Entries of an index: a filter's single conditions never miss a document that satisfies them."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given

from tests.query.test_properties import DOCUMENTS, PATHS, VALUES
from treestore.errors import InvalidArgument
from treestore.query import compile
from treestore.query.entries import ENTRIES_MAX, entries_of
from treestore.query.ordering import IndexInfo, encode


def index(*paths: str, sparse: bool = False) -> IndexInfo:
    fields = tuple(tuple(path.split(".")) for path in paths)
    return IndexInfo(id=1, name="i", fields=fields, sparse=sparse)


@given(DOCUMENTS, PATHS, PATHS, VALUES, VALUES)
def test_values_that_are_asked_for_have_an_entry(
    document: Any, path: str, other: str, value: Any, another: Any
) -> None:
    info = index(path, other)
    entries, multikey = entries_of(info)(document)
    limit = info.value_size_bytes_max
    if compile({"$and": [{path: value}, {other: another}]}).matches(document):
        assert encode(value, limit) + encode(another, limit) in entries
    assert len(set(entries)) == len(entries) >= 1
    assert multikey or len(entries) == 1


@given(DOCUMENTS, PATHS, VALUES)
def test_one_field_without_lists_is_exact(document: Any, path: str, value: Any) -> None:
    entries, multikey = entries_of(index(path))(document)
    found = encode(value) in entries
    assert found is compile({path: value}).matches(document) or (multikey and value is None)


@given(DOCUMENTS, PATHS, PATHS)
def test_a_sparse_index_holds_what_has_a_value(document: Any, path: str, other: str) -> None:
    entries, _ = entries_of(index(path, other, sparse=True))(document)
    lead = [path, other]
    has_value = any(compile({each: {"$exists": True}}).matches(document) for each in lead)
    assert bool(entries) is has_value


def test_fields_are_combined() -> None:
    entries, multikey = entries_of(index("a", "b"))({"a": [1, 2], "b": [3]})
    wanted = {encode(a) + encode(b) for a, b in product([1, 2, [1, 2]], [3, [3]])}
    assert multikey
    assert set(entries) == wanted


def test_too_many_entries_are_refused() -> None:
    long = list(range(ENTRIES_MAX))
    with pytest.raises(InvalidArgument, match="entries"):
        entries_of(index("a"))({"a": long})
    with pytest.raises(InvalidArgument, match="entries"):
        entries_of(index("a", "b"))({"a": long[:200], "b": long[:200]})
