"""Segments' files: opened as the content of a part, and written from parts.

A file has what `treestore.search.vectors.segment` puts into it, with the packed ids of documents as
its ids, and the sections of sealed columns (`treestore.search.columns.sealing`) beside.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, overload

import attrs
import numpy as np

from treestore.model.namespaces import NamespaceSchema
from treestore.search.columns.sealed import SECTION, SealedColumns
from treestore.search.columns.sealing import seal
from treestore.search.vectors.building import INDEXED_ROWS_MIN
from treestore.search.vectors.library import Floats
from treestore.search.vectors.segment import Segment, SegmentContent, write_segment
from treestore.search.vectors.segment_file import make_folder
from treestore.stores.namespaces.live.arrays import Rows
from treestore.stores.namespaces.live.parts import Content, Finder
from treestore.stores.namespaces.live.view import dim_of, left_out_of, types_of
from treestore.stores.namespaces.manifests import SegmentManifest

SUFFIX: Final = ".segment"

RUNS_MAX: Final = 64
"""In more runs than this, rows of several parts are first put one behind the other, and then in
order."""

VECTORS_AT_ONCE: Final = 4096

Pause = Callable[[], None]


def _no_pause() -> None:
    pass


@attrs.frozen
class SegmentFolder:
    """Where the segments of one database are.

    Attributes:
        path: of the folder.
        database: its uuid, which is in every file.
        indexed_rows_min: segments with fewer vectors have no index.
    """

    path: Path
    database: uuid.UUID
    indexed_rows_min: int = INDEXED_ROWS_MIN

    def file(self, name: str) -> Path:
        """The file of a segment, by the uuid in its manifest."""
        return self.path / f"{name}{SUFFIX}"

    def open(self, manifest: SegmentManifest, pause: Pause = _no_pause) -> Content:
        """The content of a segment's file, every byte of which is verified.

        Raises:
            SegmentDamaged, ColumnsDamaged: it cannot be used.
            OSError: it cannot be read now.
        """
        segment = Segment.open(
            self.file(manifest.uuid),
            database=self.database,
            segment=uuid.UUID(manifest.uuid),
            checksum=manifest.checksum,
            pause=pause,
        )
        return content_of(segment)

    def write(
        self,
        source: Source,
        schema: NamespaceSchema,
        columns: dict[str, bytes],
        *,
        name: str,
        pause: Pause = _no_pause,
    ) -> SegmentManifest:
        """Write a file; what it is called, and is known by.

        Args:
            source: the rows.
            schema: of the namespace.
            columns: the sections of the rows' columns.
            name: 32 hexadecimal digits: a new uuid.
            pause: called between steps; what it raises ends the writing, and nothing stays.

        Raises:
            OSError: the file cannot be written.
        """
        make_folder(self.path)
        dim = dim_of(schema)
        content = SegmentContent(
            rows=source.rows,
            ids=source.ids(),
            dim=dim or 0,
            metric="cosine" if schema.vector is None else schema.vector.metric,
            vectors=source.vectors(),
            positions=source.positions() if dim else None,
            sections=columns,
        )
        key = uuid.UUID(name)
        written = write_segment(
            self.file(name),
            content,
            database=self.database,
            segment=key,
            seed=key.int % (1 << 32),
            pause=pause,
            indexed_rows_min=self.indexed_rows_min,
        )
        return SegmentManifest(
            uuid=name,
            rows=written.rows,
            size_bytes=written.size,
            checksum=written.checksum,
            info={"vectors": written.vectors, "indexed": written.indexed},
        )


class _SegmentIds:
    """The ids of a segment's rows."""

    __slots__ = ("_segment",)

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def __getitem__(self, ordinal: int) -> bytes:
        return self._segment.id(ordinal)


def content_of(segment: Segment) -> Content:
    """A segment as the content of a part.

    Raises:
        ColumnsDamaged: its columns make no sense.
    """
    sections = {
        name: segment.file.view(name)
        for name in segment.file.sections
        if name == SECTION or name.startswith(SECTION + ".")
    }
    return Content(
        rows=segment.rows,
        ids=_SegmentIds(segment),
        columns=SealedColumns(sections),
        vectors=segment if len(segment) else None,
    )


# --- rows of several parts, in the order of their numbers --------------------------------------


