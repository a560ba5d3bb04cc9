"""Figures of how good rankings are, each between 0 and 1, over questions that somebody judged."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

DEPTH: Final = 1000
"""Hits of a question that the average precision looks at."""

RESAMPLED: Final = 10_000
"""Times that the questions are drawn anew for an interval."""


def gain(ids: Sequence[Any], relevant: Collection[Any], depth: int = 10) -> float:
    """nDCG of the first hits, with one grade."""
    found = sum(1 / math.log2(rank + 2) for rank, id in enumerate(ids[:depth]) if id in relevant)
    best = sum(1 / math.log2(rank + 2) for rank in range(min(depth, len(relevant))))
    return found / best


def precision(ids: Sequence[Any], relevant: Collection[Any]) -> float:
    """Average precision."""
    hits, total = 0, 0.0
    for rank, id in enumerate(ids, 1):
        if id in relevant:
            hits += 1
            total += hits / rank
    return total / len(relevant)


def recall(ids: Sequence[Any], relevant: Collection[Any], depth: int = 100) -> float:
    """The share of what is relevant that is among the first hits."""
    return sum(id in relevant for id in ids[:depth]) / len(relevant)


@attrs.define
class Figures:
    """What one way of searching reached, question by question in their order.

    Attributes:
        gains: nDCG at 10.
        precisions: average precision over the first `DEPTH` hits.
        recalls: at 100.
    """

    gains: list[float] = attrs.field(factory=list)
    precisions: list[float] = attrs.field(factory=list)
    recalls: list[float] = attrs.field(factory=list)

    def add(self, first: Sequence[Any], deep: Sequence[Any], relevant: Collection[Any]) -> None:
        """One question's hits: the first ten as a user asks for them, and the first `DEPTH`."""
        self.gains.append(gain(first, relevant))
        self.precisions.append(precision(deep, relevant))
        self.recalls.append(recall(deep, relevant))

    @property
    def ndcg(self) -> float:
        return mean(self.gains)

    @property
    def map(self) -> float:
        return mean(self.precisions)

    @property
    def recall(self) -> float:
        return mean(self.recalls)

    @property
    def odd(self) -> Figures:
        """Of the questions with odd numbers, which no setting was chosen by."""
        return Figures(self.gains[::2], self.precisions[::2], self.recalls[::2])


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between what the mean lies in 95 % of the cases where as many questions are drawn from these
    with replacement. Of differences, question by question, it tells whether one way is better."""
    given: NDArray[np.float64] = np.asarray(values)
    drawn = np.random.default_rng(1).integers(len(given), size=(RESAMPLED, len(given)))
    low, high = np.percentile(given[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
