"""The results as a table on the screen, as JSON and as a table in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
from rich.table import Table
from rich.text import Text

from scripts.bench.measure import Check, Result, Series
from scripts.bench.rows import TREESTORE

BEGIN = "<!-- results: written by `treestore bench --markdown` -->"
END = "<!-- end of results -->"

_STYLES = {"ok": "green", "MISSED": "bold red", "not measured": "yellow"}


@attrs.frozen
class Report:
    """Everything that one run found."""

    date: str
    quick: bool
    machine: dict[str, str]
    environment: dict[str, str]
    results: list[Result]
    notes: list[str]

    @property
    def missed(self) -> int:
        """Targets that were measured and not reached."""
        return sum(
            check.verdict == "MISSED" for result in self.results for check in result.checks()
        )


def number(value: float) -> str:
    """Three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def measured(check: Check) -> str:
    """The value of a check with its unit."""
    if check.value is None:
        return "—"
    units = {"ratio": "×", "seconds": " s", "milliseconds": " ms", "mebibytes": " MiB"}
    return number(check.value) + units[check.target.unit]


def _figure(result: Result, series: Series) -> str:
    """What a system reached: its rate, or its median latency where that is the target."""
    if any(target.at_most and target.unit == "ratio" for target in result.row.targets):
        return f"{series.latencies_ms()['p50']:.3f} ms"
    return f"{number(series.median)} {result.row.unit}"


def lines(result: Result) -> list[tuple[str, str, str, str, str]]:
    """A row as lines: title, TreeStore, the other, measured against the target, verdict."""
    ours = result.of(TREESTORE)
    own = _figure(result, ours) if ours else "—"
    found = []
    for check in result.checks():
        theirs = result.of(check.target.against) if check.target.against else None
        other = _figure(result, theirs) if theirs else ""
        found.append((other, measured(check), check.target.label, check.verdict))
    for series in result.series:
        targets = [target.against for target in result.row.targets]
        if series.system not in (TREESTORE, *targets) and series.rates:
            ratio = result.ratio(series.system)
            shown = "" if ratio is None else f"{number(ratio)}×"
            found.append((_figure(result, series), shown, series.system, ""))
    if not found:
        found.append(("", "", "", ""))
    return [
        (result.row.title if at == 0 else "", own if at == 0 else "", *rest[:1],
         f"{rest[1]}  of {rest[2]}" if rest[2] and not rest[3] else f"{rest[1]}  {rest[2]}",
         rest[3])
        for at, rest in enumerate(found)
    ]  # fmt: skip


def table(report: Report) -> Table:
    """The table for the screen."""
    shown = Table(title=f"TreeStore beside others, {report.date}", title_justify="left")
    for heading in ("row", TREESTORE, "other", "measured, target", "verdict"):
        shown.add_column(heading, justify="right" if heading in (TREESTORE, "other") else "left")
    for result in report.results:
        for title, own, other, target, verdict in lines(result):
            shown.add_row(title, own, other, target, Text(verdict, _STYLES.get(verdict, "dim")))
        shown.add_section()
    return shown


def as_json(report: Report) -> dict[str, Any]:
    """The results for machines."""
    return {
        "date": report.date,
        "quick": report.quick,
        "machine": report.machine,
        "environment": report.environment,
        "notes": report.notes,
        "missed": report.missed,
        "rows": [_row_as_json(result) for result in report.results],
    }


def _row_as_json(result: Result) -> dict[str, Any]:
    systems: dict[str, Any] = {}
    for series in result.series:
        if series.rates:
            systems[series.system] = {
                "median": series.median,
                "unit": result.row.unit,
                "repetitions": series.rates,
                "latency_ms": series.latencies_ms(),
                "ratio": result.ratio(series.system),
            }
    checks = [
        {
            "target": check.target.label,
            "limit": check.target.limit,
            "aim": check.target.aim,
            "value": check.value,
            "verdict": check.verdict,
        }
        for check in result.checks()
    ]
    return {
        "name": result.row.name,
        "title": result.row.title,
        "systems": systems,
        "checks": checks,
        "numbers": result.numbers,
        "notes": result.notes,
    }


def write_json(report: Report, path: Path) -> None:
    """Write ``results.json``."""
    path.write_text(json.dumps(as_json(report), indent=1, ensure_ascii=False) + "\n")


def write_markdown(report: Report, path: Path) -> None:
    """Put the table between the markers of a page.

    Raises:
        ValueError: the page has no markers.
    """
    put_between(path, BEGIN, END, markdown(report))


def put_between(path: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two markers of a page.

    Raises:
        ValueError: the page has no such markers.
    """
    page = path.read_text(encoding="utf-8")
    head, first, rest = page.partition(begin)
    _, last, tail = rest.partition(end)
    if not first or not last:
        raise ValueError(f"{path} does not contain {begin} and {end}")
    path.write_text(f"{head}{begin}\n\n{text}\n{end}{tail}", encoding="utf-8")


def markdown(report: Report) -> str:
    """The table as Markdown, with date and machine."""
    machine = {**report.machine, **report.environment}
    facts = ", ".join(f"{name}: {value}" for name, value in machine.items())
    kind = "Quick run" if report.quick else "Run"
    text = [f"{kind} of {report.date}. {facts}.", ""]
    text += ["| row | TreeStore | other | measured, target | verdict |", "|---|---:|---:|---|---|"]
    for result in report.results:
        for cells in lines(result):
            text.append("| " + " | ".join(" ".join(cell.split()) for cell in cells) + " |")
    timed = [result for result in report.results if any(s.latencies_s for s in result.series)]
    if timed:
        text += ["", "| latency in ms | system | p50 | p99 | p99.9 | max |"]
        text.append("|---|---|---:|---:|---:|---:|")
        for result in timed:
            for series in result.series:
                values = [number(value) for value in series.latencies_ms().values()]
                if values:
                    shown = " | ".join(values)
                    text.append(f"| {result.row.title} | {series.system} | {shown} |")
    notes = [f"- {result.row.title}: {note}" for result in report.results for note in result.notes]
    notes += [f"- {note}" for note in report.notes]
    if notes:
        text += ["", *notes]
    return "\n".join(text) + "\n"
