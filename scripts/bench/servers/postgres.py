"""A PostgreSQL cluster for the time of a run: own directory, free port, default durability."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 30.0


class NoPostgres(Exception):
    """PostgreSQL is not installed, or cannot be run here."""


def find_programs() -> Path:
    """The folder with ``initdb`` and ``postgres``, of the newest version there is.

    Raises:
        NoPostgres: there is none.
    """
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: int(folder.parent.name) if folder.parent.name.isdigit() else 0,
        reverse=True,
    )
    on_path = shutil.which("postgres")
    if on_path:
        folders.append(Path(on_path).parent)
    for folder in folders:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise NoPostgres("PostgreSQL is not installed (Debian: apt install postgresql)")


def _user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: another user for its processes, where that is us."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise NoPostgres("PostgreSQL does not run as root, and there is no user postgres or nobody")


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def run_postgres(directory: Path) -> Generator[tuple[str, str], None, None]:
    """Run a new cluster in ``directory`` (made here); gives address and version.

    Raises:
        NoPostgres: it is absent or did not start.
    """
    programs, user = find_programs(), _user()
    directory.mkdir()
    if user:
        os.chown(directory, user["user"], user["group"])
    # Our own locale and environment must not change what is measured.
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
    settings: dict[str, Any] = {"cwd": directory, "env": environment, **user}
    initialise: list[str | Path] = [
        programs / "initdb",
        "-D",
        directory / "cluster",
        "-A",
        "trust",
        "-U",
        "bench",
    ]
    initialise += ["--no-locale", "--encoding=UTF8"]
    done = subprocess.run(initialise, capture_output=True, text=True, check=False, **settings)
    if done.returncode:
        raise NoPostgres(f"initdb failed: {done.stderr.strip()}")
    port = free_port()
    options = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": str(directory),
        "shared_buffers": "256MB",
        "max_connections": 200,
    }
    command: list[str | Path] = [programs / "postgres", "-D", directory / "cluster"]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    log = directory.parent / "postgres.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **settings
        )
        try:
            _wait(process, port, log)
            version = subprocess.run(
                [programs / "postgres", "--version"], capture_output=True, text=True, check=True
            ).stdout.strip()
            yield f"127.0.0.1:{port}", version
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[Any], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise NoPostgres(f"PostgreSQL did not start: {lines[-1] if lines else 'it said nothing'}")


def _stop(process: subprocess.Popen[Any]) -> None:
    for number, patience_s in ((signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)):
        if process.poll() is not None:
            return
        process.send_signal(number)  # Fast shutdown first, then harsher.
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
