"""What a document got by its id costs over HTTP: ``python -m scripts.bench.http``.

Three applications behind the edge's own connections, and the first one behind hypercorn's: one
that answers at once, one route of the edge, and a document by its id. Then the same document from
``treestore serve`` as it is, metrics, log and all: that is the row with a target. Server and load
are a process each, 32 connections are kept, one request at a time on each. Says requests a second,
latencies, and the processor time that server and load took for one request, which is what tells of
the code on a busy machine.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click
import trio

from actors.database import open_database
from actors.http import Answer, serve_http
from actors.http.app import build_app
from actors.http.exchange import AsgiApp
from actors.tuning import let_collector_rest, tune

CONNECTIONS = 32
DOCUMENTS = 10_000
BODY = b'{"_id":"d1","name":"Ada","age":36,"city":"Tartu","tags":["a","b"]}'
DOCUMENT = "/collections/people/documents/d77"

KINDS = {
    "bare": ("an application that answers at once", "/"),
    "hypercorn": ("the same, on hypercorn", "/"),
    "route": ("a route of the edge, without the store", "/health"),
    "document": ("a document by its id", DOCUMENT),
    "served": ("the same, from treestore serve", DOCUMENT),
}


async def bare(scope: Any, _receive: Any, send: Any) -> None:
    """Answers at once."""
    if scope["type"] == "lifespan":
        raise RuntimeError("it has none")  # As ASGI has it.
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def documents() -> list[dict[str, Any]]:
    """What is stored before."""
    return [
        {"_id": f"d{number}", "name": "Ada", "age": number % 90, "tags": ["a", "b"]}
        for number in range(DOCUMENTS)
    ]


async def _health() -> Answer:  # noqa: ASYNC124 - a handler
    return Answer(200, {"status": "ok"})


async def serve(kind: str, directory: str, socket_fd: int) -> None:
    """The server's process; until its standard input is closed."""
    tune()
    let_collector_rest()
    said = socket.socket(fileno=socket_fd)
    async with AsyncExitStack() as stack:
        app: AsgiApp = bare
        if kind in ("route", "document"):
            database = await stack.enter_async_context(open_database(directory))
            app = build_app(database, paths={"/health": _health})
            if kind == "document":
                await database.collections.insert_many("people", documents())
        nursery = await stack.enter_async_context(trio.open_nursery())
        if kind == "hypercorn":
            port = await _on_hypercorn(nursery)
        else:
            port = (await nursery.start(partial(serve_http, app))).port
        said.send(b"%d\n" % port)
        await trio.to_thread.run_sync(sys.stdin.buffer.read)
        used = resource.getrusage(resource.RUSAGE_SELF)
        said.send(b"%f\n" % (used.ru_utime + used.ru_stime))
        nursery.cancel_scope.cancel()


async def _on_hypercorn(nursery: trio.Nursery) -> int:
    import hypercorn.trio
    from hypercorn.config import Config

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.keep_alive_max_requests = 1_000_000_000
    (address,) = await nursery.start(partial(hypercorn.trio.serve, bare, config))
    return int(address.rpartition(":")[2])


@attrs.frozen
class Measured:
    """What a run gave."""

    requests: int
    seconds: float
    latencies_s: list[float]
    wrong: int
    processor_s: float


def load(port: int, path: str, seconds: float) -> Measured:
    """Keep `CONNECTIONS` busy, without any HTTP client in the way."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".encode()
    epoll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    sent: dict[int, float] = {}
    received: dict[int, bytes] = {}
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        number = connection.fileno()
        sockets[number], received[number] = connection, b""
        epoll.register(number, select.EPOLLIN)
        sent[number] = time.perf_counter()
        connection.sendall(request)
    latencies: list[float] = []
    wrong = 0
    used = time.process_time()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for number, _ in epoll.poll(1):
            data = received[number] + sockets[number].recv(65536)
            if not _is_whole(data):
                received[number] = data
                continue
            wrong += data[9:12] != b"200"
            now = time.perf_counter()
            latencies.append(now - sent[number])
            sent[number], received[number] = now, b""
            sockets[number].sendall(request)
    taken = time.perf_counter() - began
    used = time.process_time() - used
    for connection in sockets.values():
        connection.close()
    epoll.close()
    return Measured(len(latencies), taken, sorted(latencies), wrong, used)


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return len(body) >= int(size or 0)


def measure(kind: str, seconds: float) -> str:
    """One row."""
    path = KINDS[kind][1]
    if kind == "served":
        return _told(kind, *_measure_served(path, seconds))
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory() as directory, ours, theirs:
        command = [
            *(sys.executable, "-m", "scripts.bench.http", "--server", kind),
            *("--directory", str(Path(directory) / "data"), "--fd", str(theirs.fileno())),
        ]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()])
        try:
            answers = ours.makefile("r")
            ours.settimeout(60)
            port = int(answers.readline())
            time.sleep(0.5)
            found, used = _loaded(server.pid, port, path, seconds)
            assert server.stdin is not None
            server.stdin.close()
            server.wait(20)
        finally:
            server.kill()
            server.wait()
    return _told(kind, found, used)


def _measure_served(path: str, seconds: float) -> tuple[Measured, float]:
    """The whole server, as it is started from the command line."""
    with tempfile.TemporaryDirectory() as directory:
        ports = [part for name in ("", "http-", "metrics-") for part in (f"--{name}port", "0")]
        command = [sys.executable, "-m", "treestore.cli", "serve", "--data", directory, *ports]
        server = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["http"]
            request = urllib.request.Request(
                f"http://{address}{path.rpartition('/')[0]}",
                json.dumps(documents()).encode(),
                {"Content-Type": "application/json"},
            )
            urllib.request.urlopen(request).close()
            return _loaded(server.pid, int(address.rpartition(":")[2]), path, seconds)
        finally:
            server.terminate()
            server.wait(20)


def _loaded(pid: int, port: int, path: str, seconds: float) -> tuple[Measured, float]:
    """What the load found, and the server's processor time meanwhile."""
    load(port, path, min(1.0, seconds))
    before = _processor_s(pid)
    found = load(port, path, seconds)
    return found, _processor_s(pid) - before


def _told(kind: str, found: Measured, used: float) -> str:
    at: Callable[[float], float] = lambda part: (  # noqa: E731
        found.latencies_s[int(len(found.latencies_s) * part)] * 1000
    )
    return (
        f"{KINDS[kind][0]:42} {found.requests / found.seconds:7.0f}/s  "
        f"p50 {at(0.5):5.1f} ms  p99 {at(0.99):5.1f} ms  "
        f"{used / found.requests * 1e6:4.0f} + {found.processor_s / found.requests * 1e6:.0f} µs "
        f"of processor  {found.wrong} wrong"
    )


def _processor_s(pid: int) -> float:
    """Processor time of a process so far, from Linux's books."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@click.command()
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only these.")
@click.option("--seconds", default=5.0, help="How long each is measured.")
@click.option("--server", hidden=True)
@click.option("--directory", hidden=True)
@click.option("--fd", type=int, hidden=True)
def main(
    kinds: tuple[str, ...], seconds: float, server: str | None, directory: str, fd: int
) -> None:
    """Measure what HTTP costs."""
    if server is not None:
        run: Callable[..., Awaitable[None]] = serve
        trio.run(run, server, directory, fd)
        return
    for kind in kinds or tuple(KINDS):
        click.echo(measure(kind, seconds))


if __name__ == "__main__":
    main()
