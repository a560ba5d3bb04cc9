"""The output side of a session: answers of requests, as messages in the outbox."""

from __future__ import annotations

from actors.memory import Account
from actors.observability.requests import Failed
from actors.session_work import failure_of
from actors.wire import Counters
from protocol import codes
from protocol.connection import ServerConnection
from protocol.errors import MessageTooLarge
from protocol.limits import KIB
from protocol.messages import Failure
from treestore.client.duplex import Duplex
from treestore.errors import ResourceExhausted
from treestore.loggers import get_logger

log = get_logger("treestore.session")

LARGE_SIZE_BYTES = 64 * KIB
"""Output of this size and more is charged to the memory budget."""


class Answers:
    """Queues answers; the session decides when they are flushed."""

    def __init__(
        self,
        duplex: Duplex,
        connection: ServerConnection,
        account: Account,
        counters: Counters,
        session: str,
    ) -> None:
        self._append = duplex.append
        self._duplex = duplex
        self._send = connection.send
        self._send_response = connection.send_response
        self._account = account
        self._counters = counters
        self._session = session
        self.failed: Failed | None = None
        """What the last request failed with, until somebody takes note of it."""

    def answer(self, request: int, result: bytes | memoryview) -> None:
        """Queue the result of a request. Never raises for what ``result`` is."""
        if len(result) >= LARGE_SIZE_BYTES:
            waiting = self._duplex.waiting_bytes + len(result)
            if not self._account.hold_output(waiting):
                text = "The server has no memory for an answer of this size now; try again later."
                return self.fail(request, ResourceExhausted(text))
        try:
            self._append(self._send_response(request, result), request)
        except MessageTooLarge as error:
            self.fail(request, ResourceExhausted(f"The answer is too long. {error}"))

    def fail(self, request: int, error: Exception) -> None:
        """Queue an error; what nobody foresaw is logged and becomes ``internal``."""
        failure = failure_of(request, error)
        self.failed = (failure.code, failure.message)
        self._counters.errors[failure.code] += 1
        if failure.code == codes.INTERNAL:
            log.error("request failed unexpectedly", session=self._session, exc_info=error)
        try:
            sent = self._send(failure)
        except Exception:  # Details that msgpack cannot carry, or text that is not UTF-8.
            text = failure.message.encode("utf-8", "replace").decode()
            sent = self._send(Failure(request, failure.code, text))
        self._append(sent, request)
