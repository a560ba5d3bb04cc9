"""The view of one namespace: its layouts, and how the follower changes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from treestore.engine.log import LogPosition
from treestore.model.namespaces import NamespaceSchema
from treestore.search.vectors.segment import Segment
from treestore.stores.namespaces.filters import ID
from treestore.stores.namespaces.layout import attributes_of, decode_attributes, unpacked_id
from treestore.stores.namespaces.live import layouts
from treestore.stores.namespaces.live.arrays import Rows
from treestore.stores.namespaces.live.changes import Changes
from treestore.stores.namespaces.live.layouts import Layout, Prepared
from treestore.stores.namespaces.live.parts import LIVES, Content, NewRow, Part
from treestore.stores.namespaces.live.texts import Texts
from treestore.stores.namespaces.manifests import SegmentManifest

GROWING_ROW_BYTES = 400
"""What a row that is in no segment takes in memory besides its vector, about."""


class ViewLost(Exception):
    """The view cannot go on: load it again. Until then queries are answered from the tree."""


def types_of(schema: NamespaceSchema) -> dict[str, str]:
    """The columns that are kept of documents, the id's first. Moments and UUIDs are kept as strings
    (`treestore.stores.namespaces.values`), and filters compare them as such."""
    types = {ID: "string"}
    for name, attribute in schema.attributes.items():
        if attribute.filterable:
            kind = attribute.type.replace("datetime", "string").replace("uuid", "string")
            types[name] = kind
    return types


def left_out_of(schema: NamespaceSchema) -> list[str]:
    """Attributes that documents may have, and that no column is kept of."""
    return [name for name, attribute in schema.attributes.items() if not attribute.filterable]


def dim_of(schema: NamespaceSchema) -> int | None:
    """Numbers in a vector; None where there are none."""
    return None if schema.vector is None else schema.vector.dim


def text_names(schema: NamespaceSchema) -> list[str]:
    """Attributes that have full text."""
    return [name for name, one in schema.attributes.items() if one.full_text is not None]


def new_row(row: int, packed_id: bytes, record: bytes, vector: bytes) -> NewRow:
    """A row, from the document's record."""
    document: dict[str, Any] = decode_attributes(attributes_of(record))
    document[ID] = unpacked_id(packed_id)
    return NewRow(row, packed_id, document, vector)


