"""The rows of collections: queries over them, and what stores documents."""

from __future__ import annotations

from contextlib import ExitStack

from scripts.bench.measure import Entry
from scripts.bench.rows import DOCUMENTS, QUERIES, SQLITE, TREESTORE
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


INSERTERS = 100
"""Tasks that insert single documents."""


def run_documents(session: Session) -> None:
    """Measure what was asked for."""
    if not any(session.wants(row) for row in DOCUMENTS):
        return
    workloads = {
        "insert-many": ("insert_many", {}),
        "insert-100": ("insert", {"tasks": INSERTERS}),
        "document-get": ("get", {}),
    }
    timed = {"seconds": session.sizes.seconds}
    with ExitStack() as stack:
        ours, sqlite = session.workers(stack, "documents_written", "sqlite_written")
        for row in DOCUMENTS:
            if not session.wants(row):
                continue
            workload, own = workloads[row.name]
            entries = [
                Entry(TREESTORE, ours, workload, {**timed, **own}),
                Entry(SQLITE, sqlite, workload, timed),
            ]
            session.done(session.measure(row, entries, session.sizes.repetitions))
