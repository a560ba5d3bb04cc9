"""Long queries on a real server: given up by their client, or past their deadline, they end."""

from __future__ import annotations

from pathlib import Path

import trio

import treestore
from tests.integration.servers import Server

HOURS = {"$nor": [{"l": number + 0.5} for number in range(900)]}
"""Takes many milliseconds for each document."""


async def queries_in_flight(client: treestore.Client) -> int:
    return sum(lease.owner == "query" for lease in await client.admin.snapshots())


async def test_a_long_query_ends_with_its_caller(tmp_path: Path) -> None:
    server = await trio.to_thread.run_sync(Server.start, tmp_path / "data")
    try:
        with trio.fail_after(120):
            async with treestore.connect(server.tcp) as client:
                documents = [{"l": list(range(400))} for _ in range(4000)]
                await client.collections.insert_many("c", documents)
                for method in ("count", "find", "explain"):
                    with trio.move_on_after(0.3) as scope:
                        await getattr(client.collections, method)("c", HOURS)
                    assert scope.cancelled_caught
                    while await queries_in_flight(client):  # noqa: ASYNC110 - none tells
                        await trio.sleep(0.01)
                # Meanwhile others were answered, and are.
                assert await client.collections.count("c", {"l": 7}) == 4000
    finally:
        assert server.stop() == 0
