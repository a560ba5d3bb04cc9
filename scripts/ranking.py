"""How well ``documents.search`` ranks: the Cranfield collection, 225 questions with judgements.

Run ``python -m scripts.ranking [FOLDER]``; prints nDCG at 10 and the mean average precision over
the first 1,000 hits. All judged pairs count as relevant, those coded -1 too. Nothing is tuned here:
the weights are the service's defaults.
"""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Final

import trio

import treestore

DEPTH: Final = 1000
POLICY: Final = "cranfield"


def sections(text: str) -> list[str]:
    """The records of one of the collection's files."""
    return re.split(r"^\.I ", text, flags=re.MULTILINE)[1:]


def field(record: str, name: str) -> str:
    """One field of a record, on one line."""
    found = re.search(rf"^\.{name}\n(.*?)(?=^\.[A-Z]\n|\Z)", record, re.DOTALL | re.MULTILINE)
    return "" if found is None else " ".join(found[1].split())


def read_judgements(path: Path) -> dict[int, set[str]]:
    """The relevant documents of each question."""
    relevant: dict[int, set[str]] = {}
    for line in path.read_text().splitlines():
        question, document, *_ = line.split()
        relevant.setdefault(int(question), set()).add(document)
    return relevant


def gain(ids: list[str], relevant: set[str], depth: int = 10) -> float:
    """nDCG with one grade."""
    found = sum(1 / math.log2(rank + 2) for rank, id in enumerate(ids[:depth]) if id in relevant)
    best = sum(1 / math.log2(rank + 2) for rank in range(min(depth, len(relevant))))
    return found / best


def precision(ids: list[str], relevant: set[str]) -> float:
    """Average precision."""
    hits, total = 0, 0.0
    for rank, id in enumerate(ids, 1):
        if id in relevant:
            hits += 1
            total += hits / rank
    return total / len(relevant)


async def measure(folder: Path, data: Path) -> tuple[float, float]:
    """Mean nDCG at 10 and mean average precision."""
    nodes = [
        {
            "node_id": record.partition("\n")[0].strip(),
            "title": field(record, "T"),
            "text": field(record, "W"),
        }
        for record in sections((folder / "cran.all.1400").read_text())
    ]
    questions = [field(record, "W") for record in sections((folder / "cran.qry").read_text())]
    relevant = read_judgements(folder / "cranqrel")
    gains: list[float] = []
    precisions: list[float] = []
    async with treestore.open(data) as db:
        await db.documents.store(POLICY, "1", nodes)
        for number, question in enumerate(questions, 1):
            hits = await db.documents.search(question, top_k=DEPTH, include_text=False)
            ids = [hit.node.node_id for hit in hits]
            gains.append(gain(ids, relevant[number]))
            precisions.append(precision(ids, relevant[number]))
    return sum(gains) / len(gains), sum(precisions) / len(precisions)


def main() -> None:
    """Measure and print."""
    root = Path(os.environ.get("TREESTORE_TEST_DATA") or "../shared/data")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "cranfield"
    with tempfile.TemporaryDirectory() as scratch:
        found, mean = trio.run(measure, folder, Path(scratch) / "data")
    print(f"nDCG@10 {found:.4f}, MAP {mean:.4f}")


if __name__ == "__main__":
    main()
