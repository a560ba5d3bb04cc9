"""Bad input anywhere: one line on standard error, exit code 2 or 1, never a traceback."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import EXAMPLE, treestore

# Arguments → exit code, and a part of the line. {stored}, {tmp} and {example} are filled in.
TABLE: list[tuple[str, int, str]] = [
    ("nope", 2, "No such command"),
    ("--nope", 2, "--nope"),
    ("tree", 2, "--data DIR or --connect HOST:PORT"),
    ("tree --data {stored} --connect 127.0.0.1:1", 2, "exclude each other"),
    ("tree --depth 1 --data {stored}", 2, "need a POLICY"),
    ("tree travel --depth -1 --data {stored}", 2, "--depth"),
    ("tree nope --data {stored}", 1, "nope"),
    ("tree travel --version 1999 --data {stored}", 1, "1999"),
    ("tree travel --node 9999 --data {stored}", 1, "9999"),
    ("tree --data {tmp}/nope", 1, "no store"),
    ("tree --connect nonsense", 2, "host:port"),
    ("tree --connect 127.0.0.1:1", 1, "127.0.0.1:1"),
    ("tree --connect 127.0.0.1:1 --tls-ca {tmp}/nope.pem", 1, "nope.pem"),
    ("get travel --data {stored}", 2, "NODE"),
    ("get travel 0001 7777 --data {stored}", 1, "7777"),
    ("stats --data {example}", 1, "no TreeStore data directory"),
    ("check", 2, "--data"),
    ("check --data {tmp}/nope", 1, "no store"),
    ("check --data {tmp}/file.json", 1, "file.json"),
    ("ingest --data {tmp}/d", 2, "FILE"),
    ("ingest {tmp}/nope.json --data {tmp}/d", 1, "no such file"),
    ("ingest {tmp} --data {tmp}/d", 1, "directory"),
    ("ingest {tmp}/latin.md --data {tmp}/d", 1, "not UTF-8"),
    ("ingest {tmp}/file.json --data {tmp}/d", 1, "not JSON"),
    ("ingest {tmp}/empty.md --data {tmp}/d", 1, "empty"),
    ("ingest {tmp}/number.json --data {tmp}/d", 1, "a number"),
    ("ingest {tmp}/deep.json --data {tmp}/d", 1, "deep"),
    ("ingest {tmp}/half.json --data {tmp}/d", 1, "surrogate"),
    ("ingest {tmp}/paper.pdf --data {tmp}/d", 1, "PDF"),
    ("ingest {tmp}/empty.md --effective-from tomorrow --data {tmp}/d", 2, "tomorrow"),
    ("ingest a/x.md b/x.md --data {tmp}/d", 2, "'x'"),
    ("ingest a.md b.md --policy-id p --data {tmp}/d", 2, "'p'"),
    ("ingest a.md --policy-id= --data {tmp}/d", 2, "--policy-id"),
    ("serve", 2, "--data DIR"),
    ("serve --data {tmp}/d --port x", 2, "--port"),
    ("serve --data {tmp}/d --port 70000", 2, "0 to 65535"),
    ("serve --data {tmp}/d --cache-size-mb 0", 2, "--cache-size-mb"),
    ("serve --data {tmp}/d --log-level loud", 2, "loud"),
    ("serve --data {tmp}/d --host 0.0.0.0", 2, "--allow-remote-without-keys"),
    ("serve --data {tmp}/d --tls-cert {tmp}/c.pem", 2, "both"),
    ("serve --data {tmp}/d --tls-cert {tmp}/c.pem --tls-key {tmp}/k.pem", 1, "c.pem"),
    ("serve --data {tmp}/d --config {tmp}/nope.toml", 2, "nope.toml"),
    ("serve --data {tmp}/d --config {tmp}/typo.toml", 2, "prot"),
    ("serve --data {tmp}/d --config {tmp}/latin.md", 2, "UTF-8"),
    ("serve --data {example}", 1, "no TreeStore data directory"),
    ("serve --data {tmp}/file.json", 1, "file.json"),
]


@pytest.fixture(scope="module")
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("bad")
    (tmp / "file.json").write_text("{")
    (tmp / "latin.md").write_bytes(b"# caf\xe9\n")
    (tmp / "empty.md").write_text("\n \n")
    (tmp / "number.json").write_text("7")
    (tmp / "deep.json").write_text('[{"title":"a","nodes":' * 5000 + "[]" + "}]" * 5000)
    (tmp / "half.json").write_text('[{"title":"\\ud800"}]')
    (tmp / "paper.pdf").write_bytes(b"%PDF-1.7 \xff")
    (tmp / "typo.toml").write_text("prot = 1\n")
    return tmp


@pytest.mark.parametrize("line", ["nope", "tree --data {tmp}/nope", "ingest {tmp}/file.json"])
def test_a_real_process_does_the_same(line: str, tmp: Path) -> None:
    done = treestore(*line.format(tmp=tmp).split(), TREESTORE_DATA_DIR=str(tmp / "d"))
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(("line", "code", "part"), TABLE)
def test_one_clear_line(
    line: str,
    code: int,
    part: str,
    tmp: Path,
    stored: Path,
    run_here: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    arguments = [word.format(tmp=tmp, stored=stored, example=EXAMPLE) for word in line.split()]
    # A server that begins to start sets knobs of its process, so it gets one of its own.
    done = treestore(*arguments) if line.startswith("serve") and code == 1 else run_here(arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("treestore")
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert "fault in TreeStore" not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("TREESTORE_PORT", "7x", "TREESTORE_PORT is a whole number, not '7x'"),
        ("TREESTORE_LOG_LEVEL", "loud", "TREESTORE_LOG_LEVEL is debug, info"),
        ("TREESTORE_CONFIG", "/nope.toml", "/nope.toml cannot be read"),
    ],
)
def test_bad_variables_are_named(tmp: Path, variable: str, value: str, part: str) -> None:
    done = treestore("serve", "--data", tmp / "d", **{variable: value})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert part in done.stderr


def test_no_command_shows_the_help() -> None:
    done = treestore()
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr


def test_a_read_only_command_creates_nothing(tmp_path: Path) -> None:
    treestore("tree", "--data", tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
