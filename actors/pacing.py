"""How fast new connections are taken.

A connection costs up to a millisecond until it is greeted. Whoever opens them as fast as they are
taken, and leaves, would have most of the event loop. So those that were left again while they
waited are dropped before anything is made for them; and once a burst is used up, the others wait
their turn, while those that are open already are served as ever.
"""

from __future__ import annotations

import select
from typing import Generic, TypeVar

import trio

StreamType = TypeVar("StreamType", bound=trio.abc.AsyncResource)


class Pace:
    """A token bucket.

    Args:
        rate: how many a second, in the long run.
        burst: how many at once after a quiet time.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._left = float(burst)
        self._at = trio.current_time()

    async def wait(self) -> None:
        """Return when one more may come; a checkpoint only where it has to wait."""
        now = trio.current_time()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        self._left -= 1.0
        if self._left < 0:
            await trio.sleep(-self._left / self._rate)


class PacedListener(trio.abc.Listener[StreamType], Generic[StreamType]):
    """A listener that accepts no faster than a pace, and nobody who is gone. Owns the one that it
    wraps."""

    def __init__(self, listener: trio.abc.Listener[StreamType], pace: Pace) -> None:
        self._listener = listener
        self._pace = pace

    async def accept(self) -> StreamType:
        """See `trio.abc.Listener`."""
        while True:
            stream = await self._listener.accept()
            if not is_gone(stream):
                break
            await trio.aclose_forcefully(stream)
        try:
            await self._pace.wait()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def aclose(self) -> None:
        """See `trio.abc.Listener`."""
        await self._listener.aclose()


def is_gone(stream: trio.abc.AsyncResource) -> bool:
    """Whether the peer of a fresh connection will send nothing more; whatever it sent, it does not
    wait for the answer, since a hello is answered first."""
    hung_up = getattr(select, "POLLRDHUP", 0)
    if not hung_up or not isinstance(stream, trio.SocketStream):
        return False
    poller = select.poll()
    poller.register(stream.socket.fileno(), hung_up)
    return bool(poller.poll(0))
