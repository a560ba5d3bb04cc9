"""What README.md shows works as it stands there: its examples run, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"<!-- tested: (\w+) -->\n```\w+\n(.*?)```", README, re.DOTALL))

# Documents that are written along with the parts that they describe.
TO_BE_WRITTEN: set[str] = set()


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TREESTORE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_blocks_are_found() -> None:
    assert set(BLOCKS) == {"python", "client", "shell"}


def test_embedded_example(tmp_path: Path) -> None:
    done = run([sys.executable, "-c", BLOCKS["python"]], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Annual leave > Carrying over" in done.stdout
    assert "0002 Carrying over Five days" in done.stdout


@pytest.mark.slow
def test_client_example(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "treestore.cli", "serve", "--data", str(tmp_path / "data")),
            *("--port", "0", "--http-port", "0", "--metrics-port", "0"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert server.stdout is not None
        found = re.search(r"tcp=(\S+)", server.stdout.readline())
        assert found is not None
        # The port is the one thing that a test cannot take as it stands.
        code = BLOCKS["client"].replace("127.0.0.1:7707", found[1])
        assert code != BLOCKS["client"]
        done = run([sys.executable, "-c", code], tmp_path)
        assert done.returncode == 0, done.stderr
        assert "b'greeting' b'hello'" in done.stdout
        done = run([sys.executable, str(CHECKOUT / "examples/client.py"), found[1]], tmp_path)
        assert "visit number 1" in done.stdout, done.stderr
    finally:
        server.kill()
        server.communicate()


@pytest.mark.slow
def test_shell_example(tmp_path: Path) -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        shutil.copy(CHECKOUT / name, tmp_path)
    shutil.copytree(CHECKOUT / "examples", tmp_path / "examples")
    done = run(["sh", "-ec", BLOCKS["shell"]], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "policy travel-policy, version 2025-07-01, 36 nodes" in done.stdout
    assert "no errors" in done.stdout


def test_example_program(tmp_path: Path) -> None:
    done = run([sys.executable, str(CHECKOUT / "examples" / "embedded.py")], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Getting there > Air > Class of travel" in done.stdout


def test_links_lead_somewhere() -> None:
    links = set(re.findall(r"\]\(([^)#]+)", README))
    files = {link for link in links if "://" not in link}
    assert files
    missing = {link for link in files if not (CHECKOUT / link).is_file()}
    assert missing <= TO_BE_WRITTEN
