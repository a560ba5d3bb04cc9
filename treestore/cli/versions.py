"""``treestore versions``: the versions of a policy, or all that was recorded of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import rich_click
from rich.table import Table

from treestore.cli.console import output, print_json, styled
from treestore.cli.target import Target, run, target_options
from treestore.model.versions import PolicyVersion

PAGE = 1000


@click.command(cls=rich_click.RichCommand)
@click.argument("policy")
@click.argument("version", required=False)
@click.option("--tag", metavar="TAG", help="Only versions with this tag.")
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def versions(
    target: Target, policy: str, version: str | None, tag: str | None, as_json: bool
) -> None:
    """List the versions of POLICY in the order of time.

    With VERSION: every state that was recorded of it, the oldest first.
    """
    if version is not None and tag is not None:
        raise click.UsageError("--tag chooses among all versions; leave VERSION out.")

    async def main() -> list[PolicyVersion]:
        async with target.database() as db:
            if version is not None:
                return await _all(db.versions.history, policy, version)
            if tag is not None:
                return await _all(db.versions.by_tag, policy, tag)
            return await _all(db.versions.list, policy)

    found = run(main)
    if as_json:
        print_json(found)
    elif not found:
        what = "Nothing was recorded of that version." if version else "No version has that tag."
        output().print(what)
    else:
        output().print(states_table(found) if version is not None else versions_table(found))


async def _all(listing: Any, *arguments: str) -> list[PolicyVersion]:
    found: list[PolicyVersion] = []
    cursor: str | None = None
    while True:
        page = await listing(*arguments, limit=PAGE, cursor=cursor)
        found.extend(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return found


def period_of(version: PolicyVersion) -> str:
    """When it is in effect: ``2024-01-01 to 2025-06-30``."""
    first, last = version.effective_from, version.effective_to
    if first is None and last is None:
        return "undated"
    if last is None:
        return f"from {first}"
    return f"until {last}" if first is None else f"{first} to {last}"


def versions_table(versions: Sequence[PolicyVersion]) -> Table:
    """The versions for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("version", "in effect", "document", "tags", "recorded", "description"):
        table.add_column(name)
    for version in versions:
        table.add_row(
            styled(version.version_id, "cyan"),
            period_of(version),
            "stored" if version.has_document else "",
            styled(", ".join(version.tags)),
            f"{version.recorded_at:%Y-%m-%d %H:%M}",
            styled(version.description),
        )
    return table


def states_table(states: Sequence[PolicyVersion]) -> Table:
    """The states of one version for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("recorded", "change", "in effect", "superseded by", "tags", "by", "description"):
        table.add_column(name)
    for state in states:
        table.add_row(
            f"{state.recorded_at:%Y-%m-%d %H:%M:%S.%f}",
            state.change,
            "withdrawn" if state.change == "withdrawn" else period_of(state),
            styled(state.superseded_by or ""),
            styled(", ".join(state.tags)),
            styled(state.created_by),
            styled(state.description),
        )
    return table
