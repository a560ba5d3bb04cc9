"""The D.C. Code's citations as cross references: walked either way, they equal brute force."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.database import open_database
from tests.stores.fake import FakeStore
from treestore.errors import NotFound
from treestore.stores.metadata import references
from treestore.stores.metadata.check import check_metadata

POLICY = "dc"
SAMPLE_NODES = 20_000
"""How much of the code the quick test goes through; all of it is 173,481 nodes."""

Edge = tuple[str, str]


class Law:
    """The code's nodes, and who cites whom.

    A citation is of a section by its number; where the code has no such section (any more), the
    number itself stands for it.
    """

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows
        self.node_ids = {str(row["seq"]) for row in rows}
        by_path: dict[str, str] = {}
        for row in rows:
            by_path.setdefault(row["path"], str(row["seq"]))
        cited: dict[Edge, None] = dict.fromkeys(
            (str(row["seq"]), str(by_path.get(path, path)))
            for row in rows
            for path in row.get("cites", ())
        )
        self.edges = [edge for edge in cited if edge[0] != edge[1]]
        self.out: dict[str, set[Edge]] = defaultdict(set)
        self.into: dict[str, set[Edge]] = defaultdict(set)
        for edge in self.edges:
            self.out[edge[0]].add(edge)
            self.into[edge[1]].add(edge)

    def walk(self, start: str, max_depth: int, direction: str) -> dict[Edge, int]:
        """Edge → depth, level by level over sets."""
        depths: dict[Edge, int] = {}
        frontier, visited = {start}, {start}
        for depth in range(1, max_depth + 1):
            ahead: set[str] = set()
            for node in frontier:
                for edges, far, way in ((self.out, 1, "out"), (self.into, 0, "in")):
                    for edge in edges.get(node, ()) if direction in ("both", way) else ():
                        depths.setdefault(edge, depth)
                        ahead.add(edge[far])
            frontier = ahead - visited
            visited |= frontier
        return depths

    def walks(self, count: int) -> list[tuple[str, int, str]]:
        """Some walks: from the nodes with most references, and from others at random."""
        nodes = sorted({node for edge in self.edges for node in edge})
        hubs = sorted(nodes, key=lambda node: -len(self.into.get(node, ())))[: count // 4]
        chosen = hubs + random.Random(5).sample(nodes, min(count - len(hubs), len(nodes)))
        ways = itertools.product((2, 3, 100), ("both", "out", "in"))
        return [(node, *way) for node, way in zip(chosen, itertools.cycle(ways), strict=False)]


def read_law(data_directory: Path, count: int | None) -> Law:
    with gzip.open(data_directory / "dc-code" / "nodes.jsonl.gz", "rt") as lines:
        return Law([json.loads(line) for line in itertools.islice(lines, count)])


def as_references(edges: list[Edge]) -> list[dict[str, Any]]:
    return [
        {
            "source_policy_id": POLICY,
            "source_node_id": source,
            "target_policy_id": POLICY,
            "target_node_id": target,
            "relation": "cites",
        }
        for source, target in edges
    ]


def found(page: Any) -> dict[Edge, int]:
    return {(one.source_node_id, one.target_node_id): one.depth for one in page}


def test_citations_of_a_part(data_directory: Path) -> None:
    law = read_law(data_directory, SAMPLE_NODES)
    store = FakeStore()
    count = store.run(references.store_cross_references, as_references(law.edges))
    assert count == len(law.edges) > 2000

    def walk(node: str, **options: Any) -> dict[Edge, int]:
        return found(
            references.get_cross_references(store.txn, POLICY, node, limit=10_000, **options)
        )

    for node in sorted({node for edge in law.edges for node in edge}):
        assert walk(node, direction="out") == dict.fromkeys(law.out[node], 1)
        assert walk(node, direction="in") == dict.fromkeys(law.into[node], 1)
    for node, depth, direction in law.walks(100):
        expected = law.walk(node, depth, direction)
        assert walk(node, max_depth=depth, direction=direction) == expected
    assert check_metadata(store.txn) == []


async def pages(db: Any, node: str, limit: int, **options: Any) -> list[Any]:
    """All of a walk, page by page."""
    items: list[Any] = []
    cursor = None
    while True:
        page = await db.metadata.get_cross_references(
            POLICY, node, limit=limit, cursor=cursor, **options
        )
        items += page
        if (cursor := page.next_cursor) is None:
            return items


@pytest.mark.slow
async def test_citations_of_all_of_it(data_directory: Path, tmp_path: Path) -> None:
    """With the document stored: a citation of a section that is not there has to be asked for."""
    law = read_law(data_directory, None)
    given = [
        {
            "node_id": str(row["seq"]),
            "parent_id": None if row["parent"] is None else str(row["parent"]),
            "title": row["title"],
        }
        for row in law.rows
    ]
    known = [edge for edge in law.edges if edge[1] in law.node_ids]
    unknown = [edge for edge in law.edges if edge[1] not in law.node_ids]
    assert len(known) > 20_000
    assert len(unknown) > 1000
    with trio.fail_after(600):
        async with open_database(tmp_path / "data") as db:
            await db.documents.store(POLICY, "2024", given)
            assert await db.metadata.store_cross_references(as_references(known)) == len(known)
            for edge in unknown[:20]:
                with pytest.raises(NotFound, match="is not stored"):
                    await db.metadata.store_cross_references(as_references([edge]))
            await db.metadata.store_cross_references(as_references(unknown), require_nodes=False)
            for node in sorted({node for edge in law.edges for node in edge}):
                for way, expected in (("out", law.out), ("in", law.into)):
                    walked = await pages(db, node, 10_000, direction=way)
                    assert found(walked) == dict.fromkeys(expected.get(node, ()), 1)
            for node, depth, direction in law.walks(60):
                walked = await pages(db, node, 1000, max_depth=depth, direction=direction)
                assert len(walked) == len(found(walked))
                assert found(walked) == law.walk(node, depth, direction)
            assert (await db.admin.check()).ok
