"""What the listener and its sessions share: settings, counters and the dispatch table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec

from actors.host import Host
from actors.memory import MemoryBudget, MemoryStatistics
from actors.observability.requests import WireRequests
from actors.principal import Principal
from protocol.limits import MIB, Limits
from treestore.stores.access import Write
from treestore.stores.operation import OPERATIONS, Operation

Authenticate = Callable[[str | None, str], Principal]
"""Says, without waiting, who connects with an API key (None: none was sent) from an address; or
raises `Unauthenticated`."""


@attrs.frozen(kw_only=True)
class WireSettings:
    """Settings of a listener. Times are in seconds, sizes in bytes."""

    limits: Limits = attrs.field(factory=Limits)
    """What a client may send; stated to it in the welcome."""
    connections_max: int = 1024
    """One more is refused with ``resource_exhausted``."""
    connection_rate_max: float = 1000.0
    """New connections a second, once as many as ``connections_max`` came in quick succession."""
    hello_timeout_s: float = 10.0
    """A connection whose hello is not here by then is closed."""
    keep_alive_interval_s: float = 20.0
    """A ping is sent after this long without traffic."""
    keep_alive_timeout_s: float = 60.0
    """A peer from which nothing came for this long is taken for dead."""
    write_timeout_s: float = 30.0
    """A peer that takes nothing of what is sent for this long is closed."""
    partial_timeout_s: float = 30.0
    """While a message is half sent, at least 64 KiB must come in each such period."""
    output_pause_size_bytes: int = 4 * MIB
    """Nothing more is read from a peer while it has this much output to take."""
    memory_size_bytes_max: int = 512 * MIB
    """Half-received messages, waiting commands and waiting output of all connections."""
    grace_s: float = 10.0
    """How long requests in flight may take after a stop was asked for."""
    server_name: str = "TreeStore"
    """Stated in the welcome."""


@attrs.frozen
class WireStatistics:
    """A snapshot of a listener's numbers; totals count since it started."""

    connections: int
    """Open now."""
    connections_total: int
    """Accepted, the refused ones included."""
    connections_refused: int
    """Refused at the connection limit or for a bad API key."""
    requests: int
    """Requests received."""
    requests_in_flight: int
    """Requests being worked on now, in tasks or at the writer."""
    streams: int
    """Streams open now."""
    snapshots: int
    """Snapshots that sessions hold now."""
    transactions: int
    """Interactive transactions that are open now."""
    errors: Mapping[str, int]
    """Failures sent and connections ended, by code."""
    faults: Mapping[str, int]
    """Of them, the connections ended."""
    received_bytes: int
    """Of connections that ended, and of the open ones up to the last look."""
    sent_bytes: int
    """Likewise."""
    memory: MemoryStatistics
    """Use of the shared memory budget."""


@attrs.define
class Counters:
    """The numbers behind `WireStatistics`, changed in place by sessions."""

    connections: int = 0
    connections_total: int = 0
    connections_refused: int = 0
    requests: int = 0
    requests_in_flight: int = 0
    streams: int = 0
    snapshots: int = 0
    transactions: int = 0
    errors: Counter[str] = attrs.field(factory=Counter)
    faults: Counter[str] = attrs.field(factory=Counter)
    received_bytes: int = 0
    sent_bytes: int = 0
    refusing: int = 0
    """Connections above the limit that are being told so."""

    def fault(self, code: str) -> None:
        """A connection is ended for that reason."""
        self.errors[code] += 1
        self.faults[code] += 1

    def snapshot(self, memory: MemoryStatistics) -> WireStatistics:
        """The numbers now."""
        return WireStatistics(
            connections=self.connections,
            connections_total=self.connections_total,
            connections_refused=self.connections_refused,
            requests=self.requests,
            requests_in_flight=self.requests_in_flight,
            streams=self.streams,
            snapshots=self.snapshots,
            transactions=self.transactions,
            errors=dict(self.errors),
            faults=dict(self.faults),
            received_bytes=self.received_bytes,
            sent_bytes=self.sent_bytes,
            memory=memory,
        )


def _settle(_txn: Write) -> bool:
    """A commit that names no transaction: a client asks what became of one it knows no answer of.

    Under its number the answer of that commit is found, if it was applied. If not, this answer is
    stored there, so that the commit, should it still be on its way, never is.
    """
    return False


SETTLE = Operation(
    "session.commit",
    "command",
    _settle,
    msgspec.defstruct("session_commit", [], forbid_unknown_fields=True),
    bool,
    {},
    # Whatever it commits was allowed when it was done.
    right="read",
)


class Method:
    """An operation with its decoder: one dictionary look-up per request finds both."""

    __slots__ = ("decode", "kind", "operation")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.kind = operation.kind
        decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(operation.parameters)
        self.decode: Callable[[Any], msgspec.Struct] = decoder.decode


class Methods:
    """Dispatch by name. Operations defined later are found too."""

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {SETTLE.name: Method(SETTLE)}
        self.known = self._methods.get

    def find(self, name: str) -> Method | None:
        """The method called ``name``, or None where there is none."""
        method = self._methods.get(name)
        if method is None:
            operation = OPERATIONS.get(name)
            if operation is None:
                return None
            method = self._methods[name] = Method(operation)
        return method

    def suggestions(self, name: str) -> str:
        """A sentence that helps somebody who misspelled a method."""
        service = name.partition(".")[0] + "."
        names = sorted(known for known in OPERATIONS if known.startswith(service))
        if names:
            return f"Methods of this service: {', '.join(names)}."
        services = sorted({known.partition(".")[0] for known in OPERATIONS})
        return f"Services: {', '.join(services)}."


@attrs.frozen(kw_only=True)
class Shared:
    """What all sessions of a listener use together."""

    host: Host
    settings: WireSettings
    authenticate: Authenticate
    budget: MemoryBudget
    counters: Counters
    methods: Methods
    requests: WireRequests = attrs.field(factory=WireRequests)
