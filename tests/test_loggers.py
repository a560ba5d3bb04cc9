"""Log lines of a store that is embedded, and of one that is not."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from treestore.loggers import get_logger


@pytest.fixture(autouse=True)
def as_imported() -> Iterator[None]:
    """Nobody has set structlog up."""
    configured = structlog.is_configured()
    before = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if configured:
        structlog.configure(**before)


def test_without_structlog_lines_go_to_logging(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    log = get_logger("treestore.some_part")
    with caplog.at_level(logging.INFO, "treestore"):
        log.debug("nobody asked for this")
        log.info("100 % done", rows=7, name="n")
        try:
            raise ValueError("wrong")
        except ValueError:
            log.exception("it failed", part=1)
    first, second = caplog.records
    assert (first.name, first.levelname) == ("treestore.some_part", "INFO")
    assert first.getMessage() == "100 % done rows=7 name='n'"
    assert (second.levelname, second.getMessage()) == ("ERROR", "it failed part=1")
    assert second.exc_info is not None
    assert isinstance(second.exc_info[1], ValueError)
    assert capsys.readouterr().out == ""


def test_with_structlog_lines_go_there_with_their_fields(caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("treestore.some_part")
    with structlog.testing.capture_logs() as lines:
        log.warning("look", rows=7)
    assert lines == [{"event": "look", "rows": 7, "log_level": "warning"}]
    assert caplog.records == []


EMBEDDED = """
import sys, trio, treestore
from actors.supervisor import Supervisor

async def fails():
    raise RuntimeError("a fault")

async def main():
    async with treestore.open(sys.argv[1]):
        async with trio.open_nursery() as nursery:
            Supervisor(nursery).start("some actor", fails)
            await trio.sleep(0.02)
            nursery.cancel_scope.cancel()

trio.run(main)
"""


def test_an_embedded_store_leaves_standard_output_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED, str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == ""
    assert "an actor crashed and is restarted actor='some actor'" in done.stderr
    assert "RuntimeError: a fault" in done.stderr
