"""A document being edited: what every edit has to keep in step.

An edit changes one family (a parent's children) at a time and keeps, in the same transaction, the
parent's ``child_ids`` (``root_ids`` for the roots), the paths, both indexes, depths and the
positional ``section_path`` of what follows. `check.check_documents` verifies all of it.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from treestore.errors import InvalidArgument
from treestore.model.documents import Node
from treestore.stores.access import Write
from treestore.stores.documents.layout import (
    AFTER,
    DEPTH_MAX,
    HEAD,
    PATH_SIZE_BYTES_MAX,
    TEXT,
    Place,
    bare,
    decode_node,
    decode_ordinal,
    encode_ordinal,
    level_ends,
    packed_node_id,
    source_of,
    spread,
    with_fields,
    with_source,
)
from treestore.stores.documents.pages import page_item
from treestore.stores.documents.policies import read_document
from treestore.stores.documents.reading import path_of
from treestore.stores.documents.shapes import (
    DERIVED,
    Shapes,
    section_given,
    without_overrides,
)
from treestore.stores.documents.source import too_deep
from treestore.stores.documents.structure import read_source
from treestore.stores.json_values import encode

Item = tuple[bytes, bytes]


class _Section(msgspec.Struct):
    """The one field of a node that `Editor.renumber` looks at."""

    section_path: str


_decode_section = msgspec.msgpack.Decoder(_Section).decode


class Editor:
    """One edit of one document. ``finish`` writes what is kept of the document itself.

    Raises:
        NotFound: there is no such document.
    """

    def __init__(self, txn: Write, place: Place) -> None:
        self.txn = txn
        self.place = place
        self.document = read_document(txn, place)
        self.root_ids = list(self.document.root_ids)
        self.source = read_source(txn, place)
        self.shapes = Shapes(self.source.flat, self.source.shapes)
        self.nodes_added = 0

    def finish(self) -> None:
        """Write the document's own records."""
        document = attrs.evolve(
            self.document,
            root_ids=tuple(self.root_ids),
            node_count=self.document.node_count + self.nodes_added,
            updated_at=self.txn.now,
        )
        self.txn.put(self.place.document, encode(document))
        self.source.shapes = self.shapes.table()
        self.txn.put(self.place.source, encode(self.source))

    # --- nodes -------------------------------------------------------------------------------

    def exists(self, node_id: str) -> bool:
        """Whether the document has a node of this id."""
        return self.txn.get(self.place.ids + packed_node_id(node_id)) is not None

    def record(self, path: bytes) -> bytes:
        """The record of the node at ``path``."""
        record = self.txn.get(self.place.nodes + path + HEAD)
        assert record is not None
        return record

    def put_record(self, path: bytes, record: bytes) -> None:
        """Set the record of the node at ``path``."""
        self.txn.put(self.place.nodes + path + HEAD, record)

    def node(self, path: bytes) -> Node:
        """The node at ``path``, without its text."""
        return decode_node(bare(self.record(path)))

    # --- families ----------------------------------------------------------------------------

    def children(self, parent: bytes) -> list[str]:
        """The ids of the children of the node at ``parent`` (of the roots, where empty)."""
        return list(self.node(parent).child_ids) if parent else list(self.root_ids)

    def set_children(self, parent: bytes, ids: list[str]) -> None:
        """Write the list that `children` reads."""
        if not parent:
            self.root_ids = ids
            return
        record = with_fields(self.record(parent), child_ids=ids)
        self.put_record(parent, self._without(record, {"child_ids"}))

    def section(self, path: bytes) -> str:
        """The position of the node at ``path``, such as "1.2.3"."""
        parts: list[str] = []
        parent = b""
        for end in level_ends(path):
            siblings = self.children(parent)
            parent = path[:end]
            parts.append(str(siblings.index(self.node(parent).node_id) + 1))
        return ".".join(parts)

    def make_room(self, parent: bytes, index: int | None, count: int) -> tuple[int, list[bytes]]:
        """The index and the paths for ``count`` new children of ``parent``.

        Siblings in the way are moved aside. The caller adds the children's ids to the family.

        Raises:
            InvalidArgument: the index lies beyond the end.
        """
        siblings = self.children(parent)
        if index is None:
            index = len(siblings)
        if index > len(siblings):
            raise InvalidArgument(
                f"The index {index} lies beyond the end: there are {len(siblings)} siblings."
            )
        at = len(parent)
        if index == len(siblings):
            # Only the last one matters.
            last = siblings[-1:]
            ordinals = [self._ordinal(node_id, at) for node_id in last]
            _, _, new = spread(ordinals, len(ordinals), count)
            return index, [parent + encode_ordinal(ordinal) for ordinal in new]
        ordinals = [self._ordinal(node_id, at) for node_id in siblings]
        low, high, new = spread(ordinals, index, count)
        ours = new[index - low : index - low + count]
        others = new[: index - low] + new[index - low + count :]
        moves = [
            (parent + encode_ordinal(old), parent + encode_ordinal(ordinal))
            for old, ordinal in zip(ordinals[low:high], others, strict=True)
        ]
        taken = [(old, goal, self.take(old)) for old, goal in moves]
        for old, goal, items in taken:
            self.graft(items, old, goal)
        return index, [parent + encode_ordinal(ordinal) for ordinal in ours]

    def _ordinal(self, node_id: str, at: int) -> int:
        return decode_ordinal(path_of(self.txn, self.place, node_id)[at:])

    # --- subtrees ----------------------------------------------------------------------------

    def take(self, path: bytes) -> list[Item]:
        """Remove a subtree with its index entries; gives its records and texts."""
        first = self.place.nodes + path
        items = list(self.txn.scan(first, first + AFTER))
        self.txn.delete_range(first, first + AFTER)
        at = len(self.place.nodes)
        for key, record in items:
            if key[-1:] == HEAD:
                node = decode_node(bare(record))
                self.txn.delete(self.place.ids + packed_node_id(node.node_id))
                entry = page_item(self.place, key[at:-1], node.page_start, node.page_end)
                if entry is not None:
                    self.txn.delete(entry[0])
        return items

    def graft(
        self, items: list[Item], old: bytes, new: bytes, *, deeper: int = 0, **top: Any
    ) -> None:
        """Put back what `take` gave for ``old``, at ``new``.

        Args:
            deeper: levels that it moves down.
            top: fields of the topmost node that change.
        """
        at = len(self.place.nodes)
        moved: list[Item] = []
        for key, record in items:
            path = new + key[at + len(old) : -1]
            if len(path) > PATH_SIZE_BYTES_MAX:
                raise too_deep()
            if key[-1:] == TEXT:
                moved.append((self.place.nodes + path + TEXT, record))
                continue
            node = decode_node(bare(record))
            fields: dict[str, Any] = dict(top) if path == new else {}
            if deeper:
                fields["depth"] = node.depth + deeper
                if fields["depth"] >= DEPTH_MAX:
                    raise too_deep()
            if fields:
                record = self._without(with_fields(record, **fields), DERIVED | {"parent_id"})
            moved.append((self.place.nodes + path + HEAD, record))
            self.txn.put(self.place.ids + packed_node_id(node.node_id), path)
            entry = page_item(self.place, path, node.page_start, node.page_end)
            if entry is not None:
                self.txn.put(*entry)
        self.txn.put_sorted(iter(moved))

    def renumber(self, parent: bytes, start: int) -> None:
        """Bring the positional section paths of ``parent``'s children up to date.

        From the child number ``start`` (0 the first) on, everything below included. Section paths
        that were given stay as they are.
        """
        siblings = self.children(parent)
        if start >= len(siblings):
            return
        prefix = f"{self.section(parent)}." if parent else ""
        first = self.place.nodes + path_of(self.txn, self.place, siblings[start])
        at = len(self.place.nodes) + len(parent)
        counts = [start]
        changed: list[Item] = []
        value = self.txn.value
        for key, cell in self.txn.cursor(first, self.place.nodes + parent + AFTER):
            if key[-1:] == TEXT:
                continue
            level = len(level_ends(key[:-1], at)) - 1
            if level == len(counts):
                counts.append(0)
            counts[level] += 1
            del counts[level + 1 :]
            section = prefix + ".".join(map(str, counts))
            record = value(cell)
            if _decode_section(bare(record)).section_path == section:
                continue
            source = source_of(record)
            if not section_given(self.shapes.plans[source[0]], source):
                changed.append((key, with_fields(record, section_path=section)))
        for key, record in changed:
            self.txn.put(key, record)

    def _without(self, record: bytes, keys: frozenset[str] | set[str]) -> bytes:
        source = source_of(record)
        left = without_overrides(source, keys)
        return record if left is source else with_source(record, encode(left))
