"""What is told to a full-text index, and when a search looks at rows itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from treestore.stores.namespaces.live.texts import Texts

INDEX: Any = object()
LATER: Any = object()


def ids(row: int) -> bytes:
    return b"id%d" % row


def begun() -> Texts:
    texts = Texts()
    live, indexed = np.array([1, 2, 5]), np.array([2, 3])
    difference = texts.begin(INDEX, live, indexed, 10, ids)
    assert [(one.row, one.packed_id) for one in difference.missing] == [(1, b"id1"), (5, b"id5")]
    assert difference.surplus.tolist() == [3]
    return texts


def rows(texts: Texts) -> list[int]:
    basis = texts.basis()
    assert basis is not None
    return [one.row for one in basis.new]


def test_rows_are_looked_at_until_a_commit_has_them() -> None:
    texts = begun()
    texts.born([(7, b"id7", {"name": "seven"})], 11)
    texts.born([(8, b"id8", {"name": "eight"})], 12)
    assert rows(texts) == [1, 5, 7, 8]
    texts.show(LATER, texts.new()[:2])
    assert rows(texts) == [7, 8]
    texts.show(LATER, texts.new()[:1])
    assert rows(texts) == [8]
    assert len(texts) == 1
    basis = texts.basis()
    assert basis is not None
    assert basis.index is LATER


def test_rows_that_died_go_once_nobody_sees_them() -> None:
    texts = begun()
    texts.died(1, 12)
    texts.died(7, 14)
    assert texts.take_gone(9) == []
    assert texts.take_gone(11) == [3]
    assert texts.take_gone(13) == [1]
    assert texts.take_gone(13) == []
    assert texts.take_gone(14) == [7]


def test_without_an_index_nothing_is_followed() -> None:
    texts = Texts()
    assert texts.basis() is None
    assert not texts.followed
    texts = begun()
    assert texts.followed
    texts.end()
    assert texts.basis() is None
    assert not texts.followed


def test_what_nobody_sees_any_more_is_not_added() -> None:
    """Else it would be added after it was removed, and stay."""
    texts = begun()
    texts.born([(7, ids(7), {}), (8, ids(8), {})], 11)
    texts.died(7, 12)
    texts.died(8, 14)
    assert texts.take_gone(12) == [3, 7]
    assert rows(texts) == [1, 5, 8]
    assert texts.take_gone(13) == []
    assert texts.take_gone(14) == [8]
    assert rows(texts) == [1, 5]


def test_a_number_that_is_given_again() -> None:
    """What the index has of the first row goes before the second one is added, not after it."""
    texts = begun()
    texts.died(2, 12)
    texts.born([(2, b"other", {}), (9, ids(9), {})], 13)
    assert rows(texts) == [1, 5, 2, 9]  # A search looks at it meanwhile.
    assert [one.row for one in texts.new()] == [1, 5, 9]
    assert texts.take_gone(9) == [2]  # However many snapshots are held.
    assert [one.row for one in texts.new()] == [1, 5, 2, 9]
    texts.show(LATER, texts.new())
    assert texts.take_gone(20) == [3]
    assert rows(texts) == []
    # It dies as well, and once more the number is given again.
    texts.died(2, 21)
    texts.born([(2, b"third", {})], 22)
    texts.died(2, 23)
    assert texts.take_gone(21) == [2]
    assert rows(texts) == [2]
    assert texts.take_gone(23) == [2]
    assert rows(texts) == []


def test_an_index_that_is_found_damaged() -> None:
    texts = begun()
    texts.fail(LATER, "not this one")
    assert texts.basis() is not None
    assert texts.take_failure() is None
    texts.fail(INDEX, "no sense in it")
    assert texts.basis() is None
    texts.show(LATER)  # Its owner was about to commit: rows that came meanwhile are in neither.
    assert texts.basis() is None
    assert texts.take_failure() == "no sense in it"
    assert texts.take_failure() is None
    texts.begin(LATER, np.array([1]), np.array([], np.int64), 11, ids)
    assert rows(texts) == [1]
