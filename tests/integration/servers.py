"""Real server processes for integration tests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import attrs


@attrs.define
class Server:
    """A running ``treestore serve`` process."""

    process: subprocess.Popen[str]
    tcp: str
    http: str

    @classmethod
    def start(cls, data: Path, *flags: str) -> Server:
        """Start one on free ports and wait until it is ready."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "treestore.cli", "serve", "--data", str(data), "--json"),
                *("--port", "0", "--http-port", "0", "--metrics-port", "0", *flags),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            _, errors = process.communicate(timeout=10)
            raise RuntimeError(f"the server did not start: {errors}")
        ready = json.loads(line)
        return cls(process, ready["tcp"], ready["http"])

    def kill(self) -> None:
        """SIGKILL, and wait for the process to be gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=10)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=20)
        return self.process.returncode
