"""``treestore dump``: what is in the files of a store, page by page and record by record."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import rich_click
from rich.console import Console

from treestore.cli.console import clean, output, plural, size
from treestore.cli.keynames import key_json, key_name
from treestore.engine.log import LogIdentity
from treestore.engine.log.record import LogRecord
from treestore.engine.meta import first_page
from treestore.engine.node import Large, Node, Ref
from treestore.engine.pagefile import PageFile
from treestore.engine.realdisk import RealDisk
from treestore.engine.salvage.inspect import node_of, outline, stored_checksum
from treestore.engine.salvage.logmap import LogMap, Stretch, map_log
from treestore.engine.salvage.replay import changes
from treestore.engine.salvage.scan import KIND_NAMES, run_at, scan_runs
from treestore.engine.salvage.source import Source, open_source
from treestore.errors import CorruptionError, InvalidArgument

KINDS_OF_RECORDS = {1: "data", 2: "commit", 3: "synced"}

ALL_SEGMENTS = "all"

CHANGES_SHOWN_MAX = 8
"""Changes of one log record shown to people; ``--json`` gives all."""


class Printer:
    """Prints facts one by one: a line for people, or one line of JSON."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._console: Console = output()

    def say(self, what: str, facts: dict[str, Any], text: str, style: str = "") -> None:
        """One fact.

        Args:
            what: its kind, for machines.
            facts: for machines.
            text: for people.
            style: of the text on a terminal.
        """
        if self.as_json:
            sys.stdout.write(msgspec.json.encode({"what": what, **facts}).decode() + "\n")
        else:
            self._console.print(clean(text, "\n"), style=style, markup=False, soft_wrap=True)


@click.command(cls=rich_click.RichCommand)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    envvar="TREESTORE_DATA_DIR",
    metavar="DIR",
    help="The data directory, or a copy. It is only read; no server may be running on it. "
    "[env: TREESTORE_DATA_DIR]",
)
@click.option("--page", type=click.IntRange(min=0), metavar="N", help="One page, with its entries.")
@click.option("--pages", is_flag=True, help="Every page of the file, used or not.")
@click.option("--tree", is_flag=True, help="The tree: nodes with key ranges and fill.")
@click.option(
    "--log",
    "segment",
    is_flag=False,
    flag_value=ALL_SEGMENTS,
    metavar="[SEGMENT]",
    help="The log's records, of all segments or of one (its number, or its file's name).",
)
@click.option("--from-lsn", type=click.IntRange(min=1), metavar="N", help="Records from N on.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each fact.")
def dump(
    data: Path,
    page: int | None,
    pages: bool,
    tree: bool,
    segment: str | None,
    from_lsn: int | None,
    as_json: bool,
) -> None:
    """Print what is in the files of a data directory, damaged or not.

    Without a choice: the meta slots and a summary of pages and log. Nothing is opened for writing,
    nothing is recovered.
    """
    printer = Printer(as_json)
    source = open_source(RealDisk(), str(data))
    try:
        if page is not None:
            _page(printer, _page_file(source), page)
        if pages:
            _pages(printer, _page_file(source))
        if tree:
            _tree(printer, source)
        if segment is not None or from_lsn is not None:
            _log(printer, source, segment or ALL_SEGMENTS, from_lsn or 1)
        if page is None and not (pages or tree or segment or from_lsn):
            _summary(printer, source)
    finally:
        source.close()


def _page_file(source: Source) -> PageFile:
    if source.pages is None:
        raise InvalidArgument(f"{source.directory} has no page file.")
    return source.pages


# -- summary --------------------------------------------------------------------------------------


