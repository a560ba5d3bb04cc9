"""Real versions against brute force; ``python -m scripts.versions_check`` runs all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import treestore
from scripts.versions_check import (
    Mismatch,
    Section,
    check_diff,
    check_law,
    check_overlapping,
    check_sections,
    read_sections,
)

pytestmark = pytest.mark.slow


async def test_sections_of_the_dc_code(data_directory: Path, tmp_path: Path) -> None:
    sections = read_sections(data_directory, 12)
    with trio.fail_after(120):
        async with treestore.open(str(tmp_path / "data")) as db:
            counts = await check_sections(db, sections)
            assert counts["versions"] > 40
            await check_overlapping(db, sections)
            assert (await db.admin.check()).ok


async def test_differences_of_estonian_laws(data_directory: Path, tmp_path: Path) -> None:
    law = data_directory / "estonian-law" / "27072.versions.jsonl.xz"
    with trio.fail_after(120):
        async with treestore.open(str(tmp_path / "data")) as db:
            for stable in (True, False):
                counts = await check_law(db, law, 5, stable)
                assert counts["diffs"] == 4
                assert counts["changed"] > 0


async def test_a_mismatch_is_told(data_directory: Path, tmp_path: Path) -> None:
    """The comparison can fail."""
    section = read_sections(data_directory, 1)[0]
    wrong = Section(section.name, section.events[:-1])
    with trio.fail_after(60):
        async with treestore.open(str(tmp_path / "data")) as db:
            await check_sections(db, [section])
            with pytest.RaisesGroup(Mismatch, flatten_subgroups=True):
                await check_sections(db, [wrong])
            store = db.documents.store
            await store("p", "a", [{"node_id": "1", "title": "a"}])
            await store("p", "b", [{"node_id": "1", "title": "b"}])
            old = await db.documents.get_subtree("p", version_id="a")
            new = await db.documents.get_subtree("p", version_id="b")
            with pytest.raises(Mismatch):
                check_diff(old, new, [], "nothing")
