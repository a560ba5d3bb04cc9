"""TreeStore embedded, through its public face."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import date, datetime
from itertools import count, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import treestore
from scripts.bench.callers import callers_trio, loop_async
from scripts.bench.data import (
    VERSIONS_POLICY,
    Row,
    load_versions,
    make_versions,
    random_keys,
    some_days,
    some_keys,
    sorted_rows,
    value_of,
)
from scripts.bench.systems.batches import BULK_ROWS
from scripts.bench.worker import AsyncWorkloads, Config, Sample, serve_trio
from treestore.errors import NotFound

CACHE_SIZE_MB = 1024
"""Holds the whole table, as the other stores' caches do."""


async def load(database: Any, rows: list[Row]) -> None:
    """Put sorted rows, `BULK_ROWS` a transaction."""
    source = iter(rows)
    while group := list(islice(source, BULK_ROWS)):
        await database.kv.batch(puts=group)


class Embedded:
    """The workloads."""

    def __init__(self, config: Config, database: Any, rows: list[Row]) -> None:
        self._config = config
        self._known_at: datetime | None = None
        self._directory = Path(config.directory)
        self._database = database
        self._rows = rows
        self._new = count(1000)

    async def get(self, seconds: float, repetition: int) -> Sample:
        """Point gets, each of the newest state."""
        return await loop_async(self._database.kv.get, some_keys(self._rows, repetition), seconds)

    async def get_in_transaction(self, seconds: float, repetition: int) -> Sample:
        """Point gets in one snapshot."""
        async with self._database.snapshot() as snapshot:
            keys = some_keys(self._rows, repetition)
            return await loop_async(snapshot.kv.get, keys, seconds)

    async def commit(self, seconds: float, repetition: int, tasks: int) -> Sample:
        """Durable single puts of concurrent tasks."""
        keys = random_keys(200_000, next(self._new))
        put, value = self._database.kv.put, value_of(repetition)

        async def call(key: bytes) -> None:
            await put(key, value)

        return await callers_trio([call] * tasks, keys, seconds)

    async def scan(self, repetition: int) -> Sample:
        """Every row in key order."""
        done, begin = 0, perf_counter()
        async for _key, _value in self._database.kv.scan():
            done += 1
        return Sample(done, perf_counter() - begin)

    async def bulk_load(self, repetition: int) -> Sample:
        """Sorted rows into an empty store, `BULK_ROWS` a transaction, durable."""
        path = self._directory / f"bulk{repetition}.treestore"
        treestore.tune()  # as its documentation recommends to embedding programs
        async with treestore.open(str(path), cache_size_mb=CACHE_SIZE_MB) as database:
            begin = perf_counter()
            await load(database, self._rows)
            sample = Sample(len(self._rows), perf_counter() - begin)
        shutil.rmtree(path)
        return sample

    async def prepare_versions(self) -> Sample:
        """Record the versions of one policy."""
        count = self._config.sizes.versions
        elapsed = await load_versions(self._database, make_versions(count))
        middle = await self._database.versions.get(VERSIONS_POLICY, f"v{count // 2:05d}")
        self._known_at = middle.recorded_at
        return Sample(count, elapsed)

    async def as_of(self, seconds: float, repetition: int) -> Sample:
        """The version in effect on some day."""
        as_of = self._database.versions.as_of
        days = some_days(self._config.sizes.versions, repetition)
        return await callers_trio([lambda day: as_of(VERSIONS_POLICY, day)], days, seconds)

    async def as_of_known(self, seconds: float, repetition: int) -> Sample:
        """The same as believed when half of them were recorded."""
        as_of, moment = self._database.versions.as_of, self._known_at

        async def call(day: date) -> None:
            with suppress(NotFound):
                await as_of(VERSIONS_POLICY, day, known_at=moment)

        days = some_days(self._config.sizes.versions, repetition)
        return await callers_trio([call], days, seconds)


@asynccontextmanager
async def open_workloads(config: Config) -> AsyncGenerator[AsyncWorkloads, None]:
    """Load the table and offer the workloads."""
    rows = sorted_rows(config.sizes.keys)
    path = Path(config.directory) / "table.treestore"
    treestore.tune()
    async with treestore.open(str(path), cache_size_mb=CACHE_SIZE_MB) as database:
        await load(database, rows)
        store = Embedded(config, database, rows)
        yield {
            "get": store.get,
            "get_in_transaction": store.get_in_transaction,
            "commit": store.commit,
            "scan": store.scan,
            "bulk_load": store.bulk_load,
            "prepare_versions": store.prepare_versions,
            "as_of": store.as_of,
            "as_of_known": store.as_of_known,
        }


if __name__ == "__main__":
    serve_trio(open_workloads)
