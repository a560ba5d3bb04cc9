"""The example of docs/search.md works as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.test_readme import CHECKOUT
from tests.test_readme import run as run_program

PAGE = (CHECKOUT / "docs" / "search.md").read_text("utf-8")


@pytest.mark.slow
def test_the_example_prints_what_the_page_says(tmp_path: Path) -> None:
    found = re.search(
        r"<!-- tested: namespaces -->\n```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL
    )
    assert found is not None
    assert PAGE.count("```python") == 1
    done = run_program([sys.executable, "-W", "error", "-c", found[1]], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, found[2], "")
