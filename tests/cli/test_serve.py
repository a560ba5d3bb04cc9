"""``treestore serve``: the ready line, ports, signals, settings."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import EXAMPLE, FREE_PORTS, Running, treestore
from treestore import connect_sync

pytestmark = pytest.mark.slow  # every test starts processes

Serve = Callable[..., Running]


def fetch(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_ready_line_and_health(tmp_path: Path, serve: Serve) -> None:
    server = serve("--data", tmp_path / "data", *FREE_PORTS)
    assert server.ready.startswith("treestore ready tcp=127.0.0.1:")
    assert server.facts["data"] == str(tmp_path / "data")
    assert int(server.facts["pid"]) == server.process.pid
    for port in ("http", "metrics"):
        base = f"http://{server.facts[port]}"
        status, health = fetch(f"{base}/health")
        assert (status, health["status"]) == (200, "ok")
        assert fetch(f"{base}/ready") == (200, {"ready": True})
        status, error = fetch(f"{base}/nope")
        assert (status, error["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_gracefully(tmp_path: Path, serve: Serve, number: signal.Signals) -> None:
    server = serve("--data", tmp_path / "data", *FREE_PORTS)
    assert server.stop(number) == 0
    log = server.errors()
    assert "Traceback" not in log
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events == ["opened", "ready", "stopping", "stopped"]
    # The directory is free again, and whole.
    assert treestore("check", "--data", tmp_path / "data").returncode == 0


def test_ready_line_as_json(tmp_path: Path, serve: Serve) -> None:
    server = serve("--data", tmp_path / "data", *FREE_PORTS, "--json")
    ready = json.loads(server.ready)
    assert ready["event"] == "ready"
    assert ready["pid"] == server.process.pid


@pytest.mark.parametrize(
    ("flag", "fact"), [("--port", "tcp"), ("--http-port", "http"), ("--metrics-port", "metrics")]
)
def test_a_port_in_use_is_one_line(tmp_path: Path, serve: Serve, flag: str, fact: str) -> None:
    server = serve("--data", tmp_path / "one", *FREE_PORTS)
    port = server.facts[fact].rpartition(":")[2]
    done = treestore(*("serve", "--data", tmp_path / "two", *FREE_PORTS, flag, port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"127.0.0.1:{port} is in use" in done.stderr
    assert flag in done.stderr


def test_a_directory_in_use_is_one_line(tmp_path: Path, serve: Serve) -> None:
    serve("--data", tmp_path / "data", *FREE_PORTS)
    done = treestore("serve", "--data", tmp_path / "data", *FREE_PORTS)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "in use by another process" in done.stderr


def test_settings_from_the_environment_and_a_file(tmp_path: Path, serve: Serve) -> None:
    config = tmp_path / "treestore.toml"
    config.write_text(
        f'data_dir = "{tmp_path / "from-file"}"\n'
        "port = 1\nhttp_port = 0\nmetrics_port = 0\ncache_size_mb = 16\nrate_limit = 5\n"
    )
    server = serve("--config", config, TREESTORE_PORT="0")
    assert server.facts["data"] == str(tmp_path / "from-file")
    assert server.facts["tcp"] != "127.0.0.1:1"


def test_kill_9_loses_nothing(tmp_path: Path, serve: Serve) -> None:
    server = serve("--data", tmp_path / "data", *FREE_PORTS)
    done = treestore(
        "ingest", EXAMPLE / "2025-07-01.json", "--connect", server.facts["tcp"], "--json"
    )
    assert done.returncode == 0, done.stderr
    server.process.kill()
    server.process.wait()
    found = treestore("tree", "2025-07-01", "--data", tmp_path / "data", "--json")
    assert len(json.loads(found.stdout)["nodes"]) == 36
    assert treestore("check", "--data", tmp_path / "data").returncode == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls(tmp_path: Path, serve: Serve) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    server = serve("--data", tmp_path / "data", *FREE_PORTS, "--tls-cert", cert, "--tls-key", key)
    address = server.facts["tcp"]
    done = treestore("tree", "--connect", address, "--tls-ca", cert, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stderr
    plain = treestore("tree", "--connect", address)
    assert plain.returncode == 1
    assert len(plain.stderr.splitlines()) == 1


def test_an_idle_client_does_not_hold_up_a_stop(tmp_path: Path, serve: Serve) -> None:
    server = serve("--data", tmp_path / "data", *FREE_PORTS, "--grace", "30")
    sockets = []
    for port in ("tcp", "http"):
        host, _, number = server.facts[port].rpartition(":")
        sockets.append(socket.create_connection((host, int(number))))
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 15
    for connection in sockets:
        connection.close()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="/proc says what is loaded")
def test_what_searches_namespaces_is_loaded_before_the_ready_line(
    tmp_path: Path, serve: Serve
) -> None:
    server = serve("--data", tmp_path / "data", *FREE_PORTS)
    assert "faiss" not in Path(f"/proc/{server.process.pid}/maps").read_text()
    with connect_sync(server.facts["tcp"]) as db:
        db.namespaces.create("n", {"vector": {"dim": 2}})
    server.stop(signal.SIGTERM)
    again = serve("--data", tmp_path / "data", *FREE_PORTS)
    assert "faiss" in Path(f"/proc/{again.process.pid}/maps").read_text()


DEEP = """
import sys, treestore, trio
from treestore.errors import InvalidArgument

async def main():
    async with treestore.connect(sys.argv[1]) as db:
        await db.collections.create("c")
        for depth in (150, 400, *range(950, 1000), 5000):
            document = 1
            for _ in range(depth):
                document = {"a": document}
            try:
                await db.collections.insert("c", document)
            except InvalidArgument as error:
                print(depth, "answered" if "cannot be sent" not in error.message else "not sent")

trio.run(main)
"""


def test_arguments_as_deep_as_a_client_can_send_are_answered(tmp_path: Path, serve: Serve) -> None:
    """The client in a program of its own: what it can send depends on how deep its stack is."""
    server = serve("--data", tmp_path / "data", *FREE_PORTS)
    done = subprocess.run(
        [sys.executable, "-c", DEEP, server.facts["tcp"]],
        capture_output=True,
        text=True,
        timeout=25,  # A request that breaks its connection is tried again for 30 s.
        check=True,
    )
    said = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
    assert len(said) == 53
    assert said == sorted(said), "those that are too deep to be sent are the deepest"
    assert {"answered", "not sent"} == set(said)
