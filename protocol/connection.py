"""The two ends of a connection as state machines. No sockets, no clock, no tasks.

Rules
    1. The client speaks first, with one `Hello`, in one frame of at most
       ``hello_frame_size_bytes_max``. It sends nothing more until it has the `Welcome`.
    2. The server answers with `Welcome`, or with `Goodbye` and the end of the connection.
    3. From then on each side may send, at any time, the kinds of `ToServer` or `ToClient`.
    4. A message longer than a frame is sent as `Part` frames; other messages may come between
       them. Half-sent messages are bounded in number and in bytes, all together.
    5. A peer that breaks a rule is told so once (`Goodbye` with ``protocol_error``); nothing that
       it sends afterwards is read.

Use
    ``receive_data(chunk)`` returns the messages that the chunk completed. ``send(message)`` returns
    what must be written: `bytes`, or `Fragments` for a long message, whose frames the caller may
    mix with others. Faults of the peer are `RemoteProtocolError`, our own `LocalProtocolError`.

Cost
    One small request takes about 1 µs here; bytes are copied at most twice.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from protocol import codes
from protocol.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError
from protocol.frames import FrameDecoder, encode_frame
from protocol.limits import HEADER_SIZE_BYTES, PROTOCOL_MAGIC, PROTOCOL_VERSION, Limits
from protocol.messages import (
    Goodbye,
    Hello,
    Message,
    Part,
    Response,
    ToClient,
    ToServer,
    Welcome,
    WelcomeOrGoodbye,
)

_PART_OVERHEAD_BYTES = 32
"""More than a `Part` adds around its data: array, tag, number, flag and the data's length."""

_encode = msgspec.msgpack.Encoder().encode

_RESPONSE_HEAD = b"\x93\x11"
"""A `Response` up to its id: an array of three whose first item is the tag."""


_ID_SIZES = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


def _large_response(frame: bytes | memoryview) -> Response:
    """A `Response` without a look at its result.

    The decoder would go through all of the result to find where it ends (50 µs for 600 nodes).
    It ends where the frame does; whoever decodes it finds out whether that is so.
    """
    after = 3
    number = frame[2]
    size = _ID_SIZES.get(number)
    if size is not None:
        after += size
        number = int.from_bytes(frame[3:after], "big")
    elif number > 0x7F:
        raise ValueError("the id of a response is no positive integer")
    return Response(number, msgspec.Raw(frame[after:]))


class State(enum.Enum):
    """Where a connection is in its life."""

    HELLO = "hello"
    """Waiting for the peer's first message."""
    AUTHENTICATING = "authenticating"
    """Server only: the hello is here, the answer is not sent."""
    OPEN = "open"
    CLOSED = "closed"
    """A rule was broken or the end was agreed; nothing more is read."""


