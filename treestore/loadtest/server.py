"""A server of one's own, as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs

from treestore.errors import Unavailable

STOP_TIMEOUT_S = 60.0


@attrs.define
class ServerProcess:
    """``treestore serve`` on a data directory and free ports, over several lives.

    Attributes:
        data: the data directory.
        log_file: what it writes to standard error, of all lives.
        flags: more of them for its command line.
        tcp, http: host and port of this life.
        start_ms: from the start of the process to its ready line, of each life.
    """

    data: Path
    log_file: Path
    flags: tuple[str, ...] = ()
    tcp: tuple[str, int] = ("", 0)
    http: tuple[str, int] = ("", 0)
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
            Unavailable: it ended instead; what it said is in the text.
        """
        began = time.monotonic()
        with self.log_file.open("ab") as log:
            # Its log goes to a file: a pipe that nobody reads would stop it one day. A process
            # group of its own: Ctrl-C is for the load, which still needs the server to report.
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "treestore.cli", "serve", "--json"),
                    *("--data", str(self.data), "--port", "0", "--http-port", "0"),
                    *("--metrics-port", "0", *self.flags),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment(),
                process_group=0,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait(10)
            tail = self.log_file.read_text(errors="replace")[-2000:]
            raise Unavailable(f"The server ended with exit code {code} at its start: {tail}")
        ready = json.loads(line)
        self.tcp, self.http = _pair(ready["tcp"]), _pair(ready["http"])
        self.start_ms.append((time.monotonic() - began) * 1000)

    def environment(self) -> dict[str, str]:
        """What it sees: ours, without settings that are meant for another server."""
        return {k: v for k, v in os.environ.items() if not k.startswith("TREESTORE_")}

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
        return self._process.wait(STOP_TIMEOUT_S)


def _pair(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)
