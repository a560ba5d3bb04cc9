"""Queries with a vector and words: both legs are asked, and fused into one order.

Each leg names its best rows, `Fusion.depth` of them (`treestore.search.fusion`): by default 100, or
five for each hit that is wanted. What no leg names is not found, so an answer has at most twice the
depth; where pages go on behind that, the legs are asked for more. Ranks move then, so whoever wants
many pages of the same order says how deep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from treestore.search.fusion import Leg, fuse
from treestore.stores.access import Read
from treestore.stores.namespaces import exact
from treestore.stores.namespaces.answer import Ranked
from treestore.stores.namespaces.layout import row_of
from treestore.stores.namespaces.live.legs import Found
from treestore.stores.namespaces.search import Asked, position_of_score

AskLegs = Callable[[int], tuple[list[Found], list[Found]]]
"""The best rows by nearness and by words, at most so many of each."""


def fused(asked: Asked, ask: AskLegs) -> list[Found]:
    """The best ones of both legs behind `Asked.after`, as many as are wanted."""
    depth = asked.request.fusion.depth_for(asked.wanted)
    while True:
        near, fitting = ask(depth)
        found = _fused(asked, near, fitting)
        if len(found) >= asked.wanted or max(len(near), len(fitting)) < depth:
            return found[: asked.wanted]
        depth *= 2


def _fused(asked: Asked, near: Sequence[Found], fitting: Sequence[Found]) -> list[Found]:
    by_id: dict[bytes, Found] = {}
    for one in (*fitting, *near):  # Of those in both, the one with the distance.
        by_id[one.ranked.packed_id] = one
    legs = {
        "vector": [(one.ranked.packed_id, one.ranked.score) for one in near],
        "text": [(one.ranked.packed_id, one.ranked.score) for one in fitting],
    }
    # Behind a position it may be any of them.
    count = len(by_id) if asked.after else asked.wanted
    found: list[Found] = []
    for both in fuse(legs, asked.request.fusion, count, key=lambda packed: packed):
        known = by_id[both.row]
        position = position_of_score(both.score, both.row)
        if position > asked.after:
            ranked = Ranked(
                packed_id=both.row,
                position=position,
                score=both.score,
                distance=known.ranked.distance,
                legs={name: _shown(leg) for name, leg in both.legs.items()},
            )
            found.append(attrs.evolve(known, ranked=ranked))
    return found


def _shown(leg: Leg) -> dict[str, float]:
    return {"rank": leg.rank, "score": leg.score}


DistancesOf = Callable[[Sequence[Found]], Mapping[bytes, float | None]]
"""The distances of documents that have vectors, by their packed ids."""


def with_distances(asked: Asked, found: list[Found], distances_of: DistancesOf) -> list[Found]:
    """Hits of a page with the distances of those that only their words found."""
    request = asked.request
    page = found[request.offset : request.offset + request.top_k]
    without = [one for one in page if one.ranked.distance is None]
    if not without:
        return found
    near = distances_of(without)
    return [
        attrs.evolve(one, ranked=attrs.evolve(one.ranked, distance=near[one.ranked.packed_id]))
        if one.ranked.distance is None and one.ranked.packed_id in near
        else one
        for one in found
    ]


def distances_in_tree(txn: Read, asked: Asked, some: Sequence[Found]) -> dict[bytes, float | None]:
    """See `DistancesOf`."""
    rows: dict[int, bytes] = {}
    for one in some:
        record = txn.get(asked.there.space.documents + one.ranked.packed_id)
        if record is not None:
            rows[row_of(record)] = one.ranked.packed_id
    near = exact.nearest(txn, asked, rows, max(1, len(rows)))
    return {one.packed_id: one.distance for one in near}
