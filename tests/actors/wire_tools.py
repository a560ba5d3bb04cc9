"""Clients for tests of the listener: a well-behaved one over raw frames, and ways to misbehave."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio

from actors.host import Host
from actors.listener import Listener, accept_any, serve_listener
from actors.observability.requests import WireRequests
from actors.principal import Principal
from actors.wire import Authenticate, WireSettings
from protocol.connection import ClientConnection
from protocol.limits import Limits
from protocol.messages import Goodbye, Hello, Request, Welcome
from treestore.errors import Unauthenticated

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


@asynccontextmanager
async def listening(
    host: Host,
    settings: WireSettings | None = None,
    authenticate: Authenticate = accept_any,
    tls: ssl.SSLContext | None = None,
    requests: WireRequests | None = None,
) -> AsyncGenerator[Listener]:
    """A listener on loopback; stopped at the end."""
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(
                partial(
                    serve_listener,
                    host,
                    port=0,
                    settings=settings,
                    authenticate=authenticate,
                    tls=tls,
                    requests=requests,
                )
            )
            try:
                yield listener
            except BaseException as error:
                failure = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup:
        if failure is None:
            raise
    if failure is not None:
        raise failure


def only(key: str) -> Authenticate:
    """Lets in who has this key."""

    def authenticate(api_key: str | None, _peer: str) -> Principal:
        if api_key != key:
            raise Unauthenticated("The API key is not known.")
        return Principal()

    return authenticate


class RawClient:
    """A connection that sends and receives messages, and raw bytes on request."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.protocol = ClientConnection(Limits())
        self.received: list[Any] = []
        self.last_id = 0

    async def send(self, *messages: Any) -> None:
        for message in messages:
            sent = self.protocol.send(message)
            for chunk in [sent] if isinstance(sent, bytes) else sent:
                await self.stream.send_all(chunk)

    async def receive(self) -> Any:
        """The next message; None at the end."""
        while not self.received:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self.received += self.protocol.receive_data(bytes(data))
        return self.received.pop(0)

    async def hello(self, **fields: Any) -> Welcome | Goodbye:
        await self.send(Hello(**fields))
        answer = await self.receive()
        assert isinstance(answer, Welcome | Goodbye)
        return answer

    async def request(self, method: str, *, fields: dict[str, Any] | None = None, **params: Any):
        """Send a request; returns its id."""
        self.last_id += 1
        await self.send(
            Request(self.last_id, method, msgspec.Raw(encode(params)), **(fields or {}))
        )
        return self.last_id

    async def call(self, method: str, *, fields: dict[str, Any] | None = None, **params: Any):
        """Send a request and wait for the next message."""
        await self.request(method, fields=fields, **params)
        return await self.receive()


@asynccontextmanager
async def raw_client(listener: Listener, *, hello: bool = True) -> AsyncGenerator[RawClient]:
    stream = await trio.open_tcp_stream("127.0.0.1", listener.port)
    async with stream:
        client = RawClient(stream)
        if hello:
            assert isinstance(await client.hello(), Welcome)
        yield client


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds; bounded by the caller's `trio.fail_after`."""
    while not condition():  # noqa: ASYNC110 - any condition, of code that sets no event
        await trio.sleep(0.001)
