"""The catalogue of metrics, the page about it and the dashboard say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.observability.catalogue import CATALOGUE, PROCESS_METRICS, Metric

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs" / "metrics.md").read_text("utf-8")
DASHBOARD = CHECKOUT / "examples" / "grafana.json"


def rows() -> dict[str, list[str]]:
    """The page's tables: a metric's name and the cells behind it."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 6 and cells[0].startswith("`treestore_"):
            found[cells[0].strip("`")] = cells[1:]
    return found


ROWS = rows()


def test_the_page_lists_what_is_exported() -> None:
    assert sorted(ROWS) == sorted(metric.full_name for metric in CATALOGUE)
    for name in PROCESS_METRICS:
        assert f"`{name}`" in PAGE


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_a_row_says_what_the_catalogue_says(metric: Metric) -> None:
    kind, unit, labels, meaning, alert = ROWS[metric.full_name]
    assert kind == metric.kind
    assert tuple(re.findall(r"`(\w+)`", labels)) == metric.labels
    assert unit
    assert meaning == metric.help
    assert alert


def test_names_follow_prometheus() -> None:
    for metric in CATALOGUE:
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", metric.name), metric.name
        assert not metric.name.endswith("total"), "the exporter adds it to counters"
        assert metric.help.endswith(".")


def expressions(value: Any) -> Iterator[str]:
    """Every query of a dashboard."""
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from expressions(item)


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    series = set(PROCESS_METRICS)
    for metric in CATALOGUE:
        parts = ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",)
        series |= {metric.full_name + part for part in parts}
    found = list(expressions(json.loads(DASHBOARD.read_text("utf-8"))))
    assert len(found) > 15
    for expression in found:
        asked = set(re.findall(r"\btreestore_\w+", expression))
        assert asked, expression
        assert asked <= series, asked - series


def test_the_alerts_of_the_page_name_metrics_that_exist() -> None:
    names = {metric.full_name for metric in CATALOGUE} | set(PROCESS_METRICS)
    for name in re.findall(r"`(treestore_\w+)`", PAGE):
        assert name in names, name
