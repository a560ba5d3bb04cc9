"""The D.C. Code: a large document, stored while others read."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

from scripts.bench.data import law_file
from scripts.bench.measure import Result, Series, percentiles_ms
from scripts.bench.rows import LAW, TREESTORE
from scripts.bench.servers.treestore import run_treestore
from scripts.bench.session import Session
from scripts.bench.worker import Worker, WorkerFailed

LAW_NODES = 173_481
CACHE_MB = 256
BASELINE_S = 2.0
CALLERS = 16


def run_law(session: Session) -> None:
    """Measure the row, where it was asked for and its data are here."""
    if not session.wants(LAW):
        return
    result = Result(LAW)
    if law_file() is None:
        result.notes.append(
            "skipped: no dc-code/nodes.jsonl.gz below TREESTORE_TEST_DATA (../shared/data)"
        )
        session.note(f"{LAW.title}: {result.notes[0]}.")
        session.done(result)
        return
    try:
        _measure(session, result)
    except WorkerFailed as error:
        result.notes.append(f"failed: {error}")
        session.note(f"{LAW.title} failed: {error}")
    session.done(result)


def _measure(session: Session, result: Result) -> None:
    nodes = session.sizes.law_nodes or LAW_NODES
    times: list[float] = []
    during: list[float] = []
    before: list[float] = []
    series = Series(TREESTORE)
    peak = 0
    for repetition in range(session.sizes.law_repetitions):
        with ExitStack() as stack:
            folder = session.folder(f"law-treestore{repetition}")
            options = ("--cache-size-mb", str(CACHE_MB))
            server = stack.enter_context(run_treestore(folder, *options))
            writer, reader = session.workers(
                stack, "treestore_client", "treestore_client", address=server.address
            )
            if writer is None or reader is None:
                raise WorkerFailed("TreeStore's client did not start")
            reader.run("load")
            session.say(f"{LAW.title}: others before")
            before += _watch(session, reader, None)
            session.say(f"{LAW.title}: storing")
            seconds: list[float] = []
            during += _watch(session, reader, writer, seconds)
            times += seconds
            session.say(f"{LAW.title}: reading")
            arguments = {"repetition": repetition, "callers": CALLERS}
            series.add(writer.run("get_law_node", seconds=2.0, **arguments))
            peak = max(peak, server.memory_bytes()[1])
    result.series.append(series)
    share = nodes / LAW_NODES
    if share < 1:
        result.notes.append(f"Only the first {nodes:,} nodes of {LAW_NODES:,} were stored.")
    middle = statistics.median(times)
    result.numbers["stored in"] = middle / share
    if share < 1:
        result.notes.append(
            f"They took {middle:.1f} s; the time shown is in proportion for all of them."
        )
    result.numbers["get_node p99 after"] = series.latencies_ms()["p99"]
    result.numbers["others' get_node p99"] = percentiles_ms(during)["p99"]
    result.numbers["process memory"] = peak / 2**20
    for name, values in (("before", before), ("during", during)):
        for percentile, value in percentiles_ms(values).items():
            result.numbers[f"others' get_node {name} {percentile} ms"] = value
    result.notes.append(f"Process memory is the server's peak, with a cache of {CACHE_MB} MiB.")


def _watch(
    session: Session,
    reader: Worker,
    writer: Worker | None,
    seconds: list[float] | None = None,
) -> list[float]:
    """Latencies of the looker-on while the writer stores (or, without one, for a while)."""
    stop = session.directory / "stop"
    stop.unlink(missing_ok=True)
    if writer is not None:
        # Reads and prepares the file first, so that only the store is watched.
        writer.run("prepare_law")
    reader.start("watch", stop_file=str(stop))
    try:
        if writer is None:
            time.sleep(BASELINE_S)
        else:
            sample = writer.run("store_law", repetition=0)
            assert seconds is not None
            seconds.append(sample.seconds)
    finally:
        stop.touch()
        latencies = reader.wait().latencies_s
    return latencies
