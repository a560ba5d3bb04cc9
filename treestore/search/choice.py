"""The planner of namespaces: how a vector query, or the words of one, is answered.

A vector query is planned segment by segment. The allowed rows can be compared exactly, gathered one
by one (``filter``) or all of them in a row (``scan``); or the segment's index names candidates
(``index``), with more probes the fewer rows are allowed, as an index that skips most of what it
finds has to look further. The tail is always compared exactly.

Words are found by the index, best first, and what is not allowed is passed over (``post_filter``),
so the fewer rows are allowed the more have to be fetched; or only the allowed rows are scored
(``score_allowed``).

The cheapest way is taken. `COSTS` were measured by ``scripts/bench/choice.py``; they need not be
exact, since where two ways cost much the same either will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import attrs

VectorMethod = Literal["filter", "scan", "index"]
TextMethod = Literal["post_filter", "score_allowed"]

INDEX_ALLOWED_MIN: Final = 16
"""An index is not asked where fewer rows are allowed for each one wanted: its few candidates would
have to be nearly all of them."""

WIDEN_BELOW: Final = 0.2
"""Below this share of allowed rows the probes grow as it shrinks: twice as many at a tenth, four
times at a twentieth. So many keep recall@10 above 0.95 on overlapping clusters."""

CANDIDATES_PER_HIT: Final = 10
CANDIDATES_MIN: Final = 100
"""What the index names for each row wanted, and at least, to be compared exactly."""

OVERFETCH: Final = 1.5
"""More than the expected number of words' hits is fetched: they are not spread evenly."""


@attrs.frozen(kw_only=True)
class Costs:
    """What single steps take, in microseconds.

    The defaults are what ``scripts/bench/choice.py`` found on the two cores of a cloud machine
    (faiss 1.15.1, tantivy 0.27.0, numpy 2.4.6), rounded; ``segment`` and ``index`` have in addition
    what Python does around them, found by asking eight segments with and without an index.

    Attributes:
        segment: asking one segment for anything.
        gather_row, gather_number: comparing an allowed row exactly, and each number of its vector.
        scan_row, scan_number: the same where all rows are compared in a row.
        index: asking an index.
        list_number: comparing the query with the centre of a list, for each of its numbers.
        code, code_number: comparing one code of the lists that are probed, and each of its bits.
        text: asking for words.
        posting: going over one row that has a word.
        hit: fetching a hit and looking whether its row is allowed.
        scored_row: having one allowed row scored.
    """

    segment: float = 20.0
    gather_row: float = 0.02
    gather_number: float = 0.0007
    scan_row: float = 0.002
    scan_number: float = 0.00016
    index: float = 100.0
    list_number: float = 0.0008
    code: float = 0.012
    code_number: float = 0.000024
    text: float = 10.0
    posting: float = 0.005
    hit: float = 0.15
    scored_row: float = 2.7


COSTS: Final = Costs()


@attrs.frozen(kw_only=True)
class SegmentShape:
    """What the planner knows of a segment.

    Attributes:
        rows: how many it has.
        allowed: how many of them are visible and pass the filter; an estimate will do.
        lists: of its index; 0: it has none.
        probes: lists to look at where all rows are allowed.
    """

    rows: int
    allowed: float
    lists: int = 0
    probes: int = 1


@attrs.frozen(kw_only=True)
class SegmentStep:
    """How one segment is asked.

    Attributes:
        method: see the module.
        rows: that are compared exactly, at most.
        probes: lists of the index to look at; 0 without it.
        candidates: that the index is to name; 0 without it.
        cost_us: what it should take.
        others: what the other ways would have taken, in microseconds.
    """

    method: VectorMethod
    rows: int
    probes: int = 0
    candidates: int = 0
    cost_us: float = 0.0
    others: tuple[tuple[VectorMethod, float], ...] = ()


@attrs.frozen(kw_only=True)
class Plan:
    """How a vector query is answered.

    Attributes:
        method: ``index`` where at least one segment's index is asked, else what most rows are
            compared by.
        rows: rows that there are.
        estimated_rows: rows that should be allowed.
        cost_us: what it should take, in microseconds.
        steps: of each segment, in their order.
        tail_rows: rows of the tail that are compared.
        sentence: says it to a person.
    """

    method: VectorMethod
    rows: int
    estimated_rows: float
    cost_us: float
    steps: tuple[SegmentStep, ...]
    tail_rows: int
    sentence: str


def widened(shape: SegmentShape) -> int:
    """How many lists of a segment to look at."""
    if not shape.lists:
        return 0
    share = min(1.0, shape.allowed / shape.rows) if shape.rows else 1.0
    wider = shape.probes * max(1.0, WIDEN_BELOW / share) if share else math.inf
    return max(1, math.ceil(min(wider, shape.lists)))


