"""Ranking, on judgements that people made."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from scripts.ranking import measure

pytestmark = pytest.mark.slow


async def test_ranking_is_as_good_as_it_was(data_directory: Path, tmp_path: Path) -> None:
    with trio.fail_after(300):
        gain, precision = await measure(data_directory / "cranfield", tmp_path / "data")
    assert gain >= 0.52
    assert precision >= 0.42
