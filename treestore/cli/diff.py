"""``treestore diff``: what differs between two versions of a policy."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click
import rich_click
from rich.console import Console
from rich.text import Text

from treestore.cli.console import clean, output, print_json, styled
from treestore.cli.target import Target, run, target_options
from treestore.model.versions import FieldChange, NodeChange

MARKS = {
    "added": ("+", "green"),
    "removed": ("-", "red"),
    "changed": ("~", "yellow"),
    "moved": (">", "blue"),
}


@click.command(cls=rich_click.RichCommand)
@click.argument("policy")
@click.argument("version_a", metavar="OLD")
@click.argument("version_b", metavar="NEW")
@click.option("--no-text", is_flag=True, help="Do not show what changed in texts.")
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def diff(
    target: Target, policy: str, version_a: str, version_b: str, no_text: bool, as_json: bool
) -> None:
    """Show which nodes of POLICY were added, removed, changed or moved from OLD to NEW."""

    async def main() -> list[NodeChange]:
        async with target.database() as db:
            found: list[NodeChange] = await db.versions.diff(
                policy, version_a, version_b, include_text=not no_text
            )
            return found

    changes = run(main)
    if as_json:
        print_json(changes)
        return
    console = output()
    for change in changes:
        print_change(console, change)
    console.print(summary(changes))


def summary(changes: Sequence[NodeChange]) -> str:
    """``2 added, 1 changed``."""
    counts: Counter[str] = Counter(change.kind for change in changes)
    words = [f"{counts[kind]:,} {kind}" for kind in MARKS if counts[kind]]
    return ", ".join(words) or "Nothing differs."


def print_change(console: Console, change: NodeChange) -> None:
    """One change for people: a line, and below it what differs."""
    mark, style = MARKS[change.kind]
    line = Text(f"{mark} {change.kind:8}", style=style, no_wrap=True, overflow="ellipsis")
    line.append(clean(change.node_id), style="cyan")
    line.append(f"  {clean(change.title) or '(no title)'}", style="default")
    if change.kind == "moved":
        old = _place(change.old_parent_id, change.old_index)
        line.append(f"  {old} → {_place(change.parent_id, change.index)}", style="dim")
    console.print(line)
    for field in change.fields:
        print_field(console, field)


def _place(parent_id: str | None, index: int | None) -> str:
    """Where a node stands: its parent and its position from 1."""
    return f"{'root' if parent_id is None else clean(parent_id)}/{(index or 0) + 1}"


def print_field(console: Console, field: FieldChange) -> None:
    """The old and new value of a field; of a text, the lines that differ."""
    if field.name != "text":
        console.print(styled(f"    {field.name}: {_shown(field.old)} → {_shown(field.new)}"))
        return
    if field.old is None and field.new is None:
        console.print(styled("    text differs"))
        return
    old, new = str(field.old).split("\n"), str(field.new).split("\n")
    for line in list(difflib.unified_diff(old, new, n=0, lineterm=""))[2:]:
        if not line.startswith("@@"):
            style = "green" if line.startswith("+") else "red"
            console.print(styled(f"    {line}", style), soft_wrap=True)


def _shown(value: Any) -> str:
    return "none" if value is None else repr(value)
