"""The event loop's row: how long does anything hold the server's loop under mixed load?"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from scripts.bench.measure import Result, Series, percentiles_ms
from scripts.bench.rows import LOOP, TREESTORE
from scripts.bench.servers.treestore import run_treestore
from scripts.bench.servers.watched import COLUMNS, LONG_S, STEPS, TURNS
from scripts.bench.session import Session
from scripts.bench.worker import Sample, WorkerFailed

CONTROL = "step of a bare loop beside it"


def run_loop(session: Session) -> None:
    """Measure the row, where it was asked for."""
    if not session.wants(LOOP):
        return
    result = Result(LOOP)
    try:
        _measure(session, result)
    except WorkerFailed as error:
        result.notes.append(f"failed: {error}")
        session.note(f"{LOOP.title} failed: {error}")
    session.done(result)


def _measure(session: Session, result: Result) -> None:
    record = session.directory / "loop"
    module = ("scripts.bench.servers.watched", str(record))
    with ExitStack() as stack:
        server = stack.enter_context(run_treestore(session.folder("loop-treestore"), module=module))
        worker = session.worker(stack, "treestore_client", server.address)
        if worker is None:
            raise WorkerFailed("TreeStore's client did not start")
        worker.run("load")
        control = session.worker(stack, "bare_loop")
        session.say(LOOP.title)
        seconds = session.sizes.loop_seconds
        worker.start("mixed", seconds=seconds)
        if control is not None:
            bare = control.run("steps", seconds=seconds).latencies_s
            for name, value in percentiles_ms(bare).items():
                result.numbers[f"{CONTROL} {name}"] = value
        sample = worker.wait()
    # The server has ended and written its record.
    steps = _within(record, STEPS, sample)
    turns = _within(record, TURNS, sample)
    series = Series(TREESTORE)
    series.add(Sample(len(steps), sample.seconds))
    series.latencies_s = steps[:, 1].tolist()
    result.series.append(series)
    for what, durations in (
        ("step", steps[:, 1]),
        ("step's processor time", steps[:, 2]),
        ("step without its waits for a processor", steps[:, 1] - steps[:, 3]),
        ("turn", turns[:, 1]),
    ):
        for name, value in percentiles_ms(durations).items():
            result.numbers[f"{what} {name}"] = value
        long = durations[durations > LONG_S]
        result.numbers[f"{what} over 5 ms: share of time"] = float(numpy.sum(long) / sample.seconds)
        result.numbers[f"{what} over 5 ms: count"] = len(long)
    _note(result, record, sample)


def _note(result: Result, record: Path, sample: Sample) -> None:
    counts: dict[str, Any] = sample.details["counts"]
    meanwhile = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    result.notes.append(f"Done meanwhile: {meanwhile}.")
    own = result.numbers["step's processor time p99.9"]
    running = result.numbers["step without its waits for a processor p99.9"]
    share = result.numbers["step over 5 ms: share of time"]
    result.notes.append(
        "A step is what one task does between two waits, in wall-clock time: what other threads "
        f"and processes take from it counts as well. At p99.9 its own processor time is {own:.1f} "
        f"ms; without the time in which its thread was ready and the machine gave it no "
        f"processor, it takes {running:.1f} ms. Steps over 5 ms took {share:.1%} of the time."
    )
    control = result.numbers.get(f"{CONTROL} p99.9")
    if control is not None:
        result.notes.append(
            "Control: on the same machine under the same load the steps of a bare trio loop, of "
            f"0.2 ms each, take {control:.1f} ms at p99.9."
        )
    begin, end = sample.details["begin"], sample.details["end"]
    long = json.loads(record.with_suffix(".long").read_text())
    long = [entry for entry in long if begin <= entry[0] < end]
    names = Counter(name for *_, name in long)
    busy = Counter(name for _, _, used, name in long if used > LONG_S)
    if names:
        worst = ", ".join(f"{name} {count} ({busy[name]})" for name, count in names.most_common(5))
        result.notes.append(
            f"Steps over 5 ms by task (in brackets: those that used that much themselves): {worst}."
        )


def _within(record: Path, name: str, sample: Sample) -> NDArray[numpy.float64]:
    """The entries that began while the load ran."""
    entries = numpy.fromfile(record.with_suffix(f".{name}"), dtype=numpy.float64)
    entries = entries.reshape(-1, COLUMNS[name])
    begin, end = sample.details["begin"], sample.details["end"]
    chosen: NDArray[numpy.float64] = entries[(entries[:, 0] >= begin) & (entries[:, 0] < end)]
    return chosen
