"""A folder that holds one tantivy index, and nothing that cannot be made again.

The only module here that touches files. The files are tantivy's: it writes them beside the
database's own, past its disk, and that is allowed because nothing in them is the only copy.

Threads: everything but `View`s and `size_bytes` belongs to one caller at a time; tantivy's writer
answers a second one with an error.

What tantivy does not do by itself, learned from trying it (0.27):

* It verifies no checksum when it opens an index: `_verify` does, reading every file once.
* Tokenizers are forgotten when an index is closed, and are registered again here.
* Deleting by a term of an unsigned field deletes nothing, without a word: numbers are signed here.
* A fault inside it arrives as `PanicException`, which is no `Exception`: `faults` translates it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Final

import attrs
import tantivy
from tantivy import Document, IndexWriter, Query, Schema, SchemaBuilder, Searcher, TextAnalyzer

WRITER_HEAP_BYTES: Final = 48 << 20
"""What the writer gathers in memory before it writes a segment; tantivy wants 15 MB at least."""

MARKER: Final = "marker"
MARKER_VALUE: Final = "marker_value"

_META: Final = "meta.json"
_FOOTER_MAGIC: Final = 1337
_FOOTER_TAIL_BYTES: Final = 8
_CHUNK_BYTES: Final = 1 << 20


class IndexFailed(Exception):
    """The index cannot be used any more: damaged, or a fault of the library or of the disk."""


@contextlib.contextmanager
def faults(what: str) -> Generator[None]:
    """Whatever goes wrong inside is an `IndexFailed`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            reason = f"{what}: {type(error).__name__}: {error}"
            raise IndexFailed(reason) from error  # noqa: ASYNC104 (there is no task here)
        raise


def add_marker_fields(builder: SchemaBuilder) -> SchemaBuilder:
    """The fields that every schema begins with here."""
    builder.add_integer_field(MARKER, indexed=True)
    return builder.add_bytes_field(MARKER_VALUE, stored=True)


@attrs.define(eq=False)
class IndexFolder:
    """One index in a folder of its own."""

    path: Path
    schema: Schema
    tokenizers: Mapping[str, TextAnalyzer]
    _index: tantivy.Index | None = None
    _writer: IndexWriter | None = None

    # -- opening ------------------------------------------------------------------------------

    def open(self) -> bytes | None:
        """Open what is there; the marker of its last commit, or None where there was none yet.

        Raises:
            IndexFailed: it is damaged.
        """
        if not (self.path / _META).exists():
            return None
        with faults("opening the index"):
            _verify(self.path)
            self._take(tantivy.Index.open(str(self.path)))
            found = self._marker()
            if found is None and self.searcher().num_docs:
                raise ValueError("it has no marker")
            return found

    def create(self) -> None:
        """Begin an empty index, whatever was in the folder."""
        self.close()
        with faults("creating the index"):
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            self._take(tantivy.Index(self.schema, str(self.path)))

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def use(self, schema: Schema, tokenizers: Mapping[str, TextAnalyzer]) -> None:
        """Say what the index that is open was made with, where only its marker tells."""
        assert self._index is not None
        self.schema, self.tokenizers = schema, tokenizers
        self._register(self._index)

    def _register(self, index: tantivy.Index) -> None:
        for name, chain in self.tokenizers.items():
            index.register_tokenizer(name, chain)

    def _take(self, index: tantivy.Index) -> None:
        self._register(index)
        index.config_reader("manual")
        index.reload()
        self._index = index

    def _marker(self) -> bytes | None:
        searcher = self.searcher()
        hits = searcher.search(Query.term_query(self.schema, MARKER, 1), 2, count=False).hits
        if len(hits) != 1:
            return None
        value = searcher.doc(hits[0][1]).get_first(MARKER_VALUE)
        return bytes(value) if value is not None else None

    @property
    def is_open(self) -> bool:
        """Whether there is an index to search and to add to."""
        return self._index is not None

    # -- writing ------------------------------------------------------------------------------

    def _writing(self) -> IndexWriter:
        assert self._index is not None
        if self._writer is None:
            # One thread: a document's words are cut on it, beside the one that hands them over.
            self._writer = self._index.writer(WRITER_HEAP_BYTES, 1)
        return self._writer

    def add(self, document: Document) -> None:
        """Add a row; it is found after the next commit."""
        self._writing().add_document(document)

    def delete(self, field: str, value: int) -> None:
        """Remove every row with this number in a signed field, those just added included."""
        self._writing().delete_documents_by_term(field, value)

    def delete_by(self, query: Query) -> None:
        """Remove every row that a query finds, those just added included."""
        self._writing().delete_documents_by_query(query)

    def commit(self, marker: bytes) -> Searcher:
        """Make what was added and deleted visible, together with what says how far that goes."""
        assert self._index is not None
        writer = self._writing()
        writer.delete_documents_by_term(MARKER, 1)
        document = Document()
        document.add_integer(MARKER, 1)
        document.add_bytes(MARKER_VALUE, marker)
        writer.add_document(document)
        writer.commit()
        self._index.reload()
        return self.searcher()

    def searcher(self) -> Searcher:
        """The last commit, as it stays however much is written and merged."""
        assert self._index is not None
        return self._index.searcher()

    def release_writer(self) -> None:
        """Give the writer's threads and memory back; what is not committed is forgotten."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(IndexFailed), faults("closing the index"):
                writer.rollback()
                writer.garbage_collect_files()
                writer.wait_merging_threads()

    @property
    def has_writer(self) -> bool:
        """Whether the writer's threads run."""
        return self._writer is not None

    def close(self) -> None:
        """Let go of everything. `View`s that are held stay usable."""
        self.release_writer()
        self._index = None

    def size_bytes(self) -> int:
        """What the folder takes on disk."""
        total = 0
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat().st_size
        return total


