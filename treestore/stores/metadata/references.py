"""Cross references: edges between nodes, found from both ends.

Keys, where a node is its policy_id and node_id::

    CROSS_REFERENCES_OUT source relation target -> the CrossReference
    CROSS_REFERENCES_IN  target relation source -> nothing

Both hold the same five elements, all strings, so that one is made from the other by cutting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from treestore.errors import InvalidArgument, NotFound
from treestore.model.metadata import CrossReference, Direction
from treestore.model.page import Page
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import AFTER, Place, packed_name, packed_node_id
from treestore.stores.json_values import JsonObject, check_inside, encode, shown
from treestore.stores.keys import Keyspace
from treestore.stores.metadata import reference_walk
from treestore.stores.metadata.reference_walk import key_in, key_out
from treestore.stores.metadata.trajectories import as_map, as_maps
from treestore.stores.operation import Wire
from treestore.stores.records.fields import LIMIT_MAX, to_count, to_json_object, to_text
from treestore.stores.versions.book import stored_versions

RELATION_SIZE_BYTES_MAX: Final = 60
"""Longest relation: what the other parts of a key leave of the engine's limit."""

DEPTH_MAX: Final = 1000

_FIELDS: Final = (
    "source_policy_id",
    "source_node_id",
    "target_policy_id",
    "target_node_id",
    "relation",
    "context",
    "metadata",
)
_GIVEN_BY_STORE: Final = frozenset({"created_at", "updated_at", "depth", "direction"})

References = Annotated[
    Sequence[CrossReference | Mapping[str, Any]],
    Wire(type=list[dict[str, Any]], encode=as_maps, check=check_inside("metadata")),
]
"""A list of `CrossReference`, or of dicts with their fields."""

_decode = msgspec.msgpack.Decoder(CrossReference).decode


def packed_relation(relation: Any) -> bytes:
    """A relation as a key element; `InvalidArgument` where it is none."""
    return packed_name("relation", relation, RELATION_SIZE_BYTES_MAX)


def packed_node(policy_id: Any, node_id: Any, what: str = "") -> bytes:
    """A node as key elements."""
    return packed_name(f"{what}policy_id", policy_id) + packed_node_id(node_id)


# --- storing ---------------------------------------------------------------------------------


def store_cross_reference(
    txn: Write,
    source_policy_id: str,
    source_node_id: str,
    target_policy_id: str,
    target_node_id: str,
    relation: str,
    *,
    context: str = "",
    metadata: JsonObject | None = None,
    require_nodes: bool | None = None,
) -> CrossReference:
    """Record that one node refers to another.

    There is one reference for each source, target and relation: stored again, it takes the new
    context and metadata and keeps ``created_at``; where these are the same, nothing changes.
    References are between policies' nodes, whatever their versions. Cycles are welcome.

    Args:
        relation: such as "cites"; 1 to 60 bytes of UTF-8.
        context: the words around it, or whatever tells how it is meant.
        metadata: whatever else there is to know, JSON-like.
        require_nodes: whether both nodes have to exist, in any stored version of their policies.
            None: those of stored policies have to; a policy of which nothing is stored (not yet,
            or because it lies elsewhere) may be referred to freely. False: neither.

    Raises:
        InvalidArgument: a node refers to itself, or a parameter is wrong.
        NotFound: a node has to exist and does not.
    """
    fields = {
        "source_policy_id": source_policy_id,
        "source_node_id": source_node_id,
        "target_policy_id": target_policy_id,
        "target_node_id": target_node_id,
        "relation": relation,
        "context": context,
        "metadata": metadata,
    }
    _check_require(require_nodes)
    key, own = _checked(fields)
    _Nodes(txn, require_nodes).check(fields)
    return txn.load(CrossReference, _put(txn, key, own))


