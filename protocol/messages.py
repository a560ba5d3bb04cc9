"""Messages: what a frame holds.

Each is a msgpack array whose first item is an integer that names the kind; the fields follow in
the order given here. Fields are only ever appended, with defaults: a receiver ignores items that
it does not know and fills in those that are missing, so old and new peers understand each other.

Parameters and results travel as `msgspec.Raw`: bytes that are already msgpack and are neither
decoded nor copied by this package.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from protocol.limits import CLIENT_ID_SIZE_BYTES, PROTOCOL_MAGIC, PROTOCOL_VERSION, Limits

Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]
"""Number of a request (or of a fragmented message); each side counts up from 1."""

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ShortText = Annotated[str, Meta(max_length=1024)]

NIL = msgspec.Raw(b"\xc0")
EMPTY_MAP = msgspec.Raw(b"\x80")


class Hello(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """Client, first of all: who it is and what it speaks."""

    magic: ShortText = PROTOCOL_MAGIC
    version: Count = PROTOCOL_VERSION
    api_key: ShortText | None = None
    client_id: Annotated[
        bytes, Meta(min_length=CLIENT_ID_SIZE_BYTES, max_length=CLIENT_ID_SIZE_BYTES)
    ] = bytes(CLIENT_ID_SIZE_BYTES)
    """Random bytes that name the client for deduplication, over all of its connections."""
    session: Count = 0
    """The client's own number of its deduplication session: a client that forgets which sequence
    numbers it used (a restart) takes another."""
    software: ShortText = ""
    """Name and version of the client's software, for the server's log."""


class Welcome(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """Server, in answer to a hello: from now on requests may be sent."""

    version: Count
    server: ShortText
    limits: Limits
    connection: Count = 0
    """The server's number of this connection, as in its log."""


class Goodbye(msgspec.Struct, array_like=True, tag=3, frozen=True, gc=False):
    """Either side: it takes no more requests. Requests in flight are still answered unless the
    code says that the connection is broken (``protocol_error``)."""

    code: ShortText = ""
    """An error code, or empty for a plain end."""
    message: str = ""


class Ping(msgspec.Struct, array_like=True, tag=4, frozen=True, gc=False):
    """Either side: answer with a pong of the same token."""

    token: Count = 0


class Pong(msgspec.Struct, array_like=True, tag=5, frozen=True, gc=False):
    """Answer to a ping."""

    token: Count = 0


class Part(msgspec.Struct, array_like=True, tag=6, frozen=True, gc=False):
    """A piece of a message that is too long for one frame.

    The pieces of one message come in order and carry the same number; frames of other messages
    may come between them. All pieces together are the message's msgpack.
    """

    message: Id
    last: bool
    data: Annotated[memoryview, Meta(min_length=1)]
    """A view of the frame: a copy of a megabyte is half a millisecond of fresh memory."""


class Request(msgspec.Struct, array_like=True, tag=16, frozen=True, gc=False):
    """Client: do this."""

    id: Id
    method: ShortText
    """``service.operation``."""
    params: msgspec.Raw = EMPTY_MAP
    """A map of parameters by name."""
    deadline_ms: Count | None = None
    """Milliseconds from receipt after which the work must not be begun."""
    snapshot: Id | None = None
    """Read this snapshot of the same connection, not the newest state."""
    sequence: Id | None = None
    """Deduplication: number of this command within the client's session; None: no deduplication."""
    watermark: Count = 0
    """The client will never again send a sequence number below this one."""
    transaction: Id | None = None
    """Do it inside this transaction of the same connection; the client chooses the number."""
    begin_ms: Count | None = None
    """Begin the transaction with this request, unless it is open already; it is rolled back so
    many milliseconds from receipt."""


class Response(msgspec.Struct, array_like=True, tag=17, frozen=True, gc=False):
    """Server: the one answer of a request that succeeded."""

    id: Id
    result: msgspec.Raw = NIL


class Failure(msgspec.Struct, array_like=True, tag=18, frozen=True):
    """Server: the one answer of a request that failed, or the end of a stream that failed."""

    id: Id
    code: ShortText
    message: str
    details: dict[str, Any] = {}


class StreamItems(msgspec.Struct, array_like=True, tag=19, frozen=True):
    """Server: the next items of a stream."""

    id: Id
    items: list[msgspec.Raw]


class StreamEnd(msgspec.Struct, array_like=True, tag=20, frozen=True, gc=False):
    """Server: the stream gave all of its items."""

    id: Id


class Credit(msgspec.Struct, array_like=True, tag=21, frozen=True, gc=False):
    """Client: this stream may send as many bytes of items more."""

    id: Id
    size_bytes: Annotated[int, Meta(ge=1, le=2**40)]


class Cancel(msgspec.Struct, array_like=True, tag=22, frozen=True, gc=False):
    """Client: stop this request. It is still answered, once, as every request is."""

    id: Id


ToServer = Request | Credit | Cancel | Ping | Pong | Part | Goodbye
"""What an open connection may carry from client to server."""

ToClient = Response | StreamItems | StreamEnd | Failure | Ping | Pong | Part | Goodbye
"""What an open connection may carry from server to client."""

WelcomeOrGoodbye = Welcome | Goodbye
"""How a server answers a hello."""

Message = Hello | Welcome | ToServer | ToClient
