"""Collections of TreeStore, embedded: storing documents, and getting them by id."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import treestore
from scripts.bench.callers import callers_trio, loop_async
from scripts.bench.systems.people import BATCH, new_people, people, some_ids
from scripts.bench.worker import AsyncWorkloads, Config, Sample, serve_trio

CACHE_SIZE_MB = 1024
NAME = "people"


class Documents:
    """The workloads, on a collection with two indexes."""

    def __init__(self, config: Config, database: Any) -> None:
        self._sizes = config.sizes
        self._new = count(1000)
        self._collections = database.collections

    async def load(self) -> None:
        """The documents that are there before."""
        await self._collections.create(NAME, indexes=["team", "score"])
        documents = people(self._sizes.scanned_documents)
        for at in range(0, len(documents), BATCH):
            await self._collections.insert_many(NAME, documents[at : at + BATCH])

    async def insert_many(self, seconds: float, repetition: int) -> Sample:
        """`BATCH` documents a call, durable."""
        documents = new_people(f"m{next(self._new)}", seconds)
        done, begin = 0, perf_counter()
        for at in range(0, len(documents), BATCH):
            await self._collections.insert_many(NAME, documents[at : at + BATCH])
            done += BATCH
            if perf_counter() - begin > seconds:
                break
        return Sample(done, perf_counter() - begin)

    async def insert(self, seconds: float, repetition: int, tasks: int) -> Sample:
        """Single documents of concurrent tasks, durable."""
        insert = self._collections.insert

        async def call(document: dict[str, Any]) -> None:
            await insert(NAME, document)

        documents = new_people(f"s{next(self._new)}", seconds)
        return await callers_trio([call] * tasks, documents, seconds)

    async def get(self, seconds: float, repetition: int) -> Sample:
        """By id."""
        get = self._collections.get
        ids = some_ids(self._sizes.scanned_documents, repetition)
        return await loop_async(lambda id: get(NAME, id), ids, seconds)


@asynccontextmanager
async def open_workloads(config: Config) -> AsyncGenerator[AsyncWorkloads, None]:
    """Load the collection and offer the workloads."""
    path = Path(config.directory) / "written.treestore"
    treestore.tune()
    async with treestore.open(str(path), cache_size_mb=CACHE_SIZE_MB) as database:
        store = Documents(config, database)
        await store.load()
        yield {"insert_many": store.insert_many, "insert": store.insert, "get": store.get}


if __name__ == "__main__":
    serve_trio(open_workloads)