def store_cross_references(
    txn: Write, references: References, *, require_nodes: bool | None = None
) -> int:
    """Record many references at once: all of them or, on any error, none.

    Args:
        references: `CrossReference` or dicts with their fields, see `store_cross_reference`. Of a
            reference that is given twice the last one counts.
        require_nodes: likewise.

    Returns:
        How many different references there were.

    Raises:
        InvalidArgument, NotFound: likewise; the message says which one is wrong.
    """
    _check_require(require_nodes)
    if isinstance(references, str | bytes | Mapping) or not isinstance(references, Sequence):
        raise InvalidArgument(f"references is a list, not {type(references).__name__}.")
    nodes = _Nodes(txn, require_nodes)
    ready: dict[bytes, dict[str, Any]] = {}
    for index, reference in enumerate(references):
        try:
            fields = _fields_of(reference)
            key, own = _checked(fields)
            nodes.check(fields)
        except (InvalidArgument, NotFound) as error:
            raise type(error)(f"references[{index}]: {error.message}", **error.details) from None
        ready[key] = own
    for key in sorted(ready):
        _put(txn, key, ready[key])
    return len(ready)


def _fields_of(reference: Any) -> dict[str, Any]:
    value = as_map(reference)
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"a reference is a dict, not {type(value).__name__}.")
    for name in value:
        if name not in _FIELDS and name not in _GIVEN_BY_STORE:
            raise InvalidArgument(
                f"a reference has no field {shown(name)}; it has {', '.join(_FIELDS)}."
            )
    missing = [name for name in _FIELDS[:5] if name not in value]
    if missing:
        raise InvalidArgument(f"a reference needs {', '.join(missing)}.")
    return {name: value.get(name) for name in _FIELDS} | {"context": value.get("context") or ""}


