"""What happens to every request: ids, keys, rate limits, CORS, observers, faults, the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio
import trio.testing

from actors.http import Answer
from actors.http.access import Observation, Principal
from tests.http.conftest import SETTINGS, Edge, edge_over
from treestore.errors import PermissionDenied, RateLimited, Unauthenticated
from treestore.stores.operation import Operation

GET: dict[str, Any] = {"json": {"key": "YQ=="}}


@attrs.define
class FakePrincipal:
    key_id: str
    left: int = 1000
    ends: list[Any] = attrs.field(factory=list)

    def take(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise RateLimited("Too many.", retry_after_s=2.3)

    def allow(self, operation: Operation, arguments: Any) -> None:
        if operation.kind != "query" and self.key_id == "reader":
            raise PermissionDenied("It may only read.")
        if self.key_id == "prefix" and not arguments.key.startswith(b"mine/"):
            raise PermissionDenied("It may only read its own.")

    def attach(self, owner: object, end: Any) -> None:
        self.ends.append(end)

    def detach(self, owner: object) -> None:
        self.ends.clear()


@attrs.define
class Keys:
    principals: dict[str, FakePrincipal]
    peers: list[str] = attrs.field(factory=list)

    def __call__(self, key: str | None, peer: str) -> Principal:
        self.peers.append(peer)
        if key not in self.principals:
            raise Unauthenticated("An API key is needed, in the header X-API-Key.")
        return self.principals[key]


@pytest.fixture
def keys() -> Keys:
    names = ("writer", "reader", "prefix")
    return Keys({f"secret-{name}": FakePrincipal(name) for name in names})


async def health() -> Answer:
    await trio.lowlevel.checkpoint()
    return Answer(200, {"status": "ok"})


PATHS = {"/health": health, "/ready": health}


async def test_keys(tmp_path: Path, keys: Keys) -> None:
    async with edge_over(tmp_path / "data", authenticate=keys, paths=PATHS) as edge:
        answer = await edge.http.post("/v1/ops/kv.get", **GET)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("ApiKey")
        for header in ({"x-api-key": "nix"}, {"x-api-key": "secret-Writer"}, {"x-api-key": ""}):
            error = await edge.ask("POST", "/v1/ops/kv.get", 401, headers=header, **GET)
            assert error["code"] == "unauthenticated"
        for path in ("/collections", "/schema", "/nix", "/v1/ops"):
            await edge.ask("GET", path, 401)
        for path in PATHS:
            await edge.ask("GET", path, 200)
        for header in ({"x-api-key": "secret-writer"}, {"authorization": "Bearer secret-writer"}):
            await edge.ask("POST", "/v1/ops/kv.get", 200, headers=header, **GET)
        put = {"json": {"key": "YQ==", "value": ""}}
        for path, request in (
            ("/v1/ops/kv.put", put),
            ("/v1/ops/kv.scan", {"json": {}}),
            ("/collections/a/documents", {"json": {}}),
        ):
            header = {"x-api-key": "secret-reader"}
            error = await edge.ask("POST", path, 403, headers=header, **request)
            assert error["code"] == "permission_denied"
        header = {"x-api-key": "secret-prefix"}
        await edge.ask("POST", "/v1/ops/kv.get", 403, headers=header, **GET)
        mine = {"json": {"key": "bWluZS8="}}
        await edge.ask("POST", "/v1/ops/kv.get", 200, headers=header, **mine)
        assert all(peer.startswith("127.0.0.1:") for peer in keys.peers)


async def test_a_rate_limit(tmp_path: Path, keys: Keys) -> None:
    async with edge_over(tmp_path / "data", authenticate=keys, paths=PATHS) as edge:
        keys.principals["secret-reader"].left = 2
        header = {"x-api-key": "secret-reader"}
        for _ in range(2):
            await edge.ask("POST", "/v1/ops/kv.get", 200, headers=header, **GET)
        answer = await edge.http.post("/v1/ops/kv.get", headers=header, **GET)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
        assert answer.json()["error"]["code"] == "rate_limited"
        await edge.ask("GET", "/health", 200, headers=header)


async def test_a_stream_ends_with_its_key(tmp_path: Path, keys: Keys) -> None:
    async with edge_over(tmp_path / "data", authenticate=keys) as edge:
        header = {"x-api-key": "secret-writer"}
        watch = edge.http.stream("POST", "/v1/ops/db.watch", json={}, headers=header)
        async with watch as answer:
            lines = answer.aiter_lines()
            assert "position" in json.loads(await anext(lines))
            (end,) = keys.principals["secret-writer"].ends
            end("The API key was revoked.")
            found = [line async for line in lines if line]
        assert json.loads(found[-1])["error"]["code"] == "unauthenticated"


async def test_request_ids(edge: Edge) -> None:
    answers = [await edge.http.get("/schema/openapi.json") for _ in range(2)]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2
    answer = await edge.http.get("/nix", headers={"x-request-id": "mine-1.2:3"})
    assert answer.headers["x-request-id"] == "mine-1.2:3"
    assert answer.json()["error"]["request_id"] == "mine-1.2:3"
    for bad in (b"", b"x" * 200, b"a b", "ä".encode("latin-1"), b"<script>"):
        answer = await edge.http.get("/nix", headers=[(b"x-request-id", bad)])
        assert len(answer.headers["x-request-id"]) == 24


ORIGIN = {"origin": "https://a.example", "access-control-request-method": "POST"}


async def test_cors_is_off(edge: Edge) -> None:
    answer = await edge.http.get("/v1/ops", headers=ORIGIN)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    answer = await edge.http.options("/v1/ops", headers=ORIGIN)
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origins", [("https://a.example",), ("*",)])
async def test_cors(tmp_path: Path, keys: Keys, origins: tuple[str, ...]) -> None:
    settings = attrs.evolve(SETTINGS, origins=origins)
    async with edge_over(tmp_path / "data", settings, authenticate=keys) as edge:
        answer = await edge.http.options("/v1/ops/kv.get", headers=ORIGIN)  # Has no key, ever.
        assert answer.status_code == 204
        allowed = answer.headers["access-control-allow-origin"]
        assert allowed == ("*" if origins == ("*",) else "https://a.example")
        assert "X-API-Key" in answer.headers["access-control-allow-headers"]
        # Errors too are for the page to read.
        answer = await edge.http.get("/v1/ops", headers={"origin": "https://a.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, allowed)
        answer = await edge.http.get("/v1/ops", headers={"origin": "https://b.example"})
        assert ("access-control-allow-origin" in answer.headers) == (origins == ("*",))


async def test_observers(tmp_path: Path, keys: Keys) -> None:
    seen: list[Observation] = []
    async with edge_over(tmp_path / "data", authenticate=keys, observe=seen.append) as edge:
        header = {"x-api-key": "secret-writer"}
        await edge.http.post("/v1/ops/kv.get", headers=header, **GET)
        await edge.http.get("/collections/secret/documents/x", headers=header)
        await edge.http.get("/nix", headers=header)
        await edge.http.get("/nix")
        await edge.http.head("/v1/ops", headers=header)
    told = [(one.method, one.route, one.operation, one.status, one.code) for one in seen]
    assert told == [
        ("POST", "/v1/ops/{operation}", "kv.get", 200, ""),
        ("GET", "/collections/{name}/documents/{id}", "collections.get", 404, "not_found"),
        ("GET", "", "", 404, "not_found"),
        ("GET", "", "", 401, "unauthenticated"),
        ("HEAD", "/v1/ops", "", 200, ""),
    ]
    assert [one.principal for one in seen] == ["writer"] * 3 + ["", "writer"]
    assert all(0 < one.duration_s < 30 for one in seen)


async def test_a_fault_is_logged_and_not_told(tmp_path: Path) -> None:
    async def broken() -> Answer:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a secret")

    with structlog.testing.capture_logs() as logged:
        async with edge_over(tmp_path / "data", paths={"/broken": broken}) as edge:
            error = await edge.ask("GET", "/broken", 500)
            assert error["code"] == "internal"
            assert "secret" not in json.dumps(error)
            await edge.ask("GET", "/v1/ops", 200)
    (line,) = [line for line in logged if line["log_level"] == "error"]
    assert line["request_id"] == error["request_id"]
    assert str(line["exc_info"]) == "a secret"


async def test_heads(edge: Edge) -> None:
    answer = await edge.http.head("/v1/ops")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 100
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "date" in answer.headers


async def test_who_waits_no_more_is_let_go(tmp_path: Path) -> None:
    cancelled = trio.Event()

    async def slow() -> Answer:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with edge_over(tmp_path / "data", paths={"/slow": slow}) as edge:
        async with await edge.connect() as stream:
            await stream.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(10):
            await cancelled.wait()


async def test_feeds_see_changes_and_end_with_the_server(edge: Edge) -> None:
    async with edge.http.stream("POST", "/v1/ops/db.watch", json={}) as answer:
        lines = answer.aiter_lines()
        assert "position" in json.loads(await anext(lines))
        await edge.database.kv.put(b"a", b"1")
        change = json.loads(await anext(lines))
        assert (change["service"], change["key"]) == ("kv", "YQ==")
        edge.stopping.set()
        with trio.fail_after(10):
            rest = [json.loads(line) async for line in lines if line]
        assert rest[-1]["error"]["code"] == "unavailable"


async def test_a_write_is_not_lost_with_its_client(edge: Edge) -> None:
    """Whoever leaves before the answer: the write is done whole, or not at all."""
    for number in range(20):
        body = json.dumps({"_id": f"d{number}"}).encode()
        async with await edge.connect() as stream:
            await stream.send_all(
                b"POST /collections/c/documents HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/json\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
    found = await edge.ask("GET", "/collections/c/count", 200)
    assert 0 <= found["count"] <= 20
    assert (await edge.database.admin.check()).ok
