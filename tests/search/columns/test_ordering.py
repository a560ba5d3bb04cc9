"""Orders of rows are those of the documents, page by page, over one column set and over several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.columns.columns_cases import LIST_NAMES, MAKERS, SCALAR_NAMES, documents
from treestore.errors import InvalidArgument
from treestore.model.namespaces import AttributeSchema
from treestore.query.ordering import encode
from treestore.query.sorting import Order
from treestore.search.columns.ordering import RowOrder, first_rows, merged, parse_order

ORDERS = st.lists(
    st.tuples(st.sampled_from([*SCALAR_NAMES, *LIST_NAMES]), st.booleans()),
    max_size=3,
    unique_by=lambda field: field[0],
).flatmap(lambda fields: st.booleans().map(lambda down: RowOrder((*fields, ("id", down)))))


def positions(rows: list[Any], order: RowOrder) -> list[bytes]:
    """As collections have them."""
    *fields, (_, id_descending) = order.fields
    position = Order(
        tuple(((name,), descending) for name, descending in fields), id_descending
    ).position_of()
    return [position(row, encode(row["id"])) for row in rows]


@pytest.mark.parametrize("form", MAKERS)
@given(documents(), ORDERS, st.data())
def test_rows_come_as_documents_do(form: str, rows: Any, order: RowOrder, data: Any) -> None:
    columns = MAKERS[form](rows)
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    chosen = chosen.astype(np.bool_)
    of_rows = positions(rows, order)
    wanted = sorted((of_rows[at], at) for at in np.flatnonzero(chosen).tolist())
    assert first_rows(columns, chosen, order) == wanted
    count = data.draw(st.integers(0, len(rows) + 1))
    assert first_rows(columns, chosen, order, count) == wanted[:count]
    for position in of_rows:
        order.check_position(position)
        behind = [found for found in wanted if found[0] > position]
        assert first_rows(columns, chosen, order, after=position) == behind
        assert first_rows(columns, chosen, order, 2, after=position) == behind[:2]


@given(documents(), documents(), ORDERS)
def test_a_cursor_of_other_rows_lies_where_they_would(rows: Any, others: Any, order: Any) -> None:
    of_rows = positions(rows, order)
    for row in others:
        row["id"] += "x"
    columns = MAKERS["sealed"](rows)
    everything = np.ones(len(rows), np.bool_)
    for position in positions(others, order):
        found = first_rows(columns, everything, order, after=position)
        assert [at for at, _ in found] == sorted(at for at in of_rows if at > position)


@given(documents(), ORDERS, st.integers(1, 5))
def test_pages_over_two_sets_give_each_row_once(rows: Any, order: RowOrder, count: int) -> None:
    half = len(rows) // 2
    sets = [("sealed", rows[:half]), ("growing", rows[half:])]
    made = [(MAKERS[form](some), np.ones(len(some), np.bool_)) for form, some in sets]
    seen: list[bytes] = []
    after: bytes | None = None
    while True:
        parts = [first_rows(columns, all, order, count, after=after) for columns, all in made]
        page = [position for position, _ in merged(parts)][:count]
        if not page:
            break
        seen += page
        after = page[-1]
    assert seen == sorted(positions(rows, order))


ATTRIBUTES = {
    "year": AttributeSchema(type="int"),
    "tags": AttributeSchema(type="array<string>"),
    "body": AttributeSchema(type="string", filterable=False),
}


@pytest.mark.parametrize(
    ("order_by", "fields"),
    [
        (None, [("id", False)]),
        ("-year", [("year", True), ("id", True)]),
        (["-year", "tags"], [("year", True), ("tags", False), ("id", False)]),
        ([("tags", -1)], [("tags", True), ("id", True)]),
        ({"year": 1}, [("year", False), ("id", False)]),
        (["year", "-id", "tags"], [("year", False), ("id", True)]),
    ],
)
def test_ways_to_write_an_order(order_by: Any, fields: Any) -> None:
    assert parse_order(order_by, ATTRIBUTES) == RowOrder(tuple(fields))


@pytest.mark.parametrize(
    ("order_by", "says"),
    [
        (5, "path"),
        ([5], "names attributes"),
        ({5: 1}, "names attributes"),
        ("yaer", "no attribute"),
        ("year.0", "no attribute"),
        ("body", "not filterable"),
        (["year", "-year"], "twice"),
        ({"year": 2}, "direction"),
    ],
)
def test_other_orders_are_refused(order_by: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        parse_order(order_by, ATTRIBUTES)


@given(st.binary(max_size=20), ORDERS)
def test_any_bytes_are_a_position_or_refused(data: bytes, order: RowOrder) -> None:
    columns = MAKERS["sealed"]([{"id": "a", "a": 1}, {"id": "b", "b": "x", "x": []}])
    try:
        order.check_position(data)
    except ValueError:
        return
    assert len(first_rows(columns, np.ones(2, np.bool_), order, after=data)) <= 2
