"""API keys, TLS and the audit log, with real servers."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treestore as ts
from actors.certificates import Certificates
from tests.cli.conftest import FREE_PORTS, Running, treestore
from tests.cli.test_serve import fetch
from treestore.errors import PermissionDenied, RateLimited, Unauthenticated, Unavailable

pytestmark = pytest.mark.slow  # every test starts processes

Serve = Callable[..., Running]

KEY = re.compile(r"ts_[a-z2-7]{16}_[a-z2-7]{52}")


def made(*arguments: object, **extra: str) -> str:
    """The key that ``treestore key create`` printed."""
    done = treestore("key", "create", *arguments, **extra)
    assert done.returncode == 0, done.stderr
    key = done.stdout.strip()
    assert KEY.fullmatch(key), done.stdout
    assert key not in done.stderr
    return key


def test_keys_on_a_closed_store_and_a_server(tmp_path: Path, serve: Serve) -> None:
    data, trail = tmp_path / "data", tmp_path / "audit.jsonl"
    admin = made("--data", data, "--scope", "admin", "--name", "root")
    server = serve("--data", data, *FREE_PORTS, "--audit-log", trail, "--log-level", "debug")
    address = server.facts["tcp"]
    # Health needs no key; everything else does.
    for port in ("http", "metrics"):
        assert fetch(f"http://{server.facts[port]}/health")[0] == 200
        assert fetch(f"http://{server.facts[port]}/ready")[0] == 200
    for key in (None, "wrong", admin[:-1] + ("a" if admin[-1] != "a" else "b")):
        with pytest.raises(Unauthenticated):
            ts.connect_sync(address, api_key=key)
    done = treestore("stats", "--connect", address)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "API key" in done.stderr

    as_admin = {"TREESTORE_API_KEY": admin, "TREESTORE_CONNECT": address}
    reader = made("--scopes", "read:kv/app/*,read:policies", "--expires", "12h", **as_admin)
    with ts.connect_sync(address, api_key=reader) as db:
        assert db.kv.get(b"app/1") is None
        with pytest.raises(PermissionDenied):
            db.kv.get(b"other")
        with pytest.raises(PermissionDenied):
            db.kv.put(b"app/1", b"")
    listed = treestore("key", "list", "--json", **as_admin)
    infos = {info["key_id"]: info for info in json.loads(listed.stdout)}
    assert [info["status"] for info in infos.values()] == ["active", "active"]
    shown = treestore("key", "list", **as_admin).stdout
    assert "root" in shown
    assert "read:policies" in shown
    reader_id = KEY.fullmatch(reader).group().split("_")[1]  # type: ignore[union-attr]
    assert infos[reader_id]["last_used_at"] is not None
    done = treestore("key", "revoke", reader_id, **as_admin)
    assert (done.returncode, done.stdout) == (0, f"key {reader_id} revoked\n")
    with pytest.raises(Unauthenticated):
        ts.connect_sync(address, api_key=reader)
    assert server.stop() == 0

    lines = [json.loads(line) for line in trail.read_text().splitlines()]
    assert [line["operation"] for line in lines] == ["admin.create_key", "admin.revoke_key"]
    assert {line["outcome"] for line in lines} == {"ok"}
    assert oct(trail.stat().st_mode & 0o777) == "0o600"
    # No secret anywhere: not in a log, not in the tree, not in the write-ahead log.
    written = [server.errors().encode(), trail.read_bytes(), shown.encode()]
    written += [file.read_bytes() for file in data.rglob("*") if file.is_file()]
    for key in (admin, reader):
        secret = key.rpartition("_")[2].encode()
        assert not any(secret in content for content in written)
    assert treestore("check", "--data", data).returncode == 0


def test_the_first_key_is_made_over_loopback(tmp_path: Path, serve: Serve) -> None:
    server = serve("--data", tmp_path / "data", *FREE_PORTS)
    admin = made("--connect", server.facts["tcp"], "--scope", "admin")
    done = treestore("key", "create", "--connect", server.facts["tcp"], "--scope", "admin")
    assert done.returncode == 1
    assert "API key is needed" in done.stderr
    done = treestore("stats", "--connect", server.facts["tcp"], TREESTORE_API_KEY=admin)
    assert done.returncode == 0, done.stderr


def test_beyond_this_machine_only_with_keys(tmp_path: Path, serve: Serve) -> None:
    data = tmp_path / "data"
    everywhere = ("serve", "--data", data, *FREE_PORTS, "--host", "0.0.0.0")
    for state in ("no directory", "an empty one", "a store without keys"):
        done = treestore(*everywhere)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), (state, done.stderr)
        assert "--allow-remote-without-keys" in done.stderr
        if state == "no directory":
            assert not data.exists()
            data.mkdir()
    made("--data", data, "--scope", "read")
    server = serve(*everywhere[1:])
    port = server.facts["tcp"].rpartition(":")[2]
    with pytest.raises(Unauthenticated):
        ts.connect_sync(f"127.0.0.1:{port}")
    assert server.stop() == 0
    assert "travel in clear" in server.errors()


def test_rate_limit_of_a_server(tmp_path: Path, serve: Serve) -> None:
    server = serve("--data", tmp_path / "data", *FREE_PORTS, "--rate-limit", 20)
    with ts.connect_sync(server.facts["tcp"]) as db:
        with pytest.raises(RateLimited) as caught:
            for _ in range(2000):
                db.kv.get(b"a")
        assert caught.value.retry_after_s is not None
        time.sleep(caught.value.retry_after_s)
        assert db.kv.get(b"a") is None
    with ts.connect_sync(server.facts["tcp"], wait_when_limited=True) as db:
        for _ in range(25):
            assert db.kv.get(b"a") is None


@pytest.mark.parametrize(
    "arguments",
    [
        "key create --data {tmp}/d",
        "key create --data {tmp}/d --scope root",
        "key create --data {tmp}/d --scope admin:kv",
        "key create --data {tmp}/d --scope read --expires never",
        "key create --data {tmp}/d --scope read --rate-limit many",
        "key create --scope read",
        "key revoke --data {tmp}/d ts_" + "a" * 16 + "_" + "b" * 52,
        "key revoke --data {tmp}/d",
        "key make",
        "serve --data {tmp}/d --tls-client-ca {tmp}/ca",
        "serve --data {tmp}/d --rate-burst 0",
        "serve --data {tmp}/d --total-rate-limit -1",
    ],
)
def test_wrong_commands_are_one_line(tmp_path: Path, arguments: str) -> None:
    done = treestore(*arguments.format(tmp=tmp_path).split())
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "b" * 52 not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "key list --data {tmp}/d",
        "key revoke --data {tmp}/d " + "a" * 16,
        "key create --data {tmp}/d --scope read --expires 2001-01-01",
        "key create --data {tmp}/d --scope read --rate-limit 0",
        "serve --data {tmp}/d --port 0 --http-port 0 --metrics-port 0 --audit-log {tmp}",
    ],
)
def test_failures_are_one_line(tmp_path: Path, arguments: str) -> None:
    done = treestore(*arguments.format(tmp=tmp_path).split())
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr


# --- TLS -------------------------------------------------------------------------------------


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def certificate(folder: Path, name: str, key: Path | None = None) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", 2, "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", key, "-out", cert),
    )
    return cert, key


def served_name(address: str, ca: Path) -> str:
    """The common name of the certificate that a port shows."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=host) as stream,
    ):
        found: Any = stream.getpeercert()
        return str(found["subject"][0][0][1])


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificates"
)


