"""A sealed segment: rows that do not change, with their ids, vectors, and the index of these.

It is one file (`treestore.search.vectors.segment_file`), which nothing but its own checksums is
believed about. Whoever writes it may add sections of any other name, for columns.

In a segment, a *position* counts its rows from 0, in ascending order of their numbers; an *ordinal*
counts its vectors, in the same order. They differ where rows have no vector.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from treestore.model.namespaces import Metric
from treestore.search.vectors.building import INDEXED_ROWS_MIN, Pause, build_index
from treestore.search.vectors.distances import squares
from treestore.search.vectors.ivf import Ivf, Space
from treestore.search.vectors.library import VERSION, Doubles, Floats, Ordinals, faiss
from treestore.search.vectors.nearest import Block
from treestore.search.vectors.planning import Calibration
from treestore.search.vectors.segment_file import (
    PAGE_BYTES,
    Buffer,
    SegmentDamaged,
    SegmentFile,
    SegmentWriter,
)

_ABOUT: Final = "about"
_ROWS: Final = "rows"
_IDS: Final = "ids"
_ID_BOUNDS: Final = "ids.bounds"
_POSITIONS: Final = "vectors.positions"
_VECTORS: Final = "vectors"
_SQUARES: Final = "vectors.squares"
_INDEX: Final = "index"
_INDEX_ABOUT: Final = "index.about"
_INDEX_CENTRE: Final = "index.centre"
_INDEX_ORDER: Final = "index.order"
_INDEX_BOUNDS: Final = "index.bounds"
_INDEX_RECALL: Final = "index.recall"
_INDEX_SECTIONS: Final = (
    _INDEX_ABOUT,
    _INDEX_CENTRE,
    _INDEX_ORDER,
    _INDEX_BOUNDS,
    _INDEX_RECALL,
    _INDEX,
)

T = TypeVar("T")

_SQUARED_ROWS: Final = 4096
_IDS_PER_STEP: Final = 4096


def _no_pause() -> None:
    pass


@attrs.frozen(kw_only=True)
class _About:
    """The section that says what the others hold."""

    rows: int
    vectors: int
    dim: int
    metric: Metric


@attrs.frozen(kw_only=True)
class _IndexAbout:
    """What was it made with, and what else is needed to use it: kept beside faiss's own bytes."""

    library: str
    metric: Metric
    scale: float
    lists: int


# -- writing ------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False)
class SegmentContent:
    """What a segment is made of.

    Attributes:
        rows: their numbers, strictly ascending.
        ids: of the rows' documents, as bytes whose meaning the caller knows.
        dim: numbers in each vector; 0: there are no vectors.
        metric: what distance means.
        vectors: those of the rows that have one, in order, in pieces of any size, each of shape
            (n, dim): what is read from the tree is never in memory as a whole.
        positions: which rows have a vector, ascending; None: all (none where ``dim`` is 0).
        sections: whatever else belongs to the rows, by name.
    """

    rows: NDArray[np.int64]
    ids: Sequence[bytes]
    dim: int
    metric: Metric
    vectors: Iterable[Floats] = ()
    positions: NDArray[np.uint32] | None = None
    sections: Mapping[str, Buffer] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class SegmentWritten:
    """What became of it.

    Attributes:
        rows: how many.
        vectors: how many of them have a vector.
        indexed: whether there is an index.
        size: of the file, in bytes.
        checksum: which the file is known by; see `Segment.open`.
    """

    rows: int
    vectors: int
    indexed: bool
    size: int
    checksum: int


def write_segment(
    path: Path,
    content: SegmentContent,
    *,
    database: uuid.UUID,
    segment: uuid.UUID,
    seed: int,
    pause: Pause = _no_pause,
    indexed_rows_min: int = INDEXED_ROWS_MIN,
) -> SegmentWritten:
    """Write a segment's file, with an index where it has enough vectors. For a worker thread.

    Args:
        path: of the file; its folder is there.
        content: what it is made of.
        database, segment: what it is of, and what it is called.
        seed: of the samples that the index is made from.
        pause: called between the steps; what it raises ends the writing, and nothing stays.
        indexed_rows_min: with fewer vectors, there is no index.

    Raises:
        ValueError: the content does not fit together.
        OSError: the file cannot be written.
    """
    rows = np.ascontiguousarray(content.rows, np.int64)
    if len(content.ids) != len(rows) or not bool((np.diff(rows) > 0).all()):
        raise ValueError("a segment needs an id for each row, and rows in ascending order")
    with SegmentWriter(path, database=database, segment=segment) as file:
        file.add(_ROWS, rows)
        _write_ids(file, content.ids, pause)
        count, row_squares = _write_vectors(file, content, pause)
        _check_positions(content, count)
        if content.positions is not None:
            file.add(_POSITIONS, np.ascontiguousarray(content.positions, np.uint32))
        indexed = content.dim > 0 and count >= max(1, indexed_rows_min)
        if indexed:
            vectors = file.written(_VECTORS, np.float32, (count, content.dim))
            index = build_index(vectors, row_squares, content.metric, seed=seed, pause=pause)
            del vectors
            _write_index(file, index, pause)
        for name, section in content.sections.items():
            file.add(name, section)
            pause()
        about = _About(rows=len(rows), vectors=count, dim=content.dim, metric=content.metric)
        file.add(_ABOUT, msgspec.msgpack.encode(about))
        checksum = file.commit()
        return SegmentWritten(
            rows=len(rows), vectors=count, indexed=indexed, size=file.size, checksum=checksum
        )


