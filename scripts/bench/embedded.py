"""The rows of the embedded stores."""

from __future__ import annotations

from contextlib import ExitStack

from scripts.bench.measure import Entry, Result
from scripts.bench.rows import EMBEDDED, LMDB, SQLITE, TREESTORE
from scripts.bench.session import Session
from scripts.bench.worker import Worker

AS_OF = {"as-of": "as_of", "as-of-known": "as_of_known"}
"""Row → workload, of the rows that need versions."""

ENGINE = "TreeStore's engine alone"


def run_embedded(session: Session) -> None:
    """Measure what was asked for."""
    if not any(session.wants(row) for row in EMBEDDED):
        return
    with ExitStack() as stack:
        modules = ("embedded_store", "engine_store", "sqlite_store", "lmdb_store")
        embedded, engine, sqlite, lmdb = session.workers(stack, *modules)
        if embedded is not None and any(session.wants(r) for r in EMBEDDED if r.name in AS_OF):
            session.say("recording versions in TreeStore")
            embedded.run("prepare_versions")
        for row in EMBEDDED:
            if session.wants(row):
                entries = _entries(row.name, session, embedded, engine, sqlite, lmdb)
                fixed = row.name in ("scan", "bulk-load")
                repetitions = session.sizes.scans if fixed else session.sizes.repetitions
                result = session.measure(row, entries, repetitions)
                if row.name == "insert" and engine is not None:
                    _note_checkpoints(result, engine.run("checkpoint").seconds)
                session.done(result)


def _entries(
    row: str,
    session: Session,
    embedded: Worker | None,
    engine: Worker | None,
    sqlite: Worker | None,
    lmdb: Worker | None,
) -> list[Entry]:
    timed = {"seconds": session.sizes.seconds}
    others = [(SQLITE, sqlite), (LMDB, lmdb)]
    if row == "insert":
        entries = [Entry(TREESTORE, engine, "insert", timed)]
        return entries + [Entry(name, worker, "insert", timed) for name, worker in others]
    if row in ("commit-64", "commit-1"):
        tasks = 64 if row == "commit-64" else 1
        entries = [Entry(TREESTORE, embedded, "commit", {**timed, "tasks": tasks})]
        return entries + [Entry(name, worker, "commit", timed) for name, worker in others]
    if row in AS_OF:
        return [Entry(TREESTORE, embedded, AS_OF[row], timed)]
    workload = {
        "point-get": "get",
        "point-get-snapshot": "get_in_transaction",
        "scan": "scan",
        "bulk-load": "bulk_load",
    }[row]
    arguments = {} if row in ("scan", "bulk-load") else timed
    entries = [Entry(TREESTORE, embedded, workload, arguments)]
    if row in ("point-get", "scan"):
        entries.append(Entry(ENGINE, engine, workload, arguments))
    return entries + [Entry(name, worker, workload, arguments) for name, worker in others]


def _note_checkpoints(result: Result, last_s: float) -> None:
    """A median hides checkpoints, and the last one is still to come: say what all of it costs."""
    ours, theirs = result.of(TREESTORE), result.of(SQLITE)
    if ours and theirs:
        seconds = last_s + sum(details["checkpoint_s"] for details in ours.details)
        overall = (ours.operations / (ours.seconds + last_s)) / (theirs.operations / theirs.seconds)
        result.numbers["over all repetitions × sqlite3"] = overall
        result.notes.append(
            f"Over all repetitions, {seconds:.1f} s of checkpoints included: {overall:.2f} × "
            "sqlite3 (which checkpoints as it goes)."
        )
