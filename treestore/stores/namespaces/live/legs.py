"""The parts of a query: what is near, and what comes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np

from treestore.search.columns.ordering import IdForm, RowOrder, first_rows, merged
from treestore.search.together import Together, one_by_one
from treestore.search.vectors import search as vectors
from treestore.search.vectors.distances import Query
from treestore.stores.namespaces.answer import Ranked
from treestore.stores.namespaces.distances import score_of
from treestore.stores.namespaces.filters import ID
from treestore.stores.namespaces.layout import unpacked_id
from treestore.stores.namespaces.live.arrays import Rows
from treestore.stores.namespaces.live.pieces import Piece
from treestore.stores.namespaces.search import Asked, position_of_distance


@attrs.frozen(kw_only=True)
class Found:
    """A document that a leg found.

    Attributes:
        ranked: as the answer takes it.
        row: that it has in the view; None where it was found in the transaction.
    """

    ranked: Ranked
    row: int | None


@attrs.define(eq=False)
class VectorReport:
    """What a vector leg did: for `explain`.

    Attributes:
        pieces: that have vectors.
        parts: what was done with each of these, of the last attempt.
        attempts: how often it searched, each time for more.
    """

    pieces: Sequence[Piece] = ()
    parts: Sequence[vectors.PartReport] = ()
    attempts: int = 0


def query_of(asked: Asked) -> Query:
    """The vector that is asked for."""
    schema = asked.there.schema.vector
    assert schema is not None
    assert asked.vector is not None
    vector = np.frombuffer(asked.vector, "<f4").astype(np.float32, copy=False)
    return Query(vector, schema.metric)


def nearest(
    pieces: Sequence[Piece],
    asked: Asked,
    wanted: int,
    *,
    after: bytes = b"",
    sure: int | None = None,
    exact: bool = False,
    report: VectorReport | None = None,
    together: Together = one_by_one,
    pause: Callable[[], None] | None = None,
) -> list[Found]:
    """The nearest rows that have vectors, behind a position.

    Args:
        wanted: how many.
        sure: how many of these are found as surely as nearest ones are; None: all.
    """
    having = [piece for piece in pieces if piece.content.vectors is not None]
    parts = [_part(piece) for piece in having]
    total = sum(piece.count for piece in having)
    query = query_of(asked)
    count = wanted

    def ties(place: int, positions: Rows) -> list[bytes]:
        content = having[place].content
        return [content.ids[content.of_row(one)] for one in positions.tolist()]

    while parts:
        found = vectors.search(
            *(parts, query, count),
            ties=ties,
            exact=exact,
            sure=sure,
            together=together,
            pause=pause,
        )
        if report is not None:
            report.pieces, report.parts = having, found.parts
            report.attempts += 1
        hits = [_found(having, query.metric, hit) for hit in found.hits]
        if after:
            # Everything up to the page before is found again: a bound below which nothing counts
            # is nothing that an index knows.
            hits = [hit for hit in hits if hit.ranked.position > after]
        if len(hits) >= wanted or count >= total:
            return hits[:wanted]
        count = min(total, 2 * count + wanted)
    return []


def _part(piece: Piece) -> vectors.Part:
    source = piece.content.vectors
    assert source is not None
    return vectors.Part(source, piece.content.of_vectors(piece.allowed))


def _found(having: Sequence[Piece], metric: Any, hit: vectors.Hit) -> Found:
    content = having[hit.part].content
    ordinal = content.of_row(hit.position)
    packed_id = content.ids[ordinal]
    ranked = Ranked(
        packed_id=packed_id,
        position=position_of_distance(hit.distance, packed_id),
        score=score_of(metric, hit.distance),
        distance=hit.distance,
    )
    return Found(ranked=ranked, row=int(content.rows[ordinal]))


def in_order(pieces: Sequence[Piece], asked: Asked, wanted: int) -> list[Found]:
    """The first rows in the order that is asked for, behind `Asked.after`."""
    order = asked.order
    fields = tuple((path[0], descending) for path, descending in order.fields)
    row_order = RowOrder((*fields, (ID, order.id_descending)))
    parts = []
    for piece in pieces:
        content = piece.content
        some = first_rows(
            content.columns,
            piece.flags(),
            row_order,
            wanted,
            after=asked.after or None,
            ids=IdForm(content.ids.__getitem__, unpacked_id),
        )
        parts.append([(position, (content, ordinal)) for position, ordinal in some])
    found: list[Found] = []
    for position, (content, ordinal) in merged(parts):
        ranked = Ranked(packed_id=content.ids[ordinal], position=position)
        found.append(Found(ranked=ranked, row=int(content.rows[ordinal])))
        if len(found) == wanted:
            break
    return found
