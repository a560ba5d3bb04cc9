"""Reads of documents and nodes. They join stored bytes and decode nothing."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from treestore.errors import InvalidArgument, NotFound
from treestore.model.documents import Document, Node
from treestore.model.page import Page
from treestore.stores.access import Cursor, Read
from treestore.stores.documents.layout import (
    AFTER,
    FIRST_CHILD,
    HEAD,
    ORDINAL_SIZE_MIN,
    TEXT,
    Place,
    bare,
    is_whole,
    level_ends,
    packed_node_id,
)
from treestore.stores.documents.pages import parse_pages, paths_on_pages
from treestore.stores.documents.policies import no_document, place_to_read
from treestore.stores.json_values import shown
from treestore.stores.keys import Keyspace, pack_str, successor

LIST_LIMIT_MAX = 10_000
"""Items of one page of a listing, at most."""


# --- finding ---------------------------------------------------------------------------------


def check_document(txn: Read, place: Place) -> None:
    """Raise `NotFound` unless the document is stored."""
    if txn.get(place.document) is None:
        raise no_document(place)


def no_nodes(txn: Read, place: Place, node_ids: Sequence[str]) -> NotFound:
    """The error for ids that lead nowhere: it says whether there is a document at all."""
    if txn.get(place.document) is None:
        return no_document(place)
    names = ", ".join(shown(node_id) for node_id in node_ids[:5])
    more = f" and {len(node_ids) - 5} more" if len(node_ids) > 5 else ""
    what = "There is no node" if len(node_ids) == 1 else "There are no nodes"
    return NotFound(f"{what} {names}{more} in {place}.", ids=list(node_ids))


def path_of(txn: Read, place: Place, node_id: str) -> bytes:
    """Where a node is.

    Raises:
        NotFound: there is no such node, or no such document.
    """
    path = txn.get(place.ids + packed_node_id(node_id))
    if path is None:
        raise no_nodes(txn, place, [node_id])
    return path


def whole(txn: Read, place: Place, path: bytes) -> bytes:
    """The node at ``path`` as msgpack, text included."""
    key = place.nodes + path
    record = txn.get(key + HEAD)
    assert record is not None
    if is_whole(record):
        return record
    text = txn.get(key + TEXT)
    assert text is not None
    return record + text


def stored_node(txn: Read, place: Place, path: bytes, include_text: bool) -> bytes:
    """The node at ``path`` as msgpack."""
    if include_text:
        return whole(txn, place, path)
    record = txn.get(place.nodes + path + HEAD)
    assert record is not None
    return bare(record)


def loaded_nodes(txn: Read, pieces: list[bytes], count: int) -> list[Node]:
    """Nodes, given as msgpack in any number of pieces, as a list for an answer.

    All in one piece of msgpack: one object instead of one a node on the way to the wire, and one
    call of the decoder where nodes are wanted.
    """
    return txn.load(list[Node], b"".join((array_head(count), *pieces)))


def array_head(count: int) -> bytes:
    """What stands in front of ``count`` items that are a msgpack array together."""
    return b"\xdd" + count.to_bytes(4, "big")


# --- documents -------------------------------------------------------------------------------


def get(txn: Read, policy_id: str, version_id: str | None = None) -> Document:
    """One version's document.

    Args:
        version_id: None means the version in effect today (UTC), or the last stored one where no
            version of the policy is dated.

    Raises:
        NotFound: there is no such document, or no version is in effect.
    """
    place = place_to_read(txn, policy_id, version_id)
    record = txn.get(place.document)
    if record is None:
        raise no_document(place)
    return txn.load(Document, record)


def list_documents(
    txn: Read, *, prefix: str = "", limit: int = 100, cursor: str | None = None
) -> Page[Document]:
    """Documents by policy_id, then version_id (in the order of their UTF-8 bytes).

    Args:
        prefix: only policies whose id begins with it.
        limit: at most this many, 1 to 10,000.
        cursor: ``next_cursor`` of the page before; stays good while documents come and go.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIST_LIMIT_MAX:
        raise InvalidArgument(f"limit is a number from 1 to {LIST_LIMIT_MAX}, not {limit!r}.")
    if not isinstance(prefix, str):
        raise InvalidArgument(f"prefix is a string, not {type(prefix).__name__}.")
    try:
        first = Keyspace.DOCUMENTS + pack_str(prefix)[:-1]
    except UnicodeEncodeError:
        raise InvalidArgument("prefix holds half of a surrogate pair.") from None
    start, end = first, successor(first)
    if cursor is not None:
        start = _from_cursor(cursor) + b"\0"
        if not first < start or (end is not None and start > end):
            raise InvalidArgument("The cursor belongs to a listing with another prefix.")
    items: list[Document] = []
    last = b""
    for key, record in txn.scan(start, end):
        if len(items) == limit:
            return Page(items, base64.urlsafe_b64encode(last[1:]).decode())
        items.append(txn.load(Document, record))
        last = key
    return Page(items, None)


