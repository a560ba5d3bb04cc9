"""Fusion: one order of what several legs of a query found, such as nearness and words.

**Reciprocal ranks** (``rrf``): each leg gives ``weight / (k + rank)``, its first row having rank 1.
Only the order of a leg counts, so legs whose scores have nothing in common can be fused. With the
usual ``k`` of 60 the first rows of a leg do not drown what several legs agree on.

**Weighted scores** (``weighted``): each leg gives ``weight * (score - min) / (max - min)``, least
and greatest being those of the leg's candidates; where all are equal each gets the weight. It keeps
how much better one row is than the next, and depends on the depth, as the last candidate counts 0.

Either way a row that is missing from a leg gets nothing from it, and one that only a leg of weight
0 found comes last. Equal sums are in the order of a key that the caller gives, so that the same
legs always have the same answer. Sums are correctly rounded, whatever the order of the legs.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeVar

import attrs

from treestore.errors import InvalidArgument

FusionMethod = Literal["rrf", "weighted"]

LEGS: Final[tuple[str, ...]] = ("vector", "text")
"""What a hybrid query is made of."""

RANK_CONSTANT: Final = 60
"""Default of ``k``."""

RANK_CONSTANT_MAX: Final = 1_000_000

DEPTH_MIN: Final = 100
"""Candidates that each leg is asked for by default, at least; it is 5 for each one wanted."""

DEPTH_MAX: Final = 100_000

WEIGHT_MAX: Final = 1e6

Row = TypeVar("Row")


@attrs.frozen(kw_only=True)
class Fusion:
    """How legs are fused. Made by `parse_fusion`.

    Attributes:
        method: ``rrf`` or ``weighted``.
        rank_constant: ``k`` of reciprocal ranks.
        weights: of each leg, 0 or more; not all are 0.
        depth: candidates that each leg is asked for; None: as many as suit the query.
    """

    method: FusionMethod = "rrf"
    rank_constant: float = RANK_CONSTANT
    weights: Mapping[str, float] = attrs.field(factory=lambda: dict.fromkeys(LEGS, 1.0))
    depth: int | None = None

    def depth_for(self, top_k: int) -> int:
        """How many candidates each leg is asked for where so many rows are wanted."""
        wanted = max(DEPTH_MIN, 5 * top_k) if self.depth is None else self.depth
        return max(top_k, wanted)


@attrs.frozen(kw_only=True)
class Leg:
    """What a leg made of a row.

    Attributes:
        rank: its place among the leg's candidates, from 1.
        score: the leg's own; larger is better.
    """

    rank: int
    score: float


@attrs.frozen(kw_only=True)
class Fused(Generic[Row]):
    """One row of a fused answer.

    Attributes:
        row: which.
        score: larger is better.
        legs: of those that found it, what they made of it.
    """

    row: Row
    score: float
    legs: Mapping[str, Leg]


def parse_fusion(source: Any) -> Fusion:
    """What a user writes: ``{"method": "rrf", "k": 60, "weights": {"text": 2}, "depth": 200}``, of
    which each part may be left out; a leg without a weight has 1. None: the defaults.

    Raises:
        InvalidArgument: it is something else; the sentence says what.
    """
    if source is None:
        return Fusion()
    if isinstance(source, str):
        source = {"method": source}
    if not isinstance(source, Mapping):
        raise InvalidArgument(
            'fusion is an object such as {"method": "rrf", "k": 60, "weights": {"vector": 1, '
            f'"text": 1}}}}, not {type(source).__name__}.'
        )
    for name in source:
        if name not in ("method", "k", "weights", "depth"):
            raise InvalidArgument(
                f"fusion has no option {name!a:.60}; there are method, k, weights and depth."
            )
    method = source.get("method", "rrf")
    if method not in ("rrf", "weighted"):
        raise InvalidArgument(f"fusion.method is 'rrf' or 'weighted', not {method!a:.60}.")
    constant = source.get("k", RANK_CONSTANT)
    if not _is_number(constant) or not 0 <= constant <= RANK_CONSTANT_MAX:
        raise InvalidArgument(
            f"fusion.k is a number from 0 to {RANK_CONSTANT_MAX:,}, not {constant!a:.60}."
        )
    if method != "rrf" and "k" in source:
        raise InvalidArgument("fusion.k belongs to method 'rrf'; leave it out.")
    depth = source.get("depth")
    if depth is not None and (
        isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= DEPTH_MAX
    ):
        raise InvalidArgument(
            f"fusion.depth is a whole number from 1 to {DEPTH_MAX:,}, not {depth!a:.60}."
        )
    return Fusion(
        method=method,
        rank_constant=constant,
        weights=_parse_weights(source.get("weights", {})),
        depth=depth,
    )


def _parse_weights(source: Any) -> dict[str, float]:
    if not isinstance(source, Mapping):
        raise InvalidArgument(
            'fusion.weights is an object such as {"vector": 1, "text": 2}, not '
            f"{type(source).__name__}."
        )
    weights: dict[str, float] = dict.fromkeys(LEGS, 1.0)
    for name, weight in source.items():
        if name not in LEGS:
            raise InvalidArgument(
                f"fusion.weights: there is no leg {name!a:.60}; there are {' and '.join(LEGS)}."
            )
        if not _is_number(weight) or not 0 <= weight <= WEIGHT_MAX:
            raise InvalidArgument(
                f"fusion.weights.{name} is a number from 0 to {WEIGHT_MAX:,.0f}, not "
                f"{weight!a:.60}."
            )
        weights[name] = float(weight)
    if not any(weights.values()):
        raise InvalidArgument("fusion.weights: at least one of them is above 0.")
    return weights


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def fuse(
    legs: Mapping[str, Sequence[tuple[Row, float]]],
    fusion: Fusion,
    top_k: int,
    key: Callable[[Row], Any],
) -> list[Fused[Row]]:
    """The best rows of all legs, the best one first.

    Args:
        legs: of each the candidates with their scores, the best first and none twice. Where two
            have one score the order is the leg's.
        key: of a row; rows with one score are in the order of theirs, and no two have the same.
    """
    shares: dict[Row, list[float]] = {}
    ranks: dict[str, dict[Row, int]] = {}
    give = _reciprocal if fusion.method == "rrf" else _normalized
    for name, candidates in legs.items():
        given = give([score for _, score in candidates], fusion)
        weight = fusion.weights.get(name, 1.0)
        ranks[name] = {row: rank for rank, (row, _) in enumerate(candidates, 1)}
        for (row, _), share in zip(candidates, given, strict=True):
            shares.setdefault(row, []).append(weight * share)
    sums = {row: math.fsum(given) for row, given in shares.items()}
    best = heapq.nsmallest(top_k, sums, key=lambda row: (-sums[row], key(row)))

    def legs_of(row: Row) -> dict[str, Leg]:
        # Only of the best: most candidates are none of these.
        placed = ((name, its[row]) for name, its in ranks.items() if row in its)
        return {name: Leg(rank=rank, score=legs[name][rank - 1][1]) for name, rank in placed}

    return [Fused(row=row, score=sums[row], legs=legs_of(row)) for row in best]


def _reciprocal(scores: Sequence[float], fusion: Fusion) -> list[float]:
    return [1 / (fusion.rank_constant + rank) for rank in range(1, len(scores) + 1)]


def _normalized(scores: Sequence[float], fusion: Fusion) -> list[float]:
    """Between 0 and 1. Halved, so that not even the largest floats overflow."""
    if not scores:
        return []
    least, greatest = min(scores) / 2, max(scores) / 2
    if least == greatest:
        return [1.0] * len(scores)
    return [(score / 2 - least) / (greatest - least) for score in scores]
