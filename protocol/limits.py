"""Limits of the wire: everything a peer can make grow has a bound here.

A server states its own in the `Welcome` message, so a client knows them before it sends anything
large; each side also enforces its own on what it receives.
"""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB

HEADER_SIZE_BYTES = 4
"""Length prefix of a frame: an unsigned 32-bit big-endian integer."""

PROTOCOL_MAGIC = "treestore"
"""First field of a hello, so that a stray HTTP or TLS client is told apart from an old one."""

PROTOCOL_VERSION = 1
"""Raised when a change breaks peers; fields appended with defaults do not raise it."""

CLIENT_ID_SIZE_BYTES = 16
"""Size of the random name that a client gives itself for deduplication."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one side of a connection is prepared to receive. Travels in `Welcome` as a map."""

    frame_size_bytes_max: int = 1 * MIB
    """Longest frame (without its 4-byte length) on an open connection. Small enough that a large
    message never holds up small ones for more than a few milliseconds."""

    hello_frame_size_bytes_max: int = 64 * KIB
    """Longest frame before the peer is authenticated."""

    message_size_bytes_max: int = 128 * MIB
    """Longest message, put together from `Part` frames."""

    partial_messages_max: int = 16
    """Messages of one connection that may be half sent at a time."""

    partial_size_bytes_max: int = 128 * MIB
    """Bytes of all half-sent messages of one connection together."""

    requests_max: int = 1024
    """Requests of one connection that the server works on at a time. It stops reading from the
    connection while there are as many, so more may be sent but wait in the network's buffers."""

    streams_max: int = 32
    """Streams of one connection that may be open at a time; one more is refused."""

    snapshots_max: int = 64
    """Snapshots of one connection that may be open at a time; one more is refused."""

    transactions_max: int = 256
    """Transactions of one connection that may be open at a time; one more is refused."""
