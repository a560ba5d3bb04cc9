"""The nearest rows of several segments and a tail, as one answer.

For each part the way is chosen by what it costs: rows that a filter left over are compared exactly
where they are few, otherwise the part's index names candidates. Whatever the way, the distances
are exact, and depend on nothing but the two vectors; so an exact search answers the same however
the rows are divided into parts. Equal distances are ordered by a key that the caller knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Final, Literal

import attrs
import numpy as np

from treestore.search.vectors.distances import Query
from treestore.search.vectors.ivf import Candidates, Ivf, Ranked
from treestore.search.vectors.library import Doubles, Flags, Ordinals
from treestore.search.vectors.nearest import Found, nearest
from treestore.search.vectors.planning import FEW, WANTED_RECALL, Effort
from treestore.search.vectors.segment import Segment
from treestore.search.vectors.tail import TailView

Way = Literal["none", "exact", "index"]
TieKeys = Callable[[int, Ordinals], Sequence[Any]]
"""Of a part (by its place) and positions in it, keys that can be compared with each other."""

_AROUND_OF_PROBES: Final = 4
_AROUND_MIN: Final = 4
"""The share of rows that count is looked at in so many of the nearest lists."""
_AROUND_LEAST: Final = 0.1
"""It is not taken for less than this part of the share of all rows: at the edge it says little."""
_NEARBY: Final = 40
"""So many rows that count should be among the nearest ones that are looked at ..."""
_NEARBY_MAX: Final = 400
"""... of so many at most."""
_ALIKE: Final = 0.6
"""From this part of the share of all rows on, a smaller share of those is taken for chance."""
_MOST: Final = 0.7
"""Where more rows count than this, as where a tenth is dead, all are searched, and those that do
not count left out afterwards: the one search also tells whether they are among the nearest."""

_SORTED_AT_ONCE: Final = 2000
"""Sorting holds the interpreter; so many keys take it about a millisecond."""


@attrs.frozen(eq=False)
class Part:
    """Rows to search, and which of them count.

    Attributes:
        source: a segment, or a view of a tail.
        allowed: a flag for each of its rows (by position); None: all count.
    """

    source: Segment | TailView
    allowed: Flags | None = None


@attrs.frozen(kw_only=True)
class PartReport:
    """What was done with one part, for `explain`.

    Attributes:
        way: ``none``: no row counts; ``exact``: all that count were compared; ``index``.
        rows: vectors in the part.
        allowed: how many of them count.
        probes: lists of the index that were read.
        lists: lists that there are.
        estimated: rows whose distance the index estimated.
        compared: rows whose distance was computed.
        recall: the share of the nearest that the index found with this effort when it was
            measured; 1.0 where all rows were compared.
        damage: why there is no index although there should be one.
    """

    way: Way
    rows: int
    allowed: int
    probes: int = 0
    lists: int = 0
    estimated: int = 0
    compared: int = 0
    recall: float = 1.0
    damage: str | None = None


@attrs.frozen
class Hit:
    """One row that was found.

    Attributes:
        part: which part it is in, by its place.
        position: its position there.
        distance: exact.
    """

    part: int
    position: int
    distance: float


@attrs.frozen
class Answer:
    """What a search found.

    Attributes:
        hits: nearest first; equal ones by their tie keys.
        parts: what was done with each part.
    """

    hits: tuple[Hit, ...]
    parts: tuple[PartReport, ...]


def search(
    parts: Sequence[Part],
    query: Query,
    k: int,
    *,
    ties: TieKeys,
    exact: bool = False,
    sure: int | None = None,
    wanted_recall: float = WANTED_RECALL,
    pause: Callable[[], None] | None = None,
) -> Answer:
    """The k nearest rows that count, or as many as there are.

    Args:
        parts: what to search.
        query: what to be near to.
        k: how many are wanted, at least 1.
        ties: keys for rows that are exactly as far; asked only for these.
        exact: whether to compare every row that counts.
        sure: of so many of the nearest, ``wanted_recall`` is to be found; those behind are the best
            of what an index looked at for these. None: of all k.
        wanted_recall: the share of the nearest that indexes should find; see
            `treestore.search.vectors.planning`.
        pause: called between the parts; what it raises ends the search.
    """
    found: list[tuple[int, Ordinals, Doubles]] = []
    reports: list[PartReport] = []
    aim = None if exact else _Aim(k, k if sure is None else min(sure, k), wanted_recall)
    for place, part in enumerate(parts):
        if pause is not None:
            pause()
        positions, distances, report = _search_part(part, query, k, aim)
        found.append((place, positions, distances))
        reports.append(report)
    return Answer(_best(found, k, ties), tuple(reports))


@attrs.frozen
class _Aim:
    """What indexes are to find: see `search`."""

    k: int
    sure: int
    recall: float


_SPARE_CANDIDATES: Final = 2
"""At least so many rows are compared for each one that is wanted."""


def _search_part(
    part: Part, query: Query, k: int, aim: _Aim | None
) -> tuple[Ordinals, Doubles, PartReport]:
    source, allowed = part.source, part.allowed
    positions = source.positions if isinstance(source, Segment) else None
    if allowed is not None and positions is not None:
        allowed = allowed[positions]
    rows = len(source)
    if allowed is not None and len(allowed) != rows:
        raise ValueError(f"{len(allowed)} flags for {rows} rows")
    count = rows if allowed is None else int(np.count_nonzero(allowed))
    index = source.index if isinstance(source, Segment) else None
    damage = source.index_damage if isinstance(source, Segment) else None
    why = None if damage is None else str(damage)
    if not count:
        report = PartReport(way="none", rows=rows, allowed=0, damage=why)
        return np.empty(0, np.int64), np.empty(0), report
    if count == rows:
        allowed = None
    through = None
    if index is not None and aim is not None and count > k:
        through = _search_index(source, index, query, aim, allowed, count)
    if through is not None:
        result, report = through
    else:
        result = nearest(source, query, k, allowed=allowed)
        report = PartReport(
            way="exact", rows=rows, allowed=count, compared=result.compared, damage=why
        )
    ordinals = result.ordinals
    if positions is not None:
        ordinals = positions[ordinals].astype(np.int64)
    return ordinals, result.distances, report


def _search_index(
    source: Segment | TailView,
    index: Ivf,
    query: Query,
    aim: _Aim,
    allowed: Flags | None,
    count: int,
) -> tuple[Found, PartReport] | None:
    """The nearest rows by way of the index; None: comparing all that count is cheaper, or the
    index is not good enough."""
    share = count / index.rows
    effort = _worth(index, aim, share, share)
    if effort is None:
        return None
    ranked = index.rank(query, allowed, count)
    if allowed is not None:
        if share > _MOST:
            found = _search_all(source, index, query, aim, allowed, count, ranked, effort)
            if found is not None:
                return found
        harder = _harder(index, query, aim, allowed, count, ranked, effort)
        if harder is None:
            return None
        ranked, effort = harder
    while True:
        candidates = index.search(ranked, effort, allowed=allowed, least=effort.candidates)
        result = nearest(source, query, aim.k, candidates=candidates.ordinals)
        if len(result.ordinals) >= min(aim.k, count):
            return result, _report(index, candidates, result, effort, count)
        if effort.probes >= index.lists:
            # The index lost rows. It cannot, unless it is wrong; an answer must not depend on it.
            return None
        effort = attrs.evolve(effort, probes=min(2 * effort.probes, index.lists))


def _search_all(
    source: Segment | TailView,
    index: Ivf,
    query: Query,
    aim: _Aim,
    allowed: Flags,
    count: int,
    ranked: Ranked,
    effort: Effort,
) -> tuple[Found, PartReport] | None:
    """The nearest rows that count of all rows; None: too many that do not are among the nearest."""
    share = count / index.rows
    wide = attrs.evolve(effort, candidates=ceil(effort.candidates / share))
    candidates = index.search(ranked, wide, least=wide.candidates)
    first = candidates.by_estimate[: ceil(_NEARBY / share)]
    if np.count_nonzero(allowed[first]) < _ALIKE * share * len(first):
        return None
    kept = candidates.ordinals[allowed[candidates.ordinals]]
    result = nearest(source, query, aim.k, candidates=kept)
    if len(result.ordinals) < min(aim.k, count):
        return None
    return result, _report(index, candidates, result, effort, count)


def _harder(
    index: Ivf,
    query: Query,
    aim: _Aim,
    allowed: Flags,
    count: int,
    ranked: Ranked,
    effort: Effort,
) -> tuple[Ranked, Effort] | None:
    """More effort, where fewer rows count around the query than elsewhere; None: comparing all
    that count is cheaper."""
    share = count / index.rows
    near = max(_AROUND_MIN, effort.probes // _AROUND_OF_PROBES)
    around = index.share_nearby(ranked, allowed, near, min(_NEARBY_MAX, ceil(_NEARBY / share)))
    if around >= share * _ALIKE:
        around = share  # What it is less is chance.
    if share < FEW:
        around = min(around, ranked.share_around(near))
    elif around < share:
        ranked = index.rank(query, allowed, count, counted=True)
    if around >= share:
        return ranked, effort
    hardness = max(around, share * _AROUND_LEAST)
    found = _worth(index, aim, share, hardness)
    if found is None:
        return None
    # Seen from far away, many rows are about equally far, and estimates tell less.
    more = round(2 * found.candidates * share / hardness)
    found = attrs.evolve(found, candidates=min(more, count))
    if index.costs.indexed(found, share) >= index.costs.comparing(count):
        return None
    return ranked, found


def _report(
    index: Ivf, candidates: Candidates, result: Found, effort: Effort, count: int
) -> PartReport:
    return PartReport(
        way="index",
        rows=index.rows,
        allowed=count,
        probes=candidates.probes,
        lists=index.lists,
        estimated=candidates.estimated,
        compared=result.compared,
        recall=effort.recall,
    )


def _worth(index: Ivf, aim: _Aim, share: float, hardness: float) -> Effort | None:
    """What the index has to do, if that is cheaper than comparing all rows that count.

    Args:
        index: to be searched.
        aim: what it is to find.
        share: of the rows that count.
        hardness: the share for which the effort is looked up; see `Ranked.share_around`.
    """
    assert index.calibration is not None
    count = share * index.rows
    costs = index.costs
    effort = index.calibration.effort(aim.sure, hardness, aim.recall, costs)
    if effort is None and hardness < share:
        effort = index.calibration.widest(aim.sure, aim.recall)
    if effort is None:
        return None
    least = _SPARE_CANDIDATES * aim.k
    if effort.candidates < least:
        effort = attrs.evolve(effort, candidates=least)
    if effort.candidates >= count:
        return None
    return effort if costs.indexed(effort, share) < costs.comparing(round(count)) else None


def _best(found: list[tuple[int, Ordinals, Doubles]], k: int, ties: TieKeys) -> tuple[Hit, ...]:
    """The k nearest of all parts, equal ones by their keys."""
    if not any(len(positions) for _, positions, _ in found):
        return ()
    places = np.concatenate([np.full(len(p), place) for place, p, _ in found])
    positions = np.concatenate([p for _, p, _ in found])
    distances = np.concatenate([d for _, _, d in found])
    if len(distances) > k:
        near = distances <= np.partition(distances, k - 1)[k - 1]
        places, positions, distances = places[near], positions[near], distances[near]
    order = np.argsort(distances, kind="stable")
    places, positions, distances = places[order], positions[order], distances[order]
    hits: list[Hit] = []
    # Runs of equal distances; nearly always of one row.
    starts = np.flatnonzero(np.diff(distances, prepend=np.nan) != 0)
    ends = np.append(starts[1:], len(distances))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        run: list[tuple[int, int]] = list(
            zip(places[start:end].tolist(), positions[start:end].tolist(), strict=True)
        )
        if len(run) > 1:
            run = _by_key(run, ties, k - len(hits))
        distance = float(distances[start])
        hits += [Hit(place, position, distance) for place, position in run[: k - len(hits)]]
    return tuple(hits)


def _by_key(run: list[tuple[int, int]], ties: TieKeys, wanted: int) -> list[tuple[int, int]]:
    """The first ones of rows that are equally far, in the order of their keys."""
    best: list[tuple[Any, tuple[int, int]]] = []
    for start in range(0, len(run), _SORTED_AT_ONCE):
        some = run[start : start + _SORTED_AT_ONCE]
        for place in sorted({place for place, _ in some}):
            chosen = [row for row in some if row[0] == place]
            keys = ties(place, np.array([position for _, position in chosen], np.int64))
            best += zip(keys, chosen, strict=True)
        best.sort(key=lambda pair: pair[0])
        del best[wanted:]
    return [row for _, row in best]
