"""``get_structure``: the document as it was stored, edits since then included."""

from __future__ import annotations

from typing import Any

import msgspec

from treestore.model.documents import Node
from treestore.stores.access import Read
from treestore.stores.documents.layout import (
    AFTER,
    HEAD,
    TEXT,
    Place,
    bare,
    decode_any,
    decode_node,
    is_whole,
    level_ends,
    source_of,
)
from treestore.stores.documents.policies import no_document, place_to_read
from treestore.stores.documents.shapes import CHILDREN_KEYS, DocumentSource, Shapes, write_node

decode_source = msgspec.msgpack.Decoder(DocumentSource).decode


def read_source(txn: Read, place: Place) -> DocumentSource:
    """What is kept of the document beside its nodes.

    Raises:
        NotFound: there is no such document.
    """
    record = txn.get(place.source)
    if record is None:
        raise no_document(place)
    return decode_source(record)


def get_structure(
    txn: Read,
    policy_id: str,
    *,
    include_text: bool = False,
    version_id: str | None = None,
) -> dict[str, Any] | list[Any]:
    """The document's JSON, in the shape in which it was stored.

    With ``include_text=True`` it equals what was stored: a dict or a bare list, nested or flat,
    the same key names, unknown keys, nulls and empty lists. Edits since then show up in the same
    style; ids that TreeStore assigned do not, as they were not in what was stored.

    Args:
        include_text: False leaves out the nodes' text (the keys too) and reads no long ones.
        version_id: None means the version in effect today (see `get`).

    Raises:
        NotFound: there is no such document.
    """
    place = place_to_read(txn, policy_id, version_id)
    source = read_source(txn, place)
    shapes = Shapes(source.flat, source.shapes)
    if source.flat:
        roots = _flat(txn, place, shapes, source.ordered, include_text)
    else:
        roots = _nested(txn, place, shapes, include_text)
    return _wrap(source, roots)


def _wrap(source: DocumentSource, roots: list[Any]) -> dict[str, Any] | list[Any]:
    if source.wrapper == "list":
        return roots
    one = roots[0] if len(roots) == 1 else None
    if source.wrapper == "node":
        return roots if one is None else one
    document: dict[str, Any] = decode_any(source.document)
    document[source.key] = one if source.wrapper == "tree" and one is not None else roots
    return document


def _written(
    txn: Read, place: Place, shapes: Shapes, include_text: bool
) -> list[tuple[bytes, Node, dict[str, Any], list[Any]]]:
    """Path, node, the node as it was written, and its source, in document order."""
    found: list[tuple[bytes, Node, dict[str, Any], list[Any]]] = []
    at = len(place.nodes)
    record: bytes = b""
    value = txn.value
    for key, cell in txn.cursor(place.nodes, place.nodes + AFTER):
        if key[-1:] == TEXT:
            if not include_text:
                continue
            node = decode_node(record + value(cell))
            path = key[at:-1]
        else:
            assert key[-1:] == HEAD
            record = value(cell)
            path = key[at:-1]
            if not include_text:
                node = decode_node(bare(record))
            elif is_whole(record):
                node = decode_node(record)
            else:
                continue
        source = source_of(record)
        plan = shapes.plans[source[0]]
        overrides = source[1] if len(source) > 1 and source[1] else {}
        out = write_node(node, plan, overrides, shapes.names, shapes.flat)
        if not include_text:
            out.pop("text", None)
        found.append((path, node, out, source))
    return found


def _nested(txn: Read, place: Place, shapes: Shapes, include_text: bool) -> list[Any]:
    roots: list[Any] = []
    lists: list[list[Any]] = [roots]
    for path, node, out, source in _written(txn, place, shapes, include_text):
        level = len(level_ends(path))
        del lists[level:]
        lists[level - 1].append(out)
        key = shapes.plans[source[0]].children
        if key is None and node.child_ids:
            key = shapes.names.get("children", CHILDREN_KEYS[0])
        if node.child_ids:
            assert key is not None
            children: list[Any] = []
            out[key] = children
            lists.append(children)
    return roots


def _flat(txn: Read, place: Place, shapes: Shapes, ordered: bool, include_text: bool) -> list[Any]:
    written = _written(txn, place, shapes, include_text)
    if ordered:
        return [out for _, _, out, _ in written]
    # Inserts and moves set `ordered`, so that here every node has its position.
    written.sort(key=lambda item: item[3][2])
    return [out for _, _, out, _ in written]