# -- folders of folders -----------------------------------------------------------------------


def numbered_folders(path: Path) -> list[int]:
    """The folders in a folder whose names are numbers, ascending; none where there is no folder."""
    with contextlib.suppress(OSError):
        return sorted(int(its.name) for its in path.iterdir() if its.name.isdecimal())
    return []


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it, as far as possible."""
    shutil.rmtree(path, ignore_errors=True)


# -- checksums --------------------------------------------------------------------------------


def verify(path: Path) -> None:
    """Read all files of an index.

    Raises:
        IndexFailed: one is missing, cut off or not as it was written.
    """
    with faults("verifying the index"):
        _verify(path)


def _verify(path: Path) -> None:
    meta = json.loads((path / _META).read_bytes())
    names = sorted(entry.name for entry in path.iterdir())
    for segment in meta["segments"]:
        prefix = segment["segment_id"].replace("-", "")
        files = [name for name in names if name.startswith(prefix)]
        kinds = {name.rpartition(".")[2] for name in files}
        missing = {"term", "store", "fast", "fieldnorm", "idx", "pos"} - kinds
        if missing:
            raise ValueError(f"segment {prefix} lacks {', '.join(sorted(missing))}")
        if segment["deletes"] and not any(name.endswith(".del") for name in files):
            raise ValueError(f"segment {prefix} lacks its deletions")
        for name in files:
            _verify_file(path / name)


def _verify_file(path: Path) -> None:
    """Every file ends with its footer (JSON), the footer's size and a number that is always the
    same; the footer holds the checksum of what is before it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _FOOTER_TAIL_BYTES))
        tail = file.read()
        length = int.from_bytes(tail[:4], "little")
        body = size - _FOOTER_TAIL_BYTES - length
        if int.from_bytes(tail[4:], "little") != _FOOTER_MAGIC or body < 0:
            raise ValueError(f"{path.name} is cut off")
        file.seek(body)
        wanted = json.loads(file.read(length))["crc"]
        file.seek(0)
        checksum = 0
        while body > 0:
            chunk = file.read(min(body, _CHUNK_BYTES))
            checksum = zlib.crc32(chunk, checksum)
            body -= len(chunk)
    if checksum != wanted:
        raise ValueError(f"{path.name} is damaged")
