"""What docs/http.md shows works as it stands there, against a real server."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.http.conftest import operations
from tests.integration.servers import Server
from treestore.errors import BY_CODE
from treestore.stores.operation import OPERATIONS

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PAGE = (CHECKOUT / "docs" / "http.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"<!-- tested: (\w+) -->\n```console\n(.*?)```", PAGE, re.DOTALL))


def test_every_example_is_tested() -> None:
    assert set(BLOCKS) == {"collections", "lines", "operations"}
    assert PAGE.count("```console") == len(BLOCKS)


def test_every_code_is_told() -> None:
    """But for that of restoring, which is not done over HTTP."""
    told = set(re.findall(r"`(\w+)`", PAGE[PAGE.index("## Errors") :]))
    assert set(BY_CODE) - told == {"restore_incomplete"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_example(name: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    if name != "operations" and operations() is not OPERATIONS:
        pytest.skip("there are no collections to be served yet")
    server = Server.start(tmp_path / "data")
    try:
        for example in BLOCKS[name].split("$ ")[1:]:
            command, _, shown = example.partition("\n")
            assert "127.0.0.1:7780" in command
            command = command.replace("127.0.0.1:7780", server.http)
            done = subprocess.run(
                ["bash", "-c", command], capture_output=True, text=True, timeout=20
            )
            pattern = re.escape(shown.rstrip("\n")).replace("…", r"\w+")
            assert re.fullmatch(pattern, done.stdout.rstrip("\n")), (command, done.stdout)
    finally:
        assert server.stop() == 0
