"""Watching one connection: is the peer alive, does it read, does it finish what it begins?"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from actors.memory import Account
from actors.wire import WireSettings
from protocol import codes
from protocol.connection import ServerConnection
from protocol.limits import KIB
from protocol.messages import Ping
from treestore.client.duplex import Duplex

PARTIAL_PROGRESS_BYTES = 64 * KIB
"""What must come in each ``partial_timeout_s`` while a message is half sent."""


@attrs.frozen
class Ending:
    """Why a connection must be closed."""

    code: str
    message: str
    linger: bool = True
    """Whether the peer can be expected to read the goodbye."""


async def watch(
    settings: WireSettings,
    duplex: Duplex,
    connection: ServerConnection,
    account: Account,
    reading: Callable[[], bool],
) -> Ending:
    """Watch until the connection must be closed; returns why.

    Sends pings, and keeps ``account`` informed of how much output waits. While the session does
    not read (``reading``) the peer's silence is no sign of death. Looks at the connection a few
    times per period instead of noting the time of every message, which would cost each of them.
    """
    interval = settings.keep_alive_interval_s
    tick = min(interval, settings.write_timeout_s, settings.partial_timeout_s) / 2
    received = partial_from = duplex.received_bytes
    received_at = dead_since = pinged_at = partial_since = trio.current_time()
    while True:
        await trio.sleep(tick)
        now = trio.current_time()
        account.hold_output(duplex.waiting_bytes)
        if duplex.received_bytes != received:
            received_at = dead_since = now
            received = duplex.received_bytes
        blocked = duplex.blocked_since
        is_reading = blocked is None and reading()
        if not is_reading:
            dead_since = now
        if blocked is not None and now - blocked >= settings.write_timeout_s:
            text = "The client does not read what is sent to it."
            return Ending(codes.DEADLINE_EXCEEDED, text, linger=False)
        if now - dead_since >= settings.keep_alive_timeout_s:
            text = f"Nothing came for {settings.keep_alive_timeout_s:g} s."
            return Ending(codes.DEADLINE_EXCEEDED, text)
        nothing_held = connection.held_size_bytes == 0 or not is_reading
        if nothing_held or received - partial_from >= PARTIAL_PROGRESS_BYTES:
            partial_since, partial_from = now, received
        elif now - partial_since >= settings.partial_timeout_s:
            text = "A message was begun and not finished in time."
            return Ending(codes.DEADLINE_EXCEEDED, text)
        # Pinged while we do not read, too: the client then knows that we are alive.
        if blocked is None and now - max(received_at, pinged_at) >= interval:
            duplex.append(connection.send(Ping()))
            duplex.flush_soon()
            pinged_at = now
