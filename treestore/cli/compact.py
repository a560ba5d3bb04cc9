"""``treestore compact``: give the page file's free space back to the file system."""

from __future__ import annotations

from typing import Any

import click
import rich_click
import trio
from rich.status import Status

from treestore.cli.console import errors, output, plural, print_json, size
from treestore.cli.target import Target, run, target_options

LOOK_S = 0.5

TIMEOUT_S = 24 * 3600.0
"""Moving many gigabytes takes its time; Ctrl-C ends the wait."""


@click.command(cls=rich_click.RichCommand)
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compact(target: Target, as_json: bool) -> None:
    """Make the page file as short as what it holds.

    Readers and writers of a server go on meanwhile. What open snapshots keep is not given back.
    Interrupted, it has done a part of the work, and no harm.
    """

    async def main() -> Any:
        async with target.database(timeout=TIMEOUT_S) as db, trio.open_nursery() as nursery:
            nursery.start_soon(_show_progress, db)
            result = await db.admin.compact()
            nursery.cancel_scope.cancel()
        return result

    result = run(main)
    if as_json:
        print_json(result)
        return
    output().print(
        f"moved {plural(result.pages_moved, 'page')}, gave back {size(result.bytes_given_back)} in "
        f"{result.duration_s:.1f} s; the page file has {size(result.page_file_size_bytes)}",
        markup=False,
    )


async def _show_progress(db: Any) -> None:
    """A line on a terminal's standard error, until cancelled."""
    console = errors()
    if not console.is_terminal:
        return
    before: int | None = None
    with Status("compacting", console=console) as status:
        while True:
            found = await db.admin.stats()
            before = found.compaction_pages_moved if before is None else before
            moved = plural(found.compaction_pages_moved - before, "page")
            status.update(f"compacting: {moved} moved, {size(found.page_file_size_bytes)} long")
            await trio.sleep(LOOK_S)
