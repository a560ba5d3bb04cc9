"""What can be stored as a document, and how it travels.

Accepted are PageIndex's JSON in every shape and flat lists of nodes with parent ids:

* a list of root nodes; or a dict with such a list (or one root) under ``structure``, ``result``,
  ``nodes``, ``child_nodes`` or ``children`` beside keys of the document's own; or a dict that is
  itself the one root (it has a ``title`` and neither ``structure`` nor ``result``);
* nodes hold their children under ``nodes``, ``child_nodes`` or ``children``;
* a list in which a node names a ``parent_id`` is flat: parents may come after their children,
  siblings keep the order of the list.

**On the wire** a structure is a list of blobs, so that neither side decodes a large document in
one step. The first blob is a msgpack map::

    {"wrapper": "list" | "document" | "tree" | "node", "key": str, "flat": bool, "document": map}

``key`` names where the nodes were in ``document`` ("" for wrapper "list" and "node"), and
``document`` is the dict around them with nil in that place ({} for "list" and "node"). For a bare
list of nodes it is ``{"wrapper": "list", "key": "", "flat": false, "document": {}}``.

Every further blob is a msgpack array of nodes ``[depth, node, depth, node, …]`` in reading order
(a node, then its children): depth is 0 for a root (and for every node of a flat list), ``node``
the node's map with nil in the place of its children where it has some. Blobs may be cut anywhere
between nodes; up to 200 nodes or 256 KiB is a good size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import attrs
import msgspec

from treestore.errors import InvalidArgument
from treestore.stores.documents.layout import DEPTH_MAX
from treestore.stores.documents.shapes import CHILDREN_KEYS
from treestore.stores.json_values import SCALARS, check_json, encode, not_json, shown
from treestore.stores.operation import Wire

BLOB_NODES_MAX: Final = 200
BLOB_SIZE_BYTES_MAX: Final = 256 * 1024

Entry = tuple[int, dict[str, Any]]
"""Depth and map of one node."""


class Heading(msgspec.Struct, kw_only=True):
    """The first blob: what is around the nodes."""

    wrapper: str
    key: str = ""
    flat: bool = False
    document: dict[str, Any] = {}


@attrs.frozen
class Chunked:
    """A structure as it arrived over the wire."""

    blobs: Sequence[bytes | memoryview]


def opened(structure: Any) -> tuple[Heading, Iterator[Entry]]:
    """The heading of any structure, and its nodes in reading order.

    Raises:
        InvalidArgument: it is no document tree (also while iterating).
    """
    if isinstance(structure, Chunked):
        return _opened_blobs(structure.blobs)
    heading, nodes = _unwrap(structure)
    for node in nodes:
        if isinstance(node, dict) and node.get("parent_id") not in (None, ""):
            heading.flat = True
            break
    return heading, _flat_entries(nodes) if heading.flat else nested_entries(nodes)


def _unwrap(structure: Any) -> tuple[Heading, list[Any]]:
    if isinstance(structure, list | tuple):
        return Heading(wrapper="list"), list(structure)
    if not isinstance(structure, dict):
        raise InvalidArgument(
            f"A document's structure is a dict or a list of nodes, not {_name(structure)}."
        )
    keys = ("structure", "result", *CHILDREN_KEYS)
    key = next((key for key in keys if key in structure), None)
    if key not in ("structure", "result") and "title" in structure:
        return Heading(wrapper="node"), [structure]
    if key is None:
        raise InvalidArgument(
            "The structure has no nodes: expected a list of nodes, or a dict with one under "
            '"structure", "result" or "nodes".'
        )
    document = {k: None if k == key else v for k, v in structure.items()}
    nodes = structure[key]
    if isinstance(nodes, dict):
        return Heading(wrapper="tree", key=key, document=document), [nodes]
    if not isinstance(nodes, list | tuple):
        raise InvalidArgument(f'"{key}" is a list of nodes, not {_name(nodes)}.')
    return Heading(wrapper="document", key=key, document=document), list(nodes)


def _name(value: Any) -> str:
    names = {str: "a string", dict: "an object", list: "a list", bool: "a boolean"}
    if value is None:
        return "null"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return names.get(type(value), type(value).__name__)


def _check_map(node: Any, number: int) -> None:
    if not isinstance(node, dict):
        raise InvalidArgument(
            f"Node number {number} in reading order is {_name(node)}; a node is an object."
        )


def children_key(node: dict[str, Any]) -> str | None:
    """The key that holds the node's children, as `shapes.Plan` chooses it."""
    found = None
    for key in CHILDREN_KEYS:
        if key in node:
            if found is None:
                found = key
            elif isinstance(node[key], list) and any(isinstance(c, dict) for c in node[key]):
                raise InvalidArgument(
                    f'The node {shown(node.get("title"))} has children under both "{found}" '
                    f'and "{key}"; put them under one.'
                )
    return found


