"""The outcome of a load test as data: what ``--json`` gives, and the tables show."""

from __future__ import annotations

import statistics as mathematics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs

from treestore.loadtest.statistics import Calls, Second, percentiles_ms
from treestore.loadtest.verify import Verified
from treestore.loadtest.world import World

INTERVALS_MAX = 120
PROBLEMS_TOLD = 100


@attrs.frozen(kw_only=True)
class Row:
    """What became of one operation's calls, or of all.

    Attributes:
        calls: how many.
        ok_percent: were answered as they should be.
        limited_percent: were refused by a limit that is there on purpose.
        errors_percent: failed otherwise.
        timeouts_percent: of all calls, those without an answer in time (they are errors too).
        latency_ms: p50, p90, p95, p99 and max.
    """

    calls: int
    ok_percent: float
    limited_percent: float
    errors_percent: float
    timeouts_percent: float
    latency_ms: dict[str, float]


@attrs.frozen(kw_only=True)
class Interval:
    """A stretch of the run.

    Attributes:
        second: when it began.
        calls_per_s: that ended in it.
        errors: that ended in it, in all.
        latency_ms_max: of the longest call that ended in it.
    """

    second: int
    calls_per_s: float
    errors: int
    latency_ms_max: float


@attrs.frozen(kw_only=True)
class Report:
    """The outcome of a load test.

    Attributes:
        ok: no error beyond the intended limits, and nothing wrong.
        plan: what was asked for.
        elapsed_s: how long the users worked.
        calls_per_s: of all users together.
        total: all calls.
        operations: by operation.
        limits: refusals by limits that are there on purpose, by code.
        errors: other failures, by code; ``messages`` has one of each.
        conflicts: transactions' attempts that came too late and were made again.
        timeline: the run in at most 120 stretches.
        writes_acknowledged, writes_refused, writes_unknown: of documents.
        transfers: that were acknowledged.
        verified: how much was looked at afterwards; None where that was not possible.
        restarted: whether the server was killed and started again before that.
        wrong: how many answers and stored documents were not as they should be; ``problems``
            tells of the first hundred.
    """

    ok: bool
    plan: dict[str, Any]
    elapsed_s: float
    calls_per_s: float
    total: Row
    operations: dict[str, Row]
    limits: dict[str, int]
    errors: dict[str, int]
    messages: dict[str, str]
    conflicts: int
    timeline: list[Interval]
    writes_acknowledged: int
    writes_refused: int
    writes_unknown: int
    transfers: int
    verified: Verified | None
    restarted: bool
    wrong: int
    problems: list[str]


def report_of(world: World, verified: Verified | None, *, restarted: bool = False) -> Report:
    """Put together what a run has come to.

    Args:
        world: after the run.
        verified: what `verify` looked at; None: it did not come to its end.
        restarted: whether the server was killed in between.
    """
    statistics, ledger = world.statistics, world.ledger
    total = statistics.total()
    elapsed_s = max(statistics.elapsed_s, 1e-9)
    return Report(
        ok=verified is not None and not ledger.wrong and not total.errors,
        plan=attrs.asdict(world.plan),
        elapsed_s=round(statistics.elapsed_s, 3),
        calls_per_s=round(total.count / elapsed_s, 1),
        total=_row(total),
        operations={name: _row(calls) for name, calls in sorted(statistics.operations.items())},
        limits=_counts(total.limited),
        errors=_counts(total.errors),
        messages=dict(statistics.messages),
        conflicts=statistics.conflicts,
        timeline=_timeline(statistics.seconds, statistics.elapsed_s),
        writes_acknowledged=ledger.acknowledged,
        writes_refused=ledger.refused,
        writes_unknown=sum(len(entry.unsure) for entry in ledger.entries.values()),
        transfers=world.books.done,
        verified=verified,
        restarted=restarted,
        wrong=ledger.wrong,
        problems=ledger.problems[:PROBLEMS_TOLD],
    )


def _row(calls: Calls) -> Row:
    def percent(count: int) -> float:
        return round(100 * count / calls.count, 4) if calls.count else 0.0

    return Row(
        calls=calls.count,
        ok_percent=percent(calls.ok),
        limited_percent=percent(calls.limited.total()),
        errors_percent=percent(calls.errors.total()),
        timeouts_percent=percent(calls.timeouts),
        latency_ms=percentiles_ms(calls.latencies_s),
    )


def _counts(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))


def _timeline(seconds: Sequence[Second], elapsed_s: float) -> list[Interval]:
    length = max(1, -(-len(seconds) // INTERVALS_MAX))
    intervals = []
    for begin in range(0, len(seconds), length):
        part = seconds[begin : begin + length]
        # The last one may have been cut short; a sliver of a second says nothing of its own.
        lasted_s = max(0.05, min(begin + length, elapsed_s) - begin)
        intervals.append(
            Interval(
                second=begin,
                calls_per_s=round(sum(each.calls for each in part) / lasted_s, 1),
                errors=sum(each.errors for each in part),
                latency_ms_max=round(max(each.latency_s_max for each in part) * 1000, 1),
            )
        )
    return intervals


def throughput(report: Report) -> tuple[float, float, float]:
    """The least, the median and the most calls a second of the timeline's stretches; the last
    one, which may be short, counts only where it is the only one."""
    rates = [interval.calls_per_s for interval in report.timeline]
    rates = rates[:-1] or rates or [0.0]
    return min(rates), mathematics.median(rates), max(rates)
