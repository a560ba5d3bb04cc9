"""``treestore search``: nodes by their words."""

from __future__ import annotations

from typing import Any

import attrs
import click
import rich_click
from rich.console import Console
from rich.text import Text

from treestore.cli.console import clean, output, print_json, styled
from treestore.cli.get import pages_of
from treestore.cli.target import Target, run, target_options
from treestore.errors import InvalidArgument
from treestore.model.search import Hit


@click.command(cls=rich_click.RichCommand)
@click.argument("query", nargs=-1, required=True, metavar="WORD...")
@click.option("--policy", "policy_id", metavar="ID", help="Default: all, each as in effect today.")
@click.option("--version", "version_id", metavar="V", help="Default: the one in effect today.")
@click.option(
    "--field",
    "fields",
    multiple=True,
    type=click.Choice(["title", "summary", "text"]),
    help="Look into this field only; may be repeated.",
)
@click.option("--mode", type=click.Choice(["any", "all", "phrase"]), default="any")
@click.option("--language", metavar="NAME", help="Only documents of this language.")
@click.option("--fuzzy", type=int, default=0, help="Letters that a word may differ in, 0 to 2.")
@click.option("--limit", "top_k", type=int, default=10, show_default=True, help="Hits at most.")
@click.option(
    "--eventual", is_flag=True, help="Do not wait for an index that is behind or being rebuilt."
)
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def search(
    target: Target,
    query: tuple[str, ...],
    fields: tuple[str, ...],
    eventual: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find nodes by their words, the best ones first.

    "several words" next to each other, wor* for what begins so, word~ for what differs in a letter,
    title:word in a field, +word and -word for what must and must not be there. Before a word that
    begins with a minus sign, write --.
    """
    if options["version_id"] is not None and options["policy_id"] is None:
        raise click.UsageError("--version is of a policy; say which with --policy.")

    async def main() -> list[Hit]:
        async with target.database() as db:
            hits: list[Hit] = await db.documents.search(
                " ".join(query),
                fields=list(fields) or None,
                consistency="eventual" if eventual else "strong",
                **options,
            )
            return hits

    try:
        hits = run(main)
    except InvalidArgument as error:
        raise click.UsageError(error.message) from None
    if as_json:
        print_json([attrs.asdict(hit) for hit in hits])
        return
    console = output()
    if not hits:
        console.print("Nothing was found.")
    for hit in hits:
        print_hit(console, hit)


def print_hit(console: Console, hit: Hit) -> None:
    """One hit for people: where it is, and why."""
    node = hit.node
    place = [f"{node.policy_id} version {node.version_id}", f"node {node.node_id}", pages_of(node)]
    console.print(styled(node.title or "(no title)", "bold"))
    facts = [*place, f"score {hit.score:.2f}"]
    console.print(styled(" · ".join(fact for fact in facts if fact), "cyan"))
    snippet = Text("  ")
    at = 0
    for start, end in hit.highlights:
        snippet.append(clean(hit.snippet[at:start].replace("\n", " ")))
        snippet.append(clean(hit.snippet[start:end]), "bold yellow")
        at = end
    snippet.append(clean(hit.snippet[at:].replace("\n", " ")))
    console.print(snippet)
