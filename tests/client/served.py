"""A listener and a proxy in front of it, on trio in a thread: for clients that are not on trio."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio

from actors.listener import Listener
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import listening
from tests.client.test_retry import Proxy, proxied

T = TypeVar("T")

PATIENCE_S = 20.0
"""No test takes as long as this; then something hangs."""


class Served:
    """What a test does to the server while its client works."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.listener: Listener
        self.proxy: Proxy
        self._token: trio.lowlevel.TrioToken
        self._stop: trio.Event
        self._ready = threading.Event()
        self._error: BaseException | None = None

    @property
    def address(self) -> str:
        """The listener's."""
        return f"127.0.0.1:{self.listener.port}"

    @property
    def proxied(self) -> str:
        """The proxy's."""
        return f"127.0.0.1:{self.proxy.port}"

    def do(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function where the server runs."""
        return trio.from_thread.run_sync(function, *args, trio_token=self._token)

    async def run(self, **options: Any) -> None:
        """The server's thread."""
        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        async with (
            listening(self.host, **options) as self.listener,
            proxied(self.listener.port) as self.proxy,
        ):
            self._ready.set()
            await self._stop.wait()


@contextmanager
def served(host: FakeHost | None = None, **options: Any) -> Generator[Served]:
    """Serve a database of its own while the block runs."""
    scene = Served(host or FakeHost())

    def work() -> None:
        try:
            trio.run(lambda: scene.run(**options))
        except BaseException as error:  # noqa: ASYNC103 - raised in the test
            scene._error = error
            scene._ready.set()

    thread = threading.Thread(target=work, name="server")
    thread.start()
    scene._ready.wait(PATIENCE_S)
    if scene._error is not None:
        raise scene._error
    try:
        yield scene
    finally:
        scene.do(scene._stop.set)
        thread.join()


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """`asyncio.run`, bounded, in debug mode, where no task may be left and no error be logged."""

    async def bounded() -> T:
        loop = asyncio.get_running_loop()
        # Pure noise on a busy machine.
        loop.slow_callback_duration = 60
        loop.set_exception_handler(lambda _loop, context: faults.append(context))
        async with asyncio.timeout(PATIENCE_S):
            result = await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    faults: list[dict[str, Any]] = []
    result = asyncio.run(bounded(), debug=True)
    assert faults == []
    return result


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds; bounded by `run`."""
    while not condition():  # noqa: ASYNC110 - any condition, of code on another thread
        await asyncio.sleep(0.001)


def eventually_sync(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
