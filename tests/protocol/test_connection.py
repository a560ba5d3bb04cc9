import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.connection import ClientConnection, Fragments, ServerConnection
from protocol.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError
from protocol.frames import encode_frame
from protocol.limits import Limits
from protocol.messages import (
    Cancel,
    Credit,
    Failure,
    Goodbye,
    Hello,
    Part,
    Ping,
    Pong,
    Request,
    Response,
    StreamEnd,
    StreamItems,
    Welcome,
)
from protocol.outbox import Outbox

encode = msgspec.msgpack.encode
SMALL = Limits(
    frame_size_bytes_max=256,
    message_size_bytes_max=2000,
    partial_messages_max=3,
    partial_size_bytes_max=3000,
)


def frames_of(sent: bytes | Fragments) -> list[bytes]:
    return [sent] if isinstance(sent, bytes) else list(sent)


def open_pair(limits: Limits | None = None) -> tuple[ClientConnection, ServerConnection]:
    client, server = ClientConnection(Limits()), ServerConnection(limits or Limits())
    [hello] = server.receive_data(b"".join(frames_of(client.send(Hello(software="test")))))
    assert isinstance(hello, Hello)
    [welcome] = client.receive_data(server.welcome("server", 7))
    assert isinstance(welcome, Welcome)
    assert welcome.connection == 7
    return client, server


def test_hello_and_welcome_open_a_connection() -> None:
    client, server = open_pair(SMALL)
    assert client.peer_limits == SMALL
    request = Request(1, "kv.get", msgspec.Raw(encode({"key": b"k"})), 1000)
    [got] = server.receive_data(b"".join(frames_of(client.send(request))))
    assert got == request


ids = st.integers(1, 2**63 - 1)
raws = st.binary(max_size=60).map(lambda value: msgspec.Raw(encode(value)))
requests = st.one_of(
    st.builds(Request, ids, st.text(max_size=20), raws, st.none() | st.integers(0, 10**9)),
    st.builds(Credit, ids, st.integers(1, 2**40)),
    st.builds(Cancel, ids),
    st.builds(Ping, st.integers(0, 2**63 - 1)),
    st.builds(Goodbye, st.text(max_size=5), st.text(max_size=5)),
)
answers = st.one_of(
    st.builds(Response, ids, raws),
    st.builds(Failure, ids, st.text(max_size=9), st.text(max_size=9)),
    st.builds(StreamItems, ids, st.lists(raws, max_size=20)),
    st.builds(StreamEnd, ids),
    st.builds(Pong, st.integers(0, 2**63 - 1)),
)


def plain(messages: list[object]) -> list[bytes]:
    return [encode(message) for message in messages]