@needs_openssl
def test_a_certificate_is_exchanged_while_connections_are_open(
    tmp_path: Path, serve: Serve
) -> None:
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    cert, key = tmp_path / "served.pem", tmp_path / "served.key"
    both = tmp_path / "both.pem"
    both.write_text(first[0].read_text() + second[0].read_text())

    def install(pair: tuple[Path, Path]) -> None:
        shutil.copy(pair[0], cert)
        shutil.copy(pair[1], key)

    install(first)
    data = tmp_path / "data"
    server = serve("--data", data, *FREE_PORTS, "--tls-cert", cert, "--tls-key", key)
    ports = [server.facts["tcp"], server.facts["http"]]
    assert [served_name(port, both) for port in ports] == ["first", "first"]
    context = ssl.create_default_context(cafile=both)
    with ts.connect_sync(server.facts["tcp"], tls=context, connections=1) as db:
        db.kv.put(b"a", b"1")

        def until(names: list[str]) -> None:
            for _ in range(600):
                if [served_name(port, both) for port in ports] == names:
                    return
                time.sleep(0.05)
            raise AssertionError(f"never {names}")

        install(second)
        server.process.send_signal(signal.SIGHUP)
        until(["second", "second"])
        assert db.kv.get(b"a") == b"1"
        # A key that belongs to another certificate, then none at all: the pair in use stays.
        shutil.copy(first[1], key)
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        cert.write_text("nothing")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        until(["second", "second"])
        assert db.kv.get(b"a") == b"1"
        install(first)
        server.process.send_signal(signal.SIGHUP)
        until(["first", "first"])
        assert db.kv.get(b"a") == b"1"
    assert server.stop() == 0
    events = [json.loads(line)["event"] for line in server.errors().splitlines()]
    assert events.count("certificate reloaded") == 2
    assert "certificate not reloaded; the old one stays" in events


def test_sighup_without_tls_is_harmless(tmp_path: Path, serve: Serve) -> None:
    server = serve("--data", tmp_path / "data", *FREE_PORTS)
    server.process.send_signal(signal.SIGHUP)
    with ts.connect_sync(server.facts["tcp"]) as db:
        assert db.kv.get(b"a") is None
    assert server.stop() == 0


@needs_openssl
def test_old_tls_is_refused_and_clients_may_be_asked_for_a_certificate(
    tmp_path: Path, serve: Serve
) -> None:
    cert, key = certificate(tmp_path, "server")
    mine = certificate(tmp_path, "client")
    server = serve(
        *("--data", tmp_path / "data", *FREE_PORTS),
        *("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", mine[0]),
    )
    host, _, port = server.facts["tcp"].rpartition(":")
    old = ssl.create_default_context(cafile=cert)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)version|alert|EOF"),
    ):
        old.wrap_socket(plain, server_hostname=host)
    assert Certificates(cert, key).context.minimum_version == ssl.TLSVersion.TLSv1_2
    context = ssl.create_default_context(cafile=cert)
    with pytest.raises(Unavailable):
        ts.connect_sync(server.facts["tcp"], tls=context, timeout=5)
    context.load_cert_chain(*mine)
    with ts.connect_sync(server.facts["tcp"], tls=context) as db:
        db.kv.put(b"a", b"1")
        assert db.kv.get(b"a") == b"1"
