"""Interactive transactions: those that are open, how their calls are run, and how they end.

A `RunningTransaction` runs one call at a time, in the order in which they were made: short ones at
once, where they are called, the others on a worker thread. Embedded callers reach it through
``actors/embedded_transaction.py``, sessions through ``actors/session_transactions.py``.

Resource handling:
    An open transaction pins a snapshot and keeps the window of remembered writes from being
    trimmed. Both are let go of when it ends: by its commit, by `roll_back`, or, when its time is
    up, by `Transactions.run`, whether or not anybody still uses it.

Error handling:
    Who uses a transaction that has ended gets the sentence that says how. A call that fails leaves
    the transaction as it was before it; what the call read counts as read.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from actors.embedded import SLICE_BUDGET, SLICE_RESERVE
from actors.mail import Call
from actors.overlay import Overlay
from treestore.engine.optimistic import OptimisticTransaction
from treestore.engine.recording import RecordingWrite
from treestore.engine.transaction import OverBudget, ReadTransaction, WriteTransaction
from treestore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    ResourceExhausted,
    TransactionConflict,
    TreeStoreError,
    Unavailable,
)
from treestore.histogram import Histogram, HistogramSnapshot
from treestore.loggers import get_logger
from treestore.stores.operation import Operation

if TYPE_CHECKING:
    from actors.database import Database
    from actors.reader import Reader

log = get_logger("treestore.transactions")

T = TypeVar("T")

OnEnd = Callable[[TreeStoreError], None]

COMMITTED = InvalidArgument("This transaction was committed; begin another one to go on.")
ROLLED_BACK = InvalidArgument("This transaction was rolled back; begin another one to go on.")

COMMAND_COST = 20
"""Of the budget between two checkpoints, what a short command takes."""

LONG_COMMIT_BYTES = 32 << 10
"""A transaction that changes more is applied on a thread."""


class Transactions:
    """The open transactions of one database, and their keeper."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: dict[RunningTransaction, None] = {}
        self._earlier = trio.Event()
        self._garbage: deque[OptimisticTransaction] = deque()
        self._looks_at = math.inf
        """When the keeper looks next, unless it is woken with the event."""
        self.begun = self.committed = self.conflicts = self.expired = 0
        self._durations: defaultdict[str, Histogram] = defaultdict(Histogram)

    @property
    def open(self) -> int:
        """How many are open."""
        return len(self._open)

    def begin(
        self, owner: str, timeout_s: float, on_end: OnEnd = lambda error: None
    ) -> RunningTransaction:
        """Begin one on the newest durable state.

        Args:
            on_end: called once when it takes no more calls, with what whoever uses it is told.

        Raises:
            ResourceExhausted: too many are open.
            Unavailable: the store is closed.
        """
        database = self._database
        database.ensure_open()
        limit = database.engine.options.transactions_max
        if len(self._open) >= limit:
            raise ResourceExhausted(
                f"{limit} transactions are open, as many as are allowed together; end some, or "
                "try again later."
            )
        now = trio.current_time()
        deadline = now + timeout_s
        transaction = RunningTransaction(database, owner, deadline, timeout_s, on_end)
        transaction.begun_at = now
        self._open[transaction] = None
        self.begun += 1
        if deadline < self._looks_at:
            self._earlier.set()
        return transaction

    def ended(self, transaction: RunningTransaction) -> None:
        """It takes no more calls."""
        self._open.pop(transaction, None)

    def count(self, transaction: RunningTransaction, outcome: str) -> None:
        """It is over, and so it ended; what is said of it later does not count."""
        if transaction.counted:
            return
        transaction.counted = True
        duration_s = trio.current_time() - transaction.begun_at
        self._durations[outcome].observe(duration_s)

    def durations(self) -> Mapping[str, HistogramSnapshot]:
        """Seconds from begin to end, by outcome: ``committed``, ``conflict``, ``rolled_back`` (its
        owner's wish, or an error), ``expired``."""
        return {outcome: found.snapshot() for outcome, found in self._durations.items()}

    def discard(self, core: OptimisticTransaction) -> None:
        """Let go of what a large transaction holds, elsewhere and later."""
        self._garbage.append(core)
        self._earlier.set()

    async def run(self) -> None:
        """End those whose time is up, and let go of what is over; the actor's task."""
        while True:
            while self._garbage:
                await self._database.threads.run(self._garbage.popleft().let_go)
            now = trio.current_time()
            for transaction in [t for t in self._open if t.deadline <= now]:
                transaction.expire()
            self._earlier = trio.Event()
            self._looks_at = min((t.deadline for t in self._open), default=math.inf)
            with trio.move_on_at(self._looks_at):
                await self._earlier.wait()

    def close(self) -> None:
        """The store is being closed: roll all of them back."""
        for transaction in list(self._open):
            transaction.fail(Unavailable("The store is closed; the transaction was rolled back."))