def _from_cursor(cursor: str) -> bytes:
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (AttributeError, UnicodeEncodeError, binascii.Error):
        raw = b""
    if not raw:
        raise InvalidArgument("The cursor is none that a listing gave; start without one.")
    return Keyspace.DOCUMENTS + raw


# --- nodes -----------------------------------------------------------------------------------


def get_node(
    txn: Read,
    policy_id: str,
    node_id: str,
    *,
    version_id: str | None = None,
    include_text: bool = True,
) -> Node:
    """One node.

    Args:
        version_id: None means the version in effect today (see `get`).
        include_text: False leaves ``text`` empty, which is quicker where texts are long.

    Raises:
        NotFound: there is no such node or document.
    """
    place = place_to_read(txn, policy_id, version_id)
    path = path_of(txn, place, node_id)
    return txn.load(Node, stored_node(txn, place, path, include_text))


def get_nodes(
    txn: Read,
    policy_id: str,
    node_ids: Sequence[str],
    *,
    version_id: str | None = None,
    include_text: bool = True,
) -> list[Node]:
    """Several nodes, in the order asked; an id asked twice is answered twice.

    Raises:
        NotFound: some do not exist; ``details["ids"]`` names them all.
    """
    if isinstance(node_ids, str) or not isinstance(node_ids, Iterable):
        raise InvalidArgument("node_ids is a list of ids; for one node there is get_node.")
    place = place_to_read(txn, policy_id, version_id)
    paths: list[bytes] = []
    unknown: list[str] = []
    for node_id in node_ids:
        path = txn.get(place.ids + packed_node_id(node_id))
        if path is None:
            unknown.append(node_id)
        else:
            paths.append(path)
    if unknown:
        raise no_nodes(txn, place, unknown)
    if not paths:
        check_document(txn, place)
    return loaded_nodes(
        txn, [stored_node(txn, place, path, include_text) for path in paths], len(paths)
    )


def get_children(
    txn: Read,
    policy_id: str,
    parent_id: str | None = None,
    *,
    version_id: str | None = None,
    include_text: bool = True,
) -> list[Node]:
    """The children of a node, in document order; the roots for None.

    Raises:
        NotFound: there is no such node or document.
    """
    place = place_to_read(txn, policy_id, version_id)
    above = b""
    if parent_id is None:
        check_document(txn, place)
    else:
        above = path_of(txn, place, parent_id)
    return loaded_nodes(txn, *outline(txn, place, above, 1, include_text, skip_start=True))


def get_subtree(
    txn: Read,
    policy_id: str,
    node_id: str | None = None,
    *,
    max_depth: int | None = None,
    include_text: bool = True,
    version_id: str | None = None,
) -> list[Node]:
    """A node and everything below it, in document order.

    Args:
        node_id: where to start; None gives the whole forest.
        max_depth: levels below the start: 0 is the start alone (with None: the roots alone).
        include_text: False leaves every ``text`` empty and does not read long ones.

    Raises:
        NotFound: there is no such node or document.
    """
    if max_depth is not None and (
        isinstance(max_depth, bool) or not isinstance(max_depth, int) or max_depth < 0
    ):
        raise InvalidArgument(f"max_depth is a number of levels, 0 or more, not {max_depth!r}.")
    place = place_to_read(txn, policy_id, version_id)
    start = b""
    if node_id is None:
        check_document(txn, place)
    else:
        start = path_of(txn, place, node_id)
    if max_depth is None:
        return loaded_nodes(txn, *outline(txn, place, start, None, include_text))
    # In the forest the level below the (missing) start is the roots'.
    levels = max_depth + 1 if node_id is None else max_depth
    return loaded_nodes(txn, *outline(txn, place, start, levels, include_text))