class View:
    """Made by `treestore.stores.namespaces.live.loading.load`; changed by the `Follower` alone.

    Attributes:
        number: of the namespace.
        schema: at `position`.
        position: up to here it has followed.
        layouts: the newest first. Replaced, never changed.
        segments: that the tree has at `position`: number → manifest.
        texts: told of rows that come and go; None: nobody wants to know.
        lost: why it cannot go on; None while it can.
    """

    def __init__(
        self,
        number: int,
        schema: NamespaceSchema,
        position: LogPosition,
        layout: Layout,
        segments: dict[int, SegmentManifest],
    ) -> None:
        self.number = number
        self.schema = schema
        self.position = position
        self.layouts: tuple[Layout, ...] = (layout,)
        self.segments = segments
        self.texts: Texts | None = None
        self.lost: str | None = None
        self._prepared: dict[str, Prepared] = {}

    # -- readers' -------------------------------------------------------------------------------

    def at(self, lsn: int) -> Layout | None:
        """The layout for a state up to which the view has followed; None: it is too old."""
        for layout in self.layouts:
            if lsn >= layout.from_lsn:
                return layout
        return None

    # -- the keeper's ---------------------------------------------------------------------------

    @property
    def newest(self) -> Layout:
        """The layout of the newest states."""
        return self.layouts[0]

    def prepare(self, uuid: str, content: Content) -> None:
        """Get ready to take in a segment's file, before its manifest is entered.

        The view must have followed to the state that the file was made from. Any thread.
        """
        self._prepared[uuid] = Prepared.of(uuid, content, self.newest)

    def unprepare(self, uuid: str) -> None:
        """The manifest will not be entered."""
        self._prepared.pop(uuid, None)

    def missing(self) -> list[tuple[int, SegmentManifest]]:
        """Segments that the tree has, and that are not taken in: this was loaded while they were
        made, and nobody prepared it for them. Their rows are here, without an index."""
        there = {part.uuid for part in self.newest.fixed}
        return [
            (number, manifest)
            for number, manifest in sorted(self.segments.items())
            if manifest.uuid not in there
        ]

    def forget_before(self, lsn: int) -> None:
        """No state before this one will be asked for any more."""
        kept = []
        for layout in self.layouts:
            kept.append(layout)
            if layout.from_lsn <= lsn:
                break
        if len(kept) < len(self.layouts):
            self.layouts = tuple(kept)

    # -- the follower's -------------------------------------------------------------------------

    def apply(self, changes: Changes, lsn: int) -> None:
        """Take in what a group changed.

        Raises:
            ViewLost: the view cannot be kept up.
        """
        if changes.record is not None:
            self._change_schema(changes.schema)
        self._end(changes, lsn)
        self._begin(changes, lsn)
        for number, manifest in changes.segments.items():
            if manifest is None:
                self.segments.pop(number, None)
            else:
                self.segments[number] = manifest
        if changes.segments:
            self.take_in(lsn)

    def _change_schema(self, schema: NamespaceSchema) -> None:
        left_out = left_out_of(self.schema)
        types = types_of(schema)
        if any(name in types for name in left_out):
            # What grew has no column of it.
            raise ViewLost("an attribute became filterable")
        self.schema = schema
        self.newest.growing.add_types(types, dim_of(schema))

    def _end(self, changes: Changes, lsn: int) -> None:
        layout = self.newest
        for row in (*changes.died, *changes.born):
            # A row that is born and known already has a number that was given again.
            found = layout.find(row)
            if found is not None:
                part, ordinal = found
                if part.end(ordinal, lsn) and self.texts is not None and self.texts.followed:
                    self.texts.died(row, lsn)

    def _begin(self, changes: Changes, lsn: int) -> None:
        if not changes.born:
            return
        vectors = changes.vectors
        new = [
            new_row(row, packed_id, record, vectors.get(row, b""))
            for row, (packed_id, record) in changes.born.items()
        ]
        self.newest.growing.append(new, lsn)
        if self.texts is not None and self.texts.followed:
            names = text_names(self.schema)
            self.texts.born(
                [
                    (one.row, one.packed_id, {name: one.document.get(name) for name in names})
                    for one in new
                ],
                lsn,
            )

    def take_in(self, lsn: int) -> None:
        """Take in segments that are prepared and that the tree has."""
        layout = self.newest
        for number, manifest in self.missing():
            prepared = self._prepared.pop(manifest.uuid, None)
            if prepared is not None:
                layout = layouts.taken_in(layout, prepared, number, lsn)
        if layout is not self.newest:
            older = self.layouts if layout.from_lsn > self.newest.from_lsn else self.layouts[1:]
            self.layouts = (layout, *older)

    def freeze(self) -> None:
        """Begin a new growing part, so that a seal can take over all of the old one."""
        self.layouts = (layouts.frozen(self.newest), *self.layouts[1:])

    def live_rows(self) -> Rows:
        """The rows that live at `position`, ascending."""
        parts = self.newest.parts
        rows = [part.content.rows[part.died() == LIVES] for part in parts]
        return np.sort(np.concatenate(rows))

    def id_of(self, row: int) -> bytes:
        """The packed id of a row that lives."""
        found = self.newest.find(row)
        assert found is not None
        return found[0].content.ids[found[1]]

    def sealed_parts(self) -> list[Part]:
        """The newest layout's parts that are segments."""
        return [part for part in self.newest.fixed if part.segment is not None]

    def size_bytes(self) -> int:
        """What it takes, mapped files included; of what grows, about."""
        total = 0
        for part in self.newest.parts:
            vectors = part.content.vectors
            if isinstance(vectors, Segment):
                total += vectors.mapped_bytes + vectors.memory_bytes
            else:
                total += len(part.content) * (GROWING_ROW_BYTES + 4 * (dim_of(self.schema) or 0))
        return total
