"""``treestore serve`` for the time of a run."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import attrs

from scripts.bench.worker import ROOT, WorkerFailed

STOP_TIMEOUT_S = 60


@attrs.frozen
class RunningServer:
    """Where it listens, and its process."""

    address: str
    pid: int
    metrics: str = ""
    """Where its metrics are."""
    http: str = ""
    """Where it listens for HTTP."""

    def processor_s(self) -> float:
        """Processor time that it used so far, of all threads (Linux; 0 elsewhere)."""
        used_ns = 0
        for task in Path(f"/proc/{self.pid}/task").glob("*/schedstat"):
            used_ns += int(task.read_text().split()[0])
        return used_ns / 1e9

    def memory_bytes(self) -> tuple[int, int]:
        """Resident memory now and at its peak (Linux; zeros elsewhere)."""
        return memory_bytes_of(self.pid)

    def reset_peak(self) -> None:
        """Forget the peak so far (Linux)."""
        try:
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        except OSError:
            pass


def memory_bytes_of(process: int | Literal["self"]) -> tuple[int, int]:
    """Resident memory of a process now and at its peak (Linux; zeros elsewhere).

    Not `resource.getrusage`, whose peak begins with what the parent had.
    """
    found = {"VmRSS": 0, "VmHWM": 0}
    status = Path(f"/proc/{process}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in found:
                found[name] = int(rest.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


def _address(line: str) -> str:
    """The TCP address from the ready line."""
    try:
        ready = json.loads(line)
    except ValueError:
        match = re.search(r"([\w.]+:\d+)", line)
        if match is None:
            raise WorkerFailed(f"no address in the server's ready line: {line!r}") from None
        return match[1]
    for key in ("tcp", "address", "listen"):
        value = ready.get(key)
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], int):
            return f"{value[0]}:{value[1]}"
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str) and ":" in value:
            return value
    if "port" in ready:
        return f"{ready.get('host', '127.0.0.1')}:{ready['port']}"
    raise WorkerFailed(f"no address in the server's ready line: {line!r}")


def _named(line: str, name: str) -> str:
    try:
        return str(json.loads(line).get(name, ""))
    except ValueError:
        return ""


@contextmanager
def run_treestore(
    directory: Path,
    *options: str,
    module: Sequence[str] = ("treestore.cli",),
    log: Path | None = None,
) -> Generator[RunningServer, None, None]:
    """Run a server on ``directory``; stopped at the exit.

    Args:
        options: further arguments of ``treestore serve``.
        module: what to run it with, and its first arguments.
    """
    command = [sys.executable, "-m", *module, "serve", "--data", str(directory), "--port", "0"]
    command += ["--http-port", "0", "--metrics-port", "0", "--json", *options]
    with (log or directory.with_suffix(".log")).open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                process.wait()
                said = Path(errors.name).read_text(errors="replace").strip().splitlines()
                raise WorkerFailed(f"treestore serve: {said[-1] if said else 'ended at once'}")
            yield RunningServer(
                _address(line), process.pid, _named(line, "metrics"), _named(line, "http")
            )
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
