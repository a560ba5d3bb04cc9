"""Finds the route of a path without litestar, whose way to a handler is longer than most handlers.

It finds what litestar would find, or nothing: then litestar has its say. Its rules are litestar's,
for paths in their plain form: fixed paths first, then part by part, a fixed part before one that
varies. What litestar puts right (slashes too many) or refuses (methods, hosts, paths that are
nowhere) is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from actors.http.exchange import AsgiApp, Receive, Scope, Send
from actors.http.requests import Incoming
from actors.http.routes import Handler, Route
from treestore.stores.operation import Operation

_VARIES: Final = re.compile(r"{(\w+)}\Z")
_HOST: Final = re.compile(rb"[0-9A-Za-z.:_\[\]-]*\Z")
"""Hosts that nobody has anything against; of others litestar says what they are."""


@attrs.define(eq=False)
class _Place:
    """Where a path, or the beginning of one, leads to."""

    parts: dict[str, _Place] = attrs.field(factory=dict)
    any_part: _Place | None = None
    methods: dict[str, tuple[Handler, tuple[str, ...]]] = attrs.field(factory=dict)
    """Handlers, each with the names of what varies in its path."""


class Directory:
    """An ASGI application around litestar's.

    Args:
        routes: those that it is to find.
        rest: answers everything else.
    """

    def __init__(
        self, routes: Sequence[Route], operations: Mapping[str, Operation], rest: AsgiApp
    ) -> None:
        self._rest = rest
        self._fixed: dict[str, _Place] = {}
        self._root = _Place()
        self._host = b""
        """The last one that was in order: mostly the only one."""
        for route in routes:
            names = route.names
            place = self._place(route.path) if names else self._fixed_place(route.path)
            place.methods[route.method] = route.bound(operations), names

    def _fixed_place(self, path: str) -> _Place:
        return self._fixed.setdefault(path, _Place())

    def _place(self, path: str) -> _Place:
        place = self._root
        for part in path.split("/")[1:]:
            if _VARIES.match(part):
                if place.any_part is None:
                    place.any_part = _Place()
                place = place.any_part
            else:
                place = place.parts.setdefault(part, _Place())
        return place

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler of a path, and what stands there for each name; None: litestar may know."""
        place = self._fixed.get(path)
        values: list[str] = []
        if place is None:
            place = self._root
            before, *parts = path.split("/")
            if before:
                return None
            for part in parts:
                found = place.parts.get(part)
                if found is None:
                    found = place.any_part
                    if found is None or not part:
                        return None
                    values.append(part)
                place = found
        known = place.methods.get(method)
        if known is None:
            return None
        handler, names = known
        return handler, dict(zip(names, values, strict=True))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and self._has_plain_host(scope["headers"]):
            found = self.find(scope["method"], scope["path"])
            if found is not None:
                handler, scope["path_params"] = found
                response: Any = await handler(Incoming(scope, receive))
                await response(scope, receive, send)
                return
        await self._rest(scope, receive, send)

    def _has_plain_host(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        for name, value in headers:
            if name == b"host":
                if value != self._host:
                    if not _HOST.match(value):
                        return False
                    self._host = value
                return True
        return True
