"""Full-text search over the D.C. Code, beside SQLite's FTS5 on the same rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from scripts.bench.data import law_file
from scripts.bench.measure import Result, Series, percentiles_ms
from scripts.bench.rows import SEARCH, SQLITE, TREESTORE
from scripts.bench.session import Session
from scripts.bench.worker import ROOT, Sample

CHILD = "scripts.bench.systems.search_store"
QUESTIONS = 1000


def run_search(session: Session) -> None:
    """Measure the row, where it was asked for and its data are here."""
    if not session.wants(SEARCH):
        return
    result = Result(SEARCH)
    if law_file() is None:
        result.notes.append("skipped: no dc-code/nodes.jsonl.gz below TREESTORE_TEST_DATA")
    else:
        _measure(session, result)
    session.done(result)


def _measure(session: Session, result: Result) -> None:
    folder = session.folder("search")
    session.say(SEARCH.title)
    nodes = session.sizes.law_nodes or 0
    done = subprocess.run(
        [sys.executable, "-m", CHILD, str(folder), str(nodes), str(QUESTIONS)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        result.notes.append(f"failed: {done.stderr.strip()[-500:]}")
        return
    found = json.loads(done.stdout)
    for system in (TREESTORE, SQLITE):
        latencies = found[system]
        series = Series(system)
        series.add(Sample(len(latencies), sum(latencies), latencies))
        result.series.append(series)
    ours, theirs = percentiles_ms(found[TREESTORE]), percentiles_ms(found[SQLITE])
    after, stalls = percentiles_ms(found["after a write"]), percentiles_ms(found["stalls"])
    result.numbers |= {
        "median is less by": theirs["p50"] / ours["p50"],
        "p99": ours["p99"],
        "nodes indexed a second": found["nodes"] / found["indexed in"],
        "strong search after a write p50": after["p50"],
        "loop stalls while indexing p99": stalls["p99"],
    }
    result.notes.append(
        f"{found['nodes']:,} nodes indexed in {found['indexed in']:.1f} s, "
        f"{found['size'] / 2**20:.0f} MiB; a search right after a write: median {after['p50']:.1f} "
        f"ms, p99 {after['p99']:.1f} ms; waits for the event loop while indexing: "
        f"p99 {stalls['p99']:.1f} ms."
    )
