"""``treestore tree``: a document's outline, drawn; without a policy, the documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import rich_click
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from treestore.cli.console import clean, output, plural, print_json, styled
from treestore.cli.get import pages_of
from treestore.cli.target import Target, run, target_options
from treestore.model.documents import Document, Node


@click.command(cls=rich_click.RichCommand)
@click.argument("policy", required=False)
@click.option("--version", "version_id", metavar="V", help="Default: the one in effect today.")
@click.option("--node", "node_id", metavar="ID", help="Start at this node.")
@click.option(
    "--depth", type=click.IntRange(min=0), metavar="N", help="Levels below the start to show."
)
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def tree(
    target: Target,
    policy: str | None,
    version_id: str | None,
    node_id: str | None,
    depth: int | None,
    as_json: bool,
) -> None:
    """Draw the tree of a document. Without POLICY: list the documents."""
    if policy is None:
        if version_id is not None or node_id is not None or depth is not None:
            raise click.UsageError("--version, --node and --depth need a POLICY.")
        documents = run(lambda: _documents(target))
        if as_json:
            print_json(documents)
        elif documents:
            output().print(documents_table(documents))
        else:
            output().print("There are no documents; `treestore ingest` adds some.")
        return

    async def main() -> tuple[Document, list[Node]]:
        async with target.database() as db:
            document = await db.documents.get(policy, version_id)
            nodes = await db.documents.get_subtree(
                policy,
                node_id,
                max_depth=depth,
                include_text=False,
                version_id=document.version_id,
            )
            return document, nodes

    document, nodes = run(main)
    if as_json:
        print_json({"document": document, "nodes": nodes})
    else:
        output().print(drawn(document, nodes))


async def _documents(target: Target) -> list[Document]:
    async with target.database() as db:
        return await all_documents(db)


async def all_documents(db: Any) -> list[Document]:
    """Every version of every policy."""
    documents: list[Document] = []
    cursor: str | None = None
    while True:
        page = await db.documents.list(limit=1000, cursor=cursor)
        documents.extend(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return documents


def documents_table(documents: Sequence[Document]) -> Table:
    """The documents for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("policy", "version", "nodes", "in effect", "stored"):
        table.add_column(name, justify="right" if name == "nodes" else "left")
    for document in documents:
        table.add_row(
            styled(document.policy_id, "cyan"),
            styled(document.version_id),
            f"{document.node_count:,}",
            period(document),
            f"{document.updated_at:%Y-%m-%d %H:%M}",
        )
    return table


def period(document: Document) -> str:
    """When it is in effect: ``2024-01-01 to 2025-06-30``."""
    first, last = document.effective_from, document.effective_to
    if first is None and last is None:
        return "undated"
    if last is None:
        return f"from {first}"
    return f"until {last}" if first is None else f"{first} to {last}"


def drawn(document: Document, nodes: Sequence[Node]) -> Tree:
    """The nodes, which are in document order, as a tree."""
    facts = f"{plural(document.node_count, 'node')}, {period(document)}"
    root = Tree(
        Text.assemble(
            (clean(document.policy_id), "bold"),
            f" version {clean(document.version_id)} ",
            (f"({facts})", "dim"),
        ),
        guide_style="dim",
    )
    branches: dict[str, Tree] = {}
    shown = {node.node_id for node in nodes}
    for node in nodes:
        above = branches.get(node.parent_id or "", root)
        hidden = sum(child not in shown for child in node.child_ids)
        branches[node.node_id] = above.add(label(node, hidden))
    return root


def label(node: Node, hidden: int = 0) -> Text:
    """One node in one line."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(clean(node.node_id), "cyan")
    text.append(f"  {clean(node.title) or '(no title)'}")
    pages = pages_of(node)
    if pages:
        text.append(f"  {pages}", "dim")
    if hidden:
        text.append(f"  … {hidden} {'child' if hidden == 1 else 'children'}", "dim")
    return text
