"""``POST /v1/namespaces/{ns}/bulk``, and the paths beside it, over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from tests.http.conftest import Edge

SCHEMA = {
    "vector_dim": 2,
    "vector_metric": "l2",
    "attributes": {"year": "integer", "title": "text"},
}
LINES = {"content-type": "application/x-ndjson"}
AT = "/v1/namespaces/n"


def line(number: int) -> bytes:
    document = {"id": number, "vector": [number, 1], "attributes": {"year": number % 5}}
    return json.dumps(document).encode() + b"\n"


@pytest.fixture
async def n(edge: Edge) -> Edge:
    await edge.ask("PUT", AT, 201, json={"schema": SCHEMA})
    return edge


async def test_lines_are_stored_as_they_come(n: Edge) -> None:
    async def body() -> AsyncIterator[bytes]:
        text = b"".join(map(line, range(3000)))
        for at in range(0, len(text), 5000):
            yield text[at : at + 5000]
            await trio.lowlevel.checkpoint()

    found = await n.ask("POST", AT + "/bulk", 200, content=body(), headers=LINES)
    assert (found["count"], found["lines"], found["rejected"]) == (3000, 3000, 0)
    assert (await n.ask("POST", AT + "/count", 200, json={}))["count"] == 3000
    query: dict[str, Any] = {"vector": [7, 1], "top_k": 2}
    query["filter"] = {
        "type": "and",
        "conditions": [{"field": "year", "op": "eq", "value": 2}],
    }
    found = await n.ask("POST", AT + "/query", 200, json=query)
    assert [hit["id"] for hit in found["results"]] == [7, 2]
    counted = {"filter": {"field": "year", "op": "lt", "value": 2}}
    assert (await n.ask("POST", AT + "/count", 200, json=counted))["count"] == 1200


async def test_wrong_lines_are_told(n: Edge) -> None:
    text = line(1) + b"{oops\n" + b"\n" + line(2) + b'{"id": 3, "vector": [1]}\n'
    found = await n.ask("POST", AT + "/bulk", 200, content=text, headers=LINES)
    assert (found["count"], found["rejected"]) == (2, 2)
    assert [(one["line"], one["id"]) for one in found["errors"]] == [(2, None), (5, 3)]
    error = await n.ask("POST", AT + "/bulk", 400, content=b"{oops\n", headers=LINES)
    assert error["code"] == "invalid_argument"
    assert error["details"]["errors"][0]["line"] == 1
    whole = AT + "/bulk?mode=all_or_nothing"
    text = line(8) + b"{oops\n"
    error = await n.ask("POST", whole, 400, content=text, headers=LINES)
    assert error["details"]["rejected"] == 1
    assert (await n.ask("POST", AT + "/count", 200, json={}))["count"] == 2
    found = await n.ask("POST", whole, 200, content=line(8), headers=LINES)
    assert found["count"] == 1
    assert (await n.ask("POST", AT + "/count", 200, json={}))["count"] == 3


async def test_lines_whose_ids_no_answer_could_hold(n: Edge) -> None:
    text = line(1) + b'{"id": 18446744073709551616}\n' + b'{"id": "%s"}\n' % (b"x" * 10_000)
    text += b'{"id": "\\ud800"}\n' + b'{"id": 1, "attributes": {"\xff": 1}}\n'
    found = await n.ask("POST", AT + "/bulk", 200, content=text, headers=LINES)
    assert found["count"] == 1
    assert [(one["line"], one["id"]) for one in found["errors"]] == [
        *[(2, None), (3, "x" * 200), (4, None), (5, None)]
    ]


async def test_an_import_that_was_cut_off_goes_on(n: Edge) -> None:
    whole = b"".join(map(line, range(2500)))
    async with await n.connect() as stream:
        head = f"POST {AT}/bulk?import_id=mine HTTP/1.1\r\nhost: x\r\n"
        head += "content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
        await stream.send_all(head.encode())
        half = whole[: len(whole) // 2]
        await stream.send_all(b"%x\r\n%s\r\n" % (len(half), half))
        services = n.database.namespaces
        lines = 0
        while lines < 1000:
            await trio.sleep(0.01)
            lines = max((one.lines for one in await services.bulk_imports("n")), default=0)
    found = await n.ask("POST", AT + "/bulk?import_id=mine", 200, content=whole, headers=LINES)
    assert found["resumed_at"] >= 1000
    assert (found["lines"], found["count"]) == (2500, 2500)
    assert (await n.ask("POST", AT + "/count", 200, json={}))["count"] == 2500


async def test_bad_requests(n: Edge) -> None:
    for query, content, status in (
        *(("?mode=some", line(1), 400), ("?import_id=", line(1), 400), ("?x=1", line(1), 400)),
        ("", b"x" * 300_000, 413),
    ):
        await n.ask("POST", AT + "/bulk" + query, status, content=content, headers=LINES)
    await n.ask("POST", AT + "/bulk", 415, content=line(1))
    await n.ask("POST", "/v1/namespaces/other/bulk", 404, content=line(1), headers=LINES)
    assert (await n.ask("POST", AT + "/count", 200, json={}))["count"] == 0


async def test_the_other_paths(n: Edge) -> None:
    documents = [json.loads(line(number)) for number in range(10)]
    await n.ask("POST", AT + "/upsert", 200, json={"documents": documents})
    patch = {"documents": [{"id": 1, "attributes": {"title": "new"}}, {"id": 99}]}
    found = await n.ask("POST", AT + "/patch", 200, json=patch)
    assert (found["patched"], found["missing"]) == (1, [99])
    page = await n.ask("GET", AT + "/documents?limit=4", 200)
    assert [one["id"] for one in page["items"]] == [0, 1, 2, 3]
    assert page["items"][1]["attributes"] == {"year": 1, "title": "new"}
    page = await n.ask("GET", AT + f"/documents?limit=9&cursor={page['next_cursor']}", 200)
    assert [one["id"] for one in page["items"]] == [4, 5, 6, 7, 8, 9]
    assert (await n.ask("POST", AT + "/delete", 200, json={"ids": [1, 99]}))["deleted"] == 1
    gone = {"filter": {"field": "year", "op": "gte", "value": 3}}
    assert (await n.ask("POST", AT + "/delete", 200, json=gone))["deleted"] == 4
    assert (await n.ask("POST", AT + "/count", 200, json={}))["count"] == 5
    for path in ("/delete", "/patch", "/count"):
        await n.ask("POST", AT + path, 400, json={"nix": 1})
