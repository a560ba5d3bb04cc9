"""``as-of``, ``versions`` and ``diff``, on a data directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # what they read is stored by processes

Run = Callable[[list[str]], CompletedProcess[str]]


@pytest.fixture
def treestore(run_here: Run, stored: Path) -> Callable[..., CompletedProcess[str]]:
    """Runs a command on the stored data."""
    return lambda *arguments: run_here([*arguments, "--data", str(stored)])


@pytest.fixture
def read_json(treestore: Callable[..., CompletedProcess[str]]) -> Callable[..., Any]:
    """What a command prints for machines."""

    def read(*arguments: str) -> Any:
        done = treestore(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return read


def test_as_of(treestore: Any, read_json: Any) -> None:
    found = read_json("as-of", "travel", "2024-05-01")
    assert found["version_id"] == "2024-01-01"
    assert found["has_document"] is True
    done = treestore("as-of", "travel", "2026-01-01")
    assert "2025-07-01" in done.stdout
    done = treestore("as-of", "travel", "2023-12-31")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the nearest after is '2024-01-01'" in done.stderr
    done = treestore("as-of", "travel", "some day")
    assert done.returncode == 1
    assert "is no date" in done.stderr
    done = treestore("as-of", "travel", "2026-01-01", "--known-at", "2001-01-01")
    assert "Nothing was recorded" in done.stderr


def test_versions(treestore: Any, read_json: Any) -> None:
    found = read_json("versions", "travel")
    assert [version["version_id"] for version in found] == ["2024-01-01", "2025-07-01"]
    done = treestore("versions", "travel")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "version",
        "2024-01-01",
        "2025-07-01",
    ]
    states = read_json("versions", "travel", "2025-07-01")
    assert [state["change"] for state in states] == ["created"]
    done = treestore("versions", "travel", "2025-07-01")
    assert "created" in done.stdout.splitlines()[1]
    assert read_json("versions", "travel", "--tag", "x") == []
    done = treestore("versions", "travel", "2025-07-01", "--tag", "x")
    assert done.returncode == 2


def test_diff(treestore: Any, read_json: Any) -> None:
    changes = read_json("diff", "travel", "2024-01-01", "2025-07-01")
    kinds = {change["kind"] for change in changes}
    assert "changed" in kinds
    done = treestore("diff", "travel", "2024-01-01", "2025-07-01")
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line[:1] in "+-~>"]) == len(changes)
    assert f"{sum(c['kind'] == 'changed' for c in changes)} changed" in lines[-1]
    done = treestore("diff", "travel", "2025-07-01", "2025-07-01")
    assert done.stdout == "Nothing differs.\n"
    done = treestore("diff", "travel", "2025-07-01", "nothing")
    assert done.returncode == 1
    assert "No document is stored" in done.stderr
