"""Sealed segments: what goes in comes out, and a damaged index harms no answer."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.search.vectors.examples import (
    DATABASE,
    METRICS,
    SEGMENT,
    clouds,
    exact_distances,
    make_segment,
)
from treestore.model.namespaces import Metric
from treestore.search.vectors import segment as segment_module
from treestore.search.vectors.distances import Query
from treestore.search.vectors.search import Part, search
from treestore.search.vectors.segment import Segment, SegmentContent, write_segment
from treestore.search.vectors.segment_file import SegmentDamaged

ROWS = 2500
DIM = 24


def open_again(path: Path, **options: object) -> Segment:
    return Segment.open(path, database=DATABASE, segment=SEGMENT, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a segment with an index."""
    folder = tmp_path_factory.mktemp("segment")
    make_segment(folder, clouds(ROWS, DIM, seed=1), "cosine")
    return (folder / "8.segment").read_bytes()


def test_rows_ids_and_vectors(tmp_path: Path) -> None:
    vectors = clouds(300, DIM, seed=1)
    numbers = np.arange(300, dtype=np.int64) * 5 + 2**60
    segment = make_segment(tmp_path, vectors, "l2", rows=numbers)
    assert segment.index is None
    assert segment.index_damage is None
    assert (segment.vectors == vectors).all()
    assert segment.rows.tolist() == numbers.tolist()
    assert segment.ids([5, 0, 299]) == [b"%d" % numbers[p] for p in (5, 0, 299)]
    assert segment.find(np.array([2**60 + 10, 7, 2**60 + 11, 2**62])).tolist() == [2, -1, -1, -1]
    vector = segment.vector(7)
    assert vector is not None
    assert (vector == vectors[7]).all()
    assert segment.mapped_bytes == segment.file.size
    assert segment.warm() > vectors.nbytes


def test_rows_without_vectors(tmp_path: Path) -> None:
    vectors = clouds(40, DIM, seed=1)
    positions = np.arange(1, 120, 3, dtype=np.uint32)
    content = SegmentContent(
        rows=np.arange(120),
        ids=[b""] * 120,
        dim=DIM,
        metric="l2",
        vectors=[vectors[:10], vectors[10:10], vectors[10:]],
        positions=positions,
        sections={"column/år": b"abc"},
    )
    path = tmp_path / "a"
    written = write_segment(path, content, database=DATABASE, segment=SEGMENT, seed=1)
    assert (written.rows, written.vectors, written.indexed) == (120, 40, False)
    segment = open_again(path, checksum=written.checksum)
    assert bytes(segment.file.view("column/år")) == b"abc"
    assert segment.vector(0) is None
    vector = segment.vector(4)
    assert vector is not None
    assert (vector == vectors[1]).all()
    assert segment.ordinals(np.array([0, 1, 4, 119])).tolist() == [-1, 0, 1, -1]
    # Flags and answers are by position.
    allowed = np.ones(120, bool)
    allowed[4] = False
    answer = search(
        [Part(segment, allowed)], Query(vectors[1], "l2"), 40, ties=lambda _, p: p.tolist()
    )
    wanted = exact_distances("l2", vectors[1], vectors)
    order = [int(positions[i]) for i in np.argsort(wanted) if i != 1]
    assert [hit.position for hit in answer.hits] == order


@pytest.mark.parametrize("dim", [0, 5])
def test_an_empty_segment(tmp_path: Path, dim: int) -> None:
    content = SegmentContent(rows=np.empty(0, np.int64), ids=[], dim=dim, metric="l2")
    path = tmp_path / "a"
    write_segment(path, content, database=DATABASE, segment=SEGMENT, seed=1)
    segment = open_again(path)
    assert (len(segment), len(segment.rows)) == (0, 0)
    if dim:
        query = Query(np.ones(dim, np.float32), "l2")
        assert search([Part(segment)], query, 3, ties=lambda _, p: p.tolist()).hits == ()


def test_a_segment_without_vectors(tmp_path: Path) -> None:
    content = SegmentContent(rows=np.arange(3), ids=[b"a", b"", b"ccc"], dim=0, metric="l2")
    path = tmp_path / "a"
    write_segment(path, content, database=DATABASE, segment=SEGMENT, seed=1)
    segment = open_again(path)
    assert segment.ids(range(3)) == [b"a", b"", b"ccc"]
    assert segment.vector(1) is None


