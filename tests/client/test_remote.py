"""The trio client against a real listener on loopback."""

import socket

import pytest
import trio
import trio.testing

from actors.wire import WireSettings
from protocol.limits import Limits
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import eventually, listening, only
from treestore.client import connect
from treestore.client.remote import parse_address
from treestore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    ResourceExhausted,
    SnapshotExpired,
    Unauthenticated,
    Unavailable,
)


def address_of(listener) -> str:
    return f"127.0.0.1:{listener.port}"


async def test_calls_give_what_an_embedded_store_gives() -> None:
    host = FakeHost()
    with trio.fail_after(10):
        async with listening(host) as listener, connect(address_of(listener)) as db:
            assert await db.kv.get(b"a") is None
            await db.kv.put(b"a", b"1")
            assert await db.kv.get(key=b"a") == b"1"
            await db.kv.batch(puts=[(b"b", b"2"), (b"c", b"3")], deletes=[b"a"])
            assert [item async for item in db.kv.scan()] == [(b"b", b"2"), (b"c", b"3")]
            assert await db.kv.delete(b"b") is True
            assert await db.kv.delete(b"b") is False
            assert "value of ``key``" in str(db.kv.get.__doc__)


async def test_wrong_calls_raise_what_a_function_would() -> None:
    with trio.fail_after(10):
        async with listening(FakeHost()) as listener, connect(address_of(listener)) as db:
            with pytest.raises(InvalidArgument, match="must not be empty"):
                await db.kv.get(b"")
            with pytest.raises(InvalidArgument, match="Expected `bytes`, got `int`"):
                await db.kv.get(5)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgument, match="cannot be sent"):
                await db.kv.get(object())  # type: ignore[arg-type]
            with pytest.raises(InvalidArgument, match="surrogate pair"):
                await db.documents.get_node("p", "\ud800")
            with pytest.raises(InvalidArgument, match="more than 64 bits"):
                await db.documents.get_nodes_by_page("p", 10**30)
            with pytest.raises(TypeError):
                await db.kv.get()  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="by name"):
                db.kv.scan(b"a")  # type: ignore[call-arg]
            assert await db.kv.get(b"a") is None


async def test_anything_that_can_be_gone_through_travels_as_a_list() -> None:
    with trio.fail_after(10):
        async with listening(FakeHost()) as listener, connect(address_of(listener)) as db:
            values = {b"a": b"1", b"b": b"2"}
            await db.kv.batch(puts=((key, value) for key, value in values.items()))  # type: ignore[arg-type]
            assert dict([item async for item in db.kv.scan()]) == values
            await db.kv.batch(deletes=values.keys())  # type: ignore[arg-type]
            assert [item async for item in db.kv.scan()] == []


async def test_errors_come_back_as_their_classes() -> None:
    host = FakeHost()
    with trio.fail_after(10):
        async with listening(host) as listener, connect(address_of(listener)) as db:
            host.fail_queries_with = NotFound("No such thing.", missing=["a"])
            with pytest.raises(NotFound, match="No such thing") as caught:
                await db.kv.get(b"a")
            assert caught.value.details == {"missing": ["a"]}
            host.fail_queries_with = NotFound("odd", bad=object(), text="\ud800")
            with pytest.raises(NotFound, match="odd"):
                await db.kv.get(b"a")


async def test_many_callers_share_few_connections() -> None:
    host = FakeHost()
    for number in range(500):
        host.put(b"%d" % number, b"%d" % number)
    got: dict[int, bytes | None] = {}
    with trio.fail_after(10):
        async with listening(host) as listener, connect(address_of(listener)) as db:

            async def read(number: int) -> None:
                got[number] = await db.kv.get(b"%d" % number)

            async with trio.open_nursery() as nursery:
                for number in range(500):
                    nursery.start_soon(read, number)
            assert got == {number: b"%d" % number for number in range(500)}
            assert listener.statistics().connections <= 2


