"""``treestore serve`` as it would be without metrics and logs of requests.

What observing costs can only be measured against a server that does not: here the loop of a
session is as it would be written then, and nothing measures the event loop.
"""

from __future__ import annotations

import time
from typing import Any

import trio
import trio.lowlevel

import actors.session
from actors.observability.loop_lag import LoopLag
from actors.session import BURST_S, Session
from protocol.messages import Request


async def _handle(self: Session, messages: list[Any]) -> None:
    """`Session._handle`, less what it does for metrics."""
    until = time.perf_counter() + BURST_S
    duplex, pause = self._duplex, self._settings.output_pause_size_bytes
    limit = self._limits.requests_max
    for message in messages:
        if type(message) is Request:
            if len(self._running) - self._streams >= limit:
                await self._wait_for_room(limit)
            if duplex.waiting_bytes >= pause:
                duplex.flush_now()
                self._account.hold_output(duplex.waiting_bytes)
                await duplex.wait_below(pause)
            self._request(message)
        else:
            self._message(message)
        if time.perf_counter() > until:
            duplex.flush_now()
            await trio.lowlevel.checkpoint()
            until = time.perf_counter() + BURST_S


class _NoLag(LoopLag):
    async def run(self) -> None:
        """Measure nothing."""
        await trio.sleep_forever()


def main() -> None:
    """Run the command line."""
    Session._handle = _handle  # type: ignore[method-assign]
    for owner, name, replacement in (
        (LoopLag, "run", _NoLag.run),
        (actors.session, "report", lambda *_args, **_kwargs: None),
    ):
        setattr(owner, name, replacement)
    from treestore.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
