"""``treestore repair``: salvage a damaged store into a new directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import click
import rich_click

from treestore.cli import logs
from treestore.cli.console import clean, output, plural, print_json
from treestore.cli.keynames import key_json, key_name
from treestore.cli.progress import steps
from treestore.engine.directory import NAMES
from treestore.engine.engine import Engine
from treestore.engine.options import EngineOptions
from treestore.engine.realdisk import real_environment
from treestore.engine.salvage.rebuild import RepairOptions
from treestore.engine.salvage.rebuild import repair as repair_store
from treestore.engine.salvage.report import RepairReport, Skipped
from treestore.engine.unfinished import new_directory

SHOWN_MAX = 50
"""Skipped parts shown to people; ``--json`` gives all."""


@click.command(cls=rich_click.RichCommand)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    envvar="TREESTORE_DATA_DIR",
    metavar="DIR",
    help="The damaged data directory. It is only read. [env: TREESTORE_DATA_DIR]",
)
@click.option(
    "--output",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    metavar="NEW",
    help="The new data directory; must not exist, or be empty.",
)
@click.option(
    "--include-unreferenced",
    is_flag=True,
    help="For keys that are lost otherwise, use pages that nothing refers to any more. Where the "
    "report does not call them proven, they may hold what was deleted or changed later.",
)
@click.option(
    "--past-damage",
    is_flag=True,
    help="Apply whole log groups behind damage in the middle of the log, too. They may build on "
    "changes that are lost.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def repair(
    data: Path, target: Path, include_unreferenced: bool, past_damage: bool, as_json: bool
) -> int:
    """Salvage what can be read of a damaged store into a NEW directory.

    Reports everything that was skipped: pages, ranges of keys, log records, and why. The old
    directory is not touched. The new store is another database (it has its own uuid), and it is
    checked at the end.

    Exit code 0 only when nothing was skipped and the check found nothing; 1 otherwise, also when
    a new store was made.
    """
    logs.configure("warning")
    options = RepairOptions(include_unreferenced=include_unreferenced, past_damage=past_damage)
    environment = real_environment()
    path = os.path.abspath(target)
    with (
        new_directory(environment.disk, path, NAMES.__contains__) as unfinished,
        steps() as progress,
    ):
        report = repair_store(
            str(data),
            unfinished,
            options,
            EngineOptions(),
            environment,
            check_documents=_check_documents,
            progress=progress,
        )
    report.target = str(target)
    if as_json:
        print_json(as_document(report))
    else:
        _print(report)
    return 0 if report.complete else 1


def _check_documents(engine: Engine) -> list[str]:
    from treestore.stores.documents.check import check_documents

    return check_documents(engine.read())


def as_document(report: RepairReport) -> dict[str, Any]:
    """The report for machines: keys in hexadecimal and by name."""
    document: dict[str, Any] = {"complete": report.complete, **attrs.asdict(report)}
    for skipped in document["skipped"]:
        for name in ("key_low", "key_high"):
            skipped[name] = key_json(skipped[name])
    return document


def _print(report: RepairReport) -> None:
    console = output()

    def say(text: str, style: str = "") -> None:
        console.print(clean(text), style=style, markup=False)

    say(
        f"{report.target}: {plural(report.keys, 'key')}, database {report.new_database_uuid} "
        f"(was {report.database_uuid or 'unknown'})"
    )
    say(f"  {plural(report.keys_from_tree, 'key')} from the tree, slot {report.slot}")
    if report.keys_from_older_slot:
        say(f"  {plural(report.keys_from_older_slot, 'key')} from the older checkpoint")
    if report.keys_from_unreferenced:
        say(f"  {_unreferenced(report, report.keys_from_unreferenced)}", "yellow")
    say(
        f"  {plural(report.transactions_applied, 'transaction')} from the log, up to record "
        f"{report.log_lsn_last}"
    )
    for replaced in report.replaced[:SHOWN_MAX]:
        say(f"made good by {replaced.by}: {replaced.why}", "green")
    for first, last in report.past_damage:
        say(f"applied behind damage, as asked: log records {first} to {last}", "yellow")
    for skipped in report.skipped[:SHOWN_MAX]:
        say(f"skipped: {skipped_text(skipped)}", "red")
    if len(report.skipped) > SHOWN_MAX:
        say(f"… and {len(report.skipped) - SHOWN_MAX} more (--json lists them)")
    if report.keys_missing:
        say(
            f"{report.keys_missing:,} of {report.keys_expected or 0:,} keys of the checkpoint are "
            "missing",
            "red",
        )
    if report.unreferenced_keys > report.keys_from_unreferenced:
        text = _unreferenced(report, report.unreferenced_keys)
        say(f"not taken: {text}; --include-unreferenced takes them", "yellow")
    for error in (*report.check_errors[:SHOWN_MAX], *report.documents[:SHOWN_MAX]):
        say(f"the new store's check: {error}", "red")
    if report.complete:
        say("nothing was skipped", "green")
    else:
        say(f"{plural(len(report.skipped), 'part')} skipped", "bold red")


def _unreferenced(report: RepairReport, count: int) -> str:
    proof = (
        "proven to be in use by the list of free space"
        if report.unreferenced_proven
        else "not proven: what was deleted may be among them"
    )
    return f"{plural(count, 'key')} recovered from unreferenced pages ({proof})"


def skipped_text(skipped: Skipped) -> str:
    """One skipped part, for people."""
    where = ""
    if skipped.key_low is not None:
        if skipped.kind == "large value":
            where = f"the value of {key_name(skipped.key_low)}; "
        else:
            where = f"keys from {key_name(skipped.key_low)} to {key_name(skipped.key_high)}; "
    elif skipped.lsn_first is not None:
        last = "an unknown one" if skipped.lsn_last is None else str(skipped.lsn_last)
        where = f"log records {skipped.lsn_first} to {last}; "
    recovered = ""
    if skipped.keys_recovered:
        recovered = f" ({plural(skipped.keys_recovered, 'key')} recovered from unreferenced pages)"
    return f"{where}{skipped.why}{recovered}"
