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

from treestore.search.together import Together, one_by_one
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
    together: Together = one_by_one,
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
        together: searches the parts.
        pause: called between the parts; what it raises ends the search.
    """
    jobs = [
        _Job(part, query, k, None if exact else k if sure is None else min(sure, k), wanted_recall)
        for part in parts
    ]
    sizes = sorted(job.size for job in jobs)
    run = together if len(jobs) > 1 and sizes[-2] >= _WORTH_SHARING else one_by_one
    done = run([job.run for job in jobs], pause)
    found = [(place, one.positions, one.distances) for place, one in enumerate(done)]
    return Answer(_best(found, k, ties), tuple(one.report for one in done))


_WORTH_SHARING: Final = 500_000
"""Work on other threads where the second largest part has so many numbers that count: comparing
them all takes some 200 microseconds, and to hand a job over takes up to a hundred."""


@attrs.frozen(eq=False)
class _Done:
    """What was found in one part: positions in it, and their distances."""

    positions: Ordinals
    distances: Doubles
    report: PartReport


class _Job:
    """The search of one part.

    Args:
        part: what to search.
        query, k: see `search`.
        sure: how many of the nearest are found as surely; None: compare all that count.
        recall: the share of these that an index should find.
    """

    def __init__(self, part: Part, query: Query, k: int, sure: int | None, recall: float) -> None:
        source, allowed = part.source, part.allowed
        segment = source if isinstance(source, Segment) else None
        self._positions = None if segment is None else segment.positions
        if allowed is not None and self._positions is not None:
            allowed = allowed[self._positions]
        if allowed is not None and len(allowed) != len(source):
            raise ValueError(f"{len(allowed)} flags for {len(source)} rows")
        count = len(source) if allowed is None else int(np.count_nonzero(allowed))
        self._source = source
        self._allowed = None if count == len(source) else allowed
        self._count = count
        self._query, self._k = query, k
        self._probing: _Probing | None = None
        index = None if segment is None else segment.index
        if index is not None and sure is not None and count > k:
            aim = _Aim(query, k, sure, recall)
            self._probing = _Probing(source, index, aim, self._allowed, count)
        damage = None if segment is None else segment.index_damage
        self._damage = None if damage is None else str(damage)

    @property
    def size(self) -> int:
        """Numbers in the vectors that count."""
        return self._count * self._query.dim

    def run(self) -> _Done:
        """Search the part."""
        rows, count = len(self._source), self._count
        if not count:
            report = PartReport(way="none", rows=rows, allowed=0, damage=self._damage)
            return _Done(np.empty(0, np.int64), np.empty(0), report)
        through = None if self._probing is None else self._probing.run()
        if through is not None:
            result, report = through
        else:
            result = nearest(self._source, self._query, self._k, allowed=self._allowed)
            report = PartReport(
                way="exact", rows=rows, allowed=count, compared=result.compared, damage=self._damage
            )
        ordinals = result.ordinals
        if self._positions is not None:
            ordinals = self._positions[ordinals].astype(np.int64)
        return _Done(ordinals, result.distances, report)


@attrs.frozen
class _Aim:
    """What an index is to find: see `search`."""

    query: Query
    k: int
    sure: int
    recall: float


_SPARE_CANDIDATES: Final = 2
"""At least so many rows are compared for each one that is wanted."""


@attrs.frozen(eq=False)
class _Probing:
    """The search of one part by way of its index.

    Attributes:
        source: the part's rows.
        index: of these.
        aim: what is to be found.
        allowed: a flag for each row; None: all count.
        count: how many count.
    """

    source: Segment | TailView
    index: Ivf
    aim: _Aim
    allowed: Flags | None
    count: int

    @property
    def share(self) -> float:
        """Of the rows that count."""
        return self.count / self.index.rows

    def run(self) -> tuple[Found, PartReport] | None:
        """The nearest rows; None: comparing all that count is cheaper, or the index is not good
        enough."""
        index, allowed, share = self.index, self.allowed, self.share
        effort = self._worth(share)
        if effort is None:
            return None
        ranked = index.rank(self.aim.query, allowed, self.count)
        if allowed is not None:
            if share > _MOST:
                found = self._search_all(allowed, ranked, effort)
                if found is not None:
                    return found
            harder = self._harder(allowed, ranked, effort)
            if harder is None:
                return None
            ranked, effort = harder
        while True:
            candidates = index.search(ranked, effort, allowed=allowed, least=effort.candidates)
            result = self._compare(candidates.ordinals)
            if result is not None:
                return result, self._report(candidates, result, effort)
            if effort.probes >= index.lists:
                # The index lost rows. It cannot, unless it is wrong; an answer must not depend on
                # it.
                return None
            effort = attrs.evolve(effort, probes=min(2 * effort.probes, index.lists))

    def _compare(self, candidates: Ordinals) -> Found | None:
        """The nearest of the candidates; None: there are too few."""
        aim = self.aim
        result = nearest(self.source, aim.query, aim.k, candidates=candidates)
        return result if len(result.ordinals) >= min(aim.k, self.count) else None

    def _search_all(
        self, allowed: Flags, ranked: Ranked, effort: Effort
    ) -> tuple[Found, PartReport] | None:
        """The nearest rows that count of all rows; None: too many that do not are among the
        nearest."""
        index, share = self.index, self.share
        wide = attrs.evolve(effort, candidates=ceil(effort.candidates / share))
        candidates = index.search(ranked, wide, least=wide.candidates)
        first = candidates.by_estimate[: ceil(_NEARBY / share)]
        if np.count_nonzero(allowed[first]) < _ALIKE * share * len(first):
            return None
        result = self._compare(candidates.ordinals[allowed[candidates.ordinals]])
        return None if result is None else (result, self._report(candidates, result, effort))

    def _harder(
        self, allowed: Flags, ranked: Ranked, effort: Effort
    ) -> tuple[Ranked, Effort] | None:
        """More effort, where fewer rows count around the query than elsewhere; None: comparing all
        that count is cheaper."""
        index, share = self.index, self.share
        near = max(_AROUND_MIN, effort.probes // _AROUND_OF_PROBES)
        around = index.share_nearby(ranked, allowed, near, min(_NEARBY_MAX, ceil(_NEARBY / share)))
        if around >= share * _ALIKE:
            around = share  # What it is less is chance.
        if share < FEW:
            around = min(around, ranked.share_around(near))
        elif around < share:
            ranked = index.rank(self.aim.query, allowed, self.count, counted=True)
        if around >= share:
            return ranked, effort
        hardness = max(around, share * _AROUND_LEAST)
        found = self._worth(hardness)
        if found is None:
            return None
        # Seen from far away, many rows are about equally far, and estimates tell less.
        more = round(2 * found.candidates * share / hardness)
        found = attrs.evolve(found, candidates=min(more, self.count))
        if index.costs.indexed(found, share) >= index.costs.comparing(self.count):
            return None
        return ranked, found

    def _worth(self, hardness: float) -> Effort | None:
        """What the index has to do, if that is cheaper than comparing all rows that count.

        Args:
            hardness: the share for which the effort is looked up; see `Ranked.share_around`.
        """
        index, aim, share = self.index, self.aim, self.share
        assert index.calibration is not None
        costs = index.costs
        effort = index.calibration.effort(aim.sure, hardness, aim.recall, costs)
        if effort is None and hardness < share:
            effort = index.calibration.widest(aim.sure, aim.recall)
        if effort is None:
            return None
        least = _SPARE_CANDIDATES * aim.k
        if effort.candidates < least:
            effort = attrs.evolve(effort, candidates=least)
        if effort.candidates >= self.count:
            return None
        return effort if costs.indexed(effort, share) < costs.comparing(self.count) else None

    def _report(self, candidates: Candidates, result: Found, effort: Effort) -> PartReport:
        return PartReport(
            way="index",
            rows=self.index.rows,
            allowed=self.count,
            probes=candidates.probes,
            lists=self.index.lists,
            estimated=candidates.estimated,
            compared=result.compared,
            recall=effort.recall,
        )


def _best(found: list[tuple[int, Ordinals, Doubles]], k: int, ties: TieKeys) -> tuple[Hit, ...]:
    """The k nearest of all parts, equal ones by their keys."""
    counts = [len(positions) for _, positions, _ in found]
    if not sum(counts):
        return ()
    every = np.concatenate([distances for _, _, distances in found])
    order = np.argsort(every, kind="stable")
    if len(order) > k:
        order = order[: np.searchsorted(every, every[order[k - 1]], "right", sorter=order)]
    distances = every[order].tolist()
    rows = list(
        zip(
            np.repeat([place for place, _, _ in found], counts)[order].tolist(),
            np.concatenate([positions for _, positions, _ in found])[order].tolist(),
            strict=True,
        )
    )
    hits: list[Hit] = []
    start = 0
    while len(hits) < k and start < len(rows):
        end = start + 1
        # Runs of equal distances; nearly always of one row.
        while end < len(rows) and distances[end] == distances[start]:
            end += 1
        run = rows[start:end]
        if len(run) > 1:
            run = _by_key(run, ties, k - len(hits))
        hits += [Hit(place, position, distances[start]) for place, position in run]
        start = end
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
