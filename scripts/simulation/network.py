"""A network in memory that does what networks do.

A connection is two pipes, one each way. What is sent goes in pieces of any size, each of which
takes its own time, in order within a pipe and in any order between pipes. A pipe holds a bounded
number of bytes, so a peer that does not read makes the other wait. A connection can be

* *reset*: both ends learn at once; what is under way is lost;
* *cut* (half-open): nothing arrives any more, in one direction or both, and nobody is told; the
  end that goes on sending finds out by its own timeouts.

When a server dies, its ends break at once: what a dead process writes goes nowhere. What it had
sent may still arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from random import Random

import trio

from scripts.simulation.determinism import Trace

PIPE_SIZE_BYTES = 32 << 10


class Conditions:
    """How the network does at present; changed by whoever plays the weather."""

    def __init__(self) -> None:
        self.latency_s = 0.0005
        self.fragments = 0.2
        """How likely something sent is taken apart."""
        self.refuse_chance = 0.0
        """How likely an attempt to connect is lost without an answer."""


class Pipe:
    """One direction of a connection."""

    def __init__(self, random: Random, conditions: Conditions) -> None:
        self._random = random
        self._conditions = conditions
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._size_bytes = 0
        self._changed = trio.Event()
        self._ended_at: float | None = None
        self._last_at = 0.0
        self._closed = False
        self._send_broken = False
        self._receive_broken = False
        self.cut = False
        """What is sent vanishes."""
        self.reset: Callable[[], None] | None = None
        """Called when something is sent: nobody knows this connection any more."""

    def _notify(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _arrival(self) -> float:
        """When what is sent now arrives: not before what was sent earlier."""
        random, latency = self._random, self._conditions.latency_s
        delay = latency * random.choice((0.2, 1.0, 1.0, 1.0, 3.0, 10.0)) * (0.5 + random.random())
        self._last_at = max(self._last_at, trio.current_time() + delay)
        return self._last_at

    async def send(self, data: bytes) -> None:
        """Put bytes on their way; waits while the pipe is full."""
        await trio.lowlevel.checkpoint()
        for piece in self._taken_apart(data):
            while self._size_bytes >= PIPE_SIZE_BYTES and not (self._send_broken or self._closed):
                await self._changed.wait()
            if self.reset is not None:
                self.reset()
            if self._send_broken:
                raise trio.BrokenResourceError("the connection was reset")
            if self._closed:
                raise trio.ClosedResourceError("this end was closed")
            self._size_bytes += len(piece)
            if not self.cut:
                self._pieces.append((self._arrival(), piece))
                self._notify()

    def _taken_apart(self, data: bytes) -> list[bytes]:
        random = self._random
        if len(data) < 2 or random.random() >= self._conditions.fragments:
            return [data]
        cuts = sorted({0, len(data), *(random.randrange(len(data)) for _ in range(3))})
        return [data[a:b] for a, b in pairwise(cuts)]

    def end(self) -> None:
        """The sender says that no more comes."""
        self._closed = True
        if self._ended_at is None and not self.cut:
            self._ended_at = self._arrival()
        self._notify()

    def break_sending(self) -> None:
        """What is sent from now on meets an error."""
        self._send_broken = True
        self._notify()

    def break_receiving(self, *, lose: bool = True) -> None:
        """The receiver meets an error: at once, or after what is under way to it."""
        self._receive_broken = True
        if lose:
            self._pieces.clear()
            self._ended_at = None
        self._notify()

    @property
    def unread(self) -> bool:
        """Whether something was sent that was not received."""
        return bool(self._pieces)

    async def receive(self, size_max: int) -> bytes:
        """The next bytes that arrive; empty at the end."""
        await trio.lowlevel.checkpoint()
        while True:
            arrives = self._pieces[0][0] if self._pieces else self._ended_at
            if arrives is not None and arrives <= trio.current_time():
                return self._take(size_max) if self._pieces else b""
            if arrives is None and self._receive_broken:
                raise trio.BrokenResourceError("the connection was reset")
            changed = self._changed
            with trio.move_on_at(float("inf") if arrives is None else arrives):
                await changed.wait()

    def _take(self, size_max: int) -> bytes:
        at, data = self._pieces.popleft()
        if len(data) > size_max:
            self._pieces.appendleft((at, data[size_max:]))
            data = data[:size_max]
        self._size_bytes -= len(data)
        self._notify()
        return data


class End(trio.abc.HalfCloseableStream):
    """One end of a connection, as a stream."""

    def __init__(self, incoming: Pipe, outgoing: Pipe, random: Random) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._random = random
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        self._check()
        await self._outgoing.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        self._check()
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """See `trio.abc.HalfCloseableStream`."""
        self._check()
        self._outgoing.end()
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        self._check()
        data = await self._incoming.receive(max_bytes or 65536)
        self._check()
        return data

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        if not self._closed:
            self._closed = True
            if self._incoming.unread and self._random.random() < 0.5:
                # Closed with something unread: the peer gets a reset instead of what was sent.
                self._outgoing.break_receiving()
            self._outgoing.end()
            self._incoming.break_sending()
            self._incoming.break_receiving()
        await trio.lowlevel.checkpoint()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")


class Connection:
    """Both ends, and what can happen to them."""

    def __init__(self, number: int, random: Random, conditions: Conditions) -> None:
        self.number = number
        self.to_server, self.to_client = Pipe(random, conditions), Pipe(random, conditions)
        self.client = End(self.to_client, self.to_server, random)
        self.server = End(self.to_server, self.to_client, random)

    def reset(self) -> None:
        """Both ends learn that it is over; what is under way is lost."""
        for pipe in (self.to_server, self.to_client):
            pipe.break_sending()
            pipe.break_receiving()

    def cut(self, *, to_server: bool, to_client: bool) -> None:
        """Nothing arrives any more, and nobody is told."""
        self.to_server.cut = self.to_server.cut or to_server
        self.to_client.cut = self.to_client.cut or to_client

    def server_died(self, *, silently: bool) -> None:
        """The server's end is gone; the client hears of it, or does not.

        What the server sent before may still arrive; what it sends from now on does not.
        """
        self.to_server.break_receiving()
        self.to_client.break_sending()
        self.to_server.cut = True
        if not silently:
            self.to_server.break_sending()
            self.to_client.break_receiving(lose=False)


class Network:
    """Clients on one side, one server on the other."""

    def __init__(self, random: Random, trace: Trace) -> None:
        self.conditions = Conditions()
        self.connections: list[Connection] = []
        self._random = random
        self._trace = trace
        self._accepting: trio.MemorySendChannel[End] | None = None
        self._forgotten: list[Connection] = []
        self._count = 0

    async def open_stream(self, _host: str, _port: int) -> trio.abc.Stream:
        """Connect to the server, as ``trio.open_tcp_stream`` would."""
        await trio.sleep(self.conditions.latency_s * self._random.random())
        if self._random.random() < self.conditions.refuse_chance:
            await trio.sleep(self._random.choice((0.1, 1.0, 20.0)))
            raise OSError("timed out")
        if self._accepting is None:
            raise ConnectionRefusedError("nobody listens")
        self._count += 1
        connection = Connection(self._count, self._random, self.conditions)
        try:
            self._accepting.send_nowait(connection.server)
        except (trio.BrokenResourceError, trio.WouldBlock):
            raise ConnectionRefusedError("nobody listens") from None
        self._trace.note("connect", connection.number)
        self.connections.append(connection)
        return connection.client

    def listen(self) -> ServerListener:
        """The server's listener; there is one at a time."""
        for connection in self._forgotten:
            # Whoever still sends on it is told that it is not known here.
            connection.to_server.reset = connection.reset
        self._forgotten.clear()
        self._accepting, receiving = trio.open_memory_channel[End](64)
        return ServerListener(receiving)

    def server_died(self, *, silently: bool) -> None:
        """The server is gone with all of its connections."""
        self._accepting = None
        for connection in self.connections:
            connection.server_died(silently=silently)
        if silently:
            self._forgotten += self.connections
        self.connections.clear()


class ServerListener(trio.abc.Listener[End]):
    """What a server accepts connections from."""

    def __init__(self, receiving: trio.MemoryReceiveChannel[End]) -> None:
        self._receiving = receiving

    async def accept(self) -> End:
        """See `trio.abc.Listener`."""
        return await self._receiving.receive()

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        await self._receiving.aclose()
