"""A document with everything that is known of it.

The answer is put together of stored bytes: one map of msgpack around the records of the document,
its version, its nodes and what refers to them. Nothing is decoded but the little that tells which
contradictions belong to it, so on its way to the wire the answer costs a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from treestore.errors import InvalidArgument
from treestore.model.queries import EnrichedDocument
from treestore.stores.access import Read
from treestore.stores.documents.layout import (
    AFTER,
    Place,
    packed_name,
    packed_node_id,
)
from treestore.stores.documents.policies import no_document, place_to_read
from treestore.stores.documents.reading import array_head, no_nodes, outline, stored_node
from treestore.stores.keys import Keyspace, pack, unpack_one
from treestore.stores.metadata.reference_walk import key_out
from treestore.stores.versions.layout import Shelf

_NONE = pack(None)
_NIL = b"\xc0"
_EMPTY = b"\x90"

INLINE_NODES_MAX = 1000
"""Of a larger document the budget of the event loop is used up by reading it."""


class _Size(msgspec.Struct):
    """Of a document, how much work it is."""

    node_count: int = 0


_decode_size = msgspec.msgpack.Decoder(_Size).decode


def get_enriched(
    txn: Read,
    policy_id: str,
    version_id: str | None = None,
    *,
    node_ids: Sequence[str] | None = None,
    include_text: bool = True,
    include_references: bool = True,
    include_contradictions: bool = True,
) -> EnrichedDocument:
    """A document, its version, its nodes, their references and contradictions, of one state.

    Args:
        version_id: None means the version in effect today (see ``documents.get``).
        node_ids: only these nodes, in this order, with their references and contradictions; None
            means all of them, in document order.
        include_text: False leaves every node's ``text`` empty and does not read long ones.
        include_references: False leaves ``references`` empty.
        include_contradictions: False leaves ``contradictions`` empty.

    Raises:
        NotFound: there is no such document, or some nodes do not exist; ``details["ids"]`` names
            them all.
    """
    place = place_to_read(txn, policy_id, version_id)
    document = txn.get(place.document)
    if document is None:
        raise no_document(place)
    paths = None
    if node_ids is None:
        size = _decode_size(document).node_count
        if size > INLINE_NODES_MAX:
            # It will be work for a thread: better known now than found out half way.
            txn.spend(size)
        nodes, count = outline(txn, place, b"", None, include_text)
    else:
        paths = _paths_of(txn, place, node_ids)
        nodes = [stored_node(txn, place, path, include_text) for path in paths.values()]
        count = len(nodes)
    wanted = None if paths is None else list(paths)
    policy = packed_name("policy_id", policy_id)
    pieces = [
        b"\x85\xa8document",
        document,
        b"\xa7version",
        txn.get(Shelf(policy_id).record(place.version_id)) or _NIL,
        b"\xa5nodes",
        array_head(count),
        *nodes,
        b"\xaareferences",
    ]
    pieces += _references(txn, policy, wanted) if include_references else [_EMPTY]
    pieces.append(b"\xaecontradictions")
    pieces += _contradictions(txn, place, policy, wanted) if include_contradictions else [_EMPTY]
    return txn.load(EnrichedDocument, b"".join(pieces))


def _paths_of(txn: Read, place: Place, node_ids: Sequence[str]) -> dict[bytes, bytes]:
    """Packed ids and paths of nodes, each once, in the order asked."""
    if isinstance(node_ids, str) or not isinstance(node_ids, Iterable):
        raise InvalidArgument("node_ids is a list of ids, or None for all nodes.")
    paths: dict[bytes, bytes] = {}
    unknown: list[str] = []
    for node_id in node_ids:
        packed = packed_node_id(node_id)
        path = txn.get(place.ids + packed)
        if path is None:
            unknown.append(node_id)
        else:
            paths[packed] = path
    if unknown:
        raise no_nodes(txn, place, unknown)
    return paths


# --- references ------------------------------------------------------------------------------


def _references(txn: Read, policy: bytes, wanted: list[bytes] | None) -> list[bytes]:
    """The references, each once, as msgpack: those that nodes make, then those made to them."""
    if wanted is None:
        found: list[bytes] = []
        start = Keyspace.CROSS_REFERENCES_OUT + policy
        cursor = txn.cursor(start, start + AFTER, joined=True)
        while cells := cursor.batch()[1]:
            found += [cell if cell.__class__ is bytes else txn.value(cell) for cell in cells]
        found += _from_elsewhere(txn, policy)
    else:
        found = _of_nodes(txn, policy, wanted)
    return [array_head(len(found)), *found]


def _from_elsewhere(txn: Read, policy: bytes) -> Iterator[bytes]:
    """The references that nodes of other policies make."""
    at = 1 + len(policy)
    own = policy[:-1]
    start = Keyspace.CROSS_REFERENCES_IN + policy
    # Of most keys nothing but their third element is looked at: no more work than joining them.
    cursor = txn.cursor(start, start + AFTER, joined=True)
    while keys := cursor.batch()[0]:
        for key in [key for key in keys if key[at:].split(b"\0", 3)[2] != own]:
            yield _record(txn, key_out(key))


def _of_nodes(txn: Read, policy: bytes, wanted: list[bytes]) -> list[bytes]:
    """The references of some nodes, in the same order."""
    own = Keyspace.CROSS_REFERENCES_OUT + policy
    made: dict[bytes, bytes] = {}
    elsewhere: dict[bytes, bytes] = {}
    for packed in wanted:
        made.update(txn.scan(own + packed, own + packed + AFTER))
    for packed in wanted:
        start = Keyspace.CROSS_REFERENCES_IN + policy + packed
        for key, _ in txn.scan(start, start + AFTER):
            out = key_out(key)
            if not out.startswith(own):
                elsewhere[out] = _record(txn, out)
            elif out not in made:
                made[out] = _record(txn, out)
    return [*(made[key] for key in sorted(made)), *elsewhere.values()]


def _record(txn: Read, key: bytes) -> bytes:
    record = txn.get(key)
    assert record is not None
    return record


# --- contradictions --------------------------------------------------------------------------


class _Evidence(msgspec.Struct):
    """Of a piece of evidence, where it was found."""

    policy_id: str | None = None
    node_id: str | None = None
    version_id: str | None = None


class _Brief(msgspec.Struct):
    """Of a contradiction, whether it belongs to a document."""

    evidence: list[_Evidence]


_decode_brief = msgspec.msgpack.Decoder(_Brief).decode


def _contradictions(
    txn: Read, place: Place, policy: bytes, wanted: list[bytes] | None
) -> list[bytes]:
    """The contradictions with evidence in the document (or in the wanted nodes), as msgpack."""
    ids: dict[bytes, None] = {}
    for node in [_NONE] if wanted is None else wanted:
        index = Keyspace.CONTRADICTIONS_BY_NODE + policy + node
        for keys, _ in txn.batches(index, index + AFTER):
            ids.update(dict.fromkeys(key[len(index) :] for key in keys))
    names = None if wanted is None else {str(unpack_one(node, 0)[0]) for node in wanted}
    found = []
    for id in sorted(ids):
        record = txn.get(Keyspace.CONTRADICTIONS + id)
        assert record is not None
        if any(_is_here(piece, place, names) for piece in _decode_brief(record).evidence):
            found.append(record)
    return [array_head(len(found)), *found]


def _is_here(piece: _Evidence, place: Place, names: set[str] | None) -> bool:
    """Whether a piece of evidence is of this version (or of none), and of a wanted node."""
    return (
        piece.policy_id == place.policy_id
        and piece.version_id in (None, place.version_id)
        and (names is None or piece.node_id in names)
    )
