"""Groups, aggregates and different values are those of the documents."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.columns.columns_cases import LIST_NAMES, MAKERS, SCALAR_NAMES, documents, grown
from treestore.errors import InvalidArgument, ResourceExhausted
from treestore.model.namespaces import AttributeSchema
from treestore.query.aggregation import Distinct, Groups, parse_grouping
from treestore.search.columns.grouping import (
    ColumnDistinct,
    ColumnGroups,
    exact_parts,
    parse_groups,
)

NAMES = [*SCALAR_NAMES, *LIST_NAMES]
AGGREGATES: dict[str, Any] = {
    f"{kind} {name}": {f"${kind}": name}
    for kind in ("count", "sum", "avg", "min", "max")
    for name in NAMES
} | {"all": {"$count": {}}}


def seen(value: Any) -> Any:
    """Tells 1 from 1.0, and NaN from nothing; not how a moment was written."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        return {name: seen(each) for name, each in value.items()}
    return [seen(each) for each in value] if isinstance(value, list) else repr(value)


def shown(groups: Groups) -> Any:
    return [(seen(dict(each.by)), seen(dict(each.values))) for each in groups.results()]


@pytest.mark.parametrize("form", MAKERS)
@given(documents(), st.lists(st.sampled_from(NAMES), max_size=2, unique=True), st.data())
def test_groups_are_those_of_the_documents(form: str, rows: Any, by: Any, data: Any) -> None:
    chosen = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    grouping = parse_grouping(by, AGGREGATES)
    wanted = Groups(grouping)
    for row, keep in zip(rows, chosen, strict=True):
        if keep:
            wanted.add(row)
    half = len(rows) // 2
    found = ColumnGroups(grouping)
    for some, keep in ((rows[:half], chosen[:half]), (rows[half:], chosen[half:])):
        found.add_rows(MAKERS[form](some), np.array(keep, np.bool_))
    assert shown(found) == shown(wanted)


@pytest.mark.parametrize("form", MAKERS)
@given(documents(), st.sampled_from(NAMES), st.data())
def test_different_values_are_those_of_the_documents(
    form: str, rows: Any, name: str, data: Any
) -> None:
    chosen = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    wanted = Distinct((name,), 1 << 30)
    for row, keep in zip(rows, chosen, strict=True):
        if keep:
            wanted.add(row)
    found = ColumnDistinct()
    found.add_rows(MAKERS[form](rows).column(name), np.array(chosen, np.bool_))
    assert list(map(seen, found.results())) == list(map(seen, wanted.results()))


@given(st.lists(st.floats(-1e290, 1e290)))
def test_a_few_floats_have_the_exact_sum_of_many(floats: list[float]) -> None:
    parts = exact_parts(floats)
    assert sum(map(Fraction, parts), Fraction(0)) == sum(map(Fraction, floats), Fraction(0))
    assert bool(parts) is bool(floats)


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treestore.search.columns.grouping.GROUPS_MAX", 3)
    grouping = parse_grouping("b", {})
    for rows in ([1, 2, 3, 4], [1, 2, 3]):
        columns = grown([{"b": number} for number in rows])
        groups = ColumnGroups(grouping)
        if len(rows) == 4:
            with pytest.raises(ResourceExhausted):
                groups.add_rows(columns, np.ones(4, np.bool_))
            continue
        groups.add_rows(columns, np.ones(3, np.bool_))
        with pytest.raises(ResourceExhausted):
            groups.add_rows(grown([{"b": 5}]), np.ones(1, np.bool_))


@pytest.mark.parametrize(
    ("by", "aggregates", "says"),
    [
        ("yaer", {}, "no attribute"),
        ("body", {}, "not filterable"),
        ([], {"a": {"$sum": "body"}}, "not filterable"),
        ([], {"a": {"$sum": "year.0"}}, "inside"),
        ([], {"a": {"$frob": "year"}}, "no"),
    ],
)
def test_what_cannot_be_grouped_is_refused(by: Any, aggregates: Any, says: str) -> None:
    attributes = {
        "year": AttributeSchema(type="int"),
        "body": AttributeSchema(type="string", filterable=False),
    }
    with pytest.raises(InvalidArgument, match=says):
        parse_groups(by, aggregates, attributes)
