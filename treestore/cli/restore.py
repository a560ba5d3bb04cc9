"""``treestore restore``: a new data directory from a backup and the archive."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import click
import rich_click

from treestore.cli import logs
from treestore.cli.console import clean, output, plural, print_json
from treestore.cli.progress import steps
from treestore.engine.backup.restore import RestoreReport, Target
from treestore.engine.backup.restore import restore as restore_here
from treestore.engine.realdisk import real_environment


class _Time(click.ParamType[int]):
    """ISO 8601; without an offset it is local time. Nanoseconds since 1970."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            when = datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no time like 2025-07-01T12:00:00+00:00.", param, ctx)
        whole = int(when.replace(microsecond=0).timestamp())
        # The whole microsecond that it names: times are shown no finer.
        return (whole * 1_000_000 + when.microsecond) * 1000 + 999


@click.command(cls=rich_click.RichCommand)
@click.option(
    "--from",
    "source",
    required=True,
    type=click.Path(path_type=Path),
    metavar="BACKUP",
    help="The backup to begin with; those that it builds on are found by themselves.",
)
@click.option(
    "--archive",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The archive directory: what was committed after the backup is applied too.",
)
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="NEW",
    help="The data directory to make.",
)
@click.option("--to-lsn", type=click.IntRange(min=0), metavar="N", help="Stop after record N.")
@click.option(
    "--to-time", type=_Time(), metavar="T", help="Stop after what was committed at T (ISO 8601)."
)
@click.option(
    "--timeline",
    type=click.IntRange(min=1),
    metavar="N",
    help="The timeline to follow. [default: the newest that the backup lies on]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def restore(
    source: Path,
    archive: Path | None,
    data: Path,
    to_lsn: int | None,
    to_time: int | None,
    timeline: int | None,
    as_json: bool,
) -> None:
    """Make a new data directory from a backup, and from the archive up to a record or a time.

    Neither is changed. The directory appears under its name when it is whole and checked.
    """
    logs.configure("warning")
    with steps() as progress:
        report = restore_here(
            real_environment(),
            os.path.abspath(source),
            os.path.abspath(data),
            archive=None if archive is None else os.path.abspath(archive),
            target=Target(lsn=to_lsn, time_ns=to_time, timeline=timeline),
            progress=progress,
        )
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: RestoreReport) -> None:
    console = output()
    console.print(
        clean(
            f"{report.path}: {plural(report.keys, 'key')}, up to record {report.lsn}, committed "
            f"at {report.time}; {plural(report.replayed_transactions, 'transaction')} from the "
            f"archive; timeline {report.timeline}, which leaves timeline {report.parent_timeline}"
        ),
        markup=False,
        soft_wrap=True,
    )
    console.print("no errors", style="green")
