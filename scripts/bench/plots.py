"""The results as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # Before pyplot: no window, no display.

import matplotlib.pyplot as plt

from scripts.bench.report import Report
from scripts.bench.rows import TREESTORE

_OK, _MISSED = "#2a7f62", "#c0392b"
_COLOURS = ("#2a7f62", "#34679a", "#b8860b")


def write_plots(report: Report, folder: Path) -> list[Path]:
    """Draw what there is; returns the files."""
    files = [draw_ratios(report, folder / "ratios.png"), draw_latencies(report, folder)]
    return [file for file in files if file is not None]


def draw_ratios(report: Report, path: Path) -> Path | None:
    """How far each target was reached: 1 is the target, more is better."""
    bars: list[tuple[str, float, str, float | None]] = []
    for result in report.results:
        for check in result.checks():
            target = check.target
            if not check.value:
                continue
            down = target.at_most
            reached = target.limit / check.value if down else check.value / target.limit
            aim = None
            if target.aim is not None:
                aim = target.limit / target.aim if down else target.aim / target.limit
            label = f"{result.row.title}\n{target.label}"
            bars.append((label, reached, check.verdict, aim))
    if not bars:
        return None
    bars.reverse()
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.5 * len(bars)))
    colours = [_OK if verdict == "ok" else _MISSED for _, _, verdict, _ in bars]
    drawn = axes.barh([label for label, *_ in bars], [bar[1] for bar in bars], color=colours)
    axes.bar_label(drawn, labels=[f" {bar[1]:.2f}" for bar in bars], fontsize=8)
    for at, (_, _, _, aim) in enumerate(bars):
        if aim is not None:
            axes.plot([aim, aim], [at - 0.4, at + 0.4], color="black", linewidth=1.5)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("measured / target (dashed: the target, short line: the aim); right is better")
    axes.set_title(f"TreeStore against its targets, {report.date}", loc="left")
    axes.tick_params(axis="y", labelsize=8)
    return _save(figure, path)


def draw_latencies(report: Report, folder: Path) -> Path | None:
    """p50, p99 and p99.9 of every row whose calls were timed."""
    rows = [
        result
        for result in report.results
        if any(series.latencies_s for series in result.series) and result.of(TREESTORE)
    ]
    if not rows:
        return None
    columns = 3
    lines = -(-len(rows) // columns)
    figure, grid = plt.subplots(lines, columns, figsize=(12, 2.8 * lines), squeeze=False)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    for axes, result in zip(grid.flat, rows, strict=False):
        timed = [series for series in result.series if series.latencies_s]
        width = 0.8 / len(timed)
        for at, series in enumerate(timed):
            values = series.latencies_ms()
            heights = [values[name] for name in ("p50", "p99", "p99.9")]
            places = [place + at * width for place in range(3)]
            colour = _COLOURS[at % len(_COLOURS)]
            axes.bar(places, heights, width, label=series.system, color=colour)
        axes.set_xticks([place + 0.4 - width / 2 for place in range(3)], ["p50", "p99", "p99.9"])
        axes.set_yscale("log")
        axes.set_ylabel("ms")
        axes.set_title(result.row.title, fontsize=8, loc="left")
        axes.legend(fontsize=7)
    return _save(figure, folder / "latencies.png")


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
