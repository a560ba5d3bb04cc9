"""Who may do what, as the HTTP edge asks it.

A server without keys lets everybody do everything. A request's way:
`Authenticate` turns its key into a `Principal` (or raises `Unauthenticated`), `Principal.take`
counts it against the rate limit (`RateLimited`, whose ``retry_after_s`` becomes ``Retry-After``),
and `Principal.allow` is asked for each operation that it leads to (`PermissionDenied`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
import msgspec

from actors.memory import Account
from treestore.stores.operation import Operation


class Principal(Protocol):
    """Who sends a request."""

    @property
    def key_id(self) -> str:
        """For logs and metrics: the id of its key, never the secret; "" without one."""
        ...

    def take(self) -> None:
        """Count a request.

        Raises:
            RateLimited: too many; ``details["retry_after_s"]`` says when to come again.
        """
        ...

    def allow(self, operation: Operation, arguments: msgspec.Struct | Mapping[str, Any]) -> None:
        """Let an operation be done with these parameters, as they travel.

        Raises:
            PermissionDenied: the key is not for that.
        """
        ...

    def attach(self, owner: object, end: Callable[[str], None]) -> None:
        """Have ``end`` called, with a sentence, when nothing is allowed any more."""
        ...

    def detach(self, owner: object) -> None:
        """That is no longer wanted."""
        ...


Authenticate = Callable[[str | None, str], Principal]
"""Who has this key (None: none was sent) at that ``address:port``. Raises `Unauthenticated`; does
not wait."""


@attrs.frozen
class Anybody:
    """The principal of a server that has no keys."""

    key_id: str = ""

    def take(self) -> None:
        """See `Principal.take`."""

    def allow(self, operation: Operation, arguments: msgspec.Struct | Mapping[str, Any]) -> None:
        """See `Principal.allow`."""

    def attach(self, owner: object, end: Callable[[str], None]) -> None:
        """See `Principal.attach`."""

    def detach(self, owner: object) -> None:
        """See `Principal.detach`."""


ANYBODY = Anybody()


def accept_anybody(_key: str | None, _peer: str) -> Principal:
    """Authentication of a server without keys."""
    return ANYBODY


@attrs.frozen(kw_only=True)
class Observation:
    """A request that was answered, as metrics and logs get it."""

    request_id: str
    method: str
    route: str
    """The path with names in place of what varies (``/collections/{name}/documents``); "" where
    nothing is there. As many values as there are routes."""
    operation: str
    """The operation that it led to (the last, of several); "" where it came to none."""
    status: int
    code: str
    """Of the error; "" where there was none."""
    principal: str
    duration_s: float
    """From the request's head to the answer's last byte."""
    traceparent: str = ""
    """W3C's header, as it came; "" where none did."""


Observe = Callable[[Observation], None]
"""Told of each request; must not raise or wait."""


@attrs.define(eq=False)
class Context:
    """What is known of the request being answered: ``scope["state"]["context"]``."""

    request_id: str
    principal: Principal = ANYBODY
    route: str = ""
    operation: str = ""
    status: int = 0
    """0 until an answer begins."""
    code: str = ""
    traceparent: str = ""
    account: Account | None = None
    """What its body takes of the memory for bodies; given back when it is answered."""
