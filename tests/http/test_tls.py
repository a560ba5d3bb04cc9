"""The edge over TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from functools import partial
from pathlib import Path

import httpx  # noqa: ASYNC127 - litestar brings it along
import pytest
import trio

from actors.http import Answer, HttpSettings, PathsApp, serve_http


async def health() -> Answer:
    await trio.lowlevel.checkpoint()
    return Answer(200, {"status": "ok"})


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_tls(tmp_path: Path) -> None:
    subprocess.run(  # noqa: ASYNC221 - nothing else runs
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    serve = partial(
        serve_http,
        PathsApp({"/health": health}),
        tls=context,
        settings=HttpSettings(head_timeout_s=0.5, grace_s=1),
    )
    trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(serve)
            url = f"https://127.0.0.1:{port.port}"
            async with httpx.AsyncClient(base_url=url, verify=trusted, trust_env=False) as client:
                for _ in range(3):
                    assert (await client.get("/health")).json() == {"status": "ok"}
                assert port.connections_total == 1  # It was kept.
            # Who speaks no TLS, or says nothing at all, is dropped.
            for said in (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b""):
                async with await trio.open_tcp_stream("127.0.0.1", port.port) as stream:
                    if said:
                        await stream.send_all(said)
                    try:
                        while await stream.receive_some():
                            pass
                    except trio.BrokenResourceError:
                        pass
            port.stop()
