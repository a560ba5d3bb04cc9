"""``make demo``: it ends by itself with 0, leaves nothing running and no files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
DEMO = [sys.executable, str(CHECKOUT / "scripts" / "demo.py")]


def environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch)}


def run(scratch: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(scratch),
        check=False,
    )


def servers_on(scratch: Path) -> list[str]:
    """Command lines of processes that mention ``scratch``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if str(scratch) in line:
            found.append(line)
    return found


@pytest.mark.slow
def test_the_tour(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for part in ("get_subtree", "get_nodes_by_page", "0.38 EUR", "0.30 EUR", "kill -9"):
        assert part in done.stdout
    assert "Everything is there." in done.stdout
    assert "stopped with exit code 0" in done.stdout
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert servers_on(tmp_path) == []


@pytest.mark.slow
def test_the_tour_of_a_file(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    file = tmp_path / "mine.md"
    file.write_text("# One\n\nText of one.\n\n## Two\n\n### Three\n\nDeep down.\n")
    done = run(scratch, file)
    assert done.returncode == 0, done.stderr
    assert "get_ancestor_path('mine', '0002')" in done.stdout
    assert "get_nodes_by_page" not in done.stdout  # Markdown has no pages
    assert "Deep down." in done.stdout
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "part"), [(None, "There is no file"), ("{", "not JSON"), ("", "empty")]
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: str | None, part: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_text(content)
    done = run(scratch, file)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert part in done.stderr
    assert list(scratch.iterdir()) == []
    assert servers_on(scratch) == []


def test_a_signal_cleans_up(tmp_path: Path) -> None:
    process = subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    deadline = time.monotonic() + 60
    while not servers_on(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert servers_on(tmp_path)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    assert servers_on(tmp_path) == []
