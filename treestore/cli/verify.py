"""``treestore verify``: is a backup whole, and can it be opened?"""

from __future__ import annotations

import os
from pathlib import Path

import click
import rich_click

from treestore.cli import logs
from treestore.cli.console import clean, output, plural, print_json
from treestore.engine.backup.manifest import iso_time
from treestore.engine.backup.verify import verify_backup
from treestore.engine.realdisk import real_environment


@click.command(cls=rich_click.RichCommand)
@click.argument("backup", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(backup: Path, as_json: bool) -> None:
    """Check a backup, and those that it builds on, and open it without changing it.

    Exit code 1 where anything is wrong.
    """
    logs.configure("warning")
    chain, report = verify_backup(real_environment(), os.path.abspath(backup))
    manifest = chain[0].manifest
    if as_json:
        print_json(
            {
                "ok": True,
                "backup_id": manifest.backup_id,
                "backups": [one.path for one in reversed(chain)],
                "timeline": manifest.timeline,
                "lsn": manifest.log_position.lsn,
                "time": iso_time(manifest.log_position.time_ns),
                "keys": report.keys,
                "pages": report.pages_used,
            }
        )
        return
    builds = f", builds on {plural(len(chain) - 1, 'backup')}" if len(chain) > 1 else ""
    console = output()
    console.print(
        clean(
            f"{backup}: {plural(report.keys, 'key')}, {plural(report.pages_used, 'page')}, up to "
            f"record {manifest.log_position.lsn} of {iso_time(manifest.log_position.time_ns)}"
            f"{builds}"
        ),
        markup=False,
        soft_wrap=True,
    )
    console.print("no errors", style="green")
