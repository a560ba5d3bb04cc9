"""What a session keeps of a request in flight, and how errors become answers."""

from __future__ import annotations

import msgspec
import trio

from actors.host import HostTransaction, Submission
from actors.misfits import misfit
from protocol import codes
from protocol.messages import Failure, Request
from treestore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    OutcomeUnknown,
    TreeStoreError,
    Unavailable,
)
from treestore.stores.deduplication import Deduplication, request_checksum
from treestore.stores.operation import OPERATIONS, Operation

STREAMED = ("stream", "feed")
"""Kinds of operations whose items are sent as the client has room for them."""

MESSAGE_SIZE_MAX = 4096
"""Characters of an error's message that are sent."""


class Command:
    """A command at the writer, or waiting for room in its mailbox."""

    __slots__ = (
        "began",
        "cancelled",
        "deadline",
        "deduplication",
        "id",
        "method",
        "operation",
        "parameters",
        "size_bytes",
        "submission",
        "transaction",
    )

    def __init__(
        self,
        id: int,
        operation: Operation,
        parameters: msgspec.Struct,
        size_bytes: int,
        deadline: float | None,
        deduplication: Deduplication | None,
    ) -> None:
        self.id = id
        self.operation = operation
        self.parameters = parameters
        self.size_bytes = size_bytes
        self.deadline = deadline
        self.deduplication = deduplication
        self.submission: Submission | None = None
        self.transaction: HostTransaction | None = None
        """It is the commit of this one."""
        self.cancelled = False
        """Whether the client took it back."""
        self.method, self.began = "", 0.0


class Task:
    """A request that runs in a task of its own."""

    __slots__ = (
        "_credited",
        "began",
        "cancelled",
        "credit_bytes",
        "ended_by",
        "endless",
        "id",
        "is_stream",
        "method",
        "scope",
        "size_bytes",
        "writes",
    )

    def __init__(self, id: int, size_bytes: int, deadline: float | None) -> None:
        self.id = id
        self.size_bytes = size_bytes
        self.scope = trio.CancelScope()
        self.writes = False
        """Whether it changes something; the host itself minds its deadline then."""
        self.is_stream = False
        self.endless = False
        """A feed: it is cut off when the server stops."""
        self.ended_by: TreeStoreError | None = None
        """Why the server stopped it, where it was not its deadline."""
        self.cancelled = False
        """Whether the client asked to stop it."""
        self.credit_bytes = 0
        """Streams: bytes of items that the client is ready for; below 0 after a long item."""
        self._credited: trio.Event | None = None
        self.method, self.began = "", 0.0
        """What was asked for, and when (`time.perf_counter`)."""
        if deadline is not None:
            self.scope.deadline = deadline

    def add_credit(self, size_bytes: int) -> None:
        """The client is ready for more."""
        self.credit_bytes += size_bytes
        if self._credited is not None:
            self._credited.set()

    async def wait_for_credit(self) -> None:
        """Return once the client is ready for an item. A checkpoint if it waits."""
        while self.credit_bytes <= 0:
            self._credited = trio.Event()
            await self._credited.wait()
            self._credited = None

    def interrupted(self) -> TreeStoreError:
        """The error to answer with after the scope was cancelled."""
        if self.ended_by is not None:
            return self.ended_by
        if self.endless and not self.cancelled:
            return Unavailable("The server is stopping; watch on from here later.", not_begun=True)
        why = "was cancelled by the client" if self.cancelled else "reached its deadline"
        if self.writes:
            # The writer may have begun it; only the host knows, and it was interrupted.
            return OutcomeUnknown(f"The command {why}; it may or may not have been applied.")
        return DeadlineExceeded(f"The request {why} before it was done.")


def deduplication_of(client: bytes, request: Request) -> Deduplication | None:
    """What a command's number says, if it has one."""
    if request.sequence is None:
        return None
    checksum = request_checksum(request.method, request.params)
    return Deduplication(client, request.sequence, request.watermark, checksum)


def parameters_error(method: str, error: Exception) -> InvalidArgument:
    """The answer to parameters that do not fit their operation."""
    if isinstance(error, RecursionError):
        return InvalidArgument(f"The parameters of {method} are nested too deeply.")
    operation = OPERATIONS.get(method)
    words = None if operation is None else misfit(operation, error)
    return InvalidArgument(words or f"The parameters of {method} are wrong: {error}")


def failure_of(request: int, error: Exception) -> Failure:
    """``error`` as the answer of ``request``."""
    if isinstance(error, TreeStoreError):
        message = error.message
        if len(message) > MESSAGE_SIZE_MAX:
            message = message[:MESSAGE_SIZE_MAX] + "…"
        return Failure(request, error.code, message, error.details)
    return Failure(
        request, codes.INTERNAL, "The server failed on this request; its log has the details."
    )
