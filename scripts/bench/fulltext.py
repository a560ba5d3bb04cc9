"""Full text of a namespace beside SQLite's FTS5, on the same rows and the same questions.

    python -m scripts.bench.fulltext [--rows 100000] [--questions 1000] [--json]

Rows are pieces of some 40 words of the D.C. Code with the titles of their sections, made into
attributes ``title`` and ``text``. Systems take turns of some questions each, so that what else the
machine does meets all of them. ``tantivy`` is the library alone, with a query that is made already.
Numbers are milliseconds; those of the processor leave out what else the machine did meanwhile.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Final

import numpy as np

from scripts.bench.data import law_file, read_law
from scripts.bench.measure import percentiles_ms
from scripts.bench.systems.search_store import TURN, ask_fts, fts, questions
from treestore.model.namespaces import FullTextSchema
from treestore.search.fulltext.generations import NamespaceTexts
from treestore.search.fulltext.index import Identity, View
from treestore.search.fulltext.request import make_request
from treestore.search.fulltext.searching import Search
from treestore.search.fulltext.writers import Writers

PIECE_WORDS: Final = 40
TOP_K: Final = 10
SCHEMA: Final = {"title": FullTextSchema(), "text": FullTextSchema()}
FIELDS: Final = tuple(SCHEMA)

Ask = Callable[[str], Any]


def pieces(limit: int) -> list[dict[str, Any]]:
    """Short documents."""
    path = law_file()
    if path is None:
        sys.exit("There is no dc-code/nodes.jsonl.gz in the folder that TREESTORE_TEST_DATA names.")

    def cut() -> Iterator[dict[str, Any]]:
        for node in read_law(path, None):
            words = node["text"].split()
            for first in range(0, len(words), PIECE_WORDS):
                text = " ".join(words[first : first + PIECE_WORDS])
                yield {"title": node["title"], "text": text}

    found = [piece for _, piece in zip(range(limit), cut(), strict=False)]
    random.Random(3).shuffle(found)
    return found


def build(folder: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[NamespaceTexts, float]:
    """The index, and the seconds that it took."""
    texts = NamespaceTexts(folder, Identity(b"bench", 1, 1), Writers())
    texts.open(SCHEMA)
    began = perf_counter()
    for number, row in enumerate(rows):
        texts.add(number, row)
    texts.commit()
    return texts, perf_counter() - began


def systems(view: View, rows: sqlite3.Connection, count: int) -> dict[str, Ask]:
    """What answers a question, by name."""
    allowed = np.random.default_rng(5).random(count)
    masks: dict[float, Any] = {}

    def asking(share: float | None = None, **options: Any) -> Ask:
        def ask(question: str) -> Any:
            request = make_request({"query": question, **options}, FIELDS)
            if share is None:
                return Search(view, request).best(TOP_K)
            if share not in masks:
                masks[share] = allowed < share
            chosen = masks[share].__getitem__
            return Search(view, request).best(TOP_K, allowed=chosen, share=share)

        return ask

    def bare(question: str) -> Any:
        query = prepared[question]
        return view.searcher.search(query, TOP_K, count=False)

    prepared: dict[str, Any] = _Prepared(view)
    return {
        "tantivy alone": bare,
        "words": asking(),
        "words of text only": asking(fields=["text"]),
        "all words": asking(mode="all"),
        "half of the rows allowed": asking(0.5),
        "1 % of the rows allowed": asking(0.01),
        "prefix": lambda question: asking()(f"{question[:4]}*"),
        "FTS5": lambda question: ask_fts(rows, question),
    }


class _Prepared(dict[str, Any]):
    """Compiled queries; they are made before the clock runs."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def __missing__(self, question: str) -> Any:
        self[question] = Search(self._view, make_request(question, FIELDS))._query
        return self[question]


