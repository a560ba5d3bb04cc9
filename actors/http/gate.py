"""The outer layer of the edge: what happens to every request, whatever its path.

In this order: its id; CORS; its key; its rate limit; the application; every error as JSON; what
observers are told. It is an ASGI application around another one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from urllib.parse import unquote_to_bytes

import trio

from actors.http.access import Authenticate, Context, Observation, Observe
from actors.http.exchange import AsgiApp, Message, Receive, Scope, Send
from actors.http.problems import JSON, code_of, problem, told
from actors.http.requests import request_id_of
from treestore.errors import TreeStoreError
from treestore.loggers import get_logger

log = get_logger("treestore.http")

OPEN_PATHS = frozenset({"/health", "/ready"})
"""What is answered without a key and without a limit: those who watch over a server have none."""

_CORS_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_CORS_HEADERS = b"Authorization, Content-Type, X-API-Key, X-Request-ID"
_CORS_EXPOSED = b"Location, Retry-After, X-Request-ID"
_CORS_MAX_AGE_S = b"600"

_SECURE = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


class Gate:
    """See the module.

    Args:
        app: what is behind it.
        authenticate: who has a key.
        observe: told of each request.
        origins: see `HttpSettings.origins`.
    """

    def __init__(
        self,
        app: AsgiApp,
        authenticate: Authenticate,
        observe: Observe | None = None,
        origins: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._observe = observe
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        key, given_id, origin, traceparent = _sent(scope["headers"])
        context = Context(request_id_of(given_id), traceparent=traceparent.decode("latin-1"))
        scope.setdefault("state", {})["context"] = context
        headers: list[tuple[bytes, bytes]] = [
            (b"x-request-id", context.request_id.encode()),
            *_SECURE,
        ]
        if origin is not None and self._origins:
            headers += self._cors(origin)
        method = scope["method"]
        if method == "HEAD":
            scope["method"] = "GET"  # The connection leaves out the body.

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        try:
            if method == "OPTIONS" and origin is not None and self._origins:
                await _preflight(send_with_headers)
                return
            await self._admit(scope, context, key)
            await self._app(scope, receive, send_with_headers)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception as error:
            if context.status:
                raise  # Half of an answer left; the connection is cut off.
            await refuse(error, context, send_with_headers)
        finally:
            if context.account is not None:
                context.account.close()
            if self._observe is not None:
                self._observe(_observation(method, context, time.perf_counter() - began))

    async def _admit(self, scope: Scope, context: Context, key: bytes | None) -> None:
        path = scope["path"]
        if path not in OPEN_PATHS:
            text = None if key is None else key.decode("latin-1")
            client = scope["client"]
            peer = "no socket" if client is None else f"{client[0]}:{client[1]}"
            context.principal = self._authenticate(text, peer)
            context.principal.take()
        raw = scope["raw_path"]
        if b"%" in raw:
            scope["path"] = routable(raw.decode("latin-1"))

    def _cors(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        if b"*" in self._origins:
            allowed = [(b"access-control-allow-origin", b"*")]
        elif origin in self._origins:
            allowed = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        else:
            return [(b"vary", b"Origin")]
        return [
            *allowed,
            (b"access-control-allow-methods", _CORS_METHODS),
            (b"access-control-allow-headers", _CORS_HEADERS),
            (b"access-control-expose-headers", _CORS_EXPOSED),
            (b"access-control-max-age", _CORS_MAX_AGE_S),
        ]


def _sent(
    headers: list[tuple[bytes, bytes]],
) -> tuple[bytes | None, bytes | None, bytes | None, bytes]:
    """The key, request id, origin and caller's span that a request has."""
    key = request_id = origin = None
    traceparent = b""
    for name, value in headers:
        if name == b"x-api-key":
            key = value
        elif name == b"x-request-id":
            request_id = value
        elif name == b"origin":
            origin = value
        elif name == b"authorization" and key is None and value[:7].lower() == b"bearer ":
            key = value[7:].strip()
        elif name == b"traceparent":
            traceparent = value
    return key, request_id, origin, traceparent


def routable(path: str) -> str:
    """A path as it is routed: decoded, but for what would change how it is divided.

    ``%2F`` and ``%25`` stay, so that an id may hold a slash; `decoded` makes the rest of them.

    Raises:
        Problem: it is not UTF-8, or has NULs.
    """
    try:
        parts = [unquote_to_bytes(part).decode("utf-8") for part in path.split("/")]
    except UnicodeDecodeError:
        raise problem(400, "The path is not UTF-8 once its %-escapes are decoded.") from None
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def decoded(segment: str) -> str:
    """A part of a `routable` path, as it was meant."""
    if "%" in segment:
        return segment.replace("%2F", "/").replace("%25", "%")
    return segment


async def refuse(
    error: Exception, context: Context, send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer with an error."""
    if not isinstance(error, TreeStoreError):
        log.error("request failed unexpectedly", request_id=context.request_id, exc_info=error)
    status, extra, body = told(error, context.request_id)
    context.code = code_of(error)
    headers = [JSON, (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _preflight(send: Callable[[Message], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _observation(method: str, context: Context, duration_s: float) -> Observation:
    return Observation(
        request_id=context.request_id,
        method=method,
        route=context.route,
        operation=context.operation,
        status=context.status,
        code=context.code,
        principal=context.principal.key_id,
        duration_s=duration_s,
        traceparent=context.traceparent,
    )
