"""Random rows and filters for tests of columns, and the ways to make columns of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from tests.query.test_properties import CONDITIONS, GLOBS, PATTERNS, VALUES
from treestore.search.columns.growing import GrowingColumns
from treestore.search.columns.rows import Columns
from treestore.search.columns.sealed import SealedColumns
from treestore.search.columns.sealing import seal

Document = dict[str, Any]

TYPES = {
    "a": "string",
    "b": "int",
    "c": "float",
    "d": "datetime",
    "x": "array<string>",
    "y": "array<datetime>",
    "id": "string",
}
"""Types do not keep values out of a column: any cell may hold any value."""

SCALAR_NAMES = ["a", "b", "c", "d"]
LIST_NAMES = ["x", "y"]

MOMENTS = st.sampled_from(
    [
        datetime(2024, 5, 1, 12, tzinfo=UTC),
        datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=5))),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ]
)
WORDS = [
    *("", "a", "ab", "b", "A\nb", "ä", "1", "\0", "\U0001f600", "\uffff", "aab"),
    *("2024-05-01", "2024-05-01T12:00:00+00:00", "2024-05-01T12:00:00Z", "2024-05-99"),
    *("a" * 600, "a" * 600 + "b"),
]
TEXTS = st.integers(0, len(WORDS) - 1).map(lambda at: WORDS[at])
SMALL_INTS = [0, 1, 2, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
ALL_INTS = [*SMALL_INTS, 2**63, 2**64 - 1]
ALL_FLOATS = [
    *(0.0, -0.0, 1.0, 0.5, 2.5, float(2**53), float(2**63), -1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf")),
]
INTS = st.sampled_from(ALL_INTS)
FLOATS = st.sampled_from(ALL_FLOATS)
CELLS = st.one_of(INTS, FLOATS, TEXTS, MOMENTS, st.sampled_from([None, True, False]))
KINDS = {
    "all": CELLS,
    "ints": INTS,
    "floats": FLOATS,
    "texts": TEXTS,
    "moments": MOMENTS,
    "numbers": INTS | FLOATS,
    "times": TEXTS | MOMENTS,
}
"""Columns of one kind take other ways than mixed ones."""


@st.composite
def documents(draw: Any, *, max_size: int = 12) -> list[Document]:
    """Rows; each column has kinds of its own."""
    kinds = {
        name: KINDS[draw(st.sampled_from(list(KINDS)))] for name in [*SCALAR_NAMES, *LIST_NAMES]
    }
    cells = {name: kinds[name] for name in SCALAR_NAMES} | {
        name: st.none() | st.lists(kinds[name] | st.none(), max_size=3) for name in LIST_NAMES
    }
    rows = draw(st.lists(st.fixed_dictionaries({}, optional=cells), max_size=max_size))
    return [{**row, "id": f"{number:05}"} for number, row in enumerate(rows)]


NAMES = st.sampled_from([*SCALAR_NAMES, *LIST_NAMES])
PATHS = st.one_of(
    NAMES,
    NAMES,
    NAMES,
    st.just("id"),
    st.tuples(NAMES, st.sampled_from(["0", "1", "z", "01", "0.b", "0.0", "z.0"])).map(".".join),
)
OPERANDS = st.one_of(CELLS, CELLS, VALUES, st.lists(CELLS, max_size=3))
OPERATORS = st.one_of(
    CONDITIONS,
    st.tuples(
        st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains"]), OPERANDS
    ).map(lambda pair: dict([pair])),
    st.tuples(
        st.sampled_from(["$in", "$nin", "$all", "$containsAny"]), st.lists(OPERANDS, max_size=6)
    ).map(lambda pair: dict([pair])),
    st.tuples(st.sampled_from(["$glob", "$iglob"]), GLOBS).map(lambda pair: dict([pair])),
    PATTERNS.map(lambda pattern: {"$regex": "^" + pattern, "$options": "i"}),
    PATTERNS.map(lambda pattern: {"$regex": "^" + pattern}),
    st.sampled_from(["date", "list", "int", "float", "null"]).map(lambda name: {"$type": name}),
)
CONDITION = st.one_of(
    OPERATORS,
    OPERATORS.map(lambda part: {"$elemMatch": part}),
    OPERATORS.map(lambda part: {"$not": part}),
    OPERANDS,
)
FILTERS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(PATHS, CONDITION, max_size=2),
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)
        ).map(lambda pair: dict([pair])),
        inner.map(lambda part: {"$not": part}),
        st.tuples(NAMES, inner).map(lambda pair: {pair[0]: {"$elemMatch": pair[1]}}),
    ),
    max_leaves=4,
)


def about(rows: Sequence[Document]) -> list[Document]:
    """Filters that ask every column for what is there: few random ones do."""
    found: list[Document] = []
    for name in [*SCALAR_NAMES, *LIST_NAMES]:
        cells = [row[name] for row in rows if name in row][-3:]
        cells += [cell[-1] for cell in cells if cell and isinstance(cell, list)]
        for cell in cells:
            found += [
                {name: {operator: cell}} for operator in ("$eq", "$gt", "$gte", "$lt", "$lte")
            ]
            found += [{name: {"$contains": cell}}, {name: {"$in": [cell, "a", 1, None]}}]
            if isinstance(cell, list):
                found.append({name: {"$gt": cell[:-1]}})
                found.append({name: {"$lt": [*cell, None]}})
            if isinstance(cell, str) and len(cell) < 100:
                found.append({name: {"$glob": f"{cell[:1]}*"}} if cell.isalnum() else {name: cell})
        found += [{name: {"$size": 1}}, {name: {"$exists": False}}, {f"{name}.0": {"$gte": "a"}}]
        found.append({name: {"$elemMatch": {"$lt": 2}}})
    return found


def growing(rows: Sequence[Document]) -> GrowingColumns:
    columns = GrowingColumns(TYPES)
    for row in rows:
        columns.append(row)
    return columns


def grown(rows: Sequence[Document]) -> Columns:
    return growing(rows).prefix()


def sealed(rows: Sequence[Document]) -> Columns:
    return SealedColumns(seal([(grown(rows), None)], TYPES))


def joined(rows: Sequence[Document]) -> Columns:
    """Sealed twice: of two halves, in each of which there was one row more."""
    import numpy as np

    half = len(rows) // 2
    parts = []
    for some in (rows[:half], rows[half:]):
        more = grown([*some[:1], {"a": "gone", "x": ["gone", 7]}, *some[1:]])
        places = np.array([0, *range(2, len(some) + 1)][: len(some)], np.int64)
        parts.append((more, places))
    once = [SealedColumns(seal([part], TYPES)) for part in parts]
    return SealedColumns(seal([(each, None) for each in once], TYPES))


MAKERS: dict[str, Callable[[Sequence[Document]], Columns]] = {
    "growing": grown,
    "sealed": sealed,
    "joined": joined,
}
