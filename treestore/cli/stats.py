"""``treestore stats``: sizes and counters."""

from __future__ import annotations

from typing import Any

import attrs
import click
import rich_click
from rich.table import Table

from treestore.cli.console import clean, output, print_json, size
from treestore.cli.target import Target, run, target_options


@click.command(cls=rich_click.RichCommand)
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def stats(target: Target, as_json: bool) -> None:
    """Show sizes and counters of a database."""

    async def main() -> tuple[Any, list[Any]]:
        async with target.database() as db:
            return await db.admin.stats(), await db.admin.snapshots()

    found, snapshots = run(main)
    if as_json:
        print_json({**attrs.asdict(found), "open_snapshots": snapshots})
        return
    output().print(stats_table(found))
    if snapshots:
        output().print(snapshots_table(snapshots))


def snapshots_table(snapshots: list[Any]) -> Table:
    """Who holds a state, for how long, and what that keeps from being used again."""
    table = Table("snapshot", "owner", "age (s)", "keeps", "reads", "state", box=None)
    for one in snapshots:
        table.add_row(
            *(str(one.id), clean(one.owner), f"{one.age_s:,.0f}", size(one.pinned_bytes)),
            *(str(one.reads_in_flight), one.state),
        )
    return table


def stats_table(found: Any) -> Table:
    """Every number of ``found``, nested ones under dotted names."""
    table = Table("what", box=None, show_header=False, pad_edge=False)
    table.columns[0].style = "cyan"
    table.add_column("value", justify="right")
    section = ""
    for name, value in flattened(attrs.asdict(found)):
        head = name.rpartition(".")[0]
        if head != section and table.row_count:
            table.add_section()
        section = head
        table.add_row(clean(name.replace("_", " ")), clean(shown(name, value)))
    return table


def flattened(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested dicts under dotted names; lists of dicts are numbered."""
    if isinstance(value, dict):
        inner = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        inner = [(str(number), item) for number, item in enumerate(value)]
    else:
        return [(name, value)]
    return [
        leaf for key, item in inner for leaf in flattened(item, f"{name}.{key}" if name else key)
    ]


def shown(name: str, value: Any) -> str:
    """A value for people."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int | float):
        if "bytes" in name.rpartition(".")[2].split("_"):
            return size(value)
        return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "-"
    return str(value)
