"""The application is an ordinary one of ASGI: another server runs it as well."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import httpx  # noqa: ASYNC127 - litestar brings it along
import hypercorn.trio
import trio
from hypercorn.config import Config

from actors.database import open_database
from actors.http.app import build_app
from tests.http.conftest import operations


async def test_on_hypercorn(tmp_path: Path) -> None:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    stop = trio.Event()
    with trio.fail_after(30):
        async with open_database(tmp_path / "data") as database, trio.open_nursery() as nursery:
            app = build_app(database, operations=operations())
            serve = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait)
            (address,) = await nursery.start(serve)
            async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
                document = {"_id": "a/b%", "n": 1}
                answer = await client.post("/collections/c/documents", json=document)
                assert answer.status_code == 201
                answer = await client.get(answer.headers["location"])
                assert answer.json() == document
                answer = await client.get("/nix")
                assert answer.json()["error"]["code"] == "not_found"
                answer = await client.post("/v1/ops/kv.scan", json={"limit": 1})
                assert answer.headers["content-type"] == "application/x-ndjson"
            stop.set()