def _checked(fields: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The key of a reference, and what its record says of itself."""
    source = packed_node(fields["source_policy_id"], fields["source_node_id"], "source_")
    target = packed_node(fields["target_policy_id"], fields["target_node_id"], "target_")
    relation = packed_relation(fields["relation"])
    if source == target:
        raise InvalidArgument(
            f"Node {shown(fields['source_node_id'])} of policy "
            f"{shown(fields['source_policy_id'])} cannot refer to itself."
        )
    own = dict(fields)
    own["context"] = to_text(fields["context"], "context")
    own["metadata"] = to_json_object(fields["metadata"], "metadata")
    return Keyspace.CROSS_REFERENCES_OUT + source + relation + target, own


def _put(txn: Write, key: bytes, own: dict[str, Any]) -> bytes:
    """Store a reference; its record."""
    before = txn.get(key)
    created_at = txn.now
    if before is not None:
        old = _decode(before)
        same = encode(own | {"created_at": old.created_at, "updated_at": old.updated_at})
        if same == before:
            return before
        created_at = old.created_at
    record = encode(own | {"created_at": created_at, "updated_at": txn.now})
    txn.put(key, record)
    if before is None:
        txn.put(key_in(key), b"")
    return record


# --- nodes that have to exist ----------------------------------------------------------------


def _check_require(require_nodes: Any) -> None:
    if require_nodes is not None and not isinstance(require_nodes, bool):
        raise InvalidArgument(f"require_nodes is True, False or None, not {shown(require_nodes)}.")


class _Nodes:
    """Looks whether nodes have to exist, and do; remembers it for the length of one command.

    Args:
        require: see `store_cross_reference`.
    """

    def __init__(self, txn: Read, require: bool | None) -> None:
        self._txn = txn
        self._require = require
        self._versions: dict[str, list[str]] = {}
        self._found: dict[bytes, bool] = {}

    def check(self, fields: dict[str, Any]) -> None:
        """Raise `NotFound` where an end of the reference has to exist and does not."""
        if self._require is False:
            return
        for side in ("source", "target"):
            policy_id, node_id = fields[f"{side}_policy_id"], fields[f"{side}_node_id"]
            node = packed_node(policy_id, node_id)
            if node not in self._found:
                self._found[node] = self._may_be(policy_id, node_id)
            if not self._found[node]:
                raise NotFound(
                    f"The {side}, node {shown(node_id)} of policy {shown(policy_id)}, is not "
                    f"stored; store its document first, or say require_nodes=False.",
                    policy_id=policy_id,
                    ids=[node_id],
                )

    def _may_be(self, policy_id: str, node_id: str) -> bool:
        """Whether any stored version has the node; also where nothing of the policy is stored,
        unless it must be. The version stored last is the likeliest."""
        versions = self._versions.get(policy_id)
        if versions is None:
            versions = self._versions[policy_id] = stored_versions(self._txn, policy_id)
        if not versions:
            return self._require is not True
        packed = packed_node_id(node_id)
        return any(
            self._txn.get(Place(policy_id, version_id).ids + packed) is not None
            for version_id in reversed(versions)
        )


# --- reading ---------------------------------------------------------------------------------


def get_cross_references(
    txn: Read,
    policy_id: str,
    node_id: str,
    *,
    max_depth: int = 1,
    direction: Direction = "both",
    relation: str | None = None,
    limit: int = 1000,
    cursor: str | None = None,
) -> Page[CrossReference]:
    """The references of a node and, further on, of the nodes that they lead to.

    A walk breadth first: every reference once, with the smallest ``depth`` at which it is met; by
    depth, then by source, relation and target. A node without references gives none, whether it is
    stored or not; one may lead to a node that is stored no more.

    Args:
        max_depth: how many references to follow one after the other, 1 to 1,000.
        direction: "out" follows references from their sources, "in" from their targets, "both"
            either way.
        relation: follow only these.
        limit: at most this many, 1 to 10,000.
        cursor: ``next_cursor`` of the page before. While others write, references whose depth
            stays the same are neither left out nor given twice.

    Raises:
        ResourceExhausted: the walk passes more than 200,000 references.
    """
    start = packed_node(policy_id, node_id)
    to_count(max_depth, "max_depth", 1, DEPTH_MAX)
    to_count(limit, "limit", 1, LIMIT_MAX)
    if direction not in ("both", "out", "in"):
        raise InvalidArgument(f'direction is "both", "out" or "in", not {shown(direction)}.')
    scope = ("cross_references", policy_id, node_id, direction, relation)
    return reference_walk.page(
        txn,
        start,
        b"" if relation is None else packed_relation(relation),
        max_depth=max_depth,
        direction=direction,
        limit=limit,
        cursor=cursor,
        scope=scope,
    )


# --- removing --------------------------------------------------------------------------------


def delete_cross_reference(
    txn: Write,
    source_policy_id: str,
    source_node_id: str,
    target_policy_id: str,
    target_node_id: str,
    relation: str,
) -> bool:
    """Remove one reference; returns whether it was there."""
    source = packed_node(source_policy_id, source_node_id, "source_")
    target = packed_node(target_policy_id, target_node_id, "target_")
    return _remove(txn, Keyspace.CROSS_REFERENCES_OUT + source + packed_relation(relation) + target)


def delete_cross_references(
    txn: Write, policy_id: str, node_id: str | None = None, *, direction: Direction = "both"
) -> int:
    """Remove the references of a node, or of all nodes of a policy; how many there were.

    Args:
        node_id: None means every node of the policy.
        direction: "out" removes those that the nodes make, "in" those made to them.
    """
    prefix = packed_name("policy_id", policy_id)
    if node_id is not None:
        prefix += packed_node_id(node_id)
    if direction not in ("both", "out", "in"):
        raise InvalidArgument(f'direction is "both", "out" or "in", not {shown(direction)}.')
    keys: list[bytes] = []
    if direction != "in":
        keys += _keys(txn, Keyspace.CROSS_REFERENCES_OUT + prefix)
    if direction != "out":
        keys += map(key_out, _keys(txn, Keyspace.CROSS_REFERENCES_IN + prefix))
    return sum([_remove(txn, key) for key in keys])


def _keys(txn: Read, prefix: bytes) -> Iterator[bytes]:
    for keys, _ in txn.batches(prefix, prefix + AFTER):
        yield from keys


def _remove(txn: Write, key: bytes) -> bool:
    if not txn.delete(key):
        return False
    txn.delete(key_in(key))
    return True
