"""Peers that break the rules, dawdle or die harm nobody but themselves."""

import socket

import attrs
import pytest
import trio
import trio.testing

from actors.wire import WireSettings
from protocol.frames import encode_frame
from protocol.limits import Limits
from protocol.messages import Goodbye, Part, Ping, Response, Welcome
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import RawClient, encode, eventually, listening, only, raw_client

SETTINGS = WireSettings(
    hello_timeout_s=0.08,
    keep_alive_interval_s=0.04,
    keep_alive_timeout_s=0.2,
    write_timeout_s=0.08,
    partial_timeout_s=0.08,
    output_pause_size_bytes=100_000,
    memory_size_bytes_max=3 * 2**20,
    connections_max=3,
)


async def served(client: RawClient) -> None:
    """Another client is still being served."""
    message = await client.call("kv.get", key=b"x")
    while isinstance(message, Ping):
        message = await client.receive()
    assert isinstance(message, Response)


async def last_words(client: RawClient) -> Goodbye:
    """What the server says before it closes."""
    goodbye = None
    while (message := await client.receive()) is not None:
        if isinstance(message, Goodbye):
            goodbye = message
    assert goodbye is not None
    return goodbye


# Deep nesting where a future version's fields would be: it must be skipped without harm.
DEEP_HELLO = b"\x98" + encode([1, "treestore", 1, None, bytes(16), 0, ""])[1:] + b"\x91" * 60_000
DEEP_PING = b"\x93\x04\x01" + b"\x91" * 500_000
HELLO = encode_frame(encode([1, "treestore", 1]))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "was announced", id="http"),
        pytest.param(b"\xff" * 10_000, "was announced", id="garbage"),
        pytest.param(bytes(100), "length 0", id="zeros"),
        pytest.param(encode_frame(b"\xc1"), "cannot be read", id="no-msgpack"),
        pytest.param(encode_frame(encode([1, "x", 1])), "does not begin", id="magic"),
        pytest.param(encode_frame(encode([1, "treestore", 2])), "version 2", id="version"),
        pytest.param(encode_frame(encode([16, 1, "kv.get"])), "cannot be read", id="no-hello"),
        pytest.param(encode_frame(DEEP_HELLO), "nested too deeply", id="deep-hello"),
        pytest.param(HELLO + HELLO, "before its hello was answered", id="eager"),
    ],
)
async def test_a_wrong_hello_ends_only_its_connection(data: bytes, text: str) -> None:
    with trio.fail_after(10):
        async with listening(FakeHost()) as listener, raw_client(listener) as other:
            async with raw_client(listener, hello=False) as client:
                await client.stream.send_all(data)
                client.protocol._hello_sent = True
                goodbye = await last_words(client)
                assert goodbye.code == "protocol_error"
                assert text in goodbye.message
            await served(other)
            assert listener.statistics().errors["protocol_error"] == 1


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param((2**20 + 1).to_bytes(4, "big"), "1,048,577 bytes", id="oversize"),
        pytest.param(b"\xff" * 5000, "was announced", id="garbage"),
        pytest.param(encode_frame(DEEP_PING), "nested too deeply", id="deep"),
        pytest.param(
            encode_frame(b"\x94\x10\x01\xa6kv.get" + b"\x91" * 500_000 + b"\x01"),
            "nested too deeply",
            id="deep-parameters",
        ),
        pytest.param(encode_frame(encode([17, 1, None])), "cannot be read", id="an-answer"),
        pytest.param(encode_frame(encode([16, -1, "kv.get"])), "cannot be read", id="negative"),
        pytest.param(encode_frame(encode([16, 2**70 // 2**7, "x"])), "cannot be read", id="large"),
    ],
)
async def test_a_broken_message_ends_only_its_connection(data: bytes, text: str) -> None:
    with trio.fail_after(10):
        async with listening(FakeHost()) as listener, raw_client(listener) as other:
            async with raw_client(listener) as client:
                await client.stream.send_all(data)
                goodbye = await last_words(client)
                assert goodbye.code == "protocol_error"
                assert text in goodbye.message
            await served(other)


async def test_what_came_before_the_fault_is_still_answered() -> None:
    with trio.fail_after(10):
        async with listening(FakeHost()) as listener, raw_client(listener) as client:
            request = encode_frame(encode([16, 1, "kv.get", {"key": b"x"}]))
            await client.stream.send_all(request + encode_frame(b"\xc1"))
            assert await client.receive() == Response(1)
            assert isinstance(await client.receive(), Goodbye)


async def test_a_connection_without_a_hello_is_closed() -> None:
    with trio.fail_after(10):
        async with listening(FakeHost(), SETTINGS) as listener, raw_client(listener) as other:
            async with raw_client(listener, hello=False) as client:
                await client.stream.send_all(b"\0")
                client.protocol._hello_sent = True
                assert "No hello" in (await last_words(client)).message
            await served(other)


async def test_the_connection_limit_is_told() -> None:
    with trio.fail_after(10):
        async with listening(FakeHost(), SETTINGS) as listener:
            async with (
                raw_client(listener) as first,
                raw_client(listener),
                raw_client(listener),
                raw_client(listener, hello=False) as refused,
            ):
                goodbye = await refused.hello()
                assert isinstance(goodbye, Goodbye)
                assert goodbye.code == "resource_exhausted"
                await served(first)
            assert listener.statistics().connections_refused == 1
            await eventually(lambda: listener.statistics().connections == 0)
            async with raw_client(listener) as client:
                await served(client)


async def test_an_api_key_is_checked() -> None:
    with trio.fail_after(10):
        async with listening(FakeHost(), authenticate=only("right")) as listener:
            for key, code in ((None, "unauthenticated"), ("wrong", "unauthenticated")):
                async with raw_client(listener, hello=False) as client:
                    goodbye = await client.hello(api_key=key)
                    assert isinstance(goodbye, Goodbye)
                    assert goodbye.code == code
                    assert await client.receive() is None
            async with raw_client(listener, hello=False) as client:
                assert isinstance(await client.hello(api_key="right"), Welcome)


def shrink_buffers(client: RawClient) -> None:
    assert isinstance(client.stream, trio.SocketStream)
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)


async def test_a_client_that_does_not_read_is_paused_and_then_closed() -> None:
    host = FakeHost()
    host.put(b"k", bytes(20_000))
    request = encode_frame(encode([16, 1, "kv.get", {"key": b"k"}]))
    with trio.fail_after(20):
        async with listening(host, SETTINGS) as listener, raw_client(listener) as other:
            async with raw_client(listener) as client:
                shrink_buffers(client)
                with pytest.raises((trio.BrokenResourceError, trio.TooSlowError)):
                    with trio.fail_after(5):
                        while True:
                            await client.stream.send_all(request * 1000)
                            await served(other)
                assert listener.statistics().memory.used_bytes_peak < 3 * 2**20
            await eventually(lambda: listener.statistics().connections == 1)
            await served(other)
            assert listener.statistics().memory.used_bytes == 0


async def test_many_long_answers_asked_for_at_once_wait_for_the_client() -> None:
    """One read holds hundreds of requests; they must not take the memory of other clients."""
    host = FakeHost()
    host.put(b"k", bytes(100_000))
    request = encode_frame(encode([16, 1, "kv.get", {"key": b"k"}]))
    settings = attrs.evolve(SETTINGS, memory_size_bytes_max=4 * 2**20, write_timeout_s=10.0)
    with trio.fail_after(20):
        async with (
            listening(host, settings) as listener,
            raw_client(listener) as other,
            raw_client(listener) as client,
        ):
            shrink_buffers(client)
            await client.stream.send_all(request * 500)
            await eventually(lambda: listener.statistics().memory.used_bytes > 0)
            for _ in range(20):
                await served(other)
            memory = listener.statistics().memory
            assert memory.refusals == 0
            assert memory.used_bytes_peak < 2 * 2**20
            assert isinstance(await client.receive(), Response)


async def test_a_silent_client_is_pinged_and_then_closed() -> None:
    with trio.fail_after(10):
        async with listening(FakeHost(), SETTINGS) as listener, raw_client(listener) as client:
            assert isinstance(await client.receive(), Ping)
            goodbye = await last_words(client)
            assert "Nothing came" in goodbye.message


async def test_a_client_that_answers_pings_stays() -> None:
    from protocol.messages import Pong

    with trio.fail_after(10):
        async with listening(FakeHost(), SETTINGS) as listener, raw_client(listener) as client:
            for _ in range(8):
                ping = await client.receive()
                assert isinstance(ping, Ping)
                await client.send(Pong(ping.token))
            await served(client)


async def test_half_sent_messages_are_closed_after_a_while() -> None:
    with trio.fail_after(10):
        async with listening(FakeHost(), SETTINGS) as listener, raw_client(listener) as client:
            await client.send(Part(1, False, memoryview(b"x")))
            assert "not finished" in (await last_words(client)).message


async def test_half_sent_messages_cannot_take_all_memory() -> None:
    """Three times the budget, in many partial messages on several connections."""
    with trio.fail_after(20):
        async with listening(FakeHost(), SETTINGS) as listener:
            refused = 0
            async with raw_client(listener) as other:
                async with raw_client(listener) as first, raw_client(listener) as second:
                    for client in (first, second):
                        try:
                            for number in range(1, 10):
                                await client.send(Part(number, False, memoryview(bytes(500_000))))
                                await served(other)
                        except trio.BrokenResourceError:
                            refused += 1
                            continue
                        if (await last_words(client)).code in (
                            "resource_exhausted",
                            "deadline_exceeded",
                        ):
                            refused += 1
                assert refused == 2
                assert listener.statistics().memory.used_bytes_peak <= 3 * 2**20
                await eventually(lambda: listener.statistics().connections == 1)
                assert listener.statistics().memory.used_bytes == 0


async def test_one_connection_cannot_hold_more_than_its_share() -> None:
    limits = Limits(partial_messages_max=4, partial_size_bytes_max=1000)
    with trio.fail_after(10):
        async with (
            listening(FakeHost(), WireSettings(limits=limits)) as listener,
            raw_client(listener) as client,
        ):
            await client.send(*(Part(number, False, memoryview(b"x")) for number in range(1, 6)))
            assert "more than 4 messages" in (await last_words(client)).message


async def test_a_reset_in_the_middle_of_everything() -> None:
    host = FakeHost()
    host.put(b"k", bytes(3_000_000))
    with trio.fail_after(10):
        async with listening(host) as listener, raw_client(listener) as other:
            for _ in range(10):
                stream = await trio.open_tcp_stream("127.0.0.1", listener.port)
                client = RawClient(stream)
                await client.hello()
                await client.request("kv.get", key=b"k")
                await client.request("kv.scan")
                linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])  # Closing resets the connection.
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                await stream.aclose()
                await served(other)
            await eventually(lambda: listener.statistics().connections == 1)
            assert listener.statistics().memory.used_bytes == 0
            assert host.streams == 0
