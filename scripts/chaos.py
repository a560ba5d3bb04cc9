"""``make chaos``: crashes, kills and damage, for as long as asked; nothing may be lost.

Each subcommand prints a table, takes ``--json``, and exits with 1 where a promise was broken, with
a line that comes back to exactly that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import click
import rich_click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from treestore.cli.console import errors, output, print_json, size  # noqa: E402

JOBS = click.option(
    "--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="Processes."
)
SEED = click.option("--seed", type=int, default=1, help="Of the first round.", show_default=True)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group(cls=rich_click.RichGroup)
def chaos() -> None:
    """Crash, kill, flood and corrupt TreeStore, and see that nothing is lost."""


@contextmanager
def progress_bar(name: str, total: int) -> Generator[Any]:
    """A bar on a terminal; a line for every tenth part elsewhere. Yields ``tell(done)``."""
    console = errors()
    if not console.is_terminal:
        told = 0

        def line(done: int) -> None:
            nonlocal told
            if total and done * 10 // total > told:
                told = done * 10 // total
                console.print(f"{name}: {done:,} of {total:,}")

        yield line
        return
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)


@chaos.command(cls=rich_click.RichCommand)
@click.option("--points", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--workload", multiple=True, help="Only this one; may be given several times.")
@click.option("--step", type=int, help="Come back to one crash: the step …")
@click.option("--image", type=int, default=0, help="… the image of the medium …")
@click.option("--fault", default="", help="… and the failure that came before.")
@SEED
@JOBS
@JSON
def simulate(
    points: int,
    workload: tuple[str, ...],
    step: int | None,
    image: int,
    fault: str,
    seed: int,
    jobs: int,
    as_json: bool,
) -> None:
    """Crash before every I/O step of small workloads on a simulated disk, and recover."""
    from scripts.torture import simulate as module
    from tests.crash.points import Point, Violation
    from tests.crash.workloads import WORKLOADS

    for name in workload:
        if name not in WORKLOADS:
            raise click.BadParameter(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")
    if step is not None:
        if len(workload) != 1:
            raise click.UsageError("--step needs exactly one --workload")
        try:
            module.replay(Point(workload[0], seed, step, image, fault))
        except Violation as violation:
            cause = violation.__cause__
            raise violation from cause
        except LookupError as error:
            raise click.UsageError(str(error)) from None
        output().print("Nothing is wrong at that point.")
        return
    with progress_bar("crash points", points) as tell:
        result = module.simulate(points, seed, jobs, workload, tell)
    if as_json:
        print_json(_plain(result))
    else:
        _show(result)
    if result.violations:
        sys.exit(1)


def _plain(result: Any) -> dict[str, Any]:
    total = result.total
    return {
        "seed": result.seed,
        "seed_last": result.seed_last,
        "elapsed_s": round(result.elapsed_s, 1),
        "points": total.points,
        "recoveries": total.recoveries,
        "outcomes": dict(total.outcomes),
        "workloads": {name: tally.points for name, tally in result.tallies.items()},
        "violations": [str(violation) for violation in result.violations],
    }


def _show(result: Any) -> None:
    table = Table(title="Crash points")
    for column in ("workload", "runs", "steps", "points", "recoveries", "torn tails"):
        table.add_column(column, justify="left" if column == "workload" else "right")
    for name, tally in sorted(result.tallies.items()):
        torn = tally.outcomes["torn tail"]
        numbers = (result.runs[name], tally.steps, tally.points, tally.recoveries, torn)
        table.add_row(name, *(f"{number:,}" for number in numbers))
    console, total = output(), result.total
    console.print(table)
    console.print(
        f"{total.points:,} crash points, {total.recoveries:,} recoveries, seeds {result.seed} to "
        f"{result.seed_last}, {result.elapsed_s:,.0f} s: "
        + (f"{len(result.violations)} VIOLATED" if result.violations else "nothing was lost.")
    )
    for violation in result.violations:
        console.print(str(violation), markup=False)


@chaos.command(cls=rich_click.RichCommand)
@click.option("--rounds", type=click.IntRange(1), default=200, show_default=True)
@click.option("--directory", type=click.Path(file_okay=False, exists=True, path_type=Path))
@SEED
@JSON
def kill(rounds: int, directory: Path | None, seed: int, as_json: bool) -> None:
    """Kill, freeze, starve and cut off a real server under real clients."""
    from scripts.torture.kill import run

    with progress_bar("kills", rounds) as tell:
        result = run(rounds, seed, directory, tell)
    if as_json:
        fields = attrs.asdict(result, recurse=False)
        print_json({**fields, "ok": result.ok, "losses": [str(loss) for loss in result.losses]})
    else:
        table = Table(title="A real server under real clients", show_header=False)
        table.add_row("rounds", f"{result.rounds:,}")
        for name, count in sorted(result.mishaps.items()):
            table.add_row(name, f"{count:,}")
        table.add_row("connections cut", f"{result.resets:,}")
        table.add_row("calls", f"{result.calls:,}")
        table.add_row("writes acknowledged", f"{result.acknowledged:,}")
        table.add_row("writes refused, nothing changed", f"{result.refused:,}")
        table.add_row("writes of unknown outcome", f"{result.unknown:,}")
        for code, count in sorted(result.errors.items()):
            table.add_row(f"errors: {code}", f"{count:,}")
        start = f"median {result.start_ms_median:,.0f} ms, longest {result.start_ms_max:,.0f} ms"
        table.add_row("start and recovery", start)
        for reason in result.skipped:
            table.add_row("left out", reason)
        table.add_row("lost", f"{len(result.losses):,}")
        output().print(table)
        for loss in result.losses[:50]:
            output().print(str(loss), markup=False)
        if result.failure:
            output().print(result.failure, markup=False)
    if not result.ok:
        sys.exit(1)


@chaos.command(cls=rich_click.RichCommand)
@click.option("--inputs", type=click.IntRange(10), default=100_000, show_default=True)
@click.option("--layer", type=click.Choice(["machine", "session"]), help="Come back to one …")
@click.option("--input", "number", type=int, help="… input (with those of the same store).")
@SEED
@JOBS
@JSON
def fuzz(
    inputs: int, layer: str | None, number: int | None, seed: int, jobs: int, as_json: bool
) -> None:
    """Send hostile bytes to the protocol's state machine, and to sessions over a store."""
    from scripts.torture import fuzz as module

    if layer is not None and number is not None:
        first = module.start_of_batch(layer, number)
        result = module.batch(layer, seed, range(first, number + 1))
    else:
        with progress_bar("inputs", inputs) as tell:
            result = module.fuzz(inputs, seed, jobs, tell)
    if as_json:
        print_json(attrs.asdict(result))
    else:
        table = Table(title="Hostile input", show_header=False)
        for name, count in [*result.inputs.items(), *sorted(result.outcomes.items())]:
            table.add_row(name, f"{count:,}")
        table.add_row("memory of a process, peak", size(result.memory_size_bytes_peak))
        output().print(table)
        for violation in result.violations:
            output().print(violation, markup=False)
    if result.violations:
        sys.exit(1)


