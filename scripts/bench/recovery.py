"""Opening a store whose log is full of small transactions: recovery's worst case."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys

from scripts.bench.measure import Result, Series
from scripts.bench.rows import RECOVERY, TREESTORE
from scripts.bench.session import Session
from scripts.bench.systems.recovery_store import SHAPES
from scripts.bench.worker import ROOT, Sample, WorkerFailed

CHILD = "scripts.bench.systems.recovery_store"
REPETITIONS = 3
WORST = SHAPES[0]


def run_recovery(session: Session) -> None:
    """Measure the row, where it was asked for."""
    if not session.wants(RECOVERY):
        return
    result = Result(RECOVERY)
    try:
        for shape in SHAPES:
            _measure(session, result, shape)
    except WorkerFailed as error:
        result.notes.append(f"failed: {error}")
        session.note(f"{RECOVERY.title} failed: {error}")
    session.done(result)


def _measure(session: Session, result: Result, shape: str) -> None:
    folder = session.folder(f"recovery-{shape.replace(' ', '-')}")
    filled, copy = folder / "filled", folder / "copy"
    size_mib = session.sizes.recovery_log_mib
    session.say(f"{RECOVERY.title}: filling ({shape})")
    _child("fill", str(filled), shape, str(size_mib))
    found: list[dict[str, float]] = []
    series = Series(TREESTORE)
    for _ in range(REPETITIONS):
        session.say(f"{RECOVERY.title}: opening ({shape})")
        shutil.copytree(filled, copy)
        found.append(json.loads(_child("open", str(copy))))
        shutil.rmtree(copy)
        series.add(Sample(int(found[-1]["transactions"]), found[-1]["opened in"]))
    shutil.rmtree(folder)
    middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
    if shape == WORST:
        result.series.append(series)
        result.numbers |= {name: middle[name] for name in ("opened in", "peak memory")}
    for name in ("opened in", "processor time", "peak memory"):
        result.numbers[f"{shape}: {name}"] = middle[name]
    result.notes.append(
        f"{shape}: {middle['transactions']:,.0f} transactions in a log of {size_mib} MiB, "
        f"{middle['keys']:,.0f} keys; opened in {middle['opened in']:.1f} s "
        f"({middle['processor time']:.1f} s of processor time), "
        f"{middle['peak memory']:,.0f} MiB, {middle['checkpoints']:.0f} checkpoints."
    )


def _child(*arguments: str) -> str:
    """What the child prints."""
    done = subprocess.run(
        [sys.executable, "-m", CHILD, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = -9 if arguments[0] == "fill" else 0
    if done.returncode != expected:
        raise WorkerFailed(f"{CHILD} {arguments[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout
