"""Snapshots that belong to a session: opened by the client, freed when it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from actors.host import Host, HostSnapshot
from actors.wire import Counters
from protocol.messages import Request
from treestore.errors import ResourceExhausted

_decode: Callable[[Any], dict[str, int]] = msgspec.msgpack.Decoder(dict[str, int]).decode
_encode = msgspec.msgpack.encode


class Snapshots:
    """The open snapshots of one session, by the numbers that it gave them."""

    def __init__(self, host: Host, counters: Counters, count_max: int) -> None:
        self._host = host
        self._counters = counters
        self._count_max = count_max
        self._open: dict[int, HostSnapshot] = {}
        self._requests: dict[int, int] = {}
        """The request that opened a snapshot → the snapshot's number."""
        self._last = 0

    def find(self, number: int) -> HostSnapshot | None:
        """The open snapshot of that number."""
        return self._open.get(number)

    def call(self, request: Request, owner: str) -> bytes | None:
        """The encoded answer to one of the session's own methods; None where it is none."""
        if request.method == "session.open_snapshot":
            return self.open(owner, request.id)
        if request.method == "session.close_snapshot":
            return self.close(request.params)
        return None

    def open(self, owner: str, request: int) -> bytes:
        """Pin the newest state for ``request``; returns the encoded answer.

        Raises:
            ResourceExhausted: too many are open.
        """
        if len(self._open) >= self._count_max:
            raise ResourceExhausted(
                f"This connection has {len(self._open)} snapshots open, as many as are allowed; "
                "close one."
            )
        snapshot = self._host.open_snapshot(owner)
        self._last += 1
        self._open[self._last] = snapshot
        self._requests[request] = self._last
        self._counters.snapshots += 1
        lsn, position = self._host.feed_position(snapshot)
        return _encode(
            {
                "snapshot": self._last,
                "number": snapshot.number,
                "lsn": lsn,
                "position": position,
            }
        )

    def close(self, params: msgspec.Raw) -> bytes:
        """Let go of the snapshot that the parameters name; returns the encoded answer."""
        return _encode(self._close(_decode(params).get("snapshot", 0)))

    def cancel(self, request: int) -> None:
        """The client gave ``request`` up: it never saw the number of the snapshot, if any."""
        number = self._requests.get(request)
        if number is not None:
            self._close(number)

    def _close(self, number: int) -> bool:
        snapshot = self._open.pop(number, None)
        if snapshot is None:
            return False
        self._requests = {r: n for r, n in self._requests.items() if n != number}
        self._counters.snapshots -= 1
        snapshot.close()
        return True

    def close_all(self) -> None:
        """The session is over."""
        self._counters.snapshots -= len(self._open)
        for snapshot in self._open.values():
            snapshot.close()
        self._open.clear()
        self._requests.clear()
