"""A session does what its client asks."""

import msgspec
import pytest
import trio

from actors.session import Session
from actors.wire import WireSettings
from protocol.limits import Limits
from protocol.messages import (
    Cancel,
    Credit,
    Failure,
    Goodbye,
    Ping,
    Pong,
    Response,
    StreamEnd,
    StreamItems,
)
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import RawClient, decode, eventually, listening, raw_client

LIMITS = WireSettings(limits=Limits(requests_max=4, streams_max=2, snapshots_max=2))


async def test_queries_and_commands_are_answered() -> None:
    host = FakeHost()
    with trio.fail_after(10):
        async with listening(host) as listener, raw_client(listener) as client:
            assert await client.call("kv.put", key=b"a", value=b"1") == Response(1)
            answer = await client.call("kv.get", key=b"a")
            assert decode(answer.result) == b"1"
            host.cold_queries = True
            answer = await client.call("kv.get", key=b"a")
            assert decode(answer.result) == b"1"
            await client.send(Ping(42))
            assert await client.receive() == Pong(42)
            statistics = listener.statistics()
            assert statistics.requests == 3
            assert statistics.connections == 1
            assert statistics.requests_in_flight == 0


@pytest.mark.parametrize(
    ("method", "params", "code", "text"),
    [
        ("kv.gett", {}, "invalid_argument", "kv.get"),
        ("nothing", {}, "invalid_argument", "Services: "),
        ("kv.get", {"key": 5}, "invalid_argument", "Expected `bytes`, got `int`"),
        ("kv.get", {"kei": b"x"}, "invalid_argument", "unknown field `kei`"),
        ("kv.get", {}, "invalid_argument", "missing required field `key`"),
        ("kv.get", {"key": b""}, "invalid_argument", "must not be empty"),
        ("kv.put", {"key": b"", "value": b""}, "invalid_argument", "must not be empty"),
        ("session.close_snapshot", {"snapshot": "x"}, "invalid_argument", "Expected `int`"),
    ],
)
async def test_wrong_requests_are_told_why(method, params, code, text) -> None:
    with trio.fail_after(10):
        async with listening(FakeHost()) as listener, raw_client(listener) as client:
            failure = await client.call(method, **params)
            assert isinstance(failure, Failure)
            assert failure.code == code
            assert text in failure.message
            assert (await client.call("kv.get", key=b"x")) == Response(client.last_id)
            assert listener.statistics().errors == {code: 1}


async def test_a_fault_of_the_server_is_internal_and_harms_nobody(capsys, caplog) -> None:
    host = FakeHost()
    with trio.fail_after(10):
        async with listening(host) as listener, raw_client(listener) as client:
            host.fail_queries_with = ZeroDivisionError("secret")
            failure = await client.call("kv.get", key=b"x")
            assert failure.code == "internal"
            assert "secret" not in failure.message
            host.fail_queries_with = None
            assert isinstance(await client.call("kv.get", key=b"x"), Response)
    # It is told in the log, be that structlog's, which some other test set up, or Python's own.
    assert "secret" in capsys.readouterr().out + caplog.text


async def test_a_crashing_session_leaves_the_listener_alone(monkeypatch) -> None:
    async def crash(self: Session, messages: list) -> None:  # noqa: ASYNC124
        raise ZeroDivisionError

    with trio.fail_after(10):
        async with listening(FakeHost()) as listener, raw_client(listener) as client:
            with monkeypatch.context() as patched:
                patched.setattr(Session, "_handle", crash)
                goodbye = await client.call("kv.get", key=b"x")
                assert isinstance(goodbye, Goodbye)
                assert goodbye.code == "internal"
            async with raw_client(listener) as other:
                assert isinstance(await other.call("kv.get", key=b"x"), Response)


async def test_many_requests_in_one_write_are_all_answered() -> None:
    host = FakeHost()
    host.put(b"k", b"v")
    with trio.fail_after(10):
        async with listening(host) as listener, raw_client(listener) as client:
            for _ in range(3000):
                await client.request("kv.get", key=b"k")
            answers = [await client.receive() for _ in range(3000)]
            assert [answer.id for answer in answers] == list(range(1, 3001))


async def test_requests_in_flight_are_bounded_by_not_reading() -> None:
    host = FakeHost()
    host.hold_commands = True
    with trio.fail_after(10):
        async with listening(host, LIMITS) as listener, raw_client(listener) as client:
            for number in range(10):
                await client.request("kv.put", key=b"%d" % number, value=b"")
            await eventually(lambda: len(host.waiting) == 4)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert len(host.waiting) == 4
            assert listener.statistics().requests_in_flight == 4
            host.hold_commands = False
            host.run_commands()
            assert {(await client.receive()).id for _ in range(10)} == set(range(1, 11))


