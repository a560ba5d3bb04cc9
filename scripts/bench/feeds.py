"""What a feed of changes gives, and what it costs: ``python -m scripts.bench.feeds``.

* how fast a feed catches up, embedded and over TCP (server and client share the process and its
  loop), on small transactions, on large ones and on one document;
* how long after a write was answered a watcher has the change;
* what watchers cost writers: windows without, with one and with twenty take turns, so that the
  machine's moods meet all alike.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import trio

import treestore
from actors.database import Database, open_database
from actors.listener import serve_on
from scripts.bench.compaction import LongestStep
from treestore.errors import TreeStoreError

VALUE_BYTES = 100
WRITERS = 8
WINDOW_S = 1.0
WATCHERS = (0, 1, 20)
DOCUMENT_NODES = 100_000
ECHOES = 500


@asynccontextmanager
async def served(db: Database) -> AsyncGenerator[Any]:
    """A client of the database, over a socket of this machine."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listeners[0].socket.getsockname()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_on, listeners, [address], db)
        async with treestore.connect(f"{address[0]}:{address[1]}") as client:
            yield client
        nursery.cancel_scope.cancel()


async def catch_up(face: Any, position: str, count: int, instrument: LongestStep) -> str:
    """Read so many changes from there."""
    instrument.take()
    began = time.perf_counter()
    async with face.watch(position) as feed:
        for _ in range(count):
            await anext(feed)
    took = time.perf_counter() - began
    return f"{count / took:10,.0f} changes/s; longest step {instrument.take()}"


async def measure_reading(db: Database, client: Any, count: int, instrument: LongestStep) -> None:
    """How fast feeds catch up."""
    position = await _here(db)
    async with trio.open_nursery() as nursery:
        for writer in range(64):
            nursery.start_soon(_put, db, writer, count // 10 // 64)
    small = count // 10 // 64 * 64
    for name, face in (("embedded", db), ("TCP", client)):
        text = await catch_up(face, position, small, instrument)
        print(f"single puts, {name:9}{text}")
    position = await _here(db)
    for first in range(0, count, 1000):
        numbers = range(first, first + 1000)
        await db.kv.batch(puts=[(b"b%09d" % n, bytes(VALUE_BYTES)) for n in numbers])
    for name, face in (("embedded", db), ("TCP", client)):
        text = await catch_up(face, position, count, instrument)
        print(f"batches, {name:13}{text}")
    position = await _here(db)
    leaves = [{"title": "leaf", "text": "t" * 600}] * (DOCUMENT_NODES // 100)
    await db.documents.store("law", "1", [{"title": "chapter", "nodes": leaves}] * 100)
    instrument.take()
    began = time.perf_counter()
    async with db.watch(position) as feed:
        change = await anext(feed)
    assert change.kind == "stored"
    took = time.perf_counter() - began
    size = (await db.admin.stats()).log_size_bytes / 2**20
    print(
        f"one document of {DOCUMENT_NODES:,} nodes: one change after {took:.2f} s; longest step "
        f"{instrument.take()} (log {size:.0f} MiB)"
    )


async def _here(db: Database) -> str:
    async with db.snapshot() as snapshot:
        return snapshot.position


async def _put(db: Database, writer: int, count: int) -> None:
    for number in range(count):
        await db.kv.put(b"p%03d-%07d" % (writer, number), bytes(VALUE_BYTES))


async def measure_delay(db: Database, client: Any) -> None:
    """How long after the write's answer the change is there."""
    for name, face in (("embedded", db), ("TCP", client)):
        delays: list[float] = []
        async with face.watch(service="kv") as feed:
            for number in range(ECHOES):
                await db.kv.put(b"echo", b"%d" % number)
                began = time.perf_counter()
                await anext(feed)
                delays.append(time.perf_counter() - began)
        delays.sort()
        print(
            f"change after the answer, {name}: p50 {delays[ECHOES // 2] * 1e6:.0f} µs, "
            f"p99 {delays[ECHOES * 99 // 100] * 1e6:.0f} µs"
        )


async def measure_cost(db: Database, rounds: int) -> None:
    """What watchers cost writers."""
    rates: dict[int, list[tuple[float, float]]] = {count: [] for count in WATCHERS}
    for _ in range(rounds):
        for count in WATCHERS:
            rates[count].append(await _window(db, count))
    none = statistics.median(cpu for _, cpu in rates[0])
    for count, found in rates.items():
        rate = statistics.median(rate for rate, _ in found)
        cpu = statistics.median(cpu for _, cpu in found)
        each = f", {(cpu - none) / count:5.1f} µs for each watcher" if count else ""
        print(
            f"{WRITERS} writers beside {count:2} watchers: {rate:8,.0f} puts/s, {cpu:6.1f} µs of "
            f"CPU a put{each} (medians of {rounds})"
        )


async def _window(db: Database, watchers: int) -> tuple[float, float]:
    """Puts a second, and microseconds of CPU that each took, the watchers' work included."""
    done = 0
    began = time.process_time()

    async def write(writer: int) -> None:
        nonlocal done
        while True:
            await db.kv.put(b"w%d" % writer, bytes(VALUE_BYTES))
            done += 1

    async def watch() -> None:
        with contextlib.suppress(TreeStoreError):
            async for _ in db.watch():
                pass

    with trio.move_on_after(WINDOW_S):
        async with trio.open_nursery() as nursery:
            for _ in range(watchers):
                nursery.start_soon(watch)
            for writer in range(WRITERS):
                nursery.start_soon(write, writer)
    return done / WINDOW_S, (time.process_time() - began) / done * 1e6


async def measure(directory: Path, count: int, rounds: int) -> None:
    """The whole benchmark, in ``directory``."""
    treestore.tune()
    instrument = LongestStep(time.thread_time)
    async with (
        open_database(directory, watch_retention_mb=1024) as db,
        served(db) as client,
    ):
        trio.lowlevel.add_instrument(instrument)
        await measure_reading(db, client, count, instrument)
        trio.lowlevel.remove_instrument(instrument)
        await measure_delay(db, client)
        await measure_cost(db, rounds)


@click.command()
@click.option("--changes", default=200_000, show_default=True, help="Changes to read.")
@click.option("--rounds", default=7, show_default=True, help="Rounds of windows with writers.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where; default: a new one.")
def main(changes: int, rounds: int, directory: Path | None) -> None:
    """Measure feeds."""
    parent = directory or Path("/var/tmp")
    where = Path(tempfile.mkdtemp(prefix="treestore-feeds-", dir=parent))
    try:
        trio.run(measure, where / "data", changes, rounds)
    finally:
        shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
