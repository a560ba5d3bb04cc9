"""What the HTTP ports answer about the server itself. No matter which edge carries it.

| path | for whom | answer |
|---|---|---|
| ``/health``, ``/ready`` | anybody | JSON; 200, or 503 |
| ``/metrics`` | anybody on the metrics port, else any key | Prometheus' text |
| ``/debug/tasks?format=text|json`` | ``admin`` | the tree of tasks |
| ``/debug/profile?seconds=10`` | ``admin`` | a page of HTML, when the time is over |

Where there are no API keys, ``admin`` is whoever is on this machine, and "any key" anybody.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qs

import attrs
import msgspec
import trio

from actors.database import Database
from actors.http.access import Principal
from actors.observability import profile as profiles
from actors.observability.metrics import CONTENT_TYPE, Metrics
from actors.observability.tasks import task_tree
from actors.principal import is_local
from treestore import __version__
from treestore.errors import (
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    TreeStoreError,
)
from treestore.stores.admin import Admin

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"

PROFILE_S = 10.0

ADMINISTRATION = Admin.compact.operation
"""Who may do this may look inside."""

Headers = tuple[tuple[str, str], ...]


@attrs.frozen
class Page:
    """An answer: its status, headers (``Content-Type`` among them) and body."""

    status: int
    headers: Headers
    body: bytes


Endpoint = Callable[[str], Awaitable[Page]]
"""Answers GET of a path; called with the query, without its ``?``. Raises `TreeStoreError`."""


def _page(status: int, value: object) -> Page:
    return Page(status, (("Content-Type", JSON),), msgspec.json.encode(value) + b"\n")


class Endpoints:
    """The answers.

    Attributes:
        open: paths of the metrics port, for anybody.
        admin: paths for administrators only; see `ensure_admin`.
    """

    def __init__(self, database: Database, stopping: trio.Event, metrics: Metrics) -> None:
        self._database = database
        self._stopping = stopping
        self._metrics = metrics
        self._profiling = trio.Lock()
        self.open: Mapping[str, Endpoint] = {
            "/health": self.health,
            "/ready": self.ready,
            "/metrics": self.metrics,
        }
        self.admin: Mapping[str, Endpoint] = {
            "/debug/tasks": self.tasks,
            "/debug/profile": self.profile,
        }

    def ensure_admin(self, principal: Principal, peer: str) -> None:
        """Return where ``admin``'s paths may be answered.

        Args:
            principal: who asks.
            peer: the other end, ``address:port``.

        Raises:
            PermissionDenied: the key is not for this; without keys: it is for this machine.
        """
        if self._database.authority.required:
            principal.allow(ADMINISTRATION, {})
        else:
            ensure_local(peer)

    async def health(self, _query: str = "") -> Page:
        """Does the store do its work?"""
        return await health_page(self._database)

    async def ready(self, _query: str = "") -> Page:
        """Should requests be sent here?"""
        return await ready_page(self._database, self._stopping)

    async def metrics(self, _query: str = "") -> Page:
        """Prometheus' text format."""
        return Page(200, (("Content-Type", CONTENT_TYPE),), await self._metrics.page())

    async def tasks(self, query: str = "") -> Page:
        """The tree of tasks, as a drawing or as JSON."""
        form = _one(query, "format", "text")
        if form not in ("text", "json"):
            raise InvalidArgument("format is text or json.")
        tree = await task_tree()
        if form == "json":
            body = await self._database.threads.run(lambda: msgspec.json.encode(tree.as_json()))
            return Page(200, (("Content-Type", JSON),), body + b"\n")
        text = await self._database.threads.run(tree.as_text)
        return Page(200, (("Content-Type", TEXT),), text.encode("utf-8", "replace"))

    async def profile(self, query: str = "") -> Page:
        """A profile of the next seconds."""
        seconds = _seconds(_one(query, "seconds", str(PROFILE_S)))
        try:
            self._profiling.acquire_nowait()
        except trio.WouldBlock:
            raise ResourceExhausted(
                "A profile is being taken already; try again when it is done."
            ) from None
        try:
            found = await profiles.profile(seconds)
        finally:
            self._profiling.release()
        body = await self._database.threads.run(lambda: profiles.as_html(found))
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return Page(200, (("Content-Type", HTML), ("Content-Security-Policy", policy)), body)


async def health_page(database: Database) -> Page:
    """``/health``: log, disk, writer, last checkpoint, actors; 503 where no write is taken."""
    try:
        found = await database.admin.health()
    except TreeStoreError as error:
        return _page(503, {"status": "closed", "problems": [error.message]})
    body = {**msgspec.to_builtins(found), "version": __version__}
    return _page(200 if found.writable else 503, body)


async def ready_page(database: Database, stopping: trio.Event) -> Page:
    """``/ready``: 200 while the store takes writes and nobody asked for a stop."""
    if stopping.is_set():
        return _page(503, {"ready": False, "reason": "The server is stopping."})
    if (await health_page(database)).status != 200:
        reason = "The store takes no writes: see /health."
        return _page(503, {"ready": False, "reason": reason})
    return _page(200, {"ready": True})


def ensure_local(peer: str) -> None:
    """Let only this machine's own users in: the rule for ``admin`` where there are no keys.

    Args:
        peer: the other end, ``address:port``.

    Raises:
        PermissionDenied: it is elsewhere, or it is not known where.
    """
    if not is_local(peer):
        raise PermissionDenied("Without API keys this is answered to this machine only.")


def _one(query: str, name: str, default: str) -> str:
    """The one value of a parameter.

    Raises:
        InvalidArgument: there are other parameters, or several values.
    """
    try:
        given = parse_qs(query, keep_blank_values=True, max_num_fields=10, errors="strict")
    except ValueError:
        raise InvalidArgument("The query cannot be read.") from None
    values = given.pop(name, [default])
    if given or len(values) != 1:
        raise InvalidArgument(f"The only parameter here is {name}, given once.")
    return values[0]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= profiles.SECONDS_MAX:
        raise InvalidArgument(f"seconds is 0.1 to {profiles.SECONDS_MAX:g}, not {text[:40]!r}.")
    return seconds
