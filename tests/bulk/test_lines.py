"""Cutting NDJSON into batches, and the kinds of sources."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treestore.bulk import lines as lines_module
from treestore.bulk.lines import LEFT_OUT, Batch, LineCutter
from treestore.bulk.sources import open_source
from treestore.errors import InvalidArgument

TEXT = st.lists(st.sampled_from([b"{}\n", b"\n", b'{"a":1}\r\n', b"x", b"\xef\xbb\xbf"])).map(
    b"".join
)


def cut(cutter: LineCutter, text: bytes, sizes: list[int]) -> list[Batch]:
    """The batches of a text that comes in pieces of these sizes."""
    found: list[Batch] = []
    at = 0
    for size in [*sizes, len(text)]:
        found += cutter.feed(text[at : at + size])
        at += size
    found += cutter.end()
    return found


@given(TEXT, st.lists(st.integers(1, 9)), st.integers(1, 5), st.integers(1, 40))
@example(b"\xef\xbb\xbf\n{}\n", [1], 1, 1)
def test_batches_are_the_text_in_whole_lines(
    text: bytes, sizes: list[int], batch_lines: int, batch_size_bytes: int
) -> None:
    cutter = LineCutter(batch_lines=batch_lines, batch_size_bytes=batch_size_bytes)
    found = cut(cutter, text, sizes)
    expected = text.removeprefix(b"\xef\xbb\xbf")
    assert b"".join(batch.lines or b"" for batch in found) == expected
    number = 1
    for batch in found:
        assert batch.lines is not None
        assert batch.first == number
        assert batch.count <= batch_lines
        assert batch.count == len(batch.lines.splitlines()) or b"\r" in batch.lines
        assert batch is found[-1] or batch.lines.endswith(b"\n")
        number += batch.count
    assert number - 1 == len(expected.split(b"\n")) - (expected == b"" or expected.endswith(b"\n"))


def test_a_line_without_an_end_is_left_out_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines_module, "LINE_SIZE_BYTES_MAX", 1 << 16)
    cutter = LineCutter()
    assert list(cutter.feed(b"{}\n")) == []
    for _ in range(1000):
        assert list(cutter.feed(b"x" * 1000)) == []
        assert cutter.pending_bytes < (1 << 16) + 2000
    (batch,) = cutter.end()
    assert batch == Batch(1, 2, b"{}\n" + LEFT_OUT, read_bytes=1_000_003)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=12),
    st.lists(st.integers(1, 40)),
    st.integers(1, 3),
)
def test_lines_that_are_too_long_are_left_out_one_by_one(
    given_lines: list[tuple[int, bool]], sizes: list[int], batch_lines: int
) -> None:
    """However the text is cut; the other lines and all numbers stay as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "LINE_SIZE_BYTES_MAX", 10)
        lines = [b"a" * size + (b"\r" if returns else b"") for size, returns in given_lines]
        text = b"\n".join(lines)
        cutter = LineCutter(batch_lines=batch_lines)
        found = cut(cutter, text, sizes)
    expected = [line if len(line) <= 10 else LEFT_OUT for line in lines]
    assert b"".join(batch.lines or b"" for batch in found) == b"\n".join(expected)
    assert [batch.first for batch in found] == [
        1 + sum(batch.count for batch in found[:place]) for place in range(len(found))
    ]


DOCUMENTS: list[Any] = [
    {"id": number, "vector": [number + 0.5, 0.25], "attributes": {"year": number, "tags": ["a"]}}
    for number in range(2500)
]
NDJSON = "".join(json.dumps(one) + "\n" for one in DOCUMENTS).encode()


def read(source: Any, format: str | None = None) -> list[Any]:
    """All documents of a source, with their numbers in order."""
    found: list[Any] = []
    opened = open_source(source, format)
    while (batch := opened.read()) is not None:
        assert batch.first == len(found) + 1
        if batch.lines is not None:
            found += map(json.loads, batch.lines.splitlines())
        else:
            assert batch.documents is not None
            found += batch.documents
        assert batch.first + batch.count - 1 == len(found)
    opened.close()
    return found


