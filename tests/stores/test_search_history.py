"""What changed lately, as searches ask for it while the log is being read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.engine.log import LogPosition
from treestore.stores.documents.history import SEGMENTS_MAX, History
from treestore.stores.keys import Keyspace, pack

WAIT_S = 20.0


at = LogPosition


def note(lsn: int) -> tuple[bytes, bytes]:
    return Keyspace.NODE_IDS + pack("p", "v", f"n{lsn}"), b"path"


def read(after: LogPosition, until_lsn: int) -> Iterator[Any]:
    """One node is written with each record."""
    for lsn in range(after.lsn + 1, until_lsn + 1):
        yield [note(lsn)], at(lsn)


def nodes_between(history: History, low: int, high: int) -> set[int] | None:
    changes = history.between(low, high)
    if changes is None:
        return None
    ids = [packed for its in changes.places.values() for packed in its.ids]
    return {int(packed[2:-1]) for packed in ids}


def test_who_asks_does_not_wait_for_the_log_to_be_read() -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slowly(after: LogPosition, until_lsn: int) -> Iterator[Any]:
        if until_lsn > 1:
            reading.set()
            assert go_on.wait(WAIT_S)
        yield from read(after, until_lsn)

    history = History(slowly, at(0))
    history.advance(at(1))
    thread = threading.Thread(target=history.advance, args=(at(2),))
    thread.start()
    try:
        assert reading.wait(WAIT_S)
        answers: list[Any] = []
        asking = threading.Thread(
            target=lambda: answers.extend([nodes_between(history, 0, 1), history.between(0, 2)])
        )
        asking.start()
        asking.join(WAIT_S)
        assert answers == [{1}, None]
        history.forget_before(0)
    finally:
        go_on.set()
        thread.join(WAIT_S)
    assert nodes_between(history, 0, 2) == {1, 2}


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 60)), max_size=3 * SEGMENTS_MAX))
def test_never_too_little_is_said(steps: list[tuple[int, int]]) -> None:
    history, lsn, forgotten = History(read, at(0)), 0, 0
    for records, keep in steps:
        lsn += records
        history.advance(at(lsn))
        if keep > 50:
            forgotten = max(forgotten, lsn - (keep - 50) * 4)
            history.forget_before(forgotten)
        for low in {forgotten, (forgotten + lsn) // 2, lsn}:
            found = nodes_between(history, low, lsn)
            assert found is not None
            assert found >= set(range(low + 1, lsn + 1))
    if history.start_lsn:
        assert history.between(history.start_lsn - 1, lsn) is None


@pytest.mark.parametrize("lsn", [5, 0])
def test_reading_again_what_was_read_does_nothing(lsn: int) -> None:
    history = History(read, at(3))
    history.advance(at(5))
    history.advance(at(lsn))
    assert (history.lsn, nodes_between(history, 3, 5)) == (5, {4, 5})
