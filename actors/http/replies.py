"""Answers: JSON that is ready, and lines of JSON that come as they are made.

They are the responses that litestar's handlers return, and skip its serialisation: what goes out
is bytes already.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import trio
from litestar.response.base import ASGIResponse

from actors.http.access import Context
from actors.http.problems import code_of, told
from treestore.errors import TreeStoreError, Unauthenticated
from treestore.loggers import get_logger

log = get_logger("treestore.http")

LINES_TYPE = b"application/x-ndjson"

Lines = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Opens what gives pieces of an answer, each of whole lines."""


class Reply(ASGIResponse):
    """An answer that is ready."""

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        content_type: bytes = b"application/json",
    ) -> None:
        # Not litestar's own: nothing of what it prepares is used.
        self.status = status
        self.content = body
        self.extra = headers
        self.content_type = content_type

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        headers = [*self.extra]
        if self.status != 204:
            headers.append((b"content-type", self.content_type))
            headers.append((b"content-length", str(len(self.content)).encode()))
        start = {"type": "http.response.start", "status": self.status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.content})


def reply(value: Any, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """A value as JSON."""
    return Reply(status, msgspec.json.encode(value), headers)


NO_CONTENT = Reply(204)


class LinesReply(ASGIResponse):
    """JSON lines, as they are made.

    An error before the first is an answer like any other. A later one is the last line, in the
    form of every error: the status was sent long before. A reader knows a whole answer by its
    proper end (of the chunks) and by that line's absence.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        context: Context = scope["state"]["context"]
        begun = False

        async def begin() -> None:
            nonlocal begun
            begun = True
            headers = [(b"content-type", LINES_TYPE)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

        ended: list[str] = []
        scope_of_work = trio.CancelScope()

        def end(why: str) -> None:
            ended.append(why)
            scope_of_work.cancel()

        context.principal.attach(self, end)
        try:
            with scope_of_work:
                async with self._lines() as lines:
                    async for piece in lines:
                        if not begun:
                            await begin()
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            if ended:
                raise Unauthenticated(ended[0])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception as error:
            if not begun:
                raise
            await _end_with(error, context, send)
            return
        finally:
            context.principal.detach(self)
        if not begun:
            await begin()
        await send({"type": "http.response.body", "body": b""})


async def _end_with(error: Exception, context: Context, send: Any) -> None:
    context.code = code_of(error)
    if not isinstance(error, TreeStoreError):
        log.error("stream failed unexpectedly", request_id=context.request_id, exc_info=error)
    _, _, line = told(error, context.request_id)
    await send({"type": "http.response.body", "body": line})
