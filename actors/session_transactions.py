"""Transactions that belong to a session: begun by its client's requests, gone when it goes.

A commit that reaches the writer is applied like any command. One that is lost on the way with its
connection is settled by its number: see ``docs/protocol.md``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import attrs
import msgspec
import trio

from actors.host import HostTransaction
from actors.memory import Account
from actors.session_work import Command, Task, deduplication_of, parameters_error
from actors.wire import SETTLE, Shared
from protocol.messages import Request
from treestore.errors import InvalidArgument, ResourceExhausted, SnapshotExpired, TreeStoreError

if TYPE_CHECKING:
    from actors.session import Session

ENDED_MAX = 256
"""Transactions that have ended and of which it is still known how."""

ROLLBACK = "session.rollback"

_encode = msgspec.msgpack.encode
_NOTHING = SETTLE.parameters()


@attrs.define(eq=False)
class _Open:
    transaction: HostTransaction
    size_bytes: int = 0
    """What it charged to the session's account."""


class SessionTransactions:
    """The transactions of one session, by the numbers that its client gave them."""

    def __init__(self, shared: Shared, account: Account, owner: str) -> None:
        self._host = shared.host
        self._account = account
        self._counters = shared.counters
        self._count_max = shared.settings.limits.transactions_max
        self._owner = owner
        self._open: dict[int, _Open] = {}
        self._ended: dict[int, TreeStoreError] = {}
        """How the latest ended: what whoever uses one is told."""

    def find(self, request: Request) -> HostTransaction:
        """The transaction that a request names, begun where it asks for that.

        Raises:
            InvalidArgument: it names a snapshot, too.
            TreeStoreError: it has ended, and how.
            SnapshotExpired: there is no such transaction.
            ResourceExhausted: too many are open.
        """
        number = request.transaction
        assert number is not None
        if request.snapshot is not None:
            raise InvalidArgument("A request reads a snapshot or is in a transaction, not both.")
        found = self._open.get(number)
        if found is not None:
            return found.transaction
        ended = self._ended.get(number)
        if ended is not None:
            raise type(ended)(ended.message)
        if request.begin_ms is None:
            raise SnapshotExpired(
                f"This connection has no open transaction {number}: nothing of it was applied, "
                "unless it was committed. Begin another one."
            )
        return self._begin(number, request.begin_ms / 1000)

    def _begin(self, number: int, timeout_s: float) -> HostTransaction:
        if len(self._open) >= self._count_max:
            raise ResourceExhausted(
                f"This connection has {len(self._open)} transactions open, as many as are allowed; "
                "end some, or try again later.",
                no_transaction=True,
            )
        try:
            transaction = self._host.open_transaction(
                self._owner, timeout_s, partial(self._forget, number)
            )
        except ResourceExhausted as error:
            raise ResourceExhausted(error.message, no_transaction=True) from error
        self._open[number] = _Open(transaction)
        self._counters.transactions += 1
        return transaction

    def charge(self, number: int, size_bytes: int) -> None:
        """A write of so many bytes is done inside it: they are held until it ends.

        Raises:
            ResourceExhausted: the server has no memory for them.
        """
        found = self._open.get(number)
        if found is None:
            return
        if not self._account.reserve(size_bytes):
            raise ResourceExhausted(
                "The server has no memory for more of this transaction now; try again later."
            )
        found.size_bytes += size_bytes

    def _forget(self, number: int) -> None:
        """It takes no more calls."""
        found = self._open.pop(number, None)
        if found is None:
            return
        self._counters.transactions -= 1
        self._account.release(found.size_bytes)
        if len(self._ended) >= ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        try:
            found.transaction.ensure_open()
        except TreeStoreError as error:
            self._ended[number] = error.with_traceback(None)

    def roll_back(self, number: int) -> bytes:
        """Drop it; returns the encoded answer: whether it was open."""
        found = self._open.get(number)
        return _encode(found is not None and found.transaction.roll_back())

    def close_all(self) -> None:
        """The session is over."""
        for found in list(self._open.values()):
            found.transaction.roll_back()
        self._ended.clear()


class TransactionRequests:
    """The part of a session that deals with requests that name a transaction."""

    @property
    def _session(self) -> Session:
        return cast("Session", self)

    def _in_transaction(self, request: Request) -> None:
        """Do a request inside its transaction, or end that."""
        session = self._session
        if not session._may_start(request):
            return
        number = request.transaction
        assert number is not None
        transactions, methods = session._transactions, session._shared.methods
        if request.method == ROLLBACK:
            return session._answer(request.id, transactions.roll_back(number))
        try:
            transaction = transactions.find(request)
            if request.method == SETTLE.name:
                return self._commit(request, transaction)
            method = methods.find(request.method)
            if method is None:
                hint = methods.suggestions(request.method)
                raise InvalidArgument(f"There is no method {request.method[:100]!r}. {hint}")
            parameters = method.decode(request.params)
            size = len(memoryview(request.params))
            if method.kind in ("command", "prepared"):
                transactions.charge(number, size)
            result = None
            if method.kind != "stream":
                result = transaction.run_now(method.operation, parameters, size)
        except TreeStoreError as error:
            return session._fail(request.id, error)
        except (msgspec.MsgspecError, RecursionError, ValueError, TypeError) as error:
            return session._fail(request.id, parameters_error(request.method, error))
        except Exception as error:
            return session._fail(request.id, error)
        if result is not None:
            return session._answer(request.id, result)
        session._start(request, method, parameters, transaction=transaction)

    def _commit(self, request: Request, transaction: HostTransaction) -> None:
        """Commit: small ones as a command, without a task."""
        session = self._session
        begun = transaction.begin_commit()
        if begun is False:
            return session._answer(request.id, _encode(True))
        deadline = None
        if request.deadline_ms is not None:
            deadline = trio.current_time() + request.deadline_ms / 1000
        deduplication = deduplication_of(session._client, request)
        session._counters.requests_in_flight += 1
        if begun is None:
            task = Task(request.id, 0, None)
            task.writes = True
            return session._spawn(task, partial(transaction.commit, deduplication, deadline))
        command = Command(request.id, SETTLE, _NOTHING, 0, deadline, deduplication)
        command.transaction = transaction
        session._send_to_writer(command)
