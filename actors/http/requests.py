"""Requests as handlers get them, and what they are known by."""

from __future__ import annotations

import os
import re
from typing import Any, Protocol

from actors.http.exchange import Receive, Scope


class Fields(Protocol):
    """The headers of a request."""

    def get(self, name: str, default: str, /) -> str:
        """The first value of the header ``name`` (in lower case)."""
        ...


class AnyRequest(Protocol):
    """What handlers use of a request; litestar's has it as well."""

    @property
    def scope(self) -> Any:
        """See ASGI; with ``path_params``."""
        ...

    @property
    def receive(self) -> Any:
        """See ASGI."""
        ...

    @property
    def headers(self) -> Fields:
        """Decoded."""
        ...


class Incoming:
    """Implements `AnyRequest` for a route that was found without litestar."""

    __slots__ = ("_headers", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope: Any = scope
        self.receive: Any = receive
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> Fields:
        """Decoded when first asked for: most requests have nothing of interest there."""
        found = self._headers
        if found is None:
            found = self._headers = {}
            for name, value in self.scope["headers"]:
                found.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        return found


_USABLE = re.compile(rb"[A-Za-z0-9._:/+=@,;-]{1,128}\Z")


def new_request_id() -> str:
    """An id that no other request has."""
    return os.urandom(12).hex()


def request_id_of(given: bytes | None) -> str:
    """The id that the client gave, where it is fit for logs and headers; else a new one."""
    if given is not None and _USABLE.match(given):
        return given.decode("ascii")
    return new_request_id()
