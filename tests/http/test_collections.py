"""Collections over HTTP: statuses, places, pages, lines."""

from __future__ import annotations

import json

import pytest

from tests.http.conftest import Edge

DOCUMENTS = "/collections/people/documents"


async def test_the_life_of_a_document(edge: Edge) -> None:
    document = {"name": "Ada", "age": 36, "tags": ["a", {"b": None}]}
    answer = await edge.http.post(DOCUMENTS, json=document)
    assert answer.status_code == 201
    id = answer.json()["id"]
    assert answer.headers["location"] == f"{DOCUMENTS}/{id}"
    found = await edge.ask("GET", answer.headers["location"], 200)
    assert found == {"_id": id, **document}
    await edge.ask("PUT", f"{DOCUMENTS}/{id}", 204, json={"name": "Bob"})
    changed = await edge.ask("PATCH", f"{DOCUMENTS}/{id}", 200, json={"age": 5})
    assert changed == {"_id": id, "name": "Bob", "age": 5}
    await edge.ask("DELETE", f"{DOCUMENTS}/{id}", 204)
    assert (await edge.ask("DELETE", f"{DOCUMENTS}/{id}", 404))["code"] == "not_found"
    assert (await edge.ask("GET", f"{DOCUMENTS}/{id}", 404))["code"] == "not_found"
    assert (await edge.ask("PUT", f"{DOCUMENTS}/{id}", 404, json={}))["code"] == "not_found"
    made = await edge.http.put(f"{DOCUMENTS}/{id}?upsert=true", json={"again": 1})
    assert (made.status_code, made.headers["location"]) == (201, f"{DOCUMENTS}/{id}")
    await edge.ask("PUT", f"{DOCUMENTS}/{id}?upsert=true", 204, json={"again": 2})


async def test_the_life_of_a_collection(edge: Edge) -> None:
    answer = await edge.http.post("/collections", json={"name": "a b/c"})
    assert (answer.status_code, answer.headers["location"]) == (201, "/collections/a%20b%2Fc")
    assert (await edge.ask("POST", "/collections", 409, json={"name": "a b/c"}))["code"] == (
        "already_exists"
    )
    assert (await edge.ask("GET", answer.headers["location"], 200))["name"] == "a b/c"
    listed = await edge.ask("GET", "/collections", 200)
    assert [each["name"] for each in listed["items"]] == ["a b/c"]
    assert (await edge.ask("GET", "/collections?prefix=x", 200))["items"] == []
    await edge.ask("DELETE", "/collections/a%20b%2Fc", 204)
    await edge.ask("DELETE", "/collections/a%20b%2Fc", 404)
    await edge.ask("GET", "/collections/a%20b%2Fc/documents", 404)


@pytest.mark.parametrize(
    "id", ["a/b", "a%2Fb", "ä", "a b", "%", "a?b#c", ".", "日本", "+", "x" * 200]
)
async def test_any_id_goes_into_a_path(edge: Edge, id: str) -> None:
    answer = await edge.http.post(DOCUMENTS, json={"_id": id, "n": 1})
    assert answer.json() == {"id": id}
    raw = answer.headers["location"].encode().replace(b"/.", b"/%2E")
    said = await edge.say(b"GET " + raw + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), said
    assert json.loads(body) == {"_id": id, "n": 1}


