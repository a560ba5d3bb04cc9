"""Measure how well searches rank, on the Cranfield collection.

Usage: ``python -m scripts.ranking [FOLDER] [--through embedded|tcp|http] [--json]``. FOLDER holds
the collection's three files; by default it is ``cranfield`` in the tests' data directory. Through
``tcp`` or ``http`` namespaces are asked on a server that is a process of its own; what is printed
ought to be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx  # noqa: ASYNC127 - litestar brings it along
import trio

import treestore
from scripts.bench.servers.treestore import run_treestore
from scripts.ranking import documents, namespaces
from scripts.ranking.cranfield import Collection, read_collection
from scripts.ranking.figures import Figures, interval, mean
from scripts.ranking.namespaces import WAYS, Ask

DOCUMENTS = "documents.search"


@asynccontextmanager
async def opened(through: str, data: Path) -> AsyncGenerator[tuple[Any, Ask], None]:
    """A new database, and how namespaces are asked there."""
    if through == "embedded":
        async with treestore.open(data) as db:
            yield db, namespaces.asks(db)
        return
    with run_treestore(data) as server:
        async with (
            treestore.connect(server.address) as db,
            httpx.AsyncClient(base_url=f"http://{server.http}", timeout=60) as client,
        ):
            yield db, namespaces.asks(db) if through == "tcp" else namespaces.asks_http(client)


async def measure(collection: Collection, through: str, scratch: Path) -> dict[str, Figures]:
    """All ways of searching, those of namespaces through that face."""
    found = {DOCUMENTS: await documents.measure(collection, scratch / "documents")}
    lsa = namespaces.learn(collection)
    async with opened(through, scratch / "namespaces") as (db, ask):
        await namespaces.store(db, collection, lsa)
        for name, way in WAYS.items():
            found[name] = await namespaces.measure(ask, collection.questions, lsa, way)
    return found


def described(figures: Figures, words: Figures) -> dict[str, Any]:
    """The figures of one way, and by how much its nDCG is above that of words alone."""
    above = [one - other for one, other in zip(figures.gains, words.gains, strict=True)]
    return {
        "ndcg_at_10": figures.ndcg,
        "ndcg_interval": interval(figures.gains),
        "ndcg_odd": figures.odd.ndcg,
        "map": figures.map,
        "recall_at_100": figures.recall,
        "above_words": mean(above),
        "above_words_interval": interval(above),
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """As Markdown."""
    lines = [
        "| | nDCG@10 (95 %) | of odd questions | MAP | recall@100 | above words (95 %) |",
        "|---|---|---:|---:|---:|---|",
    ]
    for name, its in found.items():
        low, high = its["ndcg_interval"]
        least, most = its["above_words_interval"]
        cells = [
            name,
            f"{its['ndcg_at_10']:.3f} ({low:.3f} to {high:.3f})",
            f"{its['ndcg_odd']:.3f}",
            f"{its['map']:.3f}",
            f"{its['recall_at_100']:.3f}",
            f"{its['above_words']:+.3f} ({least:+.3f} to {most:+.3f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    root = Path(os.environ.get("TREESTORE_TEST_DATA") or "../shared/data")
    parser = argparse.ArgumentParser(prog="python -m scripts.ranking", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=root / "cranfield")
    parser.add_argument("--through", choices=("embedded", "tcp", "http"), default="embedded")
    parser.add_argument("--json", action="store_true", help="for machines")
    given = parser.parse_args()
    if not given.folder.is_dir():
        sys.exit(f"ranking: there is no folder {given.folder}; name the one of the collection.")
    with tempfile.TemporaryDirectory() as scratch:
        figures = trio.run(measure, read_collection(given.folder), given.through, Path(scratch))
    found = {name: described(its, figures["words"]) for name, its in figures.items()}
    print(json.dumps(found, indent=2) if given.json else table(found))


if __name__ == "__main__":
    main()
