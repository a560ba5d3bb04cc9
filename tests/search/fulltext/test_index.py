"""The folder of a namespace's index: what is opened, what is refused, what is made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from treestore.model.namespaces import FullTextSchema
from treestore.search.folder import IndexFailed
from treestore.search.fulltext import index as index_module
from treestore.search.fulltext.generations import NamespaceTexts
from treestore.search.fulltext.index import FullTextIndex, Identity, View
from treestore.search.fulltext.request import make_request
from treestore.search.fulltext.searching import Search
from treestore.search.fulltext.writers import Writers

IDENTITY = Identity(b"database", 3, 7)
SCHEMA = {"t": FullTextSchema()}
ROWS = [1, 5, 1 << 62, (1 << 63) - 1, 1_763_750_000_000_000 * 4096 + 17]


def opened(path: Path, identity: Identity = IDENTITY, **schema: FullTextSchema) -> NamespaceTexts:
    texts = NamespaceTexts(path, identity, Writers())
    texts.open(schema or SCHEMA)
    return texts


def filled(path: Path) -> None:
    texts = opened(path)
    for row in ROWS:
        texts.add(row, {"t": f"tax {row}"})
    texts.commit()
    texts.remove([5])
    texts.commit()
    texts.close()


def rows(texts: NamespaceTexts) -> list[int]:
    assert texts.serving.view is not None
    return texts.serving.view.rows().tolist()


def found(view: View | None, query: str, *names: str) -> list[int]:
    assert view is not None
    request = make_request(query, names or ("t",))
    return sorted(hit.row for hit in Search(view, request).best(50))


LEFT = sorted(set(ROWS) - {5})


def test_what_was_committed_is_there_again(tmp_path: Path) -> None:
    filled(tmp_path)
    texts = opened(tmp_path)
    assert (rows(texts), texts.why, texts.making) == (LEFT, "", None)
    assert found(texts.serving.view, "tax") == LEFT
    texts.add(6, {"t": "not committed"})
    texts.close()
    texts = opened(tmp_path)
    assert rows(texts) == LEFT
    texts.add(6, {"t": "house", "unknown": "x"})
    texts.add(8, {"other": "x"})
    texts.commit()
    assert rows(texts) == sorted([*LEFT, 6, 8])
    texts.delete()
    assert not tmp_path.exists()


def test_many_rows_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "ROWS_PER_READ", 3)
    monkeypatch.setattr(index_module, "ROWS_PER_DELETION", 2)
    texts = opened(tmp_path)
    for row in range(-7, 20):
        texts.add(row, {"t": "a"})
    texts.commit()
    assert rows(texts) == list(range(-7, 20))
    texts.remove(range(5))
    texts.commit()
    assert rows(texts) == [*range(-7, 0), *range(5, 20)]
    texts.close()


@pytest.mark.parametrize(
    "changed",
    [{"database_uuid": b"other"}, {"timeline": 4}, {"namespace": 8}],
    ids=lambda changed: next(iter(changed)),
)
def test_an_index_of_somebody_else_is_made_again(tmp_path: Path, changed: dict[str, Any]) -> None:
    filled(tmp_path)
    texts = opened(tmp_path, attrs.evolve(IDENTITY, **changed))
    assert rows(texts) == []
    assert "it is of another" in texts.why
    texts.close()


def test_an_index_of_another_version_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    monkeypatch.setattr(index_module, "analysis_version", lambda: "later")
    texts = opened(tmp_path)
    assert rows(texts) == []
    assert "another version" in texts.why
    texts.close()


@pytest.mark.slow
def test_damage_of_each_file_is_noticed(tmp_path: Path) -> None:
    """Whatever is flipped, cut off or missing, the folder opens; it has all rows, or none."""
    filled(tmp_path / "whole")
    contents = {
        file.name: file.read_bytes()
        for file in sorted((tmp_path / "whole" / "1").iterdir())
        if file.is_file()
    }
    assert len(contents) > 6
    noticed = 0
    for number, (name, content) in enumerate(contents.items()):
        for how, damaged in enumerate((None, content[: len(content) // 2], flipped(content))):
            folder = tmp_path / f"{number}-{how}" / "1"
            folder.mkdir(parents=True)
            for other, its in contents.items():
                if other != name:
                    (folder / other).write_bytes(its)
                elif damaged is not None:
                    (folder / other).write_bytes(damaged)
            texts = opened(folder.parent)
            assert rows(texts) in (LEFT, []), (name, how)
            assert (rows(texts) == []) == bool(texts.why), (name, how)
            noticed += bool(texts.why)
            if texts.why and not how:
                texts.add(77, {"t": "again"})
                assert found(texts.commit(), "again") == [77]
            texts.close()
    assert noticed >= 3 * 6


def flipped(content: bytes) -> bytes:
    at = len(content) // 3
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :] if content else b"x"


def test_another_schema_is_made_beside_the_one_that_serves(tmp_path: Path) -> None:
    filled(tmp_path)
    plain = FullTextSchema(stemming=False)
    texts = opened(tmp_path)
    texts.add(9, {"t": "taxes"})
    texts.commit()
    assert texts.change(SCHEMA) is False
    assert texts.change({"t": plain, "u": plain})
    assert texts.making is not None
    texts.add(10, {"t": "taxes", "u": "new"})
    texts.commit()
    # The old one serves, with its own stems and without the attribute that it does not know.
    assert found(texts.serving.view, "tax") == sorted([*LEFT, 9, 10])
    assert found(texts.serving.view, "new u:new", "t", "u") == []
    assert found(texts.serving.view, "+taxes +u:new", "t", "u") == []
    texts.close()
    texts = opened(tmp_path, t=plain, u=plain)
    assert texts.making is not None
    assert rows(texts) == sorted([*LEFT, 9, 10])
    assert texts.making.view is not None
    assert texts.making.view.rows().tolist() == [10]
    before = texts.serving.view
    texts.making.add(9, {"t": "taxes"})
    view = texts.finish()
    assert texts.making is None
    assert found(view, "taxes") == [9, 10]
    assert found(view, "tax") == []
    assert found(view, "u:new", "t", "u") == [10]
    assert found(before, "tax") == sorted([*LEFT, 9, 10])  # Its files are gone.
    assert [file.name for file in tmp_path.iterdir()] == ["2"]
    texts.close()
    texts = opened(tmp_path, t=plain, u=plain)
    assert (rows(texts), texts.making) == ([9, 10], None)
    texts.close()


def test_a_schema_that_changes_back_needs_nothing_new(tmp_path: Path) -> None:
    filled(tmp_path)
    texts = opened(tmp_path)
    assert texts.change({"t": FullTextSchema(language="german")})
    assert texts.change({"t": FullTextSchema(language="french")})
    assert texts.change(SCHEMA)
    assert texts.making is None
    assert [file.name for file in tmp_path.iterdir()] == ["1"]
    texts.close()
    texts = opened(tmp_path, t=FullTextSchema(language="german"))
    assert texts.making is not None
    assert texts.why == "it is for another schema"
    texts.start_over()
    assert texts.making is None
    assert rows(texts) == []
    texts.start_over()
    assert rows(texts) == []
    texts.close()


def test_no_more_writers_than_there_may_be(tmp_path: Path) -> None:
    now = [0.0]
    writers = Writers(limit=2, clock=lambda: now[0])
    indexes = [
        FullTextIndex.created(tmp_path / str(n), SCHEMA, IDENTITY, writers) for n in range(4)
    ]
    assert len(writers) == 2
    for turn in range(3):
        for number, index in enumerate(indexes):
            now[0] += 1
            index.add(10 * turn + number, {"t": "tax"})
            assert sum(its.has_writer for its in indexes) == len(writers) == 2
    indexes[2].add(22, {"t": "house"})
    indexes[0].add(40, {"t": "tax"})  # In the place of the one that was used longest ago.
    assert [its.has_writer for its in indexes] == [True, False, True, False]
    # The others gave their writers back, and committed what they had been given before.
    for number in (1, 3):
        assert found(indexes[number].view, "tax") == [number, 10 + number, 20 + number]
        assert not indexes[number].is_dirty
    assert found(indexes[0].view, "tax") == [0, 10, 20]
    assert indexes[0].is_dirty
    now[0] += 1
    indexes[0].commit()
    writers.release_idle(0.5)
    assert [its.has_writer for its in indexes] == [True, False, False, False]
    writers.release_idle(0.0)
    assert len(writers) == 0
    assert found(indexes[0].view, "tax") == [0, 10, 20, 40]
    indexes[0].remove([40])
    indexes[0].commit()
    indexes[0].remove([0])
    indexes[0].close()
    assert len(writers) == 0
    for index in indexes[1:]:
        index.delete()
    again = FullTextIndex.opened(tmp_path / "0", IDENTITY, writers)
    assert found(again.view, "tax") == [0, 10, 20]
    again.close()
    with pytest.raises(IndexFailed):
        FullTextIndex.opened(tmp_path / "1", IDENTITY, writers)