async def test_pages_and_queries(edge: Edge) -> None:
    many = [{"_id": f"d{number:03}", "n": number} for number in range(250)]
    assert (await edge.ask("POST", DOCUMENTS, 201, json=many))["ids"][-1] == "d249"
    first = await edge.ask("GET", DOCUMENTS, 200, params={"limit": 100})
    assert [each["n"] for each in first["items"]] == list(range(100))
    query = {"limit": "100", "cursor": first["next_cursor"]}
    second = await edge.ask("GET", DOCUMENTS, 200, params=query)
    assert second["items"][0]["n"] == 100
    some = {"filter": json.dumps({"n": {"$gte": 248}})}
    assert [
        each["n"] for each in (await edge.ask("GET", DOCUMENTS, 200, params=some))["items"]
    ] == [
        248,
        249,
    ]
    body = {"filter": {"n": {"$gte": 240}}, "offset": 8}
    found = await edge.ask("POST", "/collections/people/query", 200, json=body)
    assert [each["n"] for each in found["items"]] == [248, 249]
    assert await edge.ask("GET", "/collections/people/count", 200, params=some) == {"count": 2}
    await edge.ask("DELETE", DOCUMENTS, 400)  # Not by mistake.
    assert await edge.ask("DELETE", DOCUMENTS, 200, params=some) == {"deleted": 2}


async def test_lines_in_and_out(edge: Edge) -> None:
    lines = [json.dumps({"_id": f"d{number:04}", "n": number}) for number in range(2500)]
    sent = {
        "content": "\n".join(lines) + "\n\n",
        "headers": {"content-type": "application/x-ndjson"},
    }
    assert await edge.ask("POST", DOCUMENTS, 201, **sent) == {"inserted": 2500}
    wanted = {"accept": "application/x-ndjson"}
    answer = await edge.http.get(DOCUMENTS, headers=wanted)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["n"] for line in answer.text.splitlines()] == list(range(2500))
    some = {"limit": 1700, "filter": {"n": {"$gte": 3}}}
    answer = await edge.http.post("/collections/people/query", json=some, headers=wanted)
    found = [json.loads(line)["n"] for line in answer.text.splitlines()]
    assert found == list(range(3, 1703))
    some = {"offset": 2490, "filter": {}}
    answer = await edge.http.post("/collections/people/query", json=some, headers=wanted)
    assert len(answer.text.splitlines()) == 10
    # An error before the first line is an answer like any other.
    assert (await edge.ask("GET", "/collections/nix/documents", 404, headers=wanted))["code"] == (
        "not_found"
    )


async def test_a_bad_line_says_which_and_what_was_done(edge: Edge) -> None:
    lines = [json.dumps({"n": number}) for number in range(1200)]
    sent = {
        "content": "\n".join([*lines, '{"n": }', '{"n": 7}']),
        "headers": {"content-type": "application/x-ndjson"},
    }
    error = await edge.ask("POST", DOCUMENTS, 400, **sent)
    assert "line 1201" in error["message"]
    assert error["details"]["inserted"] == 1000
    assert await edge.ask("GET", "/collections/people/count", 200) == {"count": 1000}


async def test_an_atomic_list_is_stored_whole_or_not_at_all(edge: Edge) -> None:
    await edge.ask("POST", DOCUMENTS, 201, json={"_id": "b"})
    await edge.ask("POST", DOCUMENTS, 409, json=[{"_id": "a"}, {"_id": "b"}])
    await edge.ask("GET", f"{DOCUMENTS}/a", 404)


async def test_what_is_written_over_http_is_there_embedded(edge: Edge) -> None:
    await edge.ask("POST", "/v1/ops/kv.put", 200, json={"key": "YQ==", "value": "YsO/"})
    assert await edge.database.kv.get(b"a") == b"b\xc3\xbf"


async def test_the_life_of_an_index(edge: Edge) -> None:
    at = "/collections/people/indexes"
    await edge.ask("POST", at, 404, json={"fields": "age"})
    await edge.ask("POST", DOCUMENTS, 201, json={"age": 1})
    answer = await edge.http.post(at, json={"fields": ["age", "city"], "name": "by age"})
    assert (answer.status_code, answer.headers["location"]) == (201, f"{at}/by%20age")
    assert [each["name"] for each in (await edge.ask("GET", at, 200))["items"]] == ["by age"]
    await edge.ask("POST", at, 400, json={"fields": 5})
    await edge.ask("DELETE", f"{at}/by%20age", 204)
    await edge.ask("DELETE", f"{at}/by%20age", 404)
