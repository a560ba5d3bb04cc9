"""Running ``treestore`` as its users do: as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import structlog

from treestore.cli import main

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLE = CHECKOUT / "examples" / "travel-policy"
TIMEOUT_S = 60


def environment(**extra: str) -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TREESTORE_")}
    return {**kept, "COLUMNS": "80", **extra}


def treestore(*arguments: object, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "treestore.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        env=environment(**extra),
        cwd=CHECKOUT,
        check=False,
    )


@attrs.define
class Running:
    """A server process that said it is ready."""

    process: subprocess.Popen[str]
    ready: str
    facts: dict[str, str]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


def start(*arguments: object, **extra: str) -> Running:
    """Start ``treestore serve`` and wait for its ready line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "treestore.cli", "serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**extra),
        cwd=CHECKOUT,
    )
    assert process.stdout is not None
    ready = process.stdout.readline()
    facts = dict(word.split("=", 1) for word in ready.split() if "=" in word)
    return Running(process, ready, facts)


FREE_PORTS = ("--port", 0, "--http-port", 0, "--metrics-port", 0)


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Starts servers that end with the test."""
    started: list[Running] = []

    def serve(*arguments: object, **extra: str) -> Running:
        running = start(*arguments, **extra)
        started.append(running)
        return running

    yield serve
    for running in started:
        running.process.kill()
        running.process.communicate()


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the example policy in two versions; commands only read it."""
    data = tmp_path_factory.mktemp("stored") / "data"
    for day in ("2024-01-01", "2025-07-01"):
        done = treestore(
            *("ingest", EXAMPLE / f"{day}.json", "--data", data),
            *("--policy-id", "travel", "--effective-from", day),
        )
        assert done.returncode == 0, done.stderr
    return data


@pytest.fixture
def run_here(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs a command in this process, which saves a second of imports for each line."""
    for name in list(os.environ):
        if name.startswith("TREESTORE_"):
            monkeypatch.delenv(name)

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        output, errors = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, output, errors)

    yield run
    structlog.reset_defaults()