def measure(asked: Sequence[str], by_name: Mapping[str, Ask]) -> dict[str, dict[str, float]]:
    """Percentiles of each system, which take turns."""
    for question in asked[:50]:
        for ask in by_name.values():
            ask(question)
    for question in asked:
        by_name["tantivy alone"](question)
    times: dict[str, list[float]] = {name: [] for name in by_name}
    processor: dict[str, list[float]] = {name: [] for name in by_name}
    for first in range(0, len(asked), TURN):
        for name, ask in by_name.items():
            for question in asked[first : first + TURN]:
                began, began_running = perf_counter(), thread_time()
                ask(question)
                processor[name].append(thread_time() - began_running)
                times[name].append(perf_counter() - began)
    found = {name: percentiles_ms(its) for name, its in times.items()}
    for name, its in processor.items():
        found[name]["processor p50"] = 1e3 * float(np.percentile(its, 50))
        found[name]["processor p99"] = 1e3 * float(np.percentile(its, 99))
    return found


class _LookingUp(Search):
    def prefers_look_up(self, rows: int, top_k: int) -> bool:
        return True


class _Fetching(Search):
    def prefers_look_up(self, rows: int, top_k: int) -> bool:
        return False


def small_sets(view: View, asked: Sequence[str], count: int) -> dict[str, dict[str, float]]:
    """Medians with few rows allowed: looked up, or fetched until enough are among them."""
    found: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng(6)
    ways = {"looked up": _LookingUp, "fetched": _Fetching, "chosen": Search}
    for size in (30, 100, 300, 1000, 3000):
        only = rng.choice(count, size, replace=False).astype(np.int64)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for question in asked[:100]:
            for name, way in ways.items():
                search = way(view, make_request(question, FIELDS))
                began = perf_counter()
                search.best(TOP_K, only=only)
                times[name].append(perf_counter() - began)
        found[f"{size} rows"] = {name: 1e3 * float(np.median(its)) for name, its in times.items()}
    return found


def unindexed(
    texts: NamespaceTexts, rows: Sequence[Mapping[str, Any]], asked: Sequence[str]
) -> Any:
    """Milliseconds of a search with 250 rows that are not in the index."""
    view = texts.serving.view
    assert view is not None
    began = perf_counter()
    own = {-1 - n: view.fields.cut(row) for n, row in enumerate(rows[:250])}
    cut = 1e3 * (perf_counter() - began)
    times: list[float] = []
    for question in asked[:200]:
        began = perf_counter()
        Search(view, make_request(question, FIELDS)).best(TOP_K, unindexed=own)
        times.append(perf_counter() - began)
    return {"cut 250 rows": cut, **percentiles_ms(times)}


def run(count: int, asks: int) -> dict[str, Any]:
    """Everything."""
    rows = pieces(count)
    asked = questions(rows, asks)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        texts, took = build(folder / "1", rows)
        theirs = fts(folder / "fts.sqlite", rows)
        view = texts.serving.view
        assert view is not None
        found: dict[str, Any] = {"rows": len(rows), "rows indexed a second": len(rows) / took}
        found["index MiB"] = texts.size_bytes() / 2**20
        began = perf_counter()
        assert len(view.rows()) == len(rows)
        found["all rows"] = 1e3 * (perf_counter() - began)
        found["percentiles"] = measure(asked, systems(view, theirs, len(rows)))
        found["few rows allowed"] = small_sets(view, asked, len(rows))
        found["unindexed"] = unindexed(texts, rows, asked)
        texts.close()
        began = perf_counter()
        texts.open(SCHEMA)
        found["opened and verified"] = 1e3 * (perf_counter() - began)
        texts.close()
    its = found["percentiles"]
    for kind in ("p50", "processor p50"):
        found[f"{kind} is less than FTS5's by"] = its["FTS5"][kind] / its["words"][kind]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = run(options.rows, options.questions)
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            print(name)
            for inner, its in value.items():
                print(f"  {inner:26}", _shown(its))
        else:
            print(f"{name:28} {value:,.1f}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {its:.3f}" for name, its in value.items())
    return f"{value:.3f}"


if __name__ == "__main__":
    main()
