"""Everything a stranger can send gets a JSON error with the right status."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.http.conftest import Edge

DOCUMENTS = "/collections/people/documents"
JSON = {"content-type": "application/json"}


@pytest.fixture
async def filled(edge: Edge) -> Edge:
    await edge.ask("POST", DOCUMENTS, 201, json={"_id": "a"})
    return edge


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("limit=-1", "limit"),
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("limit=1.5", "limit"),
        ("limit=true", "limit"),
        ("limit=99999999999999999999999999", ""),
        ("limit=" + "9" * 5000, ""),
        ("offset=-1", "offset"),
        ("offset=[]", "offset"),
        ("filter=", "filter"),
        ("filter=x", "filter"),
        ("filter=[]", "filter"),
        ("filter=1", "filter"),
        ("filter={", "filter"),
        ("filter=%ff", "UTF-8"),
        ('filter={"$nix":1}', "$nix"),
        ("filter=" + "[" * 5000, "nested"),
        ('filter={"a":1e999}', ""),
        ("filter={}&filter={}", "twice"),
        ("fitler={}", "fitler"),
        ("cursor=nonsense", "cursor"),
        ("&".join(f"a{number}=1" for number in range(200)), ""),
    ],
)
async def test_queries(filled: Edge, query: str, part: str) -> None:
    error = await filled.ask("GET", f"{DOCUMENTS}?{query}", 400)
    assert error["code"] == "invalid_argument"
    assert part in error["message"]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"nope", "JSON"),
        (b"1", "object"),
        (b"null", "object"),
        (b'"x"', "object"),
        (b"true", "object"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'{"a":"\\ud800"}', "JSON"),
        (b"[" * 50_000, "nested"),
        (b'{"a":' * 20_000, "nested"),
        (b'{"a":1e999}', "range"),
        (b'{"a":NaN}', "JSON"),
        (b"[1]", ""),
        (b"[null]", ""),
        (b'{"_id":1}', "_id"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b'{"a":123456789012345678901234567890}', ""),
    ],
)
async def test_bodies(filled: Edge, body: bytes, part: str) -> None:
    error = await filled.ask("POST", DOCUMENTS, 400, content=body, headers=JSON)
    assert error["code"] == "invalid_argument"
    assert part in error["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/jsonx"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": ";;;"},
    ],
)
async def test_types_of_bodies(filled: Edge, headers: dict[str, str]) -> None:
    await filled.ask("POST", DOCUMENTS, 415, content=b"{}", headers=headers)


async def test_charsets_may_be_said(filled: Edge) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    await filled.ask("POST", DOCUMENTS, 201, content=b"{}", headers=headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nix", 404),
        ("GET", "/collections/people/nix", 404),
        ("GET", "/collections/%ff/documents", 400),
        ("GET", "/collections/" + "x" * 3000 + "/documents", 400),
        ("GET", "/collections/people/documents/" + "x" * 3000, 400),
        ("PATCH", "/collections", 405),
        ("TRACE", "/collections", 405),
        ("POST", "/schema", 405),
        ("GET", "/v1/ops/kv.get", 405),
        ("POST", "/v1/ops/kv.nix", 404),
        ("POST", "/v1/ops/" + "x" * 1000, 404),
    ],
)
async def test_paths_and_methods(filled: Edge, method: str, path: str, status: int) -> None:
    answer = await filled.http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] in ("not_found", "invalid_argument")
    assert ("allow" in answer.headers) == (status == 405)


async def test_a_body_too_long(filled: Edge) -> None:
    error = await filled.ask("POST", DOCUMENTS, 413, content=b" " * 300_000, headers=JSON)
    assert error["code"] == "resource_exhausted"

    async def chunks() -> Any:  # noqa: ASYNC124 - httpx asks for one
        for _ in range(300):
            yield b" " * 1000

    await filled.ask("POST", DOCUMENTS, 413, content=chunks(), headers=JSON)
    lines = {"content-type": "application/x-ndjson"}
    await filled.ask("POST", DOCUMENTS, 413, content=b" " * 300_000, headers=lines)
    assert await filled.ask("GET", f"{DOCUMENTS}/a", 200) == {"_id": "a"}


async def test_a_body_that_is_announced_too_long_is_not_read(filled: Edge) -> None:
    said = await filled.say(
        f"POST {DOCUMENTS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Content-Length: 99999999999999999\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    assert said.startswith(b"HTTP/1.1 413")


async def test_a_body_that_stops_coming(filled: Edge) -> None:
    said = await filled.say(
        f"POST {DOCUMENTS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Content-Length: 100\r\n\r\n{".encode()
    )
    assert said.startswith(b"HTTP/1.1 408")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_argument"


async def test_a_body_that_trickles(filled: Edge) -> None:
    async with await filled.connect() as stream:
        await stream.send_all(
            f"POST {DOCUMENTS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            "Content-Length: 10000\r\n\r\n".encode()
        )
        received = b""
        with trio.fail_after(10):
            while not received:
                with trio.move_on_after(0.1):
                    received = bytes(await stream.receive_some())
                if not received:
                    await stream.send_all(b" ")
        assert received.startswith(b"HTTP/1.1 408")


async def test_who_goes_away_within_a_body_harms_nobody(filled: Edge) -> None:
    async with await filled.connect() as stream:
        await stream.send_all(
            f"POST {DOCUMENTS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            "Content-Length: 100\r\n\r\n{".encode()
        )
    assert await filled.ask("GET", f"{DOCUMENTS}/a", 200) == {"_id": "a"}


@pytest.mark.parametrize(
    ("operation", "body", "status"),
    [
        ("kv.get", b'{"key":"not base64!"}', 400),
        ("kv.get", b'{"key":null}', 400),
        ("kv.get", b"[]", 400),
        ("kv.get", b"{}", 400),
        ("kv.get", b'{"key":""}', 400),
        ("kv.scan", b'{"limit":-1}', 400),
        ("kv.scan", b'{"limit":1e30}', 400),
        ("kv.put", b'{"key":"YQ==","value":1}', 400),
        ("documents.store", b'{"policy_id":"p","version_id":"v","structure":5}', 400),
        ("documents.get", b'{"policy_id":"nix"}', 404),
        ("documents.get", b'{"policy_id":"a\\u0000b"}', 404),
        ("documents.list", b'{"limit":123456789012345678901234567890}', 400),
        ("documents.list", b'{"cursor":"x"}', 400),
        ("admin.backup", b'{"path":"/proc/nope/nope"}', 400),
    ],
)
async def test_operations(filled: Edge, operation: str, body: bytes, status: int) -> None:
    await filled.ask("POST", f"/v1/ops/{operation}", status, content=body, headers=JSON)


async def test_a_stream_is_no_json(filled: Edge) -> None:
    headers = {**JSON, "accept": "application/json"}
    await filled.ask("POST", "/v1/ops/kv.scan", 406, content=b"{}", headers=headers)


async def test_a_wrong_word_is_answered_with_the_right_ones(filled: Edge) -> None:
    body = b'{"query": "word", "mode": "upwards"}'
    answer = await filled.ask("POST", "/v1/ops/documents.search", 400, content=body, headers=JSON)
    said = answer["message"]
    assert said == 'mode is "any", "all" or "phrase", not \'upwards\'.'
