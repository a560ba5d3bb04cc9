"""TreeStore over TCP, through its client."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import trio

import treestore
from scripts.bench import knowledge
from scripts.bench.callers import Call, callers_trio
from scripts.bench.data import (
    LAW_POLICY,
    LAW_VERSION,
    POLICY,
    VERSION,
    VERSIONS_POLICY,
    TestDocument,
    law_file,
    load_versions,
    make_document,
    make_versions,
    random_keys,
    read_law,
    some_days,
    some_keys,
    sorted_rows,
    value_of,
)
from scripts.bench.systems.mixed_load import mixed_load
from scripts.bench.worker import AsyncWorkloads, Config, Sample, serve_trio

PAIRS = 20_000
TIMEOUT_S = 120.0
ATTEMPTS = 100
"""Of a transaction; conflicts are rare here."""

WATCH_PAUSE_S = 0.005
"""Between two calls of each of the callers that look on while a document is stored."""


class TreeStoreClient:
    """The workloads."""

    def __init__(self, config: Config, document: TestDocument, database: Any) -> None:
        self._config = config
        self._document = document
        self._database = database
        self._new = count(1000)
        self._keys = some_keys(sorted_rows(PAIRS), 5)
        self._ids = random.Random(3).sample(document.node_ids, len(document.node_ids))
        self._law: list[dict[str, Any]] = []

    async def load(self) -> Sample:
        """Store the document and the pairs."""
        begin = perf_counter()
        store = self._database.documents.store
        await store(POLICY, VERSION, self._document.nodes)
        elapsed = perf_counter() - begin
        await self._database.kv.batch(puts=sorted_rows(PAIRS))
        await self._store_knowledge()
        return Sample(len(self._document.nodes), elapsed)

    async def _store_knowledge(self) -> None:
        made = knowledge.make_knowledge()
        await self._database.documents.store(
            knowledge.POLICY,
            knowledge.VERSION,
            made.nodes,
            effective_from=knowledge.EFFECTIVE_FROM,
        )
        await self._database.metadata.store_cross_references(made.references)
        for item in made.contradictions:
            await self._database.metadata.store_contradiction(knowledge.CASE, **item)

    @asynccontextmanager
    async def _databases(self, callers: int, separate: bool) -> AsyncGenerator[list[Any], None]:
        """What each caller calls: the one client, or a client of its own."""
        if not separate:
            yield [self._database] * callers
            return
        async with AsyncExitStack() as stack:
            enter, address = stack.enter_async_context, self._config.address
            yield [await enter(treestore.connect(address, connections=1)) for _ in range(callers)]

    async def get_node(
        self, seconds: float, repetition: int, callers: int, separate: bool = False
    ) -> Sample:
        """One node by its id."""

        def call_on(database: Any) -> Call:
            get_node = database.documents.get_node
            return lambda node_id: get_node(POLICY, node_id, version_id=VERSION)

        async with self._databases(callers, separate) as databases:
            calls = [call_on(database) for database in databases]
            return await callers_trio(calls, self._ids, seconds)

    async def get_subtree(self, seconds: float, repetition: int) -> Sample:
        """The subtree, one call after the other."""
        start = self._document.subtree_id
        get_subtree = self._database.documents.get_subtree

        def call(node_id: str) -> Any:
            return get_subtree(POLICY, node_id, max_depth=3, version_id=VERSION)

        nodes = await call(start)
        assert len(nodes) == self._document.subtree_count, len(nodes)
        return await callers_trio([call], [start], seconds)

    async def get_enriched(self, seconds: float, repetition: int) -> Sample:
        """A document with what is known of it, one call after the other."""
        get_enriched = self._database.queries.get_enriched

        async def call(policy_id: str) -> Any:
            whole = await get_enriched(policy_id)
            # By node, as the other system is asked to give them.
            assert whole.cross_references
            return whole

        whole = await call(knowledge.POLICY)
        assert len(whole.nodes) == knowledge.NODES
        assert sum(map(len, whole.cross_references.values())) == 2 * knowledge.REFERENCES
        assert len(whole.contradictions) == knowledge.CONTRADICTIONS
        return await callers_trio([call], [knowledge.POLICY], seconds)

    async def get_ancestor_path(
        self, seconds: float, repetition: int, callers: int, separate: bool = False
    ) -> Sample:
        """A deep node and everything above it."""

        def call_on(database: Any) -> Call:
            get_path = database.documents.get_ancestor_path
            return lambda node_id: get_path(POLICY, node_id, version_id=VERSION)

        ids = self._document.deepest_ids
        async with self._databases(callers, separate) as databases:
            calls = [call_on(database) for database in databases]
            return await callers_trio(calls, random.Random(3).sample(ids, len(ids)), seconds)

    async def prepare_versions(self) -> Sample:
        """Record the versions of one policy."""
        count = self._config.sizes.versions
        return Sample(count, await load_versions(self._database, make_versions(count)))

    async def as_of(
        self, seconds: float, repetition: int, callers: int, separate: bool = False
    ) -> Sample:
        """The version in effect on some day."""

        def call_on(database: Any) -> Call:
            as_of = database.versions.as_of
            return lambda day: as_of(VERSIONS_POLICY, day)

        days = some_days(self._config.sizes.versions, repetition)
        async with self._databases(callers, separate) as databases:
            return await callers_trio([call_on(one) for one in databases], days, seconds)

    async def put(
        self, seconds: float, repetition: int, callers: int, separate: bool = False
    ) -> Sample:
        """Durable single puts."""
        keys, value = random_keys(100_000, next(self._new)), value_of(repetition)

        def call_on(database: Any) -> Call:
            put = database.kv.put
            return lambda key: put(key, value)

        async with self._databases(callers, separate) as databases:
            return await callers_trio([call_on(database) for database in databases], keys, seconds)

    async def modify(
        self, seconds: float, repetition: int, callers: int, separate: bool = False
    ) -> Sample:
        """Serialisable transactions that read a value and write it back changed."""

        def call_on(database: Any) -> Call:
            async def call(key: bytes) -> None:
                async def body(txn: Any) -> None:
                    value = await txn.kv.get(key)
                    await txn.kv.put(key, value[1:] + value[:1])

                await database.run_transaction(body, attempts=ATTEMPTS)

            return call

        async with self._databases(callers, separate) as databases:
            calls = [call_on(database) for database in databases]
            return await callers_trio(calls, self._keys, seconds)

    async def pipelined_get(self, seconds: float, repetition: int, callers: int) -> Sample:
        """Gets of many tasks over one connection."""
        async with treestore.connect(self._config.address, connections=1) as database:
            return await callers_trio([database.kv.get] * callers, self._keys, seconds)

    async def prepare_law(self) -> Sample:
        """Read the D.C. Code's file."""
        path = law_file()
        assert path is not None
        begin = perf_counter()
        self._law = read_law(path, self._config.sizes.law_nodes)
        return Sample(len(self._law), perf_counter() - begin)

    async def store_law(self, repetition: int) -> Sample:
        """Store the D.C. Code as one document."""
        begin = perf_counter()
        await self._database.documents.store(LAW_POLICY, LAW_VERSION, self._law)
        return Sample(len(self._law), perf_counter() - begin)

    async def get_law_node(self, seconds: float, repetition: int, callers: int) -> Sample:
        """One node of the D.C. Code."""
        get_node = self._database.documents.get_node
        rng = random.Random(repetition)
        sizes = self._config.sizes
        ids = [str(rng.randint(1, sizes.law_nodes or 173_481)) for _ in range(20_000)]

        def call(node_id: str) -> Any:
            return get_node(LAW_POLICY, node_id, version_id=LAW_VERSION)

        return await callers_trio([call] * callers, ids, seconds)

    async def watch(self, stop_file: str) -> Sample:
        """Read nodes at a moderate rate until a file appears."""
        get_node = self._database.documents.get_node
        latencies: list[float] = []
        begin = perf_counter()
        stop = Path(stop_file)

        async def look_on(rng: random.Random, scope: trio.CancelScope) -> None:
            while not scope.cancel_called:
                before = perf_counter()
                await get_node(POLICY, rng.choice(self._ids), version_id=VERSION)
                latencies.append(perf_counter() - before)
                await trio.sleep(WATCH_PAUSE_S)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(look_on, random.Random(number), nursery.cancel_scope)
            while not stop.exists():  # noqa: ASYNC110 - another process makes it.
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        return Sample(len(latencies), perf_counter() - begin, latencies)

    async def mixed(self, seconds: float) -> Sample:
        """Reads, writes, scans and whole documents at once."""
        return await mixed_load(self._database, self._document, seconds)


@asynccontextmanager
async def open_workloads(config: Config) -> AsyncGenerator[AsyncWorkloads, None]:
    """Connect and offer the workloads."""
    document = make_document(config.sizes.document_nodes, config.sizes.subtree_nodes)
    async with treestore.connect(config.address, timeout=TIMEOUT_S) as database:
        client = TreeStoreClient(config, document, database)
        yield {
            "load": client.load,
            "get_node": client.get_node,
            "get_subtree": client.get_subtree,
            "get_enriched": client.get_enriched,
            "get_ancestor_path": client.get_ancestor_path,
            "prepare_versions": client.prepare_versions,
            "as_of": client.as_of,
            "put": client.put,
            "modify": client.modify,
            "pipelined_get": client.pipelined_get,
            "prepare_law": client.prepare_law,
            "store_law": client.store_law,
            "get_law_node": client.get_law_node,
            "watch": client.watch,
            "mixed": client.mixed,
        }


if __name__ == "__main__":
    serve_trio(open_workloads)
