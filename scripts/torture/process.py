"""A server process that can be killed, stopped, started again, and given another clock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs

JUMPING_CLOCK = Path(__file__).resolve().parent / "jumping_clock"


@attrs.define
class ServerProcess:
    """``treestore serve`` on a data directory, over several lives.

    Attributes:
        data: the data directory.
        log_file: what it writes to standard error, of all lives.
        clock_file: where given, an offset such as ``+3600`` that the server's clock follows.
        tcp: host and port of this life.
        start_ms: from the start of the process to its ready line, of each life.
    """

    data: Path
    log_file: Path
    flags: tuple[str, ...] = ()
    clock_file: Path | None = None
    tcp: tuple[str, int] = ("", 0)
    start_ms: list[float] = attrs.Factory(list)
    _process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            RuntimeError: it ended instead; what it said is in the text.
        """
        began = time.monotonic()
        with self.log_file.open("ab") as log:
            # Its log goes to a file: a pipe that nobody reads would stop it one day.
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "treestore.cli", "serve", "--json"),
                    *("--data", str(self.data), "--port", "0", "--http-port", "0"),
                    *("--metrics-port", "0", *self.flags),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment(),
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait(10)
            tail = self.log_file.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the server ended with exit code {code} at its start: {tail}")
        host, port = json.loads(line)["tcp"].rsplit(":", 1)
        self.tcp = (host, int(port))
        self.start_ms.append((time.monotonic() - began) * 1000)

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if self.clock_file is not None:
            path = [str(JUMPING_CLOCK), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
            environment["TREESTORE_CHAOS_CLOCK"] = str(self.clock_file)
        return environment

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            assert self._process.stdout is not None
            self._process.stdout.close()

    def freeze(self) -> None:
        """SIGSTOP: it answers nobody, and its connections stay."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)
