"""The short ways of the edge give what the long ones give: h11's reading and framing, litestar's
routes."""

from __future__ import annotations

from typing import Any

import h11
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from litestar import Litestar

from actors.http.access import Context
from actors.http.directory import Directory
from actors.http.gate import routable
from actors.http.plain import Plain, PlainReader, plain_answer
from actors.http.replies import Reply
from actors.http.requests import AnyRequest, Incoming
from actors.http.routes import Route
from tests.http.conftest import Edge

HEAD_SIZE_MAX = 2000
COMMON = b"GET /collections/people/documents/d77 HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
POST = (
    b"POST /a HTTP/1.1\r\nhost: x:1\r\nContent-Type: application/json\r\n"
    b'Connection: Keep-Alive\r\nContent-Length: 7\r\n\r\n{"a":1}'
)

# --- requests --------------------------------------------------------------------------------

tokens = st.sampled_from([b"GET", b"HEAD", b"POST", b"DELETE", b"CONNECT", b"get", b"OPTIONS", b""])
targets = st.one_of(
    st.sampled_from(
        [b"/", b"/a/b?c=%20", b"*", b"http://x/y", b"/a b", b"/\xc3\xa4", b"", b"/\x7f"]
    ),
    st.binary(max_size=5).map(lambda data: b"/" + data),
)
names = st.one_of(
    st.sampled_from(
        [
            *(b"Host", b"host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect"),
            *(b"Upgrade", b"Accept", b"X-Request-ID", b"A b", b"", b"Host ", b"\xc3\xa4"),
        ]
    ),
    st.binary(max_size=3),
)
values = st.one_of(
    st.sampled_from(
        [
            *(b"localhost", b"x", b"0", b"3", b"03", b"+3", b"3, 3", b"4", b"chunked", b"close"),
            *(b"keep-alive", b"Keep-Alive", b"100-continue", b"websocket", b"a  b", b" a", b"a "),
            *(b"", b"\t", b"a\tb", b"a\x01b", b"a\x00b", b"a\rb", b"a\n b", b"\xe4", b"1" * 30),
        ]
    ),
    st.binary(max_size=4),
)
separators = st.sampled_from([b": ", b": ", b": ", b":", b" : ", b":  ", b""])
ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n ", b""])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    version = draw(st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1"]))
    lines = [b"%b %b %b%b" % (draw(tokens), draw(targets), version, draw(ends))]
    if draw(st.integers(0, 4)):
        lines.append(b"Host: localhost\r\n")
    lines += [
        draw(names) + draw(separators) + draw(values) + draw(ends)
        for _ in range(draw(st.integers(0, 4)))
    ]
    return b"".join(lines) + draw(ends) + draw(st.sampled_from([b"", b"", b"abc", b"abcd", COMMON]))


