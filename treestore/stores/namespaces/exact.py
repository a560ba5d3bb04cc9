"""The answer of a query by looking at every document: the reference for anything faster.

It uses nothing but the state that it is given, so it serves any snapshot and any transaction with
its own writes, and it is what ``exact=True`` means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from treestore.errors import Unavailable
from treestore.model.namespaces import NamespaceHit
from treestore.query.sorting import Sorter, inverted
from treestore.stores.access import Read
from treestore.stores.namespaces.answer import Ranked, answer
from treestore.stores.namespaces.distances import distances, matrix_of, score_of
from treestore.stores.namespaces.layout import AFTER, packed_row, row_in, row_of
from treestore.stores.namespaces.scanning import attributes_decoder, matching
from treestore.stores.namespaces.search import Asked, Request, position_of_distance

AT_ONCE = 1024
"""Vectors that are compared in one go."""

LOOKED_UP_MAX: Final = 1000
"""So many vectors are looked up one by one; for more all of them are gone over."""


def search(txn: Read, request: Request) -> list[NamespaceHit]:
    """The best hits of a state.

    Raises:
        NotFound, InvalidArgument: see `treestore.stores.namespaces.search.query`.
    """
    asked = Asked.of(txn, request)
    return answer(txn, asked, ranked(txn, asked))


def ranked(txn: Read, asked: Asked) -> list[Ranked]:
    """The best ones behind `Asked.after`, as many as are wanted, in order."""
    if asked.request.text is not None:
        raise Unavailable("Namespaces have no full-text index in this store yet.")
    if asked.vector is None:
        return _in_order(txn, asked)
    return nearest(txn, asked, rows_of(txn, asked), asked.wanted, after=asked.after)


# --- without ranks ---------------------------------------------------------------------------


def _in_order(txn: Read, asked: Asked) -> list[Ranked]:
    if not asked.order.fields:
        return _by_id(txn, asked)
    sorter = Sorter(asked.wanted)
    decode = attributes_decoder(asked.order.names)
    position_of = asked.order.position_of()
    for batch in matching(txn, asked.there, asked.filter):
        txn.spend(len(batch))
        for packed, record in batch:
            position = position_of(decode(record), packed)
            if position > asked.after:
                sorter.add(position, packed)
    found: list[Ranked] = []
    for position, packed in sorter.sorted():
        found.append(Ranked(packed_id=packed, position=position))
        if len(found) == asked.wanted:
            break
    return found


def ordered(asked: Asked, documents: Iterable[tuple[bytes, bytes]]) -> list[Ranked]:
    """Some documents, each its packed id and record, in the order of a query without ranks: those
    behind `Asked.after`, as many as are wanted."""
    decode = attributes_decoder(asked.order.names)
    position_of = asked.order.position_of()
    found = sorted((position_of(decode(record), packed), packed) for packed, record in documents)
    behind = [
        Ranked(packed_id=packed, position=position)
        for position, packed in found
        if position > asked.after
    ]
    return behind[: asked.wanted]


def _by_id(txn: Read, asked: Asked) -> list[Ranked]:
    descending = asked.order.id_descending
    after = inverted(asked.after) if descending else asked.after
    found: list[Ranked] = []
    for batch in matching(txn, asked.there, asked.filter, after=after, reverse=descending):
        for packed, _ in batch:
            position = inverted(packed) if descending else packed
            found.append(Ranked(packed_id=packed, position=position))
            if len(found) == asked.wanted:
                return found
    return found


# --- by vector -------------------------------------------------------------------------------


def rows_of(txn: Read, asked: Asked) -> dict[int, bytes]:
    """Row → packed id of all documents that satisfy the filter."""
    return {
        row_of(record): packed
        for batch in matching(txn, asked.there, asked.filter)
        for packed, record in batch
    }


def nearest(
    txn: Read, asked: Asked, rows: Mapping[int, bytes], wanted: int, *, after: bytes = b""
) -> list[Ranked]:
    """The nearest of some rows that have vectors.

    Args:
        rows: row → packed id.
        wanted: how many.
        after: only positions behind this one.
    """
    schema = asked.there.schema.vector
    assert schema is not None
    assert asked.vector is not None
    best: list[tuple[bytes, bytes, float]] = []
    worst: float | None = None
    for numbers, vectors in _vectors(txn, asked, rows):
        found = distances(schema.metric, asked.vector, matrix_of(vectors, schema.dim))
        for row, distance in zip(numbers, found.tolist(), strict=True):
            if worst is not None and distance > worst:
                continue
            packed = rows[row]
            position = position_of_distance(distance, packed)
            if position > after:
                best.append((position, packed, distance))
        if len(best) > 2 * wanted:
            best = sorted(best)[:wanted]
            worst = best[-1][2]
    return [
        Ranked(
            packed_id=packed,
            position=position,
            score=score_of(schema.metric, distance),
            distance=distance,
        )
        for position, packed, distance in sorted(best)[:wanted]
    ]


def _vectors(
    txn: Read, asked: Asked, rows: Mapping[int, bytes]
) -> Iterator[tuple[list[int], list[bytes]]]:
    """The vectors of rows that have one, some at a time, each with its row."""
    numbers: list[int] = []
    vectors: list[bytes] = []
    for row, vector in _stored(txn, asked.there.space.vectors, rows):
        if vector:
            numbers.append(row)
            vectors.append(vector)
            if len(numbers) == AT_ONCE:
                txn.spend(AT_ONCE)
                yield numbers, vectors
                numbers, vectors = [], []
    if numbers:
        txn.spend(len(numbers))
        yield numbers, vectors


def _stored(txn: Read, prefix: bytes, rows: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
    if len(rows) <= LOOKED_UP_MAX:
        for row in sorted(rows):
            yield row, txn.get(prefix + packed_row(row)) or b""
        return
    for keys, values in txn.batches(prefix, prefix + AFTER):
        for key, vector in zip(keys, values, strict=True):
            if (row := row_in(key)) in rows:
                yield row, vector