def _summary(printer: Printer, source: Source) -> None:
    _slots(printer, source)
    if source.pages is not None:
        known = "" if source.page_size_known else " (a guess: no meta slot says it)"
        length = source.pages.file.size()
        facts = {"page_size_bytes": source.page_size, "size_bytes": length}
        text = f"page file: {size(length)} in pages of {source.page_size} bytes{known}"
        printer.say("page_file", facts, text)
        counts: dict[str, int] = {}
        for run in scan_runs(source.pages.file, source.page_size):
            name = KIND_NAMES.get(run.kind, run.state)
            counts[name] = counts.get(name, 0) + run.pages
        for name, count in sorted(counts.items()):
            printer.say("pages_of_kind", {"kind": name, "pages": count}, f"  {name}: {count:,}")
    with _Log(source) as log:
        for view in log.segments:
            _segment(printer, log, view.path)
        for index, gaps in enumerate(log.gaps):
            for gap in gaps:
                _gap(printer, index, gap.path, gap.offset, gap.after, gap.until, gap.why)


def _slots(printer: Printer, source: Source) -> None:
    newest = source.metas[0].sequence if source.metas else None
    for number, slot in enumerate(source.slots):
        meta = slot.meta
        facts: dict[str, Any] = {"slot": number, "offset": slot.offset, "state": slot.state}
        if meta is None:
            printer.say("slot", facts, f"slot {number} at byte {slot.offset}: {slot.state}", "red")
            continue
        facts.update(
            database_uuid=meta.database_uuid.hex(),
            timeline=meta.timeline,
            sequence=meta.sequence,
            commit_number=meta.number,
            root_page=meta.root_page,
            root_checksum=meta.root_checksum,
            keys=meta.key_count,
            pages=meta.page_count,
            free_runs=[list(run) for run in meta.free_runs],
            log_position=list(meta.log_position),
            created_at_ns=meta.created_at_ns,
        )
        written = datetime.fromtimestamp(meta.created_at_ns / 1e9, UTC).isoformat(" ", "seconds")
        in_use = ", in use" if meta.sequence == newest else ""
        printer.say(
            "slot",
            facts,
            f"slot {number} at byte {slot.offset}: checkpoint {meta.sequence} of {written}"
            f"{in_use}\n"
            f"  database {meta.database_uuid.hex()}, timeline {meta.timeline}\n"
            f"  root page {meta.root_page}, {plural(meta.key_count, 'key')}, "
            f"{plural(meta.page_count, 'page')}, commit {meta.number}\n"
            f"  list of free space in pages {[page for page, _, _ in meta.free_runs]}\n"
            f"  log after record {meta.log_position[0]} (segment {meta.log_position[4]}, byte "
            f"{meta.log_position[6]})",
        )


# -- pages ----------------------------------------------------------------------------------------


def _pages(printer: Printer, pages: PageFile) -> None:
    room = pages.shape.page_size
    for run in scan_runs(pages.file, room):
        name = KIND_NAMES.get(run.kind, run.state)
        facts = {
            "page": run.page,
            "pages": run.pages,
            "kind": name,
            "whole": run.state == "whole",
            "born": run.born,
            "size_bytes": run.size,
            "checksum": run.checksum,
        }
        until = f"-{run.page + run.pages - 1}" if run.pages > 1 else ""
        text = f"page {run.page}{until}: {name}"
        if run.state == "whole":
            fill = run.size / (run.pages * room)
            text += f", born {run.born}, {size(run.size)}, {fill:.0%} full"
        printer.say("page", facts, text, "dim" if run.state != "whole" else "")


def _page(printer: Printer, pages: PageFile, number: int) -> None:
    page_size = pages.shape.page_size
    if not 0 <= number * page_size < pages.file.size():
        last = pages.file.size() // page_size - 1
        raise InvalidArgument(f"There is no page {number}; the last one is {last}.")
    if number < first_page(page_size):
        raise InvalidArgument(f"Page {number} belongs to the meta slots; `treestore dump` shows.")
    run = run_at(pages.file, number, page_size)
    name = KIND_NAMES.get(run.kind, run.state)
    carried = stored_checksum(pages, number)
    facts = {
        "page": number,
        "pages": run.pages,
        "offset": number * page_size,
        "kind": name,
        "whole": run.state == "whole",
        "born": run.born,
        "size_bytes": run.size,
        "checksum": carried,
    }
    text = f"page {number} at byte {number * page_size}: {name}, carries checksum {carried:#010x}"
    if run.state == "whole":
        text += f", {plural(run.pages, 'page')}, born {run.born}, payload {run.size} bytes"
    printer.say("page", facts, text)
    try:
        node = node_of(pages, run) if run.state == "whole" else None
    except CorruptionError as error:
        printer.say("problem", {"page": number, "why": error.message}, error.message, "red")
        return
    if node is not None:
        for facts, line in _entries(node):
            printer.say("entry", facts, f"  {line}")


