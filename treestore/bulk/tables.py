"""Parquet, Arrow and Feather files as documents, by pyarrow (the extra ``arrow``).

A column ``id`` names the documents; a column ``vector`` (lists of numbers) holds their vectors;
every other column is an attribute of its name. A column ``attributes`` of structs is taken as the
attributes instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from treestore.bulk.lines import Batch
from treestore.errors import InvalidArgument

SUFFIXES: Final = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}

ROWS: Final = 1000
"""In a batch."""


def table_batches(path: Path, kind: str) -> Iterator[Batch]:
    """The rows of a file, a batch at a time; the file is never in memory as a whole.

    Raises:
        InvalidArgument: pyarrow is not installed, or the file is no such table.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InvalidArgument(
            f"Reading {path.suffix} files takes pyarrow: install treestore[arrow]."
        ) from None
    try:
        yield from _batches(pyarrow, path, kind)
    except pyarrow.ArrowException as error:
        raise InvalidArgument(f"{path} is no {kind} file that can be read: {error}") from error


def _batches(pyarrow: Any, path: Path, kind: str) -> Iterator[Batch]:
    number = 1
    for rows, read_bytes in _record_batches(pyarrow, path, kind):
        names = rows.schema.names
        if "id" not in names:
            raise InvalidArgument(
                f"{path} has no column 'id' that names its documents; it has {', '.join(names)}."
            )
        for first in range(0, rows.num_rows, ROWS):
            documents = _documents(pyarrow, rows.slice(first, ROWS))
            yield Batch(number, len(documents), documents=documents, read_bytes=read_bytes)
            number += len(documents)


def _record_batches(pyarrow: Any, path: Path, kind: str) -> Iterator[tuple[Any, int]]:
    if kind == "parquet":
        with pyarrow.parquet.ParquetFile(path) as file:
            total, size = max(1, file.metadata.num_rows), path.stat().st_size
            done = 0
            for rows in file.iter_batches(batch_size=ROWS):
                done += rows.num_rows
                yield rows, size * done // total
        return
    with pyarrow.memory_map(str(path)) as source:
        try:
            file = pyarrow.ipc.open_file(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            for rows in pyarrow.ipc.open_stream(source):
                yield rows, source.tell()
            return
        for number in range(file.num_record_batches):
            rows = file.get_batch(number)
            yield rows, path.stat().st_size * (number + 1) // file.num_record_batches


def _documents(pyarrow: Any, rows: Any) -> list[object]:
    columns = {name: rows.column(name) for name in rows.schema.names}
    ids = columns.pop("id").to_pylist()
    vectors = _vectors(pyarrow, columns.pop("vector", None), len(ids))
    whole = columns.pop("attributes", None)
    found: list[dict[str, Any]]
    if whole is not None:
        found = [its or {} for its in whole.to_pylist()]
    else:
        found = [{} for _ in ids]
    for name, column in columns.items():
        for its, value in zip(found, column.to_pylist(), strict=True):
            its[name] = value
    documents: list[object] = []
    for id, vector, attributes in zip(ids, vectors, found, strict=True):
        document: dict[str, Any] = {"id": id, "attributes": attributes}
        if vector is not None:
            document["vector"] = vector
        documents.append(document)
    return documents


def _vectors(pyarrow: Any, column: Any, count: int) -> list[Any]:
    """Each vector as the bytes of its float32, which is what travels fastest."""
    if column is None:
        return [None] * count
    kind = column.type
    if not (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)) and not (
        pyarrow.types.is_fixed_size_list(kind)
    ):
        raise InvalidArgument(f"The column 'vector' holds {kind}, not lists of numbers.")
    flat = column.flatten()
    if flat.null_count or not pyarrow.types.is_floating(flat.type):
        return list(column.to_pylist())
    numbers = flat.to_numpy(zero_copy_only=False).astype("<f4", copy=False)
    found: list[Any] = []
    at = 0
    lengths = column.value_lengths().to_pylist()
    for length in lengths:
        if length is None:
            found.append(None)
            continue
        found.append(numbers[at : at + length].tobytes())
        at += length
    return found
