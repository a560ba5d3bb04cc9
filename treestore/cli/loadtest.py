"""``treestore loadtest``: a server under load, and all that it stored verified."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import rich_click
from rich.table import Table

from treestore.cli.console import clean, errors, output
from treestore.cli.progress import bar
from treestore.cli.target import run, trust
from treestore.errors import InvalidArgument
from treestore.loadtest.plan import MIX, Plan, parse_mix

if TYPE_CHECKING:
    from treestore.loadtest.report import Report, Row
    from treestore.loadtest.session import Told

PROBLEMS_SHOWN = 20
BARS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 60
MIX_TEXT = ",".join(f"{kind}={share}" for kind, share in MIX.items())


def _mix(context: click.Context, parameter: click.Parameter, text: str) -> dict[str, int]:
    try:
        return parse_mix(text)
    except InvalidArgument as error:
        raise click.BadParameter(error.message, context, parameter) from None


@click.command(cls=rich_click.RichCommand)
@click.option("--users", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option(
    "--duration",
    type=click.FloatRange(0.1, 7 * 86_400),
    default=60.0,
    metavar="SECONDS",
    help="How long they work.",
    show_default=True,
)
@click.option("--mix", default=MIX_TEXT, callback=_mix, help="Shares of calls.", show_default=True)
@click.option("--think-ms", type=click.FloatRange(0), default=0.0, help="Mean pause of a user.")
@click.option("--documents", type=click.IntRange(1, 999), default=20, help="Of each user, at most.")
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="The server (for HTTP also a URL); by default one is started in a temporary directory.",
)
@click.option("--protocol", type=click.Choice(["tcp", "http"]), default="tcp", show_default=True)
@click.option("--api-key", envvar="TREESTORE_API_KEY", metavar="KEY", help="For --address.")
@click.option(
    "--tls-ca",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Speak TLS with the server and trust these certificates (PEM).",
)
@click.option("--timeout", type=click.FloatRange(0.1), default=30.0, help="Of a call, in seconds.")
@click.option("--seed", type=int, default=1, help="Of what users choose.", show_default=True)
@click.option("--no-kill", is_flag=True, help="Do not kill a server of one's own before verifying.")
@click.option("--no-check", is_flag=True, help="Do not let the server check itself afterwards.")
@click.option("--keep", is_flag=True, help="Leave the run's collections on the server.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write the report as JSON there, too; - is standard output, without the tables.",
)
def loadtest(
    users: int,
    duration: float,
    mix: dict[str, int],
    think_ms: float,
    documents: int,
    address: str | None,
    protocol: str,
    api_key: str | None,
    tls_ca: Path | None,
    timeout: float,
    seed: int,
    no_kill: bool,
    no_check: bool,
    keep: bool,
    json_file: Path | None,
) -> int:
    """Put a server under load, and verify everything that it stored.

    Every user keeps a ledger of what was acknowledged to it. Answers are held against it while the
    load is on, and all that is stored afterwards. Ctrl-C ends the load early, with the report.
    Exit code 1 where a document is lost or wrong, or a call failed; refusals by limits that are
    there on purpose (rate limits, transactions that came too late) are counted apart.
    """
    from treestore.loadtest.session import Where
    from treestore.loadtest.session import loadtest as run_loadtest

    plan = Plan(
        users=users,
        duration_s=duration,
        mix=mix,
        protocol="tcp" if protocol == "tcp" else "http",
        seed=seed,
        think_s=think_ms / 1000,
        documents_each=documents,
        timeout_s=timeout,
    )
    where = Where(
        address=address,
        api_key=api_key,
        tls=None if tls_ca is None else trust(tls_ca),
        kill=not no_kill,
        check=not no_check,
        keep=keep,
    )
    with _progress(duration) as tell:
        report = run(lambda: run_loadtest(plan, where, tell))
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    if json_file is not None and str(json_file) == "-":
        click.echo(encoded, nl=False)
    else:
        if json_file is not None:
            json_file.write_bytes(encoded)
        show(report)
    return 0 if report.ok else 1


@contextmanager
def _progress(duration_s: float) -> Generator[Callable[[Told], None]]:
    """A bar with rate and errors on a terminal; a line for each step and tenth elsewhere."""
    console, said = errors(), ""
    with bar() as bars:
        task = bars.add_task("preparing", total=duration_s)

        def tell(told: Told) -> None:
            nonlocal said
            text, tenth = told.what, ""
            if told.statistics is not None:
                done = told.statistics.seconds
                rate = done[-2].calls if len(done) > 1 else 0
                failed = sum(each.errors for each in done)
                text = f"{rate:,} calls/s, {failed:,} errors"
                tenth = f"load {int(told.seconds * 10 / duration_s)}0 %"
                bars.update(task, completed=told.seconds)
            bars.update(task, description=text)
            step = tenth or told.what
            if not console.is_terminal and step != said:
                said = step
                console.print(f"{step}: {text}" if tenth else step, markup=False)

        yield tell


def show(report: Report) -> None:
    """The report for people."""
    console = output()
    console.print(_calls(report))
    console.print(_facts(report))
    for problem in report.problems[:PROBLEMS_SHOWN]:
        console.print(f"  {clean(problem)}", markup=False, soft_wrap=True)
    if report.wrong > PROBLEMS_SHOWN:
        console.print(f"  … {report.wrong:,} in all (--json has the first hundred)")
    if report.ok:
        console.print("Nothing was lost, nothing was wrong, no call failed.", style="green")
    else:
        text = f"{report.wrong:,} wrong, {sum(report.errors.values()):,} calls failed."
        console.print(text, style="bold red")


def _calls(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("calls", "count", "ok %", "limited %", "errors %", "timeouts %"):
        table.add_column(name, justify="left" if name == "calls" else "right")
    for name in report.total.latency_ms:
        table.add_column(f"{name} ms", justify="right")

    def add(name: str, row: Row) -> None:
        shares = (row.ok_percent, row.limited_percent, row.errors_percent, row.timeouts_percent)
        table.add_row(
            *(name, f"{row.calls:,}"),
            *(f"{share:.6g}" for share in shares),
            *(f"{latency:,.1f}" for latency in row.latency_ms.values()),
        )

    for name, row in report.operations.items():
        add(name, row)
    table.add_section()
    add("all", report.total)
    return table


def _facts(report: Report) -> Table:
    from treestore.loadtest.report import throughput

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="cyan")
    plan = report.plan
    rates = throughput(report)
    facts: list[tuple[str, Any]] = [
        ("users", f"{plan['users']:,} over {plan['protocol']}, seed {plan['seed']}"),
        ("calls a second", f"{report.calls_per_s:,.0f} over {report.elapsed_s:,.1f} s"),
        ("over time", _spark([each.calls_per_s for each in report.timeline])),
        ("", "least {:,.0f}, median {:,.0f}, most {:,.0f} calls/s".format(*rates)),
        (
            "writes of documents",
            f"{report.writes_acknowledged:,} acknowledged, {report.writes_refused:,} refused, "
            f"{report.writes_unknown:,} of unknown outcome",
        ),
        ("transfers", f"{report.transfers:,}; {report.conflicts:,} conflicts, made again"),
    ]
    facts += [(f"limit {code}", f"{count:,}") for code, count in report.limits.items()]
    for code, count in report.errors.items():
        facts.append((f"error {code}", f"{count:,}: {clean(report.messages[code])}"))
    verified = report.verified
    if verified is not None:
        facts.append(
            (
                "verified",
                f"{verified.documents:,} documents, {verified.queries:,} queries, "
                f"{verified.accounts:,} accounts, {verified.postings:,} postings"
                + (", after a SIGKILL" if report.restarted else ""),
            )
        )
        facts.append(("indexes used", ", ".join(map(clean, verified.indexes)) or "none"))
        facts.append(("check of the server", verified.check or "left out"))
    for name, fact in facts:
        table.add_row(name, fact)
    return table


def _spark(rates: list[float]) -> str:
    """A bar for each stretch of the run, at most `SPARK_WIDTH` of them."""
    if not rates:
        return ""
    step = -(-len(rates) // SPARK_WIDTH)
    means = [sum(rates[at : at + step]) / len(rates[at : at + step]) for at in
             range(0, len(rates), step)]  # fmt: skip
    most = max(means) or 1.0
    return "".join(BARS[min(len(BARS) - 1, int(rate / most * len(BARS)))] for rate in means)
