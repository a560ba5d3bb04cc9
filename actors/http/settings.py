"""Limits of an HTTP port."""

from __future__ import annotations

import attrs

from protocol.limits import KIB, MIB


@attrs.frozen(kw_only=True)
class HttpSettings:
    """Times are in seconds, sizes in bytes."""

    connections_max: int = 256
    """One more is told 503."""
    head_size_bytes_max: int = 16 * KIB
    """Request line and headers (nginx's and Node's limit are of this size too); 431 past it."""
    body_size_bytes_max: int = 32 * MIB
    """A longer body is refused with 413: a document has at most 16 MB. Bodies of JSON lines are
    taken line by line and have this limit for each line only."""
    memory_size_bytes_max: int = 256 * MIB
    """Bodies that are held at a time, of all connections; 503 past it."""
    idle_timeout_s: float = 75.0
    """How long a connection may wait for its (next) request."""
    head_timeout_s: float = 10.0
    """From the first byte of a request's head to its last; 408 past it."""
    body_timeout_s: float = 10.0
    """How far a body may lag behind `body_rate_min`; 408 past it."""
    body_rate_min: int = 16 * KIB
    """Bytes a second that a body has to come at, in the long run."""
    write_timeout_s: float = 30.0
    """For the peer to take 64 KiB of an answer."""
    request_timeout_s: float = 60.0
    """For a read to be answered, and for a write to be begun; 504 past it. Streams, and what is
    made to run long (a backup), have no such limit."""
    grace_s: float = 10.0
    """For answers under way when a stop is asked for."""
    origins: tuple[str, ...] = ()
    """Web origins whose pages may read answers (CORS); ``"*"``: all. None by default."""
