"""Repetitions A B A B ..., and what is made of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import numpy
from numpy.typing import NDArray

from scripts.bench.rows import TREESTORE, Row, Target
from scripts.bench.worker import Sample, Worker, WorkerFailed


@attrs.define
class Series:
    """What one system did in one row."""

    system: str
    rates: list[float] = attrs.field(factory=list)
    latencies_s: list[float] = attrs.field(factory=list)
    operations: int = 0
    seconds: float = 0.0
    details: list[dict[str, Any]] = attrs.field(factory=list)

    def add(self, sample: Sample) -> None:
        """Count a repetition."""
        self.rates.append(sample.operations / sample.seconds)
        self.latencies_s += sample.latencies_s
        self.operations += sample.operations
        self.seconds += sample.seconds
        if sample.details:
            self.details.append(sample.details)

    @property
    def median(self) -> float:
        """Median rate over the repetitions."""
        return statistics.median(self.rates)

    def latencies_ms(self) -> dict[str, float]:
        """Percentiles over all calls of all repetitions; empty where none were timed."""
        return percentiles_ms(self.latencies_s)


def percentiles_ms(seconds: Sequence[float] | NDArray[numpy.float64]) -> dict[str, float]:
    """p50, p99, p99.9 and the longest, in milliseconds."""
    if not len(seconds):
        return {}
    values = numpy.percentile(numpy.asarray(seconds) * 1000, [50, 99, 99.9, 100])
    return dict(zip(("p50", "p99", "p99.9", "max"), map(float, values), strict=True))


@attrs.define
class Check:
    """A target and what was measured for it."""

    target: Target
    value: float | None

    @property
    def verdict(self) -> str:
        """``ok``, ``MISSED`` or ``not measured``."""
        return self.target.verdict(self.value)


@attrs.define
class Result:
    """One row, measured."""

    row: Row
    series: list[Series] = attrs.field(factory=list)
    numbers: dict[str, float] = attrs.field(factory=dict)
    """What the row's targets call ``measure``, and more to report."""
    notes: list[str] = attrs.field(factory=list)

    def of(self, system: str) -> Series | None:
        """A system's series, where it was measured."""
        return next((one for one in self.series if one.system == system and one.rates), None)

    def ratio(self, other: str) -> float | None:
        """TreeStore's median rate over the other's."""
        ours, theirs = self.of(TREESTORE), self.of(other)
        return ours.median / theirs.median if ours and theirs else None

    def checks(self) -> list[Check]:
        """Every target of the row with its measured value."""
        return [Check(target, self._value(target)) for target in self.row.targets]

    def _value(self, target: Target) -> float | None:
        if target.measure in self.numbers:
            return self.numbers[target.measure]
        if target.unit != "ratio":
            ours = self.of(TREESTORE)
            return ours.latencies_ms().get(target.measure) if ours else None
        if not target.at_most:
            return self.ratio(target.against)
        ours, theirs = self.of(TREESTORE), self.of(target.against)
        if not ours or not theirs:
            return None
        return ours.latencies_ms()["p50"] / theirs.latencies_ms()["p50"]


@attrs.frozen
class Entry:
    """One system in one row: whom to ask for what."""

    system: str
    worker: Worker | None
    workload: str
    arguments: dict[str, Any] = attrs.field(factory=dict)


def interleave(
    row: Row,
    entries: Iterable[Entry],
    repetitions: int,
    warm_up_seconds: float,
    step: Callable[[str], None],
) -> Result:
    """Measure a row: each system once unmeasured, then A B A B ....

    A system that fails is left out from then on, with a note.
    """
    present = [entry for entry in entries if entry.worker is not None]
    result = Result(row, [Series(entry.system) for entry in present])
    failed: set[str] = set()
    for repetition in range(-1, repetitions):
        for entry, series in zip(present, result.series, strict=True):
            if entry.system in failed:
                continue
            assert entry.worker is not None
            step(f"{row.title}: {entry.system}")
            arguments = dict(entry.arguments)
            if repetition < 0 and "seconds" in arguments:
                arguments["seconds"] = warm_up_seconds
            try:
                sample = entry.worker.run(entry.workload, repetition=repetition + 1, **arguments)
            except WorkerFailed as error:
                failed.add(entry.system)
                series.rates.clear()
                result.notes.append(f"{entry.system} failed: {error}")
                continue
            if repetition >= 0:
                series.add(sample)
    return result
