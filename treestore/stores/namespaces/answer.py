"""What was found, as hits: the same for every executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from treestore.errors import CorruptionError
from treestore.model.namespaces import NamespaceHit
from treestore.stores.access import Read
from treestore.stores.namespaces.layout import (
    attributes_of,
    packed_floats,
    packed_row,
    row_of,
    unpacked_id,
)
from treestore.stores.namespaces.scanning import attributes_decoder
from treestore.stores.namespaces.search import Asked

Legs = Mapping[str, Mapping[str, float]]


@attrs.frozen(kw_only=True)
class Ranked:
    """A document that a query gives.

    Attributes:
        packed_id: of the document.
        position: bytes that sort as the hits of the query do; they end with the packed id.
        score: how well it fits.
        distance: of its vector from the query's; None without one of these.
        legs: what each part of a hybrid query made of it.
    """

    packed_id: bytes
    position: bytes
    score: float = 0.0
    distance: float | None = None
    legs: Legs | None = None


Record = Callable[[bytes], bytes | None]
"""What the tree has of a document that was found, by its packed id."""


def answer(
    txn: Read, asked: Asked, ranked: Sequence[Ranked], record: Record | None = None
) -> list[NamespaceHit]:
    """The hits: those of the offset left out, no more than were asked for.

    Args:
        ranked: the best `Asked.wanted` ones behind `Asked.after`, in the order of their positions.
        record: reads a document's record; None: from ``txn``.
    """
    request = asked.request
    page = ranked[request.offset : request.offset + request.top_k]
    prefix = asked.there.space.documents
    hits: list[NamespaceHit] = []
    for one in page:
        stored = txn.get(prefix + one.packed_id) if record is None else record(one.packed_id)
        if stored is None:
            raise CorruptionError("A query found a document that is not there.")
        hits.append(_hit(txn, asked, one, stored))
    if len(hits) == request.top_k:
        cursor = request.cursors.after(page[-1].position)
        hits[-1] = attrs.evolve(hits[-1], cursor=cursor)
    return hits


def _hit(txn: Read, asked: Asked, one: Ranked, record: bytes) -> NamespaceHit:
    space, request = asked.there.space, asked.request
    attributes: Any = {}
    if request.include_attributes is None:
        attributes = txn.load(dict[str, Any], attributes_of(record))
    elif request.include_attributes:
        wanted = attributes_decoder(frozenset(request.include_attributes))(record)
        attributes = {name: wanted[name] for name in request.include_attributes if name in wanted}
    vector: Any = None
    if request.include_vector:
        stored = txn.get(space.vectors + packed_row(row_of(record)))
        if stored:
            vector = txn.load(tuple[float, ...], packed_floats(stored))
    return NamespaceHit(
        id=unpacked_id(one.packed_id),
        score=one.score,
        distance=one.distance,
        attributes=attributes,
        vector=vector,
        legs=one.legs if request.include_legs else None,
    )
