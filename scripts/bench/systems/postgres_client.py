"""PostgreSQL through asyncpg, as its users use it: a pool, prepared statements."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from time import perf_counter
from typing import Any

import asyncpg

from scripts.bench.callers import Call, callers_asyncio
from scripts.bench.data import (
    POLICY,
    VERSION,
    VERSIONS_POLICY,
    TestDocument,
    make_document,
    make_versions,
    random_keys,
    some_days,
    some_keys,
    sorted_rows,
    value_of,
)
from scripts.bench.knowledge import CONTRADICTIONS, NODES, REFERENCES, make_knowledge
from scripts.bench.knowledge import POLICY as knowledge_policy
from scripts.bench.knowledge import VERSION as knowledge_version
from scripts.bench.systems.postgres_knowledge import fetch_enriched, load_knowledge
from scripts.bench.worker import AsyncWorkloads, Config, Sample, serve_asyncio

COLUMNS = (
    "policy_id, version_id, node_id, parent_id, ordinal, title, summary, text, page_start, "
    "page_end, section_path, depth"
)

SCHEMA = """
CREATE TABLE nodes (
    policy_id text NOT NULL,
    version_id text NOT NULL,
    node_id text NOT NULL,
    parent_id text,
    ordinal integer NOT NULL,
    title text NOT NULL,
    summary text NOT NULL,
    text text NOT NULL,
    page_start integer,
    page_end integer,
    section_path text NOT NULL,
    depth integer NOT NULL,
    PRIMARY KEY (policy_id, version_id, node_id)
);
CREATE TABLE pairs (key bytea PRIMARY KEY, value bytea NOT NULL);
"""

PARENTS = "CREATE INDEX nodes_parent ON nodes (policy_id, version_id, parent_id, ordinal)"

NODE = f"SELECT {COLUMNS} FROM nodes WHERE policy_id = $1 AND version_id = $2 AND node_id = $3"

SUBTREE = f"""
WITH RECURSIVE subtree AS (
    SELECT {COLUMNS}, 0 AS level, ARRAY[ordinal] AS place FROM nodes
    WHERE policy_id = $1 AND version_id = $2 AND node_id = $3
    UNION ALL
    SELECT {", ".join("child." + name for name in COLUMNS.split(", "))},
        level + 1, place || child.ordinal
    FROM subtree JOIN nodes child ON child.policy_id = subtree.policy_id
        AND child.version_id = subtree.version_id AND child.parent_id = subtree.node_id
    WHERE level < $4
)
SELECT {COLUMNS} FROM subtree ORDER BY place
"""

ANCESTORS = f"""
WITH RECURSIVE ancestors AS (
    SELECT {COLUMNS}, 0 AS level FROM nodes
    WHERE policy_id = $1 AND version_id = $2 AND node_id = $3
    UNION ALL
    SELECT {", ".join("parent." + name for name in COLUMNS.split(", "))}, level + 1
    FROM ancestors JOIN nodes parent ON parent.policy_id = ancestors.policy_id
        AND parent.version_id = ancestors.version_id AND parent.node_id = ancestors.parent_id
)
SELECT {COLUMNS} FROM ancestors ORDER BY level DESC
"""

VERSIONS = """
CREATE TABLE versions (
    policy_id text NOT NULL,
    version_id text NOT NULL,
    effective_from date NOT NULL,
    effective_to date,
    description text NOT NULL,
    tags text[] NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    recorded bigserial NOT NULL,
    PRIMARY KEY (policy_id, version_id)
);
CREATE INDEX versions_start ON versions (policy_id, effective_from DESC, recorded DESC);
"""

AS_OF = """
SELECT policy_id, version_id, effective_from, effective_to, description, tags, recorded_at
FROM versions
WHERE policy_id = $1 AND effective_from <= $2 AND (effective_to IS NULL OR effective_to >= $2)
ORDER BY effective_from DESC, recorded DESC
LIMIT 1
"""

READ = "SELECT value FROM pairs WHERE key = $1"
WRITE = "UPDATE pairs SET value = $2 WHERE key = $1"
PUT = "INSERT INTO pairs VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


async def load(connection: Any, document: TestDocument) -> float:
    """Fill the tables; the seconds that the document took."""
    await connection.execute(SCHEMA)
    begin = perf_counter()
    await connection.copy_records_to_table(
        "nodes", columns=COLUMNS.split(", "), records=_records(document.nodes)
    )
    await connection.execute(PARENTS)
    elapsed = perf_counter() - begin
    await connection.copy_records_to_table("pairs", records=sorted_rows(20_000))
    knowledge = make_knowledge()
    nodes = _records(knowledge.nodes, knowledge_policy, knowledge_version)
    await load_knowledge(connection, knowledge, nodes)
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    return elapsed


def _records(
    nodes: list[dict[str, Any]], policy_id: str = POLICY, version_id: str = VERSION
) -> list[tuple[Any, ...]]:
    places: dict[str | None, tuple[str, int]] = {None: ("", -1)}
    counts: dict[str | None, int] = {}
    records = []
    for node in nodes:
        parent = node["parent_id"]
        counts[parent] = ordinal = counts.get(parent, 0) + 1
        path, depth = places[parent]
        path = f"{path}.{ordinal}" if path else str(ordinal)
        places[node["node_id"]] = path, depth + 1
        records.append(
            (policy_id, version_id, node["node_id"], parent, ordinal, node["title"],
             node["summary"], node["text"], node["page_start"], node["page_end"], path, depth + 1)
        )  # fmt: skip
    return records


class Postgres:
    """The workloads."""

    def __init__(self, config: Config, document: TestDocument, pool: Any) -> None:
        self._address = config.address
        self._sizes = config.sizes
        self._document = document
        self._pool = pool
        self._new = count(1000)
        self._keys = some_keys(sorted_rows(20_000), 5)

    @asynccontextmanager
    async def _sources(self, callers: int, separate: bool) -> AsyncGenerator[list[Any], None]:
        """What each caller calls: the pool, or a connection that it keeps."""
        if not separate:
            yield [self._pool] * callers
            return
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            yield [await enter(self._pool.acquire()) for _ in range(callers)]

    async def get_node(
        self, seconds: float, repetition: int, callers: int, separate: bool = False
    ) -> Sample:
        """One node by its id."""

        def call_on(source: Any) -> Call:
            return lambda node_id: source.fetchrow(NODE, POLICY, VERSION, node_id)

        async with self._sources(callers, separate) as sources:
            calls = [call_on(source) for source in sources]
            return await callers_asyncio(calls, _shuffled(self._document.node_ids), seconds)

    async def get_subtree(self, seconds: float, repetition: int) -> Sample:
        """The subtree, one call after the other on one connection."""
        start = self._document.subtree_id
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(SUBTREE, POLICY, VERSION, start, 3)
            assert len(rows) == self._document.subtree_count, len(rows)

            def call(node_id: str) -> Any:
                return connection.fetch(SUBTREE, POLICY, VERSION, node_id, 3)

            return await callers_asyncio([call], [start], seconds)

    async def get_enriched(self, seconds: float, repetition: int) -> Sample:
        """A document with what is known of it, query after query on one connection."""
        async with self._pool.acquire() as connection:
            assert await fetch_enriched(connection) == (NODES, 2 * REFERENCES, CONTRADICTIONS)

            def call(_: str) -> Any:
                return fetch_enriched(connection)

            return await callers_asyncio([call], [""], seconds)

    async def get_ancestor_path(
        self, seconds: float, repetition: int, callers: int, separate: bool = False
    ) -> Sample:
        """A deep node and everything above it."""

        def call_on(source: Any) -> Call:
            return lambda node_id: source.fetch(ANCESTORS, POLICY, VERSION, node_id)

        async with self._sources(callers, separate) as sources:
            calls = [call_on(source) for source in sources]
            return await callers_asyncio(calls, _shuffled(self._document.deepest_ids), seconds)

    async def prepare_versions(self) -> Sample:
        """Record the versions of one policy."""
        versions = make_versions(self._sizes.versions)
        names = ("version_id", "effective_from", "effective_to", "description", "tags")
        records = [(VERSIONS_POLICY, *(getattr(one, name) for name in names)) for one in versions]
        begin = perf_counter()
        await self._pool.execute(VERSIONS)
        await self._pool.copy_records_to_table(
            "versions", columns=("policy_id", *names), records=records
        )
        await self._pool.execute("VACUUM ANALYZE versions")
        return Sample(len(versions), perf_counter() - begin)

    async def as_of(
        self, seconds: float, repetition: int, callers: int, separate: bool = False
    ) -> Sample:
        """The version in effect on some day."""

        def call_on(source: Any) -> Call:
            return lambda day: source.fetchrow(AS_OF, VERSIONS_POLICY, day)

        days = some_days(self._sizes.versions, repetition)
        async with self._sources(callers, separate) as sources:
            return await callers_asyncio([call_on(source) for source in sources], days, seconds)

    async def put(
        self, seconds: float, repetition: int, callers: int, separate: bool = False
    ) -> Sample:
        """Durable single puts."""
        keys, value = random_keys(100_000, next(self._new)), value_of(repetition)

        def call_on(source: Any) -> Call:
            return lambda key: source.execute(PUT, key, value)

        async with self._sources(callers, separate) as sources:
            return await callers_asyncio([call_on(source) for source in sources], keys, seconds)

    async def modify(
        self, seconds: float, repetition: int, callers: int, separate: bool = False
    ) -> Sample:
        """Serialisable transactions that read a value and write it back changed."""

        def call_on(source: Any) -> Call:
            if separate:
                return lambda key: modify(source, key)

            async def call(key: bytes) -> None:
                async with source.acquire() as connection:
                    await modify(connection, key)

            return call

        async with self._sources(callers, separate) as sources:
            calls = [call_on(source) for source in sources]
            return await callers_asyncio(calls, self._keys, seconds)


async def modify(connection: Any, key: bytes) -> None:
    """One transaction, again where it met another one."""
    while True:
        try:
            async with connection.transaction(isolation="serializable"):
                value = await connection.fetchval(READ, key)
                await connection.execute(WRITE, key, value[1:] + value[:1])
                return
        except asyncpg.SerializationError:
            continue


def _shuffled(ids: list[str]) -> list[str]:
    return random.Random(3).sample(ids, len(ids))


@asynccontextmanager
async def open_workloads(config: Config) -> AsyncGenerator[AsyncWorkloads, None]:
    """Load the document and offer the workloads."""
    document = make_document(config.sizes.document_nodes, config.sizes.subtree_nodes)
    host, _, port = config.address.rpartition(":")
    options: dict[str, Any] = {
        "host": host,
        "port": int(port),
        "user": "bench",
        "database": "postgres",
    }
    connection = await asyncpg.connect(**options)
    seconds = await load(connection, document)
    await connection.close()
    async with (
        asyncpg.create_pool(min_size=16, max_size=16, **options) as pool,
        asyncpg.create_pool(min_size=64, max_size=64, **options) as wide,
    ):
        client = Postgres(config, document, pool)
        wide_client = Postgres(config, document, wide)

        async def loaded() -> Sample:
            return Sample(await pool.fetchval("SELECT count(*) FROM nodes"), seconds)

        yield {
            "loaded": loaded,
            "get_node": client.get_node,
            "get_subtree": client.get_subtree,
            "get_enriched": client.get_enriched,
            "get_ancestor_path": client.get_ancestor_path,
            "prepare_versions": client.prepare_versions,
            "as_of": client.as_of,
            "put": wide_client.put,
            "modify": client.modify,
        }


if __name__ == "__main__":
    serve_asyncio(open_workloads)
