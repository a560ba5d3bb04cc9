"""The k nearest of rows, exactly: a rough look at all, an exact one at those in question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import attrs
import numpy as np

from treestore.search.vectors.distances import Query
from treestore.search.vectors.library import Doubles, Flags, Floats, Ordinals

_STEP_ROWS: Final = 1 << 16
"""Rows that are looked at in one step."""

_EXACT_ROWS: Final = 1024
"""Rows whose vectors are copied to be compared exactly."""

_DENSE_SHARE: Final = 0.3
"""With more than this share of a block allowed, all of it is compared: reading on is faster."""


@attrs.frozen(eq=False)
class Block:
    """Rows that lie one after the other in memory.

    Attributes:
        start: the ordinal of the first one.
        vectors: float32, shape (n, d).
        squares: of their lengths (`treestore.search.vectors.distances.squares`).
    """

    start: int
    vectors: Floats
    squares: Doubles


class Rows(Protocol):
    """Rows with ordinals from 0 on."""

    def __len__(self) -> int: ...

    def blocks(self) -> Iterable[Block]:
        """All rows, in order, in one block or several."""
        ...


@attrs.frozen(eq=False)
class Found:
    """Rows and their exact distances, nearest first; equal ones by ordinal.

    Attributes:
        ordinals: of the rows.
        distances: exact.
        compared: rows that were compared roughly.
        compared_exactly: rows that were compared exactly after that.
    """

    ordinals: Ordinals
    distances: Doubles
    compared: int
    compared_exactly: int


def nearest(
    rows: Rows,
    query: Query,
    k: int,
    *,
    allowed: Flags | None = None,
    candidates: Ordinals | None = None,
) -> Found:
    """The k nearest rows, and all others that are exactly as far as the k-th.

    Args:
        rows: what there is.
        query: what to be near to.
        k: how many are wanted, at least 1.
        allowed: a flag for each row, whether it counts; None: all do.
        candidates: only these rows, ascending; None: all.
    """
    kept: list[tuple[Block, Ordinals, Doubles, Doubles]] = []
    bound = np.inf
    compared = 0
    for block, chosen in _steps(rows, allowed, candidates):
        least, most = query.between(block.vectors, block.squares, chosen)
        places = np.arange(len(block.vectors)) if chosen is None else chosen
        compared += len(places)
        if chosen is None and allowed is not None:
            here = np.flatnonzero(allowed[block.start : block.start + len(places)])
            places, least, most = places[here], least[here], most[here]
        bound = min(bound, _kth(most, k))
        near = np.flatnonzero(least <= bound)
        kept.append((block, places[near], least[near], most[near]))
    if len(kept) > 1:
        bound = min(bound, _kth(np.concatenate([most for _, _, _, most in kept]), k))
    return _exactly(query, k, kept, bound, compared)


def _exactly(
    query: Query,
    k: int,
    kept: list[tuple[Block, Ordinals, Doubles, Doubles]],
    bound: float,
    compared: int,
) -> Found:
    ordinals: list[Ordinals] = [np.empty(0, np.int64)]
    distances: list[Doubles] = [np.empty(0, np.float64)]
    vectors: list[Floats] = []
    row_squares: list[Doubles] = []
    waiting = 0

    def compare() -> None:
        nonlocal waiting
        if waiting:
            distances.append(query.exact(np.concatenate(vectors), np.concatenate(row_squares)))
            vectors.clear()
            row_squares.clear()
            waiting = 0

    for block, places, least, _ in kept:
        places = places[least <= bound]
        for at in range(0, len(places), _EXACT_ROWS):
            some = places[at : at + _EXACT_ROWS]
            ordinals.append(some + block.start)
            vectors.append(block.vectors[some])
            row_squares.append(block.squares[some])
            waiting += len(some)
            if waiting >= _EXACT_ROWS:
                compare()
    compare()
    every, far = np.concatenate(ordinals), np.concatenate(distances)
    before = len(every)
    if before > k:
        near = far <= _kth(far, k)
        every, far = every[near], far[near]
    order = np.lexsort((every, far))
    return Found(every[order], far[order], compared, before)


def _kth(values: Doubles, k: int) -> float:
    """The k-th smallest; infinite where there are not as many."""
    return float(np.partition(values, k - 1)[k - 1]) if len(values) >= k else np.inf


def _steps(
    rows: Rows, allowed: Flags | None, candidates: Ordinals | None
) -> Iterator[tuple[Block, Ordinals | None]]:
    """Blocks of bounded size, with the places in them that are to be compared (None: all)."""
    for block in rows.blocks():
        if candidates is not None:
            end = block.start + len(block.vectors)
            first, last = np.searchsorted(candidates, (block.start, end))
            for at in range(int(first), int(last), _STEP_ROWS):
                chosen = candidates[at : min(at + _STEP_ROWS, int(last))] - block.start
                yield block, chosen if allowed is None else chosen[allowed[chosen + block.start]]
            continue
        for at in range(0, len(block.vectors), _STEP_ROWS):
            part = slice(at, min(at + _STEP_ROWS, len(block.vectors)))
            piece = Block(block.start + at, block.vectors[part], block.squares[part])
            if allowed is None:
                yield piece, None
                continue
            flags = allowed[piece.start : piece.start + len(piece.vectors)]
            count = np.count_nonzero(flags)
            if count > _DENSE_SHARE * len(flags):
                yield piece, None
            elif count:
                yield piece, np.flatnonzero(flags)
