"""Versions on real data, against brute force: ``python -m scripts.versions_check``.

* The D.C. Code's dated sections, one policy each: `as_of` on every date of every section, and the
  days around them, as believed now and after each earlier change, is what the list of dates gives.
* The same sections as versions of one policy, thousands of overlapping periods recorded in no
  order: `as_of` on every date is what going through all periods gives.
* The Estonian laws as documents with versions: each day has the right one, and `diff` between
  consecutive versions matches their nodes and, applied to the first, makes the second.

Data are read from ``$TREESTORE_TEST_DATA`` (by default ``../shared/data``).
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import attrs
import msgspec
import trio

import treestore
from treestore.errors import NotFound
from treestore.model.documents import Node
from treestore.model.versions import NodeChange
from treestore.stores.documents.markdown import parse_markdown

encode = msgspec.msgpack.Encoder(order="deterministic").encode
"""Tells True from 1, as what is stored does."""

DAY = timedelta(days=1)
TASKS = 64
CODE = "dc-code"


class Mismatch(Exception):
    """What the store says is not what brute force says."""


def data_directory() -> Path:
    """Where the real data are, or should be."""
    given = os.environ.get("TREESTORE_TEST_DATA")
    return Path(given) if given else Path(__file__).parents[2] / "shared" / "data"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a ``.jsonl.xz`` file."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def expect(found: object, expected: object, where: str) -> None:
    """Raise `Mismatch` unless they are equal."""
    if found != expected:
        raise Mismatch(f"{where}: {found!r}, but brute force says {expected!r}")


async def version_on(db: Any, policy: str, day: date, known_at: datetime | None = None) -> Any:
    """The id of the version in effect, None for none."""
    try:
        return (await db.versions.as_of(policy, day, known_at=known_at)).version_id
    except NotFound:
        return None


# --- the D.C. Code ---------------------------------------------------------------------------


@attrs.frozen
class Section:
    """One section of the D.C. Code and what happened to it, by date."""

    name: str
    events: list[tuple[date, str]]
    """Dates, ascending, each with "A" (added), "M" (modified) or "D" (deleted)."""

    @property
    def days(self) -> list[date]:
        """Every date, and the days around it."""
        return sorted({day + n * DAY for day, _ in self.events for n in (-1, 0, 1)})

    def in_effect(self, day: date, events: int | None = None) -> str | None:
        """The version in effect on ``day``, where only the first events are known."""
        current = None
        for start, status in self.events[:events]:
            if start <= day:
                current = None if status == "D" else start.isoformat()
        return current


def read_sections(folder: Path, limit: int | None = None) -> list[Section]:
    """The dated sections; with a limit, every so many-th, and the one with the most versions."""
    dated: dict[str, list[tuple[date, str]]] = {}
    for line in read_lines(folder / "dc-code" / "section_versions.jsonl.xz"):
        event = date.fromisoformat(line["effective"]), line["status"]
        dated.setdefault(line["section"], []).append(event)
    sections = [Section(name, sorted(events)) for name, events in dated.items()]
    if limit is None or limit >= len(sections):
        return sections
    longest = max(sections, key=lambda section: len(section.events))
    return [longest, *sections[:: len(sections) // limit]][:limit]


async def check_section(db: Any, section: Section) -> Counter[str]:
    """Record a section's versions one after the other, then ask for every day and belief."""
    counts: Counter[str] = Counter()
    current: str | None = None
    known: list[datetime] = []
    for start, status in section.events:
        if status == "D":
            if current is None:
                raise Mismatch(f"section {section.name} was deleted twice")
            changed = await db.versions.retire(section.name, current, start - DAY)
            current = None
        else:
            changed = await db.versions.create(
                section.name, start.isoformat(), effective_from=start, supersedes=current
            )
            current = start.isoformat()
            counts["versions"] += 1
        known.append(changed.recorded_at)
    for day in section.days:
        where = f"section {section.name} on {day}"
        expect(await version_on(db, section.name, day), section.in_effect(day), where)
        for events, moment in enumerate(known, 1):
            found = await version_on(db, section.name, day, moment)
            expect(found, section.in_effect(day, events), f"{where}, known at {moment}")
        counts["look-ups"] += 1 + len(known)
    return counts