class RunningTransaction:
    """One open interactive transaction."""

    def __init__(
        self,
        database: Database,
        owner: str,
        deadline: float,
        timeout_s: float,
        on_end: OnEnd,
    ) -> None:
        self.deadline = deadline
        """`trio.current_time` at which it is rolled back."""
        self.begun_at = 0.0
        """Likewise, at which it was begun."""
        self.counted = False
        """Whether the registry knows how it ended."""
        self.core: OptimisticTransaction = database.engine.optimistic(owner)
        self.owner = owner
        self._database = database
        self._registry = database.transactions
        self._on_end = on_end
        self._timeout_s = timeout_s
        self._turn: trio.Lock | None = None
        """Held by a call that waits for a thread, and by its commit; made when one does."""
        self._budget = SLICE_BUDGET
        self._ended: TreeStoreError | None = None
        self._overlay: Overlay | None = None
        """What its searches go by, from the first one on."""

    # -- its state ------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""
        return self._ended is None

    def ensure_open(self) -> None:
        """Raise the sentence that says how it ended, once it has."""
        if self._ended is None and trio.current_time() >= self.deadline:
            self.expire()
        if self._ended is not None:
            raise same(self._ended)

    def _end(self, error: TreeStoreError) -> None:
        self._ended = error
        self._registry.ended(self)
        self._on_end(error)

    def expire(self) -> None:
        """Its time is up."""
        if self._ended is None:
            self._registry.expired += 1
            log.warning("a transaction was rolled back: its time was up", owner=self.owner)
            self.fail(
                DeadlineExceeded(
                    f"This transaction was rolled back, for it was open for {self._timeout_s:g} s: "
                    "nothing of it was applied. Run it again, with a longer timeout where it needs "
                    "one."
                ),
                "expired",
            )

    def roll_back(self) -> None:
        """Drop everything; harmless once it has ended."""
        if self._ended is None:
            self.fail(ROLLED_BACK)

    def fail(self, error: TreeStoreError, outcome: str = "rolled_back") -> None:
        """Roll back; whoever uses it from now on gets ``error``."""
        self._end(error)
        self._let_go()
        self._registry.count(self, outcome)

    # -- its calls ------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        """Whether a call that waits for a thread is under way."""
        return self._turn is not None and self._turn.locked()

    def _wait_turn(self) -> trio.Lock:
        """To be held by whoever waits, so that calls are run one at a time and in order."""
        if self._turn is None:
            self._turn = trio.Lock()
        return self._turn

    def try_query(self, read: Callable[[ReadTransaction], T], *, raw: bool) -> T:
        """Run a query at once.

        Raises:
            OverBudget: it has to wait for another call, or for a thread: `query`.
        """
        if self._budget < SLICE_RESERVE or self._busy:
            raise OverBudget
        self.ensure_open()
        txn = self.core.query(self._budget, raw=raw)
        try:
            answer = read(txn)
        finally:
            self._budget = txn.budget
        self.core.check_reads()
        return answer

    def try_command(self, change: Callable[[RecordingWrite], T], *, raw: bool) -> T:
        """Run a short command at once.

        Raises:
            OverBudget: it has to wait: `command`.
        """
        if self._budget < SLICE_RESERVE or self._busy:
            raise OverBudget
        self._budget -= COMMAND_COST
        self.ensure_open()
        return self._change(change, raw)

    def _change(self, change: Callable[[RecordingWrite], T], raw: bool) -> T:
        command = self.core.command(raw=raw)
        answer = change(command)
        self.core.check_reads()
        self.core.keep(command)
        return answer

    async def query(self, read: Callable[[ReadTransaction], T], *, raw: bool) -> T:
        """Run a query when the calls before it are done; on a thread where it takes long."""
        await self._next_slice()
        async with self._wait_turn():
            self.ensure_open()
            txn = self.core.query(self._budget, raw=raw)
            try:
                answer = read(txn)
            except OverBudget:
                long = self.core.long_query(raw=raw)
                long.between_slices = self._database.threads.check_cancelled
                answer = await self._in_thread(lambda: read(long))
            finally:
                self._budget = txn.budget
            self.core.check_reads()
            return answer

    async def command(self, change: Callable[[RecordingWrite], T], *, raw: bool, long: bool) -> T:
        """Run a command when the calls before it are done; on a thread where it is ``long``."""
        await self._next_slice()
        async with self._wait_turn():
            self.ensure_open()
            if not long:
                return self._change(change, raw)
            self.core.merged()  # Not on the thread: a stream may be opened meanwhile.
            command = self.core.command(raw=raw)
            answer = await self._in_thread(lambda: change(command))
            # It may have ended meanwhile.
            self.ensure_open()
            self.core.check_reads()
            self.core.keep(command)
            return answer

    async def prepared(self, prepare: Callable[[], Any], *, encode: Callable[[Any], T]) -> T:
        """Run a two-stage command: prepared apart, while other calls go on, then as a command."""
        self.ensure_open()
        apply = await self._database.threads.run(prepare)
        raw = encode is not as_it_is
        return await self.command(lambda txn: encode(apply(txn)), raw=raw, long=True)

    async def awaited(self, call: Callable[[Reader], Awaitable[T]], *, raw: bool) -> T:
        """Run a read that may have to wait for an index, when the calls before it are done.

        Args:
            call: is given what to read with: the transaction's state, its own writes included.
        """
        await self._next_slice()
        async with self._wait_turn():
            self.ensure_open()
            core = self.core
            core.merged()  # Before anything is read on a thread.
            if self._overlay is None:
                self._overlay = Overlay(core)
            reader = self._database.reader(core.lease, raw=raw, overlay=self._overlay)
            try:
                with trio.move_on_at(self.deadline):
                    answer = await call(reader)
                    core.check_reads()
                    return answer
            except Exception:
                self.ensure_open()  # Where it has ended meanwhile, that is why.
                raise
            self.ensure_open()
            raise AssertionError("its time was up")

    async def _next_slice(self) -> None:
        """Once a millisecond of work let the other tasks run."""
        if self._budget < SLICE_RESERVE:
            self._budget = SLICE_BUDGET
            await trio.lowlevel.checkpoint()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        database = self._database
        lease = self.core.lease
        lease.begin_read()  # Its pages stay, though it be evicted or rolled back meanwhile.
        try:
            return await database.threads.run(work, limiter=database.read_limiter)
        finally:
            lease.end_read()

    # -- its end --------------------------------------------------------------------------------

    async def begin_commit(self) -> bool:
        """Let the calls under way end, take no more, and do what can be done outside the writer.

        Returns:
            Whether there is anything to commit; if not, it is over.

        Raises:
            TransactionConflict: what it read was changed since; it is over.
        """
        self.ensure_open()
        async with self._wait_turn():
            self.ensure_open()
            if not self._settle():
                return False
            core = self.core
            if core.is_heavy:
                # Before the writer's turn, since everybody waits for that.
                try:
                    await self._in_thread(core.validate_ahead)
                except BaseException as error:
                    self.finished(error)
                    raise
            return True

    def begin_commit_now(self) -> bool | None:
        """`begin_commit` where that needs no waiting; None where it does."""
        if self._busy or (self.core.writes and self.core.is_heavy):
            return None
        self.ensure_open()
        return self._settle()

    def _settle(self) -> bool:
        self._end(COMMITTED)
        core = self.core
        if not core.writes:
            # It read one state, the newest when it began: that is its place in the order.
            self._registry.committed += 1
            self._registry.count(self, "committed")
            self._let_go()
            return False
        return True

    @property
    def is_long(self) -> bool:
        """Whether its commit is no work for the event loop."""
        core = self.core
        return core.size_bytes > LONG_COMMIT_BYTES or core.is_heavy

    def _let_go(self) -> None:
        core = self.core
        if core.closed:
            return
        core.close()
        if core.holds_much:
            self._registry.discard(core)

    def taken_back(self) -> None:
        """The writer has not begun the commit, and never will."""
        self._let_go()
        self._registry.count(self, "rolled_back")

    def finished(self, error: BaseException | None) -> None:
        """The commit is done, or failed."""
        self._let_go()
        outcome = "rolled_back"
        if error is None:
            outcome = "committed"
            self._registry.committed += 1
        elif isinstance(error, TransactionConflict):
            outcome = "conflict"
            self._registry.conflicts += 1
        self._registry.count(self, outcome)

    async def commit(self, call: Callable[[], Call] | None = None) -> Any:
        """Commit; durable when this returns.

        Args:
            call: makes what is put into the writer's mailbox.

        Cancellation: as for a single command, see `Writer.execute`.

        Raises:
            TransactionConflict: another one changed what this read; nothing was changed.
            TreeStoreError: what a single command may raise.
        """
        begun = self.begin_commit_now()
        if begun is None:
            begun = await self.begin_commit()
        if not begun:
            await trio.lowlevel.checkpoint()
            return None
        mail = CommitCall(self) if call is None else call()
        try:
            return await self._database.writer.execute(mail)
        except BaseException:
            mail.cancel()  # The writer may not even have taken it.
            raise


