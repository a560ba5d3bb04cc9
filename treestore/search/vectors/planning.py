"""How many lists to probe and how many candidates to compare, from what was measured.

How well an index finds depends on the data more than on anything else: with well-separated
clusters eight lists hold all of the nearest, in a cloud without form it takes a quarter of them. So
each index is measured when it is built (`Calibration`): some of its own vectors are searched for,
exactly and with growing effort, with all rows allowed and with fewer and fewer, and the share of
the nearest that was found is kept in the file. A search then takes the cheapest effort that found
enough.

Two things follow from one rule. The ten nearest of the rows that a filter leaves, a share *s*
of all, lie as far apart as the ``10 / s`` nearest of all rows; so do the k nearest, with ``s = 10 /
k``. Both are looked up as the share ``s * 10 / k``.
"""

from __future__ import annotations

import math
from typing import Final

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

MEASURED_K: Final = 10
"""The k that calibrations measure."""

WANTED_RECALL: Final = 0.95
"""The share of the k nearest that a search is to find unless it is told otherwise."""

MARGIN: Final = 0.015
"""Added to what is wanted: measured are some hundred queries, and those are rows of the index,
which are found a little more easily than others."""

RECALL_MAX: Final = 0.995
"""Above this a measurement of some hundred queries says nothing; more is not asked of it."""

SHARES: Final = (1.0, 0.3, 0.1, 0.03, 0.01)
"""The shares of allowed rows that are measured."""


_STEPS_PER_OCTAVE: Final = 8
_KNOWN_MAX: Final = 1000

FEW: Final = 0.5
"""With a smaller share of rows allowed, a search first looks which lists have any."""


@attrs.frozen(kw_only=True)
class Costs:
    """What the steps of a search take: microseconds, measured on one core; their ratios count.

    Attributes:
        dim: numbers in a vector.
        bits: in a row's estimate.
        rows: in the index.
        lists: in the index.
    """

    dim: int
    bits: int
    rows: int
    lists: int

    def comparing(self, rows: int) -> float:
        """Exact comparisons: the vectors are read from memory."""
        return 30 + rows * (0.03 + 0.00025 * self.dim)

    def per_list(self, share: float) -> float:
        """Reading one list, a share of whose rows count: the query is made ready for its
        centroid; then each row's flag is read, and the bits of those that count."""
        per_row = 0.004 + (0.012 + 1.2e-5 * self.bits) * min(1.0, 0.1 + 9 * share)
        return 0.7 + 0.0017 * self.bits + per_row * self.rows / self.lists

    def choosing(self, share: float) -> float:
        """All centroids are read, and where few rows count, all flags."""
        return 250 + self.lists * self.bits * 1e-4 + (0.002 * self.rows if share < FEW else 0.0)

    def indexed(self, effort: Effort, share: float) -> float:
        """A search of the index."""
        return (
            self.choosing(share)
            + effort.probes * self.per_list(share)
            + self.comparing(effort.candidates)
        )


@attrs.frozen
class Effort:
    """What a search of one index does.

    Attributes:
        probes: lists that are read.
        candidates: rows whose exact distance is computed.
        recall: the share of the nearest that this found when it was measured.
    """

    probes: int
    candidates: int
    recall: float


_UNKNOWN: Final = Effort(0, 0, 0.0)


@attrs.frozen(eq=False)
class Calibration:
    """The share of the `MEASURED_K` nearest that was found.

    Attributes:
        shares: of rows allowed, falling from 1.
        probes: growing; the last one is all lists.
        candidates: growing, for `MEASURED_K`.
        recall: float32, shape (shares, probes, candidates).
        lists: how many there are.
        rows: how many there are.
    """

    shares: tuple[float, ...]
    probes: tuple[int, ...]
    candidates: tuple[int, ...]
    recall: NDArray[np.float32]
    lists: int
    rows: int
    _known: dict[tuple[int, int, float], Effort | None] = attrs.field(factory=dict, init=False)

    def effort(self, k: int, share: float, wanted: float, costs: Costs) -> Effort | None:
        """The cheapest effort that found enough; None: none that was measured did.

        Args:
            k: how many are to be found.
            share: of the rows that are allowed, above 0.
            wanted: the share of the k nearest that should be found.
            costs: of the index.
        """
        # Shares are rounded down to steps of a tenth, so that answers can be kept.
        step = math.ceil(-math.log2(share) * _STEPS_PER_OCTAVE - 1e-9)
        asked = (k, step, wanted)
        # Other threads may add to it or empty it at any moment.
        known = self._known.get(asked, _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        if len(self._known) > _KNOWN_MAX:
            self._known.clear()
        found = self._look_up(k, 2.0 ** (-step / _STEPS_PER_OCTAVE), wanted, costs)
        self._known[asked] = found
        return found

    def widest(self, k: int, wanted: float) -> Effort | None:
        """All lists, with as many candidates as the smallest share that was measured needs; None:
        even that was not enough. What is left to chance then is only the estimates."""
        scale = max(k, MEASURED_K) / MEASURED_K
        columns = np.flatnonzero(self.recall[-1, -1] >= min(wanted + MARGIN, RECALL_MAX))
        if not len(columns):
            return None
        column = int(columns[0])
        recall = float(self.recall[-1, -1, column])
        return Effort(self.probes[-1], round(self.candidates[column] * scale), recall)

    def _look_up(self, k: int, share: float, wanted: float, costs: Costs) -> Effort | None:
        scale = max(k, MEASURED_K) / MEASURED_K
        recall = self._recall_at(share / scale)
        if recall is None:
            return None
        enough = recall >= min(wanted + MARGIN, RECALL_MAX)
        best = None
        for row, probes in enumerate(self.probes):
            # More candidates than the first number that is enough only cost more.
            columns = np.flatnonzero(enough[row])
            if not len(columns):
                continue
            column = int(columns[0])
            candidates = round(self.candidates[column] * scale)
            effort = Effort(probes, candidates, float(recall[row, column]))
            if best is None or costs.indexed(effort, share) < costs.indexed(best, share):
                best = effort
        return best

    def _recall_at(self, share: float) -> NDArray[np.float32] | None:
        """Between the two measured shares around it, by its logarithm; None: beyond them."""
        if share < self.shares[-1] * 0.999:
            return None
        position = float(
            np.interp(-np.log(share), -np.log(self.shares), np.arange(len(self.shares)))
        )
        above = int(position)
        below = min(above + 1, len(self.shares) - 1)
        weight = np.float32(position - above)
        mixed: NDArray[np.float32] = self.recall[above] * (1 - weight) + self.recall[below] * weight
        return mixed

    def pack(self) -> bytes:
        """As `unpack` reads it."""
        return msgspec.msgpack.encode(
            (
                *(self.shares, self.probes, self.candidates, self.lists, self.rows),
                self.recall.astype("<f4").tobytes(),
            )
        )

    @classmethod
    def unpack(cls, packed: bytes | memoryview) -> Calibration:
        """What `pack` made.

        Raises:
            ValueError: it is something else.
        """
        shares, probes, candidates, lists, rows, recall = msgspec.msgpack.decode(
            packed,
            type=tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...], int, int, bytes],
        )
        shape = len(shares), len(probes), len(candidates)
        values = np.frombuffer(recall, "<f4").reshape(shape).astype(np.float32)
        return cls(shares, probes, candidates, values, lists, rows)
