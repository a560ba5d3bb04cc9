"""``treestore bulk``: into a data directory and a server, killed and gone on with."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CHECKOUT, FREE_PORTS, Running, environment, treestore

pytestmark = pytest.mark.slow  # every test starts processes

SCHEMA = {"vector": {"dim": 2, "metric": "l2"}, "attributes": {"year": {"type": "int"}}}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    documents = [{"id": n, "vector": [n, 1], "attributes": {"year": n % 9}} for n in range(2500)]
    text = "".join(json.dumps(one) + "\n" for one in documents)
    (tmp_path / "good.ndjson").write_text(text)
    (tmp_path / "good.ndjson.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "bad.ndjson").write_text(text + '{"id": 1}\n{"id": 2, "colour": 1}\nno\n')
    return tmp_path


def test_files_and_standard_input(files: Path) -> None:
    target = ("--data", files / "data")
    done = treestore(
        "bulk", "n", files / "good.ndjson.gz", "--schema", files / "schema.json", *target
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("n: 2,500 documents stored (")
    assert done.stderr == ""
    done = treestore("bulk", "n", files / "bad.ndjson", *target)
    assert done.returncode == 1
    first, second, last = done.stdout.splitlines()
    assert first.startswith("line 2502 (id 2): ")
    assert second.startswith("line 2503: This is no JSON object")
    assert "2,501 documents stored" in last
    assert "2 lines rejected" in last
    done = treestore("bulk", "n", files / "bad.ndjson", "--all-or-nothing", "--json", *target)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["applied"], report["rejected"]) == (False, 2)
    with (files / "good.ndjson").open("rb") as file:
        found = subprocess.run(
            [sys.executable, "-m", "treestore.cli", "bulk", "n", "-", *map(str, target), "--json"],
            stdin=file,
            capture_output=True,
            env=environment(),
            cwd=CHECKOUT,
            check=True,
            timeout=60,
        )
    assert json.loads(found.stdout)["stored"] == 2500


def test_what_makes_no_sense(files: Path) -> None:
    target = ("--data", files / "data")
    for arguments in (
        ("n", files / "missing", "--schema", files / "schema.json"),
        ("n", files / "good.ndjson", "--schema", files / "good.ndjson"),
        ("n", files / "good.ndjson", "--schema", files / "schema.json", "--format", "parquet"),
        ("other", files / "good.ndjson"),
        ("n", files, "--schema", files / "schema.json"),
    ):
        done = treestore("bulk", *arguments, *target)
        assert done.returncode in (1, 2), done.stdout
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_an_import_whose_process_is_killed_goes_on(
    files: Path, serve: Callable[..., Running]
) -> None:
    text = (files / "good.ndjson").read_text()
    lines = text.splitlines()
    many = files / "many.ndjson"
    with many.open("w") as file:
        for part in range(40):
            file.writelines(f'{{"id": "{part}-{n}"}}\n' for n in range(len(lines)))
    server = serve("--data", files / "data", *FREE_PORTS)
    address = server.facts["tcp"]
    arguments = ("bulk", "n", many, "--import-id", "mine", "--connect", address, "--json")
    treestore(
        "bulk", "n", files / "good.ndjson", "--schema", files / "schema.json", "--connect", address
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "treestore.cli", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        env=environment(),
        cwd=CHECKOUT,
    )
    time.sleep(1.5)
    process.kill()
    process.wait()
    done = treestore(*arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["lines"], report["stored"]) == (100_000, 100_000)
    assert server.stop() == 0
    done = treestore("check", "--data", files / "data")
    assert done.returncode == 0, done.stdout + done.stderr
