"""What differs between the documents of two versions, node by node."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

import msgspec

from treestore.errors import InvalidArgument
from treestore.model.documents import Node
from treestore.model.versions import FieldChange, NodeChange
from treestore.stores.access import Read
from treestore.stores.documents.layout import (
    AFTER,
    TEXT,
    Place,
    decode_node,
    is_whole,
    source_of,
)
from treestore.stores.documents.layout import bare as without_text
from treestore.stores.documents.policies import read_document
from treestore.stores.documents.shapes import Shapes, section_given
from treestore.stores.documents.structure import read_source

FIELDS: Final = ("title", "page_start", "page_end", "summary", "text", "section_path", "metadata")
"""What of a node can change; the rest follows from its place in the document."""

Stored = tuple[bytes, bytes]
"""A node's record, and its text where that has its own key (else empty)."""


class _Side:
    """One of the two documents. Holds the tree's own bytes, not copies of them."""

    def __init__(self, txn: Read, place: Place) -> None:
        self.document = read_document(txn, place)
        source = read_source(txn, place)
        self.plans = Shapes(source.flat, source.shapes).plans
        self.nodes: dict[str, Stored] = {}
        """By id, in document order."""
        self.places: dict[str, tuple[str | None, int]] = {
            node_id: (None, index) for index, node_id in enumerate(self.document.root_ids)
        }
        """Parent and position of each node."""
        self.families: dict[str | None, tuple[str, ...]] = {None: self.document.root_ids}
        """Children of each node that has any; the roots under None."""
        at = len(place.nodes)
        for keys, values in txn.batches(place.nodes, place.nodes + AFTER):
            for key, value in zip(keys, values, strict=True):
                self._add(key[at:], value)

    def _add(self, key: bytes, value: bytes) -> None:
        if key.endswith(TEXT):
            # The text follows its node at once.
            node_id, (record, _) = self.nodes.popitem()
            self.nodes[node_id] = record, value
            return
        family = _decode_family(without_text(value))
        self.nodes[family.node_id] = value, b""
        if family.child_ids:
            self.families[family.node_id] = family.child_ids
            for index, child in enumerate(family.child_ids):
                self.places[child] = family.node_id, index

    def node(self, node_id: str, *, include_text: bool) -> Node:
        """A node, decoded."""
        record, text = self.nodes[node_id]
        if not include_text:
            return decode_node(without_text(record))
        return decode_node(record if is_whole(record) else record + text)

    def section(self, node_id: str, node: Node) -> str | None:
        """The section_path that the source gave; None where it follows from the position."""
        source = source_of(self.nodes[node_id][0])
        return node.section_path if section_given(self.plans[source[0]], source) else None


class _Family(msgspec.Struct):
    node_id: str
    child_ids: tuple[str, ...] = ()


_canonical = msgspec.msgpack.Encoder(order="deterministic").encode
_decode_family = msgspec.msgpack.Decoder(_Family).decode


def diff(
    txn: Read,
    policy_id: str,
    version_a: str,
    version_b: str,
    *,
    include_text: bool = True,
) -> list[NodeChange]:
    """What became of the nodes of one version's document in another one's, matched by node_id.

    A node can be added, removed, changed (some of title, pages, summary, text, metadata, or a
    section_path that the source gave) and moved (another parent, or another place among the
    siblings that stayed: of those the fewest that explain the order, so that what is put in front
    moves nobody). One that moved and changed is listed twice, the move first.

    To make the second document out of the first: drop what was removed; put added and moved nodes
    under their parent at their index, the others keep their order; set the changed fields.

    Args:
        version_a: the version to begin with.
        version_b: the version to end with.
        include_text: False leaves out the texts: of added and removed nodes, and the old and new
            value of a text that changed (that it did is still said).

    Returns:
        In the document order of ``version_b``; what was removed at the end, in that of
        ``version_a``. Empty where nothing differs.

    Raises:
        NotFound: one of them has no document.
    """
    if not isinstance(include_text, bool):
        raise InvalidArgument(f"include_text is True or False, not {include_text!r:.40}.")
    old, new = _Side(txn, Place(policy_id, version_a)), _Side(txn, Place(policy_id, version_b))
    moved = _moved(old, new)
    changes: list[NodeChange] = []
    for node_id in new.nodes:
        if node_id not in old.nodes:
            changes.append(_alone("added", new, node_id, include_text))
            continue
        parent_id, index = new.places[node_id]
        place: dict[str, Any] = {"parent_id": parent_id, "index": index}
        before, after = old.node(node_id, include_text=True), new.node(node_id, include_text=True)
        if node_id in moved:
            old_parent, old_index = old.places[node_id]
            change = NodeChange(
                kind="moved",
                node_id=node_id,
                title=after.title,
                old_parent_id=old_parent,
                old_index=old_index,
                **place,
            )
            changes.append(change)
        fields = _fields(old, new, before, after, include_text)
        if fields:
            change = NodeChange(
                kind="changed", node_id=node_id, title=after.title, fields=fields, **place
            )
            changes.append(change)
    gone = [node_id for node_id in old.nodes if node_id not in new.nodes]
    return changes + [_alone("removed", old, node_id, include_text) for node_id in gone]


def _alone(kind: Any, side: _Side, node_id: str, include_text: bool) -> NodeChange:
    """A node that only one of the two has."""
    parent_id, index = side.places[node_id]
    node = side.node(node_id, include_text=include_text)
    return NodeChange(
        kind=kind, node_id=node_id, title=node.title, parent_id=parent_id, index=index, node=node
    )


def _fields(
    old: _Side, new: _Side, before: Node, after: Node, include_text: bool
) -> tuple[FieldChange, ...]:
    """The fields of a node that differ."""
    fields = []
    for name in FIELDS:
        was, now = getattr(before, name), getattr(after, name)
        if name == "section_path" and was != now:
            was, now = old.section(before.node_id, before), new.section(after.node_id, after)
        if name == "metadata":
            # By what is stored: True is not 1 there, and a NaN is itself.
            if (was or now) and _canonical(was) != _canonical(now):
                fields.append(FieldChange(name=name, old=was, new=now))
            continue
        if was == now:
            continue
        if name == "text" and not include_text:
            was = now = None
        fields.append(FieldChange(name=name, old=was, new=now))
    return tuple(fields)


def _moved(old: _Side, new: _Side) -> set[str]:
    """The nodes with another parent, or another place among the siblings that stayed."""
    moved: set[str] = set()
    for parent, children in new.families.items():
        stayed: list[str] = []
        for child in children:
            place = old.places.get(child)
            if place is None:
                continue
            if place[0] == parent:
                stayed.append(child)
            else:
                moved.add(child)
        positions = [old.places[child][1] for child in stayed]
        in_order = _longest_ascending(positions)
        moved.update(child for at, child in enumerate(stayed) if at not in in_order)
    return moved


def _longest_ascending(numbers: list[int]) -> set[int]:
    """The indexes of one longest ascending subsequence of distinct numbers."""
    ends: list[int] = []
    """The smallest number that ends an ascending subsequence, for each length."""
    indexes: list[int] = []
    previous: list[int] = []
    for at, number in enumerate(numbers):
        length = bisect_left(ends, number)
        previous.append(indexes[length - 1] if length else -1)
        if length == len(ends):
            ends.append(number)
            indexes.append(at)
        else:
            ends[length] = number
            indexes[length] = at
    chosen: set[int] = set()
    at = indexes[-1] if indexes else -1
    while at >= 0:
        chosen.add(at)
        at = previous[at]
    return chosen
