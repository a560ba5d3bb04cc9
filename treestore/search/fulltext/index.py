"""One index of a namespace's texts: rows go in and out, commits say whose they are.

Invariants:

1. A row never changes: it is added once, with all its texts, and removed once.
2. Each commit's marker names what made its words (`fingerprint`), the database, its timeline and
   the namespace. What does not fit is refused at opening, with the reason, and made again.
3. There is no position in the log: whoever opens an index compares `View.rows` with the rows that
   live, adds and removes the difference. Rows that died may stay as long as anybody may see them.
4. A `View` stays as it is, whatever is written and merged.

Threads: `open` to `close` belong to one owner at a time, the same one for all indexes that share
`Writers`. `view` may be read by anybody, and a `View` is anybody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray
from tantivy import FieldType, Order, Query, SchemaBuilder, Searcher

from treestore.model.namespaces import FullTextSchema
from treestore.search.compiling import KnownWords
from treestore.search.folder import IndexFailed, IndexFolder, add_marker_fields, faults
from treestore.search.fulltext.fields import ROW, TextFields, Texts
from treestore.search.fulltext.writers import Writers
from treestore.search.languages import analysis_version
from treestore.search.statistics import IndexFacts

Rows = NDArray[np.int64]

ROWS_PER_READ: Final = 50_000
"""Numbers of rows that are read at a time: each takes about 150 bytes meanwhile."""

ROWS_PER_DELETION: Final = 1_000


@attrs.frozen
class Identity:
    """Whose index it is."""

    database_uuid: bytes
    timeline: int
    namespace: int


class Marker(msgspec.Struct, array_like=True):
    """What a commit says of itself."""

    fingerprint: str
    analysis: str
    database_uuid: bytes
    timeline: int
    namespace: int
    attributes: list[tuple[str, FullTextSchema]]
    """Of the schema that it is for, so that it can serve while one for another schema is made."""


@attrs.frozen(eq=False)
class View:
    """One commit, as searches see it. Stays as it is; any thread.

    Attributes:
        fields: how its texts became words: a query must be read the same way.
        searcher: of the index.
        number: of the commit since the index was opened.
        facts, words: what was found out about it.
    """

    fields: TextFields
    searcher: Searcher
    number: int
    facts: IndexFacts = attrs.field(factory=IndexFacts)
    words: KnownWords = attrs.field(factory=dict)

    def rows(self) -> Rows:
        """The numbers of all its rows, ascending."""
        with faults("reading the index"):
            parts = [np.array(part, dtype=np.int64) for part in self._rows()]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _rows(self) -> Iterator[list[int]]:
        first = -(1 << 63)
        while True:
            query = Query.range_query(self.fields.schema, ROW, FieldType.Integer, first, None)
            hits = self.searcher.search(
                query, ROWS_PER_READ, count=False, order_by_field=ROW, order=Order.Asc
            ).hits
            part = [row for row, _ in hits]
            if part:
                yield part
            if len(hits) < ROWS_PER_READ:
                return
            first = part[-1] + 1


class FullTextIndex:
    """The index in one folder: what was there is `opened`, a new one `created`.

    Attributes:
        view: of the last commit.
    """

    def __init__(
        self,
        folder: IndexFolder,
        fields: TextFields,
        identity: Identity,
        writers: Writers,
    ) -> None:
        self.fields = fields
        self.view: View | None = None
        self._identity = identity
        self._writers = writers
        self._folder = folder
        self._commits = 0
        self._is_dirty = False

    # -- opening ------------------------------------------------------------------------------

    @classmethod
    def opened(cls, path: Path, identity: Identity, writers: Writers) -> FullTextIndex:
        """The index in a folder, with the analyzers that it was made with.

        Raises:
            IndexFailed: there is none, it is damaged, or it is of somebody else.
        """
        folder = IndexFolder(path, add_marker_fields(SchemaBuilder()).build(), {})
        raw = folder.open()
        if raw is None:
            raise IndexFailed("it has no marker")
        marker = _decoded(raw)
        fields = TextFields(dict(marker.attributes))
        why = _refusal(marker, identity)
        if not why and fields.fingerprint != marker.fingerprint:
            why = "it was made by another version"
        if why:
            folder.close()
            raise IndexFailed(why)
        folder.use(fields.schema, fields.tokenizers)
        index = cls(folder, fields, identity, writers)
        index._show()
        return index

    @classmethod
    def created(
        cls,
        path: Path,
        attributes: Mapping[str, FullTextSchema],
        identity: Identity,
        writers: Writers,
    ) -> FullTextIndex:
        """An empty index, whatever was in the folder.

        Raises:
            IndexFailed: the disk or the library failed.
        """
        fields = TextFields(attributes)
        folder = IndexFolder(path, fields.schema, fields.tokenizers)
        folder.create()
        index = cls(folder, fields, identity, writers)
        index._is_dirty = True
        index.commit()
        return index

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._folder.path

    # -- writing ------------------------------------------------------------------------------

    def add(self, row: int, texts: Texts) -> None:
        """Add a row that is not in the index; it is found after the next commit.

        Raises:
            IndexFailed: the disk or the library failed: open the index anew.
        """
        self._writers.use(self)
        with faults("adding to the index"):
            self._folder.add(self.fields.document(row, texts))
        self._is_dirty = True

    def remove(self, rows: Iterable[int]) -> None:
        """Remove rows that nobody may see any more; unknown ones are no error."""
        gone = [int(row) for row in rows]
        if not gone:
            return
        self._writers.use(self)
        with faults("removing from the index"):
            for first in range(0, len(gone), ROWS_PER_DELETION):
                some = gone[first : first + ROWS_PER_DELETION]
                query = Query.term_set_query(self.fields.schema, ROW, some)
                self._folder.delete_by(query)
        self._is_dirty = True

    @property
    def has_writer(self) -> bool:
        """Whether it has a writer, with its threads and memory."""
        return self._folder.has_writer

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to commit."""
        return self._is_dirty

    def commit(self) -> View:
        """Make what was added and removed durable and visible; the view of it.

        Raises:
            IndexFailed: the disk or the library failed: open the index anew.
        """
        if self._is_dirty:
            self._writers.use(self)
            marker = Marker(
                fingerprint=self.fields.fingerprint,
                analysis=analysis_version(),
                attributes=list(self.fields.attributes.items()),
                **attrs.asdict(self._identity),
            )
            with faults("committing the index"):
                self._folder.commit(msgspec.msgpack.encode(marker))
            self._is_dirty = False
            self._show()
        assert self.view is not None
        return self.view

    def _show(self) -> None:
        self._commits += 1
        with faults("reading the index"):
            self.view = View(self.fields, self._folder.searcher(), self._commits)

    def give_back(self) -> None:
        """See `Writing.give_back`."""
        self._writers.forget(self)
        try:
            if self._is_dirty:
                self.commit()
        finally:
            self._writers.forget(self)
            self._folder.release_writer()

    # -- the end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of everything; what is not committed is forgotten. Views stay usable."""
        self._is_dirty = False
        self._writers.forget(self)
        self._folder.close()

    def delete(self) -> None:
        """Close it, and remove its folder. Views stay usable."""
        self.close()
        self._folder.remove()

    def size_bytes(self) -> int:
        """What it takes on disk."""
        return self._folder.size_bytes()


def _decoded(raw: bytes) -> Marker:
    try:
        return msgspec.msgpack.decode(raw, type=Marker)
    except msgspec.MsgspecError as error:
        raise IndexFailed(f"its marker is malformed: {error}") from error


def _refusal(marker: Marker, identity: Identity) -> str:
    """Why an index with this marker is not to be used; "" where it is."""
    if marker.analysis != analysis_version():
        return "it was made by another version"
    if (marker.database_uuid, marker.timeline) != (identity.database_uuid, identity.timeline):
        return "it is of another database or timeline"
    if marker.namespace != identity.namespace:
        return "it is of another namespace"
    return ""