def same(error: TreeStoreError) -> TreeStoreError:
    """The error once more, to be raised: tracebacks must not be shared."""
    return type(error)(error.message)


def as_it_is(result: T) -> T:
    """The result of a two-stage command for an embedded caller: not encoded."""
    return result


class CommitMail:
    """What the commits in the writer's mailbox have in common."""

    __slots__ = ()

    _transaction: RunningTransaction

    @property
    def long(self) -> bool:
        """Asked when its turn comes: what it has to be validated against grows meanwhile."""
        return self._transaction.is_long

    @long.setter
    def long(self, long: bool) -> None:
        pass


class CommitCall(CommitMail, Call):
    """A commit whose caller waits for it, in the writer's mailbox."""

    __slots__ = ("_transaction",)

    def __init__(
        self,
        transaction: RunningTransaction,
        run: Callable[[WriteTransaction], Any] | None = None,
        *,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        core = transaction.core
        super().__init__(
            run or core.apply,
            size=core.size_bytes,
            deadline=transaction.deadline,
            on_failure=on_failure,
        )
        self._transaction = transaction

    def report(self) -> None:
        """See `Mail.report`."""
        self._transaction.finished(self.error)
        super().report()

    def cancel(self) -> bool:
        """See `Mail.cancel`."""
        taken_back = super().cancel()
        if taken_back:
            self._transaction.taken_back()
        return taken_back


def refusal(operation: Operation) -> InvalidArgument:
    """Why an operation cannot be done inside a transaction."""
    return InvalidArgument(
        f"{operation.name} cannot be done inside a transaction, for it is no read or write of "
        "stored data; call it on the database."
    )
