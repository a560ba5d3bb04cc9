"""The examples of docs/backup.md work as they stand there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.test_readme import CHECKOUT, run

PAGE = (CHECKOUT / "docs" / "backup.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"<!-- tested: (\w+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))


def test_blocks_are_found() -> None:
    assert set(BLOCKS) == {"backup", "restore"}


@pytest.mark.slow
def test_examples(tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "README.md", tmp_path / "handbook.md")
    shutil.copy(CHECKOUT / "CONTRIBUTING.md", tmp_path / "minutes.md")
    done = run(["sh", "-ec", BLOCKS["backup"] + BLOCKS["restore"]], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "a full backup" in done.stdout
    assert "an incremental backup" in done.stdout
    assert "timeline 2, which leaves timeline 1" in done.stdout
    assert "node 0001" in done.stdout
