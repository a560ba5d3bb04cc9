"""docs/properties.md and the tests of this folder name the same 37 properties."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PAGE = (HERE.parents[1] / "docs/properties.md").read_text("utf-8")

NUMBERS = range(1, 38)


def found_here() -> dict[int, dict[str, str]]:
    """Number → the tests' names behind it, and what they say."""
    found: dict[int, dict[str, str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            named = re.match(r"test_property_(\d\d)_(\w+)$", getattr(node, "name", ""))
            if named and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert any("given" in ast.unparse(each) for each in node.decorator_list), named[0]
                says = " ".join((ast.get_docstring(node) or "").split())
                found.setdefault(int(named[1]), {})[named[2].replace("_", " ")] = says
    return found


TESTS = found_here()
ROWS = {
    int(row[0]): row[1:]
    for row in re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
}


def test_all_of_them_are_there() -> None:
    assert sorted(TESTS) == list(ROWS) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_row_says_what_its_tests_say(number: int) -> None:
    name, says, more = ROWS[number]
    mine = TESTS[number]
    assert name in mine
    assert all(each.startswith(name) for each in mine)
    assert says == " ".join(mine.values())
    assert says
    for path in re.findall(r"`(tests/[^`]+)`", more):
        assert (HERE.parents[1] / path).exists(), path
