"""Readers on other threads see a prefix that stays as it is while a writer appends."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from treestore.model.namespaces import AttributeSchema
from treestore.query import compile
from treestore.search.columns.bitmaps import bitmap
from treestore.search.columns.growing import GrowingColumns
from treestore.search.columns.ordering import first_rows, parse_order

TYPES = {"n": "int", "s": "string", "x": "array<string>", "d": "datetime", "id": "string"}
ROWS = 6000


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    kept = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(kept)


def row(number: int) -> dict[str, Any]:
    found: dict[str, Any] = {"id": f"{number:06}", "n": number, "s": f"s{number % 97}"}
    if number % 3:
        found["x"] = [f"x{number % 11}", f"y{number}"][: number % 3]
    if number % 5:
        found["d"] = f"2024-05-{number % 28 + 1:02}"
    return found


def wanted(source: dict[str, Any], count: int) -> list[int]:
    matches = compile(source).matches
    return [number for number in range(count) if matches(row(number))]


SOURCES: list[dict[str, Any]] = [
    {"n": {"$gte": 100}},
    {"s": {"$regex": "7$"}},
    {"s": {"$in": ["s1", "s2", "s96"]}},
    {"x": "x4"},
    {"x": {"$exists": False}},
    {"d": {"$lt": "2024-05-10"}, "n": {"$lt": 5000}},
    {"x": {"$elemMatch": {"$glob": "y*9"}}},
]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_switches")
def test_readers_see_a_prefix_while_rows_are_appended() -> None:
    columns = GrowingColumns(TYPES)
    done = threading.Event()
    wrong: list[str] = []
    seen: list[int] = []
    known = {number: wanted(source, ROWS) for number, source in enumerate(SOURCES)}
    order = parse_order("-s", {"s": AttributeSchema(type="string")})

    def look(number: int) -> None:
        compiled = [compile(source).expression for source in SOURCES]
        turn = number
        while not done.is_set() or turn == number:
            prefix = columns.prefix()
            turn += 1
            which = turn % len(SOURCES)
            found = np.flatnonzero(bitmap(compiled[which], prefix)).tolist()
            if found != [each for each in known[which] if each < prefix.count]:
                wrong.append(f"{SOURCES[which]} of {prefix.count} rows")
            if turn % 5 == 0 and prefix.count:
                first = first_rows(prefix, np.ones(prefix.count, np.bool_), order, 1)[0][1]
                best = max(range(prefix.count), key=lambda at: (row(at)["s"], at))
                if first != best:
                    wrong.append(f"{first} is first of {prefix.count} rows, not {best}")
            seen.append(prefix.count)

    def looking(number: int) -> None:
        try:
            look(number)
        except Exception as error:
            wrong.append(repr(error))

    readers = [threading.Thread(target=looking, args=(number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    try:
        for number in range(ROWS):
            assert columns.append(row(number)) == number
            if number % (ROWS // 20) == 0:  # However the threads take turns, readers get some.
                before, until = len(seen), time.monotonic() + 60
                while len(seen) <= before and not wrong and time.monotonic() < until:
                    time.sleep(0.001)
    finally:
        done.set()
        for reader in readers:
            reader.join(60)
    assert wrong == []
    assert len(set(seen)) > 10
    for which, source in enumerate(SOURCES):
        found = bitmap(compile(source).expression, columns.prefix())
        assert np.flatnonzero(found).tolist() == known[which]
