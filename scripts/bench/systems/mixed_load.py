"""Everything at once: the load under which the server's event loop is watched."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import trio

from scripts.bench.data import POLICY, VERSION, TestDocument, random_keys, value_of
from scripts.bench.worker import Sample

STORED_NODES = 20_000
"""Nodes of the document that is stored over and over."""


async def mixed_load(database: Any, document: TestDocument, seconds: float) -> Sample:
    """8 readers, 8 writers, one scan, one subtree reader and one document store in loops.

    The sample's details hold the `time.perf_counter` of its begin and end, which on Linux is one
    clock for all processes.
    """
    rng = random.Random(11)
    counts: Counter[str] = Counter()
    keys = iter(random_keys(1_000_000, 12))
    documents, kv = database.documents, database.kv

    async def read() -> None:
        await documents.get_node(POLICY, rng.choice(document.node_ids), version_id=VERSION)
        await documents.get_ancestor_path(
            POLICY, rng.choice(document.deepest_ids), version_id=VERSION
        )
        counts["reads"] += 2

    async def write() -> None:
        await kv.put(next(keys), value_of(1))
        counts["writes"] += 1

    async def scan() -> None:
        async for _ in kv.scan():
            counts["scanned rows"] += 1

    async def subtree() -> None:
        await documents.get_subtree(POLICY, document.subtree_id, max_depth=3, version_id=VERSION)
        counts["subtrees"] += 1
        await trio.sleep(0.02)

    async def store() -> None:
        # A prefix in reading order is a tree as well.
        await documents.store("mixed", "v1", document.nodes[:STORED_NODES])
        counts["documents"] += 1

    async def repeat(action: Callable[[], Awaitable[None]]) -> None:
        while True:
            await action()

    begin = perf_counter()
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for action, tasks in ((read, 8), (write, 8), (scan, 1), (subtree, 1), (store, 1)):
                for _ in range(tasks):
                    nursery.start_soon(repeat, action)
    end = perf_counter()
    details = {"begin": begin, "end": end, "counts": dict(counts)}
    return Sample(sum(counts.values()), end - begin, details=details)