BAD = {
    "too few ids": {"ids": [b""] * 9},
    "rows twice": {"rows": np.zeros(10, np.int64)},
    "rows in no order": {"rows": np.arange(10)[::-1]},
    "too few vectors": {"vectors": [clouds(9, 4, seed=1)]},
    "too many vectors": {"vectors": [clouds(11, 4, seed=1)]},
    "vectors of another length": {"vectors": [clouds(10, 5, seed=1)]},
    "too few positions": {"positions": np.arange(9, dtype=np.uint32)},
    "positions in no order": {"positions": np.arange(10, dtype=np.uint32)[::-1]},
    "positions beyond the rows": {"positions": np.arange(1, 11, dtype=np.uint32)},
    "a section that is there already": {"sections": {"rows": b""}},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_what_does_not_fit_together(tmp_path: Path, change: dict[str, object]) -> None:
    good: dict[str, object] = {
        "rows": np.arange(10),
        "ids": [b""] * 10,
        "dim": 4,
        "metric": "l2",
        "vectors": [clouds(10, 4, seed=1)],
    }
    content = SegmentContent(**(good | change))  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        write_segment(tmp_path / "a", content, database=DATABASE, segment=SEGMENT, seed=1)
    assert list(tmp_path.iterdir()) == []


def test_writing_can_be_given_up_at_every_step(tmp_path: Path) -> None:
    vectors = clouds(200, 8, seed=1)
    content = SegmentContent(
        rows=np.arange(200), ids=[b""] * 200, dim=8, metric="l2", vectors=[vectors]
    )
    path = tmp_path / "a"
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    def write(pause: object) -> None:
        write_segment(
            path,
            content,
            database=DATABASE,
            segment=SEGMENT,
            seed=1,
            pause=pause,  # type: ignore[arg-type]
            indexed_rows_min=100,
        )

    write(count)
    path.unlink()
    for last in range(steps):
        left = last

        def stop() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            write(stop)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("metric", METRICS)
def test_the_same_content_makes_the_same_bytes(tmp_path: Path, metric: Metric) -> None:
    vectors = clouds(ROWS, DIM, seed=3)
    checksums = [make_segment(tmp_path, vectors, metric).file.checksum for _ in range(2)]
    assert checksums[0] == checksums[1]


def test_an_index_that_was_read_finds_what_it_found(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(whole)
    first, second = open_again(path), open_again(path, verify="index")
    assert first.index is not None
    assert second.index is not None
    path.unlink()
    for vector in clouds(20, DIM, seed=2):
        answers = [
            search([Part(s)], Query(vector, "cosine"), 10, ties=lambda _, p: p.tolist())
            for s in (first, second)
        ]
        assert answers[0] == answers[1]


@pytest.mark.parametrize("section", segment_module._INDEX_SECTIONS)
def test_a_damaged_index_is_not_used(tmp_path: Path, whole: bytes, section: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(whole)
    at = open_again(path).file.sections[section].offset + 3
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, bytes([whole[at] ^ 64]), at)
    os.close(fd)
    segment = open_again(path)
    assert segment.index is None
    assert segment.index_damage is not None
    assert (segment.index_damage.damage, segment.index_damage.section) == ("checksum", section)
    vectors = clouds(ROWS, DIM, seed=1)
    answer = search([Part(segment)], Query(vectors[0], "cosine"), 5, ties=lambda _, p: p.tolist())
    order = np.argsort(exact_distances("cosine", vectors[0], vectors))[:5]
    assert [hit.position for hit in answer.hits] == order.tolist()
    assert answer.parts[0].way == "exact"
    assert section in str(answer.parts[0].damage)


@pytest.mark.parametrize(
    "section", ["rows", "ids", "ids.bounds", "vectors", "vectors.squares", "about"]
)
def test_anything_else_damaged_is_an_error(tmp_path: Path, whole: bytes, section: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(whole)
    at = open_again(path).file.sections[section].offset
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, bytes([whole[at] ^ 1]), at)
    os.close(fd)
    with pytest.raises(SegmentDamaged) as caught:
        open_again(path)
    assert (caught.value.damage, caught.value.section) == ("checksum", section)


def test_an_index_of_another_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bytes
) -> None:
    path = tmp_path / "a"
    path.write_bytes(whole)
    monkeypatch.setattr(segment_module, "VERSION", "99.9")
    segment = open_again(path)
    assert segment.index is None
    assert segment.index_damage is not None
    assert segment.index_damage.damage == "version"
