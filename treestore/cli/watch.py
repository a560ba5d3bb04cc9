"""``treestore watch``: changes of a running server, as they are committed."""

from __future__ import annotations

import sys

import attrs
import click
import msgspec
import rich_click
from rich.text import Text

from treestore.cli.console import clean, output
from treestore.cli.target import Target, run, target_options
from treestore.model.changes import Change


@click.command(cls=rich_click.RichCommand)
@click.option(
    "--from-lsn",
    metavar="LSN|POSITION",
    help="Begin behind this LSN (0: everything that the log still has), or behind a position as "
    "--json prints it. Default: what is committed from now on.",
)
@click.option("--service", metavar="NAME", help="Only changes of kv, documents, versions, …")
@click.option("--policy", metavar="P", help="Only changes of this policy.")
@click.option("--collection", metavar="C", help="Only changes of this collection or namespace.")
@click.option("--prefix", metavar="TEXT", help="Only keys of kv that begin with this.")
@click.option("--values", is_flag=True, help="Show the new values of kv, too.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after so many changes.")
@target_options
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a line; keys and values of kv in base64.",
)
def watch(
    target: Target,
    from_lsn: str | None,
    service: str | None,
    policy: str | None,
    collection: str | None,
    prefix: str | None,
    values: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show what is changed on a server, as it is committed, until Ctrl-C.

    A lost connection is made up for, without leaving a change out or showing one twice. Where the
    log no longer has what lies behind the position, the command ends and says so.
    """
    if target.data is not None:
        raise click.UsageError(
            "A directory that is opened here has nobody else who changes it: watch a server, "
            "with --connect HOST:PORT."
        )
    start = int(from_lsn) if from_lsn is not None and from_lsn.isdecimal() else from_lsn
    show = _show_json if as_json else _show

    async def main() -> None:
        left = limit
        async with (
            target.database() as db,
            db.watch(
                start,
                service=service,
                policy_id=policy,
                collection=collection,
                prefix=None if prefix is None else prefix.encode(),
                values=values,
            ) as feed,
        ):
            async for change in feed:
                show(change)
                if left is not None:
                    left -= 1
                    if left == 0:
                        return

    run(main)


def _show_json(change: Change) -> None:
    facts = {name: fact for name, fact in attrs.asdict(change).items() if fact is not None}
    sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")
    sys.stdout.flush()


def _show(change: Change) -> None:
    parts = [change.time.strftime("%H:%M:%S"), str(change.lsn)]
    parts.append(f"{change.service} {change.entity} {change.kind}")
    for name in ("policy_id", "version_id", "node_id", "collection", "entity_id"):
        fact = getattr(change, name)
        if fact is not None:
            parts.append(f"{name.removesuffix('_id')} {fact}")
    parts += [_shown(data) for data in (change.key, change.value) if data is not None]
    # The transaction goes on behind a line that ends with an ellipsis.
    line = clean("  ".join(parts)) + ("" if change.last else " …")
    output().print(Text(line), soft_wrap=True)
    sys.stdout.flush()


def _shown(data: bytes) -> str:
    text = repr(data)[1:]
    return text if len(text) <= 120 else text[:117] + "..."
