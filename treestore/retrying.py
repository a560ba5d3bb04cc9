"""Running a transaction again until it meets no conflict: the same for every event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
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


async def run_again(
    begin: Callable[[], AbstractAsyncContextManager[Txn]],
    function: Callable[[Txn], Awaitable[T]],
    attempts: int,
    sleep: Callable[[float], Awaitable[object]],
    random: Random,
) -> T:
    """``await function(transaction)`` in a transaction, anew after each conflict.

    Waits before each further attempt, at random up to a time that doubles, so that those who got
    into each other's way do not meet again.
    """
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise InvalidArgument(f"attempts is a whole number, 1 or more, not {attempts!r:.40}.")
    pause = PAUSE_S_FIRST
    while True:
        attempts -= 1
        try:
            async with begin() as transaction:
                return await function(transaction)
        except AGAIN:
            if not attempts:
                raise
        await sleep(pause * random.random())
        pause = min(2 * pause, PAUSE_S_MAX)
