"""API keys over HTTP, on a real server."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx  # noqa: ASYNC127 - litestar brings it along
import pytest

from tests.integration.servers import Server


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    server = Server.start(tmp_path / "data")
    yield server
    assert server.stop() == 0


@pytest.mark.slow
def test_keys(server: Server) -> None:
    with httpx.Client(base_url=f"http://{server.http}", trust_env=False) as client:

        def ask(name: str, secret: str | None, status: int, **body: Any) -> Any:
            headers = {} if secret is None else {"x-api-key": secret}
            answer = client.post(f"/v1/ops/{name}", json=body, headers=headers)
            assert answer.status_code == status, answer.text
            return answer.json()

        put = {"key": "YQ==", "value": "Yg=="}
        ask("kv.put", None, 200, **put)
        admin = ask("admin.create_key", None, 200, scopes=["admin"])
        ask("kv.put", None, 401, **put)
        ask("kv.put", "ts_nix", 401, **put)
        ask("kv.put", admin["secret"] + "x", 401, **put)
        reader = ask("admin.create_key", admin["secret"], 200, scopes=["read"])
        assert ask("kv.get", reader["secret"], 200, key="YQ==") == "Yg=="
        error = ask("kv.put", reader["secret"], 403, **put)["error"]
        assert (error["code"], "write" in error["message"]) == ("permission_denied", True)
        slow = ask("admin.create_key", admin["secret"], 200, scopes=["read"], rate_limit=1)
        ask("kv.get", slow["secret"], 200, key="YQ==")
        headers = {"x-api-key": slow["secret"]}
        answers = [
            client.post("/v1/ops/kv.get", json={"key": "YQ=="}, headers=headers) for _ in range(9)
        ]
        limited = [answer for answer in answers if answer.status_code == 429]
        assert limited
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in limited)
        ask("admin.revoke_key", admin["secret"], 200, key_id=reader["key_id"])
        ask("kv.get", reader["secret"], 401, key="YQ==")
        assert client.get("/health").status_code == 200
        assert client.get("/collections").status_code == 401
        trail = json.dumps(ask("admin.audit", admin["secret"], 200))
        assert admin["key_id"] in trail
        assert "127.0.0.1" in trail
        assert reader["secret"] not in trail