def _entries(node: Node) -> Iterator[tuple[dict[str, Any], str]]:
    if node.children is not None:
        for index, child in enumerate(node.children):
            low = node.keys[index - 1] if index else b""
            facts: dict[str, Any] = {
                "from": key_json(low),
                "page": child.page,
                "checksum": child.checksum,
            }
            yield facts, f"from {key_name(low)}: page {child.page}, {child.checksum:#010x}"
        return
    for key, cell in zip(node.keys, node.values, strict=True):
        if isinstance(cell, Large):
            runs = [list(extent) for extent in cell.extents]
            facts = {"key": key_json(key), "size_bytes": cell.length, "runs": runs}
            where = ", ".join(f"page {page} ({pages})" for page, pages, _ in cell.extents)
            yield facts, f"{key_name(key)}: large, {cell.length:,} bytes in {where}"
        else:
            facts = {"key": key_json(key), "size_bytes": len(cell), "value": cell.hex()}
            yield facts, f"{key_name(key)}: {len(cell)} bytes"


def _tree(printer: Printer, source: Source) -> None:
    pages = _page_file(source)
    if not source.metas:
        raise CorruptionError(
            f"{pages.file.path} has no whole meta slot, so nobody knows where the tree begins; "
            "--pages shows what is there.",
            file=pages.file.path,
            offset=0,
        )
    newest = source.metas[0]
    for node in outline(pages, Ref(None, newest.root_page, newest.root_checksum)):
        facts: dict[str, Any] = {
            "page": node.page,
            "depth": node.depth,
            "kind": node.kind,
            "low": key_json(node.low),
            "high": key_json(node.high),
            "entries": node.entries,
            "large_values": node.large_values,
            "fill": round(node.fill, 4),
            "born": node.born,
            "problem": node.problem,
        }
        span = f"from {key_name(node.low)} to {key_name(node.high)}"
        if node.problem is not None:
            text = f"page {node.page}: {node.problem} ({span})"
        else:
            what = "children" if node.kind == "branch" else "entries"
            large = f", {node.large_values} large" if node.large_values else ""
            text = (
                f"{node.kind} page {node.page}: {node.entries} {what}{large}, {node.fill:.0%} "
                f"full, {span}"
            )
        style = "red" if node.problem else "bold" if node.kind == "branch" else ""
        printer.say("node", facts, "  " * (node.depth - 1) + text, style)


# -- log ------------------------------------------------------------------------------------------


class _Log:
    """The map of a source's log, closed at the end."""

    def __init__(self, source: Source) -> None:
        identity = None
        if source.metas:
            identity = LogIdentity(source.metas[0].database_uuid, source.metas[0].timeline)
        self._map = LogMap([], [], [[]])
        if source.has_log:
            self._map = map_log(source.disk, source.log_directory, identity)

    def __enter__(self) -> LogMap:
        return self._map

    def __exit__(self, *_error: object) -> None:
        self._map.close()


def _segment(printer: Printer, log: LogMap, path: str) -> None:
    view = next(view for view in log.segments if view.path == path)
    header = view.header
    groups = [stretch.lsns for stretch in view.stretches if stretch.lsns[0] <= stretch.lsns[1]]
    facts: dict[str, Any] = {
        "file": path,
        "segment": view.sequence,
        "size_bytes": view.file.size(),
        "epoch": None if header is None else header.epoch,
        "records": [list(lsns) for lsns in groups],
        "problem": view.problem,
    }
    records = ", ".join(f"{first} to {last}" for first, last in groups) or "none"
    text = f"log segment {view.sequence}: {size(view.file.size())}, records {records}"
    printer.say("segment", facts, text)
    if view.problem is not None and not printer.as_json:
        printer.say("segment", {}, f"  {view.problem}", "red")


