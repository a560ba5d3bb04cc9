"""Interactive transactions through every face."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel

from treestore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    TransactionConflict,
)

TREE = [{"node_id": "1", "title": "One", "nodes": [{"node_id": "2", "title": "Two"}]}]


async def test_it_commits_on_a_normal_exit(db: Any) -> None:
    with trio.fail_after(30):
        await db.kv.put(b"a", b"1")
        async with db.transaction() as txn:
            assert await txn.kv.get(b"a") == b"1"
            await txn.kv.put(b"a", b"2")
            await txn.kv.put(b"b", b"3")
            assert await txn.kv.get(b"a") == b"2"
            assert await db.kv.get(b"a") == b"1"
            assert [item async for item in txn.kv.scan()] == [(b"a", b"2"), (b"b", b"3")]
        assert [item async for item in db.kv.scan()] == [(b"a", b"2"), (b"b", b"3")]


async def test_an_exception_rolls_back_and_is_raised_as_it_is(db: Any) -> None:
    class Own(Exception):
        pass

    own = Own()
    with trio.fail_after(30):
        with pytest.raises(Own) as caught:
            async with db.transaction() as txn:
                await txn.kv.put(b"a", b"1")
                raise own
        assert caught.value is own
        assert await db.kv.get(b"a") is None


async def test_cancellation_rolls_back(db: Any) -> None:
    with trio.fail_after(30):
        with trio.move_on_after(0.2) as scope:
            async with db.transaction() as txn:
                await txn.kv.put(b"a", b"1")
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert await db.kv.get(b"a") is None


async def test_a_conflict_is_raised_at_the_exit(db: Any) -> None:
    with trio.fail_after(30):
        await db.kv.put(b"a", b"1")
        with pytest.raises(TransactionConflict, match="run it again"):
            async with db.transaction() as txn:
                value = await txn.kv.get(b"a")
                await db.kv.put(b"a", b"other")
                assert await txn.kv.get(b"a") == value
                await txn.kv.put(b"b", value + b"!")
        assert await db.kv.get(b"b") is None


async def test_no_write_skew(db: Any) -> None:
    """Each reads what the other one writes: one of them has to go."""
    with trio.fail_after(30):
        await db.kv.batch(puts=[(b"a", b"1"), (b"b", b"1")])
        with pytest.raises(TransactionConflict):
            async with db.transaction() as first:
                assert await first.kv.get(b"a") == await first.kv.get(b"b")
                async with db.transaction() as second:
                    assert await second.kv.get(b"a") == await second.kv.get(b"b")
                    await second.kv.delete(b"b")
                await first.kv.delete(b"a")
        assert [item async for item in db.kv.scan()] == [(b"a", b"1")]


async def test_no_phantoms(db: Any) -> None:
    with trio.fail_after(30):
        with pytest.raises(TransactionConflict):
            async with db.transaction() as txn:
                count = len([item async for item in txn.kv.scan(prefix=b"row")])
                await db.kv.put(b"row1", b"")
                await txn.kv.put(b"count", b"%d" % count)
        assert await db.kv.get(b"count") is None


async def test_a_scan_that_is_left_early_reads_no_further(db: Any) -> None:
    with trio.fail_after(30):
        await db.kv.batch(puts=[(b"row%02d" % n, b"") for n in range(50)])
        async with db.transaction() as txn:
            first = [item async for item in txn.kv.scan(prefix=b"row", limit=2)]
            last = [item async for item in txn.kv.scan(prefix=b"row", limit=2, reverse=True)]
            await db.kv.put(b"row25", b"changed")
            await txn.kv.put(b"ends", first[0][0] + last[0][0])
        assert await db.kv.get(b"ends") == b"row00row49"


async def test_blind_writes_and_reads_do_not_conflict(db: Any) -> None:
    with trio.fail_after(30):
        await db.kv.put(b"a", b"1")
        async with db.transaction() as txn:
            await txn.kv.put(b"a", b"blind")
            await db.kv.put(b"a", b"2")
        assert await db.kv.get(b"a") == b"blind"
        async with db.transaction() as txn:
            await txn.kv.get(b"a")
            await db.kv.put(b"a", b"3")
            assert await txn.kv.get(b"a") == b"blind"


async def transactions_listed(db: Any) -> list[str]:
    """The transactions among the readers; the search index may be one, too."""
    owners = [reader.owner for reader in await db.admin.snapshots()]
    return [owner for owner in owners if "transaction" in owner]


async def test_a_transaction_of_nothing(db: Any) -> None:
    with trio.fail_after(30):
        async with db.transaction():
            pass
        assert await transactions_listed(db) == []


async def test_documents_inside(db: Any) -> None:
    with trio.fail_after(30):
        async with db.transaction() as txn:
            stored = await txn.documents.store("policy", "v1", TREE)
            assert stored.node_count == 2
            await txn.documents.insert_nodes(
                "policy", [{"node_id": "3", "title": "Three", "parent_id": "1"}]
            )
            await txn.kv.put(b"stored", b"policy")
            nodes = await txn.documents.get_subtree("policy")
            assert [node.node_id for node in nodes] == ["1", "2", "3"]
            with pytest.raises(NotFound):
                await db.documents.get("policy")
        assert (await db.documents.get("policy")).node_count == 3
        with pytest.raises(TransactionConflict):
            async with db.transaction() as txn:
                await txn.documents.get_node("policy", "2")
                await db.documents.update_node("policy", "2", title="Changed")
                await txn.kv.put(b"stored", b"too late")
        assert await db.kv.get(b"stored") == b"policy"


async def test_a_call_that_fails_leaves_the_transaction_as_it_was(db: Any) -> None:
    with trio.fail_after(30):
        await db.documents.store("policy", "v1", TREE)
        async with db.transaction() as txn:
            await txn.kv.put(b"a", b"1")
            with pytest.raises(InvalidArgument, match="twice"):
                await txn.documents.insert_nodes("policy", [{"node_id": "2", "title": "Again"}])
            with pytest.raises(InvalidArgument):
                await txn.kv.put(b"", b"1")
            with pytest.raises(NotFound):
                await txn.documents.get_node("policy", "9")
        assert await db.kv.get(b"a") == b"1"
        assert (await db.documents.get("policy")).node_count == 2


async def test_a_first_call_that_fails_begins_it_too(db: Any) -> None:
    with trio.fail_after(30):
        async with db.transaction() as txn:
            with pytest.raises(InvalidArgument):
                await txn.kv.put(b"", b"1")
            await txn.kv.put(b"a", b"1")
        assert await db.kv.get(b"a") == b"1"


async def test_run_transaction_retries_conflicts(db: Any) -> None:
    attempts = 0

    async def add(txn: Any) -> int:
        nonlocal attempts
        attempts += 1
        value = int(await txn.kv.get(b"n") or b"0")
        if attempts < 3:
            await db.kv.put(b"n", b"%d" % (10 * attempts))
        await txn.kv.put(b"n", b"%d" % (value + 1))
        return value + 1

    with trio.fail_after(30):
        assert await db.run_transaction(add) == 21
        assert attempts == 3
        assert await db.kv.get(b"n") == b"21"
        attempts = 0
        with pytest.raises(TransactionConflict):
            await db.run_transaction(add, attempts=1)


async def test_many_counters_add_up(db: Any) -> None:
    async def add(txn: Any) -> None:
        value = int(await txn.kv.get(b"n") or b"0")
        await trio.lowlevel.checkpoint()
        await txn.kv.put(b"n", b"%d" % (value + 1))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(lambda: db.run_transaction(add, attempts=200))
        assert await db.kv.get(b"n") == b"12"


async def test_calls_of_several_tasks_inside_one_transaction(db: Any) -> None:
    with trio.fail_after(30):
        async with db.transaction() as txn:
            async with trio.open_nursery() as nursery:
                for n in range(20):
                    nursery.start_soon(txn.kv.put, b"k%02d" % n, b"%d" % n)
                nursery.start_soon(txn.documents.store, "policy", "v1", TREE)
            assert len([item async for item in txn.kv.scan()]) == 20
        assert len([item async for item in db.kv.scan()]) == 20
        assert (await db.documents.get("policy")).node_count == 2


async def test_a_stream_shows_the_state_that_it_was_opened_on(db: Any) -> None:
    rows = [(b"row%03d" % n, b"v" * 100) for n in range(300)]
    with trio.fail_after(30):
        async with db.transaction() as txn:
            await txn.kv.batch(puts=rows)
            found = []
            async for item in txn.kv.scan():
                found.append(item)
                if len(found) == 1:
                    await txn.kv.put(b"row5", b"late")
                    await txn.kv.delete(b"row299")
            assert len(found) == 300
            assert len([item async for item in txn.kv.scan()]) == 300
        assert await db.kv.get(b"row299") is None


async def test_its_time_is_bounded(db: Any) -> None:
    with trio.fail_after(30):
        with pytest.raises(DeadlineExceeded, match="rolled back"):
            async with db.transaction(timeout=0.1) as txn:
                await txn.kv.put(b"a", b"1")
                await trio.sleep(0.3)
                assert (await db.admin.stats()).snapshots == 0  # Freed, though nobody asked.
                await txn.kv.get(b"a")
        with pytest.raises(DeadlineExceeded):
            async with db.transaction(timeout=0.1) as txn:
                await txn.kv.put(b"a", b"1")
                await trio.sleep(0.3)
        assert await db.kv.get(b"a") is None


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", None, True, 1e9])
async def test_a_timeout_is_checked(db: Any, timeout: Any) -> None:
    with trio.fail_after(30):
        with pytest.raises(InvalidArgument, match="timeout"):
            async with db.transaction(timeout=timeout):
                pytest.fail("it began")


@pytest.mark.parametrize("attempts", [0, "1", None, True])
async def test_attempts_are_checked(db: Any, attempts: Any) -> None:
    async def nothing(_txn: Any) -> None:  # noqa: ASYNC124
        pytest.fail("it began")

    with trio.fail_after(30), pytest.raises(InvalidArgument, match="attempts"):
        await db.run_transaction(nothing, attempts=attempts)


async def test_it_cannot_be_used_after_its_end(db: Any) -> None:
    with trio.fail_after(30):
        async with db.transaction() as committed:
            await committed.kv.put(b"a", b"1")
        dropped: Any = None
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as dropped:
                await dropped.kv.put(b"a", b"2")
                1 / 0
        for txn, how in ((committed, "committed"), (dropped, "rolled back")):
            with pytest.raises(InvalidArgument, match=how):
                await txn.kv.get(b"a")
            with pytest.raises(InvalidArgument, match=how):
                await txn.kv.put(b"a", b"3")
            with pytest.raises(InvalidArgument, match=how):
                async for _ in txn.kv.scan():
                    pass
        assert await db.kv.get(b"a") == b"1"


async def test_admin_is_not_for_transactions(db: Any) -> None:
    with trio.fail_after(30):
        async with db.transaction() as txn:
            assert not hasattr(txn, "admin")


async def test_it_is_listed_as_a_reader(db: Any) -> None:
    with trio.fail_after(30):
        async with db.transaction() as txn:
            await txn.kv.get(b"a")
            assert len(await transactions_listed(db)) == 1
        assert await transactions_listed(db) == []
