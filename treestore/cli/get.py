"""``treestore get``: nodes, with where they stand."""

from __future__ import annotations

from textwrap import indent
from typing import Any

import attrs
import click
import rich_click
from rich.console import Console
from rich.padding import Padding

from treestore.cli.console import clean, output, print_json, styled
from treestore.cli.target import Target, run, target_options
from treestore.model.documents import Node


@attrs.frozen
class Found:
    """A node and its ancestors, root first."""

    node: Node
    ancestors: list[Node]


@click.command(cls=rich_click.RichCommand)
@click.argument("policy")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.option("--version", "version_id", metavar="V", help="Default: the one in effect today.")
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def get(
    target: Target, policy: str, nodes: tuple[str, ...], version_id: str | None, as_json: bool
) -> None:
    """Show nodes of a document: their text, and the path that leads to each."""

    async def main() -> list[Found]:
        async with target.database() as db:
            return await fetch(db, policy, nodes, version_id)

    found = run(main)
    if as_json:
        print_json(
            [{**attrs.asdict(f.node), "ancestors": [_short(a) for a in f.ancestors]} for f in found]
        )
        return
    console = output()
    for number, item in enumerate(found):
        if number:
            console.print()
        print_node(console, item)


async def fetch(
    db: Any, policy: str, nodes: tuple[str, ...], version_id: str | None
) -> list[Found]:
    """The nodes in the order asked, all of one version of the document."""
    if version_id is None:
        # Asked once, so that midnight or a new version cannot come between two nodes.
        version_id = (await db.documents.get(policy)).version_id
    found = []
    for node in await db.documents.get_nodes(policy, list(nodes), version_id=version_id):
        path = await db.documents.get_ancestor_path(policy, node.node_id, version_id=version_id)
        found.append(Found(node, path[:-1]))
    return found


def _short(node: Node) -> dict[str, str]:
    return {"node_id": node.node_id, "title": node.title}


def pages_of(node: Node) -> str:
    """``p. 3`` or ``pp. 3-7``; "" where the document has no pages."""
    if node.page_start is None:
        return ""
    if node.page_end is None or node.page_end == node.page_start:
        return f"p. {node.page_start}"
    return f"pp. {node.page_start}-{node.page_end}"


def print_node(console: Console, found: Found) -> None:
    """One node for people: path, title, facts, summary, text."""
    node = found.node
    if found.ancestors:
        path = " › ".join(clean(a.title) or a.node_id for a in found.ancestors)
        console.print(styled(path, "dim"))
    console.print(styled(node.title or "(no title)", "bold"))
    facts = [f"node {node.node_id}", f"section {node.section_path}", pages_of(node)]
    facts.append(f"{node.policy_id} version {node.version_id}")
    if node.child_ids:
        facts.append(f"children {', '.join(node.child_ids)}")
    console.print(styled(" · ".join(fact for fact in facts if fact), "cyan"))
    for name, text, style in (("summary", node.summary, "italic"), ("text", node.text, "")):
        if text:
            console.print(styled(name, "dim"))
            _print_block(console, text.strip("\n"), style)


def _print_block(console: Console, text: str, style: str) -> None:
    if console.is_terminal:
        console.print(Padding(styled(text, style, keep="\n\t"), (0, 0, 0, 2)))
    else:
        # Neither wrapped nor filled up with blanks: it goes to a file or to another program.
        console.print(styled(indent(text, "  "), keep="\n\t"), soft_wrap=True)