async def test_commands_wait_in_order_for_a_full_mailbox() -> None:
    host = FakeHost()
    host.hold_commands = True
    host.mailbox_max = 2
    with trio.fail_after(10):
        async with listening(host) as listener, raw_client(listener) as client:
            for number in range(6):
                await client.request("kv.put", key=b"%d" % number, value=b"")
            await eventually(lambda: listener.statistics().requests_in_flight == 6)
            await client.send(Cancel(4))  # Still in the backlog.
            assert (await client.receive()).code == "deadline_exceeded"
            for expected in (2, 2, 1):
                await eventually(lambda: bool(host.waiting))
                assert len(host.waiting) == expected
                host.run_commands()
            assert [(await client.receive()).id for _ in range(5)] == [1, 2, 3, 5, 6]
            assert b"\x013" not in host.data


async def test_a_command_not_begun_is_cancelled_and_one_begun_is_answered() -> None:
    host = FakeHost()
    host.hold_commands = True
    with trio.fail_after(10):
        async with listening(host) as listener, raw_client(listener) as client:
            first = await client.request("kv.put", key=b"a", value=b"")
            second = await client.request("kv.put", key=b"b", value=b"")
            await eventually(lambda: len(host.waiting) == 2)
            await client.send(Cancel(second))
            failure = await client.receive()
            assert (failure.id, failure.code) == (second, "deadline_exceeded")
            begun = host.waiting.pop(0)
            await client.send(Cancel(first), Ping(1))
            assert await client.receive() == Pong(1)
            begun.done(b"\xc0")
            assert await client.receive() == Response(first)
            await client.send(Cancel(999), Cancel(first), Ping(2))
            assert await client.receive() == Pong(2)


async def test_a_disconnect_takes_back_what_was_not_begun_and_frees_everything() -> None:
    host = FakeHost()
    host.hold_commands = True
    host.query_gate = trio.Event()
    with trio.fail_after(10):
        async with listening(host) as listener:
            async with raw_client(listener) as client:
                await client.call("session.open_snapshot")
                await client.request("kv.put", key=b"a", value=b"")
                await client.request("kv.scan")
                host.cold_queries = True
                await client.request("kv.get", key=b"a")
                await eventually(lambda: listener.statistics().requests_in_flight == 3)
                begun = host.waiting[0]
                assert len(host.snapshots) == 1
            await eventually(lambda: listener.statistics().connections == 0)
            begun.done(b"\xc0")  # A late answer is dropped.
            statistics = listener.statistics()
            assert (statistics.requests_in_flight, statistics.streams) == (0, 0)
            assert statistics.snapshots == len(host.snapshots) == host.streams == 0
            assert statistics.memory.used_bytes == 0
            assert host.waiting == []


async def test_deadlines_and_cancel_end_a_slow_query() -> None:
    host = FakeHost()
    host.cold_queries = True
    host.query_gate = trio.Event()
    with trio.fail_after(10):
        async with listening(host) as listener, raw_client(listener) as client:
            failure = await client.call("kv.get", fields={"deadline_ms": 20}, key=b"a")
            assert failure.code == "deadline_exceeded"
            number = await client.request("kv.get", key=b"a")
            await client.send(Cancel(number))
            failure = await client.receive()
            assert (failure.id, failure.code) == (number, "deadline_exceeded")


async def test_a_request_number_in_flight_cannot_be_used_again() -> None:
    host = FakeHost()
    host.hold_commands = True
    with trio.fail_after(10):
        async with listening(host) as listener, raw_client(listener) as client:
            await client.request("kv.put", key=b"a", value=b"")
            client.last_id = 0
            goodbye = await client.call("kv.put", key=b"a", value=b"")
            assert goodbye.code == "protocol_error"
            assert "in flight already" in goodbye.message


# --- snapshots and streams -------------------------------------------------------------------


async def test_a_snapshot_keeps_its_state() -> None:
    host = FakeHost()
    host.put(b"a", b"old")
    with trio.fail_after(10):
        async with listening(host, LIMITS) as listener, raw_client(listener) as client:
            opened = decode((await client.call("session.open_snapshot")).result)
            await client.call("kv.put", key=b"a", value=b"new")
            fields = {"snapshot": opened["snapshot"]}
            answer = await client.call("kv.get", fields=fields, key=b"a")
            assert decode(answer.result) == b"old"
            failure = await client.call("kv.put", fields=fields, key=b"a", value=b"")
            assert failure.code == "invalid_argument"
            await client.call("session.open_snapshot")
            failure = await client.call("session.open_snapshot")
            assert failure.code == "resource_exhausted"
            for closed in (True, False):
                answer = await client.call("session.close_snapshot", **fields)
                assert decode(answer.result) is closed
            failure = await client.call("kv.get", fields=fields, key=b"a")
            assert failure.code == "snapshot_expired"


