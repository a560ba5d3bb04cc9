"""Callers that come one at a time read for themselves: every way in which that can end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import eventually, listening
from tests.client.test_retry import Proxy, proxied
from treestore.client import connect
from treestore.client.trio_connection import LONELY_ANSWERS, TrioConnection
from treestore.errors import DeadlineExceeded, OutcomeUnknown, Unavailable


def only_connection(db: Any) -> TrioConnection:
    [connection] = db._pool._connections
    assert isinstance(connection, TrioConnection)
    return connection


async def stand_by(db: Any) -> TrioConnection:
    """Have the reader stand by; returns the connection."""
    connection = only_connection(db)
    for _ in range(LONELY_ANSWERS + 2):
        await db.kv.get(b"a")
    assert connection._standing_by is not None
    return connection


@asynccontextmanager
async def led(
    host: FakeHost, **options: Any
) -> AsyncGenerator[tuple[Any, TrioConnection, Proxy, trio.Nursery]]:
    """A client of one connection whose reader stands by."""
    with trio.fail_after(10):
        async with (
            listening(host) as listener,
            proxied(listener.port) as proxy,
            trio.open_nursery() as nursery,
            connect(f"127.0.0.1:{proxy.port}", connections=1, **options) as db,
        ):
            yield db, await stand_by(db), proxy, nursery


def stored(host: FakeHost) -> dict[bytes, bytes]:
    return {key[1:]: value for key, value in host.data.items()}


async def leading(connection: TrioConnection) -> None:
    await eventually(lambda: connection._leader is not None)


async def test_a_lonely_caller_leads_and_the_reader_returns_when_it_is_quiet() -> None:
    async with led(FakeHost()) as (db, connection, _, _):
        for _ in range(100):
            await db.kv.get(b"a")
            assert connection._leader is None
        assert connection._standing_by is not None
        await eventually(lambda: connection._standing_by is None)
        assert await db.kv.get(b"a") is None


async def test_a_leader_dispatches_the_answers_of_others() -> None:
    host = FakeHost()
    async with led(host) as (db, connection, _, nursery):
        host.hold_commands = True
        nursery.start_soon(db.kv.put, b"a", b"1")
        await leading(connection)
        for _ in range(3):
            assert await db.kv.get(b"a") is None
        assert [item async for item in db.kv.scan()] == []
        assert connection._leader is not None
        host.run_commands()
        assert await db.kv.get(b"a") == b"1"
        await eventually(lambda: connection._leader is None)


async def test_a_leader_that_leaves_others_behind_recalls_the_reader() -> None:
    host = FakeHost()
    async with led(host) as (db, connection, _, nursery):
        host.cold_queries = True
        host.query_gate = trio.Event()
        done: list[bytes] = []

        async def get(key: bytes) -> None:
            await db.kv.get(key)
            done.append(key)

        host.hold_commands = True
        nursery.start_soon(db.kv.put, b"a", b"1")
        await leading(connection)
        nursery.start_soon(get, b"b")
        await eventually(lambda: connection.load == 2)
        host.run_commands()
        await eventually(lambda: connection._leader is None)
        assert connection._standing_by is None
        assert not done
        host.query_gate.set()
        await eventually(lambda: done == [b"b"])


async def test_a_stream_recalls_the_reader() -> None:
    host = FakeHost()
    for number in range(1000):
        host.put(b"%04d" % number, b"x" * 100)
    async with led(host) as (db, connection, _, _), db.kv.scan() as items:
        async for _ in items:
            assert connection._standing_by is None
            break
        await db.kv.get(b"a")
        assert len([item async for item in items]) == 999


async def test_a_leader_can_be_cancelled() -> None:
    host = FakeHost()
    async with led(host) as (db, connection, _, _):
        host.hold_commands = True
        with trio.move_on_after(0.03) as scope:
            await db.kv.put(b"a", b"1")
        assert scope.cancelled_caught
        assert connection._leader is None
        await eventually(lambda: host.waiting == [])
        host.hold_commands = False
        await db.kv.put(b"a", b"2")
        assert host.applied == ["kv.put"]
        assert await db.kv.get(b"a") == b"2"


async def test_a_cancelled_leader_leaves_the_others_their_answers() -> None:
    host = FakeHost()
    async with led(host) as (db, connection, _, nursery):
        host.hold_commands = True
        scope = trio.CancelScope()

        async def put_cancelled() -> None:
            with scope:
                await db.kv.put(b"a", b"1")

        nursery.start_soon(put_cancelled)
        await leading(connection)
        nursery.start_soon(db.kv.put, b"b", b"2")
        await eventually(lambda: len(host.waiting) == 2)
        scope.cancel()
        await eventually(lambda: len(host.waiting) == 1)
        host.run_commands()
        await eventually(lambda: connection.load == 0)
        assert stored(host) == {b"b": b"2"}


async def test_a_leader_times_out() -> None:
    host = FakeHost()
    async with led(host, timeout=0.05) as (db, connection, _, _):
        host.cold_queries = True
        host.query_gate = trio.Event()
        with pytest.raises(DeadlineExceeded):
            await db.kv.get(b"a")
        assert connection._leader is None
        host.query_gate.set()
        assert await db.kv.get(b"a") is None


async def test_a_leader_gets_the_error_of_its_call() -> None:
    host = FakeHost()
    async with led(host, timeout=0.05) as (db, connection, _, _):
        host.hold_commands = True
        with pytest.raises(DeadlineExceeded, match="nothing was changed"):
            await db.kv.put(b"a", b"1")
        assert not connection.lost


async def test_a_connection_lost_under_a_leader() -> None:
    host = FakeHost()
    done: list[bytes] = []
    async with led(host) as (db, connection, proxy, nursery):

        async def put(key: bytes) -> None:
            await db.kv.put(key, b"1")
            done.append(key)

        host.hold_commands = True
        nursery.start_soon(put, b"a")
        await leading(connection)
        nursery.start_soon(put, b"b")
        await eventually(lambda: len(host.waiting) == 2)
        host.hold_commands = False
        proxy.drop()
        await eventually(lambda: sorted(done) == [b"a", b"b"])
        assert host.applied == ["kv.put", "kv.put"]
        assert connection.lost


async def test_a_connection_lost_while_the_reader_stands_by_is_noticed() -> None:
    async with led(FakeHost()) as (db, connection, proxy, _):
        proxy.drop()
        await eventually(lambda: connection.lost)
        assert await db.kv.get(b"a") is None


async def test_closing_the_client_ends_a_leader() -> None:
    host = FakeHost()
    ended: list[type[Exception]] = []
    with trio.fail_after(10):
        async with listening(host) as listener, trio.open_nursery() as nursery:
            async with connect(f"127.0.0.1:{listener.port}", connections=1) as db:
                connection = await stand_by(db)
                host.hold_commands = True

                @nursery.start_soon
                async def put() -> None:
                    try:
                        await db.kv.put(b"a", b"1")
                    except (Unavailable, OutcomeUnknown) as error:
                        ended.append(type(error))

                await leading(connection)
            await eventually(lambda: ended == [OutcomeUnknown])