def choose_vector(
    segments: Sequence[SegmentShape],
    *,
    dim: int,
    top_k: int,
    tail_rows: int = 0,
    tail_allowed: float = 0.0,
    exact: bool = False,
    costs: Costs = COSTS,
) -> Plan:
    """The cheapest way to find the nearest rows.

    Args:
        dim: numbers in each vector.
        top_k: rows that are wanted.
        exact: whether no index may be asked.
    """
    steps = [
        _choose_segment(shape, dim=dim, top_k=top_k, exact=exact, costs=costs) for shape in segments
    ]
    tail_us = _gathering(tail_allowed, dim, costs) if tail_rows else 0.0
    rows = sum(shape.rows for shape in segments) + tail_rows
    allowed = min(float(rows), sum(shape.allowed for shape in segments) + tail_allowed)
    cost_us = sum(step.cost_us for step in steps) + tail_us
    method = _method_of(steps)
    return Plan(
        method=method,
        rows=rows,
        estimated_rows=allowed,
        cost_us=cost_us,
        steps=tuple(steps),
        tail_rows=round(tail_allowed),
        sentence=_sentence(method, steps, rows, allowed, cost_us),
    )


def _choose_segment(
    shape: SegmentShape, *, dim: int, top_k: int, exact: bool, costs: Costs
) -> SegmentStep:
    allowed = min(max(0.0, shape.allowed), float(shape.rows))
    gathering = costs.segment + _gathering(allowed, dim, costs)
    scanning = costs.segment + shape.rows * (costs.scan_row + dim * costs.scan_number)
    ways: list[tuple[VectorMethod, float]] = [("filter", gathering), ("scan", scanning)]
    probes = widened(attrs.evolve(shape, allowed=allowed))
    candidates = max(CANDIDATES_MIN, CANDIDATES_PER_HIT * top_k)
    if not exact and 0 < probes < shape.lists and allowed >= INDEX_ALLOWED_MIN * top_k:
        codes = shape.rows * probes / shape.lists
        searching = (
            costs.segment
            + costs.index
            + shape.lists * dim * costs.list_number
            + codes * (costs.code + dim * costs.code_number)
            + _gathering(min(candidates, allowed), dim, costs)
        )
        ways.append(("index", searching))
    ways.sort(key=lambda way: way[1])
    (method, cost_us), *others = ways
    by_index = method == "index"
    compared = min(candidates, allowed) if by_index else allowed
    return SegmentStep(
        method=method,
        rows=shape.rows if method == "scan" else math.ceil(compared),
        probes=probes if by_index else 0,
        candidates=candidates if by_index else 0,
        cost_us=cost_us,
        others=tuple(others),
    )


def _gathering(rows: float, dim: int, costs: Costs) -> float:
    return rows * (costs.gather_row + dim * costs.gather_number)


def _method_of(steps: Sequence[SegmentStep]) -> VectorMethod:
    methods = {step.method for step in steps}
    if "index" in methods:
        return "index"
    scanned = sum(step.rows for step in steps if step.method == "scan")
    gathered = sum(step.rows for step in steps if step.method == "filter")
    return "scan" if scanned > gathered else "filter"


def _sentence(
    method: VectorMethod,
    steps: Sequence[SegmentStep],
    rows: int,
    allowed: float,
    cost_us: float,
) -> str:
    if method == "index":
        asked = [step for step in steps if step.method == "index"]
        most = max(step.probes for step in asked)
        how = (
            f"the index of {len(asked)} of {len(steps)} segments names candidates (up to {most} "
            "lists each), which are compared exactly"
        )
    elif method == "scan":
        how = "so many that all rows are compared exactly, in a row"
    else:
        how = "so few that they are compared exactly, one by one"
    return f"About {allowed:,.0f} of {rows:,} rows are allowed: {how} ({cost_us / 1000:.2g} ms)."


# --- words -----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TextPlan:
    """How words are found.

    Attributes:
        method: see the module.
        rows: rows that there are.
        estimated_rows: rows that should be allowed.
        fetch: hits to fetch first; 0 where the allowed rows are scored.
        cost_us: what it should take, in microseconds.
        others: what the other way would have taken.
        sentence: says it to a person.
    """

    method: TextMethod
    rows: int
    estimated_rows: float
    fetch: int
    cost_us: float
    others: tuple[tuple[TextMethod, float], ...]
    sentence: str


def choose_text(
    *, rows: int, allowed: float, matching: float, top_k: int, costs: Costs = COSTS
) -> TextPlan:
    """The cheaper way to find the best rows that have some words.

    Args:
        rows: rows that there are.
        allowed: rows that are visible and pass the filter; an estimate will do.
        matching: rows that have one of the words; likewise.
    """
    matching = min(max(0.0, matching), float(rows))
    allowed = min(max(0.0, allowed), float(rows))
    share = allowed / rows if rows else 1.0
    wanted = top_k / share * (OVERFETCH if share < 1 else 1.0) if share else math.inf
    fetch = math.ceil(min(matching, wanted))
    ways: list[tuple[TextMethod, float]] = [
        ("post_filter", costs.text + matching * costs.posting + fetch * costs.hit),
        ("score_allowed", costs.text + allowed * costs.scored_row),
    ]
    ways.sort(key=lambda way: way[1])
    (method, cost_us), *others = ways
    how = (
        f"the best {fetch:,} of about {matching:,.0f} rows with these words are looked at first"
        if method == "post_filter"
        else "so few that only they are scored"
    )
    return TextPlan(
        method=method,
        rows=rows,
        estimated_rows=allowed,
        fetch=fetch if method == "post_filter" else 0,
        cost_us=cost_us,
        others=tuple(others),
        sentence=(
            f"About {allowed:,.0f} of {rows:,} rows are allowed: {how} ({cost_us / 1000:.2g} ms)."
        ),
    )
