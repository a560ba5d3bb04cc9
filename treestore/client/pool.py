"""A few connections to one server, kept open, and the rules of sending a request again.

Resource handling: `Pool.run` keeps ``connections`` connections open and closes them on return; it
is cancelled to stop. It raises only `trio.Cancelled`.

Error handling: a lost connection is opened again after a growing, jittered wait. Calls wait for a
connection until their deadline. If the pool's own code fails, calls raise `Unavailable`.
"""

from __future__ import annotations

import math

import msgspec
import trio

from treestore.client.calls import Backoff, ConnectionLost, Deduplicate, Sequencer
from treestore.client.connection import Connection, Target
from treestore.errors import (
    DeadlineExceeded,
    OutcomeUnknown,
    TreeStoreError,
    Unauthenticated,
    Unavailable,
)
from treestore.stores.operation import Operation

CONNECT_TIMEOUT_S = 10.0
"""One attempt to connect and say hello."""

LASTING_S = 1.0
"""A connection that held this long counts as a success: the next wait begins small again."""


class Pool:
    """The connections of a client."""

    def __init__(
        self, target: Target, connections: int, timeout_s: float, deduplicate: Deduplicate
    ) -> None:
        self.target = target
        self.size = connections
        self.timeout_s = timeout_s
        self.sequencer = Sequencer(target.random)
        self._deduplicate = deduplicate
        self._connections: list[Connection] = []
        self._changed = trio.Event()
        self._closed: str | None = None
        self._last_error: TreeStoreError | None = None

    # --- connections -----------------------------------------------------------------------

    async def run(self, first: Connection) -> None:
        """Keep the connections open until cancelled. ``first`` is open already."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep, first)
                for _ in range(self.size - 1):
                    nursery.start_soon(self._keep, None)
        except* Exception as group:
            # A fault in here must not cancel the caller's body: calls say so instead.
            self.close(f"The client failed: {group.exceptions[0]!r}.")
        finally:
            self.close("The client was closed.")

    def close(self, reason: str) -> None:
        """Fail every call from now on, and those that wait for a connection."""
        self._closed = self._closed or reason
        for connection in self._connections:
            connection.close()
        self._notify()

    async def _keep(self, connection: Connection | None) -> None:
        """Keep one connection open."""
        backoff = Backoff(random=self.target.random)
        while self._closed is None:
            if connection is None:
                try:
                    connection = await self.connect()
                except TreeStoreError as error:
                    self._last_error = error
                    if isinstance(error, Unauthenticated):
                        self._notify()  # Those who wait are told; waiting will not help them.
                    await trio.sleep(backoff.next())
                    continue
            self._last_error = None
            opened_at = trio.current_time()
            self._connections.append(connection)
            self._notify()
            try:
                await connection.run()
            finally:
                self._connections.remove(connection)
            connection = None
            # A server that accepts and hangs up at once must not be hammered.
            if trio.current_time() - opened_at > LASTING_S:
                backoff.reset()
            await trio.sleep(backoff.next())

    async def connect(self) -> Connection:
        """One attempt to connect; errors as `Connection.open`'s."""
        with trio.move_on_after(CONNECT_TIMEOUT_S):
            return await Connection.open(self.target, self.sequencer)
        raise Unavailable(f"{self.target.host}:{self.target.port} did not answer the hello.")

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def pick(self) -> Connection | None:
        """The usable connection with the least to do, or None."""
        if len(self._connections) == 1:
            [only] = self._connections
            return only if only.usable else None
        best: Connection | None = None
        load = 0
        for connection in self._connections:
            if connection.usable:
                its_load = connection.load
                if best is None or its_load < load:
                    best, load = connection, its_load
        return best

    async def connection(self, deadline: float) -> Connection:
        """A usable connection, waiting for one until ``deadline``."""
        while True:
            if self._closed is not None:
                raise Unavailable(self._closed)
            connection = self.pick()
            if connection is not None:
                return connection
            if isinstance(self._last_error, Unauthenticated):
                raise Unauthenticated(self._last_error.message)
            with trio.move_on_at(deadline) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                why = f" ({self._last_error})" if self._last_error is not None else ""
                raise Unavailable(f"No connection to the server came up in time{why}.")

    # --- calls -----------------------------------------------------------------------------

    def deadline(self) -> float:
        """When a call that begins now is given up."""
        return trio.current_time() + self.timeout_s

    async def query(self, method: str, params: msgspec.Raw) -> msgspec.Raw:
        """A request that may be sent any number of times."""
        deadline = self.deadline()
        while True:
            connection = self.pick() or await self.connection(deadline)
            try:
                return await connection.call(method, params, deadline)
            except ConnectionLost:
                await trio.lowlevel.checkpoint()
            if trio.current_time() >= deadline:
                raise DeadlineExceeded("No answer came in time; the connection was lost.")

    async def command(self, operation: Operation, params: msgspec.Raw) -> msgspec.Raw:
        """A request that changes something: applied once, however often it is sent."""
        if operation.idempotent and self._deduplicate == "not_idempotent":
            return await self.query(operation.name, params)
        if operation.kind == "action" and operation.long:
            return await self._once(operation.name, params)
        sequencer = self.sequencer
        sequence = sequencer.take()
        try:
            return await self._command(operation.name, params, sequence)
        finally:
            sequencer.release(sequence)

    async def _once(self, method: str, params: msgspec.Raw) -> msgspec.Raw:
        """A request that takes as long as it takes, and is sent once."""
        connection = self.pick() or await self.connection(self.deadline())
        try:
            return await connection.call(method, params, math.inf)
        except ConnectionLost as lost:
            raise Unavailable(
                f"The connection was lost while {method} was under way ({lost}); the server stops "
                "it when it notices. See what is there, then call it again."
            ) from lost

    async def _command(self, method: str, params: msgspec.Raw, sequence: int) -> msgspec.Raw:
        deadline = self.deadline()
        begun = False
        while True:
            try:
                connection = self.pick() or await self.connection(deadline)
                return await connection.call(
                    method,
                    params,
                    deadline,
                    sequence=sequence,
                    watermark=self.sequencer.watermark,
                    settle=True,
                )
            except ConnectionLost as lost:
                begun = begun or lost.begun
                await trio.lowlevel.checkpoint()
            except (Unavailable, DeadlineExceeded) as error:
                # "Nothing was changed" holds for this attempt, not for one before it.
                if begun:
                    raise _unknown(str(error)) from error
                raise
            if trio.current_time() >= deadline:
                if begun:
                    raise _unknown("The connection was lost.")
                raise DeadlineExceeded("The deadline passed before the command could be sent.")


def _unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"A connection was lost while the command was under way, and it could not be settled "
        f"since; it may or may not have been applied. {why}"
    )