async def check_sections(db: Any, sections: Sequence[Section]) -> Counter[str]:
    """All of them, each a policy of its own."""
    counts: Counter[str] = Counter()
    limit = trio.CapacityLimiter(TASKS)

    async def one(section: Section) -> None:
        async with limit:
            counts.update(await check_section(db, section))

    async with trio.open_nursery() as nursery:
        for section in sections:
            nursery.start_soon(one, section)
    return counts


async def check_overlapping(db: Any, sections: Sequence[Section], seed: int = 1) -> Counter[str]:
    """All sections' versions as versions of one policy, whose periods overlap everywhere."""
    periods: list[tuple[str, date, date | None]] = []
    for section in sections:
        for at, (start, status) in enumerate(section.events):
            if status != "D":
                last = section.events[at + 1][0] - DAY if at + 1 < len(section.events) else None
                periods.append((f"{section.name} {start}", start, last))
    random.Random(seed).shuffle(periods)
    for version, start, last in periods:
        await db.versions.create(CODE, version, effective_from=start, effective_to=last)
    # Some are taken back and some shortened, so that others come to light again.
    rank = {version: at for at, (version, _, _) in enumerate(periods)}
    believed = {version: (start, last) for version, start, last in periods}
    for version, _, _ in periods[::7]:
        await db.versions.delete(CODE, version)
        del believed[version]
    for version, start, _ in periods[1::7]:
        end = start + 2 * DAY
        await db.versions.retire(CODE, version, end)
        believed[version] = start, end
    days = sorted({day + n * DAY for _, day, _ in periods for n in (-1, 0, 1, 2, 3)})
    for day in days:
        holding = [
            (start, rank[version], version)
            for version, (start, last) in believed.items()
            if start <= day and (last is None or day <= last)
        ]
        expected = max(holding)[2] if holding else None
        expect(await version_on(db, CODE, day), expected, f"the whole code on {day}")
    return Counter({"versions": len(periods), "look-ups": len(days)})


# --- the Estonian laws -----------------------------------------------------------------------


