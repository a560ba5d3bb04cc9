"""``treestore check``: is everything in a data directory as it should be?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import click
import rich_click

from treestore.cli import logs
from treestore.cli.console import clean, output, plural, print_json, size
from treestore.cli.progress import bar
from treestore.cli.recovering import recovering
from treestore.engine.check import CheckReport, check_engine
from treestore.engine.directory import open_engine
from treestore.engine.options import EngineOptions
from treestore.engine.realdisk import real_environment

SHOWN_MAX = 20
"""Errors shown to people; ``--json`` gives all."""


@click.command(cls=rich_click.RichCommand)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    envvar="TREESTORE_DATA_DIR",
    metavar="DIR",
    help="The data directory; no server may be running on it. [env: TREESTORE_DATA_DIR]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def check(data: Path, as_json: bool) -> int:
    """Check every page, key and index of a data directory.

    Opening recovers the log first, as a server would. Exit code 1 where anything is wrong;
    warnings (one of the two meta slots is damaged) do not count.
    """
    logs.configure("warning")
    report, page_size_bytes = _check(data)
    if as_json:
        print_json({"ok": report.ok, **attrs.asdict(report)})
    else:
        _print(data, report, page_size_bytes)
    return 0 if report.ok else 1


def _check(data: Path) -> tuple[CheckReport, int]:
    # No actors and no event loop: nothing else runs, so nothing has to be kept waiting.
    from treestore.stores.documents.check import check_documents
    from treestore.stores.security.apikeys import check_keys
    from treestore.stores.security.audit import check_audit

    with recovering() as progress:
        environment = attrs.evolve(real_environment(), progress=progress)
        store = open_engine(str(data), EngineOptions(), environment, create=False)
    try:
        engine = store.engine
        free = engine.free_space
        total = max(1, free.page_count - free.free_pages() - free.retired_pages())
        with bar("checking {task.description}") as progress:
            pages = progress.add_task("pages", total=total)
            report = check_engine(
                engine, lambda done: progress.update(pages, completed=min(done, total))
            )
            progress.update(pages, completed=total)
            if report.ok:
                documents = progress.add_task("documents", total=None)
                report.errors += check_documents(engine.read())
                report.errors += check_keys(engine.read())
                report.errors += check_audit(engine.read())
                progress.update(documents, total=1, completed=1)
        return report, engine.pages.shape.page_size
    finally:
        store.close()


def _print(data: Path, report: CheckReport, page_size_bytes: int) -> None:
    console = output()
    found: list[Any] = [
        plural(report.keys, "key"),
        f"{plural(report.pages_used, 'page')} ({size(report.pages_used * page_size_bytes)})",
        f"{plural(report.pages_free + report.pages_retired, 'free page')}",
        f"height {report.height}",
    ]
    console.print(f"{clean(str(data))}: {', '.join(found)}", markup=False)
    for warning in report.warnings:
        console.print(f"  warning: {clean(warning)}", style="yellow", markup=False)
    if report.ok:
        console.print("no errors", style="green")
        return
    for error in report.errors[:SHOWN_MAX]:
        console.print(f"  {clean(error)}", markup=False)
    if len(report.errors) > SHOWN_MAX:
        console.print(f"  … and {len(report.errors) - SHOWN_MAX} more (--json lists them)")
    console.print(plural(len(report.errors), "error"), style="bold red")
