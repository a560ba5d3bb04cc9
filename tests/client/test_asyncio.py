"""The client in plain asyncio programs, against a real listener on loopback."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
from functools import partial
from typing import Any

import attrs
import pytest
import trio

import treestore
from actors.wire import WireSettings
from protocol.limits import Limits
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import only
from tests.client.served import eventually, run, served
from treestore.client.asyncio_connection import AsyncioConnection
from treestore.client.remote import connect_to, target_of
from treestore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    ProtocolError,
    ResourceExhausted,
    SnapshotExpired,
    TreeStoreError,
    Unauthenticated,
    Unavailable,
)


def filled(count: int) -> FakeHost:
    host = FakeHost()
    for number in range(count):
        host.put(b"%05d" % number, bytes(1000))
    return host


def outstanding(db: Any) -> int:
    """Commands whose number may still be sent."""
    return len(db._pool.sequencer._outstanding)


def test_calls_give_what_they_give_elsewhere() -> None:
    async def main() -> None:
        async with treestore.connect(scene.address) as db:
            assert await db.kv.get(b"a") is None
            await db.kv.batch(puts=[(b"b", b"2"), (b"c", b"3")], deletes=[b"a"])
            assert [item async for item in db.kv.scan()] == [(b"b", b"2"), (b"c", b"3")]
            assert await db.kv.delete(b"b") is True
            scene.host.fail_queries_with = NotFound("No such thing.", missing=["a"])
            with pytest.raises(NotFound, match="No such thing") as caught:
                await db.kv.get(b"a")
            assert caught.value.details == {"missing": ["a"]}
            with pytest.raises(InvalidArgument, match="cannot be sent"):
                await db.kv.get(object())  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await db.kv.get()  # type: ignore[call-arg]

    with served() as scene:
        run(main)


def test_many_tasks_share_few_connections() -> None:
    async def main() -> None:
        async with treestore.connect(scene.address) as db:
            keys = [b"%05d" % number for number in range(500)]
            assert await asyncio.gather(*map(db.kv.get, keys)) == [bytes(1000)] * 500
            assert scene.listener.statistics().connections_total <= 2

    with served(filled(500)) as scene:
        run(main)


def test_what_the_body_raises_is_not_wrapped() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            async with treestore.connect(scene.address) as db:
                await db.kv.get(b"a")
                raise ZeroDivisionError
        assert caught.value.__context__ is None
        with pytest.RaisesGroup(KeyError):
            async with treestore.connect(scene.address):
                raise ExceptionGroup("mine", [KeyError()])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02), treestore.connect(scene.address):
                await asyncio.sleep(60)
        task = asyncio.create_task(stay(scene.address))
        await eventually(lambda: scene.listener.statistics().connections == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: scene.listener.statistics().connections == 0)

    with served() as scene:
        run(main)


async def stay(address: str) -> None:
    async with treestore.connect(address):
        await asyncio.sleep(60)


def test_cancelling_a_task_cancels_its_call() -> None:
    async def main() -> None:
        async with treestore.connect(scene.address) as db:
            scene.host.hold_commands = True
            task = asyncio.create_task(db.kv.put(b"a", b"1"))
            await eventually(lambda: len(scene.host.waiting) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: scene.host.waiting == [])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await db.kv.put(b"b", b"1")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(db.kv.put(b"c", b"1"), 0.02)
            await eventually(lambda: scene.host.waiting == [])
            assert outstanding(db) == 0
            scene.host.hold_commands = False
            await db.kv.put(b"a", b"2")
            assert scene.host.applied == ["kv.put"]
            assert scene.host.data == {b"\x01a": b"2"}

    with served() as scene:
        run(main)


def test_a_call_that_is_cancelled_as_its_answer_comes() -> None:
    """At every turn of the loop around the answer: no other call suffers."""

    async def main() -> None:
        async with treestore.connect(scene.address, connections=1) as db:
            for turns in range(60):
                task = asyncio.create_task(db.kv.delete(b"a"))
                other = asyncio.create_task(db.kv.get(b"b"))
                for _ in range(turns % 20):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert await other is None
            assert outstanding(db) == 0
            assert scene.listener.statistics().connections_total == 1

    with served() as scene:
        run(main)


def test_snapshots_given_up_while_they_open_are_closed() -> None:
    async def main() -> None:
        async with treestore.connect(scene.address, connections=1) as db:

            async def open_one() -> None:
                async with db.snapshot():
                    await asyncio.sleep(60)

            for number in range(100):
                task = asyncio.create_task(open_one())
                for _ in range(number % 12):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await eventually(lambda: not scene.host.snapshots)
            async with db.snapshot() as snapshot:
                assert await snapshot.kv.get(b"a") is None
                with pytest.raises(InvalidArgument, match="only read"):
                    await snapshot.kv.put(b"a", b"")  # type: ignore[arg-type]
            with pytest.raises(SnapshotExpired):
                await snapshot.kv.get(b"a")

    with served() as scene:
        run(main)


def test_a_scan_is_flow_controlled_and_let_go_of() -> None:
    async def main() -> None:
        async with treestore.connect(scene.address) as db:
            count = 0
            async for _item in db.kv.scan():
                count += 1
                if count == 100:
                    await asyncio.sleep(0.03)
                    assert scene.host.streamed < 2000
            assert count == 4000
            async for _item in db.kv.scan():
                break
            gc.collect()  # In case a frame still refers to it.
            await eventually(lambda: scene.host.streams == 0)
            async with db.kv.scan() as items:
                assert (await anext(aiter(items)))[0] == b"00000"
                assert scene.host.streams == 1
            await eventually(lambda: scene.host.streams == 0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), db.kv.scan() as items:
                    async for _item in items:
                        await asyncio.sleep(60)
            await eventually(lambda: scene.host.streams == 0)

    with served(filled(4000)) as scene:
        run(main)


def test_long_values_both_ways() -> None:
    value = bytes(range(256)) * 30_000

    async def main() -> None:
        async with treestore.connect(scene.address, connections=1) as db:
            await asyncio.gather(*(db.kv.put(b"%d" % number, value) for number in range(4)))
            assert await db.kv.get(b"3") == value
            with pytest.raises(ResourceExhausted, match="at most 20,000,000"):
                await db.kv.put(b"long", value * 3)
            assert scene.listener.statistics().connections_total == 1

    limits = WireSettings(limits=Limits(partial_messages_max=2, partial_size_bytes_max=20_000_000))
    with served(settings=limits) as scene:
        run(main)


# --- time ------------------------------------------------------------------------------------


def test_calls_whose_time_is_up() -> None:
    async def main() -> None:
        async with treestore.connect(scene.address, timeout=0.05) as db:
            scene.host.hold_commands = True
            with pytest.raises(DeadlineExceeded, match="nothing was changed"):
                await db.kv.put(b"a", b"1")
            assert scene.host.waiting == []
            scene.host.cold_queries, scene.host.query_gate = True, trio.Event()
            with pytest.raises(DeadlineExceeded):
                await db.kv.get(b"a")
            await eventually(lambda: scene.listener.statistics().requests_in_flight == 0)
            scene.host.cold_queries = False
            task = asyncio.create_task(db.kv.put(b"a", b"1"))
            await eventually(lambda: len(scene.host.waiting) == 1)
            scene.host.waiting.clear()  # The writer began it, and is slow.
            with pytest.raises(OutcomeUnknown):
                await task
            assert await db.kv.get(b"a") is None

    with served() as scene:
        run(main)


def test_a_silent_server_counts_as_dead() -> None:
    """Behind a proxy that swallows every answer from now on."""

    async def main() -> None:
        target = attrs.evolve(
            target_of(scene.proxied, None, None),
            keep_alive_interval_s=0.02,
            keep_alive_timeout_s=0.1,
        )
        async with connect_to(target, 1, 10.0) as db:
            await db.kv.get(b"a")
            [connection] = db.pool._connections
            scene.proxy.lose_answers = True
            await eventually(lambda: connection.lost)
            scene.proxy.lose_answers = False
            assert await db.kv.get(b"a") is None

    with served() as scene:
        run(main)


# --- connections that end --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["delete", "put"])
def test_a_retried_command_is_applied_once(name: str) -> None:
    async def main() -> None:
        async with treestore.connect(scene.proxied) as db:
            await db.kv.get(b"a")
            scene.proxy.lose_answers = True
            call = db.kv.delete(b"a") if name == "delete" else db.kv.put(b"a", b"2")
            task = asyncio.ensure_future(call)
            await eventually(lambda: bool(scene.host.applied))
            await asyncio.sleep(0.01)
            scene.proxy.lose_answers = False
            scene.do(scene.proxy.drop)
            assert await task is (True if name == "delete" else None)
            assert scene.host.applied == [f"kv.{name}"]
            await db.kv.put(b"b", b"")
            assert len(scene.host.answers) == 1  # The watermark moved on.

    host = FakeHost()
    host.put(b"a", b"1")
    with served(host) as scene:
        run(main)


def test_what_cannot_be_settled_has_an_unknown_outcome() -> None:
    async def main() -> None:
        async with treestore.connect(scene.proxied, timeout=0.3) as db:
            scene.proxy.lose_answers = True
            task = asyncio.create_task(db.kv.delete(b"a"))
            await eventually(lambda: bool(scene.host.applied))
            scene.proxy.refuse = True
            scene.do(scene.proxy.drop)
            with pytest.raises(OutcomeUnknown, match="may or may not"):
                await task
            with pytest.raises(Unavailable, match="No connection"):
                await db.kv.delete(b"a")

    with served() as scene:
        run(main)


def test_streams_and_snapshots_end_with_their_connection() -> None:
    async def main() -> None:
        async with treestore.connect(scene.proxied) as db, db.snapshot() as snapshot:
            count = 0
            with pytest.raises(Unavailable, match="cut off"):
                async for _item in db.kv.scan():
                    count += 1
                    if count == 10:
                        scene.do(scene.proxy.drop)
            assert 10 <= count < 3000
            with pytest.raises(SnapshotExpired):
                await snapshot.kv.get(b"a")
            assert len([item async for item in db.kv.scan(limit=5)]) == 5

    with served(filled(3000)) as scene:
        run(main)


def test_closing_the_client_ends_what_is_under_way() -> None:
    async def main() -> None:
        scene.host.hold_commands = True
        scene.host.cold_queries, scene.host.query_gate = True, trio.Event()
        async with treestore.connect(scene.address) as db:
            tasks = [
                asyncio.create_task(db.kv.put(b"a", b"1")),
                asyncio.create_task(db.kv.get(b"a")),
            ]
            await eventually(lambda: scene.listener.statistics().requests_in_flight == 2)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [OutcomeUnknown, Unavailable]
        with pytest.raises(Unavailable, match="closed"):
            await db.kv.get(b"a")

    with served() as scene:
        run(main)


def test_a_fault_of_the_client_is_told_to_its_callers(monkeypatch: Any) -> None:
    def crash(*_args: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with treestore.connect(scene.address, timeout=1) as db:
            monkeypatch.setattr(AsyncioConnection, "_dispatch", crash)
            with pytest.raises(Unavailable, match="The client failed: ZeroDivisionError"):
                await db.kv.get(b"a")

    with served() as scene:
        run(main)


# --- the beginning ---------------------------------------------------------------------------


def test_no_server_and_refusals(monkeypatch: Any) -> None:
    async def refused(address: str, match: str, kind: type[TreeStoreError], **options: Any) -> None:
        with pytest.raises(kind, match=match):
            async with treestore.connect(address, **options):
                pass

    async def main() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        await refused(f"127.0.0.1:{port}", "No connection to 127.0.0.1", Unavailable)
        await refused("no-such-host.invalid:1", "No connection to no-such", Unavailable)
        await refused(scene.address, "key", Unauthenticated, api_key="wrong")
        async with treestore.connect(scene.address, api_key="right") as db:
            await db.kv.get(b"a")
        monkeypatch.setattr("treestore.client.pool.CONNECT_TIMEOUT_S", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as mute:
            address = f"127.0.0.1:{mute.getsockname()[1]}"
            await refused(address, "did not answer the hello", Unavailable)
        for said, match, kind in (
            (b"", "without a word|broke during the hello", Unavailable),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "broke the rules", ProtocolError),
        ):
            with socket.create_server(("127.0.0.1", 0)) as odd:
                thread = threading.Thread(target=partial(answer_once, odd, said))
                thread.start()
                await refused(f"127.0.0.1:{odd.getsockname()[1]}", match, kind)
                await asyncio.to_thread(thread.join)

    with served(authenticate=only("right")) as scene:
        run(main)


def answer_once(server: socket.socket, data: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(data)


def test_neither_loop() -> None:
    with pytest.raises(RuntimeError, match="connect_sync"):
        treestore.connect("127.0.0.1:1").__aenter__().send(None)


async def test_trio_is_found_where_both_are_loaded() -> None:  # noqa: ASYNC124 - to be run by trio
    from treestore.client.runtime import current_runtime
    from treestore.client.trio_runtime import TrioRuntime

    assert "asyncio" in sys.modules
    assert isinstance(current_runtime(), TrioRuntime)


def test_closing_at_any_moment_of_connecting_leaves_nothing_open() -> None:
    async def main() -> None:
        for turns in range(40):
            async with treestore.connect(scene.address, connections=3) as db:
                for _ in range(turns):
                    await asyncio.sleep(0)
                assert db.pool.pick() is not None
        await eventually(lambda: scene.listener.statistics().connections == 0)

    with served() as scene:
        run(main)
        gc.collect()  # An open socket would be complained about here.
