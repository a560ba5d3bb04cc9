"""A small application for a port with a few fixed paths: health and metrics.

It answers GET and HEAD and reads no bodies. The full edge is `actors.http.app`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
import msgspec

from actors.http.problems import JSON, problem, told
from actors.http.requests import new_request_id
from treestore.loggers import get_logger

log = get_logger("treestore.http")


@attrs.frozen
class Answer:
    """An answer of a path: its status, and a value for JSON or bytes as they are."""

    status: int
    body: object
    headers: tuple[tuple[str, str], ...] = ()
    """``Content-Type`` among them where it is not JSON."""

    def parts(self) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Headers and body as they are sent."""
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers]
        if isinstance(self.body, bytes):
            body = self.body
        else:
            body = msgspec.json.encode(self.body) + b"\n"
        if all(name != b"content-type" for name, _ in headers):
            headers.append(JSON)
        headers.append((b"cache-control", b"no-store"))
        return headers, body


Paths = Mapping[str, Callable[[], Awaitable[Answer]]]
"""What GET (and HEAD) of each path answers."""


class PathsApp:
    """The ASGI application of `Paths`."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        request_id = new_request_id()
        try:
            answer = await self._answer(scope["method"], scope["path"])
            status = answer.status
            headers, body = answer.parts()
        except Exception as error:
            status, extra, body = told(error, request_id)
            if status == 500:
                log.exception("request failed", path=scope["path"], request_id=request_id)
            headers = [JSON, *extra]
        headers += [
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, path: str) -> Answer:
        handler = self._paths.get(path)
        if handler is None:
            known = ", ".join(sorted(self._paths))
            raise problem(404, f"There is nothing at {path:.200}; there is: {known}.")
        if method not in ("GET", "HEAD"):
            text = f"{path} answers GET and HEAD, not {method:.20}."
            raise problem(405, text, ((b"allow", b"GET, HEAD"),))
        return await handler()