@given(
    st.lists(requests, max_size=10),
    st.lists(answers, max_size=10),
    st.lists(st.integers(1, 90), min_size=1, max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_messages_arrive_however_the_stream_is_cut(
    to_server: list, to_client: list, sizes: list[int]
) -> None:
    client, server = open_pair(SMALL)
    server.peer_limits = SMALL
    for sender, receiver, messages in ((client, server, to_server), (server, client, to_client)):
        stream = b"".join(b"".join(frames_of(sender.send(message))) for message in messages)
        received: list[object] = []
        position = turn = 0
        while position < len(stream):
            size = sizes[turn % len(sizes)]
            received += receiver.receive_data(stream[position : position + size])
            position += size
            turn += 1
        assert plain(received) == plain(messages)
        assert receiver.held_size_bytes == 0


@given(st.binary(max_size=300), st.booleans(), st.booleans())
@settings(max_examples=1000, deadline=None)
def test_arbitrary_bytes_raise_nothing_but_the_protocol_error(
    data: bytes, framed: bool, opened: bool
) -> None:
    client, server = open_pair()
    if not opened:
        client, server = ClientConnection(Limits()), ServerConnection(Limits())
    for connection in (client, server):
        try:
            connection.receive_data(encode_frame(data) if framed and data else data)
        except RemoteProtocolError:
            with pytest.raises(RemoteProtocolError, match="broke the rules"):
                connection.receive_data(b"")


nested = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=9)
    | st.text(max_size=9) | st.floats(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)  # fmt: skip


TAGS = [1, 2, 3, 4, 5, 6, 16, 17, 18, 19, 20, 21, 22]


@given(st.sampled_from(TAGS), st.lists(nested, max_size=7))
@settings(max_examples=1000, deadline=None)
def test_wrong_fields_raise_nothing_but_the_protocol_error(tag: int, fields: list) -> None:
    for connection in open_pair():
        try:
            connection.receive_data(encode_frame(encode([tag, *fields])))
        except RemoteProtocolError:
            pass


def broken_by(connection: ServerConnection, message: object) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        connection.receive_data(encode_frame(encode(message)))
    return str(caught.value)


def test_deep_nesting_is_the_peers_fault() -> None:
    _, server = open_pair()
    deep = b"\x94\x10\x01\xa1x" + b"\x91" * 100_000 + b"\x01"
    with pytest.raises(RemoteProtocolError, match="nested too deeply"):
        server.receive_data(encode_frame(deep))


def test_a_wrong_hello_is_refused() -> None:
    assert "'treestore'" in broken_by(ServerConnection(Limits()), [1, "http", 1])
    assert "version 9" in broken_by(ServerConnection(Limits()), [1, "treestore", 9])
    assert "broke the rules" in broken_by(ServerConnection(Limits()), [16, 1, "kv.get"])
    message = broken_by(ServerConnection(Limits()), [1, "treestore", 1, None, b"short"])
    assert "length" in message


def test_nothing_may_follow_a_hello_before_its_answer() -> None:
    server = ServerConnection(Limits())
    hello = encode_frame(encode(Hello()))
    with pytest.raises(RemoteProtocolError) as caught:
        server.receive_data(hello + encode_frame(encode(Ping())))
    assert [type(message) for message in caught.value.messages] == [Hello]


def test_before_the_welcome_frames_are_short() -> None:
    server = ServerConnection(Limits())
    with pytest.raises(RemoteProtocolError, match="65,537 bytes"):
        server.receive_data((64 * 1024 + 1).to_bytes(4, "big"))


def test_messages_before_a_fault_are_kept() -> None:
    _, server = open_pair()
    with pytest.raises(RemoteProtocolError) as caught:
        server.receive_data(encode_frame(encode(Ping(5))) + encode_frame(b"\xc1"))
    assert caught.value.messages == [Ping(5)]


def test_a_long_message_travels_in_parts_between_others() -> None:
    client, server = open_pair(SMALL)
    outbox = Outbox()
    long = Request(1, "kv.put", msgspec.Raw(encode(bytes(1500))))
    sent = client.send(long)
    assert isinstance(sent, Fragments)
    outbox.append(sent, 1)
    seen: list[object] = []
    turn = 0
    while outbox:
        turn += 1
        outbox.append(frames_of(client.send(Ping(turn)))[0])
        taken = outbox.take()
        assert len(taken) < 300
        seen += server.receive_data(taken)
    assert outbox.size_bytes == 0
    assert [type(message) for message in seen[:5]] == [Ping] * 5
    assert encode(seen[-1]) == encode(long)
    assert server.partial_size_bytes == 0


def test_what_follows_a_long_message_of_a_stream_stays_behind_it() -> None:
    client, server = open_pair(SMALL)
    server.peer_limits = SMALL
    outbox = Outbox()
    outbox.append(server.send(StreamItems(3, [msgspec.Raw(encode(bytes(900)))])), 3)
    outbox.append(server.send(StreamEnd(3)), 3)
    outbox.append(server.send(Response(4)), 4)
    kinds: list[type] = []
    while outbox:
        kinds += [type(message) for message in client.receive_data(outbox.take())]
    assert kinds == [Response, StreamItems, StreamEnd]


def test_no_more_is_half_sent_than_the_peer_accepts() -> None:
    """Ten long messages at once, of which the peer takes two at a time."""
    client, server = open_pair(SMALL)
    outbox = Outbox(SMALL)
    for number in range(1, 11):
        params = msgspec.Raw(encode(bytes(1200)))
        outbox.append(client.send(Request(number, "kv.put", params)), number)
        if number % 3 == 0:
            outbox.append(client.send(Cancel(number)), number)
    seen: list[object] = []
    while outbox:
        seen += server.receive_data(outbox.take())
    assert outbox.size_bytes == 0
    order = [(type(message), message.id) for message in seen]  # type: ignore[attr-defined]
    assert sorted(number for kind, number in order if kind is Request) == list(range(1, 11))
    for number in (3, 6, 9):
        assert order.index((Request, number)) < order.index((Cancel, number))


def test_a_message_too_long_for_the_peer_is_not_sent() -> None:
    client, _ = open_pair(SMALL)
    with pytest.raises(MessageTooLarge, match="at most 2,000"):
        client.send(Request(1, "kv.put", msgspec.Raw(encode(bytes(3000)))))


def test_a_message_that_grows_too_long_is_refused() -> None:
    _, server = open_pair(SMALL)
    for _ in range(10):
        assert (
            server.receive_data(encode_frame(encode(Part(1, False, memoryview(bytes(200)))))) == []
        )
    assert "longer than 2,000" in broken_by(server, Part(1, False, memoryview(b"x")))
    assert server.held_size_bytes == 0


def test_half_sent_messages_are_bounded_in_number_and_bytes() -> None:
    _, server = open_pair(SMALL)
    for number in (1, 2, 3):
        server.receive_data(encode_frame(encode(Part(number, False, memoryview(b"x")))))
    assert "more than 3 messages" in broken_by(server, Part(4, False, memoryview(b"x")))

    _, server = open_pair(SMALL)
    for number in (1, 2):
        for _ in range(7):
            server.receive_data(encode_frame(encode(Part(number, False, memoryview(bytes(200))))))
    server.receive_data(encode_frame(encode(Part(3, False, memoryview(bytes(200))))))
    assert "more than 3,000 bytes" in broken_by(server, Part(3, False, memoryview(b"x")))


def test_parts_cannot_hide_what_a_frame_must_not_hold() -> None:
    _, server = open_pair()
    assert "another part" in broken_by(
        server, Part(1, True, memoryview(encode(Part(2, True, memoryview(b"x")))))
    )
    _, server = open_pair()
    assert "broke the rules" in broken_by(server, Part(1, True, memoryview(encode(Hello()))))
    _, server = open_pair()
    assert "broke the rules" in broken_by(server, Part(1, False, memoryview(b"")))


def test_an_end_in_the_middle_is_a_fault() -> None:
    _, server = open_pair()
    server.receive_data(b"\0")
    with pytest.raises(RemoteProtocolError):
        server.receive_eof()
    _, server = open_pair()
    server.receive_eof()


def test_wrong_use_is_our_own_fault() -> None:
    client, server = ClientConnection(Limits()), ServerConnection(Limits())
    with pytest.raises(LocalProtocolError):
        client.send(Ping())
    with pytest.raises(LocalProtocolError):
        server.send(Response(1))
    with pytest.raises(LocalProtocolError):
        server.welcome("early", 1)
    client.send(Hello())
    with pytest.raises(LocalProtocolError):
        client.send(Hello())


def test_a_refused_client_is_told_why() -> None:
    client, server = ClientConnection(Limits()), ServerConnection(Limits())
    server.receive_data(b"".join(frames_of(client.send(Hello()))))
    [goodbye] = client.receive_data(server.refuse("unauthenticated", "No."))
    assert goodbye == Goodbye("unauthenticated", "No.")


def test_new_fields_at_the_end_are_ignored_and_missing_ones_filled_in() -> None:
    _, server = open_pair()
    known = [16, 1, "kv.get", {}, None, None, None, 0, None, None]
    [request] = server.receive_data(encode_frame(encode([*known, "new", {"more": 1}])))
    assert isinstance(request, Request)
    [request] = server.receive_data(encode_frame(encode([16, 2, "kv.get"])))
    assert request == Request(2, "kv.get")


@given(ids, st.sampled_from([0, 10, 16_360, 16_384, 70_000, 2**20 + 1]))
@settings(max_examples=100, deadline=None)
def test_a_response_put_together_by_hand_is_the_encoders(number: int, size: int) -> None:
    client, server = open_pair()
    result = encode(bytes(size))
    by_hand = b"".join(frames_of(server.send_response(number, result)))
    _, other = open_pair()
    assert by_hand == b"".join(frames_of(other.send(Response(number, msgspec.Raw(result)))))
    for chunk in (len(by_hand), 50_000):
        received = []
        for start in range(0, len(by_hand), chunk):
            received += client.receive_data(by_hand[start : start + chunk])
        [response] = received
        assert type(response) is Response
        assert response.id == number
        assert msgspec.msgpack.decode(response.result) == bytes(size)
        assert client.missing_size_bytes == 0


def test_a_response_too_long_for_the_peer_is_not_sent() -> None:
    _, server = open_pair()
    server.peer_limits = SMALL
    with pytest.raises(MessageTooLarge):
        server.send_response(1, encode(bytes(3000)))


def test_a_long_response_with_a_wrong_id_is_a_fault() -> None:
    client, _ = open_pair()
    with pytest.raises(RemoteProtocolError, match="cannot be read"):
        client.receive_data(encode_frame(b"\x93\x11\xd0" + bytes(20_000)))
    _, server = open_pair()
    with pytest.raises(RemoteProtocolError, match="cannot be read"):
        server.receive_data(encode_frame(b"\x93\x11\x01" + encode(bytes(20_000))))
