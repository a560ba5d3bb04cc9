"""``repair`` and ``dump`` on real directories, whole and damaged."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treestore.engine.meta import SLOT_OFFSETS
from treestore.engine.page import LEAF
from treestore.engine.realdisk import RealDisk
from treestore.engine.salvage.scan import scan_runs

pytestmark = pytest.mark.slow  # every test starts processes

PAGE_SIZE = 8192


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    """A copy of the stored example that may be damaged."""
    shutil.copytree(stored, tmp_path / "copy")
    return tmp_path / "copy"


Run = Callable[[list[str]], subprocess.CompletedProcess[str]]


@pytest.fixture
def treestore(run_here: Run) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in this process."""
    return lambda *arguments: run_here([str(each) for each in arguments])


@pytest.fixture
def lines(treestore: Callable[..., Any]) -> Callable[..., list[dict[str, Any]]]:
    """What ``dump --json`` says."""

    def lines(*arguments: object) -> list[dict[str, Any]]:
        done = treestore("dump", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return lines


def rot(file: Path, offset: int) -> None:
    """Change a byte, whatever it is."""
    with file.open("r+b") as stream:
        stream.seek(offset)
        before = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([before[0] ^ 1]))


def files_of(data: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in sorted(data.rglob("*"))
        if path.is_file()
    }


def test_repair_of_a_whole_store(treestore, copy: Path, tmp_path: Path) -> None:
    before = files_of(copy)
    done = treestore("repair", "--data", copy, "--output", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert "nothing was skipped" in done.stdout
    assert files_of(copy) == before
    assert treestore("check", "--data", tmp_path / "new").returncode == 0
    old = json.loads(treestore("tree", "--data", copy, "--json").stdout)
    assert json.loads(treestore("tree", "--data", tmp_path / "new", "--json").stdout) == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "new"]


