"""How a store of a gigabyte gets smaller under load: ``python -m scripts.bench.compaction``.

Fills a store, deletes nine tenths of it at random, compacts it beside a paced reader and a paced
writer, and prints what the file, the event loop and they had to bear, before and during.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random

import click
import trio

import treestore
from actors.database import Database, open_database
from actors.tuning import let_collector_rest

VALUE_BYTES = 1000
BATCH = 2000
CALM_S = 5.0
"""How long reader and writer are measured before the compaction."""

READ_EVERY_S = 0.002
WRITE_EVERY_S = 0.01


class LongestStep(trio.abc.Instrument):
    """The longest time that a task held the event loop, by a clock: `time.thread_time` leaves out
    when other programs had the processor."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds = 0.0
        self.task = ""
        self._began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        self._began = self._clock()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        seconds = self._clock() - self._began
        # The step in which the instrument was put in place has no beginning.
        if self._began and seconds > self.seconds:
            self.seconds, self.task = seconds, task.name

    def take(self) -> str:
        """What was measured since the last call."""
        text = f"{self.seconds * 1000:.1f} ms ({self.task})"
        self.seconds, self.task = 0.0, ""
        return text


class Latencies:
    """How long calls took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def measure(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make one call."""
        began = time.perf_counter()
        await call()
        self.seconds.append(time.perf_counter() - began)

    def take(self) -> str:
        """What was measured since the last call."""
        ordered, self.seconds = sorted(self.seconds), []
        if not ordered:
            return "no calls"
        at = [ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000 for q in (0.5, 0.999)]
        return f"p50 {at[0]:.2f} ms, p99.9 {at[1]:.2f} ms, worst {ordered[-1] * 1000:.2f} ms"


def _key(number: int) -> bytes:
    return b"%012d" % number


async def _prepare(db: Database, count: int) -> list[int]:
    """Fill, and delete nine tenths; what is left."""
    random = Random(1)
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        await db.kv.batch(puts=[(_key(n), random.randbytes(VALUE_BYTES)) for n in numbers])
    await db.admin.checkpoint()
    doomed = sorted(random.sample(range(count), count * 9 // 10))
    for first in range(0, len(doomed), BATCH):
        await db.kv.batch(deletes=[_key(n) for n in doomed[first : first + BATCH]])
    await db.admin.checkpoint()
    gone = set(doomed)
    return [n for n in range(count) if n not in gone]


async def measure(directory: Path, size_mb: int) -> None:
    """The whole benchmark, in ``directory``."""
    treestore.tune()
    let_collector_rest()  # as a server does
    instrument, used = LongestStep(), LongestStep(time.thread_time)
    async with open_database(directory) as db, trio.open_nursery() as nursery:
        count = (size_mb << 20) // VALUE_BYTES
        alive = await _prepare(db, count)
        live = len(alive) * (VALUE_BYTES + len(_key(0)))
        before = (await db.admin.stats()).page_file_size_bytes
        reads, writes = Latencies(), Latencies()

        async def read() -> None:
            random = Random(2)
            while True:
                key = _key(random.choice(alive))
                await reads.measure(partial(db.kv.get, key))
                await trio.sleep(READ_EVERY_S)

        async def write() -> None:
            random = Random(3)
            while True:
                key, value = _key(random.choice(alive)), random.randbytes(VALUE_BYTES)
                await writes.measure(partial(db.kv.put, key, value))
                await trio.sleep(WRITE_EVERY_S)

        nursery.start_soon(read)
        nursery.start_soon(write)
        trio.lowlevel.add_instrument(instrument)
        trio.lowlevel.add_instrument(used)
        await trio.sleep(CALM_S)
        calm = (instrument.take(), used.take(), reads.take(), writes.take())
        await db.admin.checkpoint()
        beside = (instrument.take(), used.take(), reads.take(), writes.take())
        result = await db.admin.compact()
        during = (instrument.take(), used.take(), reads.take(), writes.take())
        nursery.cancel_scope.cancel()
    print(f"live data           {live / 2**20:8.1f} MiB in {len(alive):,} keys")
    print(f"page file before    {before / 2**20:8.1f} MiB")
    after = result.page_file_size_bytes
    print(f"page file after     {after / 2**20:8.1f} MiB, {after / live:.2f} x the live data")
    print(f"moved               {result.pages_moved:8,} pages in {result.duration_s:.1f} s")
    for what, row in (("calm", calm), ("one checkpoint", beside), ("compaction", during)):
        print(
            f"{what}: longest step {row[0]}, by processor time {row[1]}; "
            f"reads {row[2]}; writes {row[3]}"
        )


@click.command()
@click.option("--size-mb", default=1024, show_default=True, help="Bytes to fill in, in MiB.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where; default: a new one.")
def main(size_mb: int, directory: Path | None) -> None:
    """Measure one compaction under load."""
    where = Path(tempfile.mkdtemp(prefix="treestore-compaction-", dir=directory))
    try:
        trio.run(measure, where / "data", size_mb)
    finally:
        shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
