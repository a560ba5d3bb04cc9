"""TLS, with each of the clients."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import trio

import treestore
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import listening
from tests.client.served import run, served
from treestore.errors import Unavailable

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificate"
)

VALUE = bytes(range(256)) * 10_000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of 127.0.0.1, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return both


@pytest.fixture
def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def client_side(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


async def test_trio(server_side: ssl.SSLContext, client_side: ssl.SSLContext) -> None:
    with trio.fail_after(20):
        async with listening(FakeHost(), tls=server_side) as listener:
            address = f"127.0.0.1:{listener.port}"
            async with treestore.connect(address, tls=client_side) as db:
                await db.kv.put(b"a", VALUE)
                assert await db.kv.get(b"a") == VALUE
            with pytest.raises(Unavailable, match=r"(?i)certificate verify failed"):
                async with treestore.connect(address, tls=ssl.create_default_context()):
                    pass


def test_asyncio(server_side: ssl.SSLContext, client_side: ssl.SSLContext) -> None:
    async def main() -> None:
        async with treestore.connect(scene.address, tls=client_side) as db:
            await db.kv.put(b"a", VALUE)
            assert await db.kv.get(b"a") == VALUE
            assert [item async for item in db.kv.scan()] == [(b"a", VALUE)]
        with pytest.raises(Unavailable, match=r"(?i)certificate verify failed"):
            async with treestore.connect(scene.address, tls=ssl.create_default_context()):
                pass

    with served(tls=server_side) as scene:
        run(main)


def test_blocking(server_side: ssl.SSLContext, client_side: ssl.SSLContext) -> None:
    with served(tls=server_side) as scene:
        with treestore.connect_sync(scene.address, tls=client_side) as db:
            db.kv.put(b"a", VALUE)
            assert db.kv.get(b"a") == VALUE
        with pytest.raises(Unavailable, match=r"(?i)certificate verify failed"):
            treestore.connect_sync(scene.address, tls=ssl.create_default_context())
