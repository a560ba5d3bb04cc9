"""The example scripts run as they stand there, and say what is true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

import treestore
from actors.database import open_database
from scripts import agent_example, ingest_example
from tests.services.conftest import db
from treestore.tools import tool_definitions

__all__ = ["db"]

CHECKOUT = Path(__file__).resolve().parent.parent


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{module}", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("day", "hours", "status", "version_id"),
    [
        ("2025-08-10", 7, "met", "2025-07-01"),
        ("2025-06-30", 7, "missing", "2024-01-01"),
        ("2025-06-30", 9, "met", "2024-01-01"),
        ("2025-08-10", 6, "missing", "2025-07-01"),
    ],
)
async def test_the_agent_decides_by_the_version_of_the_day(
    tmp_path: Path, day: str, hours: float, status: str, version_id: str
) -> None:
    with trio.fail_after(60):
        async with open_database(tmp_path / "data") as database:
            await agent_example.store_policy(database)
            decision = await agent_example.run_case(database, "case", day, hours)
            assert decision["status"] == status
            assert (decision["policy_section"], decision["policy_pages"]) == ("3.1.1", [6])
            (trajectory,) = await database.metadata.get_trajectories("case")
            assert (trajectory.outcome, trajectory.version_id) == (status, version_id)
            called = [step.tool_name for step in trajectory.steps]
            assert called[-1] == "finish"
            assert set(called) < {tool["name"] for tool in tool_definitions()}
            results = (await database.metadata.get_tool_results("case")).items
            assert [result.tool_name for result in results] == called
            assert all(result.success for result in results)


@pytest.mark.slow
async def test_the_agent_works_on_every_face(db: Any) -> None:
    with trio.fail_after(60):
        await agent_example.store_policy(db)
        decision = await agent_example.run_case(db, "case", "2025-08-10", 7)
        assert decision["status"] == "met"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("agent_example", ("--date", "2025-06-30"), "Decision: missing. Premium economy"),
        ("query_example", ("own car",), "Getting there > Car"),
        ("query_example", ("zebra",), "'zebra': 0 hits"),
        ("temporal_example", (), "more than 8 hours"),
        ("ingest_example", ("examples/travel-policy/2025-07-01.json",), "36 nodes"),
        ("ingest_example", ("docs/tools.md",), "The tools of an agent"),
    ],
)
def test_scripts_run(module: str, arguments: tuple[str, ...], words: str) -> None:
    done = run(module, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("ingest_example", ("no-such-file.json",)),
        ("ingest_example", ("pyproject.toml", "--connect", "127.0.0.1:1")),
        ("agent_example", ("--date", "yesterday")),
    ],
)
def test_scripts_fail_with_one_line(module: str, arguments: tuple[str, ...]) -> None:
    done = run(module, *arguments)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(module)


async def test_what_is_ingested_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "handbook.json"
    file.write_text(json.dumps({"structure": [{"title": "One", "nodes": [{"title": "Two"}]}]}))
    with trio.fail_after(30):
        async with treestore.open(tmp_path / "data") as database:
            await ingest_example.ingest(database, file, "handbook", "v1", "2024-01-01")
            document = await database.documents.get("handbook")
            assert document.node_count == 2
    assert "handbook v1: 2 nodes" in capsys.readouterr().out