def _write_ids(file: SegmentWriter, ids: Sequence[bytes], pause: Pause) -> None:
    bounds = np.zeros(len(ids) + 1, np.uint64)
    with file.section(_IDS) as write:
        for start in range(0, len(ids), _IDS_PER_STEP):
            some = ids[start : start + _IDS_PER_STEP]
            bounds[start + 1 : start + 1 + len(some)] = [len(name) for name in some]
            write(b"".join(some))
            pause()
    file.add(_ID_BOUNDS, np.cumsum(bounds, dtype=np.uint64))


def _write_vectors(
    file: SegmentWriter, content: SegmentContent, pause: Pause
) -> tuple[int, Doubles]:
    if not content.dim:
        return 0, np.empty(0)
    found = []
    with file.section(_VECTORS, alignment=PAGE_BYTES) as write:
        for piece in content.vectors:
            if piece.ndim != 2 or piece.shape[1] != content.dim:
                raise ValueError(f"vectors of {content.dim} numbers, not {piece.shape}")
            for start in range(0, len(piece), _SQUARED_ROWS):
                some = np.ascontiguousarray(piece[start : start + _SQUARED_ROWS], np.float32)
                found.append(squares(some))
                write(some)
                pause()
    row_squares = np.concatenate([np.empty(0), *found])
    file.add(_SQUARES, row_squares)
    return len(row_squares), row_squares


def _check_positions(content: SegmentContent, vectors: int) -> None:
    rows = len(content.rows)
    if content.positions is None:
        fits = vectors == rows or not content.dim
    else:
        places = content.positions.astype(np.int64)
        fits = len(places) == vectors and bool((np.diff(places) > 0).all())
        fits = fits and (not vectors or bool(places[0] >= 0 and places[-1] < rows))
    if not fits:
        raise ValueError(f"{rows} rows have {vectors} vectors, and positions do not say which")


def _write_index(file: SegmentWriter, index: Ivf, pause: Pause) -> None:
    assert index.calibration is not None
    about = _IndexAbout(
        library=VERSION,
        metric=index.space.metric,
        scale=index.space.scale,
        lists=index.lists,
    )
    file.add(_INDEX_ABOUT, msgspec.msgpack.encode(about))
    file.add(_INDEX_CENTRE, index.space.centre)
    file.add(_INDEX_ORDER, index.order)
    file.add(_INDEX_BOUNDS, index.bounds)
    file.add(_INDEX_RECALL, index.calibration.pack())
    with file.section(_INDEX, alignment=PAGE_BYTES) as write:

        def write_some(some: bytes) -> None:
            write(some)
            pause()

        faiss.write_index(index.index, faiss.PyCallbackIOWriter(write_some))