async def scan_items(client: RawClient) -> StreamItems:
    message = await client.receive()
    assert isinstance(message, StreamItems)
    return message


async def test_a_stream_sends_what_it_has_credit_for() -> None:
    host = FakeHost()
    for number in range(100):
        host.put(b"%03d" % number, bytes(100))
    with trio.fail_after(10):
        async with listening(host) as listener, raw_client(listener) as client:
            number = await client.request("kv.scan")
            await client.send(Ping(1))
            assert await client.receive() == Pong(1)  # No credit, no items.
            await client.send(Credit(number, 1000))
            first = await scan_items(client)
            size = sum(len(bytes(item)) for item in first.items)
            assert 1000 <= size < 1200
            await client.send(Credit(number, 10**6))
            count = len(first.items)
            while isinstance(message := await client.receive(), StreamItems):
                count += len(message.items)
            assert message == StreamEnd(number)
            assert count == 100
            assert host.streams == 0


async def test_a_stream_is_cancelled_and_streams_are_bounded() -> None:
    host = FakeHost()
    with trio.fail_after(10):
        async with listening(host, LIMITS) as listener, raw_client(listener) as client:
            first = await client.request("kv.scan")
            await client.request("kv.scan")
            failure = await client.call("kv.scan")
            assert failure.code == "resource_exhausted"
            await client.send(Cancel(first))
            failure = await client.receive()
            assert (failure.id, failure.code) == (first, "deadline_exceeded")
            assert host.streams == 1
            third = await client.request("kv.scan")
            await client.send(Credit(third, 1))
            assert await client.receive() == StreamEnd(third)


async def test_long_values_travel_both_ways_while_others_are_served() -> None:
    host = FakeHost()
    value = bytes(range(256)) * 20_000
    with trio.fail_after(20):
        async with listening(host) as listener, raw_client(listener) as client:
            assert await client.call("kv.put", key=b"long", value=value) == Response(1)
            long = await client.request("kv.get", key=b"long")
            short = await client.request("kv.get", key=b"none")
            assert (await client.receive()).id == short  # It overtakes.
            answer = await client.receive()
            assert answer.id == long
            assert decode(answer.result) == value
            number = await client.request("kv.scan")
            await client.send(Credit(number, 1))
            [item] = (await scan_items(client)).items
            assert msgspec.msgpack.decode(item)[1] == value
            await client.send(Credit(number, len(value) + 100))
            assert await client.receive() == StreamEnd(number)


# --- stopping --------------------------------------------------------------------------------


async def test_a_graceful_stop_lets_requests_in_flight_finish() -> None:
    host = FakeHost()
    host.hold_commands = True
    with trio.fail_after(10):
        async with listening(host) as listener, raw_client(listener) as client:
            async with raw_client(listener) as idle:
                await client.request("kv.put", key=b"a", value=b"")
                await eventually(lambda: len(host.waiting) == 1)
                listener.stop()
                goodbye = await idle.receive()
                assert isinstance(goodbye, Goodbye)
                assert goodbye.code == "unavailable"
                assert await idle.receive() is None
            assert isinstance(await client.receive(), Goodbye)
            refused = await client.call("kv.put", key=b"b", value=b"")
            assert refused.details == {"not_begun": True}
            with pytest.raises(OSError, match="127"):
                await trio.open_tcp_stream("127.0.0.1", listener.port)
            host.run_commands()
            assert await client.receive() == Response(1)
            assert await client.receive() is None


async def test_a_stop_does_not_wait_for_who_has_not_said_hello() -> None:
    with trio.fail_after(30):
        async with (
            listening(FakeHost(), WireSettings(hello_timeout_s=1000)) as listener,
            raw_client(listener, hello=False) as silent,
        ):
            await eventually(lambda: listener.statistics().connections == 1)
            listener.stop()
            received = b"".join([part async for part in silent.stream])
            assert b"unavailable" in received


async def test_a_graceful_stop_ends_after_its_grace() -> None:
    host = FakeHost()
    host.hold_commands = True
    settings = WireSettings(grace_s=0.05)
    with trio.fail_after(10):
        async with listening(host, settings) as listener, raw_client(listener) as client:
            await client.request("kv.put", key=b"a", value=b"")
            await eventually(lambda: len(host.waiting) == 1)
            listener.stop()
            assert isinstance(await client.receive(), Goodbye)
            assert await client.receive() is None
            assert host.waiting == []
