"""Estimates: their bounds always hold, and they are near where it matters."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from tests.search.columns.columns_cases import FILTERS, MAKERS, about, documents
from treestore.query import compile
from treestore.search.columns import statistics
from treestore.search.columns.bitmaps import bitmap
from treestore.search.columns.growing import GrowingColumns
from treestore.search.columns.rows import Columns
from treestore.search.columns.sealed import SealedColumns
from treestore.search.columns.sealing import seal


def check_bounds(rows: Any, source: Any, form: str = "sealed") -> None:
    columns = MAKERS[form](rows)
    for each in (source, *about(rows)):
        check_one(rows, each, columns, form)


def check_one(rows: Any, source: Any, columns: Columns, form: str) -> None:
    expression = compile(source).expression
    estimate = columns.estimate(expression)
    count = int(np.count_nonzero(bitmap(expression, columns)))
    assert estimate.rows_min <= count <= estimate.rows_max
    assert estimate.rows_min - 1e-6 <= estimate.rows <= estimate.rows_max + 1e-6
    assert estimate.rows_min >= 0
    assert estimate.rows_max <= len(rows)
    if form == "growing":
        assert estimate.rows == count


@pytest.mark.parametrize("form", ["growing", "sealed"])
@given(documents(), FILTERS)
def test_bounds_hold(form: str, rows: Any, source: Any) -> None:
    check_bounds(rows, source, form)


@given(documents(max_size=30), FILTERS)
def test_bounds_hold_where_values_are_not_all_counted(rows: Any, source: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("COUNTED_MAX", 2), ("COMMON_MAX", 1), ("QUANTILES", 3), ("SAMPLE", 2)):
            patch.setattr(statistics, name, size)
        check_bounds(rows, source)


TYPES = {
    "unique": "int",
    "price": "float",
    "skewed": "int",
    "city": "string",
    "name": "string",
    "tags": "array<string>",
    "many": "array<int>",
}
ROWS = 20_000


@pytest.fixture(scope="module")
def columns() -> SealedColumns:
    """Values of few and of many kinds, evenly and unevenly spread."""
    numbers = random.Random(5)
    growing = GrowingColumns(TYPES)
    for row in range(ROWS):
        document: dict[str, Any] = {
            "unique": numbers.getrandbits(63) - 2**62,
            "price": round(numbers.lognormvariate(3, 1), 2),
            "skewed": int(numbers.paretovariate(0.7)),
            "city": f"city {min(numbers.randrange(100), numbers.randrange(100))}",
            "name": f"{numbers.choice('abcde')}{row}{numbers.choice(['x', 'y', 'z', 'zz'])}",
            "tags": [f"t{numbers.randrange(50)}" for _ in range(numbers.randrange(5))],
            "many": [numbers.randrange(5000) for _ in range(numbers.randrange(4))],
        }
        if numbers.random() < 0.1:
            del document["price"]
        growing.append(document)
    return SealedColumns(seal([(growing.prefix(), None)], TYPES))


CASES: list[tuple[dict[str, Any], float]] = [
    # The filter, and how far off the estimate may be, as a share of all rows.
    ({"city": "city 3"}, 0.0),
    ({"city": {"$in": ["city 1", "city 50", "nowhere"]}}, 0.0),
    ({"city": {"$regex": "[37]$"}}, 0.0),
    ({"city": {"$exists": False}}, 0.0),
    ({"price": {"$exists": False}}, 0.0),
    ({"price": None}, 0.0),
    ({"tags": "t7"}, 0.0),
    ({"tags": {"$size": 3}}, 0.0),
    ({"unique": {"$gte": 0}}, 0.01),
    ({"unique": {"$gte": 2**60, "$lt": 2**61}}, 0.01),
    ({"unique": {"$lt": -(2**62)}}, 0.0),
    ({"price": {"$lt": 20.0}}, 0.01),
    ({"price": {"$gt": 200}}, 0.01),
    ({"price": {"$not": {"$gt": 30}}}, 0.01),
    ({"skewed": 1}, 0.0),
    ({"skewed": {"$gt": 3}}, 0.01),
    ({"skewed": {"$in": list(range(1, 40))}}, 0.01),
    ({"skewed": 123}, 0.002),
    ({"name": {"$regex": "z$"}}, 0.12),
    ({"name": {"$glob": "a*"}}, 0.02),
    ({"name": {"$glob": "b*x"}}, 0.06),
    ({"tags": {"$in": ["t1", "t2", "t3"]}}, 0.01),
    ({"many": {"$gte": 2500}}, 0.06),
    ({"many": 77}, 0.002),
    ({"price": {"$lt": 20.0}, "city": {"$lt": "city 3"}}, 0.02),
    ({"$or": [{"price": {"$lt": 20.0}}, {"city": {"$lt": "city 3"}}]}, 0.02),
    ({"$nor": [{"unique": {"$gte": 0}}, {"tags": "t7"}]}, 0.02),
]


@pytest.mark.parametrize(("source", "off_max"), CASES, ids=lambda case: str(case))
def test_estimates_are_near(columns: SealedColumns, source: Any, off_max: float) -> None:
    expression = compile(source).expression
    count = int(np.count_nonzero(bitmap(expression, columns)))
    estimate = columns.estimate(expression)
    assert estimate.rows_min <= count <= estimate.rows_max
    assert abs(estimate.rows - count) <= off_max * ROWS + 1e-6