def outline(
    txn: Read,
    place: Place,
    start: bytes,
    levels: int | None,
    include_text: bool,
    *,
    skip_start: bool = False,
) -> tuple[list[bytes], int]:
    """Nodes down to ``levels`` below ``start`` as msgpack, in any number of pieces, and how many
    they are; what lies deeper, or is not asked, is skipped.

    Joins the tree's values as they are, a leaf at a time. Keys are looked at one by one only
    where one is long enough to lie too deep.
    """
    pieces: list[bytes] = []
    count = 0
    first = place.nodes + start
    base = len(first)
    # A key of at most this size has no more levels than are wanted.
    size_max = _ANY_SIZE if levels is None else base + ORDINAL_SIZE_MIN * levels + 1
    start = first + FIRST_CHILD if skip_start else first
    cursor = txn.cursor(start, first + AFTER, joined=levels is None)
    value = txn.value
    while True:
        keys, cells = cursor.batch()
        if not keys:
            return pieces, count
        if len(keys[-1]) > size_max or max(map(len, keys)) > size_max:
            assert levels is not None
            for at in _down_to(levels, keys, base, cursor):
                is_head = not keys[at][-1]
                count += is_head
                if include_text:
                    pieces.append(value(cells[at]))
                elif is_head:
                    pieces.append(bare(value(cells[at])))
            continue
        kinds = [key[-1] for key in keys]
        count += kinds.count(0)
        if include_text:
            pieces += [cell if cell.__class__ is bytes else value(cell) for cell in cells]
        else:
            heads = [cell for cell, kind in zip(cells, kinds, strict=True) if not kind]
            pieces += [bare(value(cell)) for cell in heads]


_ANY_SIZE = 1 << 30


def _down_to(levels: int, keys: list[bytes], base: int, cursor: Cursor) -> list[int]:
    """Which keys of a batch have no more than ``levels``; ``cursor`` skips what has."""
    wanted: list[int] = []
    size_max = base + ORDINAL_SIZE_MIN * levels + 1
    # The size of the last longer key that is wanted, and what its siblings begin with: to count
    # the levels of each would take longer than all else that is done for it.
    size, parent = 0, b""
    at, count = 0, len(keys)
    while at < count:
        key = keys[at]
        if len(key) > size_max and not (len(key) == size and key.startswith(parent)):
            above = end = base
            last = len(key) - 1
            for _ in range(levels):
                if end == last:
                    break
                above = end
                begin = key[end]
                end += 2 if begin < 0x80 else 3 if begin < 0xE0 else 5  # as `level_ends`
            if end < last:
                after = key[:end] + AFTER
                if after > keys[-1]:
                    cursor.seek(after)
                    break
                at = bisect_left(keys, after, at)
                continue
            # What follows under this parent and is as long is of this level: two ordinals that
            # are together as long as one of 5 bytes sort before it.
            size, parent = len(key), key[:above]
        wanted.append(at)
        at += 1
    return wanted


def get_ancestor_path(
    txn: Read,
    policy_id: str,
    node_id: str,
    *,
    version_id: str | None = None,
    include_text: bool = True,
) -> list[Node]:
    """The way to a node: its root first, the node itself last.

    Raises:
        NotFound: there is no such node or document.
    """
    place = place_to_read(txn, policy_id, version_id)
    path = path_of(txn, place, node_id)
    nodes = [stored_node(txn, place, path[:end], include_text) for end in level_ends(path)]
    return loaded_nodes(txn, nodes, len(nodes))


def get_nodes_by_page(
    txn: Read,
    policy_id: str,
    pages: int | str,
    *,
    version_id: str | None = None,
    include_text: bool = True,
) -> list[Node]:
    """Every node whose own page range touches the given pages, in document order.

    A parent is found by its own range, not by its children's. A node whose range runs backwards
    touches no page; one with only a first or only a last page touches that page.

    Args:
        pages: a page, or a set such as ``"1-3,7"``.

    Raises:
        InvalidArgument: ``pages`` is malformed.
        NotFound: there is no such document.
    """
    ranges = parse_pages(pages)
    place = place_to_read(txn, policy_id, version_id)
    paths = paths_on_pages(txn, place, ranges)
    if not paths:
        check_document(txn, place)
    return loaded_nodes(
        txn, [stored_node(txn, place, path, include_text) for path in paths], len(paths)
    )
