"""Transactions that belong to a session: begun by its client's requests, gone when it goes.

A commit that reaches the writer is applied like any command. One that is lost on the way with its
connection is settled by its number: see ``docs/protocol.md``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

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


class SessionTransactions:
    """The transactions of one session, by the numbers that its client gave them, and the requests
    that name one."""

    def __init__(self, shared: Shared, account: Account, owner: str) -> None:
        self._host = shared.host
        self._methods = shared.methods
        self._account = account
        self._counters = shared.counters
        self._count_max = shared.settings.limits.transactions_max
        self._owner = owner
        self._open: dict[int, HostTransaction] = {}
        self._charged: dict[int, int] = {}
        """What they charged to the session's account, in bytes."""
        self._ended: dict[int, TreeStoreError] = {}
        """How the latest ended: what whoever uses one is told."""

    def _find(self, number: int, request: Request) -> HostTransaction:
        """The transaction that a request names, which is not open: begun where it asks for that.

        Raises:
            InvalidArgument: it names a snapshot, too.
            TreeStoreError: it has ended, and how.
            SnapshotExpired: there is no such transaction.
            ResourceExhausted: too many are open.
        """
        if request.snapshot is not None:
            raise InvalidArgument("A request reads a snapshot or is in a transaction, not both.")
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
        self._open[number] = transaction
        self._counters.transactions += 1
        return transaction

    def _charge(self, number: int, size_bytes: int) -> None:
        """A write of so many bytes is done inside it: they are held until it ends.

        Raises:
            ResourceExhausted: the server has no memory for them.
        """
        if not self._account.reserve(size_bytes):
            raise ResourceExhausted(
                "The server has no memory for more of this transaction now; try again later."
            )
        self._charged[number] = self._charged.get(number, 0) + size_bytes

    def _forget(self, number: int, error: TreeStoreError) -> None:
        """It takes no more calls."""
        if self._open.pop(number, None) is None:
            return
        self._counters.transactions -= 1
        self._account.release(self._charged.pop(number, 0))
        ended = self._ended
        if len(ended) >= ENDED_MAX:
            del ended[next(iter(ended))]
        ended[number] = error

    def roll_back(self, number: int) -> bytes:
        """Drop it; returns the encoded answer: whether it was open."""
        found = self._open.get(number)
        return _encode(found is not None and found.roll_back())

    def close_all(self) -> None:
        """The session is over."""
        for found in list(self._open.values()):
            found.roll_back()
        self._ended.clear()

    # --- requests ----------------------------------------------------------------------------

    def request(self, session: Session, request: Request) -> None:
        """Do a request of the session inside its transaction, or end that."""
        method = session._find(request.method)
        may = method is not None
        if may:
            session._principal.uses += 1
        elif not session._admit(request):
            return
        if not session._may_start(request):
            return
        number = request.transaction
        assert number is not None
        if request.method == ROLLBACK:
            return session._answer(request.id, self.roll_back(number))
        try:
            transaction = self._open.get(number)
            if transaction is None or request.snapshot is not None:
                transaction = self._find(number, request)
            if request.method == SETTLE.name:
                return self._commit(session, request, transaction)
            method = method or self._methods.find(request.method)
            if method is None:
                hint = self._methods.suggestions(request.method)
                raise InvalidArgument(f"There is no method {request.method[:100]!r}. {hint}")
            parameters = method.decode(request.params)
            if not may:
                session._principal.allow(method.operation, parameters)
                if session._principal.is_free(method.operation):
                    session._principal.free[request.method] = method
            size = 0
            if method.kind in ("command", "prepared"):
                size = len(memoryview(request.params))
                self._charge(number, size)
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

    def _commit(self, session: Session, request: Request, transaction: HostTransaction) -> None:
        """Commit: small ones as a command, without a task."""
        begun = transaction.begin_commit()
        if begun is False:
            return session._answer(request.id, _encode(True))
        deadline = None
        if request.deadline_ms is not None:
            deadline = trio.current_time() + request.deadline_ms / 1000
        deduplication = deduplication_of(session._client, request)
        self._counters.requests_in_flight += 1
        if begun is None:
            task = Task(request.id, 0, None)
            task.writes = True
            return session._spawn(task, partial(transaction.commit, deduplication, deadline))
        command = Command(request.id, SETTLE, _NOTHING, 0, deadline, deduplication)
        command.transaction = transaction
        session._send_to_writer(command)
