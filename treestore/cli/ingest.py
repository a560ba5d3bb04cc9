"""``treestore ingest``: files become documents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import attrs
import click
import rich_click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column

from treestore.cli.console import clean, errors, output, plural, print_json
from treestore.cli.program import one_line
from treestore.cli.source import FORMATS, Source, read_source
from treestore.cli.target import Target, run, target_options
from treestore.errors import OutcomeUnknown, TreeStoreError, Unauthenticated, Unavailable
from treestore.model.documents import Document


@attrs.frozen
class Outcome:
    """What became of one file."""

    file: str
    document: Document | None = None
    error: str | None = None


@attrs.frozen(kw_only=True)
class Naming:
    """What the stored documents are called, as far as the user said."""

    policy_id: str | None = None
    version_id: str | None = None
    effective_from: str | None = None
    effective_to: str | None = None
    language: str = "english"

    def policy_of(self, file: Path) -> str:
        """The policy that ``file`` becomes a version of."""
        return self.policy_id if self.policy_id is not None else file.stem

    def version_of(self, source: Source) -> str:
        """The version: as given, else the day it takes effect, else made from the content.

        So the same file ingested again replaces itself, and a changed file becomes a new version
        beside the old one.
        """
        return self.version_id or self.effective_from or source.digest[:12]


class _Day(click.ParamType[str]):
    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            self.fail(f"{value!r} is no date; write it as 2025-07-01.", param, ctx)


@click.command(cls=rich_click.RichCommand)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@click.option("--policy-id", metavar="ID", help="Default: the file's name without its suffix.")
@click.option(
    "--version-id",
    metavar="V",
    help="Default: the day of --effective-from, or else 12 digits made from the file's content.",
)
@click.option("--effective-from", type=_Day(), metavar="DATE", help="First day it is in effect.")
@click.option("--effective-to", type=_Day(), metavar="DATE", help="Last day it is in effect.")
@click.option("--language", default="english", show_default=True, help="Of the text.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="Default: by the file's suffix, else by its content.",
)
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def ingest(
    context: click.Context,
    /,
    target: Target,
    files: tuple[Path, ...],
    kind: str | None,
    as_json: bool,
    **naming: Any,
) -> int:
    """Store documents from files: PageIndex JSON (every shape) or Markdown.

    Each file is stored whole or not at all. A file that cannot be stored is reported, the others
    are stored all the same, and the exit code is 1.
    """
    names = Naming(**naming)
    _check_names(context, files, names)
    console = errors()

    async def main() -> list[Outcome]:
        async with target.database(create=True) as db:
            return await ingest_files(db, files, names, kind=kind, console=console)

    outcomes = run(main)
    for outcome in outcomes:
        if outcome.error is not None:
            text = f"treestore: {one_line(outcome.file)}: {one_line(outcome.error)}"
            console.print(text, markup=False, soft_wrap=True)
    if as_json:
        print_json([attrs.asdict(outcome, recurse=False) for outcome in outcomes])
    else:
        for outcome in outcomes:
            if outcome.document is not None:
                _print(outcome.file, outcome.document)
    return int(any(outcome.error is not None for outcome in outcomes))


def _check_names(context: click.Context, files: Sequence[Path], names: Naming) -> None:
    """Refuse a command line whose files would replace one another."""
    for value, flag in ((names.policy_id, "--policy-id"), (names.version_id, "--version-id")):
        if value == "":
            raise click.UsageError(f"{flag} must not be empty.", context)
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(names.policy_of(file), file)
        if other is not file:
            raise click.UsageError(
                f"{other} and {file} would both become policy {names.policy_of(file)!r}; ingest "
                "them one by one with --policy-id or --version-id.",
                context,
            )


async def ingest_files(
    db: Any,
    files: Sequence[Path],
    names: Naming,
    *,
    kind: str | None = None,
    console: Console,
) -> list[Outcome]:
    """Store every file, with a progress bar on ``console``."""
    import trio

    outcomes: list[Outcome] = []
    with _progress(console) as progress:
        total = sum(file.stat().st_size for file in files if file.is_file())
        bar = progress.add_task("", total=total or None)
        for file in files:
            shown = clean(file.name)
            try:
                progress.update(bar, description=f"reading {shown}")
                source = await trio.to_thread.run_sync(
                    read_source, file, kind, abandon_on_cancel=True
                )
                found = plural(source.node_count, "node")
                progress.update(bar, description=f"storing {shown}: {found}")
                document = await store(db, file, source, names)
                outcomes.append(Outcome(str(file), document))
                progress.advance(bar, source.size_bytes)
            except (Unavailable, OutcomeUnknown, Unauthenticated):
                raise  # The database is gone; the next file would fare no better.
            except TreeStoreError as error:
                outcomes.append(Outcome(str(file), error=error.message))
    return outcomes


async def store(db: Any, file: Path, source: Source, names: Naming) -> Document:
    """Store one document that was read from ``file``."""
    document: Document = await db.documents.store(
        names.policy_of(file),
        names.version_of(source),
        source.structure,
        metadata={"source": file.name, "sha256": source.digest},
        language=names.language,
        effective_from=names.effective_from,
        effective_to=names.effective_to,
    )
    return document


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis"),
        ),
        BarColumn(bar_width=20),
        DownloadColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _print(file: str, document: Document) -> None:
    nodes = plural(document.node_count, "node")
    line = f"{file}: policy {document.policy_id}, version {document.version_id}, {nodes}"
    output().print(clean(line), markup=False, soft_wrap=True)