@chaos.command(cls=rich_click.RichCommand)
@click.option("--seconds", type=float, default=5.0, help="Of each attack.", show_default=True)
@SEED
@JSON
def flood(seconds: float, seed: int, as_json: bool) -> None:
    """Attack a real server, and see that well-behaved clients hardly notice."""
    from scripts.torture import flood as module

    with progress_bar("attacks", len(module.ATTACKS) + 1) as tell:
        result = module.run(seconds, seed, tell)
    if as_json:
        phases = [
            {
                "name": phase.name,
                "attackers": phase.attackers,
                "calls": len(phase.latencies_ms),
                "errors": len(phase.errors),
                "median_ms": round(phase.median_ms, 3),
                "p99_ms": round(phase.p99_ms, 3),
                "memory_mb_peak": round(phase.memory_mb_peak, 1),
            }
            for phase in result.phases
        ]
        remarks = {"problems": result.problems, "remarks": result.remarks}
        print_json({"phases": phases, **remarks})
    else:
        table = Table(title="Well-behaved clients beside an attack")
        for column in ("attack", "attackers", "calls", "errors", "median", "p99", "memory"):
            table.add_column(column, justify="left" if column == "attack" else "right")
        for phase in result.phases:
            table.add_row(
                *(phase.name, str(phase.attackers), f"{len(phase.latencies_ms):,}"),
                *(str(len(phase.errors)), f"{phase.median_ms:.2f} ms", f"{phase.p99_ms:.2f} ms"),
                f"{phase.memory_mb_peak:.0f} MiB",
            )
        output().print(table)
        for problem in [*result.remarks, *result.problems]:
            output().print(problem, markup=False)
    if not result.ok:
        sys.exit(1)