async def test_what_the_body_raises_is_not_wrapped() -> None:
    with trio.fail_after(10):
        async with listening(FakeHost()) as listener:
            with pytest.raises(ZeroDivisionError) as caught:
                async with connect(address_of(listener)) as db:
                    await db.kv.get(b"a")
                    raise ZeroDivisionError
            assert caught.value.__context__ is None
            with pytest.RaisesGroup(KeyError):
                async with connect(address_of(listener)):
                    raise ExceptionGroup("mine", [KeyError()])
            with trio.move_on_after(0.02) as scope:
                async with connect(address_of(listener)):
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(0.02):
                    async with connect(address_of(listener)):
                        await trio.sleep_forever()


async def test_no_server_and_refusals() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with trio.fail_after(10):
        with pytest.raises(Unavailable):
            async with connect(f"127.0.0.1:{port}"):
                pass
        async with listening(FakeHost(), authenticate=only("right")) as listener:
            with pytest.raises(Unauthenticated):
                async with connect(address_of(listener), api_key="wrong"):
                    pass
            async with connect(address_of(listener), api_key="right") as db:
                await db.kv.get(b"a")
        settings = WireSettings(connections_max=1)
        async with (
            listening(FakeHost(), settings) as listener,
            connect(address_of(listener)) as db,  # Its second connection is refused.
        ):
            await db.kv.get(b"a")
            with pytest.raises(ResourceExhausted, match="connections"):
                async with connect(address_of(listener)):
                    pass


def test_addresses() -> None:
    assert parse_address("localhost:1") == ("localhost", 1)
    assert parse_address("[::1]:7707") == ("::1", 7707)
    for wrong in ("localhost", "localhost:", ":1", "h:99999", "h:x"):
        with pytest.raises(InvalidArgument, match="host:port"):
            parse_address(wrong)


# --- time ------------------------------------------------------------------------------------


async def test_a_query_without_answer_times_out_and_is_cancelled() -> None:
    host = FakeHost()
    host.cold_queries = True
    host.query_gate = trio.Event()
    with trio.fail_after(10):
        async with (
            listening(host) as listener,
            connect(address_of(listener), timeout=0.5, connections=1) as db,
        ):
            with pytest.raises(DeadlineExceeded):
                await db.kv.get(b"a")
            await eventually(lambda: listener.statistics().requests_in_flight == 0)
            host.query_gate.set()
            assert await db.kv.get(b"a") is None


async def test_a_command_that_was_not_begun_in_time_changed_nothing() -> None:
    host = FakeHost()
    host.hold_commands = True
    with trio.fail_after(10):
        async with (
            listening(host) as listener,
            connect(address_of(listener), timeout=0.05) as db,
        ):
            with pytest.raises(DeadlineExceeded, match="nothing was changed"):
                await db.kv.put(b"a", b"1")
            assert host.waiting == []


async def test_a_command_begun_and_not_answered_has_an_unknown_outcome(autojump_clock) -> None:
    """Over in-memory streams, so that the clock may jump."""
    from tests.client.memory_tools import memory_database

    host = FakeHost()
    host.hold_commands = True
    async with memory_database(host, timeout=5) as db, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def begin() -> None:
            while not host.waiting:  # noqa: ASYNC110 - the clock jumps
                await trio.sleep(0.1)
            host.waiting.clear()  # The writer began it, and is slow.

        began = trio.current_time()
        with pytest.raises(OutcomeUnknown):
            await db.kv.put(b"a", b"1")
        assert 5 <= trio.current_time() - began < 7


async def test_cancelling_a_call_cancels_the_request() -> None:
    host = FakeHost()
    host.hold_commands = True
    with trio.fail_after(10):
        async with listening(host) as listener, connect(address_of(listener)) as db:
            with trio.move_on_after(0.05) as scope:
                await db.kv.put(b"a", b"1")
            assert scope.cancelled_caught
            await eventually(lambda: host.waiting == [])
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(0.05):
                    await db.kv.put(b"a", b"1")
            host.hold_commands = False
            await db.kv.put(b"a", b"2")
            assert host.applied == ["kv.put"]


# --- streams and snapshots -------------------------------------------------------------------


