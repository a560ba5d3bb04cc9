"""The child of the search row: ``python -m scripts.bench.systems.search_store FOLDER NODES COUNT``.

Stores the D.C. Code, has it indexed, and asks the same questions of TreeStore and of SQLite's FTS5
over the same rows, in turns. Prints JSON.
"""

from __future__ import annotations

import gc
import json
import random
import re
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import trio

from actors.database import open_database
from scripts.bench.data import LAW_POLICY, LAW_VERSION, law_file, read_law

TURN = 25
"""Questions asked of one system before it is the other's turn."""

WRITES = 60


def questions(nodes: list[dict[str, Any]], count: int) -> list[str]:
    """Three words of the texts each, longer ones, as likely as they are frequent."""
    rng = random.Random(7)
    sample = rng.sample(nodes, min(3000, len(nodes)))
    words = [word for node in sample for word in re.findall(r"[A-Za-z]{4,}", node["text"])]
    return [" ".join(rng.sample(words, 3)) for _ in range(count)]


def fts(path: Path, nodes: list[dict[str, Any]]) -> sqlite3.Connection:
    """The rows in FTS5, with Porter's stemming, merged into one segment."""
    rows = sqlite3.connect(path)
    rows.execute("create virtual table law using fts5(title, text, tokenize='porter unicode61')")
    rows.executemany(
        "insert into law values (?, ?)", ((node["title"], node["text"]) for node in nodes)
    )
    rows.execute("insert into law(law) values ('optimize')")
    rows.commit()
    return rows


def ask_fts(rows: sqlite3.Connection, question: str) -> list[Any]:
    """The ten best rows with any of the words."""
    words = " OR ".join(f'"{word}"' for word in question.split())
    query = "select title, text, bm25(law) from law where law match ? order by bm25(law) limit 10"
    return rows.execute(query, (words,)).fetchall()


async def measure(folder: Path, limit: int, count: int) -> dict[str, Any]:
    """Everything, in seconds."""
    path = law_file()
    assert path is not None
    nodes = read_law(path, limit or None)
    asked = questions(nodes, count)
    # What the benchmark itself holds is nothing that the collector would stop the loop for.
    gc.collect()
    gc.freeze()
    rows = fts(folder / "fts.sqlite", nodes)
    found: dict[str, Any] = {"nodes": len(nodes), "TreeStore": [], "sqlite3": []}
    async with open_database(folder / "data") as db:
        search = db.documents.search
        stalls: list[float] = []
        async with trio.open_nursery() as nursery:
            await db.documents.store(LAW_POLICY, LAW_VERSION, nodes)
            began = time.perf_counter()
            nursery.start_soon(_watch_loop, stalls)
            while (await db.admin.stats()).search_lag_records:  # noqa: ASYNC110
                await trio.sleep(0.05)
            found["indexed in"] = time.perf_counter() - began
            nursery.cancel_scope.cancel()
        found["stalls"] = stalls
        found["size"] = (await db.admin.stats()).search_size_bytes
        for question in asked[:50]:
            await search(question)
        for first in range(0, len(asked), TURN):
            for question in asked[first : first + TURN]:
                began = time.perf_counter()
                await search(question)
                found["TreeStore"].append(time.perf_counter() - began)
            for question in asked[first : first + TURN]:
                began = time.perf_counter()
                ask_fts(rows, question)
                found["sqlite3"].append(time.perf_counter() - began)
        found["after a write"] = [await _after_write(db, number) for number in range(WRITES)]
    return found


async def _watch_loop(stalls: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await trio.sleep(0.001)
        stalls.append(time.perf_counter() - began - 0.001)


async def _after_write(db: Any, number: int) -> float:
    node_id = str(1 + 17 * number)
    await db.documents.update_node(LAW_POLICY, node_id, text=f"zebra{number} crossing")
    began = time.perf_counter()
    (hit,) = await db.documents.search(f"zebra{number}")
    took = time.perf_counter() - began
    assert hit.node.node_id == node_id
    await trio.sleep(0.02)
    return took


if __name__ == "__main__":
    json.dump(trio.run(measure, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])), sys.stdout)
