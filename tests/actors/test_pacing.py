"""New connections are taken at a pace, and not at all where their peer is gone."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from actors.pacing import Pace, PacedListener, is_gone
from actors.wire import WireSettings
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import encode, eventually, listening, raw_client


async def test_a_burst_then_one_after_the_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pace = Pace(10.0, 5)
    began = trio.current_time()
    for _ in range(5):
        await pace.wait()
    assert trio.current_time() == began
    for _ in range(20):
        await pace.wait()
    assert trio.current_time() - began == pytest.approx(2.0)
    await trio.sleep(100)
    began = trio.current_time()
    for _ in range(5):
        await pace.wait()
    assert trio.current_time() == began


async def test_who_left_is_dropped_before_anything_is_made_for_him() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    gone = await trio.open_tcp_stream("127.0.0.1", port)
    await gone.send_all(b"hello")
    await gone.aclose()
    stays = await trio.open_tcp_stream("127.0.0.1", port)
    paced = PacedListener(listeners[0], Pace(1000.0, 10))
    with trio.fail_after(30):
        taken = await paced.accept()
    async with stays, taken, paced:
        assert taken.socket.getpeername() == stays.socket.getsockname()
        assert not is_gone(taken)


async def test_open_connections_are_served_while_others_wait_their_turn() -> None:
    settings = attrs.evolve(WireSettings(), connections_max=2, connection_rate_max=0.001)
    with trio.fail_after(10):
        async with (
            listening(FakeHost(), settings) as listener,
            raw_client(listener) as first,
            raw_client(listener),
            raw_client(listener, hello=False) as third,
        ):
            await third.stream.send_all(encode(b"anything"))
            await first.call("kv.get", key=b"x")
            await eventually(lambda: listener.statistics().requests == 1)
            assert listener.statistics().connections_total == 2