class Fragments:
    """A long message on its way out, as an iterator of frames; they are made one at a time."""

    __slots__ = ("_frame_data_bytes", "_message", "_payload", "_position")

    def __init__(self, message: int, payload: bytes, frame_size_bytes_max: int) -> None:
        self._message = message
        self._payload = memoryview(payload)
        self._frame_data_bytes = frame_size_bytes_max - _PART_OVERHEAD_BYTES
        self._position = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the message that were not handed out yet."""
        return len(self._payload) - self._position

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        start = self._position
        if start >= len(self._payload):
            raise StopIteration
        end = min(start + self._frame_data_bytes, len(self._payload))
        self._position = end
        data = self._payload[start:end]
        part = Part(self._message, end == len(self._payload), data)
        return encode_frame(_encode(part))


R = TypeVar("R")


class _Connection(Generic[R]):
    """What both ends share: frames in, messages out, and putting long messages together."""

    _decoder: ClassVar[msgspec.msgpack.Decoder[Any]]
    _peer: ClassVar[str]
    _large_size_bytes: ClassVar[int] = 1 << 62
    """Responses from this size on are not looked into; a server takes none at all."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.state = State.HELLO
        self.peer_limits = Limits()
        """What the peer accepts; the defaults until it says otherwise."""
        self.partial_size_bytes = 0
        """Bytes held of messages that are half received; never above the limit."""
        self._partials: dict[int, bytearray] = {}
        self._frames = FrameDecoder(limits.hello_frame_size_bytes_max)
        self.welcomed = False
        """Whether the connection was ever open."""
        self._fragmented = 0
        self._fault: str | None = None

    @property
    def held_size_bytes(self) -> int:
        """Bytes held of what the peer began to send and did not finish."""
        return self.partial_size_bytes + self._frames.buffered_size_bytes

    @property
    def missing_size_bytes(self) -> int:
        """Bytes that are still to come of a frame of which some are here; 0 where unknown."""
        return self._frames.missing_size_bytes

    # --- in --------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[R]:
        """Take a chunk as it came; returns the messages that it completed, in order.

        Raises:
            RemoteProtocolError: the peer broke a rule; ``messages`` holds those before the fault.
                Every later call raises it again.
        """
        if self._fault is not None:
            raise RemoteProtocolError(self._fault)
        messages: list[R] = []
        decode, large = self._decoder.decode, self._large_size_bytes
        try:
            for frame in self._frames.feed(data):
                if self.state is not State.OPEN:
                    self._handshake(frame, messages)
                    continue
                if len(frame) >= large and frame[:2] == _RESPONSE_HEAD:
                    messages.append(_large_response(frame))  # type: ignore[arg-type]
                    continue
                message = decode(frame)
                if type(message) is Part:
                    message = self._assemble(message)
                    if message is None:
                        continue
                messages.append(message)
            if self._frames.fault is not None:
                raise self._error(self._frames.fault)
        except RemoteProtocolError as error:
            self._break(str(error))
            error.messages.extend(messages)
            raise
        except RecursionError:
            raise self._broken("a message is nested too deeply", messages) from None
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError) as error:
            raise self._broken(f"a message cannot be read: {error}", messages) from None
        return messages

    def receive_eof(self) -> None:
        """The peer closed its side.

        Raises:
            RemoteProtocolError: in the middle of a frame or of a long message.
        """
        cut = self._frames.buffered_size_bytes or self._partials
        if cut and self.state is not State.CLOSED:
            self._break("cut")
            raise RemoteProtocolError(f"The {self._peer} closed in the middle of a message.")
        self.state = State.CLOSED

    def _handshake(self, frame: bytes | memoryview, messages: list[R]) -> None:
        raise NotImplementedError

    def _assemble(self, part: Part) -> Any:
        """Add a part; returns the message that it completed, if it did."""
        gathered = self._partials.get(part.message)
        if gathered is None:
            if len(self._partials) >= self.limits.partial_messages_max:
                raise self._error(
                    f"more than {self.limits.partial_messages_max} messages are half sent"
                )
            gathered = self._partials[part.message] = bytearray()
        size = len(part.data)
        if len(gathered) + size > self.limits.message_size_bytes_max:
            raise self._error(
                f"a message is longer than {self.limits.message_size_bytes_max:,} bytes"
            )
        if self.partial_size_bytes + size > self.limits.partial_size_bytes_max:
            raise self._error(
                f"half-sent messages take more than {self.limits.partial_size_bytes_max:,} bytes"
            )
        gathered += part.data
        self.partial_size_bytes += size
        if not part.last:
            return None
        del self._partials[part.message]
        self.partial_size_bytes -= len(gathered)
        message = self._decoder.decode(gathered)
        if type(message) is Part:
            raise self._error("a part holds another part")
        return message

    def _error(self, what: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"The {self._peer} broke the rules: {what}.")

    def _broken(self, what: str, messages: list[R]) -> RemoteProtocolError:
        error = self._error(what)
        self._break(str(error))
        error.messages.extend(messages)
        return error

    def _break(self, fault: str) -> None:
        self._fault = fault
        self.state = State.CLOSED
        self._partials.clear()
        self.partial_size_bytes = 0

    # --- out -------------------------------------------------------------------------------

    def send(self, message: Message) -> bytes | Fragments:
        """The bytes of ``message``.

        Raises:
            LocalProtocolError: the message may not be sent in this state, or cannot be encoded.
            MessageTooLarge: the peer accepts no message of this length. Nothing was sent.
        """
        if self.state is not State.OPEN:
            self._check_send(message)
        try:
            payload = _encode(message)
        except RecursionError:
            raise LocalProtocolError("The message is nested too deeply.") from None
        size = len(payload)
        if size <= self.peer_limits.frame_size_bytes_max:
            return size.to_bytes(4, "big") + payload
        limits = self.peer_limits
        size_max = min(limits.message_size_bytes_max, limits.partial_size_bytes_max)
        if size > size_max:
            raise MessageTooLarge(
                f"The message has {size:,} bytes; the peer accepts at most {size_max:,}."
            )
        self._fragmented += 1
        return Fragments(self._fragmented, payload, self.peer_limits.frame_size_bytes_max)

    def send_response(self, request: int, result: bytes | memoryview) -> bytes | Fragments:
        """What ``send(Response(request, Raw(result)))`` gives, for a server's every answer.

        Put together by hand, so that a long result is copied once and a short one costs no
        objects (together 5 % of the server's time for small gets).
        """
        head = _RESPONSE_HEAD + _encode(request)
        size = len(head) + len(result)
        if size > self.peer_limits.frame_size_bytes_max or self.state is not State.OPEN:
            return self.send(Response(request, msgspec.Raw(result)))
        return b"".join((size.to_bytes(HEADER_SIZE_BYTES, "big"), head, result))

    def _check_send(self, message: Message) -> None:
        raise NotImplementedError

    def _open(self) -> None:
        self.state = State.OPEN
        self.welcomed = True
        self._frames.frame_size_bytes_max = self.limits.frame_size_bytes_max


