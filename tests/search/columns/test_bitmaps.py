"""What filters make of columns is what they say of the rows, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.columns.columns_cases import (
    ALL_FLOATS,
    ALL_INTS,
    CELLS,
    FILTERS,
    LIST_NAMES,
    MAKERS,
    OPERATORS,
    SCALAR_NAMES,
    SMALL_INTS,
    about,
    documents,
    growing,
)
from treestore.errors import InvalidArgument
from treestore.model.namespaces import AttributeSchema
from treestore.query import compile
from treestore.search.columns.bitmaps import bitmap, check_names, packed


@pytest.mark.parametrize("form", MAKERS)
@given(documents(), FILTERS)
def test_a_bitmap_says_what_the_filter_says(form: str, rows: Any, source: Any) -> None:
    filter = compile(source)
    columns = MAKERS[form](rows)
    for _ in range(2):  # The second time some of it is remembered.
        found = bitmap(filter.expression, columns)
        assert found.dtype == np.bool_
        assert found.tolist() == [filter.matches(row) for row in rows]


@pytest.mark.parametrize("form", MAKERS)
@given(documents(), st.sampled_from([*SCALAR_NAMES, *LIST_NAMES]), OPERATORS, CELLS)
def test_so_does_that_of_one_condition(
    form: str, rows: Any, name: str, operator: Any, value: Any
) -> None:
    columns = MAKERS[form](rows)
    for source in (*about(rows), {name: operator}, {name: value}, {name: {"$elemMatch": operator}}):
        filter = compile(source)
        assert bitmap(filter.expression, columns).tolist() == [filter.matches(row) for row in rows]


OPERANDS = [*ALL_INTS, *ALL_FLOATS, -1.5, 2**53 - 1, -(2**63) - 1, 10**400, -(10**400)]


@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.parametrize(
    "values",
    [SMALL_INTS, ALL_FLOATS, [*ALL_INTS, *ALL_FLOATS, True, "1"]],
    ids=["ints", "floats", "all"],
)
def test_numbers_are_compared_exactly(form: str, values: Any) -> None:
    rows = [{"c": value, "id": "x"} for value in values]
    columns = MAKERS[form](rows)
    for operand in OPERANDS:
        for operator in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte"):
            filter = compile({"c": {operator: operand}})
            wanted = [filter.matches(row) for row in rows]
            assert bitmap(filter.expression, columns).tolist() == wanted, (operator, operand)


@given(documents(), FILTERS, st.data())
def test_a_prefix_stays_as_it_is(rows: Any, source: Any, data: Any) -> None:
    count = data.draw(st.integers(0, len(rows)))
    columns = growing(rows[:count])
    before = columns.prefix()
    filters = [compile(each) for each in (source, *about(rows))]
    first = [bitmap(filter.expression, before).tolist() for filter in filters]
    for row in rows[count:]:
        columns.append(row)
    for filter, found in zip(filters, first, strict=True):
        wanted = [filter.matches(row) for row in rows]
        assert found == wanted[:count] == bitmap(filter.expression, before).tolist()
        assert bitmap(filter.expression, columns.prefix(count)).tolist() == wanted[:count]
        assert bitmap(filter.expression, columns.prefix()).tolist() == wanted


@pytest.mark.parametrize("form", MAKERS)
@given(documents())
def test_cells_come_back(form: str, rows: Any) -> None:
    columns = MAKERS[form](rows)
    for name in [*SCALAR_NAMES, *LIST_NAMES]:
        column = columns.column(name)
        assert column.count == len(rows)
        assert column.present().tolist() == [name in row for row in rows]
        for at, row in enumerate(rows):
            assert repr(column.cell(at)) == repr(row.get(name)) or column.cell(at) == row[name]


def test_names_are_checked() -> None:
    attributes = {
        "year": AttributeSchema(type="int"),
        "body": AttributeSchema(type="string", filterable=False),
    }

    def check(source: Any) -> None:
        check_names(compile(source).expression, attributes)

    check({"year": 1, "id": "x", "$or": [{"year.0": 1}, {"$not": {"id": 5}}]})
    with pytest.raises(InvalidArgument, match="no attribute 'yaer'; there are: id, year, body"):
        check({"$and": [{"year": 1}, {"$nor": [{"yaer": {"$exists": False}}]}]})
    with pytest.raises(InvalidArgument, match="'body' is not filterable"):
        check({"body": {"$elemMatch": {"year": 1}}})


@given(st.lists(st.booleans(), max_size=40))
def test_packed_bits_are_the_rows(rows: list[bool]) -> None:
    bits = packed(np.array(rows, np.bool_))
    assert len(bits) == -(-len(rows) // 8)
    assert [bool(bits[at // 8] >> at % 8 & 1) for at in range(len(rows))] == rows
