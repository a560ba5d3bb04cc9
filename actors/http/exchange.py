"""A request and its answer: what the application reads and sends, as ASGI has it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import h11
import trio

from actors.http.plain import BODYLESS, Plain, plain_answer

if TYPE_CHECKING:
    from actors.http.connection import Connection

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Exchange:
    """A request and its answer: what the application reads and sends."""

    __slots__ = (
        "_body_deadline",
        "_connection",
        "_h11",
        "_head",
        "_headless",
        "_settings",
        "begun",
        "complete",
    )

    def __init__(
        self, connection: Connection, protocol: h11.Connection, request: h11.Request
    ) -> None:
        self._connection = connection
        self._h11 = protocol
        self._settings = connection._settings
        self._headless = request.method == b"HEAD"
        self._head: h11.Response | None = None
        self._body_deadline = 0.0
        self.begun = False
        """Whether anything of the answer left."""
        self.complete = False

    async def receive(self) -> Message:
        """See ASGI. A piece of the body; after its end it returns only when the answer is sent."""
        if not self._body_deadline:
            self._body_deadline = trio.current_time() + self._settings.body_timeout_s
        while self._h11.their_state is h11.SEND_BODY:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                await self._connection.receive_body(self._body_deadline)
            elif isinstance(event, h11.Data):
                size = len(event.data)
                self._body_deadline += size / self._settings.body_rate_min
                return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            elif isinstance(event, h11.EndOfMessage):
                return {"type": "http.request", "body": b"", "more_body": False}
            else:
                break
        if not self.complete:
            await trio.sleep_forever()  # Until it is cancelled: see `Connection.look`.
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """See ASGI. The head waits for the first piece of the body."""
        if message["type"] == "http.response.start":
            status = message["status"]
            self._headless = self._headless or status in BODYLESS
            headers = [*message["headers"], (b"date", date_now())]
            if self._leaves_body() or self._connection.stopping:
                headers.append((b"connection", b"close"))
            reason = REASONS.get(status, b"")
            self._head = h11.Response(status_code=status, headers=headers, reason=reason)
            return
        data = b""
        if self._head is not None:
            data = self._h11.send(self._head) or b""
            self._head = None
        body = message.get("body", b"")
        if body and not self._headless:
            data += self._h11.send(h11.Data(data=body)) or b""
        if not message.get("more_body", False):
            data += self._h11.send(h11.EndOfMessage()) or b""
            self.complete = True
        self.begun = True
        if data:
            await self._connection.write(data)

    def _leaves_body(self) -> bool:
        """Whether there is more of a body than is here already: not worth reading on for.

        What is here is dropped, so that the connection serves for the next request.
        """
        while self._h11.their_state is h11.SEND_BODY:
            if self._h11.next_event() is h11.NEED_DATA:
                return True
        return False


class PlainExchange:
    """The same for a request that was read without h11.

    Attributes:
        handed_over: to whom h11 has it after all; None: it has nothing to do with it.
    """

    __slots__ = ("_body", "_connection", "_done", "_request", "_start", "handed_over")

    def __init__(self, connection: Connection, request: Plain) -> None:
        self._connection = connection
        self._request = request
        self._body: bytes | None = request.body
        self._start: Message | None = None
        self._done = False
        self.handed_over: Exchange | None = None

    @property
    def begun(self) -> bool:
        """Whether anything of the answer left."""
        return self._done if self.handed_over is None else self.handed_over.begun

    @property
    def complete(self) -> bool:
        """Whether all of it did."""
        return self._done if self.handed_over is None else self.handed_over.complete

    async def receive(self) -> Message:
        """See `Exchange.receive`."""
        body = self._body
        if body is not None:
            self._body = b"" if body else None
            return {"type": "http.request", "body": body, "more_body": bool(body)}
        if not self.complete:
            await trio.sleep_forever()  # Until it is cancelled: see `Connection.look`.
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """See `Exchange.send`."""
        if self.handed_over is not None:
            await self.handed_over.send(message)
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        start = self._start
        assert start is not None
        answer: bytes | None = None
        if not message.get("more_body", False) and not self._connection.stopping:
            headers = [*start["headers"], (b"date", date_now())]
            headless = self._request.method == b"HEAD"
            body = message.get("body", b"")
            answer = plain_answer(start["status"], headers, body, headless=headless)
        if answer is None:
            exchange = self.handed_over = self._connection.hand_over(self._request)
            await exchange.send(start)
            await exchange.send(message)
            return
        self._done = True
        await self._connection.write(answer)


_date_at = 0
_date_text = b""


def date_now() -> bytes:
    """The time as HTTP has it, made once a second."""
    global _date_at, _date_text
    now = int(time.time())
    if now != _date_at:
        _date_at, _date_text = now, formatdate(now, usegmt=True).encode()
    return _date_text