def test_requirement_14_repair_names_what_is_lost(treestore, copy: Path, tmp_path: Path) -> None:
    """A leaf of documents is gone: its keys are told, and which document lacks something."""
    file = RealDisk().open(str(copy / "pages"), read_only=True)
    leaf = [run for run in scan_runs(file, PAGE_SIZE) if run.kind == LEAF][-3]
    rot(copy / "pages", leaf.page * PAGE_SIZE + 500)
    # Without its log: else that would make up for it.
    shutil.rmtree(copy / "log")
    done = treestore("repair", "--data", copy, "--output", tmp_path / "new", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["complete"] is False
    keys, log = report["skipped"]
    assert (keys["kind"], keys["page"], keys["offset"]) == (
        "keys", leaf.page, leaf.page * PAGE_SIZE,
    )  # fmt: skip
    assert bytes.fromhex(keys["key_low"]["hex"]) < bytes.fromhex(keys["key_high"]["hex"])
    assert "nodes" in keys["key_low"]["name"]
    assert log["kind"] == "log"
    assert report["keys_missing"] > 0
    assert report["check_errors"] == []
    assert any("2025-07-01" in problem for problem in report["documents"])
    assert (tmp_path / "new" / "pages").exists()
    shutil.rmtree(tmp_path / "new")
    done = treestore("repair", "--data", copy, "--output", tmp_path / "new")
    assert done.returncode == 1
    assert "skipped: keys from nodes" in done.stdout
    assert "the new store's check:" in done.stdout
    assert "2 parts skipped" in done.stdout


def test_refusals(treestore, copy: Path, tmp_path: Path) -> None:
    done = treestore("repair", "--data", copy, "--output", copy)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not an empty directory" in done.stderr
    (tmp_path / "new.unfinished").mkdir()
    (tmp_path / "new.unfinished" / "letters").mkdir()
    done = treestore("repair", "--data", copy, "--output", tmp_path / "new")
    assert done.returncode == 1
    assert "stands in the way" in done.stderr
    assert (tmp_path / "new.unfinished" / "letters").is_dir()
    for command in (("repair", "--output", tmp_path / "other"), ("dump",)):
        done = treestore(*command, "--data", tmp_path / "nothing")
        assert done.returncode == 1
        assert "no store" in done.stderr
        done = treestore(*command, "--data", tmp_path)
        assert "no TreeStore data directory" in done.stderr
    assert not (tmp_path / "other.unfinished").exists()


def test_what_an_interrupted_repair_left_is_cleared_away(
    treestore, copy: Path, tmp_path: Path
) -> None:
    left = tmp_path / "new.unfinished"
    (left / "log").mkdir(parents=True)
    (left / "log" / "0000000000000001.log").write_bytes(b"half")
    (left / "CREATING").write_bytes(b"")
    assert treestore("repair", "--data", copy, "--output", tmp_path / "new").returncode == 0
    assert not left.exists()
    assert (tmp_path / "new" / "pages").exists()


def test_a_store_in_use_is_left_alone(treestore, serve, copy: Path, tmp_path: Path) -> None:
    serve("--data", copy, "--port", 0, "--http-port", 0, "--metrics-port", 0)
    for command in (("repair", "--output", tmp_path / "new"), ("dump",)):
        done = treestore(*command, "--data", copy)
        assert done.returncode == 1
        assert "in use by another process" in done.stderr


def test_dump_tells_of_everything(treestore, lines, copy: Path) -> None:
    before = files_of(copy)
    found = lines("--data", copy)
    slots = [line for line in found if line["what"] == "slot"]
    assert [slot["state"] for slot in slots] == ["whole", "whole"]
    assert max(slot["keys"] for slot in slots) > 100
    nodes = lines("--data", copy, "--tree")
    assert nodes[0]["kind"] == "branch"
    leaves = [node for node in nodes if node["kind"] == "leaf"]
    assert sum(leaf["entries"] for leaf in leaves) == max(slot["keys"] for slot in slots)
    assert [a["high"] for a in leaves[:-1]] == [b["low"] for b in leaves[1:]]
    pages = {line["page"]: line for line in lines("--data", copy, "--pages")}
    assert all(pages[node["page"]]["kind"] == node["kind"] for node in nodes)
    one = lines("--data", copy, "--page", leaves[0]["page"])
    assert one[0]["whole"]
    assert len([line for line in one if line["what"] == "entry"]) == leaves[0]["entries"]
    records = [line for line in lines("--data", copy, "--log") if line["what"] == "record"]
    assert [record["lsn"] for record in records] == list(range(1, len(records) + 1))
    assert any(change.get("put") for record in records for change in record["changes"])
    segment = next(line for line in found if line["what"] == "segment" and line["records"])
    first = segment["records"][0][0]
    some = lines("--data", copy, "--log", segment["segment"], "--from-lsn", first + 1)
    assert all(line["lsn"] > first for line in some if line["what"] == "record")
    for arguments in ((), ("--tree",), ("--pages",), ("--log",)):
        done = treestore("dump", "--data", copy, *arguments)
        assert done.returncode == 0
        assert done.stdout
        assert "\x1b" not in done.stdout
    assert files_of(copy) == before


def test_dump_of_a_damaged_store(treestore, lines, copy: Path) -> None:
    page = lines("--data", copy, "--tree")[-1]["page"]
    slots = [line for line in lines("--data", copy) if line["what"] == "slot"]
    older = min(slots, key=lambda slot: slot["sequence"])
    rot(copy / "pages", page * PAGE_SIZE + 40)
    rot(copy / "pages", older["offset"] + 30)
    nodes = lines("--data", copy, "--tree")
    (broken,) = [node for node in nodes if node["kind"] == "damaged"]
    assert broken["page"] == page
    assert "checksum" in broken["problem"]
    assert not lines("--data", copy, "--page", page)[0]["whole"]
    states = [line["state"] for line in lines("--data", copy) if line["what"] == "slot"]
    assert sorted(states) == ["damaged", "whole"]
    rot(copy / "pages", max(slots, key=lambda slot: slot["sequence"])["offset"] + 30)
    assert treestore("dump", "--data", copy).returncode == 0
    assert treestore("dump", "--data", copy, "--pages").returncode == 0
    done = treestore("dump", "--data", copy, "--tree")
    assert done.returncode == 1
    assert "no whole meta slot" in done.stderr


def test_dump_refuses_what_is_not_there(treestore, lines, copy: Path) -> None:
    for arguments, text in (
        (("--page", 0), "meta slots"),
        (("--page", 10**9), "There is no page"),
        (("--log", "77"), "There is no log segment '77'; there are: 1"),
    ):
        done = treestore("dump", "--data", copy, *arguments)
        assert done.returncode == 1
        assert text in done.stderr


def test_check_warns_about_one_damaged_slot(treestore, copy: Path) -> None:
    done = treestore("check", "--data", copy, "--json")
    assert json.loads(done.stdout)["warnings"] == []
    for offset in SLOT_OFFSETS:
        again = copy.with_name(f"slot{offset}")
        shutil.copytree(copy, again)
        rot(again / "pages", offset + 100)
        done = treestore("check", "--data", again)
        assert done.returncode == 0
        assert f"at offset {offset} is damaged" in done.stdout
        assert "no errors" in done.stdout
        (warning,) = json.loads(treestore("check", "--data", again, "--json").stdout)["warnings"]
        assert f"offset {offset}" in warning
