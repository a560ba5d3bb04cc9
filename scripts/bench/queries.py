"""The rows of queries over collections."""

from __future__ import annotations

from contextlib import ExitStack

from scripts.bench.measure import Entry
from scripts.bench.rows import QUERIES, SQLITE, TREESTORE
from scripts.bench.session import Session

WORKLOADS = {
    "query-equality": "equality",
    "query-ordered": "ordered",
    "query-unindexed": "unindexed",
}


def run_queries(session: Session) -> None:
    """Measure what was asked for."""
    if not any(session.wants(row) for row in QUERIES):
        return
    with ExitStack() as stack:
        ours, sqlite = session.workers(stack, "documents_store", "sqlite_documents")
        for row in QUERIES:
            if not session.wants(row):
                continue
            workload, fixed = WORKLOADS[row.name], row.name == "query-unindexed"
            arguments = {} if fixed else {"seconds": session.sizes.seconds}
            entries = [
                Entry(TREESTORE, ours, workload, arguments),
                Entry(SQLITE, sqlite, workload, arguments),
            ]
            repetitions = session.sizes.scans if fixed else session.sizes.repetitions
            session.done(session.measure(row, entries, repetitions))
