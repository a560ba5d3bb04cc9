"""The examples of docs/search.md work as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.test_readme import CHECKOUT
from tests.test_readme import run as run_program

PAGE = (CHECKOUT / "docs" / "search.md").read_text("utf-8")
EXAMPLES = re.findall(
    r"<!-- tested: (\w+) -->\n```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL
)


def test_all_examples_are_tested() -> None:
    assert [name for name, _, _ in EXAMPLES] == ["namespaces", "hybrid"]
    assert PAGE.count("```python") == len(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "printed"), [its[1:] for its in EXAMPLES], ids=[its[0] for its in EXAMPLES]
)
def test_an_example_prints_what_the_page_says(tmp_path: Path, program: str, printed: str) -> None:
    done = run_program([sys.executable, "-W", "error", "-c", program], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")
