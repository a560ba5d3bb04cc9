"""Nodes that belong together with a node: why, and in which order.

Candidates come one reason after the other, each in an order that the stored data alone decide; the
first reason that a node has is the one it is given with, and no node is given twice. Nothing
follows a path further than one step, so cycles cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import msgspec

from treestore.errors import InvalidArgument, NotFound
from treestore.model.queries import Reason, RelatedNode
from treestore.stores.access import Read
from treestore.stores.documents.layout import (
    AFTER,
    FIRST_CHILD,
    NODE_ID_SIZE_BYTES_MAX,
    Place,
    level_ends,
    packed_name,
    packed_node_id,
)
from treestore.stores.documents.policies import place_to_read
from treestore.stores.documents.reading import array_head, stored_node
from treestore.stores.keys import Keyspace, unpack_one
from treestore.stores.metadata.reference_walk import parts_of

SEE_ALSO_KEYS = ("see_also", "references")
"""Keys of a node's metadata that name other nodes."""

_encode = msgspec.msgpack.Encoder().encode


@attrs.frozen
class Candidate:
    """A node that may be given.

    Attributes:
        place: its document.
        path: where it is there.
    """

    place: Place
    path: bytes
    reason: Reason
    detail: str = ""
    score: float | None = None


def chosen(candidates: Iterable[Candidate], seen: set[bytes], limit: int) -> list[Candidate]:
    """The first ``limit`` candidates that were not seen yet."""
    found: list[Candidate] = []
    for candidate in candidates:
        if len(found) == limit:
            break
        key = candidate.place.nodes + candidate.path
        if key not in seen:
            seen.add(key)
            found.append(candidate)
    return found


def load_related(txn: Read, found: list[Candidate], include_text: bool) -> list[RelatedNode]:
    """The candidates with their nodes, as part of an answer."""
    pieces = [array_head(len(found))]
    for candidate in found:
        fields = {
            "reason": candidate.reason,
            "detail": candidate.detail,
            "score": candidate.score,
        }
        # A map of four: what was encoded has three, and the node as it is stored comes in front.
        pieces += (
            b"\x84\xa4node",
            stored_node(txn, candidate.place, candidate.path, include_text),
            _encode(fields)[1:],
        )
    return txn.load(list[RelatedNode], b"".join(pieces))


# --- within the document ---------------------------------------------------------------------


def siblings(txn: Read, place: Place, path: bytes) -> Iterator[Candidate]:
    """Nodes under the same parent, the nearest first, of two as near the following one first."""
    ends = level_ends(path)
    above = path[: ends[-2]] if len(ends) > 1 else b""
    after = _brothers(txn, place, path, above)
    before = _brothers_before(txn, place, path, above)
    following: bytes | None = next(after, None)
    preceding: bytes | None = next(before, None)
    while following is not None or preceding is not None:
        if following is not None:
            yield Candidate(place, following, "sibling", "following")
            following = next(after, None)
        if preceding is not None:
            yield Candidate(place, preceding, "sibling", "preceding")
            preceding = next(before, None)


def _brothers(txn: Read, place: Place, path: bytes, above: bytes) -> Iterator[bytes]:
    end = place.nodes + above + AFTER
    at = path
    while True:
        key = next(iter(txn.scan(place.nodes + at + AFTER, end)), None)
        if key is None:
            return
        at = key[0][len(place.nodes) : -1]
        yield at


def _brothers_before(txn: Read, place: Place, path: bytes, above: bytes) -> Iterator[bytes]:
    start = place.nodes + above + FIRST_CHILD
    at = path
    while True:
        found = next(iter(txn.scan(start, place.nodes + at, reverse=True)), None)
        if found is None:
            return
        # The last key before it belongs to the deepest last descendant of the sibling.
        inner = found[0][len(place.nodes) : -1]
        at = inner[: level_ends(inner, len(above))[0]]
        yield at


def context(txn: Read, place: Place, path: bytes) -> Iterator[Candidate]:
    """The parent, the children, then the neighbours in reading order."""
    ends = level_ends(path)
    if len(ends) > 1:
        yield Candidate(place, path[: ends[-2]], "context", "parent")
    at = path + FIRST_CHILD
    end = place.nodes + path + AFTER
    while True:
        found = next(iter(txn.scan(place.nodes + at, end)), None)
        if found is None:
            break
        child = found[0][len(place.nodes) : -1]
        yield Candidate(place, child, "context", "child")
        at = child + AFTER
    neighbour = next(iter(txn.scan(place.nodes + path + AFTER, place.nodes + AFTER)), None)
    if neighbour is not None:
        yield Candidate(place, neighbour[0][len(place.nodes) : -1], "context", "next")
    neighbour = next(iter(txn.scan(place.nodes, place.nodes + path, reverse=True)), None)
    if neighbour is not None:
        yield Candidate(place, neighbour[0][len(place.nodes) : -1], "context", "previous")


def see_also(txn: Read, place: Place, metadata: dict[str, Any]) -> Iterator[Candidate]:
    """The nodes of the same document that a node's own notes name, in their order."""
    for key in SEE_ALSO_KEYS:
        for name in names_in(metadata.get(key)):
            try:
                packed = packed_name("node_id", name, NODE_ID_SIZE_BYTES_MAX)
            except InvalidArgument:
                continue
            path = txn.get(place.ids + packed)
            if path is not None:
                yield Candidate(place, path, "see_also", key)


def names_in(value: Any) -> Iterator[str]:
    """The strings of a note: one, a list of them, or of objects with a ``node_id``."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            item = item.get("node_id")
        if isinstance(item, str):
            yield item


# --- across documents ------------------------------------------------------------------------


def cross_references(txn: Read, place: Place, packed_id: bytes) -> Iterator[Candidate]:
    """The nodes that a node refers to, by relation, then those that refer to it.

    A node of another policy is taken from the version of that policy that is in effect; one that
    is not stored is passed over.
    """
    places: dict[bytes, Place | None] = {}
    node = packed_name("policy_id", place.policy_id) + packed_id
    for space, words in (
        (Keyspace.CROSS_REFERENCES_OUT, "to"),
        (Keyspace.CROSS_REFERENCES_IN, "from"),
    ):
        start = space + node
        for key, _ in txn.scan(start, start + AFTER):
            _, _, relation, policy, other = parts_of(key)
            if policy not in places:
                places[policy] = _place_of(txn, place, policy)
            where = places[policy]
            path = None if where is None else txn.get(where.ids + other)
            if where is not None and path is not None:
                name = str(unpack_one(relation, 0)[0])
                yield Candidate(where, path, "cross_reference", f"{words}: {name}")


def _place_of(txn: Read, place: Place, policy: bytes) -> Place | None:
    policy_id, _ = unpack_one(policy, 0)
    assert isinstance(policy_id, str)
    if policy_id == place.policy_id:
        return place
    try:
        return place_to_read(txn, policy_id, None)
    except NotFound:
        return None


def keyword_hits(txn: Read, place: Place, hits: Iterable[tuple[str, float]]) -> Iterator[Candidate]:
    """What a search of the document found, in its order."""
    for node_id, score in hits:
        path = txn.get(place.ids + packed_node_id(node_id))
        if path is not None:
            yield Candidate(place, path, "keyword", score=score)
