"""Options, the order of the rows, and the outputs."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import shutil
import signal
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from scripts.bench import rows
from scripts.bench.embedded import run_embedded
from scripts.bench.law import run_law
from scripts.bench.loop import run_loop
from scripts.bench.machine import describe_machine, file_system
from scripts.bench.observed import run_observed
from scripts.bench.queries import run_documents, run_queries
from scripts.bench.recovery import run_recovery
from scripts.bench.report import Report, as_json, table, write_json, write_markdown
from scripts.bench.search import run_search
from scripts.bench.session import Session
from scripts.bench.sizes import QUICK, Sizes
from scripts.bench.tcp import run_tcp
from scripts.bench.worker import ROOT

OUT = ROOT / "bench"
RESULTS = "results.json"
WIDTH = 140
"""Of the table where it is not printed on a terminal."""


def run_benchmark(
    quick: bool = False,
    only: Sequence[str] = (),
    out: Path = OUT,
    json_output: bool = False,
    *,
    strict: bool = False,
    markdown: Path | None = None,
    directory: Path | None = None,
) -> int:
    """Run the benchmark; returns an exit code.

    Args:
        quick: a rougher run that ends in two minutes.
        only: names, or parts of names, of the rows to measure; all where empty.
        out: folder for ``results.json`` and the pictures.
        json_output: print JSON instead of a table.
        strict: return 1 where a target was missed.
        markdown: page whose table of results is replaced.
        directory: where data are kept meanwhile; by default a temporary folder on a disk.
    """
    console = Console(stderr=True)
    wanted = [row for row in rows.ALL if not only or any(part in row.name for part in only)]
    if not wanted:
        names = ", ".join(row.name for row in rows.ALL)
        console.print(f"There is no such row; there are: {names}.", style="red", markup=False)
        return 2
    with _scratch(directory, console) as scratch, _termination():
        report = _measure(QUICK if quick else Sizes(), quick, wanted, scratch, console)
    out.mkdir(parents=True, exist_ok=True)
    if only:
        console.print("Only some rows were measured: files are not written.", style="dim")
    else:
        write_json(report, out / RESULTS)
        from scripts.bench.plots import write_plots  # Matplotlib takes a second to import.

        for file in [out / RESULTS, *write_plots(report, out)]:
            console.print(f"wrote {file}", style="dim", markup=False, highlight=False)
    if markdown is not None:
        write_markdown(report, markdown)
    if json_output:
        print(json.dumps(as_json(report), indent=1, ensure_ascii=False))
    else:
        _show(report)
    return 1 if strict and report.missed else 0


def _measure(
    sizes: Sizes, quick: bool, wanted: list[rows.Row], scratch: Path, console: Console
) -> Report:
    machine = describe_machine(scratch)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} rows"),
        BarColumn(20),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=len(wanted))
        session = Session(sizes, scratch, wanted, progress, task)
        run_embedded(session)
        run_tcp(session)
        run_documents(session)
        run_queries(session)
        run_law(session)
        run_loop(session)
        run_recovery(session)
        run_search(session)
        run_observed(session)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Report(date, quick, machine, session.environment, session.results, session.notes)


def _show(report: Report) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table(report))
    for result in report.results:
        for note in result.notes:
            console.print(f"{result.row.title}: {note}", style="dim", markup=False)
    missed = report.missed
    if missed:
        console.print(f"{missed} targets were missed.", style="bold red")
    if report.quick:
        console.print("This was a quick run: its numbers are rough.", style="yellow")


@contextlib.contextmanager
def _scratch(directory: Path | None, console: Console) -> Generator[Path, None, None]:
    """A folder for the data, removed at the end whatever happens.

    By default below /var/tmp, because /tmp is often in memory, where a sync costs nothing.
    """
    disk = Path("/var/tmp")
    parent = directory or (disk if disk.is_dir() else Path(tempfile.gettempdir()))
    parent.mkdir(parents=True, exist_ok=True)
    if file_system(parent) in ("tmpfs", "ramfs"):
        console.print(
            f"{parent} is in memory: durable writes cost nothing there. Choose --directory.",
            style="yellow",
        )
    scratch = Path(tempfile.mkdtemp(prefix="treestore-bench-", dir=parent))
    scratch.chmod(0o755)  # PostgreSQL's user passes through it.
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _termination() -> Generator[None, None, None]:
    """Unwind on SIGTERM, so that the servers stop and their data go."""

    def stop(*_: object) -> NoReturn:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(arguments: Sequence[str] | None = None) -> int:
    """The command line, as ``treestore bench`` calls it; returns an exit code.

    Args:
        arguments: flags; those of the process where None.
    """
    parser = argparse.ArgumentParser(
        prog="treestore bench", description="TreeStore beside other stores. See docs/benchmarks.md."
    )
    parser.add_argument("--quick", action="store_true", help="a rough run in two minutes")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ROW", help="rows with ROW in their name"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the results")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--strict", action="store_true", help="exit code 1 where a target is missed"
    )
    parser.add_argument("--markdown", type=Path, help="page whose table of results is replaced")
    parser.add_argument("--directory", type=Path, help="where data are kept meanwhile")
    given = parser.parse_args(arguments)
    try:
        return run_benchmark(
            given.quick,
            given.only,
            given.out,
            given.json,
            strict=given.strict,
            markdown=given.markdown,
            directory=given.directory,
        )
    except KeyboardInterrupt:
        return 130
