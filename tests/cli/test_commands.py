"""Every command does what it says, on a data directory and on a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CHECKOUT, EXAMPLE, FREE_PORTS, environment, treestore

pytestmark = pytest.mark.slow  # every test starts processes


def read_json(*arguments: object) -> Any:
    done = treestore(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


def test_tree_lists_documents(stored: Path) -> None:
    documents = read_json("tree", "--data", stored)
    assert [(d["policy_id"], d["version_id"]) for d in documents] == [
        ("travel", "2024-01-01"),
        ("travel", "2025-07-01"),
    ]
    done = treestore("tree", "--data", stored)
    assert "travel" in done.stdout
    assert "2025-07-01" in done.stdout


def test_tree_draws_a_document(stored: Path) -> None:
    done = treestore("tree", "travel", "--data", stored)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "version 2025-07-01 (36 nodes, from 2025-07-01)" in lines[0]
    assert len(lines) == 1 + 36
    assert any(line.endswith("0011  Class of travel  p. 6") for line in lines)
    assert "\x1b" not in done.stdout  # no colour in a pipe


def test_tree_takes_version_node_and_depth(stored: Path) -> None:
    found = read_json(
        *("tree", "travel", "--data", stored),
        *("--version", "2024-01-01", "--node", "0009", "--depth", 1),
    )
    assert found["document"]["version_id"] == "2024-01-01"
    assert [node["node_id"] for node in found["nodes"]] == ["0009", "0010", "0014", "0015"]


def test_get_shows_nodes_with_their_path(stored: Path) -> None:
    nodes = read_json("get", "travel", "0016", "0011", "--data", stored)
    assert [node["node_id"] for node in nodes] == ["0016", "0011"]
    assert [a["title"] for a in nodes[0]["ancestors"]] == ["Getting there", "Car"]
    assert "0.38 EUR" in nodes[0]["text"]
    done = treestore("get", "travel", "0016", "--version", "2024-01-01", "--data", stored)
    assert done.stdout.startswith("Getting there › Car\nOwn car\n")
    assert "0.30 EUR" in done.stdout


def test_stats_counts(stored: Path) -> None:
    found = read_json("stats", "--data", stored)
    assert (found["documents"], found["nodes"]) == (2, 70)
    assert "documents" in treestore("stats", "--data", stored).stdout


def test_check_finds_nothing_wrong(stored: Path) -> None:
    found = read_json("check", "--data", stored)
    assert found["ok"] is True
    assert found["errors"] == []
    assert "no errors" in treestore("check", "--data", stored).stdout


def test_ingest_markdown_and_json_together(tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("# One\n\nfirst\n\n## Two\n\nsecond\n")
    outcomes = read_json("ingest", notes, EXAMPLE / "2024-01-01.json", "--data", tmp_path / "data")
    first, second = (outcome["document"] for outcome in outcomes)
    assert (first["policy_id"], first["node_count"]) == ("notes", 2)
    assert (second["policy_id"], second["node_count"]) == ("2024-01-01", 34)
    # The version is made from the content: the same file again replaces itself.
    again = read_json("ingest", notes, "--data", tmp_path / "data")
    assert again[0]["document"]["version_id"] == first["version_id"]
    assert len(first["version_id"]) == 12


def test_ingest_goes_on_after_a_bad_file(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.json", tmp_path / "good.md"
    bad.write_text("{")
    good.write_text("# Fine\n")
    done = treestore("ingest", bad, good, "--data", tmp_path / "data")
    assert done.returncode == 1
    assert "policy good" in done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert "bad.json" in done.stderr


def test_commands_ask_a_server(tmp_path: Path, serve) -> None:
    server = serve("--data", tmp_path / "data", *FREE_PORTS)
    address = ("--connect", server.facts["tcp"])
    outcomes = read_json("ingest", EXAMPLE / "2025-07-01.json", "--policy-id", "p", *address)
    assert outcomes[0]["document"]["node_count"] == 36
    assert read_json("tree", "p", *address)["document"]["policy_id"] == "p"
    assert read_json("get", "p", "0002", *address)[0]["title"] == "Who is covered"
    assert read_json("stats", *address)["documents"] == 1
    # The same, with the address from the environment.
    done = treestore("tree", TREESTORE_CONNECT=server.facts["tcp"])
    assert "36" in done.stdout


def test_data_directory_from_the_environment(stored: Path) -> None:
    done = treestore("tree", "--json", TREESTORE_DATA_DIR=str(stored))
    assert len(json.loads(done.stdout)) == 2


def test_help_names_every_command() -> None:
    done = treestore("--help")
    assert done.returncode == 0
    for command in ("serve", "ingest", "tree", "get", "stats", "check", "compact", "bench"):
        assert f" {command} " in done.stdout
    assert "\x1b" not in done.stdout


def test_version() -> None:
    assert treestore("--version").stdout.startswith("treestore 0.")


def test_escape_sequences_of_documents_stay_out_of_the_output(tmp_path: Path) -> None:
    evil = tmp_path / "evil.json"
    evil.write_text(json.dumps([{"title": "a\x1b[31m[red]b\nc", "text": "x\x07\x1b]0;t\x07y"}]))
    assert treestore("ingest", evil, "--data", tmp_path / "data").returncode == 0
    for command in (("tree",), ("tree", "evil"), ("get", "evil", "0000")):
        done = treestore(*command, "--data", tmp_path / "data")
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert "\x07" not in done.stdout
    assert "[red]b" in done.stdout


def test_a_closed_pipe_is_quiet(stored: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "treestore.cli", "tree", "travel", "--data", str(stored)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=CHECKOUT,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 141
    process.stderr.close()


def test_ctrl_c_is_quiet(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.md")  # Reading it waits for ever.
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "treestore.cli", "ingest", str(tmp_path / "never.md")),
            *("--data", str(tmp_path / "data")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=CHECKOUT,
    )
    while not (tmp_path / "data" / "pages").exists():
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "treestore: interrupted\n")


@pytest.mark.parametrize("name", ["C", "POSIX"])
def test_output_survives_a_terminal_without_unicode(stored: Path, name: str) -> None:
    done = treestore(
        "get", "travel", "0016", "--data", stored, LC_ALL=name, PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 0, done.stderr
    assert "Own car" in done.stdout
