"""Making segments: of the tail (a seal), and of other segments (a merge).

Each is done in three steps, of which only the second is a command of the writer:

1. On a worker thread, from a pinned state: `seal` or `merge` writes the file, opens it, and has the
   view prepare it.
2. The command that enters its manifest: `Made.seal` or `Made.merge`.
3. Where that returned None, or failed: `Maker.give_up` removes the file. Otherwise the view takes
   the segment in by itself when it follows to that command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import attrs
import numpy as np

from treestore.engine.log import LogPosition
from treestore.errors import CorruptionError
from treestore.search.columns.growing import GrowingColumns
from treestore.search.columns.sealed import AttributeLeftOut
from treestore.search.columns.sealing import seal as seal_columns
from treestore.search.vectors.segment_file import list_segment_files, remove_segment_file
from treestore.stores.access import Read, Write
from treestore.stores.namespaces import segments
from treestore.stores.namespaces.catalog import Opened
from treestore.stores.namespaces.layout import row_of
from treestore.stores.namespaces.live.arrays import Rows
from treestore.stores.namespaces.live.files import SUFFIX, SegmentFolder, Source
from treestore.stores.namespaces.live.pieces import StateTooOld
from treestore.stores.namespaces.live.view import View, left_out_of, new_row, types_of
from treestore.stores.namespaces.live.views import Views
from treestore.stores.namespaces.manifests import SegmentManifest

Pause = Callable[[], None]


def _no_pause() -> None:
    pass


@attrs.frozen(eq=False)
class Made:
    """A file that is written and prepared, and waits for its manifest to be entered.

    Attributes:
        number: of the namespace.
        manifest: of the file; None where a merge left no rows, so that there is no file.
        rows: in it.
        old: segments whose place it takes; empty: it is a seal.
    """

    number: int
    manifest: SegmentManifest | None
    rows: Rows
    old: tuple[int, ...] = ()

    def enter(self, txn: Write) -> int | None:
        """The command. See `treestore.stores.namespaces.segments.seal` and `replace_segments`."""
        if self.old:
            return segments.replace_segments(txn, self.number, self.old, self.manifest, self.rows)
        assert self.manifest is not None
        return segments.seal(txn, self.number, self.manifest, self.rows)


class Maker:
    """Makes the segments of one store. One thread at a time for each namespace.

    Args:
        views: of the store.
        folder: of the segments.
        new_name: gives 32 hexadecimal digits that were never given.
    """

    def __init__(self, views: Views, folder: SegmentFolder, new_name: Callable[[], str]) -> None:
        self._views = views
        self._folder = folder
        self._new_name = new_name

    def seal(
        self,
        txn: Read,
        position: LogPosition,
        there: Opened,
        *,
        rows_max: int | None = None,
        pause: Pause = _no_pause,
    ) -> Made | None:
        """Make a segment of a namespace's tail; None where that is empty.

        Args:
            txn: a pinned state.
            position: of it.
            there: the namespace in it.
            rows_max: at most so many rows, the first ones.
            pause: called between steps; what it raises ends it, and nothing stays.

        Raises:
            UseTree: there is no view; see `Views.view`.
            StateTooOld: there is one, and it was loaded from a later state: try again with such.
            OSError: the file cannot be written.
        """
        view = self._views.view(txn, position, there, pause)
        rows = segments.tail_rows(txn, there.number)[:rows_max]
        if not len(rows):
            return None
        with self._views.follower.halted():
            view.freeze()
        return self._make(txn, view, position, there, rows, (), pause)

    def merge(
        self,
        txn: Read,
        position: LogPosition,
        there: Opened,
        old: Sequence[int],
        *,
        pause: Pause = _no_pause,
    ) -> Made:
        """Make one segment of several, without their dead rows. See `seal`."""
        view = self._views.view(txn, position, there, pause)
        rows = np.concatenate([segments.segment_rows(txn, there.number, one) for one in old])
        rows = np.setdiff1d(rows, segments.dead_rows(txn, there.number), assume_unique=True)
        if not len(rows):
            return Made(there.number, None, rows, tuple(old))
        return self._make(txn, view, position, there, rows, tuple(old), pause)

    def _make(
        self,
        txn: Read,
        view: View,
        position: LogPosition,
        there: Opened,
        rows: Rows,
        old: tuple[int, ...],
        pause: Pause,
    ) -> Made:
        layout = view.at(position.lsn)
        if layout is None:
            raise StateTooOld
        source = Source.of_rows([part.content for part in layout.parts], rows)
        name = self._new_name()
        columns = _columns(txn, there, source)
        manifest = self._folder.write(source, there.schema, columns, name=name, pause=pause)
        made = Made(there.number, manifest, source.rows, old)
        try:
            view.prepare(name, self._folder.open(manifest, pause))
        except BaseException:
            self.give_up(made)
            raise
        return made

    def give_up(self, made: Made) -> None:
        """The manifest was not entered, and will not be."""
        if made.manifest is not None:
            view = self._views.follower.view(made.number)
            if view is not None:
                view.unprepare(made.manifest.uuid)
            remove_segment_file(self._folder.file(made.manifest.uuid))

    def remove_orphans(self, named: Iterable[str]) -> int:
        """Remove files that no manifest names.

        Args:
            named: the uuids in all manifests that any state has that may still be asked for.

        Returns:
            How many there were.
        """
        kept = {f"{name}{SUFFIX}" for name in named}
        orphans = [path for path in list_segment_files(self._folder.path) if path.name not in kept]
        for path in orphans:
            remove_segment_file(path)
        return len(orphans)


def _columns(txn: Read, there: Opened, source: Source) -> dict[str, bytes]:
    """The sections of columns."""
    try:
        return source.columns(there.schema)
    except AttributeLeftOut:
        # It was not filterable when some of the rows were sealed: the tree still has it.
        columns = GrowingColumns(types_of(there.schema))
        prefix = there.space.documents
        ids = source.ids()
        for at, row in enumerate(source.rows.tolist()):
            packed = ids[at]
            record = txn.get(prefix + packed)
            if record is None or row_of(record) != row:
                raise CorruptionError(
                    f"Row {row} of namespace {there.number} lives in a segment, and no document "
                    "has it."
                ) from None
            columns.append(new_row(row, packed, record, b"").document)
        types, left_out = types_of(there.schema), left_out_of(there.schema)
        return seal_columns([(columns.prefix(), None)], types, left_out=left_out)
