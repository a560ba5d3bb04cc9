"""Transactions over a connection: begun with their first call, committed in one message.

A transaction lives on one connection. Its first call begins it, so beginning costs no round trip;
where nothing was written its end costs none either. When the connection is lost the server rolls
it back. A commit whose answer was lost is settled on another connection, under the number that it
was sent with: the server either has its answer, or makes sure that it is never applied
(``docs/protocol.md``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from protocol.messages import EMPTY_MAP
from treestore.client.calls import ConnectionLost
from treestore.client.connection import AnyConnection
from treestore.client.pool import Pool
from treestore.client.remote import ClientCaller, Send, decoder_of
from treestore.client.stream import WINDOW_SIZE_BYTES, RemoteStream
from treestore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    SnapshotExpired,
    TransactionConflict,
    TreeStoreError,
)
from treestore.retrying import checked_timeout
from treestore.services import Stores
from treestore.stores.operation import Async, Operation, ReadWrite

COMMIT, ROLLBACK = "session.commit", "session.rollback"

WRITES = ("command", "prepared")

Face = TypeVar("Face")

_decode: msgspec.msgpack.Decoder[bool] = msgspec.msgpack.Decoder(bool)


class TransactionCaller(ClientCaller):
    """Calls inside one transaction."""

    def __init__(self, pool: Pool, timeout_s: float) -> None:
        self._pool = pool
        self._now = pool.runtime.now
        self._timeout_s = timeout_s
        self._deadline = self._now() + timeout_s
        self._connection: AnyConnection | None = None
        self._number = 0
        self._begun = False
        """Whether the server is known to have begun it."""
        self._wrote = False
        self._doubtful = False
        """Whether it is unknown if a write inside it was done."""
        self._ended: str | None = None

    @property
    def pool(self) -> Pool:
        """The connections."""
        return self._pool

    def sender(self, operation: Operation) -> Send:
        """How the operation is sent."""
        return partial(self._send, operation.name, operation.kind in WRITES)

    def stream(
        self, operation: Operation, params: msgspec.Raw, arguments: dict[str, Any]
    ) -> RemoteStream[Any]:
        """A stream with these parameters, not yet begun."""
        return TransactionStream(self, operation, params, arguments)

    async def connection(self) -> AnyConnection:
        """The transaction's own, chosen when it is first needed.

        Raises:
            SnapshotExpired: it was lost, and the transaction with it.
            InvalidArgument, DeadlineExceeded: it has ended.
        """
        now = self._ensure_open()
        if self._connection is None:
            connection = self._pool.pick() or await self._pool.connection(self._deadline_at(now))
            # Another task of the transaction may have been as far.
            if self._connection is None:
                self._connection = connection
                self._number = connection.new_transaction()
        if self._connection.lost:
            raise gone("The connection was lost.")
        return self._connection

    def place(self) -> tuple[int, int | None]:
        """Its number; and, until it is known to have begun, how many milliseconds it has left."""
        if self._begun:
            return self._number, None
        left_s = self._deadline - self._now()
        return self._number, max(1, int(left_s * 1000))

    def answered(self, error: TreeStoreError | None = None) -> None:
        """The server answered a call; then it has begun the transaction, unless it says not."""
        if error is None or not error.details.get("no_transaction"):
            self._begun = True

    def _deadline_at(self, now: float) -> float:
        """When a call that begins now is given up."""
        return min(self._deadline, now + self._pool.timeout_s)

    def _ensure_open(self) -> float:
        """Raise how it ended, once it has; gives the time now."""
        if self._ended is not None:
            raise InvalidArgument(
                f"This transaction was {self._ended}; begin another one to go on."
            )
        now = self._now()
        if now >= self._deadline:
            self._roll_back("rolled back")
            raise self._too_late()
        return now

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"This transaction was rolled back, for it was open for {self._timeout_s:g} s: nothing "
            "of it was applied. Run it again, with a longer timeout where it needs one."
        )

    async def _send(self, method: str, writes: bool, params: msgspec.Raw) -> msgspec.Raw:
        while True:
            connection = await self.connection()
            number, begin_ms = self.place()
            self._wrote = self._wrote or writes
            known = False
            try:
                raw = await connection.call(
                    method,
                    params,
                    self._deadline_at(self._now()),
                    transaction=number,
                    begin_ms=begin_ms,
                )
                known = True
            except ConnectionLost as lost:
                known = True
                if connection is self._connection:
                    if self._begun:
                        raise gone(str(lost)) from lost
                    # Nothing of it was ever answered: it may as well begin elsewhere.
                    self._connection = None
                await self._pool.runtime.checkpoint()
                continue
            except TreeStoreError as error:
                known = not isinstance(error, DeadlineExceeded)
                self.answered(error)
                raise
            finally:
                # Given up by its caller, or by us: who knows what the server made of it.
                self._doubtful = self._doubtful or (writes and not known)
            self.answered()
            return raw

    # --- the end ---------------------------------------------------------------------------

    def roll_back(self) -> None:
        """Drop it; harmless once it has ended. Never waits."""
        if self._ended is None:
            self._roll_back("rolled back")

    def _roll_back(self, how: str) -> None:
        self._ended = how
        connection = self._connection
        if connection is not None and not connection.lost:
            try:
                connection.post(ROLLBACK, EMPTY_MAP, transaction=self._number)
            except ConnectionLost:
                pass

    async def commit(self) -> None:
        """Commit; durable when this returns. See `RemoteDatabase.transaction`."""
        now = self._now()
        if now >= self._deadline:
            self._ensure_open()
        connection, self._ended = self._connection, "committed"
        if connection is None or not self._wrote:
            # What it read was one state, the newest when it began: nothing is to be validated.
            self._roll_back("committed")
            await self._pool.runtime.checkpoint()
            return
        if self._doubtful:
            self._roll_back("rolled back")
            raise TransactionConflict(
                "A write inside this transaction was given up while it was under way, so it is "
                "not known whether the transaction has it. It was rolled back; run it again."
            )
        sequencer = self._pool.sequencer
        sequence = sequencer.take()
        try:
            raw = await connection.call(
                COMMIT,
                EMPTY_MAP,
                self._deadline_at(now),
                sequence=sequence,
                watermark=sequencer.watermark,
                settle=True,
                transaction=self._number,
            )
        except ConnectionLost as lost:
            if not lost.begun:
                raise gone(str(lost)) from lost
            # Have the server say what became of it: from then on that is so.
            raw = await self._pool.settled(COMMIT, EMPTY_MAP, sequence)
        finally:
            sequencer.release(sequence)
        if not _decode.decode(raw):
            raise gone("Its commit did not arrive.")


class TransactionStream(RemoteStream[Any]):
    """A stream inside a transaction: its state when the stream was opened, own writes included."""

    def __init__(
        self,
        caller: TransactionCaller,
        operation: Operation,
        params: msgspec.Raw,
        arguments: dict[str, Any],
    ) -> None:
        pool = caller.pool
        super().__init__(
            pool.runtime,
            caller.connection,
            operation.name,
            params,
            decoder_of(operation),
            snapshot=None,
            timeout_s=pool.timeout_s,
            cursor=partial(operation.cursor_after, arguments),
        )
        self._caller = caller

    @property
    def _repeatable(self) -> bool:
        return False

    def _open(self, connection: AnyConnection) -> int:
        number, begin_ms = self._caller.place()
        return connection.open_stream(
            self._method,
            self._params,
            self._inbox,
            snapshot=None,
            credit_bytes=WINDOW_SIZE_BYTES,
            transaction=number,
            begin_ms=begin_ms,
        )

    def _finish(self) -> None:
        error = self._inbox.error
        if isinstance(error, ConnectionLost):
            self._closed = True
            raise gone(str(error)) from error
        self._caller.answered(error if isinstance(error, TreeStoreError) else None)
        super()._finish()


def gone(why: str) -> SnapshotExpired:
    """The transaction ended with its connection."""
    return SnapshotExpired(
        "The transaction is gone with its connection, and nothing of it was applied; run it "
        f"again. {why}"
    )


class RemoteTransaction(Stores[Async, ReadWrite]):
    """The services inside a transaction: those of a database but ``admin``."""


class OpenTransaction(Generic[Face]):
    """A transaction for the time of a block, committed where that ends well.

    A class, since two generators cost as much as a call.

    Args:
        face: makes of the caller what the block gets.
    """

    def __init__(self, pool: Pool, timeout: Any, face: Callable[[TransactionCaller], Face]) -> None:
        self._pool = pool
        self._timeout_s = checked_timeout(timeout)
        self._face = face
        self._caller: TransactionCaller | None = None

    async def __aenter__(self) -> Face:
        caller = self._caller = TransactionCaller(self._pool, self._timeout_s)
        return self._face(caller)

    async def __aexit__(self, kind: object, error: BaseException | None, where: object) -> None:
        caller = self._caller
        assert caller is not None
        try:
            if error is None:
                await caller.commit()  # noqa: ASYNC102 - no clean-up: it may be cancelled
        finally:
            caller.roll_back()
