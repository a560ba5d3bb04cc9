"""The HTTP edge over real sockets: answers, limits, and how connections end."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from actors.http import Answer, HttpPort, HttpSettings, PathsApp, serve_http
from actors.observability.endpoints import health_page, ready_page
from treestore.errors import Unavailable
from treestore.model.admin import Health

SETTINGS = HttpSettings(
    connections_max=3,
    head_size_bytes_max=2000,
    body_size_bytes_max=1000,
    idle_timeout_s=5,
    head_timeout_s=0.3,
    body_timeout_s=0.3,
    grace_s=1,
)
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@attrs.define
class Scene:
    port: HttpPort
    gate: trio.Event
    """The path /slow answers once it is set."""

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port.port)

    async def say(self, request: bytes) -> tuple[int, dict[str, str], Any]:
        """One request on a connection of its own, read to the connection's end."""
        stream = await self.connect()
        async with stream:
            await stream.send_all(request)
            with trio.fail_after(30):
                received = b"".join([part async for part in stream])
        return parse(received)


def parse(received: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, json.loads(body) if body else None


@asynccontextmanager
async def serving(settings: HttpSettings = SETTINGS) -> AsyncGenerator[Scene, None]:
    gate = trio.Event()

    async def health() -> Answer:
        await trio.lowlevel.checkpoint()
        return Answer(200, {"status": "ok"})

    async def slow() -> Answer:
        await gate.wait()
        return Answer(200, {"slow": True})

    async def broken() -> Answer:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a secret")

    paths = {"/health": health, "/slow": slow, "/broken": broken}
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(partial(serve_http, PathsApp(paths), settings=settings))
            yield Scene(port, gate)
            port.stop()


CLOSING = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status", "part"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + CLOSING, 200, "ok"),
        (b"GET /health?a=b HTTP/1.1\r\nHost: x\r\n" + CLOSING, 200, "ok"),
        (b"GET /health HTTP/1.0\r\n\r\n", 200, "ok"),
        (b"GET /nope HTTP/1.1\r\nHost: x\r\n" + CLOSING, 404, "not_found"),
        (b"DELETE /health HTTP/1.1\r\nHost: x\r\n" + CLOSING, 405, "GET and HEAD"),
        (b"GET /broken HTTP/1.1\r\nHost: x\r\n" + CLOSING, 500, "internal"),
        (b"GET /health HTTP/1.1\r\n\r\n", 400, "protocol_error"),  # no Host
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400, "protocol_error"),  # TLS
        (b"\x00\x00\x00\x05hello\r\n\r\n", 400, "protocol_error"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 3000, 431, "header"),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345", 405, "GET"),
        # Whoever waits for leave to send a body that nobody wants gets none.
        (
            b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
            b"Expect: 100-continue\r\n\r\n",
            405,
            "GET",
        ),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "protocol_error"),
        (b"GET /hea", 408, "too long"),  # and then silence
    ],
)
async def test_one_request(request_bytes: bytes, status: int, part: str) -> None:
    async with serving() as scene:
        if status == 405 and b"12345" in request_bytes:
            stream = await scene.connect()
            async with stream:
                await stream.send_all(request_bytes)
                found = parse(bytes(await stream.receive_some()))
        else:
            found = await scene.say(request_bytes)
        got, headers, body = found
        assert got == status
        assert headers["content-type"] == "application/json"
        assert part in json.dumps(body)
        assert "secret" not in json.dumps(body)
        if status == 405:
            assert headers["allow"] == "get, head"


async def test_head_has_no_body() -> None:
    async with serving() as scene:
        status, headers, body = await scene.say(b"HEAD /health HTTP/1.1\r\nHost: x\r\n" + CLOSING)
        assert (status, body) == (200, None)
        assert int(headers["content-length"]) > 0


async def test_a_connection_is_kept_and_pipelining_works() -> None:
    async with serving() as scene:
        stream = await scene.connect()
        async with stream:
            for _ in range(3):
                await stream.send_all(GET)
                assert parse(bytes(await stream.receive_some()))[0] == 200
            await stream.send_all(GET * 5 + GET[:10])
            received = b""
            while received.count(b"HTTP/1.1 200") < 5:
                received += await stream.receive_some()
            await stream.send_all(GET[10:])
            assert parse(bytes(await stream.receive_some()))[0] == 200
        assert await _eventually_closed(scene)


async def test_an_idle_connection_is_closed() -> None:
    async with serving(attrs.evolve(SETTINGS, idle_timeout_s=0.1)) as scene:
        stream = await scene.connect()
        async with stream:
            with trio.fail_after(30):
                assert await stream.receive_some() == b""


async def test_too_many_connections() -> None:
    async with serving() as scene:
        streams = [await scene.connect() for _ in range(SETTINGS.connections_max)]
        for stream in streams:
            await stream.send_all(GET)
            assert parse(bytes(await stream.receive_some()))[0] == 200
        assert (await scene.say(GET))[0] == 503
        for stream in streams:
            await stream.aclose()
        assert await _eventually_closed(scene)
        assert (await scene.say(GET[:-2] + CLOSING))[0] == 200


async def test_a_stop_finishes_what_is_being_answered() -> None:
    async with serving() as scene:
        idle, busy = await scene.connect(), await scene.connect()
        async with idle, busy:
            await idle.send_all(GET)
            await idle.receive_some()
            await busy.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.05)
            scene.port.stop()
            with trio.fail_after(30):
                assert await idle.receive_some() == b""
                scene.gate.set()
                answer = b"".join([part async for part in busy])
            status, headers, body = parse(answer)
            assert (status, body) == (200, {"slow": True})
            assert headers["connection"] == "close"


async def test_a_stop_cuts_off_after_the_grace_period() -> None:
    async with serving(attrs.evolve(SETTINGS, grace_s=0.1)) as scene:
        stream = await scene.connect()
        async with stream:
            await stream.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.05)
            scene.port.stop()
            with trio.fail_after(30):
                assert await stream.receive_some() == b""


class FakeDatabase:
    """As much of a database as `health_page` asks."""

    def __init__(self, writable: bool = True, closed: bool = False) -> None:
        self.admin = self
        self.writable = writable
        self.closed = closed

    async def health(self) -> Health:
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise Unavailable("The store is closed.")
        status = "ok" if self.writable else "read_only"
        return Health(status, (), self.writable, 0, 1, 2, None, {"writer": "running"})


@pytest.mark.parametrize(
    ("database", "stopping", "health", "ready"),
    [
        (FakeDatabase(), False, 200, 200),
        (FakeDatabase(), True, 200, 503),
        (FakeDatabase(writable=False), False, 503, 503),
        (FakeDatabase(closed=True), False, 503, 503),
    ],
)
async def test_health_and_readiness(database: Any, stopping: bool, health: int, ready: int) -> None:
    event = trio.Event()
    if stopping:
        event.set()
    assert (await health_page(database)).status == health
    assert (await ready_page(database, event)).status == ready


async def test_a_reset_harms_nobody() -> None:
    async with serving() as scene:
        stream = await scene.connect()
        await stream.send_all(GET[:20])
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await trio.aclose_forcefully(stream)
        assert (await scene.say(GET[:-2] + CLOSING))[0] == 200


async def _eventually_closed(scene: Scene) -> bool:
    with trio.move_on_after(5):
        while scene.port.connections:  # noqa: ASYNC110 - what a client sees has no event
            await trio.sleep(0.01)
    return scene.port.connections == 0
