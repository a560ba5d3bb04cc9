"""``treestore backup``, ``verify`` and ``restore``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import treestore
from treestore.cli.program import cli, guarded


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command: exit code, output, errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        def run() -> int:
            with cli.make_context("treestore", [str(one) for one in arguments]) as context:
                result = cli.invoke(context)
            return result if isinstance(result, int) else 0

        code = guarded(run)
        found = capsys.readouterr()
        return code, found.out, found.err

    return call


async def fill(data: Path, *numbers: int, archive: Path | None = None) -> None:
    archive_dir = None if archive is None else str(archive)
    async with treestore.open(data, archive_dir=archive_dir) as db:
        for number in numbers:
            await db.kv.put(b"%d" % number, b"x" * 100)


async def keys(data: Path) -> int:
    async with treestore.open(data, create=False) as db:
        assert (await db.admin.check()).ok
        return len([key async for key, _ in db.kv.scan()])


def test_there_and_back(tmp_path: Path, call: Callable[..., Any]) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    trio.run(lambda: fill(tmp_path / "data", 1, 2, archive=archive))
    output = ("--output", tmp_path / "full", "--json")
    code, out, _ = call("backup", "--data", tmp_path / "data", *output)
    made = json.loads(out)
    assert code == 0
    assert made["verified"]
    assert made["parent_id"] is None
    # The store remembers its archive.
    trio.run(lambda: fill(tmp_path / "data", 3, 4, 5))
    code, out, _ = call("verify", tmp_path / "full", "--json")
    assert (code, json.loads(out)["lsn"]) == (0, made["lsn"])
    code, out, _ = call("restore", "--from", tmp_path / "full", "--data", tmp_path / "a")
    assert code == 0
    assert "no errors" in out
    assert trio.run(keys, tmp_path / "a") == 2
    arguments = ("restore", "--from", tmp_path / "full", "--archive", archive, "--json")
    code, out, _ = call(*arguments, "--data", tmp_path / "b")
    whole = json.loads(out)
    assert (code, whole["replayed_transactions"], trio.run(keys, tmp_path / "b")) == (0, 3, 5)
    code, out, _ = call(*arguments, "--data", tmp_path / "c", "--to-lsn", whole["lsn"] - 1)
    assert (code, trio.run(keys, tmp_path / "c")) == (0, 4)
    shown = json.loads(out)["time"]
    code, out, _ = call(*arguments, "--data", tmp_path / "d", "--to-time", shown)
    assert (code, json.loads(out)["time"], trio.run(keys, tmp_path / "d")) == (0, shown, 4)


def test_what_is_refused(tmp_path: Path, call: Callable[..., Any]) -> None:
    trio.run(lambda: fill(tmp_path / "data", 1))
    code, _, errors = call("backup", "--connect", "127.0.0.1:1", "--output", "relative")
    assert (code, "absolute" in errors) == (2, True)
    code, _, errors = call("backup", "--data", tmp_path / "data", "--output", tmp_path / "data")
    assert (code, "not an empty directory" in errors) == (1, True)
    code, _, errors = call("verify", tmp_path / "data")
    assert (code, "no whole backup" in errors) == (1, True)
    call("backup", "--data", tmp_path / "data", "--output", tmp_path / "full")
    source = ("restore", "--from", tmp_path / "full", "--data", tmp_path / "new")
    code, _, errors = call(*source, "--to-time", "soon")
    assert (code, "is no time like" in errors) == (2, True)
    code, _, errors = call(*source, "--to-lsn", "999")
    assert (code, "no further" in errors) == (1, True)
    code, _, errors = call(*source, "--archive", tmp_path)
    assert (code, "no archive" in errors) == (1, True)
    code, _, errors = call(*source[:-1], tmp_path / "data")
    assert (code, "not an empty directory" in errors) == (1, True)
    assert not (tmp_path / "new").exists()