def nested_entries(roots: list[Any]) -> Iterator[Entry]:
    """The nodes of a forest of nested dicts with their depths, in reading order."""
    stack = [iter(roots)]
    number = 0
    while stack:
        for node in stack[-1]:
            number += 1
            _check_map(node, number)
            yield len(stack) - 1, node
            key = children_key(node)
            if key is None or node[key] is None:
                continue
            if not isinstance(node[key], list | tuple):
                raise InvalidArgument(
                    f'"{key}" of the node {shown(node.get("title"))} is a list of nodes, '
                    f"not {_name(node[key])}."
                )
            if node[key]:
                stack.append(iter(node[key]))
                break
        else:
            stack.pop()


def _flat_entries(nodes: list[Any]) -> Iterator[Entry]:
    for number, node in enumerate(nodes, 1):
        _check_map(node, number)
        for key in CHILDREN_KEYS:
            inside = node.get(key)
            if isinstance(inside, list | tuple) and any(isinstance(c, dict) for c in inside):
                raise InvalidArgument(
                    f"The node {shown(node.get('node_id'))} has nodes under {key!r}, but the "
                    f"list uses parent_id; give the tree in one of the two ways."
                )
        yield 0, node


def _opened_blobs(blobs: Sequence[bytes | memoryview]) -> tuple[Heading, Iterator[Entry]]:
    if not blobs:
        raise InvalidArgument("A structure on the wire has at least its first blob.")
    try:
        heading = msgspec.msgpack.decode(blobs[0], type=Heading)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgument(f"The structure's first blob is malformed: {error}.") from None
    if heading.wrapper not in ("list", "document", "tree", "node"):
        raise InvalidArgument(f"The structure's wrapper {heading.wrapper!r} is unknown.")
    if heading.wrapper in ("document", "tree") and heading.key not in heading.document:
        raise InvalidArgument(f"The structure's document has no key {heading.key!r}.")
    return heading, _blob_entries(blobs, heading.flat)


def _blob_entries(blobs: Sequence[bytes | memoryview], flat: bool) -> Iterator[Entry]:
    decoder = msgspec.msgpack.Decoder(list[Any])
    deepest = 0
    number = 0
    for blob in blobs[1:]:
        try:
            items = decoder.decode(blob)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidArgument(f"A blob of the structure is malformed: {error}.") from None
        if len(items) % 2:
            raise InvalidArgument("A blob of the structure holds a depth without a node.")
        for depth, node in zip(items[::2], items[1::2], strict=True):
            number += 1
            _check_map(node, number)
            if type(depth) is not int or not 0 <= depth <= (0 if flat else deepest):
                raise InvalidArgument(f"Node number {number} cannot be at depth {depth!r}.")
            deepest = depth + 1
            key = None if flat else children_key(node)
            if key is not None and node[key] not in (None, []):
                raise InvalidArgument(f'"{key}" of node number {number} in a blob is not nil.')
            yield depth, node


def to_blobs(structure: Any) -> Sequence[bytes | memoryview]:
    """A structure for the wire: see the module's description.

    Raises:
        InvalidArgument: it is no document tree, or holds what is not JSON.
    """
    if isinstance(structure, Chunked):
        return structure.blobs
    heading, entries = opened(structure)
    blobs: list[bytes] = []
    parts: list[bytes] = []
    size_bytes = 0
    check_json(heading.document, "The document")
    try:
        blobs.append(encode(heading))
        for depth, node in entries:
            if depth >= DEPTH_MAX:
                raise too_deep()
            key = None if heading.flat else children_key(node)
            if key is not None and node[key]:
                node = {**node, key: None}
            for name, value in node.items():
                # The encoder also takes dates, sets and the like, which are not JSON.
                if type(value) not in SCALARS:
                    check_json(value, f"{name!r}")
            part = encode(depth) + encode(node)
            if parts and (
                size_bytes + len(part) > BLOB_SIZE_BYTES_MAX or len(parts) == BLOB_NODES_MAX
            ):
                blobs.append(_array(parts))
                parts, size_bytes = [], 0
            parts.append(part)
            size_bytes += len(part)
    except (TypeError, OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise not_json(error) from None
    if parts:
        blobs.append(_array(parts))
    return blobs


def _array(parts: list[bytes]) -> bytes:
    # A msgpack array of up to 65,535 items; each part is two of them.
    return b"\xdc" + (2 * len(parts)).to_bytes(2, "big") + b"".join(parts)


def too_deep() -> InvalidArgument:
    """The error for a document with too many levels."""
    return InvalidArgument(f"The document is nested more than {DEPTH_MAX} levels deep.")


Structure = Annotated[
    dict[str, Any] | list[Any] | Chunked,
    Wire(type=list[memoryview], encode=to_blobs, decode=Chunked),
]
"""A document's tree, as the caller has it; on the wire the blobs described above."""
