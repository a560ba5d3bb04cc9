"""A read on a thread ends soon after nobody waits for it any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

import treestore
from actors.database import open_database
from actors.embedded import in_thread
from tests.actors.wire_tools import listening
from treestore.errors import DeadlineExceeded
from treestore.stores.operation import Operation


def endless(txn: Any) -> None:
    """A read that never ends by itself."""
    while True:
        txn.spend(100)


async def test_a_cancelled_read_ends(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_database(tmp_path / "data") as database:
            with trio.move_on_after(0.05) as scope:
                await in_thread(database, None, endless, raw=False)
            assert scope.cancelled_caught
            assert database.read_limiter.borrowed_tokens == 0
            # The indexers look at states of their own, now and then.
            owners = {lease.owner for lease in await database.admin.snapshots()}
            assert owners <= {"search index", "namespace segments", "namespace texts"}


async def test_a_cancelled_read_inside_a_transaction_ends(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_database(tmp_path / "data") as database:
            with trio.move_on_after(0.05) as scope:
                async with database.transaction() as txn:
                    operation: Operation = type(txn.kv).get.operation
                    caller: Any = txn.kv._caller
                    await caller.bind(_like(operation))()
            assert scope.cancelled_caught
            assert database.read_limiter.borrowed_tokens == 0


def _like(operation: Operation) -> Any:
    class Endless:
        kind = "query"
        function = staticmethod(endless)
        long = False
        name = operation.name

    return Endless


async def test_streams_that_find_nothing_let_others_run(tmp_path: Path) -> None:
    """Rare items are looked for bit by bit, and the search can be cancelled."""
    with trio.fail_after(60):
        async with open_database(tmp_path / "data") as database:
            documents = [{"n": number, "l": list(range(30))} for number in range(3000)]
            await database.collections.insert_many("c", documents)
            nothing = {"$nor": [*({"l": n + 0.5} for n in range(200)), {"l": {"$gte": 0}}]}
            turns = 0

            async def run_beside(scope: trio.CancelScope) -> None:
                nonlocal turns
                for _ in range(5):
                    turns += 1
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(run_beside, scope)  # noqa: ASYNC111 - it cancels it
                    async for _ in database.collections.scan("c", nothing):
                        pytest.fail("nothing satisfies the filter")
            assert turns == 5
            assert scope.cancelled_caught


async def test_a_deadline_ends_a_read_of_a_session(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with (
            open_database(tmp_path / "data") as database,
            listening(database) as listener,
            treestore.connect(f"127.0.0.1:{listener.port}") as client,
        ):
            documents = [{"l": list(range(300))} for _ in range(500)]
            await client.collections.insert_many("c", documents)
            hours = {"$nor": [{"l": n + 0.5} for n in range(900)]}
            with trio.move_on_after(0.2):
                try:
                    await client.collections.count("c", hours)
                except DeadlineExceeded:
                    pass
            while database.read_limiter.borrowed_tokens:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)
            assert await client.collections.count("c", {"l": 5}) == 500
