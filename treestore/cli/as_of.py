"""``treestore as-of``: which version is, or was believed to be, in effect on a day."""

from __future__ import annotations

import click
import rich_click
from rich.table import Table

from treestore.cli.console import output, print_json, styled
from treestore.cli.target import Target, run, target_options
from treestore.cli.versions import period_of
from treestore.model.versions import PolicyVersion


@click.command(name="as-of", cls=rich_click.RichCommand)
@click.argument("policy")
@click.argument("day", metavar="DATE")
@click.option(
    "--known-at",
    metavar="TIME",
    help="As it was believed then: a time, or a date for the end of that day (UTC).",
)
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def as_of(target: Target, policy: str, day: str, known_at: str | None, as_json: bool) -> None:
    """Show the version of POLICY that is in effect on DATE, such as 2024-07-01."""

    async def main() -> PolicyVersion:
        async with target.database() as db:
            version: PolicyVersion = await db.versions.as_of(policy, day, known_at=known_at)
            return version

    version = run(main)
    if as_json:
        print_json(version)
    else:
        output().print(facts_table(version))


def facts_table(version: PolicyVersion) -> Table:
    """One version, a fact a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    facts = {
        "policy": version.policy_id,
        "version": version.version_id,
        "in effect": period_of(version),
        "supersedes": version.supersedes,
        "superseded by": version.superseded_by,
        "tags": ", ".join(version.tags),
        "description": version.description,
        "document": "stored" if version.has_document else "none",
        "recorded": f"{version.recorded_at:%Y-%m-%d %H:%M:%S} UTC, {version.change}",
        "by": version.created_by,
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, styled(value, "bold" if name == "version" else "", keep="\n"))
    return table
