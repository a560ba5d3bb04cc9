"""``treestore search`` on a data directory and on a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import treestore

pytestmark = pytest.mark.slow  # every test starts processes


def test_search_finds_nodes(stored: Path) -> None:
    done = treestore("search", "hotel", "expenses", "--data", stored, "--json")
    assert done.returncode == 0, done.stderr
    hits = json.loads(done.stdout)
    assert 0 < len(hits) <= 10
    assert {hit["node"]["version_id"] for hit in hits} == {"2025-07-01"}
    assert hits[0]["score"] >= hits[-1]["score"] > 0
    done = treestore("search", "hotel", "--limit", 1, "--policy", "travel", "--data", stored)
    assert done.returncode == 0, done.stderr
    assert "travel version 2025-07-01" in done.stdout
    assert "\x1b" not in done.stdout


def test_search_says_when_there_is_nothing(stored: Path) -> None:
    done = treestore("search", "xyzzy", "--data", stored)
    assert (done.returncode, done.stdout.strip()) == (0, "Nothing was found.")


def test_search_refuses_what_makes_no_sense(stored: Path) -> None:
    for arguments in (["--", "-word"], ["tax", "--language", "klingon"], ["tax", "--version", "1"]):
        done = treestore("search", "--data", stored, *arguments)
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
