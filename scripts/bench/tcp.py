"""The rows over TCP."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from scripts.bench.measure import Entry, Result
from scripts.bench.rows import ECHO, POSTGRES, TCP, TREESTORE, Row
from scripts.bench.servers.echo import run_echo
from scripts.bench.servers.postgres import NoPostgres, run_postgres
from scripts.bench.servers.treestore import run_treestore
from scripts.bench.session import Session
from scripts.bench.worker import Worker, WorkerFailed

IN_FLIGHT = 64
WINDOWED = "bare echo without callers"

WORKLOADS: dict[str, tuple[str, dict[str, Any]]] = {
    "tcp-get-node": ("get_node", {"callers": 16}),
    "tcp-get-node-16": ("get_node", {"callers": 16, "separate": True}),
    "tcp-subtree": ("get_subtree", {}),
    "tcp-enriched": ("get_enriched", {}),
    "tcp-ancestors": ("get_ancestor_path", {"callers": 16}),
    "tcp-ancestors-16": ("get_ancestor_path", {"callers": 16, "separate": True}),
    "tcp-as-of": ("as_of", {"callers": 16}),
    "tcp-as-of-16": ("as_of", {"callers": 16, "separate": True}),
    "tcp-put": ("put", {"callers": 64}),
    "tcp-put-64": ("put", {"callers": 64, "separate": True}),
    "tcp-transaction": ("modify", {"callers": 16}),
    "tcp-transaction-16": ("modify", {"callers": 16, "separate": True}),
    # One caller keeps its connection: the harder comparison.
    "tcp-latency": ("get_node", {"callers": 1, "separate": True}),
}
"""Row → workload and arguments, the same for both systems."""


def run_tcp(session: Session) -> None:
    """Measure what was asked for."""
    wanted = [row for row in TCP if session.wants(row)]
    if not wanted:
        return
    with ExitStack() as stack:
        treestore = _treestore(session, stack)
        postgres = None
        if any(row.name in WORKLOADS for row in wanted):
            postgres = _postgres(session, stack)
            _note_loads(session, treestore, postgres)
        if any(row.name.startswith("tcp-as-of") for row in wanted):
            for worker in (treestore, postgres):
                if worker is not None:
                    session.say(f"recording versions in {worker.name}")
                    worker.run("prepare_versions")
        echo = None
        if any(row.name == "tcp-pipelined" for row in wanted):
            echo = session.worker(stack, "echo_client", stack.enter_context(run_echo()))
        for row in wanted:
            entries = _entries(row, session.sizes.seconds, treestore, postgres, echo)
            result = session.measure(row, entries, session.sizes.repetitions)
            _note_latencies(result)
            session.done(result)


def _entries(
    row: Row,
    seconds: float,
    treestore: Worker | None,
    postgres: Worker | None,
    echo: Worker | None,
) -> list[Entry]:
    timed = {"seconds": seconds}
    if row.name == "tcp-pipelined":
        arguments = {**timed, "callers": IN_FLIGHT}
        return [
            Entry(TREESTORE, treestore, "pipelined_get", arguments),
            Entry(ECHO, echo, "called", arguments),
            Entry(WINDOWED, echo, "windowed", arguments),
        ]
    workload, arguments = WORKLOADS[row.name]
    arguments = {**timed, **arguments}
    return [
        Entry(TREESTORE, treestore, workload, arguments),
        Entry(POSTGRES, postgres, workload, arguments),
    ]


def _treestore(session: Session, stack: ExitStack) -> Worker | None:
    session.say("starting treestore serve")
    try:
        server = stack.enter_context(run_treestore(session.folder("tcp-treestore")))
    except WorkerFailed as error:
        session.note(f"TreeStore's server does not take part: {error}")
        return None
    worker = session.worker(stack, "treestore_client", server.address)
    if worker is not None:
        session.say("storing the document in TreeStore")
        sample = worker.run("load")
        session.environment["document stored by TreeStore"] = f"{sample.seconds:.1f} s"
    return worker


def _postgres(session: Session, stack: ExitStack) -> Worker | None:
    session.say("starting PostgreSQL")
    try:
        address, version = stack.enter_context(run_postgres(session.directory / "postgres"))
    except NoPostgres as error:
        session.note(f"PostgreSQL is left out: {error}.")
        return None
    session.environment["PostgreSQL"] = version
    return session.worker(stack, "postgres_client", address)


def _note_loads(session: Session, treestore: Worker | None, postgres: Worker | None) -> None:
    if treestore is not None and postgres is not None:
        seconds = postgres.run("loaded").seconds
        session.environment["document stored by PostgreSQL (COPY)"] = f"{seconds:.1f} s"


def _note_latencies(result: Result) -> None:
    for series in result.series:
        for name, value in series.latencies_ms().items():
            result.numbers[f"{series.system} {name} ms"] = value