def stable_ids(structure: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same trees with ids made of headings' numbers, which outlive an insertion."""
    used: Counter[str] = Counter()

    def renamed(node: dict[str, Any], above: str) -> dict[str, Any]:
        numbered = re.match(r"§+\s*[\d¹²³⁴-⁹⁰]+", node["title"])
        name = numbered[0] if numbered else f"{above}/{node['title'][:60]}"
        used[name] += 1
        node_id = name if used[name] == 1 else f"{name} #{used[name]}"
        new = {"node_id": node_id, "title": node["title"], "text": node["text"]}
        if node.get("nodes"):
            new["nodes"] = [renamed(child, node_id[:60]) for child in node["nodes"]]
        return new

    return [renamed(node, "") for node in structure]


async def check_law(db: Any, path: Path, limit: int | None, stable: bool) -> Counter[str]:
    """Store a law's versions, then compare each with the one before.

    Args:
        limit: at most this many versions.
        stable: name the nodes by their headings rather than by their position.
    """
    counts: Counter[str] = Counter()
    policy = f"{path.name.partition('.')[0]}{'' if stable else ' by position'}"
    stored: list[tuple[str, date]] = []
    for line in read_lines(path):
        if limit is not None and len(stored) == limit:
            break
        structure = parse_markdown(line["markdown"])["structure"]
        start = date.fromisoformat(line["effective_from"])
        version = f"{len(stored):03d} {line['source'].rpartition('/')[2]}"
        await db.documents.store(
            policy, version, stable_ids(structure) if stable else structure, effective_from=start
        )
        stored.append((version, start))
    for _, start in stored:
        for day in (start - DAY, start, start + DAY):
            holding = [(first, version) for version, first in stored if first <= day]
            expected = max(holding)[1] if holding else None
            expect(await version_on(db, policy, day), expected, f"law {policy} on {day}")
    before = await db.documents.get_subtree(policy, version_id=stored[0][0])
    for (old, _), (new, _) in pairwise(stored):
        after = await db.documents.get_subtree(policy, version_id=new)
        changes = await db.versions.diff(policy, old, new)
        check_diff(before, after, changes, f"law {policy}, {old} to {new}")
        counts.update(change.kind for change in changes)
        counts["diffs"] += 1
        before = after
    counts["versions"] = len(stored)
    return counts


def facts_of(node: Node) -> dict[str, Any]:
    """What a node says, without what follows from its place."""
    names = ("title", "page_start", "page_end", "summary", "text", "metadata")
    return {name: getattr(node, name) for name in names}


def family_lists(nodes: Sequence[Node]) -> dict[str | None, list[str]]:
    """The children of every node, and the roots under None, in order."""
    families: dict[str | None, list[str]] = {}
    for node in nodes:
        families.setdefault(node.parent_id, []).append(node.node_id)
    return families


def check_diff(
    before: Sequence[Node],
    after: Sequence[Node],
    changes: Sequence[NodeChange],
    where: str,
    *,
    ignoring: str = "",
) -> None:
    """Compare the changes with the nodes, and apply them.

    Args:
        ignoring: a field that the caller looks at.
    """
    old = {node.node_id: node for node in before}
    new = {node.node_id: node for node in after}
    of = {
        kind: {c.node_id: c for c in changes if c.kind == kind}
        for kind in ("added", "removed", "changed", "moved")
    }
    expect(sum(map(len, of.values())), len(changes), f"{where}: changes of one kind and node")
    expect(set(of["added"]), new.keys() - old.keys(), f"{where}: added")
    expect(set(of["removed"]), old.keys() - new.keys(), f"{where}: removed")
    differing = {
        node_id
        for node_id in old.keys() & new.keys()
        if encode(facts_of(old[node_id])) != encode(facts_of(new[node_id]))
    }
    expect(set(of["changed"]), differing, f"{where}: changed")
    facts = {node_id: facts_of(node) for node_id, node in old.items() if node_id in new}
    for node_id, change in of["changed"].items():
        for field in change.fields:
            if field.name == ignoring:
                continue
            expect(field.old, facts[node_id][field.name], f"{where}: old {field.name}")
            facts[node_id][field.name] = field.new
    facts.update({node_id: facts_of(c.node) for node_id, c in of["added"].items() if c.node})
    expect(facts, {node_id: facts_of(node) for node_id, node in new.items()}, f"{where}: applied")
    expect(applied_families(before, of), family_lists(after), f"{where}: order applied")


def applied_families(
    before: Sequence[Node], of: dict[str, dict[str, NodeChange]]
) -> dict[str | None, list[str]]:
    """The families of the second version, from those of the first and the changes."""
    gone = of["removed"].keys() | of["moved"].keys()
    families = {
        parent: [child for child in children if child not in gone]
        for parent, children in family_lists(before).items()
    }
    placed = [*of["added"].values(), *of["moved"].values()]
    for change in sorted(placed, key=lambda change: change.index):
        families.setdefault(change.parent_id, []).insert(change.index, change.node_id)
    return {parent: children for parent, children in families.items() if children}


# --- all of it -------------------------------------------------------------------------------


async def check_all(db: Any, folder: Path, sections: int | None, versions: int | None) -> int:
    """Run every check, with limits where they are given; prints what was compared."""

    def tell(name: str, begin: float, counts: Counter[str]) -> None:
        words = ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
        print(f"{name}: {words} ({perf_counter() - begin:.1f} s)", flush=True)

    dated = read_sections(folder, sections)
    begin = perf_counter()
    tell("sections of the D.C. Code", begin, await check_sections(db, dated))
    begin = perf_counter()
    tell("the code as one policy", begin, await check_overlapping(db, dated))
    for path in sorted((folder / "estonian-law").glob("*.versions.jsonl.xz")):
        for stable in (True, False):
            begin = perf_counter()
            name = (
                f"law {path.name.partition('.')[0]}, ids by {'heading' if stable else 'position'}"
            )
            tell(name, begin, await check_law(db, path, versions, stable))
    begin = perf_counter()
    report = await db.admin.check()
    print(f"check: {'ok' if report.ok else report.errors[:5]} ({perf_counter() - begin:.1f} s)")
    return 0 if report.ok else 1


def run(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sections", type=int, help="only so many sections")
    parser.add_argument("--versions", type=int, help="only so many versions of each law")
    given = parser.parse_args(arguments)
    folder = data_directory()
    if not folder.is_dir():
        print(f"There are no data in {folder}; set TREESTORE_TEST_DATA.", file=sys.stderr)
        return 2

    async def main() -> int:
        with tempfile.TemporaryDirectory() as scratch:
            async with treestore.open(f"{scratch}/data") as db:
                return await check_all(db, folder, given.sections, given.versions)

    try:
        return trio.run(main)
    except Mismatch as mismatch:
        print(f"MISMATCH {mismatch}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run())
