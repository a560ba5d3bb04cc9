"""``treestore backup``: a backup of a store, while it is being used."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import click
import rich_click
import trio
from rich.progress import Progress

from treestore.cli.console import clean, output, plural, print_json, size
from treestore.cli.progress import bar
from treestore.cli.target import Target, run, target_options
from treestore.errors import TreeStoreError
from treestore.model.admin import BackupResult

POLL_S = 0.25


@click.command(cls=rich_click.RichCommand)
@target_options
@click.option(
    "--output",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The directory to make; with --connect, a path of the server's.",
)
@click.option(
    "--incremental-from",
    "parent",
    type=click.Path(path_type=Path),
    metavar="PREVIOUS",
    help="An earlier backup: what is in it is not copied again.",
)
@click.option("--no-verify", is_flag=True, help="Do not open and check the backup.")
@click.option(
    "--rate-limit-mb",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Copy at most N MiB a second.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def backup(
    context: click.Context,
    /,
    target: Target,
    path: Path,
    parent: Path | None,
    no_verify: bool,
    rate_limit_mb: float | None,
    as_json: bool,
) -> None:
    """Back a store up, whatever is read and written meanwhile.

    The backup appears under its name when it is whole and was opened and checked.
    """
    if target.address is not None:
        for given in filter(None, (path, parent)):
            if not given.is_absolute():
                text = f"With --connect, {given} is a path of the server's: give an absolute one."
                raise click.UsageError(text, context)

    where = os.path.abspath(path)
    options = {
        "incremental_from": None if parent is None else os.path.abspath(parent),
        "verify": not no_verify,
        "rate_limit_mb": rate_limit_mb,
    }

    async def main() -> BackupResult:
        async with target.database() as db:
            return await _watched(db, partial(db.admin.backup, where, **options))

    made = run(main)
    if as_json:
        print_json(made)
        return
    kind = "a full backup" if made.parent_id is None else "an incremental backup"
    checked = "verified" if made.verified else "not verified"
    output().print(
        clean(
            f"{made.path}: {kind} of {plural(made.keys, 'key')}, "
            f"{plural(made.pages_copied, 'page')} copied ({size(made.size_bytes)}), up to record "
            f"{made.lsn} of {made.time}, {checked}"
        ),
        markup=False,
        soft_wrap=True,
    )


async def _watched(db: Any, work: Any) -> BackupResult:
    """Await ``work`` beside a progress bar, where there is a terminal for one."""
    with bar() as progress:
        async with trio.open_nursery() as nursery:
            if not progress.disable:
                nursery.start_soon(_poll, db, progress)
            made: BackupResult = await work()
            nursery.cancel_scope.cancel()
    return made


async def _poll(db: Any, progress: Progress) -> None:
    task = progress.add_task("starting", total=None)
    while True:
        await trio.sleep(POLL_S)
        try:
            found = await db.admin.backup_progress()
        except TreeStoreError:
            continue  # whoever awaits the backup itself hears of it
        if found is not None:
            progress.update(
                task,
                description=found.phase,
                completed=found.pages,
                total=found.pages_total or None,
            )
