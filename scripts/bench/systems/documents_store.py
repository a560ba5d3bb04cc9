"""Collections of TreeStore, embedded."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import treestore
from scripts.bench.callers import callers_trio
from scripts.bench.systems.people import (
    BATCH,
    PAGE,
    SCAN_FILTER,
    people,
    some_scores,
    some_teams,
)
from scripts.bench.worker import AsyncWorkloads, Config, Sample, serve_trio

CACHE_SIZE_MB = 4096


class Documents:
    """The workloads."""

    def __init__(self, config: Config, database: Any) -> None:
        self._sizes = config.sizes
        self._collections = database.collections

    async def load(self) -> None:
        """One large collection with two indexes, one smaller one without."""
        collections = self._collections
        await collections.create("large", indexes=["team", "score"])
        await collections.create("small")
        documents = people(self._sizes.documents)
        for at in range(0, len(documents), BATCH):
            await collections.insert_many("large", documents[at : at + BATCH])
        for at in range(0, self._sizes.scanned_documents, BATCH):
            await collections.insert_many("small", documents[at : at + BATCH])

    async def equality(self, seconds: float, repetition: int) -> Sample:
        """Ten documents by an index."""
        find = self._collections.find

        async def call(team: int) -> object:
            return await find("large", {"team": team}, limit=PAGE)

        teams = some_teams(self._sizes.documents, repetition)
        return await callers_trio([call], teams, seconds)

    async def ordered(self, seconds: float, repetition: int) -> Sample:
        """The first twenty of a range, sorted."""
        find = self._collections.find

        async def call(score: float) -> object:
            wanted = {"score": {"$gte": score, "$lt": score + 1e5}}
            return await find("large", wanted, sort="score", limit=PAGE)

        return await callers_trio([call], some_scores(repetition), seconds)

    async def unindexed(self, repetition: int) -> Sample:
        """Every document is looked at."""
        begin = perf_counter()
        done = await self._collections.count("small", SCAN_FILTER)
        seconds = perf_counter() - begin
        assert done
        return Sample(self._sizes.scanned_documents, seconds)


@asynccontextmanager
async def open_workloads(config: Config) -> AsyncGenerator[AsyncWorkloads, None]:
    """Load the collections and offer the workloads."""
    path = Path(config.directory) / "documents.treestore"
    treestore.tune()
    async with treestore.open(str(path), cache_size_mb=CACHE_SIZE_MB) as database:
        store = Documents(config, database)
        await store.load()
        yield {
            "equality": store.equality,
            "ordered": store.ordered,
            "unindexed": store.unindexed,
        }


if __name__ == "__main__":
    serve_trio(open_workloads)
