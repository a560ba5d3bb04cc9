"""Files of sections: whole, or recognised as damaged, whatever happens to them."""

from __future__ import annotations

import gc
import os
import uuid
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.search.vectors.examples import DATABASE, SEGMENT
from treestore.search.vectors import segment_file
from treestore.search.vectors.segment_file import (
    PAGE_BYTES,
    SegmentDamaged,
    SegmentFile,
    SegmentWriter,
    list_segment_files,
    make_folder,
    remove_segment_file,
)

SECTIONS = {
    "numbers": np.arange(300, dtype=np.int64).tobytes(),
    "nothing": b"",
    "Füße/ñ": b"x" * 5000,
    "one": b"1",
}


def write(path: Path, sections: dict[str, bytes] = SECTIONS) -> int:
    with SegmentWriter(path, database=DATABASE, segment=SEGMENT) as file:
        for name, content in sections.items():
            file.add(name, content, alignment=PAGE_BYTES if name == "numbers" else 64)
        return file.commit()


def read(path: Path, checksum: int | None = None) -> SegmentFile:
    file = SegmentFile.open(path, database=DATABASE, segment=SEGMENT, checksum=checksum)
    file.verify()
    return file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    checksum = write(path)
    file = read(path, checksum)
    assert list(file.sections) == list(SECTIONS)
    for name, content in SECTIONS.items():
        assert name in file
        assert bytes(file.view(name)) == content
        assert file.sections[name].offset % 64 == 0
    assert file.sections["numbers"].offset % PAGE_BYTES == 0
    numbers = file.array("numbers", np.int64, (100, 3))
    assert numbers.tolist() == np.arange(300).reshape(100, 3).tolist()
    with pytest.raises(ValueError):
        numbers[0] = 1
    assert file.size == path.stat().st_size
    assert (file.checksum, file.database, file.segment) == (checksum, DATABASE, SEGMENT)
    assert file.warm() >= sum(map(len, SECTIONS.values()))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@given(
    st.dictionaries(st.text(min_size=1, max_size=20).filter(str.isprintable), st.binary()),
    st.integers(1, 50),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sections_in_pieces(tmp_path: Path, sections: dict[str, bytes], step: int) -> None:
    path = tmp_path / "a"
    with SegmentWriter(path, database=DATABASE, segment=SEGMENT) as file:
        for name, content in sections.items():
            with file.section(name) as add:
                for start in range(0, len(content), step):
                    add(content[start : start + step])
            if content:
                written = file.written(name, np.uint8, (len(content),))
                assert written.tobytes() == content
        checksum = file.commit()
    found = read(path, checksum)
    assert {name: bytes(found.view(name)) for name in found.sections} == sections


def test_the_bytes_are_those_of_the_page(tmp_path: Path) -> None:
    """docs/segment-format.md, read by a program of its own."""
    path = tmp_path / "a"
    checksum = write(path)
    whole = path.read_bytes()

    def number(at: int, size: int) -> int:
        return int.from_bytes(whole[at : at + size], "little")

    assert whole[:8] == b"TSsegmnt"
    assert number(8, 4) == 1
    assert whole[12:28] == DATABASE.bytes
    assert whole[28:44] == SEGMENT.bytes
    assert number(44, 8) == len(whole)
    table, table_size = number(52, 8), number(60, 8)
    assert table + table_size == len(whole)
    assert number(72, 4) == crc32c(whole[table:])
    assert number(76, 4) == 0
    assert not any(whole[80:4092])
    assert number(4092, 4) == crc32c(whole[:4092]) == checksum
    at, expected, found = table, 4096, {}
    for _ in range(number(68, 4)):
        offset, size, extent = number(at, 8), number(at + 8, 8), number(at + 16, 8)
        assert offset == expected
        expected = offset + extent
        assert number(at + 24, 4) == crc32c(whole[offset:expected])
        assert not any(whole[offset + size : expected])
        name = whole[at + 32 : at + 32 + number(at + 28, 2)].decode()
        found[name] = whole[offset : offset + size]
        at += -(-(32 + number(at + 28, 2)) // 8) * 8
    assert (at, expected) == (len(whole), table)
    assert found == SECTIONS


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    checksum = write(path)
    whole = path.read_bytes()
    regions = {name: section for name, section in read(path).sections.items() if section.extent}
    fd = os.open(path, os.O_RDWR)
    for at in range(len(whole)):
        os.pwrite(fd, bytes([whole[at] ^ 1 << at % 8]), at)
        with pytest.raises(SegmentDamaged) as caught:
            read(path, checksum)
        inside = [n for n, s in regions.items() if s.offset <= at < s.offset + s.extent]
        assert caught.value.section == (inside[0] if inside else None), at
        assert caught.value.path == path
        os.pwrite(fd, whole[at : at + 1], at)
    os.close(fd)
    read(path, checksum)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(SegmentDamaged) as caught:
            read(path)
        assert caught.value.damage in ("cut", "checksum")
    path.write_bytes(whole + b"\0")
    with pytest.raises(SegmentDamaged, match="bytes"):
        read(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    checksum = write(path)
    other = uuid.UUID(int=99)
    for database, segment, known in (
        (other, SEGMENT, None),
        (DATABASE, other, None),
        (DATABASE, SEGMENT, checksum ^ 1),
    ):
        with pytest.raises(SegmentDamaged) as caught:
            SegmentFile.open(path, database=database, segment=segment, checksum=known)
        assert caught.value.damage == "foreign"
        assert caught.value.section is None


def test_other_versions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    monkeypatch.setattr(segment_file, "FORMAT_VERSION", 2)
    write(path)
    monkeypatch.undo()
    with pytest.raises(SegmentDamaged, match="version 2") as caught:
        read(path)
    assert caught.value.damage == "version"


def test_what_is_no_segment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(SegmentDamaged) as caught:
        read(path)
    assert caught.value.damage == "missing"
    path.write_bytes(b"hello" * 5000)
    with pytest.raises(SegmentDamaged):
        read(path)
    with pytest.raises(OSError):
        read(tmp_path)


def test_a_section_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path)
    file = read(path)
    with pytest.raises(SegmentDamaged) as caught:
        file.view("columns")
    assert (caught.value.damage, caught.value.section) == ("content", "columns")
    with pytest.raises(SegmentDamaged):
        file.array("numbers", np.int64, (301,))


def test_nothing_stays_of_what_was_not_committed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(KeyError), SegmentWriter(path, database=DATABASE, segment=SEGMENT) as file:
        file.add("x", b"abc")
        assert list(list_segment_files(tmp_path)) != []
        raise KeyError
    assert list(list_segment_files(tmp_path)) == []


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path)
    before = read(path)
    write(path, {"x": b"new"})
    assert bytes(read(path).view("x")) == b"new"
    # Whoever has the old one open still reads it.
    before.verify()


def test_a_mapping_lives_as_long_as_what_uses_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path)
    file = read(path)
    numbers = file.array("numbers", np.int64, (300,))
    assert not hasattr(file, "close")
    del file
    gc.collect()
    remove_segment_file(path)
    remove_segment_file(path)
    assert not path.exists()
    assert numbers.sum() == 299 * 150


def test_names_and_order_of_sections(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path / "a", database=DATABASE, segment=SEGMENT) as file:
        file.add("x", b"abc")
        for name in ("x", "", "y" * 1001):
            with pytest.raises(ValueError):
                file.add(name, b"")
        for alignment in (32, 100, 8192):
            with pytest.raises(ValueError):
                file.add("z", b"", alignment=alignment)
        with file.section("y"), pytest.raises(RuntimeError):
            file.add("w", b"")


def test_verifying_can_be_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        read(path).verify(pause=stop)


def test_folders(tmp_path: Path) -> None:
    folder = tmp_path / "x" / "y"
    assert list(list_segment_files(folder)) == []
    make_folder(folder)
    make_folder(folder)
    assert folder.is_dir()
