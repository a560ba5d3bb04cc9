"""Walks over cross references, breadth first.

A walk looks at keys alone: a node is the packed bytes of its policy and its id, and both ends of a
reference are cut out of its key. Records are read for what is given, and none is decoded.
"""

from __future__ import annotations

from typing import Any, Final

from treestore.errors import InvalidArgument, ResourceExhausted
from treestore.model.metadata import CrossReference
from treestore.model.page import Page
from treestore.stores.access import Read
from treestore.stores.documents.layout import AFTER
from treestore.stores.json_values import encode
from treestore.stores.keys import Keyspace
from treestore.stores.records.listing import Cursors

WALK_MAX: Final = 200_000
"""References that one walk passes."""

_DEPTH_SIZE: Final = 2

Edge = tuple[bytes, bool, bytes | None]
"""A reference that was met: its OUT key, whether from its source, and its record, if at hand."""


def parts_of(key: bytes) -> list[bytes]:
    """The five elements of a reference's key. A packed string ends with the only 0 in it."""
    return [part + b"\0" for part in key[1:-1].split(b"\0")]


def key_in(key: bytes) -> bytes:
    """The IN key of a reference, from its OUT key."""
    a, b, relation, c, d = parts_of(key)
    return b"".join((Keyspace.CROSS_REFERENCES_IN, c, d, relation, a, b))


def key_out(key: bytes) -> bytes:
    """The OUT key of a reference, from its IN key."""
    c, d, relation, a, b = parts_of(key)
    return b"".join((Keyspace.CROSS_REFERENCES_OUT, a, b, relation, c, d))


class _Walk:
    """One walk, level by level."""

    def __init__(self, txn: Read, start: bytes, relation: bytes, direction: str) -> None:
        self._txn = txn
        self._relation = relation
        self._outwards = direction != "in"
        self._inwards = direction != "out"
        self._frontier = [start]
        self._visited = {start}
        self._met: set[bytes] = set()

    def level(self) -> list[Edge]:
        """The references of the next level, by key; empty at the end."""
        edges: list[Edge] = []
        ahead: list[bytes] = []
        for node in self._frontier:
            if self._outwards:
                self._look(node, True, edges, ahead)
            if self._inwards:
                self._look(node, False, edges, ahead)
        self._frontier = ahead
        edges.sort(key=lambda edge: edge[0])
        return edges

    def _look(self, node: bytes, outwards: bool, edges: list[Edge], ahead: list[bytes]) -> None:
        """Meet the references of one node, and note where they lead."""
        space = Keyspace.CROSS_REFERENCES_OUT if outwards else Keyspace.CROSS_REFERENCES_IN
        start = space + node + self._relation
        for key, value in self._txn.scan(start, start + AFTER):
            self._txn.spend(1)
            far = key[len(space) + len(node) :].split(b"\0", 1)[1]
            edge = key if outwards else key_out(key)
            if edge not in self._met:
                self._met.add(edge)
                edges.append((edge, outwards, value if outwards else None))
            if far not in self._visited:
                self._visited.add(far)
                ahead.append(far)
        if len(self._met) > WALK_MAX:
            raise ResourceExhausted(
                f"The walk passes more than {WALK_MAX} references; ask for a smaller max_depth, "
                f"one relation, or one direction."
            )


def page(
    txn: Read,
    start: bytes,
    relation: bytes,
    *,
    max_depth: int,
    direction: str,
    limit: int,
    cursor: str | None,
    scope: tuple[Any, ...],
) -> Page[CrossReference]:
    """One page of a walk, by depth and key. It walks no deeper than the page needs."""
    cursors = Cursors(scope)
    passed = (0, b"")
    if cursor is not None:
        position = cursors.position(cursor)
        passed = int.from_bytes(position[:_DEPTH_SIZE], "big"), position[_DEPTH_SIZE:]
        if not passed[1]:
            raise InvalidArgument("The cursor is none that a listing gave; start without one.")
    walk = _Walk(txn, start, relation, direction)
    found: list[tuple[int, Edge]] = []
    for depth in range(1, max_depth + 1):
        edges = walk.level()
        if not edges:
            break
        found += [(depth, edge) for edge in edges if (depth, edge[0]) > passed]
        if len(found) > limit:
            break
    items = [_reference(txn, depth, edge) for depth, edge in found[:limit]]
    if len(found) <= limit:
        return Page(items, None)
    depth, edge = found[limit - 1]
    return Page(items, cursors.after(depth.to_bytes(_DEPTH_SIZE, "big") + edge[0]))


def _reference(txn: Read, depth: int, edge: Edge) -> CrossReference:
    """A reference with the way it was met: two fields more at the end of its map."""
    key, outwards, record = edge
    if record is None:
        record = txn.get(key)
        assert record is not None
    assert 0x80 < record[0] < 0x8E
    direction = b"\xa3out" if outwards else b"\xa2in"
    ending = b"\xa5depth" + encode(depth) + b"\xa9direction" + direction
    return txn.load(CrossReference, bytes((record[0] + 2,)) + record[1:] + ending)
