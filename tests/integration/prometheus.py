"""A real Prometheus, of Debian's package, for tests."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import attrs

CACHE = Path.home() / ".cache" / "treestore-tests"
START_TIMEOUT_S = 60.0
DOWNLOAD_TIMEOUT_S = 120.0


@cache
def find(program: str) -> Path | None:
    """``prometheus`` or ``promtool``: installed, or unpacked from Debian's package into a folder
    of ours, where this is Debian; else None."""
    installed = shutil.which(program)
    if installed:
        return Path(installed)
    unpacked = CACHE / "usr" / "bin" / program
    if not unpacked.exists() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            CACHE.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                _unpack(Path(folder))
    return unpacked if unpacked.exists() else None


def _unpack(folder: Path) -> None:
    """The package's files alone: nothing is installed, and no service is started."""
    options: dict[str, Any] = {"cwd": folder, "capture_output": True, "check": True}
    subprocess.run(["apt-get", "download", "prometheus"], timeout=DOWNLOAD_TIMEOUT_S, **options)
    (package,) = folder.glob("prometheus_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, "unpacked"], timeout=60, **options)
    # At once, or not: several processes may be at it.
    (folder / "unpacked" / "usr").rename(CACHE / "usr")


@attrs.frozen
class Prometheus:
    """A running one."""

    address: str

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer of its API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, expression: str) -> float | None:
        """The one value of an expression; None where there is none."""
        result = self.get("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None


@contextlib.contextmanager
def run_prometheus(program: Path, directory: Path, target: str) -> Generator[Prometheus]:
    """Scrape ``target`` every half second."""
    directory.mkdir()
    (directory / "prometheus.yml").write_text(
        "global: { scrape_interval: 500ms, scrape_timeout: 500ms }\n"
        "scrape_configs:\n"
        f"  - {{ job_name: treestore, static_configs: [{{ targets: ['{target}'] }}] }}\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
            cwd=directory,
        )
    try:
        _wait(process, address, directory / "log")
        yield Prometheus(address)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[Any], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{address}/-/ready", timeout=2).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"Prometheus did not start: {log.read_text(errors='replace')[-2000:]}")
