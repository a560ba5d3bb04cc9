"""``docs/durability.md`` promises tests by name; they are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "durability.md"
REQUIREMENTS = 15


def test_every_requirement_has_a_test_that_names_it() -> None:
    promised = re.findall(r"^\| (\d+) \|.*\| `requirement_(\d+)_` \|$", PAGE.read_text(), re.M)
    assert [int(number) for number, _ in promised] == list(range(1, REQUIREMENTS + 1))
    assert all(number == name for number, name in promised)
    sources = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    for number, _ in promised:
        assert re.search(rf"^(?:async )?def test_requirement_{number}_", sources, re.M), number


def test_every_command_of_the_page_is_one() -> None:
    source = (TESTS.parent / "scripts" / "chaos.py").read_text()
    named = set(re.findall(r"scripts/chaos\.py (\w+)", PAGE.read_text()))
    assert {"simulate", "service", "kill", "bitrot", "fuzz", "load"} <= named
    for name in named:
        assert f"def {name}(" in source, name
