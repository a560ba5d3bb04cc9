"""``treestore watch`` as a process beside a server's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import (
    CHECKOUT,
    EXAMPLE,
    FREE_PORTS,
    TIMEOUT_S,
    Running,
    environment,
    treestore,
)

ONE = ("--service", "documents", "--limit", "1")


@pytest.fixture
def server(serve: Callable[..., Running], tmp_path: Path) -> Running:
    return serve("--data", tmp_path / "data", *FREE_PORTS)


def watching(server: Running, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "treestore.cli", "watch"),
            *("--connect", server.facts["tcp"], *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=CHECKOUT,
    )


def ingest(server: Running) -> None:
    connect = ("--connect", server.facts["tcp"])
    done = treestore("ingest", EXAMPLE / "2024-01-01.json", "--policy-id", "travel", *connect)
    assert done.returncode == 0, done.stderr


def test_lines_of_json_can_be_gone_on_from(server: Running) -> None:
    ingest(server)
    connect = ("--connect", server.facts["tcp"])
    first = treestore("watch", *connect, "--from-lsn", "0", *ONE, "--json")
    assert first.returncode == 0, first.stderr
    [change] = map(json.loads, first.stdout.splitlines())
    assert (change["service"], change["entity"], change["kind"]) == (
        *("documents", "document"),
        "stored",
    )
    assert change["last"] is True
    ingest(server)
    rest = treestore("watch", *connect, "--from-lsn", change["position"], *ONE, "--json")
    [following] = map(json.loads, rest.stdout.splitlines())
    assert following["lsn"] > change["lsn"]
    people = treestore("watch", *connect, "--from-lsn", "0", *ONE)
    assert f"documents document stored  policy {change['policy_id']}" in people.stdout


def test_it_ends_with_ctrl_c(server: Running) -> None:
    process = watching(server, "--from-lsn", "0", "--service", "documents", "--json")
    ingest(server)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["kind"] == "stored"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (130, "treestore: interrupted\n")


def test_what_makes_no_sense_is_said(server: Running, run_here: Callable[..., Any]) -> None:
    for arguments, code, words in (
        (("--from-lsn", "nonsense"), 1, "from_lsn is an LSN"),
        (("--from-lsn", "999"), 1, "in the future"),
        (("--from-lsn", "00000000-1-0"), 1, "another history"),
        (("--service", "none"), 1, "has no changes to watch"),
        (("--service", "kv", "--policy", "p"), 1, "No change can be of all"),
        (("--limit", "0"), 2, "0 is not in the range"),
    ):
        done = run_here(["watch", "--connect", server.facts["tcp"], *arguments])
        assert done.returncode == code
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_directory_is_not_watched(run_here: Callable[..., Any], tmp_path: Path) -> None:
    done = run_here(["watch", "--data", str(tmp_path)])
    assert done.returncode == 2
    assert "watch a server" in done.stderr