class Source:
    """Chosen rows of some parts: what a segment's file is made of.

    Args:
        chosen: contents, and the ordinals in each.

    Attributes:
        rows: their numbers, ascending.
    """

    def __init__(self, chosen: Sequence[tuple[Content, Rows]]) -> None:
        self._contents = [content for content, _ in chosen]
        rows = np.concatenate([content.rows[ordinals] for content, ordinals in chosen])
        order = np.argsort(rows, kind="stable")
        self.rows: Rows = rows[order]
        which = np.repeat(np.arange(len(chosen)), [len(ordinals) for _, ordinals in chosen])
        self._which: Rows = which[order]
        self._ordinals: Rows = np.concatenate([ordinals for _, ordinals in chosen])[order]

    @classmethod
    def of_rows(cls, contents: Sequence[Content], rows: Rows) -> Source:
        """Some rows, wherever they are.

        Raises:
            ValueError: one of them is nowhere.
        """
        left = np.unique(rows)
        chosen: list[tuple[Content, Rows]] = []
        for content in contents:
            found = Finder(content.rows).find_all(left)
            chosen.append((content, found[found >= 0]))
            left = left[found < 0]
        if len(left):
            raise ValueError(f"row {left[0]} is in none of the parts")
        return cls(chosen)

    def __len__(self) -> int:
        return len(self.rows)

    def ids(self) -> Sequence[bytes]:
        """The packed ids."""
        return _GatheredIds(self._contents, self._which, self._ordinals)

    def positions(self) -> Any:
        """Which rows have a vector; None where all have."""
        has = np.zeros(len(self), np.bool_)
        for at, content in enumerate(self._contents):
            here = np.flatnonzero(self._which == at)
            has[here] = _vector_places(content, self._ordinals[here]) >= 0
        return None if has.all() else np.flatnonzero(has).astype(np.uint32)

    def vectors(self) -> Iterator[Floats]:
        """The vectors of the rows that have one, in order, some at a time."""
        for start in range(0, len(self), VECTORS_AT_ONCE):
            which = self._which[start : start + VECTORS_AT_ONCE]
            ordinals = self._ordinals[start : start + VECTORS_AT_ONCE]
            pieces: list[Floats] = []
            places: list[Rows] = []
            for at in np.unique(which).tolist():
                here = np.flatnonzero(which == at)
                where = _vector_places(self._contents[at], ordinals[here])
                has = where >= 0
                if has.any():
                    pieces.append(_vectors_at(self._contents[at], where[has]))
                    places.append(here[has])
            if pieces:
                order = np.argsort(np.concatenate(places), kind="stable")
                yield np.concatenate(pieces)[order]

    def columns(self, schema: NamespaceSchema) -> dict[str, bytes]:
        """The sections of their columns."""
        types, left_out = types_of(schema), left_out_of(schema)
        edges = np.flatnonzero(np.diff(self._which)) + 1
        if len(edges) < RUNS_MAX:
            runs = [
                (self._contents[int(self._which[start])].columns, self._ordinals[start:end])
                for start, end in zip([0, *edges], [*edges, len(self)], strict=True)
                if end > start
            ]
            return seal(runs, types, left_out=left_out)
        parts = np.argsort(self._which, kind="stable")
        behind = [
            (content.columns, self._ordinals[parts][self._which[parts] == at])
            for at, content in enumerate(self._contents)
        ]
        one = SealedColumns(seal(behind, types, left_out=left_out))
        back = np.empty(len(parts), np.int64)
        back[parts] = np.arange(len(parts))
        return seal([(one, back)], types, left_out=left_out)


def _vector_places(content: Content, ordinals: Rows) -> Rows:
    """Where the vectors of rows are; -1 where a row has none."""
    source = content.vectors
    if source is None:
        return np.full(len(ordinals), -1, np.int64)
    if isinstance(source, Segment):
        return source.ordinals(ordinals)
    if content.places is None:
        return ordinals
    places = content.places
    at = places.searchsorted(ordinals)
    inside = np.minimum(at, len(places) - 1)
    return np.where(places[inside] == ordinals, inside, -1)


def _vectors_at(content: Content, places: Rows) -> Floats:
    source = content.vectors
    assert source is not None
    blocks = list(source.blocks())
    if len(blocks) == 1:
        return blocks[0].vectors[places]
    found = np.empty((len(places), source.dim), np.float32)
    for block in blocks:
        here = (places >= block.start) & (places < block.start + len(block.vectors))
        found[here] = block.vectors[places[here] - block.start]
    return found


class _GatheredIds(Sequence[bytes]):
    """Ids of rows, made when they are asked for."""

    def __init__(self, contents: Sequence[Content], which: Rows, ordinals: Rows) -> None:
        self._contents = contents
        self._which = which
        self._ordinals = ordinals

    def __len__(self) -> int:
        return len(self._ordinals)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, int):
            return self._contents[int(self._which[at])].ids[int(self._ordinals[at])]
        contents = self._contents
        return [
            contents[which].ids[ordinal]
            for which, ordinal in zip(
                self._which[at].tolist(), self._ordinals[at].tolist(), strict=True
            )
        ]