@chaos.command(cls=rich_click.RichCommand)
@click.option("--connections", type=click.IntRange(2), default=1000, show_default=True)
@click.option("--writers", type=click.IntRange(1), default=100, show_default=True)
@click.option("--seconds", type=float, default=60.0, show_default=True)
@SEED
@JSON
def load(connections: int, writers: int, seconds: float, seed: int, as_json: bool) -> None:
    """A thousand users at once; then every document is verified."""
    from scripts.torture import load as module
    from treestore.loadtest.statistics import percentiles_ms

    with progress_bar("seconds", int(seconds)) as tell:
        result = module.run(connections, writers, seconds, seed, tell)
    total, operations = result.statistics.total(), result.statistics.operations
    by = {name: each.count for name, each in sorted(operations.items())}
    shown = max(1, total.count)
    facts: dict[str, Any] = {
        "connections": connections,
        "writers": writers,
        "seed": seed,
        "calls": total.count,
        "calls_per_s": round(total.count / seconds, 1),
        "success_percent": round(100 * total.ok / shown, 3),
        "errors_percent": round(100 * total.errors.total() / shown, 3),
        "timeouts_percent": round(100 * total.timeouts / shown, 3),
        **{f"{name}_ms": ms for name, ms in percentiles_ms(total.latencies_s).items()},
        "documents_verified": result.documents,
        "nodes_verified": result.nodes,
        "wrong": len(result.wrong),
    }
    if as_json:
        counts = {"by_operation": by, "by_error": dict(total.errors)}
        print_json({**facts, **counts, "problems": result.wrong[:100]})
    else:
        table = Table(title="Load", show_header=False)
        for name, count in [*facts.items(), *by.items()]:
            table.add_row(name.replace("_", " "), f"{count:,}")
        for code, count in sorted(total.errors.items()):
            table.add_row(f"error {code}", f"{count:,}")
        output().print(table)
        for problem in result.wrong[:50]:
            output().print(problem, markup=False)
    if not result.ok:
        sys.exit(1)


@chaos.command(cls=rich_click.RichCommand)
@click.option("--sample", is_flag=True, help="Headers and a sample of the rest only.")
@SEED
@JSON
def bitrot(sample: bool, seed: int, as_json: bool) -> None:
    """Change every byte of small stores in turn; each must be noticed, made good, or unused."""
    from scripts.torture import bitrot as module

    with progress_bar("bytes", 0) as tell:
        result = module.run(seed, every_byte=not sample, progress=lambda _name, done: tell(done))
    if as_json:
        print_json({"ok": result.ok, **attrs.asdict(result)})
    else:
        table = Table(title="Bit rot", show_header=False)
        for name, count in [*sorted(result.by_use.items()), ("all", result.trials)]:
            table.add_row(name, f"{count:,}")
        output().print(table)
        for failure in result.failures:
            output().print(failure, markup=False)
    if not result.ok:
        sys.exit(1)


@chaos.command(cls=rich_click.RichCommand)
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True)
@SEED
@JOBS
@JSON
def service(seeds: int, seed: int, jobs: int, as_json: bool) -> None:
    """Play the whole service on a virtual clock, network and disk, and judge its history."""
    from scripts.simulation.service import replay_command, run_seeds

    totals: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    bad: list[str] = []
    with progress_bar("worlds", seeds) as tell:
        for done, result in enumerate(run_seeds(range(seed, seed + seeds), jobs), start=1):
            totals += Counter(calls=result.calls, lives=result.lives, events=result.events)
            totals["virtual seconds"] += int(result.virtual_s)
            faults += Counter(result.faults)
            if result.violations:
                bad += [*result.violations, f"again: {replay_command(result.seed)}"]
            tell(done)
    if as_json:
        print_json({"seed": seed, "worlds": seeds, **totals, "faults": faults, "violations": bad})
    else:
        table = Table(title="The service, simulated", show_header=False)
        for name, count in [("worlds", seeds), *totals.items(), *sorted(faults.items())]:
            table.add_row(name.replace("_", " "), f"{count:,}")
        output().print(table)
        for line in bad:
            output().print(line, markup=False)
    if bad:
        sys.exit(1)


MIX = (
    ("simulate", "--points", "60000"),
    ("service", "--seeds", "60"),
    ("kill", "--rounds", "40"),
    ("bitrot", "--sample"),
    ("fuzz", "--inputs", "60000"),
    ("flood", "--seconds", "4"),
    ("load", "--seconds", "30"),
)
"""About ten minutes on two cores."""


@chaos.command(cls=rich_click.RichCommand)
@SEED
def mix(seed: int) -> None:
    """All of them, about ten minutes together."""
    failed = []
    for name, *arguments in MIX:
        output().rule(name)
        command = [sys.executable, __file__, name, *arguments, "--seed", str(seed)]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    output().rule()
    text = f"Broken promises: {', '.join(failed)}." if failed else "Every promise was kept."
    output().print(text)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    chaos()