def _gap(
    printer: Printer,
    index: int,
    path: str,
    offset: int,
    after: int | None,
    until: int | None,
    why: str,
) -> None:
    facts = {
        "before_run": index,
        "file": path,
        "offset": offset,
        "after_lsn": after,
        "until_lsn": until,
        "why": why,
    }
    printer.say("gap", facts, f"  missing: {why}", "red")


def _log(printer: Printer, source: Source, segment: str, from_lsn: int) -> None:
    with _Log(source) as log:
        views = [view for view in log.segments if _is_named(segment, view.sequence)]
        if not views:
            known = ", ".join(str(view.sequence) for view in log.segments) or "none"
            raise InvalidArgument(f"There is no log segment {segment!r}; there are: {known}.")
        paths = {view.path for view in views}
        shown: set[str] = set()
        for index, gaps in enumerate(log.gaps):
            for gap in gaps:
                if gap.path in paths:
                    _gap(printer, index, gap.path, gap.offset, gap.after, gap.until, gap.why)
            for stretch in log.runs[index] if index < len(log.runs) else ():
                path = stretch.segment.path
                if path not in paths:
                    continue
                if path not in shown:
                    shown.add(path)
                    _segment(printer, log, path)
                _records(printer, stretch, from_lsn)
        for path in sorted(paths - shown):
            _segment(printer, log, path)


def _is_named(segment: str, sequence: int) -> bool:
    name = segment.removesuffix(".log")
    if segment == ALL_SEGMENTS:
        return True
    try:
        return sequence == (int(name, 16) if len(name) == 16 else int(name))
    except ValueError:
        return False


def _records(printer: Printer, stretch: Stretch, from_lsn: int) -> None:
    if stretch.tip.lsn < from_lsn:
        return
    for record in stretch.records():
        if record.lsn < from_lsn:
            continue
        kind = KINDS_OF_RECORDS.get(record.kind, str(record.kind))
        found = _changes(record)
        facts = {
            "lsn": record.lsn,
            "group": record.group,
            "transaction": record.transaction_id,
            "time_ns": record.time_ns,
            "kind": kind,
            "size_bytes": len(record.payload),
            "changes": [facts for facts, _ in found],
        }
        when = datetime.fromtimestamp(record.time_ns / 1e9, UTC).isoformat(" ", "milliseconds")
        text = (
            f"  {record.lsn} group {record.group} {kind}, transaction {record.transaction_id}, "
            f"{when}, {size(len(record.payload))}"
        )
        for _, line in found[:CHANGES_SHOWN_MAX]:
            text += f"\n    {clean(line)}"
        if len(found) > CHANGES_SHOWN_MAX:
            text += f"\n    … and {len(found) - CHANGES_SHOWN_MAX} more (--json lists them)"
        printer.say("record", facts, text)


def _changes(record: LogRecord) -> list[tuple[dict[str, Any], str]]:
    if KINDS_OF_RECORDS.get(record.kind) == "synced":
        return []
    found: list[tuple[dict[str, Any], str]] = []
    try:
        for what, value in changes(record.payload):
            if isinstance(what, tuple):
                low, high = what
                facts: dict[str, Any] = {"remove": [key_json(low), key_json(high)]}
                found.append((facts, f"remove from {key_name(low)} to {key_name(high)}"))
            elif value is None:
                found.append(({"remove": key_json(what)}, f"remove {key_name(what)}"))
            else:
                facts = {"put": key_json(what), "size_bytes": len(value)}
                found.append((facts, f"put {key_name(what)}, {len(value)} bytes"))
    except ValueError as error:
        found.append(({"problem": str(error)}, f"unreadable: {error}"))
    return found
