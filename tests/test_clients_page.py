"""What docs/clients.md shows works as it stands there."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest

import treestore
from tests.client.served import served
from tests.test_readme import CHECKOUT
from tests.test_readme import run as run_program
from treestore.client.breaker import Breaker

PAGE = (CHECKOUT / "docs" / "clients.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"<!-- tested: (\w+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))

SHOWN = {
    "asyncio": "b'greeting' b'hello'\nb'hello'\n",
    "trio": "b'greeting' b'hello'\nb'hello'\n",
    "blocking": "b'greeting' b'hello'\nb'hello'\n",
    "limits": "durable\n",
    "streams": "found b'010'\n",
}


def test_every_example_is_tested() -> None:
    assert BLOCKS.keys() == SHOWN.keys()
    assert PAGE.count("```python") == len(BLOCKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHOWN))
def test_example(name: str, tmp_path: Path) -> None:
    with served() as scene:
        # The port is the one thing that a test cannot take as it stands.
        code = BLOCKS[name].replace("127.0.0.1:7707", scene.address)
        assert code != BLOCKS[name]
        done = run_program([sys.executable, "-W", "error", "-c", code], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, SHOWN[name], "")


def test_the_settings_are_those_of_both_functions() -> None:
    asynchronous = inspect.signature(treestore.connect).parameters
    blocking = inspect.signature(treestore.connect_sync).parameters
    assert list(asynchronous.values()) == list(blocking.values())
    table = re.search(r"## Settings\n(.*?)\n## ", PAGE, re.DOTALL)
    assert table is not None
    shown = re.findall(r"^\| `(\w+)` \| (\S+)", table[1], re.MULTILINE)
    assert {name for name, _ in shown} == asynchronous.keys() - {"address"}
    for name, default in shown:
        value = asynchronous[name].default
        expected = (
            f'`"{value}"`' if isinstance(value, str) else f"{value:g}" if value else str(value)
        )
        assert default == expected, name
    assert asynchronous["breaker_failures"].default == Breaker().failures_max
    assert asynchronous["breaker_pause"].default == Breaker().pause_s