async def test_a_long_scan_is_flow_controlled() -> None:
    host = FakeHost()
    for number in range(4000):
        host.put(b"%05d" % number, bytes(1000))
    with trio.fail_after(10):
        async with listening(host) as listener, connect(address_of(listener)) as db:
            count = 0
            async for _key, _value in db.kv.scan():
                count += 1
                if count == 100:
                    await trio.sleep(0.03)
                    assert host.streamed < 2000
            assert count == 4000
            await eventually(lambda: host.streams == 0)


async def test_a_scan_that_is_left_early_is_let_go_of() -> None:
    host = FakeHost()
    for number in range(4000):
        host.put(b"%05d" % number, bytes(1000))
    with trio.fail_after(10):
        async with listening(host) as listener, connect(address_of(listener)) as db:
            async for _ in db.kv.scan():
                break
            await eventually(lambda: host.streams == 0)
            async with db.kv.scan() as items:
                assert (await anext(items))[0] == b"00000"
                assert host.streams == 1
            await eventually(lambda: host.streams == 0)
            assert [item async for item in items] == []
            with trio.move_on_after(0.01):
                async for _ in db.kv.scan():
                    await trio.sleep_forever()
            await eventually(lambda: host.streams == 0)
            with pytest.raises(InvalidArgument):
                async for _ in db.kv.scan(limit=-1):
                    pass
            assert await db.kv.get(b"00000") == bytes(1000)


async def test_a_snapshot_keeps_its_state_and_reads_only() -> None:
    host = FakeHost()
    host.put(b"a", b"old")
    with trio.fail_after(10):
        async with listening(host) as listener, connect(address_of(listener)) as db:
            async with db.snapshot() as snapshot:
                await db.kv.put(b"a", b"new")
                assert await snapshot.kv.get(b"a") == b"old"
                assert [item async for item in snapshot.kv.scan()] == [(b"a", b"old")]
                with pytest.raises(InvalidArgument, match="only read"):
                    await snapshot.kv.put(b"a", b"")  # type: ignore[arg-type]
            with pytest.raises(SnapshotExpired):
                await snapshot.kv.get(b"a")
            await eventually(lambda: not host.snapshots)
            with pytest.raises(ZeroDivisionError):
                async with db.snapshot():
                    raise ZeroDivisionError
            await eventually(lambda: not host.snapshots)


async def test_snapshots_given_up_while_they_open_are_closed() -> None:
    """The server has opened it, and the answer finds nobody."""
    host = FakeHost()
    with trio.fail_after(10):
        async with (
            listening(host) as listener,
            connect(address_of(listener), connections=1) as db,
        ):

            async def open_one(stay: bool) -> None:
                async with db.snapshot():
                    if stay:
                        await trio.sleep_forever()

            for number in range(200):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(open_one, bool(number % 2))
                    for _ in range(number % 9):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
            await eventually(lambda: not host.snapshots)
            async with db.snapshot() as snapshot:
                assert await snapshot.kv.get(b"a") is None


async def test_long_values_both_ways() -> None:
    value = bytes(range(256)) * 30_000
    with trio.fail_after(20):
        async with listening(FakeHost()) as listener, connect(address_of(listener)) as db:
            await db.kv.put(b"long", value)
            assert await db.kv.get(b"long") == value
            assert [item async for item in db.kv.scan()] == [(b"long", value)]
    limits = WireSettings(limits=Limits(partial_messages_max=2, partial_size_bytes_max=20_000_000))
    with trio.fail_after(20):
        async with (
            listening(FakeHost(), limits) as listener,
            connect(address_of(listener), connections=1) as db,
        ):
            async with trio.open_nursery() as nursery:
                for number in range(6):  # Together more than may be half sent.
                    nursery.start_soon(db.kv.put, b"%d" % number, value)
            assert await db.kv.get(b"5") == value
            assert listener.statistics().connections_total == 1
            await eventually(lambda: listener.statistics().memory.used_bytes == 0)
    limits = WireSettings(limits=Limits(message_size_bytes_max=2_000_000))
    host = FakeHost()
    host.put(b"long", value)
    with trio.fail_after(20):
        async with listening(host, limits) as listener, connect(address_of(listener)) as db:
            with pytest.raises(ResourceExhausted, match="at most 2,000,000"):
                await db.kv.put(b"long", value)
            assert await db.kv.get(b"long") == value  # The client accepts more than the server.
