"""What may be imported: files, streams and iterables, read a batch at a time.

A `Source` is read by synchronous calls of `Source.read`, which may wait for a disk: whoever has an
event loop makes them on a thread. An asynchronous iterable is the exception (`Source.pieces`).
"""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from treestore.bulk.lines import BATCH_LINES, Batch, LineCutter
from treestore.bulk.tables import SUFFIXES, table_batches
from treestore.errors import InvalidArgument

PIECE_BYTES: Final = 1 << 20

BATCH_DOCUMENTS: Final = BATCH_LINES

NDJSON_SUFFIXES: Final = (".ndjson", ".jsonl", ".json", ".txt")

FORMATS: Final = ("ndjson", "parquet", "arrow")


class Source:
    """Something to import, read once from its beginning.

    Attributes:
        size_bytes: of all of it; None where that is not known.
        pieces: of an asynchronous source: its pieces are given to `feed` as they come, then `end`
            is called; None for all others, which are read with `read`.
    """

    def __init__(
        self,
        batches: Iterator[Batch] | None,
        *,
        size_bytes: int | None = None,
        pieces: AsyncIterable[Any] | None = None,
    ) -> None:
        self._batches = batches
        self.size_bytes = size_bytes
        self.pieces = pieces
        self._mixer = _Mixer()

    def read(self) -> Batch | None:
        """The next batch; None at the end. May wait for a disk.

        Raises:
            InvalidArgument: the source cannot be read, or is not what it should be.
        """
        assert self._batches is not None
        try:
            return next(self._batches, None)
        except (OSError, EOFError, zlib.error) as error:
            raise InvalidArgument(f"The source cannot be read: {error}") from error

    def feed(self, piece: Any) -> Iterator[Batch]:
        """The batches that a piece of an asynchronous source completes."""
        return self._mixer.feed(piece)

    def end(self) -> Iterator[Batch]:
        """The last batch of an asynchronous source."""
        return self._mixer.end()

    @property
    def pending_bytes(self) -> int:
        """Text of an asynchronous source that was fed and is in no batch yet."""
        return self._mixer.pending_bytes

    def close(self) -> None:
        """Let go of what is open."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            # Where the caller was cancelled, a thread may still be reading: the file is closed with
            # the last reference then.
            with contextlib.suppress(ValueError):
                close()


def open_source(source: Any, format: str | None) -> Source:
    """What to import.

    Args:
        source: the path of a file (NDJSON, also as ``.gz``; Parquet or Arrow); a binary file that
            is open; NDJSON text as bytes; an iterable, or asynchronous iterable, of documents
            (dicts) or of NDJSON text in pieces of any size (bytes or strings, their line ends
            included).
        format: ``ndjson``, ``parquet`` or ``arrow``; None: by a file's suffix, else ``ndjson``.

    Raises:
        InvalidArgument: it is none of these, or there is no such file.
    """
    if format is not None and format not in FORMATS:
        raise InvalidArgument(f"format is one of {', '.join(FORMATS)}, not {format!r:.40}.")
    if isinstance(source, str | os.PathLike):
        return _file(Path(source), format)
    if format not in (None, "ndjson"):
        raise InvalidArgument(f"A source in {format} format is the path of a file.")
    if isinstance(source, bytes | bytearray | memoryview):
        return Source(_mixed([bytes(source)]), size_bytes=len(source))
    if hasattr(source, "read") and not hasattr(source, "__aiter__"):
        return Source(_mixed(_pieces_of(source)))
    if isinstance(source, AsyncIterable):
        return Source(None, pieces=source)
    if isinstance(source, Iterable) and not isinstance(source, Mapping):
        return Source(_mixed(source))
    raise InvalidArgument(
        "A source is a path, an open binary file, bytes, or an iterable of documents or of NDJSON "
        f"text, not {type(source).__name__}."
    )


def _file(path: Path, format: str | None) -> Source:
    suffix = path.suffix.lower()
    kind = format or SUFFIXES.get(suffix, "ndjson")
    if path.is_dir():
        raise InvalidArgument(f"{str(path)!r:.300} is a directory; name a file to import.")
    if not path.is_file():
        raise InvalidArgument(f"There is no file {str(path)!r:.300} to import.")
    size = path.stat().st_size
    if kind != "ndjson":
        return Source(table_batches(path, kind), size_bytes=size)
    return Source(_file_batches(path, compressed=suffix == ".gz"), size_bytes=size)


def _file_batches(path: Path, *, compressed: bool) -> Iterator[Batch]:
    cutter = LineCutter()
    with path.open("rb") as raw:
        read = gzip.GzipFile(fileobj=raw).read if compressed else raw.read
        while piece := read(PIECE_BYTES):
            for batch in cutter.feed(piece):
                # Of a compressed file, what was read of the file itself.
                yield batch if not compressed else _at(batch, raw.tell())
        yield from cutter.end()


def _at(batch: Batch, read_bytes: int) -> Batch:
    return Batch(batch.first, batch.count, batch.lines, batch.documents, read_bytes)


def _pieces_of(file: Any) -> Iterator[Any]:
    while True:
        piece = file.read(PIECE_BYTES)
        if not isinstance(piece, bytes | bytearray | memoryview | str):
            raise InvalidArgument("The open file gives no bytes; open it with mode 'rb'.")
        if not piece:
            return
        yield piece


def _mixed(pieces: Iterable[Any]) -> Iterator[Batch]:
    mixer = _Mixer()
    for piece in pieces:
        yield from mixer.feed(piece)
    yield from mixer.end()


class _Mixer:
    """Takes documents, or pieces of text; not both of one source."""

    def __init__(self) -> None:
        self._cutter: LineCutter | None = None
        self._documents: list[object] = []
        self._next = 1

    @property
    def pending_bytes(self) -> int:
        return 0 if self._cutter is None else self._cutter.pending_bytes

    def feed(self, piece: Any) -> Iterator[Batch]:
        if isinstance(piece, str):
            piece = piece.encode("utf-8", "surrogatepass")
        if isinstance(piece, bytes | bytearray | memoryview):
            if self._documents or self._next > 1:
                raise InvalidArgument("A source gives documents or text, not both.")
            if self._cutter is None:
                self._cutter = LineCutter()
            yield from self._cutter.feed(piece)
            return
        if self._cutter is not None:
            raise InvalidArgument("A source gives text or documents, not both.")
        # What is no document is for the store to refuse, with its number.
        self._documents.append(piece)
        if len(self._documents) >= BATCH_DOCUMENTS:
            yield self._taken()

    def end(self) -> Iterator[Batch]:
        if self._cutter is not None:
            yield from self._cutter.end()
        elif self._documents:
            yield self._taken()

    def _taken(self) -> Batch:
        documents, self._documents = self._documents, []
        batch = Batch(self._next, len(documents), documents=documents)
        self._next += len(documents)
        return batch
