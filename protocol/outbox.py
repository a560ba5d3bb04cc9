"""What waits to be written to one connection, in the order in which it should leave.

Small messages leave first, joined into one write. Long ones leave a frame at a time, in turns, so
none of them holds up the others. The messages of one stream keep their order: what follows a long
message under the same key waits behind it.
"""

from __future__ import annotations

from collections import deque

from protocol.connection import Fragments


class Outbox:
    """Bytes on their way out of one connection."""

    __slots__ = ("_large", "_ready", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        """Bytes that wait (of long messages: without the few bytes around each part)."""
        self._ready: list[bytes] = []
        self._large: dict[int, deque[bytes | Fragments]] = {}

    def __bool__(self) -> bool:
        return bool(self._ready or self._large)

    def append(self, item: bytes | Fragments, key: int = 0) -> None:
        """Add what `send` returned; ``key`` is the request's id where order matters."""
        if type(item) is bytes:
            self.size_bytes += len(item)
            if not self._large or key not in self._large:
                self._ready.append(item)
                return
        else:
            assert isinstance(item, Fragments)
            self.size_bytes += item.size_bytes
        self._large.setdefault(key, deque()).append(item)

    def take(self) -> bytes:
        """The bytes to write next: all small messages and one frame of one long message.

        At most one frame longer than the small messages together; empty when nothing waits.
        """
        ready = self._ready
        if not self._large:
            if len(ready) == 1:
                self.size_bytes = 0
                return ready.pop()
            taken = b"".join(ready)
            ready.clear()
            self.size_bytes = 0
            return taken
        self.size_bytes -= sum(map(len, ready))
        ready.append(self._take_large())
        taken = b"".join(ready)
        ready.clear()
        return taken

    def _take_large(self) -> bytes:
        # The first key's turn; it goes to the end of the order afterwards.
        key = next(iter(self._large))
        queue = self._large.pop(key)
        head = queue[0]
        if isinstance(head, bytes):
            queue.popleft()
            self.size_bytes -= len(head)
            taken = head
        else:
            before = head.size_bytes
            taken = next(head)
            self.size_bytes -= before - head.size_bytes
            if not head.size_bytes:
                queue.popleft()
        if queue:
            self._large[key] = queue
        return taken

    def clear(self) -> None:
        """Drop everything."""
        self._ready.clear()
        self._large.clear()
        self.size_bytes = 0
