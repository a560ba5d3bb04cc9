"""The part of a session that lets its client in, and locks it out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import trio

from actors.session_transactions import ROLLBACK
from actors.session_work import Task
from actors.wire import SETTLE
from protocol import codes
from protocol.errors import RemoteProtocolError
from protocol.messages import Hello, Request
from treestore.errors import TreeStoreError, Unauthenticated
from treestore.loggers import get_logger
from treestore.stores.deduplication import session_prefix
from treestore.stores.security.audit import ACTOR

if TYPE_CHECKING:
    from actors.session import Session

log = get_logger("treestore.session")

UNCOUNTED = frozenset({SETTLE.name, ROLLBACK, "session.close_snapshot"})
"""Requests that a rate limit lets through: they end what was counted when it was begun, and give
back what it holds."""

LOCKED_OUT_S = 1.0
"""How long requests under way may take once their key was revoked."""


STOPPING = "The server is stopping."
"""Why a connection is closed."""


class Admission:
    """Greets the client, and asks its `Principal` about each request."""

    @property
    def _session(self) -> Session:
        return cast("Session", self)

    async def _greet(self) -> bool:
        """Wait for the hello and answer it; returns whether the connection is open."""
        session = self._session
        hello: Hello | None = None
        with trio.move_on_after(session._settings.hello_timeout_s) as session._greeting:
            if session._stopping:
                session._greeting.cancel()
            try:
                while hello is None:
                    data = await session._duplex.receive()
                    if not data:
                        return False
                    for message in session._connection.receive_data(data):
                        hello = message if isinstance(message, Hello) else None
            except RemoteProtocolError as error:
                return self._refuse(codes.PROTOCOL_ERROR, str(error))
        session._greeting = None
        if session._stopping:
            return self._refuse(codes.UNAVAILABLE, STOPPING)
        if hello is None:
            text = f"No hello came within {session._settings.hello_timeout_s:g} s."
            return self._refuse(codes.DEADLINE_EXCEEDED, text)
        try:
            principal = session._shared.authenticate(hello.api_key, session.peer)
        except TreeStoreError as error:
            session._counters.connections_refused += 1
            return self._refuse(error.code, error.message)
        session._principal = principal
        session._find = principal.free.get
        principal.attach(session, self._locked_out)
        # This task is the connection's own; those that it starts inherit it.
        ACTOR.set(principal.actor(session.peer))
        session._client = session_prefix(hello.client_id, hello.session)
        name, number = session._settings.server_name, session.number
        session._duplex.append(session._connection.welcome(name, number))
        log.debug("session opened", session=number, peer=session.peer, software=hello.software)
        return True

    def _refuse(self, code: str, message: str) -> bool:
        session = self._session
        session._goodbye, session._linger = (code, message), True
        return False

    def _locked_out(self, why: str) -> None:
        """The key counts no more: take nothing, end what streams, and give the rest, which was
        begun while it counted, a moment."""
        session = self._session
        session._stopping, session._linger = True, True
        if session._goodbye is None:
            session._goodbye = (codes.UNAUTHENTICATED, why)
        if session._nursery is None:
            return
        for entry in session._running.values():
            if isinstance(entry, Task) and entry.is_stream:
                entry.ended_by = Unauthenticated(why)
                entry.scope.cancel()
        session._nursery.cancel_scope.deadline = trio.current_time() + LOCKED_OUT_S
        session._end_if_idle()

    def _admit(self, request: Request) -> bool:
        """Whether the key still counts and has requests left; if not, the request is answered."""
        session = self._session
        try:
            if request.method in UNCOUNTED:
                session._principal.ensure_valid()
            else:
                session._principal.take()
        except TreeStoreError as error:
            session._fail(request.id, error)
            return False
        return True
