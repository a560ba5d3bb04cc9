"""Interactive transactions at the server: their life on a connection; how commits are settled."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel

from actors.database import READ_THREADS, Database
from actors.listener import Listener
from actors.mail import WriterLimits
from actors.wire import WireSettings
from protocol.limits import Limits
from protocol.messages import Cancel, Credit, Failure, Response, StreamEnd, StreamItems
from tests.actors.databases import Callers, Gate, database
from tests.actors.wire_tools import RawClient, decode, eventually, listening, raw_client
from tests.client.test_retry import Proxy, lose_answer_of, proxied
from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL
from treestore.client import connect
from treestore.errors import (
    InvalidArgument,
    OutcomeUnknown,
    ResourceExhausted,
    SnapshotExpired,
    TransactionConflict,
    Unavailable,
)

CLIENT = {"client_id": b"the same client!", "session": 1}


@asynccontextmanager
async def served(
    *, limits: WriterLimits | None = None, wire: Limits | None = None, **options: Any
) -> AsyncGenerator[tuple[Database, Listener]]:
    async with database(SimDisk(), attrs.evolve(SMALL, **options), limits) as db:
        async with listening(db, WireSettings(limits=wire or Limits())) as listener:
            yield db, listener
        assert db.engine.window.transactions == 0
        assert db.transactions.open == 0
        assert db.engine.snapshots() == []


@asynccontextmanager
async def a_client(listener: Listener) -> AsyncGenerator[RawClient]:
    """A connection of the one client that all of them are."""
    async with raw_client(listener, hello=False) as client:
        await client.hello(**CLIENT)
        yield client


def inside(number: int, begin_ms: int | None = 30_000) -> dict[str, Any]:
    return {"transaction": number, "begin_ms": begin_ms}


async def put(client: RawClient, key: bytes, value: bytes, number: int = 1) -> Any:
    return await client.call("kv.put", fields=inside(number), key=key, value=value)


async def get(client: RawClient, key: bytes, number: int = 1) -> Any:
    answer = await client.call("kv.get", fields=inside(number, None), key=key)
    return decode(answer.result) if isinstance(answer, Response) else answer


async def commit(client: RawClient, number: int | None, sequence: int = 1) -> Any:
    """The answer to a commit, or to the question what became of it."""
    answer = await client.call(
        "session.commit", fields={"transaction": number, "sequence": sequence}
    )
    return decode(answer.result) if isinstance(answer, Response) else answer


async def test_a_transaction_over_the_wire() -> None:
    with trio.fail_after(10):
        async with served() as (db, listener), a_client(listener) as client:
            await db.kv.put(b"a", b"1")
            assert isinstance(await put(client, b"b", b"2"), Response)
            assert await get(client, b"a") == b"1"
            assert await get(client, b"b") == b"2"
            assert listener.statistics().transactions == 1
            request = await client.request("kv.scan", fields=inside(1, None))
            await client.send(Credit(request, 1000))
            assert isinstance(await client.receive(), StreamItems)
            assert isinstance(await client.receive(), StreamEnd)
            assert await db.kv.get(b"b") is None
            assert await commit(client, 1) is True
            assert await db.kv.get(b"b") == b"2"
            assert listener.statistics().transactions == 0
            assert db.transactions.committed == 1


@pytest.mark.parametrize(
    ("method", "fields", "params", "code"),
    [
        ("kv.get", {"transaction": 9}, {"key": b"a"}, "snapshot_expired"),
        ("session.commit", {"transaction": 9, "sequence": 1}, {}, "snapshot_expired"),
        ("kv.gett", inside(1), {}, "invalid_argument"),
        ("kv.get", inside(1), {"key": 5}, "invalid_argument"),
        ("kv.get", inside(1), {"key": b""}, "invalid_argument"),
        ("kv.get", inside(1) | {"snapshot": 1}, {"key": b"a"}, "invalid_argument"),
        ("admin.stats", inside(1), {}, "invalid_argument"),
        ("db.watch", inside(1), {}, "invalid_argument"),
        ("documents.store", inside(1), {"policy_id": "p"}, "invalid_argument"),
        ("documents.get", inside(1), {"policy_id": "p"}, "not_found"),
    ],
)
async def test_wrong_requests_leave_the_transaction_as_it_was(
    method: str, fields: dict[str, Any], params: dict[str, Any], code: str
) -> None:
    with trio.fail_after(10):
        async with served() as (db, listener), a_client(listener) as client:
            await put(client, b"a", b"1")
            failure = await client.call(method, fields=fields, **params)
            assert isinstance(failure, Failure)
            assert failure.code == code
            assert await commit(client, 1) is True
            assert await db.kv.get(b"a") == b"1"


async def test_a_transaction_that_ended_is_not_begun_again() -> None:
    with trio.fail_after(10):
        async with served() as (db, listener), a_client(listener) as client:
            await put(client, b"a", b"1")
            assert await commit(client, 1) is True
            failure = await put(client, b"b", b"2")
            assert "committed" in failure.message
            await put(client, b"c", b"3", 2)
            answer = await client.call("session.rollback", fields={"transaction": 2})
            assert decode(answer.result) is True
            answer = await client.call("session.rollback", fields={"transaction": 2})
            assert decode(answer.result) is False
            failure = await put(client, b"c", b"3", 2)
            assert failure.code == "invalid_argument"
            assert "rolled back" in failure.message
            assert [item async for item in db.kv.scan()] == [(b"a", b"1")]


async def test_its_time_is_up() -> None:
    with trio.fail_after(10):
        async with served() as (db, listener), a_client(listener) as client:
            await client.call("kv.put", fields=inside(1, 50), key=b"a", value=b"1")
            await eventually(lambda: db.transactions.open == 0)
            assert db.engine.snapshots() == []
            for answer in (await get(client, b"a"), await commit(client, 1)):
                assert answer.code == "deadline_exceeded"
            assert db.transactions.expired == 1


async def test_the_number_of_transactions_is_limited() -> None:
    with trio.fail_after(10):
        few = Limits(transactions_max=2)
        async with (
            served(wire=few, transactions_max=3) as (db, listener),
            a_client(listener) as first,
            a_client(listener) as second,
        ):
            for number in (1, 2):
                assert await get_first(first, number) is None
            refused = await first.call("kv.get", fields=inside(3), key=b"a")
            assert (refused.code, refused.details) == (
                "resource_exhausted",
                {"no_transaction": True},
            )
            assert await get_first(second, 1) is None
            refused = await second.call("kv.get", fields=inside(2), key=b"a")
            assert (refused.code, refused.details["no_transaction"]) == (
                "resource_exhausted",
                True,
            )
            with pytest.raises(ResourceExhausted, match="3 transactions are open"):
                async with db.transaction():
                    pass
            await first.call("session.rollback", fields={"transaction": 1})
            assert await get_first(first, 3) is None


async def get_first(client: RawClient, number: int) -> Any:
    answer = await client.call("kv.get", fields=inside(number), key=b"a")
    return decode(answer.result)


async def test_a_lost_connection_rolls_back() -> None:
    with trio.fail_after(10):
        async with served() as (db, listener):
            async with a_client(listener) as client:
                await put(client, b"a", b"1")
                assert db.transactions.open == 1
            await eventually(lambda: db.transactions.open == 0)
            async with a_client(listener) as client:
                assert await commit(client, None) is False
            assert await db.kv.get(b"a") is None


async def test_a_commit_that_was_asked_about_first_is_not_applied() -> None:
    """The fence: whoever was told that it is not committed can rely on that."""
    with trio.fail_after(10):
        async with served() as (db, listener):
            async with a_client(listener) as late, a_client(listener) as asking:
                await put(late, b"a", b"1")
                assert await commit(asking, None, 5) is False
                assert await commit(late, 1, 5) is False
                assert await commit(asking, None, 5) is False
                await put(late, b"b", b"2", 2)
                assert await commit(late, 2, 6) is True
                assert await commit(asking, None, 6) is True
            assert [item async for item in db.kv.scan()] == [(b"b", b"2")]


async def test_a_commit_under_way_outlives_its_connection() -> None:
    with trio.fail_after(10):
        async with served() as (db, listener):
            gate = Gate(db)
            async with a_client(listener) as client:
                await put(client, b"a", b"1")
                await client.request("session.commit", fields={"transaction": 1, "sequence": 1})
                await gate.reached()
            await eventually(lambda: listener.statistics().connections == 0)
            gate.open()
            async with a_client(listener) as client:
                assert await commit(client, None) is True
            assert await db.kv.get(b"a") == b"1"


async def test_a_commit_that_waits_is_taken_back_with_its_connection() -> None:
    """Wherever it waits: in the mailbox, or, that being full, at the session."""
    limits = WriterLimits(mailbox_count_max=1, group_count_max=1)
    with trio.fail_after(10):
        async with served(limits=limits) as (db, listener), trio.open_nursery() as nursery:
            gate, callers = Gate(db), Callers(nursery)
            async with a_client(listener) as client:
                for number in (1, 2, 3):
                    await put(client, b"k%d" % number, b"1", number)
                callers.start("in flight", db.kv.put, b"a", b"1")
                await gate.reached()
                callers.start("blocking", db.kv.put, b"b", b"1")
                await trio.sleep(0.01)
                for number in (1, 2, 3):
                    fields = {"transaction": number, "sequence": number}
                    await client.request("session.commit", fields=fields)
                await eventually(lambda: db.transactions.open == 0)
                await client.send(Cancel(client.last_id))
                cancelled = await client.receive()
                assert cancelled.code == "deadline_exceeded"
            await eventually(lambda: listener.statistics().connections == 0)
            assert db.engine.window.transactions == 0
            gate.open()
            async with a_client(listener) as client:
                for sequence in (1, 2, 3):
                    assert await commit(client, None, sequence) is False
            assert [key async for key, _ in db.kv.scan()] == [b"a", b"b"]


async def test_a_large_transaction() -> None:
    """Applied on a thread, validated ahead; its number counts just the same."""
    with trio.fail_after(30):
        async with served() as (db, listener):
            async with a_client(listener) as client:
                for n in range(40):
                    await put(client, b"large%02d" % n, bytes(5000))
                for n in range(40):
                    await db.kv.put(b"other%02d" % n, bytes(9000))
                assert await commit(client, 1) is True
            async with a_client(listener) as client:
                assert await commit(client, None) is True
            assert len([key async for key, _ in db.kv.scan(prefix=b"large")]) == 40
            with pytest.raises(TransactionConflict):
                async with db.transaction() as txn:
                    await txn.kv.get(b"other07")
                    await txn.kv.put(b"x", b"1")
                    for n in range(40):
                        await db.kv.put(b"other%02d" % n, bytes(9000))
            assert db.transactions.conflicts == 1


async def test_a_log_that_fails() -> None:
    disk = SimDisk()
    with trio.fail_after(10):
        async with database(disk) as db:
            gate = Gate(db)
            gate.error = OSError("broken")
            gate.open()
            with pytest.raises(OutcomeUnknown):
                async with db.transaction() as txn:
                    await txn.kv.put(b"a", b"1")
            with pytest.raises(Unavailable, match="read-only"):
                async with db.transaction() as txn:
                    assert await txn.kv.get(b"a") is None
                    await txn.kv.put(b"a", b"1")
            async with db.transaction() as txn:
                assert await txn.kv.get(b"a") is None
            assert db.engine.window.transactions == 0


async def test_closing_the_store_ends_what_is_open() -> None:
    with trio.fail_after(10):
        async with database(SimDisk()) as db:
            manager = db.transaction()
            txn = await manager.__aenter__()
            await txn.kv.put(b"a", b"1")
        with pytest.raises(Unavailable, match="closed"):
            await txn.kv.get(b"a")
        with pytest.raises(Unavailable, match="closed"):
            await manager.__aexit__(None, None, None)
        with pytest.raises(Unavailable, match="closed"):
            async with db.transaction():
                pass


async def test_an_evicted_transaction_is_begun_anew() -> None:
    attempts = 0
    with trio.fail_after(10):
        async with database(SimDisk()) as db:

            async def body(txn: Any) -> None:
                nonlocal attempts
                attempts += 1
                await txn.kv.put(b"a", b"%d" % attempts)
                if attempts == 1:
                    db.engine.snapshots()[0].evict("It kept too much.")
                await txn.kv.get(b"b")

            await db.run_transaction(body)
            assert attempts == 2
            assert await db.kv.get(b"a") == b"2"
            assert db.engine.window.transactions == 0


async def test_long_calls_and_who_gives_up_waiting_for_them() -> None:
    """A long command waits for a thread, and another call for that; it may give up."""
    with trio.fail_after(30):
        async with database(SimDisk()) as db:
            async with db.transaction() as txn:
                tokens = [object() for _ in range(READ_THREADS)]
                for token in tokens:
                    await db.read_limiter.acquire_on_behalf_of(token)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(txn.kv.batch, [(b"x%04d" % n, b"") for n in range(900)])
                    await eventually(lambda: db.read_limiter.statistics().tasks_waiting == 1)
                    with trio.move_on_after(0.01) as scope:
                        await txn.kv.put(b"given up", b"1")
                    assert scope.cancelled_caught
                    for token in tokens:
                        db.read_limiter.release_on_behalf_of(token)
                # More than the event loop does at a time, so this goes to a thread, too.
                assert len([key async for key, _ in txn.kv.scan()]) == 900
            assert await db.kv.get(b"given up") is None
            assert await db.kv.get(b"x0899") == b""


async def test_a_client_finds_out_what_became_of_its_commit() -> None:
    with trio.fail_after(20):
        async with (
            served() as (db, listener),
            proxied(listener.port) as proxy,
            connect(f"127.0.0.1:{proxy.port}") as client,
        ):
            async with trio.open_nursery() as nursery, client.transaction() as txn:
                await txn.kv.put(b"a", b"1")
                proxy.lose_answers = True
                committed = lambda: db.transactions.committed == 1  # noqa: E731
                nursery.start_soon(lose_answer_of, proxy, committed)
            assert await client.kv.get(b"a") == b"1"


async def test_a_client_begins_anew_after_a_lost_connection() -> None:
    attempts = 0
    with trio.fail_after(20):
        async with served() as (_, listener), proxied(listener.port) as proxy:

            async def body(txn: Any) -> None:
                nonlocal attempts
                attempts += 1
                await txn.kv.put(b"a", b"%d" % attempts)
                if attempts == 1:
                    await cut(proxy)
                await txn.kv.get(b"b")

            async with connect(f"127.0.0.1:{proxy.port}") as client:
                await client.run_transaction(body)
                assert attempts == 2
                with pytest.raises(SnapshotExpired, match="nothing of it was applied"):
                    async with client.transaction() as txn:
                        await txn.kv.put(b"a", b"lost")
                        await cut(proxy)
                assert await client.kv.get(b"a") == b"2"


async def cut(proxy: Proxy) -> None:
    proxy.drop()
    await trio.sleep(0.05)


async def test_a_write_that_was_given_up_makes_the_commit_refuse() -> None:
    with trio.fail_after(20):
        async with (
            served() as (db, listener),
            proxied(listener.port) as proxy,
            connect(f"127.0.0.1:{proxy.port}") as client,
        ):
            txn: Any = None
            with pytest.raises(TransactionConflict, match="given up"):
                async with client.transaction() as txn:
                    await txn.kv.put(b"a", b"1")
                    proxy.lose_answers = True
                    with trio.move_on_after(0.05):
                        await txn.kv.put(b"b", b"2")
                    proxy.lose_answers = False
            assert await db.kv.get(b"a") is None
            with pytest.raises(InvalidArgument, match="rolled back"):
                await txn.kv.get(b"a")
