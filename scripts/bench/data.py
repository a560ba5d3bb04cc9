"""Seeded test data: every process makes the same."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import attrs
import trio

KEY_SIZE_BYTES = 16
VALUE_SIZE_BYTES = 100
POLICY = "handbook"
VERSION = "v1"
LAW_POLICY = "dc-code"
LAW_VERSION = "2024"

_VOCABULARY = (
    "the applicant shall provide evidence of coverage under section plan authority review board "
    "decision benefit member service provider notice written within days after receipt request "
    "appeal hearing officer medical necessity criteria treatment therapy device records person "
    "agency rule order license public health district council mayor court property tax fund "
    "report annual contract employee commission hospital physician payment claim amount rate "
    "period effective date part chapter title subsection paragraph purposes term means includes "
    "except provided however any such may not must for with by on or and to in a is be as that"
)
_WORDS = _VOCABULARY.split()

Row = tuple[bytes, bytes]


def random_keys(count: int, seed: int) -> list[bytes]:
    """``count`` random keys in no order."""
    size = KEY_SIZE_BYTES
    data = random.Random(seed).randbytes(size * count)
    return [data[at : at + size] for at in range(0, size * count, size)]


_pool = random.Random(99).randbytes(1 << 16)


def value_of(number: int) -> bytes:
    """A value of 100 bytes that no compression shortens."""
    at = number * 37 % (len(_pool) - VALUE_SIZE_BYTES)
    return _pool[at : at + VALUE_SIZE_BYTES]


def sorted_rows(count: int) -> list[Row]:
    """The table that every embedded store holds, in key order."""
    return [(key, value_of(at)) for at, key in enumerate(sorted(random_keys(count, seed=1)))]


def some_keys(rows: list[Row], seed: int, count: int = 200_000) -> list[bytes]:
    """Keys that are there, in random order, with repeats."""
    return [key for key, _ in random.Random(seed).choices(rows, k=count)]


# --- documents -------------------------------------------------------------------------------


@attrs.frozen
class TestDocument:
    """A document as a flat list in reading order, and what the rows look up in it."""

    nodes: list[dict[str, Any]]
    node_ids: list[str]
    deepest_ids: list[str]
    """Nodes of the two deepest levels that hold many: where ancestor paths are long."""
    subtree_id: str
    subtree_count: int
    """Nodes below and including ``subtree_id``, three levels down."""


def _text(rng: random.Random, size: int) -> str:
    words: list[str] = []
    length = 0
    while length < size:
        word = rng.choice(_WORDS)
        words.append(word)
        length += len(word) + 1
    return " ".join(words).capitalize() + "."


def make_document(count: int, subtree_count: int, seed: int = 7) -> TestDocument:
    """A tree of ``count`` nodes: about 8 children each, about 6 levels, texts of 300 bytes."""
    rng = random.Random(seed)
    parents: list[int] = [-1]
    depths = [0]
    children: list[list[int]] = [[]]
    at = 0
    while len(parents) < count:
        for _ in range(min(rng.randint(5, 11), count - len(parents))):
            children[at].append(len(parents))
            parents.append(at)
            depths.append(depths[at] + 1)
            children.append([])
        at += 1
    sizes = _three_levels(parents)
    start = min(range(count), key=lambda number: abs(sizes[number] - subtree_count))
    names: dict[int, str] = {}
    nodes: list[dict[str, Any]] = []
    stack = [0]
    while stack:
        number = stack.pop()
        names[number] = node_id = f"{len(nodes):06d}"
        page = 1 + len(nodes) // 4
        nodes.append(
            {
                "node_id": node_id,
                "parent_id": names.get(parents[number]),
                "title": _text(rng, 40),
                "summary": _text(rng, 80),
                "text": _text(rng, rng.randint(150, 450)),
                "page_start": page,
                "page_end": page + rng.randint(0, 2),
            }
        )
        stack.extend(reversed(children[number]))
    deep = max(depths) - 1
    deepest = [names[number] for number in range(count) if depths[number] >= deep]
    ids = [node["node_id"] for node in nodes]
    return TestDocument(nodes, ids, deepest, names[start], sizes[start])


def _three_levels(parents: list[int]) -> list[int]:
    """For each node how many nodes it has down to three levels, itself included."""
    sizes = [1] * len(parents)
    for parent in parents:
        up = parent
        for _ in range(3):
            if up < 0:
                break
            sizes[up] += 1
            up = parents[up]
    return sizes


# --- versions ---------------------------------------------------------------------------------

VERSIONS_POLICY = "benefits"
_FIRST_DAY = date(1990, 1, 1)


@attrs.frozen
class TestVersion:
    """One version of a policy."""

    version_id: str
    effective_from: date
    effective_to: date | None
    description: str
    tags: tuple[str, ...]


def make_versions(count: int, seed: int = 11) -> list[TestVersion]:
    """A version every other day; most end the day before the next one starts, a tenth overlap the
    next ones for a month, the last has no end."""
    rng = random.Random(seed)
    versions = []
    for number in range(count):
        first = _FIRST_DAY + timedelta(days=2 * number)
        last = first + timedelta(days=30 if number % 10 == 0 else 1)
        tags = ("final",) if number % 3 else ("draft", "review")
        versions.append(
            TestVersion(
                f"v{number:05d}",
                first,
                None if number == count - 1 else last,
                _text(rng, 60),
                tags,
            )
        )
    return versions


def some_days(count: int, seed: int, number: int = 20_000) -> list[date]:
    """Days on which one of ``count`` versions is in effect, in random order."""
    rng = random.Random(seed)
    return [_FIRST_DAY + timedelta(days=rng.randrange(2 * count)) for _ in range(number)]


async def load_versions(database: Any, versions: list[TestVersion]) -> float:
    """Record them in a database; the seconds that it took."""
    begin = perf_counter()
    limit = trio.CapacityLimiter(64)

    async def create(version: TestVersion) -> None:
        async with limit:
            await database.versions.create(
                VERSIONS_POLICY,
                version.version_id,
                effective_from=version.effective_from,
                effective_to=version.effective_to,
                description=version.description,
                tags=version.tags,
            )

    async with trio.open_nursery() as nursery:
        for version in versions:
            nursery.start_soon(create, version)
    return perf_counter() - begin


# --- the D.C. Code ---------------------------------------------------------------------------


def law_file() -> Path | None:
    """The D.C. Code's nodes, where the shared test data are to be had."""
    root = os.environ.get("TREESTORE_TEST_DATA")
    folder = Path(root) if root else Path(__file__).parents[3] / "shared" / "data"
    path = folder / "dc-code" / "nodes.jsonl.gz"
    return path if path.is_file() else None


def read_law(path: Path, limit: int | None) -> list[dict[str, Any]]:
    """The D.C. Code as a flat list of nodes; parents come before their children."""
    return list(_law_nodes(path, limit))


def _law_nodes(path: Path, limit: int | None) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number == limit:
                return
            row = json.loads(line)
            yield {
                "node_id": str(row["seq"]),
                "parent_id": None if row["parent"] is None else str(row["parent"]),
                "title": row["title"],
                "text": row["text"],
                "page_start": row["start"],
                "page_end": row["end"],
                "kind": row["kind"],
                "num": row["num"],
            }
