"""Percentiles of latencies against exact ones."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from treestore.stores.records.sketch import Sketch

LATENCIES = st.lists(
    st.floats(0, 1e12, allow_subnormal=False) | st.floats(0, 10) | st.sampled_from([0.0, 1.0]),
    min_size=1,
)
FRACTIONS = (0.0, 0.01, 0.5, 0.9, 0.99, 1.0)


def sketch_of(latencies: list[float]) -> Sketch:
    sketch = Sketch()
    for latency in latencies:
        sketch.add(latency)
    return sketch


@given(LATENCIES)
def test_percentiles_are_within_one_percent(latencies: list[float]) -> None:
    ordered = sorted(latencies)
    found = sketch_of(latencies).percentiles_ms(*FRACTIONS)
    for fraction, answer in zip(FRACTIONS, found, strict=True):
        exact = ordered[max(1, math.ceil(fraction * len(ordered))) - 1]
        assert answer is not None
        # Half a microsecond is lost where latencies are rounded to whole ones.
        assert abs(answer - exact) <= 0.01 * exact + 0.00052


@given(LATENCIES, LATENCIES)
def test_merging_is_counting_together_and_taking_out_leaves_no_trace(
    some: list[float], others: list[float]
) -> None:
    merged = sketch_of(some)
    merged.merge(sketch_of(others))
    assert merged == sketch_of(some + others)
    for latency in others:
        merged.add(latency, -1)
    assert merged == sketch_of(some)


def test_of_nothing() -> None:
    assert Sketch().percentiles_ms(0.5, 1) == [None, None]
    assert Sketch().mean_ms is None
