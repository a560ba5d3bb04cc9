"""What metrics and the log of requests cost: a server with them beside one without.

The server with them is scraped once a second meanwhile, far more often than Prometheus would.
Rates swing by much more than what is looked for, since two servers and their client share a
machine; the processor time of a server for each operation swings by less, and is reported too.
"""

from __future__ import annotations

import threading
import urllib.request
from contextlib import ExitStack
from statistics import median

from scripts.bench.measure import Result, Series
from scripts.bench.rows import OBSERVED, TREESTORE, UNOBSERVED, Row
from scripts.bench.servers.treestore import RunningServer, run_treestore
from scripts.bench.session import Session
from scripts.bench.worker import Worker, WorkerFailed

SCRAPE_INTERVAL_S = 1.0
ROUNDS = 4
"""Repetitions for each of a usual row: the difference is small."""

WORKLOADS = {
    "observed-get": ("pipelined_get", {"callers": 64}),
    "observed-put": ("put", {"callers": 64}),
}


def run_observed(session: Session) -> None:
    """Measure what was asked for."""
    wanted = [row for row in OBSERVED if session.wants(row)]
    if not wanted:
        return
    with ExitStack() as stack:
        try:
            with_them = stack.enter_context(run_treestore(session.folder("observed")))
            without = stack.enter_context(
                run_treestore(
                    session.folder("unobserved"), module=("scripts.bench.servers.unobserved",)
                )
            )
        except WorkerFailed as error:
            session.note(f"The cost of metrics is not measured: {error}")
            return
        servers = {TREESTORE: with_them, UNOBSERVED: without}
        workers: dict[str, Worker] = {}
        for name, server in servers.items():
            worker = session.worker(stack, "treestore_client", server.address)
            if worker is None:
                return
            worker.run("load")
            workers[name] = worker
        stack.enter_context(_Scraper(with_them.metrics))
        for row in wanted:
            session.done(_measure(session, row, servers, workers))


def _measure(
    session: Session, row: Row, servers: dict[str, RunningServer], workers: dict[str, Worker]
) -> Result:
    """A B, B A, A B: whoever is second in a pair has the warmer machine."""
    workload, arguments = WORKLOADS[row.name]
    result = Result(row, [Series(name) for name in servers])
    costs: dict[str, list[float]] = {name: [] for name in servers}
    for repetition in range(-1, ROUNDS * session.sizes.repetitions):
        session.say(f"{row.title}: {repetition + 1}")
        for series in result.series if repetition % 2 else reversed(result.series):
            name = series.system
            before_s = servers[name].processor_s()
            sample = workers[name].run(
                workload, repetition=repetition, seconds=session.sizes.seconds / 2, **arguments
            )
            used_s = servers[name].processor_s() - before_s
            if repetition >= 0:
                series.add(sample)
                costs[name].append(used_s / sample.operations)
    ours, theirs = result.series
    result.numbers["rate with over without, median of pairs"] = _ratio(ours.rates, theirs.rates)
    if all(map(all, costs.values())):
        for name, found in costs.items():
            result.numbers[f"{name}: µs of processor for each"] = median(found) * 1e6
        result.numbers["processor with over without, median of pairs"] = _ratio(*costs.values())
    return result


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return median(our / their for our, their in zip(ours, theirs, strict=True))


class _Scraper:
    """Asks for the metrics again and again, on a thread."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/metrics"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(SCRAPE_INTERVAL_S):
            with urllib.request.urlopen(self._url, timeout=30) as response:
                response.read()

    def __enter__(self) -> _Scraper:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
