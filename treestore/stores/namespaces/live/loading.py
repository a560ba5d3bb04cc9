"""Loading a view: from one state, its segments' files and its tail."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import numpy as np

from treestore.engine.log import LogPosition
from treestore.errors import CorruptionError
from treestore.search.columns.blobs import ColumnsDamaged
from treestore.search.vectors.segment_file import SegmentDamaged
from treestore.stores.access import Read
from treestore.stores.namespaces import segments
from treestore.stores.namespaces.catalog import Opened
from treestore.stores.namespaces.layout import packed_row, row_of
from treestore.stores.namespaces.live.arrays import Rows
from treestore.stores.namespaces.live.layouts import Layout
from treestore.stores.namespaces.live.parts import (
    LIVES,
    NEVER,
    Content,
    Finder,
    GrowingPart,
    NewRow,
    Part,
)
from treestore.stores.namespaces.live.view import View, dim_of, new_row, types_of
from treestore.stores.namespaces.manifests import SegmentManifest, manifests

OpenSegment = Callable[[SegmentManifest], Content]
"""The content of a segment's file, verified.

Raises:
    SegmentDamaged, ColumnsDamaged: it cannot be used.
    OSError: it cannot be read now.
"""

AT_ONCE = 1024
"""Rows of the tail that are taken in at a time."""

DAMAGES = (SegmentDamaged, ColumnsDamaged)


@attrs.frozen
class DamagedSegment:
    """A segment without a good file.

    Attributes:
        number: of the segment.
        manifest: of it.
        why: for people.
    """

    number: int
    manifest: SegmentManifest
    why: str


class SegmentsDamaged(Exception):
    """A view cannot be loaded before these segments are made again, or given up
    (`treestore.stores.namespaces.segments.forget_segment`)."""

    def __init__(self, number: int, damaged: list[DamagedSegment]) -> None:
        super().__init__("; ".join(one.why for one in damaged))
        self.number = number
        self.damaged = damaged


def load(
    txn: Read,
    position: LogPosition,
    there: Opened,
    open_segment: OpenSegment,
    pause: Callable[[], None] = lambda: None,
) -> View:
    """The view of a namespace from a state.

    Args:
        txn: the state.
        position: of the state in the log.
        there: the namespace in that state.
        open_segment: opens a segment's file.
        pause: called between steps of some milliseconds.

    Raises:
        SegmentsDamaged: some segments' files are missing or damaged.
        CorruptionError: the tree contradicts itself.
        OSError: a file cannot be opened now.
    """
    number = there.number
    lsn = position.lsn
    found = manifests(txn, number)
    dead = segments.dead_rows(txn, number)
    parts: list[Part] = []
    damaged: list[DamagedSegment] = []
    for segment, manifest in found:
        try:
            content = _opened(open_segment, manifest)
        except DAMAGES as error:
            damaged.append(DamagedSegment(segment, manifest, str(error)))
            continue
        parts.append(_sealed(content, segment, manifest.uuid, dead, lsn))
        pause()
    if damaged:
        raise SegmentsDamaged(number, damaged)
    growing = GrowingPart(types_of(there.schema), dim_of(there.schema))
    for new in _tail(txn, there):
        # The state that it is loaded from is the first one that it answers for.
        growing.append(new, lsn)
        pause()
    layout = Layout(lsn, tuple(parts), growing)
    return View(number, there.schema, position, layout, dict(found))


def _opened(open_segment: OpenSegment, manifest: SegmentManifest) -> Content:
    content = open_segment(manifest)
    if len(content) != manifest.rows:
        raise ColumnsDamaged(
            f"segment {manifest.uuid} has {len(content)} rows, and its manifest says "
            f"{manifest.rows}"
        )
    return content


def _sealed(content: Content, segment: int, uuid: str, dead: Rows, lsn: int) -> Part:
    finder = Finder(content.rows)
    gone = finder.find_all(dead)
    gone = gone[gone >= 0]
    died: Rows | None = None
    if len(gone):
        died = np.full(len(content), LIVES, np.int64)
        died[gone] = NEVER
    return Part(content, finder, died=died, segment=segment, uuid=uuid, changed_lsn=lsn)


def _tail(txn: Read, there: Opened) -> Iterator[list[NewRow]]:
    space = there.space
    some: list[NewRow] = []
    for row, packed_id in segments.tail(txn, there.number):
        record = txn.get(space.documents + packed_id)
        vector = txn.get(space.vectors + packed_row(row))
        if record is None or vector is None or row_of(record) != row:
            raise CorruptionError(
                f"Row {row} of namespace {there.number} is in its tail, and no document has it."
            )
        some.append(new_row(row, packed_id, record, vector))
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some
