"""What waits to be written to one connection, in the order in which it should leave.

Rules
    1. Small messages leave first, joined into one write.
    2. Long ones leave a frame at a time, in turns, so none of them holds up the others.
    3. What follows a long message under the same key waits behind it, so the messages of one
       stream keep their order.
    4. No more long messages are under way at a time than the peer accepts half sent, in number
       and in bytes; the others wait in the order in which they came.
"""

from __future__ import annotations

from collections import deque

from protocol.connection import Fragments
from protocol.limits import Limits

_Queue = deque[bytes | Fragments]


class Outbox:
    """Bytes on their way out of one connection."""

    __slots__ = ("_active", "_active_bytes", "_limits", "_ready", "_waiting", "size_bytes")

    def __init__(self, peer_limits: Limits | None = None) -> None:
        self.size_bytes = 0
        """Bytes that wait (of long messages: without the few bytes around each part)."""
        self._limits = peer_limits or Limits()
        self._ready: list[bytes] = []
        # By key. The active ones take turns; each is charged the size of its first message.
        self._active: dict[int, tuple[_Queue, int]] = {}
        self._active_bytes = 0
        self._waiting: dict[int, _Queue] = {}

    def __bool__(self) -> bool:
        return bool(self._ready or self._active)

    def limit(self, peer_limits: Limits) -> None:
        """The peer stated its limits; to be called before anything long is added."""
        self._limits = peer_limits

    def append(self, item: bytes | Fragments, key: int = 0) -> None:
        """Add what ``send`` returned; ``key`` is the request's id where order matters."""
        if isinstance(item, bytes):
            self.size_bytes += len(item)
            if not self._active:
                self._ready.append(item)
                return
            active = self._active.get(key)
            queue = active[0] if active is not None else self._waiting.get(key)
            if queue is None:
                self._ready.append(item)
            else:
                queue.append(item)
            return
        self.size_bytes += item.size_bytes
        active = self._active.get(key)
        if active is not None:
            active[0].append(item)
        else:
            self._waiting.setdefault(key, deque()).append(item)
            self._activate()

    def _activate(self) -> None:
        """Let waiting messages take part, as far as the peer's limits allow."""
        limits = self._limits
        while self._waiting:
            key, queue = next(iter(self._waiting.items()))
            head = queue[0]
            size = head.size_bytes if isinstance(head, Fragments) else 0
            if self._active and (
                len(self._active) >= limits.partial_messages_max
                or self._active_bytes + size > limits.partial_size_bytes_max
            ):
                return
            del self._waiting[key]
            self._active[key] = (queue, size)
            self._active_bytes += size

    def take(self) -> bytes:
        """The bytes to write next: all small messages and one frame of one long message.

        At most one frame longer than the small messages together; empty when nothing waits.
        """
        ready = self._ready
        if not self._active:
            self.size_bytes = 0
            if len(ready) == 1:
                return ready.pop()
            taken = b"".join(ready)
            ready.clear()
            return taken
        self.size_bytes -= sum(map(len, ready))
        ready.append(self._take_active())
        taken = b"".join(ready)
        ready.clear()
        return taken

    def _take_active(self) -> bytes:
        # The first key's turn; it goes to the end of the order afterwards.
        key = next(iter(self._active))
        queue, charged = self._active.pop(key)
        head = queue[0]
        if isinstance(head, Fragments):
            before = head.size_bytes
            taken = next(head)
            self.size_bytes -= before - head.size_bytes
            if head.size_bytes:
                self._active[key] = (queue, charged)
                return taken
        else:
            taken = head
            self.size_bytes -= len(head)
        queue.popleft()
        self._active_bytes -= charged
        if queue:
            self._waiting[key] = queue
        self._activate()
        return taken

    def clear(self) -> None:
        """Drop everything."""
        self._ready.clear()
        self._active.clear()
        self._active_bytes = 0
        self._waiting.clear()
        self.size_bytes = 0
