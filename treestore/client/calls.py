"""What a client decides without any input or output: shared by every kind of client.

Deduplication
    A client names itself with 16 random bytes and numbers its commands 1, 2, 3, … over all of its
    connections. The server remembers (client, session, number) → answer in the same transaction
    as the command's effect, so a command that is sent again is not applied again. The *watermark*
    is the lowest number that may still be sent; the server forgets answers below it.

Retries
    A request whose connection was lost is sent again if that cannot apply it twice: queries
    always, commands under their number. A command that can be sent no more (the time is up) ends
    in `OutcomeUnknown` if it ever left this side.
"""

from __future__ import annotations

from random import Random, SystemRandom
from typing import Literal

import attrs

from protocol.limits import CLIENT_ID_SIZE_BYTES

Deduplicate = Literal["all", "not_idempotent"]


class Sequencer:
    """Numbers the commands of one client and knows the watermark."""

    __slots__ = ("_last", "_outstanding", "client_id", "session")

    def __init__(self, random: Random | None = None) -> None:
        self.client_id = (random or SystemRandom()).randbytes(CLIENT_ID_SIZE_BYTES)
        self.session = 1
        self._last = 0
        # In ascending order, since numbers are given out in it: the first key is the lowest.
        self._outstanding: dict[int, None] = {}

    def take(self) -> int:
        """The next number; give it back with `release` once it will never be sent again."""
        self._last += 1
        self._outstanding[self._last] = None
        return self._last

    def release(self, sequence: int) -> None:
        """The command's answer is here, or nobody waits for it any more."""
        del self._outstanding[sequence]

    @property
    def watermark(self) -> int:
        """The lowest number that may still be sent."""
        for sequence in self._outstanding:
            return sequence
        return self._last + 1


@attrs.define
class Backoff:
    """Waiting times between attempts, in seconds: exponential, with jitter."""

    first_s: float = 0.05
    max_s: float = 5.0
    random: Random = attrs.field(factory=Random)
    _next_s: float = attrs.field(init=False, default=0.0)

    def reset(self) -> None:
        """The last attempt came to something."""
        self._next_s = 0.0

    def next(self) -> float:
        """How long to wait before the next attempt.

        Between half and all of a time that doubles: the clients of a server that comes back do
        not all knock at once.
        """
        self._next_s = min(self.max_s, self._next_s * 2 or self.first_s)
        return self._next_s * self.random.uniform(0.5, 1.0)


class ConnectionLost(Exception):
    """The connection ended before the answer came. Never leaves this package.

    Attributes:
        begun: False where the server certainly did nothing.
    """

    def __init__(self, message: str, *, begun: bool = True) -> None:
        super().__init__(message)
        self.begun = begun