def pieces() -> Iterator[str]:
    text = NDJSON.decode()
    for at in range(0, len(text), 777):
        yield text[at : at + 777]


def test_every_kind_of_source_gives_the_same_documents(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(NDJSON)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(NDJSON))
    for source in (
        *(tmp_path / "a.ndjson", str(tmp_path / "a.jsonl.gz"), NDJSON, bytearray(NDJSON)),
        *(io.BytesIO(NDJSON), io.StringIO(NDJSON.decode()), pieces(), DOCUMENTS, iter(DOCUMENTS)),
    ):
        assert read(source) == DOCUMENTS


@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather", "stream"])
@pytest.mark.parametrize("whole", [False, True])
def test_tables_give_the_same_documents(tmp_path: Path, kind: str, whole: bool) -> None:
    columns: dict[str, Any] = {
        "id": [one["id"] for one in DOCUMENTS],
        "vector": pyarrow.array(
            [one["vector"] for one in DOCUMENTS], pyarrow.list_(pyarrow.float32(), 2)
        ),
    }
    if whole:
        columns["attributes"] = [one["attributes"] for one in DOCUMENTS]
    else:
        columns |= {
            name: [one["attributes"][name] for one in DOCUMENTS] for name in ("year", "tags")
        }
    table = pyarrow.table(columns)
    path = tmp_path / f"a.{'arrow' if kind == 'stream' else kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=900)
    elif kind == "feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        make = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
        with make(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
    found = read(path)
    assert [one["id"] for one in found] == [one["id"] for one in DOCUMENTS]
    assert [one["attributes"] for one in found] == [one["attributes"] for one in DOCUMENTS]
    vectors = [pyarrow.py_buffer(one["vector"]) for one in found]
    assert all(len(vector) == 8 for vector in vectors)
    assert memoryview(found[3]["vector"]).cast("f").tolist() == [3.5, 0.25]


def test_tables_with_missing_vectors_and_other_numbers(tmp_path: Path) -> None:
    table = pyarrow.table({"id": ["a", "b"], "vector": [[1.0, 2.0], None], "n": [None, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    first, second = read(tmp_path / "a.parquet")
    assert memoryview(first["vector"]).cast("f").tolist() == [1.0, 2.0]
    assert "vector" not in second
    assert (first["attributes"], second["attributes"]) == ({"n": None}, {"n": 2})
    pyarrow.parquet.write_table(
        pyarrow.table({"id": [1], "vector": [[1, 2]]}), tmp_path / "b.parquet"
    )
    assert read(tmp_path / "b.parquet") == [{"id": 1, "attributes": {}, "vector": [1, 2]}]


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "a.gz").write_bytes(b"not gzip")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(NDJSON)[:-500])
    pyarrow.parquet.write_table(pyarrow.table({"name": [1]}), tmp_path / "noid.parquet")
    for source, format, text in (
        (tmp_path / "missing", None, "no file"),
        (tmp_path, None, "is a directory"),
        (tmp_path / "a.parquet", None, "no parquet file"),
        (tmp_path / "noid.parquet", None, "no column 'id'"),
        (tmp_path / "a.gz", None, "cannot be read"),
        (tmp_path / "cut.gz", None, "cannot be read"),
        (5, None, "a source is a path"),
        ({"id": 1}, None, "a source is a path"),
        (NDJSON, "parquet", "is the path of a file"),
        (NDJSON, "csv", "format is one of"),
        (["{}\n", {"id": 1}], None, "text or documents"),
        ([{"id": 1}, "{}\n"], None, "documents or text"),
    ):
        with pytest.raises(InvalidArgument, match=f"(?i){text}"):
            read(source, format)
