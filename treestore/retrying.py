"""Running a transaction again until it meets no conflict: the same for every event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from random import Random
from typing import Any, TypeVar

from treestore.errors import InvalidArgument, SnapshotExpired, TransactionConflict

T = TypeVar("T")
Txn = TypeVar("Txn")

TRANSACTION_TIMEOUT_S = 30.0
"""How long a transaction may be open where nobody says."""

ATTEMPTS = 10
"""How often `run_transaction` calls its function where nobody says."""

TIMEOUT_S_MAX = 86_400.0

PAUSE_S_FIRST = 0.002
PAUSE_S_MAX = 1.0

AGAIN = (TransactionConflict, SnapshotExpired)
"""Errors after which nothing was changed and another attempt may succeed: somebody else was first,
or the server took the transaction's snapshot away, or it went with its connection."""


def checked_timeout(timeout: Any) -> float:
    """``timeout`` in seconds.

    Raises:
        InvalidArgument: it is no such number.
    """
    good = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not good or not 0 < timeout <= TIMEOUT_S_MAX:
        raise InvalidArgument(
            f"The timeout of a transaction is in seconds, above 0 and at most {TIMEOUT_S_MAX:g}, "
            f"not {timeout!r:.40}."
        )
    return float(timeout)


class Attempts:
    """What is left of the attempts, and how long to wait before the next one.

    At random, up to a time that doubles: those who got into each other's way do not meet again.
    """

    def __init__(self, count: Any, random: Random) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidArgument(f"attempts is a whole number, 1 or more, not {count!r:.40}.")
        self._left = count
        self._random = random
        self._pause_s = PAUSE_S_FIRST

    def failed(self) -> float:
        """An attempt met a conflict: how long to wait. To be called where that is handled.

        Raises:
            TransactionConflict, SnapshotExpired: the one that is handled; it was the last attempt.
        """
        self._left -= 1
        if not self._left:
            raise
        pause_s = self._pause_s * self._random.random()
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)
        return pause_s


async def run_again(
    begin: Callable[[], AbstractAsyncContextManager[Txn]],
    function: Callable[[Txn], Awaitable[T]],
    attempts: Attempts,
    sleep: Callable[[float], Awaitable[object]],
) -> T:
    """``await function(transaction)`` in a transaction, anew after each conflict."""
    while True:
        try:
            async with begin() as transaction:
                return await function(transaction)
        except AGAIN:
            pause_s = attempts.failed()
        await sleep(pause_s)


def run_again_blocking(
    begin: Callable[[], AbstractContextManager[Txn]],
    function: Callable[[Txn], T],
    attempts: Attempts,
    sleep: Callable[[float], object],
) -> T:
    """The same without an event loop."""
    while True:
        try:
            with begin() as transaction:
                return function(transaction)
        except AGAIN:
            pause_s = attempts.failed()
        sleep(pause_s)
