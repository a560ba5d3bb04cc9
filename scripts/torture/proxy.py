"""A TCP proxy that treats connections badly: cuts them in mid-frame, resets them, stalls them."""

from __future__ import annotations

import struct
from random import Random

import attrs
import trio

CHUNK_SIZE_BYTES = 64 << 10


@attrs.define
class Proxy:
    """Clients connect to ``port``; it forwards to ``target``, which may change over time.

    Attributes:
        target: where new connections are forwarded to.
        port: where it listens, on the loopback interface.
        resets: connections that it cut.
        stalled: set while nothing is forwarded.
    """

    random: Random
    target: tuple[str, int] = ("", 0)
    port: int = 0
    resets: int = 0
    stalled: bool = False
    _pairs: set[Pair] = attrs.Factory(set)
    _go: trio.Event = attrs.Factory(trio.Event)

    async def run_proxy(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled."""
        self._go.set()
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    def reset(self, share: float = 1.0) -> None:
        """Cut a share of the connections, with what is in their buffers."""
        for pair in list(self._pairs):
            if self.random.random() < share:
                pair.cut()
                self.resets += 1

    def stall(self) -> None:
        """Forward nothing until `resume`; connections stay."""
        if not self.stalled:
            self.stalled, self._go = True, trio.Event()

    def resume(self) -> None:
        """Forward again."""
        self.stalled = False
        self._go.set()

    async def _serve(self, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_tcp_stream(*self.target)
        except OSError:
            _abort(client)
            return
        pair = Pair(client, server, trio.CancelScope())
        self._pairs.add(pair)
        try:
            with pair.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, client, server, pair)
                    nursery.start_soon(self._pump, server, client, pair)
        finally:
            self._pairs.discard(pair)
            _abort(client)
            _abort(server)

    async def _pump(self, source: trio.SocketStream, target: trio.SocketStream, pair: Pair) -> None:
        try:
            while data := await source.receive_some(CHUNK_SIZE_BYTES):
                await self._go.wait()
                if pair.doomed:
                    # What the other side gets ends somewhere within a frame.
                    data = data[: self.random.randrange(len(data) + 1)]
                await target.send_all(data)
                if pair.doomed:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        pair.scope.cancel()

    def doom(self, share: float) -> None:
        """Cut a share of the connections within their next piece of data."""
        for pair in list(self._pairs):
            if self.random.random() < share:
                pair.doomed = True
                self.resets += 1


@attrs.define(eq=False)
class Pair:
    """One client's connection and ours to the server."""

    client: trio.SocketStream
    server: trio.SocketStream
    scope: trio.CancelScope
    doomed: bool = False

    def cut(self) -> None:
        """Reset both at once."""
        self.scope.cancel()


def _abort(stream: trio.SocketStream) -> None:
    """Close with a reset (RST) in place of an orderly end."""
    try:
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    stream.socket.close()
