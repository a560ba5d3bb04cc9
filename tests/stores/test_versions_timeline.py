"""Who rules which days: the cases that random periods seldom meet, and how little is looked at."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores.fake import FakeStore, FakeWrite
from treestore.errors import NotFound
from treestore.stores.documents import reading as documents
from treestore.stores.documents import storing
from treestore.stores.documents.check import check_documents
from treestore.stores.keys import Keyspace
from treestore.stores.versions import changing, reading
from treestore.stores.versions.timeline import blocks

ORIGIN = date(2000, 1, 1)
LATER = ORIGIN + timedelta(days=100_000)


def day(number: int) -> date:
    return ORIGIN + timedelta(days=number)


def create(store: Any, version: str, first: int | None, last: int | None = None) -> Any:
    return store.run(
        changing.create,
        "p",
        version,
        effective_from=None if first is None else day(first),
        effective_to=None if last is None else day(last),
    )


def rulers(store: Any, days: range) -> str:
    """One letter a day; a dot for none."""
    letters = ""
    for number in days:
        try:
            letters += reading.as_of(store.txn, "p", day(number)).version_id
        except NotFound:
            letters += "."
    return letters


class Counting(FakeWrite):
    """Counts what is looked at."""

    looks = 0

    def get(self, key: bytes) -> bytes | None:
        self.looks += 1
        return super().get(key)

    def first(self, start: bytes, end: bytes | None) -> tuple[bytes, bytes] | None:
        self.looks += 1
        return next(super().scan(start, end), None)

    def scan(self, start: bytes, end: bytes | None, *, reverse: bool = False) -> Any:
        for item in super().scan(start, end, reverse=reverse):
            self.looks += 1
            yield item


def counting_store() -> FakeStore:
    store = FakeStore()
    store.txn = Counting()
    return store


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_blocks_fill_a_run_of_revisions(first: int, more: int) -> None:
    last = first + more
    filled: list[int] = []
    found = list(blocks(first, last))
    for level, block in found:
        filled += range(block << level, (block + 1) << level)
    assert filled == list(range(first, last + 1))
    assert len(found) <= 2 * (more + 1).bit_length()


def test_of_equal_starts_the_later_recorded_comes_to_light_first() -> None:
    store = FakeStore()
    # Each of another class of length, so that the search goes over several.
    for version, last in (("a", 30), ("b", 12), ("c", 5), ("d", 2)):
        create(store, version, 0, last)
    assert rulers(store, range(-1, 32)) == "." + "ddd" + "ccc" + "b" * 7 + "a" * 18 + "."
    store.run(changing.delete, "p", "d")
    assert rulers(store, range(-1, 32)) == "." + "c" * 6 + "b" * 7 + "a" * 18 + "."
    store.run(changing.delete, "p", "c")
    assert rulers(store, range(-1, 32)) == "." + "b" * 13 + "a" * 18 + "."
    assert check_documents(store.txn) == []


def test_open_ends_reach_the_ends_of_the_calendar() -> None:
    store = FakeStore()
    create(store, "a", None, 0)
    create(store, "b", 10)
    assert reading.as_of(store.txn, "p", date.min).version_id == "a"
    assert reading.as_of(store.txn, "p", date.max).version_id == "b"
    with pytest.raises(
        NotFound, match=r"'a' \(until 2000-01-01\).*'b' \(2000-01-11 to without end"
    ):
        reading.as_of(store.txn, "p", day(5))
    store.run(changing.update, "p", "b", effective_from=None, effective_to=day(12))
    # Two open starts: the later recorded.
    assert reading.as_of(store.txn, "p", date.min).version_id == "b"
    store.run(changing.delete, "p", "b")
    assert reading.as_of(store.txn, "p", date.min).version_id == "a"
    with pytest.raises(NotFound):
        reading.as_of(store.txn, "p", date.max)
    assert check_documents(store.txn) == []


@pytest.mark.parametrize("shape", ["open-ended", "short under a long one", "nested"])
def test_a_look_up_is_two_looks_however_many_versions_there_are(shape: str) -> None:
    store = counting_store()
    count = 300
    create(store, "first", 0)
    for number in range(count):
        if shape == "open-ended":
            create(store, f"{number}", number * 2)
        elif shape == "nested":
            create(store, f"{number}", number, 2 * count - number)
        else:
            create(store, f"{number}", 1 + number * 3, 1 + number * 3)
    txn: Any = store.txn
    for asked in (day(0), day(7), day(count), day(3 * count), LATER, date.max):
        txn.looks = 0
        reading.as_of(txn, "p", asked)
        assert txn.looks == 2
    before = reading.get(txn, "p", f"{count // 2}").recorded_at
    for asked in (day(0), day(7), day(count), day(3 * count), LATER, date.max):
        txn.looks = 0
        reading.as_of(txn, "p", asked, known_at=before)
        assert txn.looks <= 4 + count.bit_length()
    store.prepared(storing.store, "p", "first", [{"title": "t"}], effective_from=LATER)
    txn.now = txn.now.replace(year=2500)
    txn.looks = 0
    assert documents.get(txn, "p").version_id == "first"
    assert txn.looks == 3


def test_inserting_into_a_chain_looks_at_one_step() -> None:
    store = counting_store()
    costs = []
    for count in (50, 400):
        for number in range(count):
            create(store, f"{count} {number}", number * 2)
        txn: Any = store.txn
        txn.looks = 0
        create(store, f"in the middle {count}", count)
        costs.append(txn.looks)
    # More history makes a few more blocks to file under, nothing else.
    assert costs[1] <= costs[0] + 10


def test_check_tells_what_is_wrong() -> None:
    def made() -> FakeStore:
        store = FakeStore()
        create(store, "a", 0, 20)
        create(store, "b", 5, 9)
        create(store, "c", 7)
        store.run(changing.retire, "p", "c", day(8))
        store.run(changing.set_tags, "p", "a", ["x"])
        store.prepared(storing.store, "p", "d", [{"title": "t"}], effective_from=day(15))
        store.run(changing.delete, "p", "b")
        return store

    assert check_documents(made().txn) == []
    for key in made().txn.keys:
        store = made()
        store.txn.delete(key)
        assert check_documents(store.txn), f"nobody misses key {key!r}"
        if key[:1] < Keyspace.POLICIES:
            continue
        store = made()
        store.txn.put(key + b"\x01", store.txn.data[key])
        assert check_documents(store.txn), f"nobody sees key {key!r} twice"
