"""A few connections to one server, kept open, and the rules of sending a request again.

Resource handling: within `Pool.serve` as many connections as wanted are kept open; they are
closed at its end.

Error handling: a lost connection is opened again after a growing, jittered wait, one attempt at a
time. Calls wait for a connection until their deadline, unless the breaker is open. If the pool's
own code fails, calls raise `Unavailable`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec

from treestore.client.breaker import Breaker
from treestore.client.calls import Backoff, ConnectionLost, Deduplicate, Sequencer
from treestore.client.connection import AnyConnection, Target
from treestore.client.runtime import Event, Runtime, Tasks
from treestore.errors import (
    DeadlineExceeded,
    OutcomeUnknown,
    RateLimited,
    TreeStoreError,
    Unauthenticated,
    Unavailable,
)
from treestore.stores.operation import Operation

CONNECT_TIMEOUT_S = 10.0
"""One attempt to connect and say hello."""

LASTING_S = 1.0
"""A connection that held this long counts as a success: the next wait begins small again."""

CLOSED = "The client was closed."


class Pool:
    """The connections of a client."""

    def __init__(
        self,
        runtime: Runtime,
        target: Target,
        *,
        connections: int = 2,
        timeout_s: float = 30.0,
        deduplicate: Deduplicate = "all",
        breaker: Breaker | None = None,
        wait_when_limited: bool = False,
    ) -> None:
        self.wait_when_limited = wait_when_limited
        """Whether a call beyond the rate limit waits, up to its deadline, instead of failing."""
        self.runtime = runtime
        self.target = target
        self.size = connections
        self.timeout_s = timeout_s
        self.sequencer = Sequencer(target.random)
        self._now = runtime.now
        self._deduplicate = deduplicate
        self._breaker = breaker or Breaker()
        self._backoff = Backoff(random=target.random)
        self._connections: list[AnyConnection] = []
        self._serving = 0
        self._lost_one = False
        self._changed: Event = runtime.event()
        self._short: Event = runtime.event()
        """Set where a connection should be opened."""
        self._closed: str | None = None
        self._last_error: TreeStoreError | None = None

    # --- connections -----------------------------------------------------------------------

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[None, None]:
        """Keep connections open while the block runs. The first one is there when it begins.

        Raises:
            Unavailable: the server cannot be reached.
            TreeStoreError: it refused.
            Exception: what the block raised, as it is.
        """
        first = await self.connect()
        try:
            async with self.runtime.background() as tasks:
                tasks.start(self._fill, tasks, first)
                try:
                    # One turn of the loop, so that the first call finds the connection.
                    await self.connection(self.deadline())
                    yield
                finally:
                    self.close(CLOSED)
        finally:
            await first.aclose()  # Where the task was cancelled before it took it over.

    def close(self, reason: str) -> None:
        """Fail every call from now on, and those that wait for a connection."""
        self._closed = self._closed or reason
        for connection in self._connections:
            connection.close()
        self._notify()
        self._short.set()

    async def connect(self) -> AnyConnection:
        """One attempt to connect; errors as `Runtime.connect`'s."""
        return await self.runtime.connect(self.target, self.sequencer, CONNECT_TIMEOUT_S)

    async def _fill(self, tasks: Tasks, first: AnyConnection) -> None:
        """Open connections while there are too few."""
        try:
            self._adopt(tasks, first)
            while self._closed is None:
                if self._serving >= self.size:
                    self._short = self.runtime.event()
                    await self._short.wait()
                elif self._lost_one:
                    # A server that accepts and hangs up at once must not be hammered.
                    self._lost_one = False
                    await self.runtime.sleep(self._backoff.next())
                else:
                    await self._attempt(tasks)
        except Exception as error:
            self._failed(error)

    async def _attempt(self, tasks: Tasks) -> None:
        """Try to connect; where that fails, wait a while."""
        try:
            connection = await self.connect()
        except TreeStoreError as error:
            self._last_error = error
            wait_s = self._backoff.next()
            if not self._serving:
                wait_s = self._breaker.failed(self._now(), wait_s)
            if isinstance(error, Unauthenticated) or self._breaker.is_open:
                self._notify()  # Those who wait are told; waiting will not help them.
            self._short = self.runtime.event()
            await self.runtime.wait(self._short, self._now() + wait_s)
            return
        if self._closed is None:
            self._adopt(tasks, connection)
        else:  # Too late for a task to begin.
            await connection.aclose()

    def _adopt(self, tasks: Tasks, connection: AnyConnection) -> None:
        self._last_error = None
        self._breaker.succeeded()
        self._serving += 1
        self._connections.append(connection)
        self._notify()
        tasks.start(self._run, connection)

    async def _run(self, connection: AnyConnection) -> None:
        """Serve one connection until it ends."""
        opened_at = self._now()
        try:
            await connection.run()
        except Exception as error:
            self._failed(error)
        finally:
            self._connections.remove(connection)
            self._serving -= 1
            self._lost_one = True
            if self._now() - opened_at > LASTING_S:
                self._backoff.reset()
            self._short.set()

    def _failed(self, error: Exception) -> None:
        """A fault in here must not cancel the caller's block: calls say so instead."""
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        self.close(f"The client failed: {error!r}.")

    def _notify(self) -> None:
        self._changed.set()
        self._changed = self.runtime.event()

    def pick(self) -> AnyConnection | None:
        """The usable connection with the least to do, or None."""
        if len(self._connections) == 1:
            [only] = self._connections
            return only if only.usable else None
        best: AnyConnection | None = None
        load = 0
        for connection in self._connections:
            if connection.usable:
                its_load = connection.load
                if best is None or its_load < load:
                    best, load = connection, its_load
        return best

    async def connection(self, deadline: float, *, patient: bool = False) -> AnyConnection:
        """A usable connection, waiting for one until ``deadline``.

        Args:
            patient: wait also while the breaker is open, for a command that was sent already.
        """
        while True:
            if self._closed is not None:
                raise Unavailable(self._closed)
            connection = self.pick()
            if connection is not None:
                return connection
            if isinstance(self._last_error, Unauthenticated):
                raise Unauthenticated(self._last_error.message)
            why = f" ({self._last_error})" if self._last_error is not None else ""
            if self._breaker.is_open and not patient:
                raise Unavailable(f"{self._breaker.sentence(self._now())}{why}")
            if not await self.runtime.wait(self._changed, deadline):
                why = f" ({self._last_error})" if self._last_error is not None else ""
                raise Unavailable(f"No connection to the server came up in time{why}.")

    # --- calls -----------------------------------------------------------------------------

    def deadline(self) -> float:
        """When a call that begins now is given up."""
        return self._now() + self.timeout_s

    async def query(self, method: str, params: msgspec.Raw) -> msgspec.Raw:
        """A request that may be sent any number of times."""
        deadline = self.deadline()
        while True:
            connection = self.pick() or await self.connection(deadline)
            try:
                return await connection.call(method, params, deadline)
            except RateLimited as error:
                wait_s = self._wait_of(error, deadline)
            except ConnectionLost:
                wait_s = 0.0
            await self._pause(wait_s)
            if self._now() >= deadline:
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

    async def settled(self, method: str, params: msgspec.Raw, sequence: int) -> msgspec.Raw:
        """The answer to a command that may have been sent before, under its number."""
        return await self._command(method, params, sequence, begun=True)

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

    async def _command(
        self, method: str, params: msgspec.Raw, sequence: int, *, begun: bool = False
    ) -> msgspec.Raw:
        deadline = self.deadline()
        while True:
            try:
                connection = self.pick() or await self.connection(deadline, patient=begun)
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
                wait_s = 0.0
            except (Unavailable, DeadlineExceeded, RateLimited) as error:
                try:
                    wait_s = self._wait_of(error, deadline)
                except TreeStoreError:
                    # "Nothing was changed" holds for this attempt, not for one before it.
                    if begun:
                        raise _unknown(str(error)) from error
                    raise
            await self._pause(wait_s)
            if self._now() >= deadline:
                if begun:
                    raise _unknown("The connection was lost.")
                raise DeadlineExceeded("The deadline passed before the command could be sent.")

    def _wait_of(self, error: TreeStoreError, deadline: float) -> float:
        """In how many seconds the server takes the request again.

        Raises:
            TreeStoreError: the given one, where waiting is not wanted, would be too late or of no
                use.
        """
        if not isinstance(error, RateLimited) or not self.wait_when_limited:
            raise error
        wait_s = error.retry_after_s
        if wait_s is None or self._now() + wait_s >= deadline:
            raise error
        return wait_s

    async def _pause(self, wait_s: float) -> None:
        """Before the next attempt: a turn of the loop, at least."""
        if wait_s > 0:
            await self.runtime.sleep(wait_s)
        else:
            await self.runtime.checkpoint()


def _unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"A connection was lost while the command was under way, and it could not be settled "
        f"since; it may or may not have been applied. {why}"
    )
