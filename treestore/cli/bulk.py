"""``treestore bulk``: many documents into a namespace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import rich_click
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from treestore.cli.console import clean, errors, output, plural, print_json
from treestore.cli.target import Target, run, target_options
from treestore.errors import AlreadyExists, InvalidArgument
from treestore.model.bulk import BulkMode, BulkReport

SHOWN = 10
"""Rejected lines that are printed; ``--json`` has the first 1,000."""


@click.command(cls=rich_click.RichCommand)
@click.argument("namespace")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["ndjson", "parquet", "arrow"]),
    help="Default: by the file's suffix, else ndjson.",
)
@click.option(
    "--schema",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="A file with the namespace's schema: create it where there is none.",
)
@click.option(
    "--all-or-nothing",
    is_flag=True,
    help="Show nothing before the end, and nothing where a line is wrong.",
)
@click.option(
    "--import-id",
    metavar="ID",
    help="Makes it resumable: run again with the same id, it goes on where it was.",
)
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def bulk(
    target: Target,
    namespace: str,
    file: Path,
    kind: str | None,
    schema: Path | None,
    all_or_nothing: bool,
    import_id: str | None,
    as_json: bool,
) -> int:
    """Store the documents of FILE in NAMESPACE: NDJSON (also .gz), Parquet or Arrow; - is stdin.

    A line is a document: {"id": 1, "vector": [0.1, …], "attributes": {"year": 2024}}. What cannot
    be stored is reported line by line, the others are stored, and the exit code is 1.
    """
    mode: BulkMode = "all_or_nothing" if all_or_nothing else "best_effort"
    source: Any = sys.stdin.buffer if str(file) == "-" else file

    wanted = None if schema is None else _read_schema(schema)

    async def main() -> BulkReport:
        async with target.database(create=wanted is not None) as db:
            if wanted is not None:
                await _ensure(db, namespace, wanted)
            with _progress() as progress:
                task = progress.add_task("", total=None)

                def tell(done: int, total: int | None) -> None:
                    progress.update(task, completed=done, total=total)

                options = {"format": kind, "mode": mode, "import_id": import_id}
                report: BulkReport = await db.namespaces.bulk(
                    namespace, source, on_progress=tell, **options
                )
                return report

    report = run(main)
    if as_json:
        print_json(report)
    else:
        _print(namespace, report)
    return int(report.rejected > 0)


def _read_schema(file: Path) -> Any:
    try:
        return msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidArgument(f"{file} is no schema that can be read: {error}") from None


async def _ensure(db: Any, namespace: str, schema: Any) -> None:
    """Create the namespace, or find it there with that schema."""
    try:
        await db.namespaces.create(namespace, schema)
    except AlreadyExists as error:
        if not error.details.get("same"):
            raise


def _progress() -> Progress:
    console = errors()
    return Progress(
        SpinnerColumn(),
        TextColumn("storing"),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _print(namespace: str, report: BulkReport) -> None:
    console = output()
    for one in report.rejections[:SHOWN]:
        named = "" if one.id is None else f" (id {one.id!r})"
        console.print(clean(f"line {one.line}{named}: {one.error}"), markup=False, soft_wrap=True)
    if report.rejected > SHOWN:
        more = report.rejected - min(SHOWN, len(report.rejections))
        console.print(f"… and {plural(more, 'more line')}", markup=False)
    rate = (report.lines - report.resumed_at) / report.seconds if report.seconds else 0.0
    if report.applied:
        text = f"{namespace}: {plural(report.stored, 'document')} stored"
        text += f" ({rate:,.0f} lines a second)" if report.stored else ""
    else:
        text = f"{namespace}: nothing stored"
    if report.rejected:
        text += f", {plural(report.rejected, 'line')} rejected"
    if report.resumed_at:
        text += f"; went on behind line {report.resumed_at:,}"
    console.print(clean(text), markup=False, soft_wrap=True)