# -- reading ------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Segment:
    """An open segment; any thread may read it. It is unmapped when nothing uses it any more.

    Attributes:
        file: the bytes.
        rows: the numbers of its rows, ascending; cannot be written to, like all arrays here.
        dim: numbers in each vector; 0: there are none.
        metric: what distance means.
        vectors: float32, shape (n, dim).
        squares: of their lengths; float64, shape (n,).
        positions: of the rows that have a vector; None: all rows (or none, without vectors).
        index: None where there is none, or `index_damage`.
        index_damage: why the index cannot be used although the rest can; searches are exact then.
    """

    file: SegmentFile
    rows: NDArray[np.int64]
    dim: int
    metric: Metric
    vectors: Floats
    squares: Doubles
    positions: NDArray[np.uint32] | None
    index: Ivf | None
    index_damage: SegmentDamaged | None
    _id_bounds: NDArray[np.uint64] = attrs.field(repr=False)
    _ids: memoryview = attrs.field(repr=False)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        database: uuid.UUID,
        segment: uuid.UUID,
        checksum: int | None = None,
        verify: Literal["all", "index"] = "all",
        pause: Callable[[], None] | None = None,
    ) -> Segment:
        """Open a segment's file.

        Args:
            path: of the file.
            database, segment: what it must be of, and what it must be called.
            checksum: what `SegmentWritten.checksum` was; None: not known.
            verify: ``all`` reads the whole file; ``index`` only what the index library is given,
                which would believe anything. For files that were verified before.
            pause: called after each MiB that is verified.

        Raises:
            SegmentDamaged: it is not what it should be, and must be made again. Where that is only
                the index, this is not raised: see `index_damage`.
            OSError: the system could not open it.
        """
        file = SegmentFile.open(path, database=database, segment=segment, checksum=checksum)
        others = [name for name in file.sections if name not in _INDEX_SECTIONS]
        file.verify(others if verify == "all" else [_ABOUT], pause=pause)
        about = _decode(file, _ABOUT, _About)
        positions = None
        if _POSITIONS in file:
            positions = file.array(_POSITIONS, np.uint32, (about.vectors,))
        vectors: Floats = np.empty((0, about.dim), np.float32)
        row_squares: Doubles = np.empty(0)
        if about.dim:
            vectors = file.array(_VECTORS, np.float32, (about.vectors, about.dim))
            row_squares = file.array(_SQUARES, np.float64, (about.vectors,))
        index, damage = _open_index(file, about, pause)
        return cls(
            file,
            file.array(_ROWS, np.int64, (about.rows,)),
            about.dim,
            about.metric,
            vectors,
            row_squares,
            positions,
            index,
            damage,
            file.array(_ID_BOUNDS, np.uint64, (about.rows + 1,)),
            file.view(_IDS),
        )

    def __len__(self) -> int:
        """How many vectors there are: see `treestore.search.vectors.nearest.Rows`."""
        return len(self.vectors)

    def blocks(self) -> Iterator[Block]:
        """See `treestore.search.vectors.nearest.Rows`."""
        yield Block(0, self.vectors, self.squares)

    def id(self, position: int) -> bytes:
        """The id of a row."""
        start, end = self._id_bounds[position : position + 2].tolist()
        return bytes(self._ids[start:end])

    def ids(self, positions: Iterable[int]) -> list[bytes]:
        """The ids of some rows, in the order asked for."""
        return [self.id(int(position)) for position in positions]

    def find(self, rows: NDArray[np.int64]) -> Ordinals:
        """The positions of rows by their numbers; -1 where one is not in the segment."""
        at = np.searchsorted(self.rows, rows).astype(np.int64)
        inside = at < len(self.rows)
        inside[inside] = self.rows[at[inside]] == np.asarray(rows)[inside]
        return np.where(inside, at, -1)

    def ordinals(self, positions: Ordinals) -> Ordinals:
        """Where the vectors of some rows are; -1 where a row has none."""
        if self.positions is None:
            return positions if self.dim else np.full(len(positions), -1)
        at = np.searchsorted(self.positions, positions).astype(np.int64)
        inside = at < len(self.positions)
        inside[inside] = self.positions[at[inside]] == positions[inside]
        return np.where(inside, at, -1)

    def vector(self, position: int) -> Floats | None:
        """The vector of a row, where it has one."""
        ordinal = int(self.ordinals(np.array([position], np.int64))[0])
        if ordinal < 0:
            return None
        found: Floats = self.vectors[ordinal]
        return found

    @property
    def mapped_bytes(self) -> int:
        """What of the file is mapped: all of it."""
        return self.file.size

    @property
    def memory_bytes(self) -> int:
        """What it takes besides, roughly: the index points into the file, and has a few objects
        for each list."""
        lists = self.index.lists if self.index is not None else 0
        return 16_384 + 256 * lists

    def warm(self, *, pause: Callable[[], None] | None = None) -> int:
        """Read the file into the system's cache; how many bytes that was."""
        return self.file.warm(pause=pause)


def _decode(file: SegmentFile, name: str, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(file.view(name), type=kind)
    except msgspec.MsgspecError as error:
        raise SegmentDamaged("content", file.path, f"it makes no sense: {error}", name) from error


def _open_index(
    file: SegmentFile, about: _About, pause: Callable[[], None] | None
) -> tuple[Ivf | None, SegmentDamaged | None]:
    """The index, or why it cannot be used."""
    if _INDEX not in file:
        return None, None
    try:
        file.verify(_INDEX_SECTIONS, pause=pause)
        described = _decode(file, _INDEX_ABOUT, _IndexAbout)
        if described.library != VERSION:
            what = f"it was made with faiss {described.library}, this is {VERSION}"
            raise SegmentDamaged("version", file.path, what, _INDEX)
        return _read_index(file, about, described), None
    except SegmentDamaged as damage:
        return None, damage


def _read_index(file: SegmentFile, about: _About, described: _IndexAbout) -> Ivf:
    centre = file.array(_INDEX_CENTRE, np.float32, (about.dim,))
    space = Space(described.metric, about.dim, centre, described.scale)
    try:
        calibration = Calibration.unpack(file.view(_INDEX_RECALL))
        blob = np.frombuffer(file.view(_INDEX), np.uint8)
        # The index points into the file: what is mapped is neither copied nor counted twice.
        index: Any = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(blob), len(blob)))
        # (It is one of the class that it is of; `downcast_index` would not own it.)
        wanted = about.vectors, described.lists, space.rotation.dim_out
        if (index.ntotal, index.nlist, index.d) != wanted:
            raise ValueError("it is the index of something else")
    except (ValueError, RuntimeError, msgspec.MsgspecError) as error:
        raise SegmentDamaged("content", file.path, f"it makes no sense: {error}", _INDEX) from error
    return Ivf(
        space,
        file.array(_INDEX_ORDER, np.uint32, (about.vectors,)),
        file.array(_INDEX_BOUNDS, np.int64, (described.lists + 1,)),
        calibration,
        index,
        blob,
    )