class ServerConnection(_Connection["Hello | ToServer"]):
    """The server's end."""

    _decoder = msgspec.msgpack.Decoder(ToServer)
    _hello_decoder: ClassVar[msgspec.msgpack.Decoder[Hello]] = msgspec.msgpack.Decoder(Hello)
    _peer = "client"

    def _handshake(self, frame: bytes | memoryview, messages: list[Hello | ToServer]) -> None:
        if self.state is not State.HELLO:
            raise self._error("it sent a message before its hello was answered")
        hello = self._hello_decoder.decode(frame)
        if hello.magic != PROTOCOL_MAGIC:
            raise self._error(f"its hello does not begin with {PROTOCOL_MAGIC!r}")
        if hello.version != PROTOCOL_VERSION:
            raise self._error(
                f"it speaks protocol version {hello.version}; "
                f"this server speaks version {PROTOCOL_VERSION}"
            )
        self.state = State.AUTHENTICATING
        messages.append(hello)

    def _check_send(self, message: Message) -> None:
        # A goodbye may be sent in any state: it is how a hello is refused and a fault answered.
        # After a fault of the client what it asked for before is still answered.
        if type(message) is not Goodbye and not self.welcomed:
            raise LocalProtocolError(f"{type(message).__name__} cannot be sent before the welcome.")

    def welcome(self, server: str, connection: int) -> bytes:
        """Accept the client; returns the bytes to send."""
        if self.state is not State.AUTHENTICATING:
            raise LocalProtocolError("A welcome answers a hello; there is none to answer.")
        self._open()
        sent = self.send(Welcome(PROTOCOL_VERSION, server, self.limits, connection))
        assert isinstance(sent, bytes)
        return sent

    def refuse(self, code: str, message: str) -> bytes:
        """End the connection with a reason; returns the bytes to send. Legal in every state."""
        assert code in codes.ALL, code
        self._break(message)
        sent = self.send(Goodbye(code, message[:4096]))
        assert isinstance(sent, bytes)
        return sent


class ClientConnection(_Connection["WelcomeOrGoodbye | ToClient"]):
    """The client's end."""

    _decoder = msgspec.msgpack.Decoder(ToClient)
    _welcome_decoder: ClassVar[msgspec.msgpack.Decoder[WelcomeOrGoodbye]] = msgspec.msgpack.Decoder(
        WelcomeOrGoodbye
    )
    _peer = "server"
    _large_size_bytes = 16 * 1024

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._hello_sent = False

    def _handshake(
        self, frame: bytes | memoryview, messages: list[WelcomeOrGoodbye | ToClient]
    ) -> None:
        if not self._hello_sent:
            raise self._error("it spoke before the hello")
        if self.state is State.CLOSED:
            raise self._error("it sent something after its goodbye")
        message = self._welcome_decoder.decode(frame)
        if isinstance(message, Welcome):
            if message.version != PROTOCOL_VERSION:
                raise self._error(f"it answered with protocol version {message.version}")
            if message.limits.frame_size_bytes_max <= _PART_OVERHEAD_BYTES:
                raise self._error("its frame limit is too small for any message")
            self.peer_limits = message.limits
            self._open()
        else:
            self.state = State.CLOSED
        messages.append(message)

    def _check_send(self, message: Message) -> None:
        if type(message) is not Hello or self._hello_sent:
            raise LocalProtocolError(
                f"{type(message).__name__} cannot be sent while the connection is "
                f"{self.state.value}."
            )
        self._hello_sent = True