def as_h11_reads_it(data: bytes) -> tuple[h11.Request, bytes, h11.Connection]:
    """The one request that there is, with its body."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_SIZE_MAX)
    connection.receive_data(data)
    request = connection.next_event()
    assert isinstance(request, h11.Request), request
    assert not connection.they_are_waiting_for_100_continue
    body = b""
    while connection.their_state is h11.SEND_BODY:
        event = connection.next_event()
        assert isinstance(event, h11.Data | h11.EndOfMessage), event
        if isinstance(event, h11.Data):
            body += event.data
    return request, body, connection


@given(st.lists(st.one_of(requests(), st.just(COMMON), st.just(POST)), min_size=1, max_size=3))
@example([COMMON, POST, COMMON])
@example([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"])
def test_what_is_read_without_h11_is_what_h11_reads(datas: list[bytes]) -> None:
    """And the connection serves for another request then."""
    reader = PlainReader(HEAD_SIZE_MAX)
    for data in datas:
        found = reader.read(data)
        if found is None:
            assert data not in (COMMON, POST)
            continue
        request, body, connection = as_h11_reads_it(data)
        assert (found.method, found.target) == (request.method, request.target)
        assert found.http_version == request.http_version
        assert found.headers == list(request.headers)
        assert (found.body, found.raw) == (body, data)
        assert connection.trailing_data == (b"", False)
        connection.send(h11.Response(status_code=204, headers=[]))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()  # It raises where the connection has to end.


def test_what_is_not_plain_is_for_h11() -> None:
    reader = PlainReader(200)
    assert isinstance(reader.read(COMMON), Plain)
    for data in (
        COMMON[:-1],
        COMMON + b"G",
        POST[:-1],
        POST + b"x",
        COMMON.replace(b"1.1", b"1.0"),
        COMMON.replace(b"Host", b"Most"),
        COMMON.replace(b"Accept: */*", b"Host: other"),
        COMMON.replace(b"Accept: */*", b"Connection: close"),
        COMMON.replace(b"Accept: */*", b"Upgrade: websocket"),
        COMMON.replace(b"Accept: */*", b"Expect: 100-continue"),
        COMMON.replace(b"Accept: */*", b"Accept: " + b"a" * 200),
        POST.replace(b"Content-Length: 7", b"Content-Length: 7\r\nContent-Length: 7"),
        POST.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked"),
    ):
        assert reader.read(data) is None, data


def test_a_request_that_is_changed_changes_no_other() -> None:
    """Headers are remembered from one request to the next."""
    reader = PlainReader(HEAD_SIZE_MAX)
    first = reader.read(COMMON)
    assert first is not None
    first.headers.clear()
    second = reader.read(COMMON)
    assert second is not None
    assert second.headers == [(b"host", b"localhost"), (b"accept", b"*/*")]


# --- answers ---------------------------------------------------------------------------------

answer_headers = st.lists(
    st.tuples(
        st.sampled_from([b"content-type", b"location", b"allow", b"connection", b"x-request-id"]),
        st.sampled_from([b"application/json", b"/a/b%20c", b"close", b"a\r\nb: c", b"a\0b", b"1"]),
    ),
    max_size=4,
)


@given(
    status=st.sampled_from([200, 201, 204, 304, 400, 404, 418, 503, 799]),
    headers=answer_headers,
    length=st.sampled_from(["right", "right", "wrong", "none", "twice", "chunked"]),
    body=st.sampled_from([b"", b"{}", b'{"a":1}\n']),
    method=st.sampled_from([b"GET", b"HEAD", b"DELETE"]),
)
def test_what_is_answered_without_h11_is_what_h11_sends(
    status: int, headers: list[tuple[bytes, bytes]], length: str, body: bytes, method: bytes
) -> None:
    framing = {
        "right": [(b"content-length", b"%d" % len(body))],
        "wrong": [(b"content-length", b"%d" % (len(body) + 1))],
        "none": [],
        "twice": [(b"content-length", b"%d" % len(body))] * 2,
        "chunked": [(b"transfer-encoding", b"chunked")],
    }
    headers = headers + framing[length]
    headless = method == b"HEAD"
    found = plain_answer(status, headers, body, headless=headless)
    if found is None:
        plain = length == "right" and all(
            name != b"connection" and b"\r" not in value and b"\0" not in value
            for name, value in headers
        )
        assert not plain or status in (204, 304, 799)
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"%b / HTTP/1.1\r\nHost: x\r\n\r\n" % method)
    connection.next_event()
    connection.next_event()
    reason = found.split(b"\r\n")[0].split(b" ", 2)[2]
    sent = connection.send(h11.Response(status_code=status, headers=headers, reason=reason)) or b""
    if body and not headless and status not in (204, 304):
        sent += connection.send(h11.Data(data=body)) or b""
    sent += connection.send(h11.EndOfMessage()) or b""
    assert found == sent
    connection.start_next_cycle()


# --- both, over a connection -----------------------------------------------------------------


def request_of(method: str, path: str, body: bytes = b"", *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "X-Request-ID: same", *more]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


AT = "/collections/people/documents"
ASKED = (
    request_of("POST", AT, b'[{"_id": "a", "n": 1}, {"_id": "b/c", "n": 2}]'),
    request_of("GET", AT + "/a"),
    request_of("GET", AT + "/b%2Fc"),
    request_of("HEAD", AT + "/a"),
    request_of("HEAD", AT + "/nobody"),
    request_of("GET", AT + "/nobody"),
    request_of("GET", AT + "/a?n=1"),
    request_of("GET", AT),
    request_of("GET", AT, b"", "Accept: application/x-ndjson"),
    request_of("HEAD", AT, b"", "Accept: application/x-ndjson"),
    request_of("PUT", AT + "/a", b'{"n": 3}'),
    request_of("PATCH", AT + "/a", b'{"n": 4}'),
    request_of("PATCH", AT + "/a", b"{"),
    request_of("POST", "/collections/people/query", b'{"filter": {"n": 4}}'),
    request_of("POST", "/v1/ops/collections.count", b'{"name": "people"}'),
    request_of("GET", "/nowhere"),
    request_of("GET", "//collections//people/documents/a/"),
    request_of("DELETE", "/collections"),
    request_of("OPTIONS", "/collections"),
    request_of("GET", AT + "/%FF"),
    request_of("GET", AT + "/a").replace(b"localhost", b"a b"),
    request_of("DELETE", AT + "/a"),
)


async def answers(edge: Edge, *, whole: bool) -> list[bytes]:
    """Of all of `ASKED`, on one connection, in one piece each or in two."""
    found = []
    async with await edge.connect() as stream:
        for request in ASKED:
            if whole:
                await stream.send_all(request)
            else:
                await stream.send_all(request[:10])
                await trio.sleep(0.01)
                await stream.send_all(request[10:])
            found.append(await _one_answer(stream, request.startswith(b"HEAD")))
    return found


async def _one_answer(stream: trio.SocketStream, headless: bool) -> bytes:
    received = b""
    while True:
        part = bytes(await stream.receive_some())
        assert part, received
        received += part
        head, end, body = received.partition(b"\r\n\r\n")
        if not end:
            continue
        lines = [line for line in head.lower().split(b"\r\n") if not line.startswith(b"date: ")]
        fields = dict(line.split(b": ", 1) for line in lines[1:])
        if headless or lines[0].split()[1] == b"204":
            done = True
        elif b"transfer-encoding" in fields:
            done = body.endswith(b"0\r\n\r\n")
        else:
            done = len(body) == int(fields[b"content-length"])
        if done:
            return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_a_connection_answers_alike_whichever_way_a_request_came(edge: Edge) -> None:
    with trio.fail_after(20):
        in_pieces = await answers(edge, whole=False)
        await edge.ask("DELETE", "/collections/people", 204)
        assert await answers(edge, whole=True) == in_pieces
        statuses = [answer.split()[1] for answer in in_pieces]
        assert {b"200", b"201", b"204", b"400", b"404", b"405"} <= set(statuses)


async def test_what_comes_together_is_answered_in_order(edge: Edge) -> None:
    """Plain requests and such as h11 reads, on one connection."""
    with trio.fail_after(20):
        async with await edge.connect() as stream:
            await stream.send_all(ASKED[0])
            await _one_answer(stream, False)
            for _ in range(3):
                await stream.send_all(ASKED[1] + ASKED[2])
                received = b""
                while received.count(b'"n":') < 2:
                    received += bytes(await stream.receive_some())
                assert received.index(b'"_id":"a"') < received.index(b'"_id":"b/c"')
                await stream.send_all(ASKED[1])
                assert b'"_id":"a"' in await _one_answer(stream, False)


# --- routes ----------------------------------------------------------------------------------

TEMPLATES = (
    ("GET", "/collections"),
    ("POST", "/collections"),
    ("GET", "/collections/{name}"),
    ("GET", "/collections/{name}/documents"),
    ("GET", "/collections/{name}/documents/{id}"),
    ("POST", "/collections/{name}/query"),
    ("GET", "/collections/all/documents/{id}"),
    ("GET", "/v1/ops"),
    ("POST", "/v1/ops/{operation}"),
    ("GET", "/schema/openapi.json"),
)
PARTS = ("collections", "people", "all", "documents", "query", "v1", "ops", "", ".", "a%20b", "%2F")


def scope_of(method: str, path: str) -> Any:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"x-a", b"1"), (b"x-a", b"2"), (b"y", b"\xe4")],
        "state": {"context": Context("id")},
        "extensions": {},
    }


@pytest.fixture(scope="module")
def routed() -> tuple[Directory, Litestar, list[Any]]:
    """The same routes both ways, and what their handlers were called with."""
    calls: list[Any] = []

    def handler_of(method: str, path: str) -> Any:
        async def handle(request: AnyRequest) -> Reply:  # noqa: ASYNC124 - a handler
            headers = [request.headers.get(name, "none") for name in ("x-a", "y", "z")]
            calls.append((method, path, dict(request.scope["path_params"]), headers))
            return Reply(200)

        return handle

    routes = [
        Route(
            method=method,
            path=path,
            handler=handler_of(method, path),
            summary="",
            tag="",
            operation_id=f"{method} {path}",
        )
        for method, path in TEMPLATES
    ]
    litestar = Litestar([route.for_litestar({}) for route in routes], openapi_config=None)
    return Directory(routes, {}, litestar), litestar, calls


async def _ignore(_message: Any) -> None:
    pass


@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    parts=st.lists(st.sampled_from(PARTS), max_size=6),
    slash=st.sampled_from(["/", "/", "/", ""]),
)
def test_a_route_that_is_found_is_litestars(
    routed: tuple[Directory, Litestar, list[Any]], method: str, parts: list[str], slash: str
) -> None:
    directory, litestar, calls = routed
    path = routable(slash + "/".join(parts))
    found = directory.find(method, path)
    if found is None:
        return
    handler, params = found
    calls.clear()
    scope = scope_of(method, path)
    scope["path_params"] = params

    async def both() -> None:
        await handler(Incoming(scope, trio.sleep_forever))
        await litestar(scope_of(method, path), trio.sleep_forever, _ignore)

    trio.run(both)
    assert len(calls) == 2
    assert calls[0] == calls[1]


@pytest.mark.parametrize(("method", "path"), TEMPLATES)
def test_every_route_is_found(
    routed: tuple[Directory, Litestar, list[Any]], method: str, path: str
) -> None:
    directory, _, _ = routed
    filled = path.replace("{name}", "people").replace("{id}", "7").replace("{operation}", "kv.get")
    assert directory.find(method, filled) is not None
    assert directory.find(method, filled + "/") is None
    assert directory.find("PATCH", filled) is None
    assert directory.find(method, filled[1:]) is None
